"""What must hold of the arguments of `optimize` before anything is done with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from typing import Any

import torch

from ..budget import parse_latency
from ..errors import ConfigError, TargetError
from ..inputs import device_of, usable_device
from ..learner import Callback, PruneConfig
from ..loaders import reread
from ..losses import check_loss
from ..measures import measure_of
from ..plain import plain
from ..shown import brief_repr


def checked_arguments(
    model: object,
    train: object,
    val: object,
    test: object,
    config: object,
    loss_fn: object,
    metric: object,
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
    check_timed(config)
    for name, loader in (("train", train), ("val", val), ("test", test)):
        if loader is not None or name == "train":
            reread(loader, name)
    check_loss(loss_fn)
    measure_of(metric)
    observers: list[Any] = list(callbacks) if isinstance(callbacks, (Sequence, Set, Iterator)) else [None]
    if not all(callable(observer) for observer in observers):
        raise ConfigError(f"callbacks={brief_repr(callbacks)} must be a list of functions that take one event.")
    return device_of(network) if device is None else usable_device(device), observers


def check_timed(config: PruneConfig) -> None:
    """Refuse options of time that have no meaning together, before anything is done.

    Raises:
        ConfigError: a profile without a target of time, or an engine whose layers cannot be timed.
        TargetError: a target of time for connections.
    """
    wanted = parse_latency(config.target)
    if wanted is None:
        if config.profile is not None:
            raise ConfigError(
                f"profile={str(config.profile)!r} has times of layers, which only a target latency=... uses. Ask "
                "for one, or leave the profile out."
            )
        return
    if config.granularity == "connection":
        raise TargetError(
            f"target latency={wanted} cannot be met by switching connections: zeros save no time. Use params=..., "
            "drop=... or free."
        )
