"""What may be handed over as a loss: a function of the model and a batch that gives one number."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from .errors import ConfigError, first_line

LossFunction = Callable[[Callable[..., Any], Any], Tensor]
_WANTED = "A function of (model, batch) is needed, which runs the model on a batch and returns the mean loss"


def check_loss(loss_fn: object, name: str = "loss_fn") -> None:
    """Refuse what takes outputs and labels where a loss of the model and a batch is needed.

    Args:
        loss_fn: what the caller was given; None is none of the user's own.
        name: of the argument, for the message.

    Raises:
        ConfigError: `loss_fn` cannot be called, is one of PyTorch's own, or takes another number of arguments.
    """
    if loss_fn is None:
        return
    if not callable(loss_fn) or isinstance(loss_fn, type):
        raise ConfigError(f"{name} is {getattr(loss_fn, '__name__', type(loss_fn).__name__)}. {_WANTED}.")
    home = type(loss_fn).__module__ if isinstance(loss_fn, nn.Module) else getattr(loss_fn, "__module__", None)
    if str(home).startswith("torch."):
        own = getattr(loss_fn, "__name__", type(loss_fn).__name__)
        raise ConfigError(
            f"{name} is {own}, which takes outputs and labels. {_WANTED}, such as lambda model, batch: "
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
            f"{name} cannot be called with two arguments ({first_line(error)}). {_WANTED}."
        ) from error


def own_loss(loss_fn: LossFunction, model: Callable[..., Any], batch: Any) -> Tensor:
    """A loss of the user's own on one batch, after a look at what came back.

    Raises:
        ConfigError: it does not take a model and a batch, or returns no single number with a graph behind it.
    """
    try:
        value = loss_fn(model, batch)
    except (AttributeError, TypeError) as error:  # what a model or a batch says where a tensor is expected
        raise ConfigError(
            f"the loss of (model, batch) failed ({type(error).__name__}: {first_line(error)}). It is given the "
            "model and a batch as the loader yields it, and returns the mean loss."
        ) from error
    if not isinstance(value, Tensor):
        raise ConfigError(
            f"the loss of (model, batch) returned {type(value).__name__}; the mean loss as a tensor is needed."
        )
    if value.numel() != 1:
        raise ConfigError(
            f"the loss of (model, batch) has the shape {tuple(value.shape)}; a mean over the batch is needed."
        )
    return value.reshape(())


def backward(loss: Tensor) -> None:
    """Gradients of a loss.

    Raises:
        ConfigError: it depends on nothing that learns.
    """
    if not loss.requires_grad:
        raise no_gradient()
    loss.backward()


def no_gradient() -> ConfigError:
    """The error of a loss that depends on nothing that learns."""
    return ConfigError(
        "the loss has no gradient: the model's forward or loss_fn runs under torch.no_grad, detaches, or makes a "
        "new tensor. Let the loss be computed from the model's outputs."
    )
