"""One forward pass that records what every layer sees: order, input and output shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .. import layers
from ..errors import UnsupportedModelError, first_line
from ..inputs import Inputs, call
from ..layers import attention


@dataclass(frozen=True, slots=True)
class LayerShapes:
    """Shapes of a layer's first call, and totals over all its calls.

    Attributes:
        input: shape of the first input.
        output: shape of the first output.
        calls: number of calls.
        input_elements: elements of all inputs together.
        output_elements: elements of all outputs together.
    """

    input: tuple[int, ...]
    output: tuple[int, ...]
    calls: int
    input_elements: int
    output_elements: int


def layer_shapes(model: nn.Module, example_inputs: Inputs) -> dict[str, LayerShapes]:
    """Shapes of every leaf layer that takes and returns one tensor, in the order of the calls.

    The model runs once in eval mode without gradients; its mode is put back.

    Raises:
        UnsupportedModelError: the model does not run on the example inputs.
    """
    seen: dict[str, LayerShapes] = {}
    handles = []

    def record(name: str) -> Any:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            x = next((v for v in (*args[:1], *kwargs.values()) if isinstance(v, Tensor)), None)
            if x is None or not isinstance(output, Tensor):
                return
            old = seen.get(name)
            seen[name] = LayerShapes(
                old.input if old else tuple(x.shape),
                old.output if old else tuple(output.shape),
                1 + (old.calls if old else 0),
                x.numel() + (old.input_elements if old else 0),
                output.numel() + (old.output_elements if old else 0),
            )

        return hook

    modes = {module: module.training for module in model.modules()}
    for name, module in model.named_modules():
        if layers.is_weighted(module) or not any(True for _ in module.children()):
            handles.append(module.register_forward_hook(record(name), with_kwargs=True))
    try:
        model.eval()
        with torch.no_grad(), attention.unfused():  # fused encoders pass nested tensors, without shapes
            call(model, example_inputs)
    except Exception as error:
        raise UnsupportedModelError(
            f"the model does not run on the example inputs ({type(error).__name__}: {first_line(error)}). "
            "Check the image size, the number of channels and the model's architecture."
        ) from error
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return seen
