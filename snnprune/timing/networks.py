"""Networks as PyTorch itself runs them: eagerly, compiled, or as a CUDA graph."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from ..errors import CompilerError, ConfigError, UnsupportedModelError, first_line
from ..inputs import Inputs, map_tensors, rows, to_dtype, unwrap
from ..plain import copied, plain
from .serving import Serving
from .sessions import Served

_COMPILED = 1000  # networks of one class, beyond which PyTorch would go back to running them eagerly
_WARM = 3  # calls before one is recorded


def serve_network(model: nn.Module, example_inputs: Inputs, serving: Serving, name: str = "the model") -> Served:
    """Make a network ready to be called, in evaluation mode; it has been called once.

    What runs is a copy, so that the model stays as it is. Examples are repeated until they fill the batch.

    Args:
        model: a plain network; wrappers of PyTorch are looked through.
        example_inputs: what it takes, at least one example.
        serving: how; its engine is one of PyTorch's.
        name: for messages.

    Raises:
        AttachError: the model has gates attached.
        CompilerError: `torch.compile` fails.
        ConfigError: CUDA graphs are asked for where there is no GPU.
        UnsupportedModelError: the model does not run so.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if serving.engine == "torch-graphs" and device.type != "cuda":
        raise ConfigError(
            "engine='torch-graphs' needs a GPU, and PyTorch sees none; take torch or torch-compiled."
        )
    dtype = torch.float16 if serving.precision == "fp16" else torch.float32
    clone = copied(unwrap(plain(model, "bench()"))).eval().requires_grad_(False).to(device, dtype)
    inputs = to_dtype(map_tensors(lambda x: x.detach().to(device), rows(example_inputs, serving.batch)), dtype)
    run: Callable[..., Any] = clone
    if serving.engine == "torch-compiled":
        run = torch.compile(clone, dynamic=False)  # else a second batch size would make it general, and slower
    once = _once(run, inputs, device)
    try:
        with torch._dynamo.config.patch(recompile_limit=_COMPILED):
            once()
        call = _recorded(run, inputs) if serving.engine == "torch-graphs" else once
    except Exception as error:
        kinds = {kind.__module__ for kind in type(error).__mro__}
        if any(kind.startswith(("torch._dynamo", "torch._inductor")) for kind in kinds):
            raise CompilerError(
                f"{name}: torch.compile failed ({first_line(error)}). It needs a C++ compiler on the CPU and "
                "Triton on a GPU, and does not take every model; leave out the engine torch-compiled."
            ) from error
        raise UnsupportedModelError(
            f"{name} does not run in PyTorch as {serving.engine}, {serving.precision}, on {device.type} at batch "
            f"size {serving.batch} ({first_line(error)})."
        ) from error
    return Served(call, f"PyTorch {device.type}", serving.precision)


@contextlib.contextmanager
def threads_of(serving: Serving) -> Iterator[None]:
    """PyTorch computes with the threads of a serving meanwhile, and afterwards with those of before."""
    before = torch.get_num_threads()
    torch.set_num_threads(serving.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _called(run: Callable[..., Any], inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return run(**inputs)
    return run(*inputs) if isinstance(inputs, tuple) else run(inputs)


def _once(run: Callable[..., Any], inputs: Any, device: torch.device) -> Callable[[], None]:
    def call() -> None:
        with torch.inference_mode():
            _called(run, inputs)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return call


def _recorded(run: Callable[..., Any], inputs: Any) -> Callable[[], None]:
    """A call as one CUDA graph, which is replayed as a whole."""
    with torch.inference_mode():
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM):
                _called(run, inputs)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = _called(run, inputs)

    def call(kept: Any = (run, inputs, outputs)) -> None:  # the graph reads and writes these places
        graph.replay()
        torch.cuda.synchronize()

    return call
