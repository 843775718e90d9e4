"""One forward pass in which every tensor carries the labels of its neurons.

Layers with neurons of their own (convolutions, linear layers, per-channel norms, ...) are handled as a
whole, at their call. Everything between them is followed operation by operation, below autograd, so it
does not matter how the model's code is written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from .. import attention, layers
from ..inputs import Inputs, call, tensors_in
from .labels import Classes, compress, core, spread, varying
from .rules import Constraints, combine, rule_for

_RAW_LIMIT = 2**22  # larger parameters outside layers (token embeddings) are kept


class Walk(TorchDispatchMode):
    """Follows forward passes of one model and collects what they couple.

    Attributes:
        classes: labels and their classes.
        constraints: what is judged at the end.
        produced: layer -> labels of its output channels, (out,).
        consumed: layer -> labels of its input columns, (in,), 0 where no neuron owns them.
        between: per-channel layer -> labels of its channels, (channels,).
        raw: parameter or buffer outside the known layers -> labels of its elements.
        products: (multiply-adds, labels, module) of products of activations, and with parameters.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.classes, self.constraints = Classes(), Constraints()
        self.produced: dict[str, Tensor] = {}
        self.consumed: dict[str, Tensor] = {}
        self.between: dict[str, Tensor] = {}
        self.raw: dict[str, Tensor] = {}
        self.products: list[tuple[float, Tensor, str]] = []
        self._labels = WeakTensorKeyDictionary()
        self._weights = WeakTensorKeyDictionary()  # views of parameters: (name, transposed)
        self._stack: list[str] = []
        self._inside = 0
        self._counting = True
        self._tensors: dict[int, str] = {}
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            self._tensors.setdefault(id(tensor), name)
        self._owners = {name: m for name, m in model.named_modules() if _is_weighted(m)}

    # -- passes ------------------------------------------------------------------------------------

    def run(self, inputs: Inputs) -> Any:
        """One forward pass; the outputs' neurons are kept.

        Raises:
            Exception: whatever the model raises.
        """
        with self._hooks(), torch.no_grad(), attention.unfused(), torch.compiler.set_stance("force_eager"), self:
            output = call(self.model, inputs)
        for tensor in tensors_in(output):
            labels = self.get(tensor)
            if labels is not None:
                self.classes.pin(labels, "it is an output of the model")
        self._counting = False
        return output

    @contextlib.contextmanager
    def _hooks(self) -> Iterator[None]:
        handles = []
        for name, module in self.model.named_modules():
            handles.append(module.register_forward_pre_hook(_Enter(self, name), prepend=True))
            handles.append(
                module.register_forward_hook(_Leave(self, name), with_kwargs=True, always_call=True)
            )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._stack.clear()
            self._inside = 0

    def enter(self, name: str, module: nn.Module) -> None:
        """A module begins."""
        self._stack.append(name)
        if _known(module):
            self._inside += 1

    def leave(self, name: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """A module ends; the rule of a known layer is applied to what came out."""
        self._stack.pop()
        if not _known(module):
            return
        self._inside -= 1
        if self._inside:
            return
        x = args[0] if args else next((v for v in kwargs.values() if isinstance(v, Tensor)), None)
        if isinstance(x, Tensor) and isinstance(output, Tensor):
            self._layer(name, module, x, output)
        else:
            self._keep([*args, *kwargs.values()], f"no rule for {type(module).__name__} ({name})")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, then work out the labels of what it returned."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if self._inside:
            return out
        with torch.utils._python_dispatch._disable_current_modes():
            self._operation(func, args, kwargs, out)
        return out

    def _operation(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        name = func._schema.name.split("::")[-1]
        if name in ("t", "transpose", "detach", "alias") and (weight := self._weight_of(args[0])):
            turned = name in ("t", "transpose")
            if args[0].dim() == 2 and self._labels.get(args[0]) is None:
                self._weights[out] = (weight[0], weight[1] != turned)
                return  # labelled when it turns out to be used otherwise than as a matrix
        if name in ("mm", "addmm", "bmm", "matmul"):
            left, right = args[1:3] if name == "addmm" else args[:2]
            weight = self._weight_of(right)
            if weight is not None and weight[1] and self.get(left) is not None:
                self._set(out, self._functional(weight[0], left, out, args[0] if name == "addmm" else None))
                return
        parts = torch.utils._pytree.tree_leaves((args, kwargs))
        if not any(isinstance(p, Tensor) and self.get(p) is not None for p in parts):
            return
        rule = rule_for(func)
        if rule is None:
            self._keep(parts, f"no rule for the operation {name}{self.where()}")
            return
        try:
            found = rule(self, func, args, kwargs, out)
        except Exception as error:
            self._keep(parts, f"the operation {name}{self.where()} cannot be followed ({type(error).__name__}: {error})")
            return
        outs = out if isinstance(out, (tuple, list)) else [out]
        labels = found if isinstance(found, (tuple, list)) else [found] * len(outs)
        for tensor, own in zip(outs, labels, strict=False):
            if isinstance(tensor, Tensor) and own is not None and own.shape == tensor.shape:
                self._set(tensor, own)
            elif isinstance(tensor, Tensor) and own is not None:
                self._keep(parts, f"the operation {name}{self.where()} cannot be followed")

    # -- the store of labels -------------------------------------------------------------------------

    def get(self, tensor: Any) -> Tensor | None:
        """Labels of a tensor; parameters outside known layers get theirs when first met."""
        if not isinstance(tensor, Tensor):
            return None
        found = self._labels.get(tensor)
        if found is not None:
            return found
        if id(tensor) in self._tensors:
            found = self._raw_labels(self._tensors[id(tensor)], tensor)
        elif tensor in self._weights:
            name, turned = self._weights[tensor]
            found = self._raw_labels(name, tensor.t() if turned else tensor)
            found = None if found is None else found.t() if turned else found
        if found is not None:
            self._labels[tensor] = found
        return found

    def _set(self, tensor: Tensor, labels: Tensor | None) -> None:
        if labels is not None and bool((core(labels) != 0).any()):
            self._labels[tensor] = labels

    def _raw_labels(self, name: str, tensor: Tensor) -> Tensor | None:
        owner, _, own = name.rpartition(".")
        module = self._owners.get(owner)
        if module is not None:
            return self._rows(owner, module) if own == "bias" else None
        if not tensor.is_floating_point() or tensor.numel() <= 1 or tensor.numel() > _RAW_LIMIT:
            return None
        if name not in self.raw:
            self.raw[name] = self.classes.new(tensor.numel(), raw=True).reshape(tensor.shape)
        return self.raw[name]

    def name_of(self, tensor: Tensor) -> str:
        """Name of a parameter or buffer, or an empty string."""
        return self._tensors.get(id(tensor), "")

    def where(self) -> str:
        """The module that runs, in brackets, for messages."""
        return f" ({self._stack[-1]})" if self._stack and self._stack[-1] else ""

    def macs(self, count: float, labels: Tensor) -> None:
        """Remember the price of a product of activations; the first pass alone is priced."""
        if self._counting:
            self.products.append((count, core(labels), self._stack[-1]))

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

    # -- layers --------------------------------------------------------------------------------------

    def _rows(self, name: str, module: nn.Module) -> Tensor:
        if name not in self.produced:
            self.produced[name] = self.classes.new(layers.out_width(module))
        return self.produced[name]

    def _layer(self, name: str, module: nn.Module, x: Tensor, out: Tensor) -> None:
        """The rule of a layer that is called as a module."""
        labels = self.get(x)
        if isinstance(module, nn.PReLU) and module.num_parameters == 1:
            self._set(out, labels)
            return
        if isinstance(module, layers.PER_CHANNEL):
            dim = 1 if x.dim() > 1 else 0
            if isinstance(module, nn.GroupNorm):
                if labels is not None:
                    parts = compress(self._columns(labels, dim, name).reshape(module.num_groups, -1))
                    self.classes.along(parts, [1], f"group norm reads across its channels ({name})")
            elif isinstance(module, _INSTANCE) and x.dim() == _INSTANCE_DIMS[type(module)] - 1:
                dim = 0
            self._channels(name, labels, dim, x, out)
            return
        linear = isinstance(module, nn.Linear)
        dim = x.dim() - 1 if linear else x.dim() - (module.weight.dim() - 2) - 1  # type: ignore[union-attr, operator]
        if layers.is_conv(module) and module.groups > 1:
            self._grouped(name, module, labels, dim, out)
            return
        if labels is not None:
            columns = self._columns(labels, dim, name)
            if name in self.consumed:
                self.classes.unite(self.consumed[name], columns)
            else:
                self.consumed[name] = columns
        elif name in self.consumed:
            self.classes.pin(self.consumed[name], f"{name} also reads what no neuron owns")
        else:
            self.consumed[name] = torch.zeros(layers.in_width(module), dtype=torch.long)
        if not (layers.is_conv(module) or layers.is_linear(module)):
            why = f"{type(module).__name__} ({name}) is no plain layer"
            self._keep([x], why)
            self.classes.pin(self._rows(name, module), why)
        out_dim = out.dim() - 1 if linear else dim
        self._set(out, spread(self._rows(name, module), out_dim, out.shape))

    def _columns(self, labels: Tensor, dim: int, name: str) -> Tensor:
        """(channels,) labels along one dimension; other dimensions must not tell neurons apart."""
        labels = self.classes.along(
            labels, [d for d in range(labels.dim()) if d != dim], f"{name} reads across its channels"
        )
        at = [slice(None) if d == dim else 0 for d in range(labels.dim())]
        return labels[tuple(at)].clone()

    def _channels(self, name: str, labels: Tensor | None, dim: int, x: Tensor, out: Tensor) -> None:
        if labels is None:
            columns = torch.zeros(x.shape[dim], dtype=torch.long)
        else:
            columns = self._columns(labels, dim, name)
        self._note_between(name, columns)
        self._set(out, spread(columns, dim, out.shape))

    def _note_between(self, name: str, columns: Tensor) -> None:
        if name in self.between:
            self.classes.unite(self.between[name], columns)
        else:
            self.between[name] = columns

    def _grouped(self, name: str, module: Any, labels: Tensor | None, dim: int, out: Tensor) -> None:
        """A grouped convolution: inputs and outputs of one of its groups are one neuron."""
        width, count = module.out_channels, module.groups
        if labels is None:
            return
        columns = compress(self._columns(labels, dim, name).reshape(count, -1))
        why = f"grouped convolution ({name})" if columns.shape[1] > 1 else ""
        inner = self.classes.along(columns, [1], why)[:, 0]
        if bool((columns == 0).any()):
            self.classes.pin(columns, f"{name} also reads what no neuron owns")
            inner = torch.zeros_like(inner)
        rows = inner.repeat_interleave(width // count)
        self._note_between(name, rows)
        self._set(out, spread(rows, dim, out.shape))

    def _functional(self, weight: str, x: Tensor, out: Tensor, bias: Any) -> Tensor:
        """A matrix product with a parameter: its rows are neurons, its inputs stay."""
        owner, _, own = weight.rpartition(".")
        module = self._owners.get(owner)
        labels = self.get(x)
        assert labels is not None
        named = owner if module is not None else weight
        self.classes.pin(labels, f"the weights of {named} are used outside the call of a layer")
        if module is not None:
            rows = self._rows(owner, module)
        else:
            rows = self._matrix_rows(weight)
        if rows is None or len(rows) != out.shape[-1]:
            return torch.zeros((), dtype=torch.long).expand(out.shape)
        found = spread(rows, out.dim() - 1, out.shape)
        if self._counting:
            self.products.append((x.numel() * len(rows), rows, self._stack[-1]))
        if isinstance(bias, Tensor):
            combined = combine_bias(self, found, bias)
            return combined
        return found

    def _matrix_rows(self, name: str) -> Tensor | None:
        tensor = self.model.get_parameter(name)
        if name not in self.raw:
            rows = self.classes.new(tensor.shape[0])
            self.raw[name] = rows.reshape(-1, *[1] * (tensor.dim() - 1)).expand(tensor.shape)
        labels = self.raw[name]
        return labels[:, 0].clone() if varying(labels) in ((0,), ()) else None


def combine_bias(walk: Walk, labels: Tensor, bias: Tensor) -> Tensor:
    """Labels of a product plus a bias, which lives and dies with the rows."""
    theirs = walk.get(bias)
    if theirs is not None:
        theirs = compress(theirs.expand(labels.shape))
        walk.classes.unite(core(labels), core(theirs))
    return labels


_INSTANCE = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_INSTANCE_DIMS = {nn.InstanceNorm1d: 3, nn.InstanceNorm2d: 4, nn.InstanceNorm3d: 5}


def _is_weighted(module: nn.Module) -> bool:
    return layers.is_conv(module) or isinstance(module, nn.Linear)


def _known(module: nn.Module) -> bool:
    """Modules that are handled as a whole."""
    return (
        _is_weighted(module)
        or isinstance(module, (*layers.PER_CHANNEL, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention))
    ) and not attention.is_open(module)


class _Enter:
    def __init__(self, walk: Walk, name: str) -> None:
        self.walk, self.name = walk, name

    def __call__(self, module: nn.Module, _args: Any) -> None:
        self.walk.enter(self.name, module)


class _Leave:
    def __init__(self, walk: Walk, name: str) -> None:
        self.walk, self.name = walk, name

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        with torch.utils._python_dispatch._disable_current_modes():
            self.walk.leave(self.name, module, args, kwargs, output)
