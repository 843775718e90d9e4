"""torch-pruning's pruners under the ring's rules: knobs to tune, and networks of which it must leave parts alone.

How its pruner is asked, fitted to the target and trained sparsely is the package's own (`snnprune contest`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from tasks import Bout
from torch import Tensor, nn

from snnprune.criteria.foreign import importance_of, library
from snnprune.criteria.gradients import put_gradients_
from snnprune.learner import PruneConfig, TaskLoss, recover, speed_of
from snnprune.metrics import count_macs, count_params
from snnprune.rivals.rounds import BETWEEN, ROUNDS, in_rounds, lengths_of, shares_of
from snnprune.rivals.sparse import GROWTHS, SPARSE_SHARE, learn_sparsely_
from snnprune.rivals.theirs import DEEPEST, GROWTH, SMALL_STEPS, Sparse, Way, fit
from snnprune.streams import seed_of


@dataclass(frozen=True)
class Rival:
    """One way to ask torch-pruning.

    Attributes:
        importance: name of its criterion.
        sparse: its regulariser, of learning before the removal.
        share: of the steps, spent on that.
        gradual: remove in many small steps, as its own scripts do. Sparse learning then sees those batches of the
            run that the recovery does not come to.
        rounds: in how many it removes, with recovery between.
        scope: what it is meant for, with which tuning begins: the same ratio in every layer, or one ranking.
    """

    importance: str
    sparse: Sparse | None = None
    share: float = 0.0
    gradual: bool = False
    rounds: int = 1
    scope: Literal["local", "global"] = "local"


LONG = SPARSE_SHARE["growing"]  # of the steps, as many as the recovery: 100 and 100 epochs in its own scripts
RIVALS = {
    "random": Rival("random"),
    "L1": Rival("l1"),
    "L2": Rival("l2"),
    "LAMP": Rival("lamp", scope="global"),  # within a layer its order is that of L2
    "FPGM": Rival("fpgm"),
    "Taylor": Rival("taylor"),
    "Hessian": Rival("hessian"),
    "BN scale, sparse": Rival("bn-scale", "bn", SPARSE_SHARE["bn"]),
    "group norm, sparse": Rival("l2", "group", SPARSE_SHARE["group"]),
    "BN scale, sparse, many steps": Rival("bn-scale", "bn", LONG, gradual=True),
    "group norm, sparse, many steps": Rival("l2", "group", LONG, gradual=True),
    "growing regularisation": Rival("l2", "growing", LONG, gradual=True),
    "L2, iterative": Rival("l2", rounds=ROUNDS),
    "Taylor, iterative": Rival("taylor", rounds=ROUNDS),
}
GRADIENT_STEPS = 4  # of the steps, spent on gradients for Taylor and Hessian, in every round
LOOKING = ("taylor", "hessian")
HARD = TaskLoss(None, distill=0.0, temperature=1.0).hard


def rounds_of(name: str, total: int) -> int:
    """In how many rounds a rival removes, of rows of so many steps."""
    return max(1, min(RIVALS[name].rounds, total // 4))


def looks_of(name: str, total: int) -> int:
    """Steps of each round that a rival spends on gradients: a quarter of all at most."""
    return min(GRADIENT_STEPS, total // 4 // rounds_of(name, total)) if RIVALS[name].importance in LOOKING else 0


def constants(name: str) -> list[float]:
    """What a rival's rows depend on besides its knobs."""
    rival, found = RIVALS[name], [DEEPEST]
    if rival.sparse is not None:
        found += [rival.share, 0.0]  # without weight decay, as torch-pruning's own script has it
    if rival.gradual:
        found.append(SMALL_STEPS)
    if rival.sparse == "growing":
        found += [GROWTHS, GROWTH]
    if rival.importance in LOOKING:
        found.append(GRADIENT_STEPS)
    if rival.rounds > 1:
        found += [rival.rounds, BETWEEN]
    return found


def rivals(task: Any) -> list[str]:
    """Rivals that make sense: BN scales need batch norm."""
    has_norm = any(isinstance(m, nn.BatchNorm2d) for m in task.make().modules())
    return [name for name, rival in RIVALS.items() if has_norm or rival.sparse != "bn"]


def run_rival(bout: Bout, name: str, share: float, knobs: dict[str, Any]) -> tuple[nn.Module, float]:
    """Sparse learning or gradients where the rival needs them, removal, recovery; in rounds where it has some.

    Args:
        bout: the seed's network and data.
        name: of the importance.
        share: kept share of the task's metric.
        knobs: `scope` (`local`: the same ratio in every layer, `global`: one ranking), `teacher`
            (recover with our distillation), `lr`; `reg` where there is sparse learning, and `normalizer`
            (of the importance, by which layers are compared) with group norms.

    Returns:
        The recovered network, and the steps that went before the last removal.
    """
    rival, total = RIVALS[name], bout.task.steps
    rounds, looks = rounds_of(name, total), looks_of(name, total)
    torch.manual_seed(bout.seed)
    model = prepared(bout, name, knobs)
    cut = cutter(bout, name, model, share, knobs)
    lengths = lengths_of(total - round(rival.share * total) - looks * rounds, rounds)
    teacher = copy.deepcopy(bout.dense).requires_grad_(False) if knobs["teacher"] else None
    distill = 0.9 if teacher is not None else 0.0
    config = PruneConfig(lr=knobs["lr"], seed=bout.seed, distill=distill, **bout.task.common)
    loss = TaskLoss(teacher, distill=distill, temperature=config.recovery.temperature)

    def learn(network: nn.Module, at: int, steps: int) -> None:
        own = replace(config, seed=seed_of(bout.seed, "round", at))
        recover(network.requires_grad_(True), bout.train.seeded("round", at), loss, own, total=steps)

    model = in_rounds(model, shares_of(share, rounds), lengths, cut, learn)
    recover(model.requires_grad_(True), bout.train, loss, config, total=lengths[-1])
    return model, total - lengths[-1]


def prepared(bout: Bout, name: str, knobs: dict[str, Any]) -> nn.Module:
    """A copy of the dense network after the rival's sparse learning, where it has some."""
    rival, total, model = RIVALS[name], bout.task.steps, copy.deepcopy(bout.dense)
    steps = round(rival.share * total)
    if rival.sparse is not None:
        way, batches = (
            way_of(bout, name, model, knobs),
            _batches(bout, total - steps if rival.gradual else 0, steps),
        )
        config = PruneConfig(lr=knobs["lr"], seed=bout.seed, **bout.task.common)
        loss = TaskLoss(None, distill=0.0, temperature=1.0, precision=speed_of(config).precision)
        learn_sparsely_(way, model, bout.example, batches, loss.labelled, config, steps=steps)
    return model


def cutter(
    bout: Bout, name: str, model: nn.Module, share: float, knobs: dict[str, Any]
) -> Callable[[nn.Module, float], nn.Module]:
    """What removes: (network, kept share of the dense cost) -> a network that costs no more."""
    way = way_of(bout, name, model, knobs)
    count = count_macs if bout.task.metric == "macs" else lambda m, _x: count_params(m)
    whole = count(bout.dense, bout.example)

    def cut(network: nn.Module, kept: float) -> nn.Module:
        gradients: dict[str, Tensor] | None = None
        if looks := looks_of(name, bout.task.steps):
            twin = copy.deepcopy(network)
            put_gradients_(twin, _batches(bout, 0, looks), HARD, squares=RIVALS[name].importance == "hessian")
            gradients = {key: p.grad for key, p in twin.named_parameters() if p.grad is not None}
        return fit(way, network, bout.example, lambda m: count(m, bout.example), kept * whole, gradients)[0]

    return cut


def way_of(bout: Bout, name: str, model: nn.Module, knobs: dict[str, Any]) -> Way:
    """How its pruner is asked: it leaves the classifier and, in option-A ResNets, the streams alone.

    torch-pruning shifts no indices at zero-padded shortcuts, so what it removes there is not what it
    ranked, and the pruned network may not run.
    """
    layers = [n for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    streams = "layer1.0.conv1" in layers
    stay = [n for n in layers if n == layers[-1] or (streams and (n == "conv1" or n.endswith(".conv2")))]
    if streams:  # their norms must not be shrunk by sparse learning either
        stay += [n for n, m in model.named_modules() if n == "bn1" or n.endswith(".bn2")]

    def make() -> Any:
        if rival.sparse == "group":
            return library().importance.GroupMagnitudeImportance(p=2, normalizer=knobs["normalizer"])
        return importance_of(rival.importance)

    rival = RIVALS[name]
    reg = knobs.get("reg", 0.0)
    return Way(make, knobs["scope"], tuple(stay), rival.sparse, reg, bout.seed, rival.gradual)


def _batches(bout: Bout, start: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """`steps` batches of the seed from step `start` on, in the order in which every method sees them."""
    device, per_epoch = bout.example.device, len(bout.train)
    batches: Iterator[Any] = iter(())
    for step in range(start, start + steps):
        epoch, at = divmod(step, per_epoch)
        if at == 0 or step == start:
            batches = bout.train.batches(epoch, at)
        x, y = next(batches)
        yield x.to(device), y.to(device)
