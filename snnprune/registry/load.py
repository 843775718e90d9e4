"""load_model(): a model file and an architecture to a model with its weights."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelFileError, first_line
from ..files import STRUCTURE
from .factory import build
from .files import check_finite, read_model_file
from .inside import is_averaged, within
from .match import find_architecture, fit, optional

logger = logging.getLogger(__name__)
_PARTS, _SHARE = 8, 0.1  # of a state dict that are tried, and how much of it each must be


@dataclass(slots=True)
class LoadedModel:
    """A model and how to build its skeleton again.

    Attributes:
        model: the network with its weights, on the CPU.
        arch: torchvision name or code; None for a whole pickled model.
        kwargs: arguments of the factory.
    """

    model: nn.Module
    arch: str | None
    kwargs: dict[str, Any] = field(default_factory=dict)


def load_model(
    path: str | Path,
    *,
    arch: str | None = None,
    num_classes: int | None = None,
    trust_pickle: bool = False,
    entry: str | None = None,
) -> LoadedModel:
    """Load a trained model safely.

    The weights are found wherever they lie in a checkpoint, also in a state dict of something that holds the model
    (a LightningModule, a trainer); what is not used is said. Averaged copies are taken only where nothing else is
    there, or `entry` names one.

    Args:
        path: a state dict or whole model (see `read_model_file`).
        arch: torchvision name, `package.module:function` or `file.py:function`; without it, the one
            torchvision classifier whose names and shapes match exactly.
        num_classes: outputs of the model; by default read off the weights.
        trust_pickle: load any pickle, which can run code.
        entry: which of several sets of weights to take, such as `model_ema`.

    Raises:
        ModelFileError: the file cannot be read or is not allowed, fits no or several architectures,
            or holds NaN.
    """
    path = Path(path)
    content = read_model_file(path, trust_pickle=trust_pickle, entry=entry)
    if isinstance(content, nn.Module):
        if arch is not None:
            content = content.state_dict()
        else:
            check_finite(content.state_dict(), path)
            if any(p.dtype in (torch.float16, torch.bfloat16) for p in content.parameters()):
                content.float()  # as a state dict's values become
            return LoadedModel(content.eval(), None)
    if arch is None and path.suffix == ".safetensors" and (path.parent / STRUCTURE).is_file():
        raise ModelFileError(
            f"{path} holds the weights of a run, which make a model only together with the {STRUCTURE} beside "
            f"them. Name the folder instead: {path.parent}."
        )
    content, arch, kwargs, wrong = _matched(path, content, arch, num_classes)
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ModelFileError(f"{path} does not fit {arch}: {'; '.join(wrong[:3])}{more}.")
    check_finite(content, path)
    model = build(arch, **kwargs)
    try:
        load_state_(model, {**{k: v for k, v in model.state_dict().items() if optional(k)}, **content})
    except (RuntimeError, TypeError) as error:  # of an element type that does not become the model's
        raise ModelFileError(f"{path} does not fit {arch} ({first_line(error)}).") from error
    return LoadedModel(model.eval(), arch, kwargs)


def _matched(
    path: Path, content: Mapping[str, Tensor], arch: str | None, num_classes: int | None
) -> tuple[Mapping[str, Tensor], str, dict[str, Any], list[str]]:
    """The weights of the network alone, its architecture with arguments, and what does not fit."""
    tries: list[tuple[str, Mapping[str, Tensor]]] = [("", content)]
    size = sum(t.numel() for t in content.values())
    parts = [(n, part) for n, part in within(content) if sum(t.numel() for t in part.values()) > _SHARE * size]
    tries += sorted(parts[:_PARTS], key=lambda item: is_averaged(item[0]))
    first: ModelFileError | None = None
    found: tuple[Mapping[str, Tensor], str, dict[str, Any], list[str]] | None = None
    for name, part in tries:
        try:
            known, kwargs = (arch, {}) if arch is not None else find_architecture(part, num_classes)
            wrong: list[str] = []
            if arch is not None:
                kwargs, wrong = fit(arch, part, num_classes)
        except ModelFileError as error:
            first = first or error
            continue
        if not wrong:
            if name:
                logger.info(
                    "%s: the model is %s; %d other entries are not used", path, name, len(content) - len(part)
                )
            return part, known, kwargs, []
        found = found or (part, known, kwargs, wrong)
    if found is not None:
        return found
    raise ModelFileError(f"{path}: {first}") from first


def load_state_(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Strict `load_state_dict` of bare tensors, taken to be of the model's present format.

    PyTorch writes format versions of modules beside the tensors; safetensors cannot, and some models
    (MNASNet) refuse a state without.

    Raises:
        RuntimeError: names or shapes differ.
    """
    versioned = OrderedDict(state)
    versioned._metadata = getattr(model.state_dict(), "_metadata", None)  # type: ignore[attr-defined]
    model.load_state_dict(versioned, strict=True)
