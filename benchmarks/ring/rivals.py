"""torch-pruning's pruners under the ring's rules: the target met by bisection, the steps counted."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch_pruning as tp
from tasks import Bout
from torch import nn
from torch.nn import functional as F

from snnprune.learner import PruneConfig, TaskLoss, recover
from snnprune.learner.optim import cosine
from snnprune.metrics import count_macs, count_params

MAGNITUDE = tp.importance.GroupMagnitudeImportance
IMPORTANCE: dict[str, Callable[[], Any]] = {
    "random": tp.importance.RandomImportance,
    "L1": lambda: MAGNITUDE(p=1),
    "L2": lambda: MAGNITUDE(p=2),
    "LAMP": tp.importance.LAMPImportance,
    "FPGM": tp.importance.FPGMImportance,
    "Taylor": tp.importance.GroupTaylorImportance,
    "Hessian": tp.importance.GroupHessianImportance,
    "BN scale, sparse": tp.importance.BNScaleImportance,
    "group norm, sparse": lambda: MAGNITUDE(p=2),
}
SPARSE_SHARE = 0.2  # of the steps, spent on sparse learning
GRADIENT_STEPS = 4  # of the steps, spent on gradients for Taylor and Hessian
DEEPEST = 0.95  # largest share of a layer that torch-pruning may remove


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
    if name.endswith("sparse"):
        spent = round(SPARSE_SHARE * total)
        _learn_sparsely(bout, name, model, spent, knobs)
    gradients = None
    if name in ("Taylor", "Hessian"):
        spent = GRADIENT_STEPS
        gradients = (_gradients if name == "Taylor" else _squared_gradients)(bout, model, spent)
    model = _fit(bout, name, model, share, knobs, gradients)
    teacher = copy.deepcopy(bout.dense).requires_grad_(False) if knobs["teacher"] else None
    distill = 0.9 if teacher is not None else 0.0
    config = PruneConfig(lr=knobs["lr"], seed=bout.seed, distill=distill)
    loss = TaskLoss(teacher, distill=distill, temperature=config.recovery.temperature)
    recover(model.requires_grad_(True), bout.train, loss, config, total=total - spent)
    return model, spent


def _pruner(
    bout: Bout, name: str, model: nn.Module, knobs: dict[str, Any], ratios: tuple[float, float, int]
) -> Any:
    """A pruner that leaves the classifier and, in option-A ResNets, the streams alone.

    torch-pruning shifts no indices at zero-padded shortcuts, so what it removes there is not what it
    ranked, and the pruned network may not run.

    Args:
        bout: for the example.
        name: of the importance.
        model: pruned in place.
        knobs: as in `run_rival`.
        ratios: (ratio, milder ratio, how many of the first layers take the milder one).
    """
    layers = {n: m for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    last = list(layers)[-1]
    streams = "layer1.0.conv1" in layers
    stay = [n for n in layers if n == last or (streams and (n == "conv1" or n.endswith(".conv2")))]
    free = [m for n, m in layers.items() if n not in stay]
    ignored = [layers[n] for n in stay]
    if streams:  # their norms must not be shrunk by sparse learning either
        ignored += [m for n, m in model.named_modules() if n == "bn1" or n.endswith(".bn2")]
    ratio, milder, first = ratios
    kind, extra, importance = tp.pruner.BasePruner, {}, IMPORTANCE[name]()
    if name == "BN scale, sparse":
        kind, extra = tp.pruner.BNScalePruner, {"reg": knobs["reg"]}
    if name == "group norm, sparse":
        kind, extra = tp.pruner.GroupNormPruner, {"reg": knobs["reg"]}
        importance = MAGNITUDE(p=2, normalizer=knobs["normalizer"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kind(
            model,
            bout.example,
            importance=importance,
            global_pruning=knobs["scope"] == "global",
            pruning_ratio=ratio,
            pruning_ratio_dict=dict.fromkeys(free[:first], milder) if knobs["scope"] == "local" else None,
            max_pruning_ratio=DEEPEST,
            ignored_layers=ignored,
            **extra,
        )


def _fit(
    bout: Bout,
    name: str,
    model: nn.Module,
    share: float,
    knobs: dict[str, Any],
    gradients: dict[str, torch.Tensor] | None,
) -> nn.Module:
    """The mildest ratio whose cost fits into the target.

    Where layers are narrow one ratio for all is a coarse measure, so with local ratios the first layers
    take the next milder one, as many as fit.
    """
    count = count_macs if bout.task.metric == "macs" else lambda m, _x: count_params(m)
    limit = share * count(bout.dense, bout.example)

    def pruned(*ratios: Any) -> nn.Module:
        clone = copy.deepcopy(model)
        for key, parameter in clone.named_parameters():
            parameter.grad = None if gradients is None else gradients[key].clone()
        torch.manual_seed(bout.seed)  # random importance: the same order at every ratio
        _pruner(bout, name, clone, knobs, ratios).step()
        clone.zero_grad(set_to_none=True)
        return clone

    low, high = 0.0, DEEPEST
    for _ in range(12):
        middle = (low + high) / 2
        if count(pruned(middle, middle, 0), bout.example) <= limit:
            high = middle
        else:
            low = middle
    best = pruned(high, high, 0)
    for first in range(1, len(list(model.modules())) if knobs["scope"] == "local" else 1):
        candidate = pruned(high, low, first)
        if count(candidate, bout.example) > limit:
            break
        best = candidate
    return best


def _gradients(bout: Bout, model: nn.Module, steps: int) -> dict[str, torch.Tensor]:
    """Gradients of the loss, summed over so many batches, for Taylor's criterion."""
    model.eval()
    for x, y in _batches(bout, steps):
        F.cross_entropy(model(x), y).backward()
    found = {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return found


def _squared_gradients(bout: Bout, model: nn.Module, steps: int) -> dict[str, torch.Tensor]:
    """Mean square, over inputs, of the gradient of each input's loss, for the Hessian's diagonal.

    torch-pruning's own sum over inputs keeps the last one only (it looks names up among parameters), so
    the mean is formed here and handed to its importance as the gradient.
    """
    model.eval()
    found = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    parameters = list(model.parameters())
    seen = 0
    for x, y in _batches(bout, steps):
        losses = F.cross_entropy(model(x), y, reduction="none")
        for loss in losses:
            gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
            for value, gradient in zip(found.values(), gradients, strict=True):
                value += gradient.square()
        seen += len(x)
    return {name: value / seen for name, value in found.items()}


def _learn_sparsely(bout: Bout, name: str, model: nn.Module, steps: int, knobs: dict[str, Any]) -> None:
    """Train with the pruner's own regulariser, in place, at half the peak rate of the recovery."""
    pruner = _pruner(bout, name, model, knobs, (0.5, 0.5, 0))
    optimizer = torch.optim.SGD(model.parameters(), knobs["lr"], momentum=0.9, nesterov=True)
    model.train()
    for step, (x, y) in enumerate(_batches(bout, steps)):
        for group in optimizer.param_groups:
            group["lr"] = 0.5 * knobs["lr"] * cosine(step, steps, 0.05)
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        pruner.regularize(model)
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    model.eval()


def _batches(bout: Bout, steps: int) -> Any:
    """The first batches of the seed, in the order in which every method sees them."""
    device = bout.example.device
    per_epoch = len(bout.train)
    for epoch in range(-(-steps // per_epoch)):
        for at, (x, y) in enumerate(bout.train.batches(epoch)):
            if epoch * per_epoch + at == steps:
                return
            yield x.to(device), y.to(device)
