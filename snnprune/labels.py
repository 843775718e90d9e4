"""What labels are: the class of every input, or the probabilities of its classes. Everything else is refused."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .errors import DataError

_SLACK = 0.01  # by which probabilities may miss a sum of 1: half precision, or rounding in a file
_OWN = "For several labels per input or a regression give optimize() a loss_fn"


def check_logits(logits: Any) -> None:
    """Refuse outputs that the built-in loss cannot use.

    Raises:
        DataError: the model returned no tensor, or one output, whose softmax is 1 whatever it is.
    """
    if not isinstance(logits, Tensor):
        raise DataError(
            f"the model returned {type(logits).__name__} where one tensor of logits is needed. Give loss_fn, or "
            "switch off its auxiliary outputs."
        )
    if logits.dim() == 2 and logits.shape[1] == 1:
        raise DataError(
            f"the model has a single output (shape {tuple(logits.shape)}), from which cross-entropy learns "
            "nothing. For two classes by one sigmoid, or a regression, give optimize() a loss_fn."
        )


def targets_of(logits: Any, labels: Tensor) -> Tensor:
    """Labels as a target of cross-entropy on these outputs.

    Args:
        logits: what the model returned.
        labels: of the same inputs, as `read_labels` takes them.

    Returns:
        (batch,) int64 classes, or (batch, classes) probabilities of the logits' type (float32 for halves).

    Raises:
        DataError: the outputs are not (batch, classes), or the labels do not go with them.
    """
    _check_shapes(logits, labels)
    return _like(logits, read_labels(labels, logits.shape[1]))


def unread_targets(logits: Any, labels: Tensor) -> tuple[Tensor, Tensor]:
    """What `targets_of` gives, without a look at the labels' values: on a GPU that would make the CPU wait.

    Args:
        logits: what the model returned.
        labels: of the same inputs.

    Returns:
        The targets, with classes out of range replaced by the nearest class, and a tensor of one bool that says
        whether some labels are of no use; `targets_of` then says why.

    Raises:
        DataError: as `targets_of`, where shapes and types tell it.
    """
    _check_shapes(logits, labels)
    found, wrong = _read(labels, logits.shape[1])
    return _like(logits, found), wrong


def _check_shapes(logits: Any, labels: Tensor) -> None:
    check_logits(logits)
    if logits.dim() != 2 or not labels.dim() or len(logits) != len(labels):
        raise DataError(
            f"the model's output has shape {tuple(logits.shape)} for {_described(labels)}; a classifier's (batch, "
            "classes) is needed. For anything else give optimize() a loss_fn."
        )


def _like(logits: Tensor, targets: Tensor) -> Tensor:
    return targets.to(torch.promote_types(logits.dtype, torch.float32)) if targets.dim() == 2 else targets


def read_labels(labels: Tensor, classes: int | None = None) -> Tensor:
    """What the labels are, told by shape and type alone, so that a batch never means what another does not.

    Integers (also bool) of shape (n,) or (n, 1) are classes. Numbers of shape (n, classes) are probabilities, if
    every row has none below 0 and sums to 1; rows of integers that do so are one-hot, and so classes again.

    Args:
        labels: of n inputs.
        classes: outputs of the model; None when they are not known.

    Returns:
        (n,) int64 classes, or (n, classes) floating-point probabilities.

    Raises:
        DataError: they are neither, or a class is out of range. It names shape and type.
    """
    found, wrong = _read(labels, classes)
    if bool(wrong):
        raise DataError(_what_is_wrong(labels, classes))
    return found


def _read(labels: Tensor, classes: int | None) -> tuple[Tensor, Tensor]:
    """Labels by shape and type, classes brought into range; and whether values make no sense, one bool."""
    if labels.is_complex():
        raise DataError(f"{_described(labels)} are no classes. {_OWN}.")
    soft = labels.is_floating_point()
    if labels.dim() == 2 and labels.shape[1] > 1:
        if classes not in (None, labels.shape[1]):
            _refuse_infinite(labels)
            raise DataError(f"{_described(labels)} do not go with the model's {classes} outputs. {_OWN}.")
        rows = _rows(labels)
        wrong = ((rows < 0) | ~rows.isfinite()).any() | ((rows.sum(1) - 1).abs() > _SLACK).any()
        return rows if soft else rows.argmax(1), wrong
    if soft:
        _refuse_infinite(labels)
        raise DataError(
            f"{_described(labels)} are fractions, not classes; classes are integers (labels.long()). {_OWN}."
        )
    if labels.dim() != 1 and labels.shape[1:] != (1,):
        raise DataError(f"{_described(labels)} are not one class for each input. {_OWN}.")
    found = labels.reshape(-1).long()
    within = found.clamp(0, None if classes is None else classes - 1)
    return within, (within != found).any()


def _rows(labels: Tensor) -> Tensor:
    """Probabilities, one row an input."""
    soft = labels.is_floating_point()
    return labels.to(torch.promote_types(labels.dtype, torch.float32)) if soft else labels.long()


def _refuse_infinite(labels: Tensor) -> None:
    if labels.is_floating_point() and not bool(labels.isfinite().all()):
        raise DataError("there are labels that are not finite. Mend or leave out those inputs.")


def _what_is_wrong(labels: Tensor, classes: int | None) -> str:
    """In words, of labels whose shape and type are as they should be."""
    _refuse_infinite(labels)
    if labels.dim() == 2 and labels.shape[1] > 1:
        rows = _rows(labels)
        wrong = (rows < 0).any(1) | ((rows.sum(1) - 1).abs() > _SLACK)
        row = int(wrong.nonzero()[0])
        return (
            f"{_described(labels)} are no class probabilities: row {row} sums to {float(rows[row].sum()):g} and "
            f"its least is {float(rows[row].min()):g}. {_OWN}."
        )
    low, high = torch.stack(labels.reshape(-1).long().aminmax()).tolist()
    if low < 0:
        return (
            f"{_described(labels)} hold the label {low}, and go up to {high}; classes count from 0, and none is "
            "passed over (as ignore_index does). Leave out those inputs, or give optimize() a loss_fn."
        )
    return (
        f"the data has labels up to {high}, but the model has {classes} outputs, for classes from 0 to "
        f"{(classes or 1) - 1} (the smallest label is {low}). Use the data set that the model was trained on, or "
        "give --num-classes."
    )


def classes_of(targets: Tensor) -> Tensor:
    """The class of every input, of probabilities the likeliest; what accuracy is measured against."""
    return targets.argmax(1) if targets.dim() == 2 else targets


def _described(labels: Tensor) -> str:
    return f"labels of shape {tuple(labels.shape)} and type {str(labels.dtype).removeprefix('torch.')}"
