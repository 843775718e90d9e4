"""PruneConfig: everything that a run depends on, apart from model and data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from ..budget import read_target
from ..errors import ConfigError, TargetError
from ..options import Count, CountOrZero, Finite, Names, NotNegative, Positive, Seed, Share, check_fields
from ..switching import Gradient
from ..switching.encoding import ScoreSource, Start

Optimizer = Literal["sgd", "adamw"]
Granularity = Literal["neuron", "connection"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class PruneConfig:
    """Options of a run. The defaults are the post-training recipe.

    Attributes:
        target: `{"macs": share}` or `{"params": share}`, the kept share of the dense cost in (0, 1];
            `{"drop": fraction}`: the fewest MACs at which the validation accuracy loses at most that;
            `{"latency": share}`: the most MACs that run in that share of the dense time in ONNX Runtime;
            None is the papers' free mode, in which the switcher alone decides.
        granularity: what is switched: `neuron` (channels, units, inputs; removed physically) or `connection`
            (single weights of fully connected layers, arXiv 2103.15590; they become exact zeros).
        epochs: passes over the training data, search and recovery together (of each trial, under `drop`).
        trials: runs by which a `drop` is bisected.
        search: share of the steps in which switcher and network alternate; afterwards the structure is
            fixed and the compact model recovers.
        probe: training steps spent, before the search, on measuring how much the loss depends on each
            neuron; 0 starts from the norms of the weights alone.
        trust: how strongly the start leans on that, against the norm's 1; >= 0.
        thrift: how strongly it prefers to keep neurons that cost little; >= 0.
        ramp: share of the search over which the budget goes from dense to the target.
        alternate: iterations in a block before the other one's turn, `epoch`, or `together`: both learn
            at every step, which spends no batch on one of them alone.
        hold: with `together`, the switcher runs and learns at every so many steps; between them its scales are
            held as constants, which makes those steps as cheap as plain training.
        decay: let the search's learning rates fall along a cosine; else they are constant.
        gradient: whether the network's gradient also flows through the switcher (`through`,
            eqs. 5-6 of arXiv 2110.05954) or scales are held as constants (`held`).
        scores: who orders the neurons: `switcher`, `switcher+offset` or `free`.
        start: `post-training` (scales near 1) or `fresh` (the papers').
        fresh_mean: after a fresh start, mean of the switcher's values over each layer, before the ReLU.
        fresh_std: their standard deviation; together they set how many neurons are off.
        switcher_optimizer: `adamw` or `sgd`.
        switcher_lr: learning rate of the switcher. After a post-training start and under a budget, this and
            `offset_lr` are divided in searches in which the scorer takes more than 60 steps, so that their
            sum stays that of 60: else neurons trade places faster than the network learns.
        offset_lr: learning rate of the per-neuron offsets.
        optimizer: of the network: `sgd` (with momentum) or `adamw`.
        lr: the network's learning rate, in the search and as the peak of the recovery.
        momentum: of SGD.
        weight_decay: of the network's optimiser.
        warmup: share of the recovery over which the learning rate rises.
        clip: largest gradient norm of the network.
        switcher_clip: largest gradient norm of the switcher and the offsets.
        distill: weight of the original model's outputs against the labels, in [0, 1].
        temperature: of the distillation.
        precision: in which the network and its teacher compute while they learn, by `torch.autocast`. Weights,
            switcher, threshold, proof and accuracies stay in float32 and above.
        channels_last: learn with the channels of an image next to each other in memory, which many convolutions
            are faster on; outputs change in their last bits alone.
        compile: let `torch.compile` speed up the recovery and the teacher; the first step of each then takes a
            minute or so, which long runs earn back.
        freeze_norm: keep batch-norm statistics as they are.
        floor: least kept share of every group under a budget.
        round_to: keep multiples of this many channels under a budget, which fast kernels need, or of a smaller
            power of two in groups less than four times as wide; 1 keeps any number. Without a meaning for
            connections and in the free mode.
        keep: shell patterns of module names whose channels (or connections) must stay. A pattern names a module,
            or one that it lies in: `layer4` protects all of `layer4.0`.
        input_neurons: also switch single inputs of fully connected layers.
        patience: stop rule of the free mode: end the search when the validation loss has not fallen
            for this many epochs; None never stops early.
        seed: of everything random.

    Raises:
        ConfigError: a value makes no sense; the message names it.
        TargetError: so does the target.

    Example:
        >>> config = snnprune.PruneConfig(target={"params": 0.3}, epochs=5, keep=("features.0",))
        >>> config.to_dict()["target"]
        {'params': 0.3}
    """

    target: Mapping[str, float] | None = field(default_factory=lambda: {"macs": 0.5})
    granularity: Granularity = "neuron"
    epochs: Positive = 20
    trials: Count = 5
    search: Share = 0.05
    probe: CountOrZero = 4
    trust: NotNegative = 0.5
    thrift: NotNegative = 0.5
    ramp: Share = 0.75
    alternate: Count | Literal["epoch", "together"] = "together"
    hold: Count = 1
    decay: bool = False
    gradient: Gradient = "through"
    scores: ScoreSource = "switcher+offset"
    start: Start = "post-training"
    fresh_mean: Finite = 0.1
    fresh_std: Positive = 2**0.5
    switcher_optimizer: Optimizer = "adamw"
    switcher_lr: Positive = 1e-4
    offset_lr: Positive = 2e-3
    optimizer: Optimizer = "sgd"
    lr: Positive = 0.05
    momentum: Share = 0.9
    weight_decay: Share = 5e-4
    warmup: Share = 0.05
    clip: Positive = 5.0
    switcher_clip: Positive = 5.0
    distill: Share = 0.9
    temperature: Positive = 2.0
    precision: Precision = "float32"
    channels_last: bool = False
    compile: bool = False
    freeze_norm: bool = False
    floor: Share = 0.1
    round_to: Count = 8
    keep: Names = ()
    input_neurons: bool = True
    patience: Count | None = None
    seed: Seed = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", read_target(self.target))
        check_fields(self)
        if self.granularity == "connection" and self.target is not None and "macs" in self.target:
            raise TargetError(
                f"target macs={self.target['macs']:g} cannot be met by switching connections, which saves no "
                "multiply-adds on common hardware; use params=..., drop=... or free."
            )
        if self.gradient == "held" and self.alternate == "together":
            raise ConfigError(
                "gradient='held' has a meaning where the network learns alone: set alternate, to 2 for one."
            )
        if self.hold > 1 and self.alternate != "together":
            raise ConfigError("hold has a meaning where both learn at every step: set alternate='together'.")
        if self.search == 0:
            raise ConfigError("search=0 leaves no step in which anything could be learned about the neurons.")

    @classmethod
    def paper(cls, **changes: Any) -> PruneConfig:
        """The preset of arXiv 2110.05954, section 3.2.

        Fresh switcher, alternation by iteration, plain SGD 0.1 for both, no budget, no distillation, no
        fine-tuning, stop when the loss no longer falls. Three things are added, without which the published
        learning rate diverges or every neuron comes back: the switcher's gradient is clipped, its output is
        standardised per layer, and the rates fall along a cosine.

        Args:
            changes: options that differ from the preset.
        """
        preset = cls(
            target=None,
            search=1.0,
            probe=0,
            alternate=1,
            scores="switcher",
            start="fresh",
            switcher_optimizer="sgd",
            switcher_lr=0.1,
            lr=0.1,
            momentum=0.0,
            weight_decay=0.0,
            switcher_clip=0.5,
            decay=True,
            distill=0.0,
            patience=5,
        )
        return replace(preset, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for reports and checkpoints."""
        values = asdict(self)
        values["keep"] = list(self.keep)
        values["target"] = None if self.target is None else dict(self.target)
        return values

    def identity(self) -> dict[str, Any]:
        """What a run must have in common with the one that it goes on with; a compiler changes last bits alone."""
        return {name: value for name, value in self.to_dict().items() if name != "compile"}
