"""What must hold of the arguments of `optimize` before anything is done with them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ..errors import ConfigError, first_line
from ..inputs import device_of
from ..learner import Callback, PruneConfig
from ..loaders import reread
from ..losses import check_loss
from ..plain import plain


def checked_arguments(
    model: object,
    train: object,
    val: object,
    test: object,
    config: object,
    loss_fn: object,
    callbacks: object,
    device: torch.device | str | None,
) -> tuple[torch.device, list[Callback]]:
    """The device to learn on and the observers, after a look at the types of all arguments.

    Raises:
        AttachError: the model has gates attached.
        ConfigError: an argument is of the wrong type; the message says what is wanted.
        DataError: a loader is none, or can be read only once.
    """
    network = plain(model, "optimize()")
    if not isinstance(config, PruneConfig):
        raise ConfigError(
            f"config is {type(config).__name__}; give a PruneConfig, such as snnprune.PruneConfig(epochs=20)."
        )
    for name, loader in (("train", train), ("val", val), ("test", test)):
        if loader is not None or name == "train":
            reread(loader, name)
    check_loss(loss_fn)
    observers: list[Any] = list(callbacks) if isinstance(callbacks, Iterable) else [None]
    if not all(callable(observer) for observer in observers):
        raise ConfigError(f"callbacks={repr(callbacks)[:100]} must be a list of functions that take one event.")
    return _device(network, device), observers


def _device(model: nn.Module, device: torch.device | str | None) -> torch.device:
    if device is None:
        return device_of(model)
    try:
        where = torch.device(device)
        if where.type == "meta":
            raise TypeError("nothing is computed on it")
        torch.empty(0, device=where)
        return where
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ConfigError(
            f"device={device!r} cannot be used here ({first_line(error)}). Try cpu or cuda."
        ) from error
