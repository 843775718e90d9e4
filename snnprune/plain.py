"""What may be handed over as a model: a network of the user's own, with values and without gates of ours."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .errors import AttachError, ConfigError, UnsupportedModelError, first_line


class Mark:
    """Base of everything of ours that sits on a model or around it, by which a gated model is known."""


def is_gated(model: nn.Module) -> bool:
    """True when any module of the model carries gates, its own or those of the model that it is a copy of."""
    return any(
        isinstance(module, Mark)
        or any(isinstance(getattr(hook, "__self__", hook), Mark) for hook in module._forward_pre_hooks.values())
        for module in model.modules()
    )


def plain(model: object, use: str, *, empty: bool = False) -> nn.Module:
    """The model, after a look at whether it is one that `use` can take.

    Gates are part of what a model computes but not of its weights. Whatever reads weights would pass them over in
    silence, so that a file or a figure would be that of another function. Hooks of the user's own are no obstacle.

    Args:
        model: what the caller was given.
        use: the caller's name, for the message.
        empty: take a model on the device meta, too.

    Raises:
        AttachError: the model, a part of it, or the model that it is a copy of has gates attached.
        ConfigError: it is no module, or has no values yet.
    """
    if isinstance(model, Mark) or (isinstance(model, nn.Module) and is_gated(model)):
        raise AttachError(
            f"{use} needs a plain model, but this one has gates attached already, or is a copy that was made "
            "while it had. Give gated.compact(), or detach() first; of a copy, load the state_dict() into a new "
            "model."
        )
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{use} needs a torch.nn.Module as model, but was given {_what(model)}.")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if is_lazy(tensor):
            raise ConfigError(f"{use}: {name} of the model has no shape yet. Run the model once on real inputs.")
        if tensor.is_meta and not empty:
            raise ConfigError(
                f"{use}: {name} of the model is on the device meta, where it has no values. Build the model on "
                'the CPU (or model.to_empty(device="cpu")), and load its weights.'
            )
    return model


def fill_(model: nn.Module) -> list[str]:
    """Give everything that is on the device meta memory on the CPU, in place; what is shared stays shared.

    What was made under `torch.inference_mode`, and could not be changed, becomes like other tensors.

    Returns:
        Names of what has no values now.
    """
    made: dict[int, Tensor] = {}
    names = []
    for prefix, module in model.named_modules():
        for tensors in (module._parameters, module._buffers):
            for name, old in tensors.items():
                if old is None or not (old.is_meta or old.is_inference()):
                    continue
                if id(old) not in made:
                    new = torch.empty_like(old, device="cpu") if old.is_meta else old.detach().clone()
                    made[id(old)] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
                tensors[name] = made[id(old)]  # type: ignore[assignment]
                if old.is_meta:
                    names.append(f"{prefix}.{name}" if prefix else name)
    return names


def _what(value: object) -> str:
    if isinstance(value, (str, os.PathLike)):
        return f"the path {os.fspath(value)!r}. Build the model and load that file into it"
    if isinstance(value, Mapping):
        return "a state dict or another mapping. Build the model and call its load_state_dict()"
    if isinstance(value, type):
        return f"the class {value.__name__}. Make an instance of it: {value.__name__}(...)"
    return type(value).__name__


def copied(model: nn.Module) -> nn.Module:
    """A copy of a user's model, or of a part of one.

    Args:
        model: stays as it is.

    Raises:
        UnsupportedModelError: it cannot be copied.
    """
    try:
        return copy.deepcopy(model)
    except RuntimeError as error:
        raise UnsupportedModelError(
            f"the model cannot be copied ({first_line(error)}). Old-style weight norm, spectral norm and pruning "
            "masks are the usual cause: remove them, or use torch.nn.utils.parametrizations."
        ) from error
