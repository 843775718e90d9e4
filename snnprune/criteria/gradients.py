"""Gradients that criteria look at, put on a model's parameters."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..batches import counted, picked
from ..errors import CriterionError, DivergedError, SnnPruneError, first_line
from ..inputs import device_of, moved
from ..losses import no_gradient
from ..ranks import current
from ..resting import still

Loss = Callable[[Callable[..., Any], Any], Tensor]


def put_gradients_(model: nn.Module, batches: Iterable[Any], loss: Loss, *, squares: bool) -> None:
    """Fill `grad` of every parameter with the mean gradient of the loss over all inputs.

    Or with the mean square of the gradients of single inputs: the diagonal of the Fisher information. Norms and
    dropout rest meanwhile. What no gradient reaches gets zeros. Parameters of half precision become float32, in
    which squares of small gradients are more than 0.

    Args:
        model: changed in its gradients and their type; give a copy.
        batches: what `loss` takes.
        loss: `loss(model, batch)`, a mean over the batch.
        squares: of single inputs, squared.

    Raises:
        ConfigError: the loss depends on nothing that learns.
        CriterionError: single inputs are asked for, and batches cannot be taken apart, or model or loss take none,
            or one has no finite loss.
        DivergedError: a loss is not finite.
    """
    device = device_of(model)
    named = {name: p for name, p in model.named_parameters() if p.is_floating_point()}
    total = {name: torch.zeros_like(p, dtype=_wide(p.dtype)) for name, p in named.items()}
    seen, reached = 0, set[str]()
    for p in named.values():
        p.requires_grad_(True)
    with still(model):
        for batch in batches:
            batch = moved(batch, device)
            for part, weight in _parts(batch, squares):
                with _one_by_one() if squares else contextlib.nullcontext():
                    value = _value(model, part, loss)
                    if not _finite(value):
                        raise _undefined(value, alone=squares and _finite(_value(model, batch, loss)))
                    found = _gradients(value, named)
                for name, gradient in zip(named, found, strict=True):
                    if gradient is not None:
                        reached.add(name)
                        gradient = gradient.to(total[name].dtype)
                        total[name] += gradient.square() if squares else gradient * weight
                seen += weight
    reached, seen = current().pool_(total, reached, seen)
    if seen and not reached:
        raise no_gradient()
    for name, p in named.items():
        p.data = p.data.to(total[name].dtype)
        p.grad = total[name] / max(1, seen)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype.itemsize >= 4 else torch.float32


def _parts(batch: Any, apart: bool) -> list[tuple[Any, int]]:
    """A batch, or its inputs one by one, with how many inputs each is."""
    count = counted(batch)
    if not apart:
        return [(batch, count or 1)]
    if count is None:
        raise CriterionError(
            f"single inputs are looked at, and a batch that is {type(batch).__name__} cannot be taken apart. Let "
            "the loader give tuples or dicts of tensors that run over the inputs, or take taylor."
        )
    return [(picked(batch, slice(at, at + 1)), 1) for at in range(count)]


@contextlib.contextmanager
def _one_by_one() -> Iterator[None]:
    """Model and loss are given single inputs, which not all of them take.

    Raises:
        CriterionError: they do not.
    """
    try:
        yield
    except (SnnPruneError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise CriterionError(
            f"single inputs are looked at, and the model or the loss does not take a batch of one "
            f"({type(error).__name__}: {first_line(error)}). Take another criterion, such as taylor."
        ) from error


def _value(model: nn.Module, batch: Any, loss: Loss) -> Tensor:
    with torch.enable_grad(), torch.compiler.set_stance("force_eager"):
        return loss(model, batch)


def _finite(value: Tensor) -> bool:
    return bool(torch.isfinite(value.detach()).all())


def _undefined(value: Tensor, *, alone: bool) -> SnnPruneError:
    """What a loss that is not finite means; `alone`: of this input, though its batch has one."""
    if alone:
        return CriterionError(
            f"single inputs are looked at, and the loss of one is {float(value.detach()):g}, though that of its "
            "batch is a number: as where nothing of an input has a label that counts. Take a loss that every "
            "input has, or another criterion, such as taylor."
        )
    return DivergedError(
        f"the loss became {float(value.detach()):g} before anything was learned. Check the model and the data for "
        "values that are not finite."
    )


def _gradients(value: Tensor, named: dict[str, nn.Parameter]) -> tuple[Tensor | None, ...]:
    if not value.requires_grad:
        return (None,) * len(named)
    return torch.autograd.grad(value, list(named.values()), allow_unused=True)
