"""Classifiers that were put in the place of torchvision's own, as they are for fine-tuning."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from ..errors import ModelFileError

_INSIDE, _PLACES = 3, 16  # containers in one another, and modules in front of the layer in each


def changed_head(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """The one linear layer that a state dict has in place of a model's classifier, if that explains it.

    `fc = Sequential(Dropout(), Linear(512, 5))` has the weights `fc.1.weight` and `fc.1.bias`; what lies in front
    of the layer has none, so it is taken for dropout, which does nothing in use. With more than one layer there
    may be anything between them: no guess is made.

    Args:
        model: of the published form.
        state: names and shapes.

    Returns:
        `num_classes` and `head`, arguments of `factory.build`; None where something else differs too.
    """
    own = {key: value.shape for key, value in model.state_dict().items()}
    for at, features in _places(model):
        body = {key: shape for key, shape in own.items() if not _under(key, at)}
        theirs = {key: value.shape for key, value in state.items() if not _under(key, at)}
        counted = {key for key in body if key.endswith("num_batches_tracked")}
        if theirs.keys() - counted != body.keys() - counted or any(body[key] != theirs[key] for key in theirs):
            continue
        inside = {key[len(at) + 1 :]: value.shape for key, value in state.items() if _under(key, at)}
        weights = [key for key, shape in inside.items() if key.endswith("weight") and len(shape) == 2]
        if len(weights) != 1 or inside[weights[0]][1] != features:
            continue
        path = weights[0].removesuffix("weight").rstrip(".")
        bias = f"{path}.bias".lstrip(".")
        outputs = inside.pop(weights[0])[0]
        if inside.pop(bias, (outputs,)) != (outputs,) or inside or _wrong(path):
            continue
        has_bias = f"{at}.{bias}" in state
        return {"num_classes": outputs, "head": {"at": at, "inside": path, "bias": has_bias}}
    return None


def put_head_(model: nn.Module, num_classes: int, head: object) -> nn.Module:
    """Put a linear layer in place of a model's classifier.

    Args:
        model: of the published form.
        num_classes: outputs.
        head: `at`: the module that is replaced; `inside`: the layer's name in what replaces it, as `1`, empty
            where it is that itself; `bias`: whether it has one.

    Returns:
        The same model.

    Raises:
        ModelFileError: it is none of the forms that `changed_head` tells.
    """
    known = {"at": str, "inside": str, "bias": bool}
    if not isinstance(head, Mapping) or {key: type(value) for key, value in head.items()} != known:
        raise ModelFileError(f"the changed classifier {str(head)[:100]} is malformed.")
    places = dict(_places(model))
    if head["at"] not in places or _wrong(head["inside"]):
        raise ModelFileError(f"a model has no classifier as {str(head)[:100]} tells.")
    made: nn.Module = nn.Linear(places[head["at"]], num_classes, bias=head["bias"])
    for name in reversed(head["inside"].split(".")) if head["inside"] else ():
        if name.isdigit():
            made = nn.Sequential(*(nn.Identity() for _ in range(int(name))), made)
        else:
            made = nn.Sequential(OrderedDict([(name, made)]))
    parent, _, name = head["at"].rpartition(".")
    setattr(model.get_submodule(parent), name, made)
    return model


def _places(model: nn.Module) -> Iterator[tuple[str, int]]:
    """Modules that may have been replaced, from the last linear layer outwards; the features that enter each."""
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        return
    parts = linear[-1].split(".")
    for depth in range(len(parts), 0, -1):
        at = ".".join(parts[:depth])
        first = next(name for name in linear if name == at or _under(name, at))
        layer = model.get_submodule(first)
        assert isinstance(layer, nn.Linear)
        yield at, layer.in_features


def _under(key: str, at: str) -> bool:
    return key.startswith(f"{at}.")


def _wrong(path: str) -> bool:
    """Whether a path in a head is none that a training script would make."""
    parts = path.split(".") if path else []
    fine = all(part.isidentifier() or (part.isdigit() and int(part) <= _PLACES) for part in parts)
    return len(parts) > _INSIDE or not fine or not path.isascii()
