"""One forward pass in which every tensor carries the labels of its neurons.

Layers with neurons of their own (convolutions, linear layers, per-channel norms, ...) are handled as a
whole, at their call. Everything between them is followed operation by operation, below autograd, so it
does not matter how the model's code is written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from .. import layers
from ..errors import first_line
from ..inputs import Inputs, call, tensors_in
from ..layers import attention
from ..layers.numbers import exchanged
from .hooks import hooked
from .labels import Classes, compress, core, varying
from .ledger import Ledger, is_known
from .ops import Blank, Constraints, OperationCall, OperationRule, operation
from .origins import Blanks, Drawn, names_of
from .outputs import paths_of, selected
from .rules import functions_through, rule_for
from .sizing import Sizes


class Walk(TorchDispatchMode):
    """Follows forward passes of one model; what it finds is in its `ledger`.

    Attributes:
        model: the network.
        ledger: what was found.
        outputs: paths of the outputs that matter; none for all.
        modules: of the model, by name.
        entered: names of those that ran.
        doubts: module -> widths of what may be read there by a layer that does not run, and the name of one.
    """

    def __init__(self, model: nn.Module, outputs: Sequence[str] = ()) -> None:
        super().__init__()
        self.outputs = outputs
        self.returned: list[str] = []  # paths of what the last pass returned
        self.model, self.ledger = model, Ledger(model)
        self._labels = WeakTensorKeyDictionary()
        self._weights = WeakTensorKeyDictionary()  # views of parameters: (name, transposed)
        self._drawn, self._blanks = Drawn(), Blanks()
        self._stack: list[str] = []
        self.calls: list[tuple[str, int]] = []  # modules that run, and the number of their call
        self._count = 0
        self._inside = 0
        self.modules = dict(model.named_modules())
        self.entered: set[str] = set()
        self.doubts: dict[str, tuple[set[int], str]] = {}
        self.sizes = Sizes(self)
        self._tensors = names_of(model)

    @property
    def classes(self) -> Classes:
        """Labels and their classes."""
        return self.ledger.classes

    @property
    def constraints(self) -> Constraints:
        """What is judged at the end."""
        return self.ledger.constraints

    # -- passes ------------------------------------------------------------------------------------

    def run(self, inputs: Inputs) -> Any:
        """One forward pass; the outputs' neurons are kept.

        Raises:
            Exception: whatever the model raises.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(exchanged(self.model, self.sizes.number))
            for context in (hooked(self), functions_through(self.function), torch.no_grad(), attention.unfused()):
                stack.enter_context(context)
            stack.enter_context(self)
            stack.enter_context(self.sizes)
            output = call(self.model, inputs)
        self.returned = [path for path, _ in paths_of(output)]
        for tensor in selected(output, self.outputs):
            labels = self.get(tensor)
            if labels is not None:
                self.classes.pin(labels, "it is an output of the model")
        self.ledger.pricing = False
        return output

    def function(self, cls: Any, forward: Any, given: tuple[Any, ...], args: tuple[Any, ...]) -> Any:
        """Run an autograd function with a rule as one operation, then work out the labels of what it returned.

        Args:
            cls: its class.
            forward: what computes it.
            given: the arguments of `forward`.
            args: those among them that the function was called with.
        """
        self._inside += 1
        try:
            out = forward(*given)
        finally:
            self._inside -= 1
        rule = rule_for(cls)
        if not self._inside and rule is not None:
            with _disable_current_modes():
                self._apply(rule, OperationCall(args, {}, out, cls, self))
        return out

    def enter(self, name: str, module: nn.Module, args: Any) -> None:
        """A module begins."""
        self._stack.append(name)
        self.entered.add(name)
        self._count += 1
        self.calls.append((name, self._count))
        for tensor in tensors_in(list(args)) if self.doubts else ():
            self._doubt(self.get(tensor))
        if is_known(module):
            self._inside += 1

    def reset(self) -> None:
        """A pass is over, perhaps by an exception."""
        self._stack.clear()
        self.calls.clear()
        self._inside = 0

    def leave(self, name: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """A module ends; the rule of a known layer is applied to what came out."""
        self._stack.pop()
        self.calls.pop()
        if not is_known(module):
            for tensor in tensors_in(output) if self.doubts else ():
                self._doubt(self.get(tensor))
            return
        self._inside -= 1
        if self._inside:
            return
        x = args[0] if args else next((v for v in kwargs.values() if isinstance(v, Tensor)), None)
        if isinstance(x, Tensor) and (
            isinstance(output, Tensor) or (layers.is_reading(module) and output is not None)
        ):
            further = [v for v in (*args, *kwargs.values()) if v is not x]
            self._keep(further, f"{name} takes it besides its input, and no rule says what becomes of it")
            labels = self.get(x)
            if labels is not None and (count := layers.parts_of_input(module, further)) > 1:
                self.classes.along(compress(labels.unflatten(-3, (count, -1))), [-4])
            found = self.ledger.layer(name, module, labels, x, output)
            if isinstance(output, Tensor):
                self._set(output, found)
            kind = layers.kind_of(module)
            if kind is not None and kind.own and not kind.found:
                for labels in (self.get(x), found):
                    self.ledger.note_rule(labels, kind.rule)
        elif output is not None:  # None after an exception
            self._keep([*args, *kwargs.values()], f"no rule for {type(module).__name__} ({name})")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, then work out the labels of what it returned."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if self._inside:
            return out
        with _disable_current_modes():
            self._operation(func, args, kwargs, out)
        return out

    def _operation(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        name = operation(func)
        if name in ("t", "transpose", "detach", "alias") and (weight := self._weight_of(args[0])):
            turned = name in ("t", "transpose")
            if args[0].dim() == 2 and self._labels.get(args[0]) is None:
                self._weights[out] = (weight[0], weight[1] != turned)
                return  # labelled when it turns out to be used otherwise than as a matrix
        if name in ("mm", "addmm") and self._matrix_product(args, out, addend=name == "addmm"):
            return
        parts = tree_leaves((args, kwargs))
        self._blanks.note(name, func, args, out)
        if not any(isinstance(p, Tensor) and self.get(p) is not None for p in parts):
            self._drawn.note(func, parts, out)
            return
        outs = [o for o in tree_leaves(out) if isinstance(o, Tensor)]
        if outs and not any(o.numel() for o in outs):
            for part in parts:
                if isinstance(part, Tensor) and part.numel() and (labels := self.get(part)) is not None:
                    self.ledger.vanish(labels)
            return
        rule = rule_for(func)
        if rule is None:
            named = next((f" with the parameter {n!r}" for p in parts if (n := self.name_of(p))), "")
            self._keep(parts, f"no rule for the operation {name}{named}{self.where()}")
            return
        self._apply(rule, OperationCall(args, kwargs, out, func, self))

    def _apply(self, rule: OperationRule, call: OperationCall) -> None:
        """Label the results of an operation by its rule; where that fails, keep what went in."""
        parts = tree_leaves((call.args, call.kwargs))
        failed = f"the operation {operation(call.func)}{self.where()} cannot be followed"
        if rule.own:
            failed += f" by the rule for {rule.name}"
            for part in parts:
                self.ledger.note_rule(self.get(part), rule.name)
        try:
            found = rule.rule(call)
        except Exception as error:  # whatever a rule raises
            self._keep(parts, f"{failed} ({type(error).__name__}: {first_line(error)})")
            return
        outs = call.out if isinstance(call.out, (tuple, list)) else [call.out]
        labels = found if isinstance(found, (tuple, list)) else [found] * len(outs)
        for tensor, own in zip(outs, labels, strict=False):
            if not isinstance(tensor, Tensor) or own is None:
                continue
            if (not rule.own or self.classes.known(own)) and own.shape == tensor.shape:
                self._set(tensor, own)
            else:
                self._keep(parts, f"{failed} (its labels do not fit the result)" if rule.own else failed)

    def _matrix_product(self, args: Any, out: Tensor, *, addend: bool) -> bool:
        """A product with a matrix of parameters; False when it is one of activations."""
        left, right = args[1:3] if addend else args[:2]
        weight, labels = self._weight_of(right), self.get(left)
        if weight is None or (labels is None and not weight[1]):
            return False
        bias = self.get(args[0]) if addend else None
        where = self._stack[-1] if self._stack else ""
        self._set(out, self.ledger.functional(weight, labels, left, out, bias, where))
        return True

    # -- the store of labels -------------------------------------------------------------------------

    def get(self, tensor: Any) -> Tensor | None:
        """Labels of a tensor; parameters outside known layers get theirs when first met."""
        if not isinstance(tensor, Tensor):
            return None
        found = self._labels.get(tensor)
        if found is not None:
            return found
        if id(tensor) in self._tensors:
            found = self.ledger.of_parameter(self._tensors[id(tensor)], tensor)
        elif tensor in self._weights:
            name, turned = self._weights[tensor]
            found = self.ledger.of_parameter(name, tensor.t() if turned else tensor)
            found = None if found is None else found.t() if turned else found
        else:
            found = self._blanks.labels(tensor)
        if found is not None:
            self._labels[tensor] = found
        return found

    def labels_of(self, tensor: Any) -> Tensor | None:
        """Labels that a tensor has already."""
        return self._labels.get(tensor) if isinstance(tensor, Tensor) else None

    @property
    def busy(self) -> bool:
        """Whether a layer runs that is handled as a whole."""
        return self._inside > 0

    @property
    def splitting(self) -> bool:
        """Whether the sizes of the split that runs are known to the code's letter."""
        return self.sizes.splitting

    def slices(self, dim: int, start: int, stop: int) -> bool:
        """Whether the bounds of the slice that runs are seen as the code gives them."""
        return any((cut.dim, cut.start, cut.stop) == (dim, start, stop) for cut in self.sizes.slices)

    def _set(self, tensor: Tensor, labels: Tensor | None) -> None:
        if labels is not None and bool((core(labels) != 0).any()):
            self._labels[tensor] = labels
            self._doubt(labels)

    def _doubt(self, labels: Tensor | None) -> None:
        """Keep what a layer may read that the example does not reach."""
        widths, name = self.doubts.get(self._stack[-1] if self._stack else "", (set[int](), ""))
        if labels is not None and any(labels.shape[dim] in widths for dim in varying(labels)):
            self.classes.pin(labels, f"{name} may read it, which the example does not reach")

    def drawn(self, tensor: Tensor) -> bool:
        """Whether a tensor was drawn at random, and perhaps compared, scaled or reshaped since."""
        return tensor in self._drawn

    def blank(self, tensor: Any) -> Blank | None:
        """The tensor filled with a number of which this is a part; None where it is of none."""
        return self._blanks.of(tensor)

    def rows_of(self, weight: Tensor, dim: int) -> Tensor | None:
        """Labels of what a weight of the code's own makes, one per slice along `dim`; or None."""
        name = self.name_of(weight)
        if name:
            return self.ledger.made_by(name, dim)
        labels = self.get(weight)
        if labels is None or not self.classes.of_parameters(labels):
            return None
        line = self.classes.along(labels, [d for d in range(labels.dim()) if d != dim]).movedim(dim, 0)
        self.classes.make(labels)
        return line.flatten(1)[:, 0].clone()

    def name_of(self, tensor: Any) -> str:
        """Name of a parameter or buffer, or an empty string."""
        return self._tensors.get(id(tensor), "")

    def where(self) -> str:
        """The module that runs, in brackets, for messages."""
        return f" ({self._stack[-1]})" if self._stack and self._stack[-1] else ""

    def macs(self, count: float, labels: Tensor) -> None:
        """Remember the price of a product of activations; the first pass alone is priced."""
        self.ledger.price(count, labels, self._stack[-1] if self._stack else "")

    def _keep(self, values: Any, why: str) -> None:
        for value in tensors_in(list(values)):
            labels = self.get(value)
            if labels is not None:
                self.classes.pin(labels, why)

    def _weight_of(self, tensor: Any) -> tuple[str, bool] | None:
        """(name, whether it is transposed) of a matrix of parameters."""
        if not isinstance(tensor, Tensor) or tensor.dim() != 2:
            return None
        name = self._tensors.get(id(tensor))
        return (name, False) if name is not None else self._weights.get(tensor)
