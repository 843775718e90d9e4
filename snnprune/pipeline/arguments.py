"""What must hold of the arguments of `optimize` before anything is done with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from typing import Any

import torch

from ..errors import ConfigError
from ..inputs import device_of, usable_device
from ..learner import Callback, PruneConfig
from ..loaders import reread
from ..losses import check_loss
from ..plain import plain
from ..shown import brief_repr


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
    observers: list[Any] = list(callbacks) if isinstance(callbacks, (Sequence, Set, Iterator)) else [None]
    if not all(callable(observer) for observer in observers):
        raise ConfigError(f"callbacks={brief_repr(callbacks)} must be a list of functions that take one event.")
    return device_of(network) if device is None else usable_device(device), observers
