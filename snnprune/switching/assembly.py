"""Switching put together: cost, evidence, scorer and scales, for every kind and for everybody who needs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from ..budget import ROUND_TO, Budget, CostModel, Counted, Metric, read_widths
from ..criteria import is_criterion, judge
from ..criteria.names import NORM
from ..errors import ConfigError
from ..graph import NeuronGroup
from ..inputs import Inputs, unwrap
from ..losses import LossFunction, check_loss, own_loss
from ..metrics import count_params
from ..options import Count, Names, Paths, Seed, Share, checked
from ..plain import plain
from ..proof import trace
from .connections import ConnectionModel, ConnectionScorer, connections_for, measure_connections, switched_layers
from .connections.weights import weight_of
from .encoding import Evidence, Scorer
from .fixed import FixedScorer
from .neurons import GatedModel
from .probing import Loss, measure_importance
from .scoring import ScoreSource, Start

Look = Callable[[], Iterable[Any]]  # the batches to look at


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How scales begin and what they may do.

    Attributes:
        scores: who gives the values, or a criterion (`criteria.Scores`); None for scales set by hand.
        start: `post-training` or `fresh`.
        budget: the target, which is checked before anything is computed; None is the free mode, or one that is
            set later.
        metric: of the budget that is set later, by which neurons that cost much are the first to go.
        floor: least kept share of every group.
        round_to: keep multiples of this many channels.
        width: of groups, as `read_widths` gives it; a cost model that is given knows them already.
        uniform: patterns whose groups keep the same share; a cost model that is given knows them already.
        keep: shell patterns of layers whose connections stay.
        outputs: paths of the outputs that matter; none for all.
        trust: how strongly the start leans on what the loss depends on, against the norm's 1.
        thrift: how strongly it prefers neurons that cost little.
        fresh_mean: of the values of every group, after a fresh start.
        fresh_std: of them.
        seed: of the switcher.
    """

    scores: Any = "switcher+offset"
    start: Start = "post-training"
    budget: Budget | None = None
    metric: Metric = "macs"
    floor: float = 0.1
    round_to: int = 1
    width: Sequence[str] = ()
    uniform: Sequence[str] = ()
    keep: Sequence[str] = ()
    outputs: Sequence[str] = ()
    trust: float = 0.5
    thrift: float = 0.5
    fresh_mean: float = 0.1
    fresh_std: float = 2**0.5
    seed: int = 0


def alike(cost: CostModel) -> dict[str, Any]:
    """Equal scores for all neurons."""
    return {name: np.zeros(group.size) for name, group in cost.groups.items()}


def switch_neurons(
    model: nn.Module,
    groups: Sequence[NeuronGroup],
    cost: CostModel | Inputs,
    options: Options = Options(),
    *,
    look: Look | None = None,
    loss: Loss | None = None,
) -> GatedModel:
    """Gates and a fresh scorer on a model.

    Args:
        model: the network; it is not copied.
        groups: its groups.
        cost: its cost model, or example inputs from which it is made.
        options: see there.
        look: gives batches that tell how much the loss depends on each neuron; None for the norms alone.
        loss: of these batches.

    Raises:
        TargetError: the budget is below what the floors allow.
    """
    if not isinstance(cost, CostModel):
        cost = CostModel(model, groups, cost, width=options.width, uniform=options.uniform)
    budget, floor, round_to = options.budget, options.floor, options.round_to
    if budget is not None:
        cost.select(budget.metric, budget.share, alike(cost), floor=floor, round_to=round_to)
    scorer: Scorer | FixedScorer | None = None
    if is_criterion(options.scores):
        scorer = _fixed(model, groups, options, look=look, loss=loss)
    elif options.scores is not None:
        scorer = neuron_scorer(model, groups, cost, options, look=look, loss=loss)
    return GatedModel(
        model, groups, cost=cost, scorer=scorer, floor=floor, round_to=round_to, outputs=options.outputs
    )


def _fixed(
    model: nn.Module, groups: Sequence[NeuronGroup], options: Options, *, look: Look | None, loss: Loss | None
) -> FixedScorer:
    """The order of a criterion; arguments as of `switch_neurons`."""
    if options.scores == NORM:
        scorer = Scorer(model, groups, scores="free", seed=options.seed)
        with torch.no_grad():
            found = scorer.segments.split(scorer(model))
    else:
        batches = None if look is None else look()
        found = judge(options.scores, model, groups, look=batches, loss=loss, seed=options.seed)
    return FixedScorer(model, groups, found)


def neuron_scorer(
    model: nn.Module,
    groups: Sequence[NeuronGroup],
    cost: CostModel,
    options: Options,
    *,
    look: Look | None = None,
    loss: Loss | None = None,
) -> Scorer:
    """A fresh scorer, with evidence where there are batches to look at; arguments as of `switch_neurons`."""
    evidence = None
    if look is not None and loss is not None:
        metric = options.metric if options.budget is None else options.budget.metric
        found = measure_importance(model, groups, look(), loss)
        evidence = Evidence.weigh(found, cost, metric, trust=options.trust, thrift=options.thrift)
    assert options.scores is not None
    return Scorer(
        model,
        groups,
        scores=options.scores,
        start=options.start,
        evidence=evidence,
        fresh_mean=options.fresh_mean,
        fresh_std=options.fresh_std,
        seed=options.seed,
    )


def first_scores(
    model: nn.Module,
    groups: Sequence[NeuronGroup],
    cost: CostModel,
    options: Options = Options(),
    *,
    look: Look | None = None,
    loss: Loss | None = None,
) -> dict[str, Any]:
    """Group -> (size,) float64 array: the order in which a fresh scorer sees neurons; as of `switch_neurons`."""
    scorer = neuron_scorer(model, groups, cost, options, look=look, loss=loss)
    with torch.no_grad():
        values = scorer(model)
    return {name: u.double().cpu().numpy() for name, u in scorer.segments.split(values).items()}


def switch_connections(
    model: nn.Module,
    groups: Sequence[NeuronGroup],
    options: Options = Options(),
    *,
    look: Look | None = None,
    loss: Loss | None = None,
) -> ConnectionModel:
    """Scales on the connections of every fully connected layer; arguments as of `switch_neurons`.

    Raises:
        TargetError: the parameters that are no connections are more than the target.
        UnsupportedModelError: there is no fully connected layer.
    """
    names = switched_layers(model, options.keep)
    if options.budget is not None:
        present = sum(int(weight_of(model, name).count_nonzero()) for name in names)
        absent = sum(weight_of(model, name).numel() for name in names) - present
        share, dense = options.budget.share, count_params(model) - absent
        connections_for(share, dense=dense, connections=present, layers=len(names))
    found = measure_connections(model, names, look(), loss) if look is not None and loss is not None else None
    assert options.scores is not None
    scorer = ConnectionScorer(
        model,
        names,
        scores=options.scores,
        start=options.start,
        importance=found,
        trust=options.trust,
        fresh_mean=options.fresh_mean,
        fresh_std=options.fresh_std,
        seed=options.seed,
    )
    return ConnectionModel(model, groups, names, scorer=scorer, floor=options.floor)


@torch.inference_mode(False)
def attach(
    model: nn.Module,
    example_inputs: Inputs,
    *,
    switcher: ScoreSource | None = "switcher+offset",
    start: Start = "post-training",
    floor: float = 0.1,
    round_to: int = ROUND_TO,
    width: Sequence[str] | Mapping[str, float | str] = (),
    uniform: Sequence[str] = (),
    keep: Sequence[str] = (),
    outputs: Sequence[str] = (),
    input_neurons: bool = True,
    batches: Iterable[Any] | None = None,
    loss: LossFunction | None = None,
    metric: Counted = "macs",
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
        round_to: under a budget keep multiples of this many channels, as a run does; 1 keeps any number.
        width: under a budget, shares or numbers of neurons that stay of the groups that patterns name, as for
            `PruneConfig`: `{"layer1.*": 0.75, "layer2": "<=48"}`.
        uniform: under a budget, patterns whose groups keep the same number of neurons, as for `PruneConfig`.
        keep: shell patterns of module names whose channels must stay, as for `trace`.
        outputs: paths of the outputs that matter, as for `trace`.
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
        ConfigError: `batches` without `loss` or a switcher to inform, an option whose value makes no sense, widths
            that no cut can keep to, or a model that is no module, has no values, or was made in inference mode.
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
    options = Options(
        scores=switcher,
        start=start,
        metric=checked("metric", metric, Counted),
        floor=floor,
        round_to=round_to,
        width=read_widths(width),
        uniform=checked("uniform", uniform, Names),
        seed=seed,
        outputs=checked("outputs", outputs, Paths),
    )
    groups = trace(model, example_inputs, keep=keep, outputs=outputs, input_neurons=input_neurons)
    look = None if batches is None else lambda: batches
    measured = None if loss is None else partial(own_loss, loss)
    return switch_neurons(model, groups, example_inputs, options, look=look, loss=measured)
