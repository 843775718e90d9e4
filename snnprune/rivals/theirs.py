"""torch-pruning's own pruners: the target met by bisection of the ratio, and what they removed looked at."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .. import layers
from ..criteria import Loss
from ..criteria.foreign import functions, library
from ..errors import CriterionError, first_line
from ..inputs import Inputs, call, moved, to_dtype
from ..learner.optim import cosine
from ..proof.difference import relative_difference

Scope = Literal["local", "global"]
DEEPEST = 0.95  # largest share of a layer that torch-pruning may remove
_HALVINGS, _SCANNED = 12, 20
_CLIP = 5.0
_SIDES = ("prune_conv_in_channels", "prune_linear_in_channels")


@dataclass(frozen=True)
class Way:
    """How one of its pruners is asked.

    Attributes:
        make: gives a fresh importance.
        scope: `local` takes the same ratio in every layer, `global` one ranking over all.
        ignored: names of modules that it must leave alone.
        sparse: its regulariser for sparse learning: of the scales of batch norm, or of whole groups.
        reg: strength of that.
        seed: of what an importance draws at random.
    """

    make: Callable[[], Any]
    scope: Scope = "local"
    ignored: tuple[str, ...] = ()
    sparse: Literal["bn", "group"] | None = None
    reg: float = 1e-3
    seed: int = 0

    def pruner(self, model: nn.Module, example: Inputs, ratios: tuple[float, float, int]) -> Any:
        """A pruner of a model, which it will change in place.

        Args:
            model: to prune.
            example: what its forward takes.
            ratios: (ratio, milder ratio, how many of the first layers take the milder one).

        Raises:
            CriterionError: torch-pruning is not installed, or its dependency graph fails on this model.
        """
        tp = library()
        layers_of = [
            m for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear)) and not self._stays(n)
        ]
        ratio, milder, first = ratios
        kind = {None: "BasePruner", "bn": "BNScalePruner", "group": "GroupNormPruner"}[self.sparse]
        with warnings.catch_warnings(), _failing("cannot build this network"):
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
                **({} if self.sparse is None else {"reg": self.reg}),
            )

    def _stays(self, name: str) -> bool:
        return name in self.ignored


def fit(
    way: Way,
    model: nn.Module,
    example: Inputs,
    count: Callable[[nn.Module], float],
    limit: float,
    gradients: Mapping[str, Tensor] | None = None,
) -> tuple[nn.Module, dict[str, list[int]]]:
    """The mildest ratio whose cost fits.

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

    def pruned(*ratios: Any) -> tuple[nn.Module, dict[str, list[int]]]:
        clone = copy.deepcopy(model)
        for key, parameter in clone.named_parameters():
            parameter.grad = None if gradients is None else gradients[key].clone()
        torch.manual_seed(way.seed)  # random importance: the same order at every ratio
        kept = _step(way.pruner(clone, example, ratios), clone)
        clone.zero_grad(set_to_none=True)
        return clone, kept

    def cost(found: tuple[nn.Module, Any]) -> float:
        with _failing("leaves a network that does not run"):
            return count(found[0])

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
    raise CriterionError(
        f"torch-pruning's pruner leaves {min(seen):.0f} or more, at every ratio up to {DEEPEST}, and {limit:.0f} "
        "were asked for. Ask for a larger target."
    )


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


def _step(pruner: Any, model: nn.Module) -> dict[str, list[int]]:
    """Prune once; returns which input channels are left of every layer that lost some."""
    names = {module: name for name, module in model.named_modules()}
    sides = [getattr(functions(), side) for side in _SIDES]
    left: dict[str, list[int]] = {}
    with _failing("fails on this network"):
        for group in pruner.step(interactive=True):
            for dep, idxs in group:
                module = dep.target.module
                if dep.handler in sides and module in names:
                    known = left.setdefault(names[module], list(range(layers.in_width(module))))
                    gone = {int(getattr(i, "idx", i)) for i in idxs}
                    left[names[module]] = [channel for at, channel in enumerate(known) if at not in gone]
            group.prune()
    return left


def learn_sparsely_(
    way: Way, model: nn.Module, example: Inputs, batches: Iterable[Any], loss: Loss, *, lr: float, steps: int
) -> None:
    """Train with the pruner's own regulariser, in place, at half the peak rate of the recovery.

    Without weight decay, as torch-pruning's own script has it.

    Raises:
        CriterionError: torch-pruning fails on this network.
    """
    device = next(iter(model.parameters())).device
    pruner = way.pruner(model, example, (0.5, 0.5, 0))
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, nesterov=True)
    model.train()
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = 0.5 * lr * cosine(step, steps, 0.05)
        value = loss(model, moved(batch, device))
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        with _failing("fails on this network"):
            pruner.regularize(model)
        nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
        optimizer.step()
    model.eval()


@torch.no_grad()
def inexactness(dense: nn.Module, pruned: nn.Module, left: Mapping[str, Sequence[int]], sample: Inputs) -> float:
    """How far a pruned network is from the dense one in which no layer sees the channels that it lost, in float64.

    Largest difference of the outputs over their spread; rounding alone makes about 1e-15.

    Args:
        dense: before the removal.
        pruned: after it, not yet recovered.
        left: which input channels every layer has left.
        sample: real inputs.
    """
    whole, small = (copy.deepcopy(model).double().eval() for model in (dense, pruned))
    x = to_dtype(sample, torch.float64)
    for name, channels in left.items():
        whole.get_submodule(name).register_forward_pre_hook(_Masked(channels))
    with _failing("leaves a network that does not run"):
        return relative_difference(call(whole, x), call(small, x))


class _Masked:
    """Forward pre-hook: a layer does not see the channels that are not left."""

    def __init__(self, channels: Sequence[int]) -> None:
        self.channels = list(channels)

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x = args[0]
        mask = torch.zeros(layers.in_width(module), dtype=x.dtype, device=x.device)
        mask[self.channels] = 1
        dim = layers.channel_dim(module, x)
        return x * mask.view([-1 if at == dim else 1 for at in range(x.dim())]), *args[1:]


@contextlib.contextmanager
def _failing(what: str) -> Iterator[None]:
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
