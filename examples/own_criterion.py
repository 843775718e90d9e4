"""A criterion of your own as a rival: L1 norms against learned scales, at equal MACs and equal training steps."""

import copy
import itertools
import math
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import snnprune

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "models"))
from digits_cnn import digits_cnn


def l1_scores(model: nn.Module, groups: list[snnprune.NeuronGroup]) -> dict[str, torch.Tensor]:
    """Per group (size,) L1 norms of the neurons' weights, relative to the group's mean."""
    scores = {}
    for group in (g for g in groups if g.prunable):
        total = torch.zeros(group.size)
        for part in group.producers:  # layers that make the group's channels; a residual stream has several
            norms = model.get_submodule(part.module).weight.detach().abs().flatten(1).sum(1)
            total.index_add_(0, torch.tensor(part.neurons), norms[list(part.channels)])
        scores[group.id] = total / total.mean()
    return scores


def cut(model: nn.Module, images: torch.Tensor, share: float) -> nn.Module:
    """The neurons below one threshold for all layers go; the threshold is found by bisection on the MACs."""
    low, high, best = 0.0, 2.0, copy.deepcopy(model)
    dense = snnprune.compare(model, model, example_inputs=images[:2]).dense.macs
    with snnprune.attach(model, images[:2], switcher=None, input_neurons=False) as gated:
        scores = l1_scores(model, gated.groups)
        for _ in range(12):
            middle = (low + high) / 2
            gated.set_scales({n: ((s >= middle) | (s == s.max())).float() for n, s in scores.items()})
            small = gated.compact()
            if snnprune.compare(small, small, example_inputs=images[:2]).compact.macs > share * dense:
                low = middle
            else:
                high, best = middle, small
    return best


def recover(small: nn.Module, teacher: nn.Module, train, steps: int, config: snnprune.PruneConfig) -> None:
    """The same optimiser, schedule and teacher as the package's own recovery, without its warm-up."""
    sgd = torch.optim.SGD(
        small.parameters(), config.lr, config.recovery.momentum, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(sgd, lambda i: (1 + math.cos(math.pi * i / steps)) / 2)
    batches = itertools.chain.from_iterable(iter(train) for _ in itertools.count())
    t = config.recovery.temperature
    for images, labels in itertools.islice(batches, steps):
        with torch.no_grad():
            soft = F.log_softmax(teacher(images) / t, 1)
        logits = small.train()(images)
        near = t * t * F.kl_div(F.log_softmax(logits / t, 1), soft, reduction="batchmean", log_target=True)
        loss = (1 - config.distill) * F.cross_entropy(logits, labels) + config.distill * near
        sgd.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(small.parameters(), config.recovery.clip)
        sgd.step()
        schedule.step()


def main(data: str = "digits", epochs: float = 3, share: float = 0.2) -> dict[str, tuple[float, int]]:
    torch.manual_seed(0)
    train, val, test = snnprune.load_data(data)
    model = digits_cnn()
    model.load_state_dict(torch.load(Path(__file__).parent.parent / "models" / "digits_cnn.pt"))
    config = snnprune.PruneConfig(target={"macs": share}, epochs=epochs, round_to=1, input_neurons=False)

    learned = snnprune.optimize(model, train, val, config)
    images, _ = next(iter(train))
    rival = cut(model, images, share)
    recover(rival, model.eval(), train, sum(learned.report.steps.values()), config)

    found = {}
    for name, small in (("learned scales", learned.model), ("L1 norms", rival)):
        figures = snnprune.compare(model, small, test, example_inputs=images[:2]).compact
        found[name] = (figures.accuracy, figures.macs)
        print(f"{name:15} {figures.accuracy:.2%} test accuracy, {figures.macs:,} MACs")
    return found  # one seed: too little to call a winner by


if __name__ == "__main__":
    main(*sys.argv[1:2])
