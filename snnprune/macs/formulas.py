"""Formulas of operations that PyTorch's own counter passes over.

Each gives two floating-point operations per multiply-add, as PyTorch's formulas do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

from ..errors import ConfigError


def _raw(formula: Callable[..., float]) -> Callable[..., float]:
    """A formula that is given tensors, not their shapes."""
    formula._get_raw = True  # type: ignore[attr-defined]
    return formula


def _steps(x: Tensor, batch_sizes: Any) -> int:
    """Time steps of all sequences of a batch, of padded or packed ones."""
    packed = batch_sizes is not None and len(batch_sizes) > 0
    return x.shape[0] if packed else x.shape[0] * (x.shape[1] if x.dim() > 2 else 1)


def _matrices(weights: Any) -> int:
    return sum(w.numel() for w in weights if isinstance(w, Tensor) and w.dim() == 2)


@_raw
def _fused_rnn(x: Tensor, weights: Any, *rest: Any, out_val: Any = None, **named: Any) -> int:
    """Recurrent layers in one kernel (cuDNN, MIOpen): every matrix meets every time step once."""
    del out_val
    sizes = [*rest, *named.values()]
    lists = [v for v in sizes if isinstance(v, (list, tuple)) and v and all(isinstance(i, int) for i in v)]
    return 2 * _steps(x, lists[0] if lists else None) * _matrices(weights)


@_raw
def _mkldnn_rnn(
    x: Tensor, w_input: Tensor, w_hidden: Tensor, *rest: Any, out_val: Any = None, **named: Any
) -> int:
    """One layer and direction of an LSTM in one kernel on a CPU."""
    del out_val
    lists = [v for v in (*rest, *named.values()) if isinstance(v, (list, tuple)) and v]
    return 2 * _steps(x, lists[0] if lists else None) * _matrices((w_input, w_hidden))


@_raw
def _mps_lstm(x: Tensor, _hx: Any, weights: Any, *_rest: Any, out_val: Any = None, **_named: Any) -> int:
    del out_val
    return 2 * _steps(x, None) * _matrices(weights)


@_raw
def _linear(x: Tensor, weight: Tensor, *_rest: Any, out_val: Any = None, **_named: Any) -> int:
    del out_val
    return 2 * (x.numel() // max(1, x.shape[-1])) * weight.numel()


@_raw
def _deformable(
    _x: Tensor, weight: Tensor, *_rest: Any, out_val: Any = None, **_named: Any
) -> int:  # the offsets' interpolation is not counted
    """Deformable convolution: the kernel at every output position."""
    assert isinstance(out_val, Tensor)
    return 2 * out_val.shape[0] * math.prod(out_val.shape[2:]) * weight.numel()


@_raw
def _trilinear(first: Tensor, second: Tensor, third: Tensor, *lists: Any, out_val: Any = None, **_n: Any) -> int:
    """`nn.Bilinear`: every weight meets every row."""
    del out_val
    return 2 * (first.numel() // max(1, first.shape[-1])) * second.numel() if third.dim() else 0


@_raw
def _vector(matrix: Tensor, _vector: Tensor, *_rest: Any, out_val: Any = None, **_named: Any) -> int:
    del out_val
    return 2 * matrix.numel()


@_raw
def _added_vector(_bias: Tensor, matrix: Tensor, *_rest: Any, out_val: Any = None, **_named: Any) -> int:
    del out_val
    return 2 * matrix.numel()


@_raw
def _added_batches(_bias: Tensor, left: Tensor, right: Tensor, *_rest: Any, out_val: Any = None, **_n: Any) -> int:
    del out_val
    return 2 * left.numel() * right.shape[-1]


@_raw
def _distances(left: Tensor, right: Tensor, *_rest: Any, out_val: Any = None, **_named: Any) -> int:
    assert isinstance(out_val, Tensor)
    del right
    return 2 * out_val.numel() * left.shape[-1]


@_raw
def _sdpa(q: Tensor, k: Tensor, v: Tensor, *_rest: Any, out_val: Any = None, **_named: Any) -> int:
    """Attention in one kernel: scores, and the values that they weigh."""
    del out_val
    rows = q.numel() // max(1, q.shape[-1])
    return 2 * rows * k.shape[-2] * (q.shape[-1] + v.shape[-1])


# Of users: the operation's name with its namespace -> what prices it, and where it was registered.
_OWN: dict[str, tuple[Callable[..., float], str]] = {}


def add_formula(name: str, macs: Callable[..., float], place: str) -> Callable[[], None]:
    """Price an operation of the user's own, and return what takes the price out again.

    Args:
        name: such as `mylib::shift`.
        macs: multiply-adds of one call, of its result and what it was called with.
        place: file and line of the registration; what the same one has registered is replaced.

    Raises:
        ConfigError: the operation has a price already.
    """
    known = _OWN[name][1] if name in _OWN else None
    if known != place and _packet(name) in {*flop_registry, *formulas()}:
        raise ConfigError(f"the multiply-adds of {name} are counted already. Give no macs for it.")

    @_raw
    def formula(*args: Any, out_val: Any = None, **kwargs: Any) -> float:
        return 2 * macs(out_val, *args, **kwargs)

    mine = _OWN[name] = (formula, place)

    def free() -> None:
        if _OWN.get(name) is mine:
            del _OWN[name]

    return free


def _packet(name: str) -> Any:
    """An operation by its name with its namespace; None where this version of PyTorch lacks it."""
    space, _, own = name.replace("::", ".").partition(".")
    return getattr(getattr(torch.ops, space), own, None)


def formulas() -> dict[Any, Callable[..., float]]:
    """Operation -> formula, for those that this version of PyTorch (and torchvision) has, and users' own."""
    wanted: dict[str, Callable[..., float]] = {
        "aten._cudnn_rnn": _fused_rnn,
        "aten.miopen_rnn": _fused_rnn,
        "aten.mkldnn_rnn_layer": _mkldnn_rnn,
        "aten._lstm_mps": _mps_lstm,
        "aten.linear": _linear,
        "aten.mkldnn_linear": _linear,
        "aten._trilinear": _trilinear,
        "aten.mv": _vector,
        "aten.dot": _vector,
        "aten.vdot": _vector,
        "aten.addmv": _added_vector,
        "aten.addbmm": _added_batches,
        "aten._cdist_forward": _distances,
        "aten._scaled_dot_product_flash_attention_for_cpu": _sdpa,
        "aten._scaled_dot_product_fused_attention_overrideable": _sdpa,
        "aten._scaled_dot_product_attention_math_for_mps": _sdpa,
        "torchvision.deform_conv2d": _deformable,
    }
    wanted |= {name: formula for name, (formula, _) in _OWN.items()}
    known = {_packet(name): formula for name, formula in wanted.items()}
    return {packet: formula for packet, formula in known.items() if packet is not None}
