"""The weights inside what a training script has saved."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import ModelFileError
from ..shown import brief_repr

logger = logging.getLogger(__name__)
State = dict[str, Tensor]
_DEPTH, _ENTRIES = 4, 64  # how far is looked, and at how many entries of a container
_NAMED = 12  # entries in a message
_USUAL = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "weights",
    "params",
    "module",
)
_AVERAGED = ("ema", "averaged", "swa", "shadow")  # in the name of an entry
_OTHERS = ("optim", "scheduler", "scaler", "rng", "loops", "callbacks", "criterion", "loss")
_COUNTS = ("total_ops", "total_params")  # that profilers leave in the tables of modules
_N_AVERAGED = "n_averaged"  # AveragedModel's count beside the weights


def weights_in(content: Any, path: Path, remedy: str, entry: str | None = None) -> State | nn.Module:
    """The one state dict, or whole model, that a file holds, wherever it lies.

    Args:
        content: of the file.
        path: of it, for messages.
        remedy: what to give instead, a sentence.
        entry: name of the one to take, as `model_ema` or `models.student`, where there are several.

    Raises:
        ModelFileError: there is none, or there are several and none is usual.
    """
    if isinstance(content, nn.Module):
        return content
    if not isinstance(content, Mapping) or not content:
        raise ModelFileError(f"{path} holds {type(content).__name__}, not a state dict or a model. {remedy}")
    found = dict(_candidates(content))
    if entry is not None:
        if entry not in found and len(found) == 1:  # a module in the one state dict
            (only,) = found.values()
            found |= dict(within(only)) if not isinstance(only, nn.Module) else {}
        if entry not in found:
            there = f"It holds {', '.join(sorted(found)[:_NAMED])}" if any(found) else "It holds but one"
            raise ModelFileError(f"{path} holds no weights under {brief_repr(entry)}. {there}.")
        return _told(found, entry, path)
    if not found:
        items = list(content.items())
        key, value = next((item for item in items if not isinstance(item[1], Tensor)), items[0])
        raise ModelFileError(
            f"{path} holds {repr(key)[:100]}: {type(value).__name__}, which is no entry of a state dict. "
            "Save the state dict alone, or as the entry 'state_dict'."
        )
    plain = [name for name in found if not is_averaged(name)] or list(found)
    usual = [name for key in _USUAL for name in plain if name == key]
    if len(plain) > 1 and not usual:
        raise ModelFileError(
            f"{path} holds several sets of weights: {', '.join(sorted(found))}. Name one with --entry."
        )
    return _told(found, (usual or plain)[0], path)


def _candidates(content: Mapping[Any, Any], name: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Name -> state dict or module. A table with such inside is none itself."""
    inside: list[tuple[str, Any]] = []
    if depth < _DEPTH:
        for key, value in list(content.items())[:_ENTRIES] if not _is_state(content) else ():
            if not isinstance(key, str) or (depth == 0 and any(word in key.lower() for word in _OTHERS)):
                continue
            if isinstance(value, nn.Module):
                inside.append((_joined(name, key), value))
            elif isinstance(value, Mapping) and value:
                inside += _candidates(value, _joined(name, key), depth + 1)
    if inside:
        yield from inside
    elif _is_state(content):
        yield name, content


def _joined(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _is_state(content: Mapping[Any, Any]) -> bool:
    """Whether a table is of tensors under names; what scripts put beside them are numbers and texts."""
    tensors = sum(isinstance(value, Tensor) for value in content.values())
    plain = (bool, int, float, str, type(None))
    return (
        tensors > 0
        and all(isinstance(key, str) for key in content)
        and (all(isinstance(value, (Tensor, *plain)) for value in content.values()))
    )


def is_averaged(name: str) -> bool:
    """Whether an entry is an averaged copy of the weights, by its name."""
    return any(word in _AVERAGED for word in re.split(r"[^a-z]+", name.lower()))


def _told(found: Mapping[str, Any], name: str, path: Path) -> Any:
    """What was chosen, with a word about what was not."""
    others = sorted(other for other in found if other != name)
    if name or others:
        more = f"; not used: {', '.join(others)} (--entry)" if others else ""
        logger.info("%s: weights are those of the entry %s%s", path, name, more)
    chosen = found[name]
    if isinstance(chosen, nn.Module):
        return chosen
    return bare({key: value for key, value in chosen.items() if isinstance(value, Tensor)})


def bare(state: Mapping[str, Tensor]) -> State:
    """Without what wrappers and profilers add: DataParallel, torch.compile, AveragedModel, counted operations."""
    found = {key: value.detach() for key, value in state.items() if key.rpartition(".")[2] not in _COUNTS}
    while True:
        rest = {key: value for key, value in found.items() if key != _N_AVERAGED}
        prefix = next((p for p in ("module.", "_orig_mod.") if rest and all(k.startswith(p) for k in rest)), None)
        if prefix is None:
            break
        found = {key.removeprefix(prefix): value for key, value in rest.items()}
    if len(found) > 1:
        found.pop(_N_AVERAGED, None)
    parts = {key: [part for part in key.split(".") if part != "_orig_mod"] for key in found}
    return {".".join(parts[key]): value for key, value in found.items()}


def within(state: Mapping[str, Tensor]) -> Iterator[tuple[str, State]]:
    """The state dict of every module that holds others, the largest first: (its name, what lies in it).

    So the network is found in a LightningModule, a trainer or any other object whose state dict was saved.
    """
    tables: dict[str, State] = {}
    for key, value in state.items():
        parts = key.split(".")
        for depth in range(1, min(_DEPTH, len(parts))):
            tables.setdefault(".".join(parts[:depth]), {})[".".join(parts[depth:])] = value
    sizes = {name: sum(t.numel() for t in table.values()) for name, table in tables.items()}
    yield from sorted(tables.items(), key=lambda item: (-sizes[item[0]], item[0]))
