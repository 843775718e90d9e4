"""What must hold of the arguments of `optimize` before anything is done with them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

import torch
from torch import nn

from ..errors import ConfigError, first_line
from ..inputs import device_of
from ..learner import Callback, PruneConfig
from ..loaders import reread
from ..plain import plain

_WANTED = "loss_fn(model, batch) is needed: it runs the model on a batch of the loader and returns the mean loss"


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
    observers = list(callbacks) if isinstance(callbacks, Iterable) else [None]
    if not all(callable(observer) for observer in observers):
        raise ConfigError(f"callbacks={repr(callbacks)[:100]} must be a list of functions that take one event.")
    return _device(network, device), observers


def check_loss(loss_fn: object) -> None:
    """Refuse what takes outputs and labels where a loss of the model and a batch is needed.

    Raises:
        ConfigError: `loss_fn` cannot be called, is one of PyTorch's own, or takes another number of arguments.
    """
    if loss_fn is None:
        return
    if not callable(loss_fn) or isinstance(loss_fn, type):
        raise ConfigError(f"loss_fn is {getattr(loss_fn, '__name__', type(loss_fn).__name__)}. {_WANTED}.")
    home = type(loss_fn).__module__ if isinstance(loss_fn, nn.Module) else getattr(loss_fn, "__module__", None)
    if str(home).startswith("torch."):
        name = getattr(loss_fn, "__name__", type(loss_fn).__name__)
        raise ConfigError(
            f"loss_fn is {name}, which takes outputs and labels. {_WANTED}, such as lambda model, batch: "
            f"F.cross_entropy(model(batch[0]), batch[1])."
        )
    try:
        signature = inspect.signature(loss_fn)
    except (TypeError, ValueError):  # code in C tells nothing about itself
        return
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise ConfigError(
            f"loss_fn cannot be called with two arguments ({first_line(error)}). {_WANTED}."
        ) from error


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
