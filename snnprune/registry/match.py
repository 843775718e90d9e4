"""Find the architecture that a state dict belongs to."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..errors import ModelFileError
from .factory import build, torchvision_names
from .heads import changed_head

State = Mapping[str, Tensor]
_SHOWN = 4  # differences in a message
_VARIANTS: dict[str, tuple[dict[str, Any], ...]] = {
    "googlenet": ({"aux_logits": True}, {"aux_logits": False}),
    "inception_v3": ({"aux_logits": True}, {"aux_logits": False}),
}


def mismatches(model: nn.Module, state: State) -> list[str]:
    """What is missing, extra or of another shape, one line each; empty when the state dict fits."""
    own = model.state_dict()
    found = [f"{key} is missing" for key in own if key not in state and not optional(key)]
    found += [f"{key} is unknown" for key in state if key not in own]
    found += [
        f"{key} is {tuple(state[key].shape)} in the file, {tuple(own[key].shape)} in the model"
        for key in own
        if key in state and own[key].shape != state[key].shape
    ]
    return found


def optional(key: str) -> bool:
    """Entries that files of PyTorch before 0.4.1 lack: they only count training batches."""
    return key.endswith("num_batches_tracked")


def guess_classes(model: nn.Module, state: State) -> int | None:
    """The number of outputs that would explain all differing shapes; None when nothing differs so."""
    own = model.state_dict()
    if {k for k in own if not optional(k)} != {k for k in state if not optional(k)}:
        return None
    counts = {
        state[k].shape[0]
        for k in own
        if k in state
        and own[k].shape != state[k].shape
        and own[k].dim() == state[k].dim() > 0
        and len(state[k]) > 0
        and own[k].shape[1:] == state[k].shape[1:]
    }
    return counts.pop() if len(counts) == 1 else None


def fit(arch: str, state: State, num_classes: int | None = None) -> tuple[dict[str, Any], list[str]]:
    """Factory arguments under which `arch` fits a state dict, and what does not fit (best variant)."""
    best: tuple[dict[str, Any], list[str]] | None = None
    for variant in _VARIANTS.get(arch, ({},)):
        kwargs = dict(variant)
        if num_classes is not None:
            kwargs["num_classes"] = num_classes
        model = skeleton(arch, kwargs)
        wrong = mismatches(model, state)
        guess = guess_classes(model, state) if wrong and num_classes is None else None
        if guess is not None:
            guessed = {**kwargs, "num_classes": guess}
            try:
                still = mismatches(skeleton(arch, guessed), state)
            except ModelFileError:
                still = wrong
            if not still:
                kwargs, wrong = guessed, still
        if best is None or len(wrong) < len(best[1]):
            best = kwargs, wrong
        if not wrong:
            break
    assert best is not None
    if best[1] and ":" not in arch:
        changed = changed_head(skeleton(arch, {}), state)
        if changed is not None and num_classes in (None, changed["num_classes"]):
            return changed, []
    return best


def skeleton(arch: str, kwargs: Mapping[str, Any]) -> nn.Module:
    """The architecture for its names and shapes, without memory where that can be; torchvision's are kept."""
    if ":" not in arch and "head" not in kwargs:
        return _kept(arch, tuple(sorted(kwargs.items())))
    try:
        return build(arch, meta=True, **kwargs)
    except ModelFileError:
        return build(arch, **kwargs)


@functools.lru_cache(maxsize=256)
def _kept(arch: str, kwargs: tuple[tuple[str, Any], ...]) -> nn.Module:
    try:
        return build(arch, meta=True, **dict(kwargs))
    except ModelFileError:  # RegNet computes with its weights while it is built
        return build(arch, **dict(kwargs)).to("meta")


def find_architecture(state: State, num_classes: int | None = None) -> tuple[str, dict[str, Any]]:
    """The one torchvision classifier whose names and shapes are exactly those of a state dict.

    Raises:
        ModelFileError: none fits, or several do.
    """
    size = sum(t.numel() for t in state.values())
    found: list[tuple[str, dict[str, Any]]] = []
    nearest: tuple[str, list[str]] | None = None
    for name in torchvision_names():
        if not _plausible(name, size):
            continue
        kwargs, wrong = fit(name, state, num_classes)
        if not wrong:
            found.append((name, kwargs))
        elif nearest is None or len(wrong) < len(nearest[1]):
            nearest = name, wrong
    if len(found) == 1:
        return found[0]
    if found:
        raise ModelFileError(
            f"the state dict fits several architectures ({', '.join(n for n, _ in found)}). "
            "Choose one with --arch."
        )
    if nearest is None or len(nearest[1]) >= len(state) / 2:
        raise ModelFileError(
            "the state dict fits no torchvision classifier. Name its architecture with --arch file.py:function."
        )
    name, wrong = nearest
    if num_classes is not None:
        kwargs, unlike = fit(name, state)
        if not unlike:  # the number is all that keeps it from fitting
            own = kwargs.get("num_classes", 1000)
            raise ModelFileError(
                f"the weights are those of {name} with {own} outputs, not {num_classes} (--num-classes). Leave "
                "that out, or give a model that has so many."
            )
    differences = "; ".join(wrong[:_SHOWN]) + (f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else "")
    raise ModelFileError(
        f"the state dict fits no torchvision classifier; the nearest is {name}, but {differences}. Name its "
        "architecture with --arch file.py:function."
    )


def recognise(model: nn.Module) -> tuple[str, dict[str, Any]] | None:
    """The torchvision classifier, with its arguments, that builds a model's exact like; None where none does.

    Names and shapes of the weights are not enough: dropout rates, strides and the like are compared too, and
    whatever else the modules hold.
    """
    source = type(model).__module__
    if not source.startswith("torchvision.models."):
        return None
    from torchvision import models

    state = model.state_dict()
    size = sum(t.numel() for t in state.values())
    names = [n for n in torchvision_names() if models.get_model_builder(n).__module__ == source]
    for name in sorted(names, key=lambda n: abs((_published(n) or 0) - size)):  # the likeliest first
        kwargs, wrong = fit(name, state) if _plausible(name, size) else ({}, ["size"])
        if wrong:
            continue
        if hasattr(model, "transform_input"):  # what GoogLeNet and Inception with published weights do
            kwargs["transform_input"] = bool(model.transform_input)
        if alike(model, skeleton(name, kwargs)):
            return name, kwargs
    return None


def alike(one: nn.Module, other: nn.Module) -> bool:
    """Whether two models consist of the same modules with the same attributes, whatever their weights."""
    first, second = dict(one.named_modules()), dict(other.named_modules())
    return first.keys() == second.keys() and all(
        type(first[name]) is type(second[name]) and _same(_attributes(first[name]), _attributes(second[name]))
        for name in first
    )


def _attributes(module: nn.Module) -> dict[str, Any]:
    tables = ("_parameters", "_buffers", "_modules", "training")
    return {name: value for name, value in vars(module).items() if name not in tables}


def _same(one: Any, other: Any) -> bool:
    """Equality that holds for functions with fixed arguments too, and never for tensors."""
    if isinstance(one, Tensor) or type(one) is not type(other):
        return False
    if isinstance(one, functools.partial):
        return _same([one.func, one.args, one.keywords], [other.func, other.args, other.keywords])
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _plausible(name: str, size: int) -> bool:
    """Whether the published size of a model is near enough to build it and look closer.

    The classifier's share differs with the number of classes, hence the wide range.
    """
    published = _published(name)
    return published is None or 0.2 * published <= size <= 3 * published


def _published(name: str) -> int | None:
    from torchvision import models

    weights = list(models.get_model_weights(name))
    return weights[0].meta.get("num_params") if weights else None
