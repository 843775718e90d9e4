"""torch-pruning's pruners under the ring's rules: knobs to tune, and networks of which it must leave parts alone.

How its pruner is asked, fitted to the target and trained sparsely is the package's own (`snnprune contest`).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from tasks import Bout
from torch import Tensor, nn

from snnprune.criteria.foreign import importance_of, library
from snnprune.criteria.gradients import put_gradients_
from snnprune.learner import PruneConfig, TaskLoss, recover
from snnprune.metrics import count_macs, count_params
from snnprune.rivals.sparse import SPARSE_SHARE, learn_sparsely_
from snnprune.rivals.theirs import DEEPEST, Way, fit

IMPORTANCE = {
    "random": "random",
    "L1": "l1",
    "L2": "l2",
    "LAMP": "lamp",
    "FPGM": "fpgm",
    "Taylor": "taylor",
    "Hessian": "hessian",
    "BN scale, sparse": "bn-scale",
    "group norm, sparse": "l2",
}
GRADIENT_STEPS = 4  # of the steps, spent on gradients for Taylor and Hessian


def constants(name: str) -> list[float]:
    """What a rival's rows depend on besides its knobs."""
    if name.endswith("sparse"):
        return [DEEPEST, SPARSE_SHARE, 0.0]  # without weight decay, as torch-pruning's own script has it
    return [DEEPEST, GRADIENT_STEPS] if name in ("Taylor", "Hessian") else [DEEPEST]


def rivals(task: Any) -> list[str]:
    """Rivals that make sense: BN scales need batch norm."""
    has_norm = any(isinstance(m, nn.BatchNorm2d) for m in task.make().modules())
    return [name for name in IMPORTANCE if has_norm or not name.startswith("BN")]


def run_rival(bout: Bout, name: str, share: float, knobs: dict[str, Any]) -> tuple[nn.Module, float]:
    """Sparse learning or gradients where the rival needs them, one-shot removal, recovery.

    Args:
        bout: the seed's network and data.
        name: of the importance.
        share: kept share of the task's metric.
        knobs: `scope` (`local`: the same ratio in every layer, `global`: one ranking), `teacher`
            (recover with our distillation), `lr`; `reg` where there is sparse learning, and `normalizer`
            (of the importance, by which layers are compared) with group norms.

    Returns:
        The recovered network, and the steps that went before the removal.
    """
    model = copy.deepcopy(bout.dense)
    total, spent = bout.task.steps, 0
    torch.manual_seed(bout.seed)
    way, hard = _way(bout, name, model, knobs), TaskLoss(None, distill=0.0, temperature=1.0).hard
    if name.endswith("sparse"):
        spent = round(SPARSE_SHARE * total)
        learn_sparsely_(way, model, bout.example, _batches(bout, spent), hard, lr=knobs["lr"], steps=spent)
    gradients: dict[str, Tensor] | None = None
    if name in ("Taylor", "Hessian"):
        spent, twin = GRADIENT_STEPS, copy.deepcopy(model)
        put_gradients_(twin, _batches(bout, spent), hard, squares=name == "Hessian")
        gradients = {key: p.grad for key, p in twin.named_parameters() if p.grad is not None}
    count = count_macs if bout.task.metric == "macs" else lambda m, _x: count_params(m)
    limit = share * count(bout.dense, bout.example)
    model, _ = fit(way, model, bout.example, lambda m: count(m, bout.example), limit, gradients)
    teacher = copy.deepcopy(bout.dense).requires_grad_(False) if knobs["teacher"] else None
    distill = 0.9 if teacher is not None else 0.0
    config = PruneConfig(lr=knobs["lr"], seed=bout.seed, distill=distill)
    loss = TaskLoss(teacher, distill=distill, temperature=config.recovery.temperature)
    recover(model.requires_grad_(True), bout.train, loss, config, total=total - spent)
    return model, spent


def _way(bout: Bout, name: str, model: nn.Module, knobs: dict[str, Any]) -> Way:
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
        if name == "group norm, sparse":
            return library().importance.GroupMagnitudeImportance(p=2, normalizer=knobs["normalizer"])
        return importance_of(IMPORTANCE[name])

    sparse = {"BN scale, sparse": "bn", "group norm, sparse": "group"}.get(name)
    return Way(make, knobs["scope"], tuple(stay), sparse, knobs.get("reg", 0.0), bout.seed)  # type: ignore[arg-type]


def _batches(bout: Bout, steps: int) -> Any:
    """The first batches of the seed, in the order in which every method sees them."""
    device = bout.example.device
    per_epoch = len(bout.train)
    for epoch in range(-(-steps // per_epoch)):
        for at, (x, y) in enumerate(bout.train.batches(epoch)):
            if epoch * per_epoch + at == steps:
                return
            yield x.to(device), y.to(device)
