"""Errors of `torch.compile`, which is for what no gates hang on: the recovering model and the teacher."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from ..errors import CompilerError, first_line
from ..inputs import device_of


def compiled(model: nn.Module) -> Callable[..., Any]:
    """A model through `torch.compile`, on a GPU with CUDA graphs, which take a whole pass in one launch."""
    if device_of(model).type == "cuda":
        return torch.compile(model, mode="reduce-overhead")
    return torch.compile(model)


def begin_step(device: torch.device) -> None:
    """Say that a step begins: what CUDA graphs returned in the last one may be written over."""
    if device.type == "cuda":
        torch.compiler.cudagraph_mark_step_begin()


@contextlib.contextmanager
def compiler_errors() -> Iterator[None]:
    """Says what to do when the compiler fails, at a model's first call or where gradients are first needed.

    Raises:
        CompilerError: instead of the compiler's own errors.
    """
    try:
        yield
    except Exception as error:
        kinds = {kind.__module__ for kind in type(error).__mro__}
        if not any(name.startswith(("torch._dynamo", "torch._inductor")) for name in kinds):
            raise
        cause = getattr(error, "inner_exception", None) or error.__cause__ or error
        raise CompilerError(
            f"torch.compile failed ({type(cause).__name__}: {first_line(cause)}). It needs a C++ compiler on the "
            "CPU and Triton on a GPU, and does not take every model; leave out compile (--compile)."
        ) from error
