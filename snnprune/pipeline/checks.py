"""What must hold before anything is trained or measured."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..data import info_of
from ..errors import ConfigError, DataError, UnsupportedModelError, first_line
from ..graph import layer_shapes
from ..inputs import call, logits_of, split_batch
from ..labels import check_logits, read_labels
from ..learner import PruneConfig
from ..loaders import bounded, length_of
from ..resting import evaluating

logger = logging.getLogger(__name__)


@torch.no_grad()
def check_classes(model: Callable[[Tensor], Any], images: Tensor, loader: Any) -> int | None:
    """Refuse data with another number of classes than the model has outputs.

    An array file's classes are known only from the labels that it happens to hold, so only labels out
    of range are refused there (by the loss and by `evaluate`).

    Returns:
        The number of outputs of a classifier; None of another model.

    Raises:
        DataError: the numbers differ, or there is a single output.
    """
    info = info_of(loader)
    outputs = logits_of(model(images))[0]
    if not isinstance(outputs, Tensor) or outputs.dim() != 2:
        return None
    check_logits(outputs)
    if info is None or info.kind == "arrays":
        return outputs.shape[1]
    if outputs.shape[1] != len(info.classes):
        classes = len(info.classes)
        other = f"give --num-classes {outputs.shape[1]}"  # noise has as many as are asked for
        if info.kind != "fake":
            other = f"give it a last layer of {classes} outputs and fine-tune it first"
        raise DataError(
            f"the model has {outputs.shape[1]} outputs, but {info.name} has {classes} classes. Use the data that "
            f"the model was trained on, or {other}."
        )
    return outputs.shape[1]


@torch.no_grad()
def check_parts(
    model: nn.Module,
    parts: Mapping[str, Iterable[Any] | None],
    outputs: int | None,
    where: torch.device,
    *,
    own_metric: bool = False,
    own_loss: bool = False,
) -> bool:
    """Whether the data have labels to measure accuracy by; if some have, all must that are measured on.

    Args:
        model: the dense one, on `where`.
        parts: name -> loader, the one to learn from first; None where there is none.
        outputs: of the model; None when they are not known.
        where: device.
        own_metric: the user's own code measures, so only it knows what is wanted of batches to measure on.
        own_loss: the user's own code learns, so only it knows what is wanted of batches.

    Raises:
        DataError: a part is empty, does not end, lacks labels, or its inputs or labels do not fit the model.
    """
    labelled: dict[str, bool] = {}
    for at, (name, loader) in enumerate(parts.items()):
        if loader is None:
            continue
        batch = next(iter(loader), None)
        if batch is None:
            raise DataError(f"the {name} loader yields no batch.")
        if at and length_of(loader) is None:
            for _ in bounded(loader, f"the {name} loader"):
                pass
        if own_loss or (at and own_metric):
            continue
        images, labels = split_batch(batch)
        labelled[name] = labels is not None
        if labels is not None:
            read_labels(labels, outputs)
        if at and isinstance(images, Tensor):
            _check_fits(model, images[:2].to(where), name)
    named = next((name for name, there in labelled.items() if there), None)
    for at, (name, there) in enumerate(labelled.items()):
        if at and not there and named is not None:
            source = "those to learn from" if named == "training" else f"the {named} data"
            raise DataError(
                f"the {name} data have no labels, unlike {source}, so nothing can be measured on them. "
                "Give batches of (inputs, labels), or leave that part out."
            )
    return named is not None


def _check_fits(model: nn.Module, images: Tensor, name: str) -> None:
    try:
        with evaluating(model):
            call(model, images)
    except Exception as error:  # whatever its layers say
        raise DataError(
            f"the model does not run on the {name} data, of shape {tuple(images.shape[1:])} "
            f"({first_line(error)}). Give them the size and the channels of the data to learn from."
        ) from error


def warn_of_zeros(model: nn.Module) -> None:
    """Say so where training would fill the zeros that switching connections has left."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and 2 * int(torch.count_nonzero(module.weight)) < module.weight.numel():
            logger.warning(
                "%s and perhaps other layers hold more zeros than weights, as after switching connections; "
                "switching neurons trains all weights, so those zeros will be filled",
                name,
            )
            return


def check_runs(model: nn.Module, example: Tensor, config: PruneConfig) -> None:
    """Refuse images that do not fit the model, and a memory format in which it does not run.

    Raises:
        ConfigError: the model reads feature maps in a way that `channels_last` does not allow.
        UnsupportedModelError: it does not run on the example.
    """
    try:
        layer_shapes(model, example)
    except UnsupportedModelError as error:
        if config.channels_last is True and "view size is not compatible" in str(error):
            raise ConfigError(
                "the model calls view() on feature maps, which does not go with channels_last. Write flatten(1) "
                "or reshape() there, or leave out channels_last (--channels-last)."
            ) from error
        raise
