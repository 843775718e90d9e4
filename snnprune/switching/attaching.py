"""attach(): gates on any model in one call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from ..budget import CostModel, Metric
from ..errors import ConfigError
from ..graph import NeuronGroup
from ..inputs import Inputs, unwrap
from ..losses import LossFunction, check_loss, own_loss
from ..options import Count, Seed, Share, checked
from ..plain import plain
from ..proof.tracing import trace
from .encoding import Evidence, Scorer, ScoreSource, Start
from .gated import GatedModel
from .probing import measure_sensitivity


@torch.inference_mode(False)
def attach(
    model: nn.Module,
    example_inputs: Inputs,
    *,
    switcher: ScoreSource | None = "switcher+offset",
    start: Start = "post-training",
    floor: float = 0.1,
    round_to: int = 1,
    keep: Sequence[str] = (),
    input_neurons: bool = True,
    batches: Iterable[Any] | None = None,
    loss: LossFunction | None = None,
    metric: Metric = "macs",
    seed: int = 0,
) -> GatedModel:
    """Attach gates to a model, for a training loop of your own.

    The model changes its behaviour only through hooks, which `detach()` or the end of a `with` block
    takes off again. Freshly attached at the post-training start the scales lie within a few per cent
    of 1 and nothing is switched off; `set_budget` moves the threshold.

    Args:
        model: a trained network; wrappers (DataParallel, DistributedDataParallel, `torch.compile`) are
            looked through, so the gates sit on the network itself.
        example_inputs: what its forward takes, a small batch.
        switcher: who gives the scores: `switcher`, `switcher+offset`, `free`, or None for scales set
            by hand with `set_scales`.
        start: `post-training` keeps the trained function; `fresh` is the papers' start.
        floor: least kept share of every group under a budget, in [0, 1].
        round_to: keep multiples of this many channels.
        keep: shell patterns of module names whose channels must stay, as for `trace`.
        input_neurons: also switch single inputs of fully connected layers.
        batches: a few training batches, by which the post-training start learns how much the loss
            depends on each neuron; without them it knows the weights alone.
        loss: `loss(model, batch)`, the mean over a batch; needed with `batches`.
        metric: of the budget that will be set, by which neurons that cost much are the first to go.
        seed: of the switcher's initialisation.

    Returns:
        The gated model. Call it as you would call the model.

    Raises:
        AttachError: the model has gates already.
        ConfigError: `batches` without `loss` or a switcher to inform, an option whose value makes no sense, or
            a model that is no module, has no values yet, or was made in inference mode.
        DivergedError: the loss of a batch is not finite.
        UnsupportedModelError: nothing in it can be pruned exactly.

    Example:
        >>> with snnprune.attach(model, images[:2]) as gated:
        ...     gated.set_budget({"macs": 0.5})
        ...     small = gated.compact()
        >>> sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
        True
    """
    model = unwrap(plain(model, "attach()"))
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise ConfigError(
            "attach(): the model was made under torch.inference_mode, so it can never learn. Make it outside, or "
            "give copy.deepcopy(model)."
        )
    floor, round_to = checked("floor", floor, Share), checked("round_to", round_to, Count)
    seed = checked("seed", seed, Seed)
    if (batches is None) != (loss is None):
        raise ConfigError("batches and loss(model, batch) go together: its dependence on neurons is measured.")
    if batches is not None and (switcher is None or start != "post-training"):
        raise ConfigError("batches inform the post-training start of a switcher; there is none here.")
    check_loss(loss, "loss")
    metric = checked("metric", metric, Metric)
    groups = trace(model, example_inputs, keep=keep, input_neurons=input_neurons)
    cost = CostModel(model, groups, example_inputs)
    scorer = None
    if switcher is not None:
        evidence = None
        if batches is not None and loss is not None:
            found = measure_sensitivity(model, groups, batches, partial(own_loss, loss))
            evidence = Evidence.weigh(found, cost, metric)
        scorer = Scorer(model, groups, scores=switcher, start=start, evidence=evidence, seed=seed)
    return GatedModel(model, groups, cost=cost, scorer=scorer, floor=floor, round_to=round_to)


def attach_groups(
    model: nn.Module,
    groups: Sequence[NeuronGroup],
    example_inputs: Inputs,
    *,
    scorer: Scorer | None,
    floor: float = 0.1,
    round_to: int = 1,
) -> GatedModel:
    """Attach gates for groups that are known already."""
    cost = CostModel(model, groups, example_inputs)
    return GatedModel(model, groups, cost=cost, scorer=scorer, floor=floor, round_to=round_to)
