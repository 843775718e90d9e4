"""Who is inside a gated model: one thread at a time, in blocks that may lie in one another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..errors import AttachError


def _nothing() -> None:
    pass


class Eager:
    """Holds compiled code back, which would not see the scales change.

    Args:
        needed: whether the model is compiled; else nothing is done.
    """

    def __init__(self, needed: bool) -> None:
        self.needed = needed
        self._stance: Any = None

    def begin(self) -> None:
        """From now on PyTorch runs the model's own code."""
        if self.needed:
            self._stance = torch.compiler.set_stance("force_eager")

    def end(self) -> None:
        """As it was before."""
        if self._stance is not None:
            self._stance.__exit__(None, None, None)
            self._stance = None


class Blocks:
    """The blocks of code in which scales are at work, and the thread that they belong to.

    Scales are shared by all layers of a model, and in training they carry the graph of one backward pass. A second
    thread would change them under the first one, without an error: so it is refused, before anything has changed.
    Blocks need not end in the order in which they began, nor in the thread that began them, because a generator
    that holds one ends when Python comes to it.

    Args:
        first: what to do when a block opens and no other is open; if it fails, none is.
        last: what to do when no block is open any more.
        calls: whether calls of the model itself, in no `enter`, are blocks, too.
    """

    def __init__(
        self, first: Callable[[], None] = _nothing, last: Callable[[], None] = _nothing, *, calls: bool = True
    ) -> None:
        self._first, self._last, self._counts_calls = first, last, calls
        self._lock = threading.RLock()  # Python may end a generator in the middle of these lines
        self._open: dict[object, int] = {}  # block -> its thread
        self._calls: dict[int, object] = {}  # thread -> the block of its call of the model itself

    def __bool__(self) -> bool:
        """Whether any is open."""
        return bool(self._open)

    def enter(self) -> object:
        """Open a block; returns what `leave` needs.

        Raises:
            AttachError: a block of another thread is open.
        """
        with self._lock:
            self.admit()
            if not self._open:
                self._first()
            block = object()
            self._open[block] = threading.get_ident()
            return block

    def admit(self) -> None:
        """Refuse a thread while a block of another one is open.

        Raises:
            AttachError: one is.
        """
        # The backward pass repeats what was checkpointed in threads of its own, while that of the block waits.
        if not self._open or torch._C._current_graph_task_id() != -1:
            return
        own = threading.get_ident()
        if any(thread != own for thread in list(self._open.values())):
            raise AttachError(
                "a gated model is used by two threads at once, which would change each other's scales. Put a lock "
                "around its calls, or give every thread a model of its own: gated.compact(), or a deep copy."
            )

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Other threads wait until the `with` block ends; nothing is opened.

        Raises:
            AttachError: a block of another thread is open.
        """
        with self._lock:
            self.admit()
            yield

    def leave(self, block: object) -> None:
        """Close a block; closing it again does nothing."""
        with self._lock:
            if self._open.pop(block, None) is not None and not self._open:
                self._last()

    def begin_call(self) -> None:
        """A block for a call of the model itself, until this thread's `end_call` or its next call.

        Raises:
            AttachError: a block of another thread is open.
        """
        if self._counts_calls:
            self.end_call()  # of one that Ctrl-C has ended, of which hooks do not hear
            self._calls[threading.get_ident()] = self.enter()

    def end_call(self) -> None:
        """The call has ended."""
        self.leave(self._calls.pop(threading.get_ident(), None))

    def close(self) -> None:
        """Close them all, whoever has them open."""
        with self._lock:
            was_open = bool(self._open)
            self._open.clear()
            self._calls.clear()
            if was_open:
                self._last()
