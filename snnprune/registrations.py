"""What users add to the tables of rules, and how it is undone."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType


class Registration:
    """A rule of the user's own that is in force, until it is removed.

    Rules hold for the whole process. As a context manager the rule ends with its block, which suits tests.

    Args:
        name: of what the rule is for.
        undo: takes the rule out again.

    Attributes:
        name: of what the rule is for: a class, or an operation such as `mylib::shift`.

    Example:
        >>> class Tint(torch.nn.Module):
        ...     def __init__(self, width):
        ...         super().__init__()
        ...         self.tint = torch.nn.Parameter(torch.rand(width))
        >>> with snnprune.register_layer(Tint, channels={"tint": 0}) as rule:
        ...     print(rule.name)
        Tint
    """

    def __init__(self, name: str, undo: Callable[[], None]) -> None:
        self.name = name
        self._undo: Callable[[], None] | None = undo

    def remove(self) -> None:
        """Take the rule out again; safe to call twice."""
        if self._undo is not None:
            self._undo()
            self._undo = None

    def __enter__(self) -> Registration:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        return f"<rule for {self.name}{'' if self._undo else ', removed'}>"
