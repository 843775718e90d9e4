"""Multiply-adds of one forward pass, counted operation by operation.

PyTorch's own counter knows convolutions, matrix products and most kernels of attention. Others that are made of
the same multiply-adds are counted here by the same rule, so that a network costs the same whatever kernel its
device, data type or version of PyTorch picks. Biases, norms, activations, pooling and interpolation count
nothing.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakTensorKeyDictionary

from ..inputs import Inputs, batch_size, call
from ..layers import attention, is_own, is_reading, is_weighted
from .formulas import formulas

logger = logging.getLogger(__name__)

# Operations of PyTorch that take a weight and multiply nothing with it: they look rows up, move, compare or norm.
# Without leading and trailing underscores.
_FREE = frozenset(
    [
        "allclose",
        "batch_norm_elemt",
        "batch_norm_no_update",
        "batch_norm_with_update",
        "bucketize",
        "cat",
        "copy",
        "cudnn_batch_norm",
        "dist",
        "embedding",
        "embedding_bag",
        "embedding_bag_forward_only",
        "embedding_renorm",
        "equal",
        "expand_as",
        "fake_quantize_learnable_per_channel_affine",
        "fake_quantize_learnable_per_tensor_affine",
        "fake_quantize_per_channel_affine",
        "fake_quantize_per_channel_affine_cachemask",
        "fake_quantize_per_tensor_affine",
        "fake_quantize_per_tensor_affine_cachemask",
        "foreach_add",
        "fused_rms_norm",
        "gather",
        "grid_sampler",
        "index",
        "index_add",
        "index_copy",
        "index_fill",
        "index_put",
        "index_put_impl",
        "index_select",
        "isclose",
        "lerp",
        "masked_fill",
        "masked_scatter",
        "masked_select",
        "miopen_batch_norm",
        "native_batch_norm",
        "native_batch_norm_legit",
        "native_batch_norm_legit_no_training",
        "native_group_norm",
        "native_instance_norm",
        "native_layer_norm",
        "prelu",
        "prelu_kernel",
        "reshape_as",
        "resize",
        "resize_as",
        "rms_norm",
        "rrelu_with_noise",
        "scatter",
        "scatter_add",
        "scatter_reduce",
        "searchsorted",
        "select_scatter",
        "set",
        "slice_scatter",
        "stack",
        "take",
        "thnn_fused_gru_cell",
        "thnn_fused_lstm_cell",
        "view_as",
        "weight_norm_interface",
        "where",
    ]
)


@dataclass(frozen=True, slots=True)
class MacCount:
    """Multiply-adds of one forward pass for one input.

    Attributes:
        total: of the whole network.
        layers: of every layer with a weight (convolutions, linear layers, users' own) that was called as a module,
            over all its calls.
        unpriced: operations that take weights and are not counted, as `operation (module)`.
    """

    total: int
    layers: dict[str, float]
    unpriced: tuple[str, ...]


def count_macs(model: nn.Module, example_inputs: Inputs) -> int:
    """Multiply-adds of one forward pass, for one input.

    Args:
        model: the network; its mode is left alone.
        example_inputs: a batch of any size; the count is divided by it.
    """
    return price(model, example_inputs).total


def price(model: nn.Module, example_inputs: Inputs) -> MacCount:
    """Multiply-adds of one forward pass in evaluation mode, whole and by layer, and what is not counted.

    Args:
        model: the network; its mode is left alone.
        example_inputs: a batch of any size; counts are divided by it.
    """
    modes = {module: module.training for module in model.modules()}
    flags = {p: p.requires_grad for p in model.parameters()}
    counter = FlopCounterMode(display=False, custom_mapping=formulas())
    watch = _Watch(model, counter)
    try:
        model.eval().requires_grad_(False)  # the counter trips over parameters passed to modules otherwise
        with torch.inference_mode(False), torch.no_grad(), attention.unfused(), counter, watch.on(), watch:
            call(model, example_inputs)
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
    batch = batch_size(example_inputs)
    layers = {name: flops / 2 / batch for name, flops in watch.layers.items()}
    return MacCount(round(counter.get_total_flops() / 2 / batch), layers, tuple(watch.unpriced))


def warn_of_unpriced(counted: MacCount) -> None:
    """Log a warning when multiply-adds are missing in a count."""
    if counted.unpriced:
        logger.warning(
            "the multiply-adds of %s are not counted: they take weights, and how much they do with them is "
            "unknown. MACs, and targets on them, speak of the rest of the network",
            ", ".join(counted.unpriced[:5])
            + (f" and {len(counted.unpriced) - 5} more" if counted.unpriced[5:] else ""),
        )


class _Watch(TorchDispatchMode):
    """Sees every operation before the counter does: in which layer it runs, and whether it is counted."""

    def __init__(self, model: nn.Module, counter: FlopCounterMode) -> None:
        super().__init__()
        self.model, self.counter = model, counter
        self.layers: dict[str, float] = {}
        self.unpriced: dict[str, None] = {}
        self._stack: list[_Call] = []  # modules that run
        own = list(model.parameters())
        self._parameters = {_place(p) for p in own}
        self._weights = {_place(p) for p in own if p.dim() > 1 and p.numel() > 1}
        self._copies = WeakTensorKeyDictionary()  # weights in another data type or layout

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """Know which module runs, for the length of a `with` block."""
        handles = []
        for name, module in self.model.named_modules():
            layer = is_weighted(module) or is_reading(module) or is_own(module)
            apart = isinstance(module, ParametrizationList)  # makes a weight, which is no work of the layer
            handles.append(module.register_forward_pre_hook(_Enter(self, name)))
            handles.append(
                module.register_forward_hook(
                    _Leave(self, name if layer else None, apart), prepend=True, always_call=True
                )
            )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = getattr(func, "_overloadpacket", func)
        if packet not in self.counter.flop_registry and self._costs(func, args, kwargs):
            where = f" ({self._stack[-1].name})" if self._stack and self._stack[-1].name else ""
            self.unpriced[f"{packet}{where}"] = None
        out = func(*args, **kwargs)
        copied = isinstance(out, Tensor) and getattr(packet, "__name__", "") in ("_to_copy", "clone")
        if copied and self._is_weight(args[0]):
            self._copies[out] = True
        return out

    def _costs(self, func: Any, args: Any, kwargs: Any) -> bool:
        """Whether an operation may multiply weights with what flows through the network."""
        leaves = tree_leaves((args, kwargs))
        if any(isinstance(leaf, torch.ScriptObject) for leaf in leaves):  # packed weights
            return True
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        flows = [t for t in tensors if t.is_floating_point() and not self._is_weight(t, self._parameters)]
        if not flows or not any(self._is_weight(t) for t in tensors):
            return False
        schema = getattr(func, "_schema", None)
        if schema is None:
            return True
        namespace, _, name = schema.name.partition("::")
        if namespace not in ("aten", "prim", "prims"):
            return True
        tags = getattr(func, "tags", ())
        base = getattr(torch.ops.aten, name.rstrip("_"), None)  # not every in-place form has its tags
        plain = getattr(base, func._overloadname, None)
        pointwise = torch.Tag.pointwise in tags or (plain is not None and torch.Tag.pointwise in plain.tags)
        return not (pointwise or func.is_view or name.strip("_") in _FREE)

    def _is_weight(self, tensor: Any, among: set[Any] | None = None) -> bool:
        """Whether a tensor is a parameter, a view of one, or one in another data type."""
        if not isinstance(tensor, Tensor):
            return False
        return tensor in self._copies or _place(tensor) in (self._weights if among is None else among)


def _place(tensor: Tensor) -> Any:
    """Where a tensor's values lie: the same for all its views."""
    try:
        return tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):  # sparse and other tensors without a storage
        return ("tensor", id(tensor))


@dataclass(slots=True)
class _Call:
    """A module that runs: its name, the count when it began, and what layers inside it have counted."""

    name: str
    before: int
    inner: int = 0


class _Enter:
    def __init__(self, watch: _Watch, name: str) -> None:
        self.watch, self.name = watch, name

    def __call__(self, _module: nn.Module, _args: Any) -> None:
        self.watch._stack.append(_Call(self.name, self.watch.counter.get_total_flops()))


class _Leave:
    def __init__(self, watch: _Watch, layer: str | None, apart: bool) -> None:
        self.watch, self.layer, self.apart = watch, layer, apart

    def __call__(self, _module: nn.Module, _args: Any, _output: Any) -> None:
        call = self.watch._stack.pop()
        done, inner = self.watch.counter.get_total_flops() - call.before, call.inner
        if self.layer is not None:
            self.watch.layers[self.layer] = self.watch.layers.get(self.layer, 0.0) + done - inner
        if self.layer is not None or self.apart:
            inner = done
        if self.watch._stack:
            self.watch._stack[-1].inner += inner
