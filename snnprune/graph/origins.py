"""Where tensors without labels come from: of the model, filled with a number, or drawn at random."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from .. import layers
from ..draws import is_random
from .ops import Blank

_FILLING = ("zeros", "ones", "empty", "full", "new_zeros", "new_ones", "new_empty", "new_full")


class Blanks:
    """Tensors filled with a number, and views of such."""

    def __init__(self) -> None:
        self._known = WeakTensorKeyDictionary()  # tensor -> (the one that was filled, whether all of it)

    def note(self, name: str, func: Any, args: Any, out: Any) -> None:
        """Look at an operation.

        Args:
            name: of the operation.
            func: the operation.
            args: that it was given.
            out: what it returned.
        """
        if name in _FILLING:
            self._known[out] = Blank(tuple(out.shape)), True
        elif func.is_view and args[0] in self._known and isinstance(out, Tensor):
            blank, whole = self._known[args[0]]
            self._known[out] = blank, whole and name in ("detach", "alias")

    def of(self, tensor: Any) -> Blank | None:
        """The filled tensor of which this is a part; None where it is of none."""
        return self._known[tensor][0] if isinstance(tensor, Tensor) and tensor in self._known else None

    def labels(self, tensor: Tensor) -> Tensor | None:
        """Labels that were written into a filled tensor, of all of it alone."""
        return self._known[tensor][0].labels if tensor in self._known and self._known[tensor][1] else None


class Drawn:
    """Tensors of which nothing but drawn numbers went in."""

    def __init__(self) -> None:
        self._known = WeakTensorKeyDictionary()

    def __contains__(self, tensor: object) -> bool:
        return isinstance(tensor, Tensor) and tensor in self._known

    def note(self, func: Any, parts: Iterable[Any], out: Any) -> None:
        """Look at an operation on tensors without labels."""
        sources = [p for p in parts if isinstance(p, Tensor) and p.numel() > 1]
        if is_random(func) or (sources and all(p in self for p in sources)):
            for tensor in tree_leaves(out):
                if isinstance(tensor, Tensor):
                    self._known[tensor] = True


def names_of(model: nn.Module) -> dict[int, str]:
    """Names of parameters and buffers by `id`; of several, the one under which a layer has neurons."""
    found: dict[int, str] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        found.setdefault(id(tensor), name)
    for owner, module in model.named_modules():
        if layers.is_weighted(module):
            prefix = f"{owner}." if owner else ""
            found.update({id(t): prefix + own for own, t in module._parameters.items() if t is not None})
    return found
