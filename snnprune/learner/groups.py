"""The groups of options that only experts need: of the search, and of the network's learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..criteria import Scores, check_scores, is_criterion, label_of, needs
from ..errors import ConfigError
from ..moved import checks_names
from ..options import Count, CountOrZero, Finite, NotNegative, Positive, Share, check_fields, described, option
from ..switching import Gradient, Start

Optimizer = Literal["sgd", "adamw"]


@described
@checks_names
@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """Options of the search, for experts: `PruneConfig(search=SearchOptions(hold=4))`.

    Raises:
        ConfigError: a value makes no sense, or a name is no option; the message names it.

    Example:
        >>> config = snnprune.PruneConfig(search=snnprune.SearchOptions(hold=4))
        >>> config.search.hold
        4
    """

    share: Share = option(
        0.05,
        "share of the training steps that the search takes. Afterwards the structure is fixed and the compact "
        "model recovers.",
    )
    least: Count = option(
        20,
        "steps that the search takes at least, though never more than a tenth of all: a share of the few steps "
        "that few images make would leave nothing to learn in. More than that costs a short run its recovery.",
    )
    probe: CountOrZero = option(
        4,
        "training steps spent, before the search, on measuring how much the loss depends on each neuron. 0 "
        "starts from the norms of the weights alone.",
    )
    trust: NotNegative = option(0.5, "how strongly the start leans on that measurement, against the norm's 1.")
    thrift: NotNegative = option(0.5, "how strongly the start prefers to keep neurons that cost little.")
    ramp: Share = option(0.75, "share of the search over which the budget goes from dense to the target.")
    alternate: Count | Literal["epoch", "together"] = option(
        "together",
        "steps for which one of switcher and network learns before it is the other's turn, `epoch` for a whole "
        "one, or `together`. Then both learn at every step, which spends no batch on one of them alone.",
    )
    hold: Count = option(
        1,
        "with `together`, the switcher runs and learns at every so many steps. Between them its scales are held "
        "as constants, which makes those steps as cheap as plain training.",
    )
    decay: bool = option(False, "let the search's learning rates fall along a cosine; else they are constant.")
    gradient: Gradient = option(
        "through",
        "whether the network's gradient also flows through the switcher (`through`, eqs. 5-6 of arXiv "
        "2110.05954) or scales are held as constants (`held`).",
    )
    scores: Scores = option(
        "switcher+offset",
        "who orders the neurons: the switcher, the switcher with an offset of its own for each neuron, or "
        "offsets alone (`free`); or a criterion, by which nothing is searched. A criterion judges the neurons "
        "once, one threshold for all groups meets the target, what stays has scale 1, and all steps are left to "
        "the recovery, but for the `probe` of those that look at gradients (`taylor`, `hessian`). `norm` is that "
        "of all weights of a neuron; the other names are torch-pruning's. In Python also one of its importances, "
        "such as `LAMPImportance()`, or a function of (model, groups) that returns group id -> scores.",
    )
    start: Start = option(
        "post-training", "where scales begin: near 1 (`post-training`), or as the papers' (`fresh`)."
    )
    fresh_mean: Finite = option(
        0.1, "after a fresh start, mean of the switcher's values over each layer, before the ReLU."
    )
    fresh_std: Positive = option(
        2**0.5,
        "after a fresh start, standard deviation of those values. Together with the mean it sets how many "
        "neurons are off.",
    )
    switcher_optimizer: Optimizer = option("adamw", "optimiser of the switcher and the offsets.")
    switcher_lr: Positive = option(
        1e-4,
        "learning rate of the switcher. After a post-training start and under a budget, this and `offset_lr` "
        "are divided in searches in which the scorer takes more than 60 steps, so that their sum stays that of "
        "60: else neurons trade places faster than the network learns.",
    )
    offset_lr: Positive = option(2e-3, "learning rate of the offsets.")
    switcher_clip: Positive = option(5.0, "largest norm of the gradient of the switcher and the offsets.")
    patience: Count | None = option(
        None,
        "in the free mode, epochs for which the validation loss (of a metric of your own, that) may fail to get "
        "better before the search ends. None never ends it early.",
    )

    def __post_init__(self) -> None:
        check_scores(self.scores, "search.scores")
        check_fields(self, "search.")
        if self.gradient == "held" and self.alternate == "together":
            raise ConfigError(
                "search.gradient='held' has a meaning where the network learns alone: set alternate, to 2 for one."
            )
        if self.hold > 1 and self.alternate != "together":
            raise ConfigError(
                "search.hold has a meaning where both learn at every step: set alternate='together'."
            )
        if is_criterion(self.scores) and self.start == "fresh":
            raise ConfigError(
                f"search.start='fresh' has no meaning for scores={label_of(self.scores)}, which judges trained "
                "weights."
            )
        if is_criterion(self.scores) and needs(self.scores) != "weights" and not self.probe:
            raise ConfigError(
                f"search.probe=0 leaves scores={label_of(self.scores)} no step in which it could look at "
                "gradients of the loss; give at least 1."
            )
        if self.share == 0:
            raise ConfigError(
                "search.share=0 leaves no step in which anything could be learned about the neurons."
            )


@described
@checks_names
@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryOptions:
    """Options of the network's learning, for experts: `PruneConfig(recovery=RecoveryOptions(warmup=0.1))`.

    Warm-up belongs to the recovery alone; the others hold for the network in the search too.

    Raises:
        ConfigError: a value makes no sense, or a name is no option; the message names it.

    Example:
        >>> snnprune.PruneConfig(recovery=snnprune.RecoveryOptions(warmup=0.1)).recovery.warmup
        0.1
    """

    warmup: Share = option(0.05, "share of the recovery over which the learning rate rises.")
    momentum: Share = option(0.9, "momentum of the network's SGD.")
    clip: Positive = option(5.0, "largest norm of the network's gradient.")
    temperature: Positive = option(
        2.0, "temperature of the distillation, by which the outputs of both models are divided."
    )

    def __post_init__(self) -> None:
        check_fields(self, "recovery.")
