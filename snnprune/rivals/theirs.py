"""torch-pruning's own pruners: the target met by bisection of the ratio, or in small steps."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from .. import layers
from ..criteria.foreign import functions, library
from ..errors import CriterionError, first_line
from ..inputs import Inputs

Scope = Literal["local", "global"]
Sparse = Literal["bn", "group", "growing"]
DEEPEST = 0.95  # largest share of a layer that torch-pruning may remove
_HALVINGS, _SCANNED = 12, 20
GROWTH = 1e-4  # of a growing regulariser at a time, in its own script
SMALL_STEPS = 400  # of its own script, from the whole network to none of it
_SIDES = ("prune_conv_in_channels", "prune_linear_in_channels")


@dataclass(frozen=True)
class Way:
    """How one of its pruners is asked.

    Attributes:
        make: gives a fresh importance.
        scope: `local` takes the same ratio in every layer, `global` one ranking over all.
        ignored: names of modules that it must leave alone.
        sparse: its regulariser for sparse learning: of the scales of batch norm, of whole groups, or one of
            groups that grows where their norms are small (arXiv 2012.09243).
        reg: strength of that; of a growing one, to begin with.
        gradual: remove in many small steps, and judge anew before each, as its own script does; else all at once.
        seed: of what an importance draws at random.
    """

    make: Callable[[], Any]
    scope: Scope = "local"
    ignored: tuple[str, ...] = ()
    sparse: Sparse | None = None
    reg: float = 1e-3
    seed: int = 0
    gradual: bool = False

    def pruner(
        self, model: nn.Module, example: Inputs, ratios: tuple[float, float, int], *, steps: int = 1
    ) -> Any:
        """A pruner of a model, which it will change in place.

        Args:
            model: to prune.
            example: what its forward takes.
            ratios: (ratio, milder ratio, how many of the first layers take the milder one).
            steps: in how many equal steps it gets there.

        Raises:
            CriterionError: torch-pruning is not installed, or its dependency graph fails on this model.
        """
        tp = library()
        layers_of = [
            m for n, m in model.named_modules() if isinstance(m, (_ConvNd, nn.Linear)) and not self._stays(n)
        ]
        ratio, milder, first = ratios
        kinds = {"bn": "BNScalePruner", "group": "GroupNormPruner", "growing": "GrowingRegPruner"}
        kind = "BasePruner" if self.sparse is None else kinds[self.sparse]
        own: dict[str, float] = {} if self.sparse is None else {"reg": self.reg}
        if self.sparse == "growing":
            own["delta_reg"] = GROWTH
        with warnings.catch_warnings(), failing("cannot build this network"), _all_learning(model):
            warnings.simplefilter("ignore")
            return getattr(tp.pruner, kind)(
                model,
                example,
                importance=self.make(),
                global_pruning=self.scope == "global",
                pruning_ratio=ratio,
                pruning_ratio_dict=dict.fromkeys(layers_of[:first], milder) if self.scope == "local" else None,
                max_pruning_ratio=DEEPEST,
                ignored_layers=[m for n, m in model.named_modules() if self._stays(n)],
                iterative_steps=steps,
                **own,
            )

    def _stays(self, name: str) -> bool:
        return name in self.ignored


@contextlib.contextmanager
def _all_learning(model: nn.Module) -> Iterator[None]:
    """Everything has a gradient meanwhile: its graph is made of them, and would pass frozen layers over."""
    flags = [(p, p.requires_grad) for p in model.parameters()]
    for parameter, _ in flags:
        parameter.requires_grad_(parameter.is_floating_point() or parameter.is_complex())
    try:
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def fit(
    way: Way,
    model: nn.Module,
    example: Inputs,
    count: Callable[[nn.Module], float],
    limit: float,
    gradients: Mapping[str, Tensor] | None = None,
) -> tuple[nn.Module, dict[str, list[int]]]:
    """The mildest ratio whose cost fits, or where the way is gradual, its small steps until the cost fits.

    Where layers are narrow one ratio for all is a coarse measure, so with local ratios the first layers take the
    next milder one, as many as fit.

    Args:
        way: how it prunes.
        model: the network, which stays as it is.
        example: what its forward takes.
        count: cost of a model.
        limit: what it may be.
        gradients: of the parameters, for importances that look at them.

    Returns:
        The pruned network, and by the names of layers which of their input channels are left.

    Raises:
        CriterionError: torch-pruning fails on this network, or cannot make it so small.
    """
    half = any(p.dtype in (torch.float16, torch.bfloat16) for p in model.parameters())
    largest = max((float(g.abs().max()) for g in gradients.values()), default=0.0) if gradients and half else 1.0
    largest = largest or 1.0

    def begun() -> nn.Module:
        clone = copy.deepcopy(model)
        for key, parameter in clone.named_parameters():
            # one factor for all changes no order, and keeps small squares above 0 in half precision
            parameter.grad = None if gradients is None else (gradients[key] / largest).to(parameter.dtype)
        torch.manual_seed(way.seed)  # random importance: the same order at every ratio
        return clone

    def pruned(*ratios: Any) -> tuple[nn.Module, dict[str, list[int]]]:
        clone, kept = begun(), {}
        _step(way.pruner(clone, example, ratios), clone, kept)
        clone.zero_grad(set_to_none=True)
        return clone, kept

    def cost(found: tuple[nn.Module, Any]) -> float:
        with failing("leaves a network that does not run"):
            return count(found[0])

    if way.gradual:
        clone = begun()
        found = clone, _gradually(way, clone, example, lambda: cost((clone, None)), limit)
        clone.zero_grad(set_to_none=True)
        return found

    low, high = _ratios(lambda ratio: cost(pruned(ratio, ratio, 0)), limit)
    best = pruned(high, high, 0)
    for first in range(1, len(list(model.modules())) if way.scope == "local" else 1):
        candidate = pruned(high, low, first)
        if cost(candidate) > limit:
            break
        best = candidate
    return best


def _ratios(cost: Callable[[float], float], limit: float) -> tuple[float, float]:
    """The mildest ratio whose cost fits, and the next milder one, which does not.

    Cost falls with the ratio, but for rankings over all layers: a layer that they would empty torch-pruning leaves
    whole, and then the largest ratios hardly cut. So where bisection ends at the largest, it begins anew at the
    first ratio that fits.

    Raises:
        CriterionError: none does.
    """
    low, high = _bisected(cost, limit, 0.0, DEEPEST, _HALVINGS)
    if high < DEEPEST or cost(high) <= limit:
        return low, high
    seen = []
    for at in range(1, _SCANNED):
        ratio = DEEPEST * at / _SCANNED
        seen.append(cost(ratio))
        if seen[-1] <= limit:
            return _bisected(cost, limit, DEEPEST * (at - 1) / _SCANNED, ratio, _HALVINGS // 2)
    raise _out_of_reach(min(seen), limit, cost(0.0))


def _bisected(
    cost: Callable[[float], float], limit: float, low: float, high: float, times: int
) -> tuple[float, float]:
    for _ in range(times):
        middle = (low + high) / 2
        if cost(middle) <= limit:
            high = middle
        else:
            low = middle
    return low, high


def _gradually(
    way: Way, model: nn.Module, example: Inputs, cost: Callable[[], float], limit: float
) -> dict[str, list[int]]:
    """Remove in small steps, in place, group by group until the cost fits; returns the input channels left.

    Raises:
        CriterionError: it never does.
    """
    pruner = way.pruner(model, example, (1.0, 1.0, 0), steps=SMALL_STEPS)
    left: dict[str, list[int]] = {}
    now = whole = cost()
    for _ in range(SMALL_STEPS):
        if now <= limit:
            return left

        def fits() -> bool:
            nonlocal now
            now = cost()
            return now <= limit

        _step(pruner, model, left, fits)
    if now <= limit:
        return left
    raise _out_of_reach(now, limit, whole)


def _out_of_reach(least: float, limit: float, whole: float) -> CriterionError:
    if least >= whole:
        return CriterionError(
            "torch-pruning's pruner removes nothing of this network: its criterion judges none of the layers that "
            "may go (as bn-scale without batch norm), or all of them alike, or all have to stay. Its order under "
            "our surgery may."
        )
    return CriterionError(
        f"torch-pruning's pruner leaves {least:.0f} or more, at every ratio up to {DEEPEST}, and {limit:.0f} "
        "were asked for. Ask for a larger target."
    )


def _step(
    pruner: Any, model: nn.Module, left: dict[str, list[int]], done: Callable[[], bool] = lambda: False
) -> None:
    """Prune once, unless it is done before.

    Args:
        pruner: of the model.
        model: changed in place.
        left: by the names of layers which of their input channels are left; brought up to date.
        done: asked after every group.

    Raises:
        CriterionError: it fails, or its criterion gives no group a number: within one layer any order would do.
    """
    judge, numbers = pruner.estimate_importance, []

    def judged(group: Any, *more: Any) -> Any:
        value = judge(group, *more)
        if value is not None:
            numbers.append(not bool(value.isnan().all()))
        return value

    pruner.estimate_importance = judged
    try:
        _removed(pruner, model, left, done)
    finally:
        del pruner.estimate_importance
    if numbers and not any(numbers) and not done():
        raise CriterionError(
            "torch-pruning's pruner has no order: its criterion gives no layer of this network a number, all its "
            "scores are NaN. Take another criterion."
        )


def _removed(pruner: Any, model: nn.Module, left: dict[str, list[int]], done: Callable[[], bool]) -> None:
    names = {module: name for name, module in model.named_modules()}
    sides = [getattr(functions(), side) for side in _SIDES]
    with failing("fails on this network"):
        for group in pruner.step(interactive=True):
            for dep, idxs in group:
                module = dep.target.module
                if dep.handler in sides and module in names:
                    known = left.setdefault(names[module], list(range(layers.in_width(module))))
                    gone = {int(getattr(i, "idx", i)) for i in idxs}
                    left[names[module]] = [channel for at, channel in enumerate(known) if at not in gone]
            group.prune()
            if done():
                return


@contextlib.contextmanager
def failing(what: str) -> Iterator[None]:
    """Turns what torch-pruning, or a network that it has cut, raises into one error."""
    try:
        yield
    except (CriterionError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise CriterionError(
            f"torch-pruning's pruner {what} ({type(error).__name__}: {first_line(error)}). Its order under our "
            "surgery may."
        ) from error
