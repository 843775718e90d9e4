"""A criterion at work: one score per neuron of every prunable group."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import streams
from ..errors import ConfigError, CriterionError, SnnPruneError, first_line
from ..graph import NeuronGroup
from ..shown import brief_repr
from .foreign import fresh, functions, importance_of, library
from .gradients import Loss, put_gradients_
from .names import is_theirs, label_of, needs
from .standins import Group, stand_in

_ABSENT = {"max": -99999.0, "prod": 1.0}  # what torch-pruning's reductions begin with; sums begin with 0
_COMBINED = {"max": "amax", "prod": "prod"}


def judge(
    scores: Any,
    model: nn.Module,
    groups: Sequence[NeuronGroup],
    *,
    look: Iterable[Any] | None = None,
    loss: Loss | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Scores of all neurons by a criterion; higher is better, and groups are compared as the scores say.

    Args:
        scores: a name of `ALONE`, an importance of torch-pruning, or a function of (model, groups) that returns
            group id -> (size,) scores; a group that it leaves out goes last.
        model: the network; the criterion is given a copy, in evaluation mode.
        groups: its groups; the criterion is given those that can be pruned.
        look: batches for gradients, where the criterion needs them.
        loss: of these batches.
        seed: of what it draws at random.

    Returns:
        Group id -> (size,) float64 on the CPU. Groups of which the criterion says nothing have infinite scores.

    Raises:
        ConfigError: it needs gradients, and there are no batches; or a function returns no scores.
        CriterionError: it fails on this model, or says nothing of any group.
        DivergedError: the loss is not finite.
    """
    asked, chosen = needs(scores), [group for group in groups if group.prunable]
    twin = copy.deepcopy(model).eval()
    if asked != "weights":
        if look is None or loss is None:
            raise ConfigError(
                f"scores={label_of(scores)} looks at gradients of the loss, and there is no step to look in. Give "
                "at least 4 training steps, by more epochs or smaller batches; from Python let search.probe "
                "be at least 1."
            )
        put_gradients_(twin, look, loss, squares=asked == "squares")
    with streams.kept(), _modes_kept():
        streams.seed_all(streams.seed_of(seed, "criterion"))
        if isinstance(scores, str) or is_theirs(scores):
            found = _theirs(scores, twin, chosen)
        else:
            found = _own(scores, twin, chosen)
    if not found:
        mine = not (isinstance(scores, str) or is_theirs(scores))
        raise CriterionError(
            f"scores={label_of(scores)} says nothing of any group of this model: "
            + ("it returned no scores." if mine else "it has no layers of the kind that this criterion looks at.")
            + " Take another one, such as l2."
        )
    return {group.id: found.get(group.id, torch.full((group.size,), torch.inf).double()) for group in chosen}


@contextlib.contextmanager
def _modes_kept() -> Iterator[None]:
    """What code of others may switch for the whole program is switched back: gradients, and the default type."""
    gradients, inference, dtype = (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_default_dtype(),
    )
    try:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            yield
    finally:
        torch.set_default_dtype(dtype)


def _own(function: Any, model: nn.Module, groups: Sequence[NeuronGroup]) -> dict[str, Tensor]:
    """What a function of the user's own says, after a check."""
    label = label_of(function)
    try:
        found = function(model, list(groups))
    except (SnnPruneError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise CriterionError(
            f"scores={label} failed ({type(error).__name__}: {first_line(error)}). It is given the model and its "
            "groups, and returns scores by the groups' ids."
        ) from error
    if not isinstance(found, Mapping):
        raise ConfigError(f"scores={label} returned {type(found).__name__}; a dict group id -> scores is needed.")
    sizes = {group.id: group.size for group in groups}
    for name in found:
        if name not in sizes:
            raise ConfigError(
                f"scores={label} judges {brief_repr(name, 100)}, which is no prunable group of this model."
            )
    said = {name: _checked(label, name, value, sizes[name]) for name, value in found.items() if value is not None}
    for name, values in said.items():
        if bool(values.isnan().any()):
            raise ConfigError(
                f"scores={label} gives {name} scores that are no numbers (NaN, {int(values.isnan().sum())} of "
                f"{len(values)}). Give every neuron a number; inf and -inf are allowed."
            )
    return said


def _theirs(scores: Any, model: nn.Module, groups: Sequence[NeuronGroup]) -> dict[str, Tensor]:
    """What an importance of torch-pruning says of groups that stand in for its own."""
    importance = importance_of(scores) if isinstance(scores, str) else fresh(scores)
    if isinstance(importance, getattr(library().importance, "OBDCImportance", ())):
        raise CriterionError(
            f"scores={label_of(scores)} watches layers while torch-pruning's own pruner learns, so it cannot "
            "judge a model by itself. Take hessian."
        )
    known, found = functions(), {}
    for group in groups:
        made = stand_in(model, group, known)
        if not made:
            continue
        if hasattr(importance, "_reduce"):
            importance._reduce = _sized(type(importance)._reduce, importance, group.size)
        try:
            value = importance(made)
        except Exception as error:  # its own code, on layers that it may not know
            raise CriterionError(
                f"scores={label_of(scores)}: torch-pruning's importance fails on the group {group.id} "
                f"({type(error).__name__}: {first_line(error)}). Take another criterion, or keep that group."
            ) from error
        if value is not None:
            found[group.id] = _checked(label_of(scores), group.id, _by_neuron(value, made, group.size), group.size)
    if found and all(bool(values.isnan().all()) for values in found.values()):
        raise CriterionError(
            f"scores={label_of(scores)} gives no group of this model a number: all its scores are NaN. Take "
            "another criterion."
        )
    return {name: _settled(values) for name, values in found.items()}


def _settled(values: Tensor) -> Tensor:
    """What is no number, as in a group of zeros over their mean, goes first: with the least, and 0 at most."""
    known = values[~values.isnan()]
    return values.nan_to_num(min(0.0, float(known.min())) if len(known) else 0.0, torch.inf, -torch.inf)


def _sized(reduce: Any, importance: Any, size: int) -> Any:
    """torch-pruning's reduction over layers, of one number per neuron from each.

    Its own takes the first layer's channels for the neurons. That fails where the first layer holds several
    channels of each (heads, flattened maps), or only some of the neurons (branches of a concatenation).
    """

    def of_neurons(values: list[Tensor], places: list[list[int]]) -> Any:
        way = getattr(importance, "group_reduction", "mean")
        whole = []
        for value, place in zip(values, places, strict=True):
            index = torch.tensor(place, device=value.device)
            full = torch.full((size,), _ABSENT.get(way, 0.0), device=value.device, dtype=value.dtype)
            if way in _COMBINED:
                whole.append(full.scatter_reduce_(0, index, value, _COMBINED[way]))
            else:
                whole.append(full.index_add_(0, index, value))
        return reduce(importance, whole, [list(range(size))] * len(whole))

    return of_neurons


def _by_neuron(value: Any, group: Group, size: int) -> Any:
    """One number per neuron, where an importance gives one per channel of the first layer: their mean."""
    roots = group[0].root_idxs
    if not isinstance(value, Tensor) or value.shape == (size,) or value.shape != (len(roots),):
        return value
    index = torch.tensor(roots, device=value.device)
    total = value.new_zeros(size).index_add_(0, index, value)
    return total / torch.bincount(index, minlength=size).clamp_min(1)


def _checked(label: str, name: str, value: Any, size: int) -> Tensor:
    """Scores as float64 on the CPU."""
    try:
        found = torch.as_tensor(value).detach().to_dense().double().cpu()
    except Exception as error:  # whatever else a function may return
        raise ConfigError(
            f"scores={label} gives {name} {brief_repr(value, 60)}, which is no scores ({first_line(error)}); one "
            "number for each neuron is needed, as a list or a tensor."
        ) from error
    if found.shape != (size,):
        raise ConfigError(
            f"scores={label} gives {name} scores of shape {tuple(found.shape)}; the group has {size} neurons."
        )
    return found
