"""A model that is only looked at: it draws nothing at random, moves no statistics, and is as before afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


@contextlib.contextmanager
def still(model: nn.Module) -> Iterator[nn.Module]:
    """A model in training mode, but with its norms and dropout in evaluation mode.

    Models that return something else while they train (auxiliary outputs) do so here. But norms take a batch of
    one value and keep their statistics, modules without any state (dropout, stochastic depth) draw nothing at
    random, and dropout that is written as a function, or lies in attention or between recurrent layers, passes
    its input on. Afterwards every module is as it was.
    """
    modes = {module: module.training for module in model.modules()}
    rates = {module: module.dropout for module in modes if isinstance(module, nn.RNNBase)}
    model.train()
    for module in modes:
        bare = not (module._modules or module._parameters or module._buffers)
        if bare or isinstance(module, nn.modules.batchnorm._NormBase):
            module.eval()
    for module in rates:  # their backward pass needs training mode on a GPU
        module.dropout = 0.0
    try:
        with _WithoutDropout():
            yield model
    finally:
        for module, mode in modes.items():
            module.training = mode
        for module, rate in rates.items():
            module.dropout = rate


@contextlib.contextmanager
def evaluating(module: nn.Module | None) -> Iterator[None]:
    """Eval mode, without gradients; afterwards every part is in the mode that it was in."""
    modes = {} if module is None else {part: part.training for part in module.modules()}
    if module is not None:  # one of no parts, such as an empty nn.Sequential, is false
        module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode


class _WithoutDropout(TorchFunctionMode):
    """Dropout passes its input on, whoever asks for it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _DROPOUT:
            return args[0] if args else kwargs["input"]
        if func is F.scaled_dot_product_attention:
            args, kwargs = _with(args, kwargs, 4, "dropout_p", 0.0)
        elif func is F.multi_head_attention_forward:
            args, kwargs = _with(args, kwargs, 13, "training", False)
        return func(*args, **kwargs)


_DROPOUT = {
    F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout,
    torch.dropout, torch.dropout_, torch.feature_dropout, torch.feature_dropout_, torch.alpha_dropout,
    torch.alpha_dropout_, torch.feature_alpha_dropout, torch.feature_alpha_dropout_,
}  # fmt: skip


def _with(args: Any, kwargs: Any, place: int, name: str, value: Any) -> tuple[Any, Any]:
    """Arguments of a call with another value of one that may be given by place or by name."""
    if len(args) > place:
        return (*args[:place], value, *args[place + 1 :]), kwargs
    return args, {**kwargs, name: value}


@contextlib.contextmanager
def kept_buffers(model: nn.Module) -> Iterator[nn.Module]:
    """Afterwards the model holds the buffers of before, the same tensors with the same values, and no others."""
    before = [
        (module, dict(module._buffers), [(b, b.clone()) for b in module._buffers.values() if b is not None])
        for module in model.modules()
    ]
    try:
        yield model
    finally:
        with torch.no_grad():
            for module, buffers, values in before:
                for buffer, value in values:
                    buffer.copy_(value)
                module._buffers.clear()
                module._buffers.update(buffers)
