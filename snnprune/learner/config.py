"""PruneConfig: everything that a run depends on, apart from model and data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, asdict, dataclass, replace
from typing import Any, Literal

from ..budget import ROUND_TO, Widths, read_target
from ..criteria import fingerprint_of, is_criterion, label_of, words_of
from ..errors import ConfigError, TargetError
from ..moved import in_groups, moved
from ..options import Count, Names, Paths, Place, Positive, Seed, Share, check_fields, described, option
from ..timing.serving import Serving
from .groups import Optimizer, RecoveryOptions, SearchOptions

Granularity = Literal["neuron", "connection"]
Precision = Literal["float32", "bfloat16"]
Auto = Literal["auto"]


GROUPS: dict[str, type] = {"search": SearchOptions, "recovery": RecoveryOptions, "serving": Serving}
_SEARCH = (
    "probe", "trust", "thrift", "ramp", "alternate", "hold", "decay", "gradient", "scores", "start", "fresh_mean",
    "fresh_std", "switcher_optimizer", "switcher_lr", "offset_lr", "switcher_clip", "patience",
)  # fmt: skip
_RECOVERY = ("warmup", "momentum", "clip", "temperature")
MOVED = {  # until 0.2 all options stood side by side in PruneConfig
    "search": ("search", "share"),
    **{name: ("search", name) for name in _SEARCH},
    **{name: ("recovery", name) for name in _RECOVERY},
}
_UNTIL = "0.3"


@described
@moved(GROUPS, MOVED, until=_UNTIL)
@dataclass(frozen=True, slots=True)
class PruneConfig:
    """Options of a run. The defaults are the post-training recipe.

    `dataclasses.replace` changes options: `replace(config, lr=0.01)`, and of a group
    `replace(config, search=replace(config.search, hold=4))`.

    Raises:
        ConfigError: a value makes no sense, or a name is no option; the message names it.
        TargetError: the target makes no sense.

    Example:
        >>> config = snnprune.PruneConfig(target={"params": 0.3}, epochs=5, keep=("features.0",))
        >>> config.to_dict()["target"]
        {'params': 0.3}
    """

    target: Mapping[str, float | str] | None = option(
        lambda: {"macs": 0.5},
        '`{"macs": share}` or `{"params": share}`, the kept share of the dense cost in (0, 1]. '
        '`{"drop": amount}`: the fewest MACs at which the validation accuracy (or your own metric) '
        "loses at most that. "
        '`{"latency": share}`: that share of the dense time, served by `serving`; `{"latency": "3ms"}`: so much. '
        "None is the papers' free mode, in which the switcher alone decides.",
    )
    _: KW_ONLY
    granularity: Granularity = option(
        "neuron",
        "what is switched: each neuron, or each connection of fully connected layers. Neurons (channels, units, "
        "inputs) are removed physically; connections (single weights, arXiv 2103.15590) become exact zeros.",
    )
    epochs: Positive = option(
        20.0,
        "passes over the training data, search and recovery together. Under `drop` of each trial.",
    )
    trials: Count = option(5, "runs of so many epochs by which `drop` is bisected.")
    lr: Positive = option(
        0.05,
        "learning rate of the network. In the search it is constant; of the recovery it is the peak.",
    )
    optimizer: Optimizer = option("sgd", "optimiser of the network: SGD with momentum, or AdamW.")
    weight_decay: Share = option(5e-4, "weight decay of the network's optimiser.")
    distill: Share = option(0.9, "weight of the original model's outputs against the labels.")
    precision: Precision | Auto = option(
        "auto",
        "numbers that network and teacher learn in: float32, bfloat16, or auto, the faster on the GPU at hand. It "
        "is set by `torch.autocast`; weights, switcher, threshold, proof and accuracies stay in float32 and more. "
        "`auto` is float32 on the CPU and in the search. On a GPU the recovery first takes a few steps in each of "
        "the ways to compute that are not fixed by this and the next two options, and goes on in the fastest.",
    )
    channels_last: bool | Auto = option(
        "auto",
        "learn in this memory format, in which many devices' convolutions are faster; auto: where they are. The "
        "channels of a pixel then lie next to each other; outputs change in their last bits alone.",
    )
    compile: bool | Auto = option(
        "auto",
        "compile what recovers and its teacher by `torch.compile`; auto: on a GPU, in long runs that it makes "
        "faster. The first step of each takes a minute or so, so `auto` does it where at least ten minutes are "
        "left to learn.",
    )
    freeze_norm: bool = option(False, "keep batch-norm statistics as they are.")
    floor: Share = option(0.1, "least kept share of every group under a budget.")
    round_to: Count = option(
        ROUND_TO,
        "under a budget keep multiples of this many channels; 1 keeps any number. Groups less than four times "
        "as wide keep multiples of a smaller power of two. Without a meaning for connections and in the free "
        "mode.",
    )
    width: Widths = option(
        (),
        "under a budget, how much stays of the groups that a pattern names: `layer1.*=0.75` exactly, `<=` at "
        "most, `>=` at least. A share in (0, 1], or a number of neurons (`48`; `1` is one, `1.0` all of them). "
        "Patterns are those of `keep`, and mean outputs of layers. In Python also a dict, "
        '`{"layer1.*": 0.75, "layer2": "<=48"}`. Shares become multiples of `round_to` where they leave one; a '
        "width is stronger than `floor`.",
    )
    uniform: Names = option(
        (),
        "under a budget, patterns (as of `keep`) whose groups keep the same number of neurons, each pattern for "
        "itself: `layer1.*`. The scores decide how many, the mean of those that have the same place in their "
        "groups. Groups that are not equally wide keep the same share, rounded up to whole blocks of each. A "
        "group belongs to the first pattern that names it, single inputs to none.",
    )
    keep: Names = option(
        (),
        "shell patterns of module names whose channels (or connections) must stay. A pattern names a module, or "
        "one that it lies in: `layer4` protects all of `layer4.0`.",
    )
    outputs: Paths = option(
        (),
        "paths of the model's outputs that matter, such as `0`, `logits` or `aux.0` (keys, fields, places; a path "
        "names all that lies below it). Neurons that only other outputs hold may go. By default all matter.",
    )
    input_neurons: bool = option(True, "also switch single inputs of fully connected layers.")
    seed: Seed = option(0, "seed of everything random.")
    search: SearchOptions = option(SearchOptions, "options of the search, a `SearchOptions`.")
    recovery: RecoveryOptions = option(
        RecoveryOptions, "further options of the network's learning, a `RecoveryOptions`."
    )
    serving: Serving = option(
        Serving, "what will serve the model, a `Serving`: a target of time is met there, and times are of it."
    )
    profile: Place | None = option(
        None,
        "under `latency`, the times of another device, as the script of `snnprune profile --script` wrote them "
        "there. None times the network's layers on this machine.",
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", read_target(self.target))
        check_fields(self)
        for name, kind in GROUPS.items():
            if not isinstance(getattr(self, name), kind):
                given = type(getattr(self, name)).__name__
                raise ConfigError(f"{name} is {given}; give a {kind.__name__}, or a mapping of its options.")
        for name in ("width", "uniform"):
            given = getattr(self, name)
            if given and (self.target is None or self.granularity == "connection"):
                what = "connections" if self.granularity == "connection" else "the free mode"
                raise ConfigError(f"{name}={list(given)} has no meaning for {what}; give a target of neurons.")
        if is_criterion(self.search.scores) and (self.target is None or self.granularity == "connection"):
            lacks = (
                "judges neurons, not connections; leave --granularity out"
                if self.granularity == "connection"
                else "says which neurons go first, not how many; give a target such as macs=0.5 instead of free"
            )
            raise ConfigError(f"scores={label_of(self.search.scores)} {lacks}.")
        if self.granularity == "connection" and self.target is not None and "macs" in self.target:
            raise TargetError(
                f"target macs={self.target['macs']} cannot be met by switching connections, which saves no "
                "multiply-adds on common hardware; use params=..., drop=... or free."
            )

    @classmethod
    def paper(cls, **changes: Any) -> PruneConfig:
        """The preset of arXiv 2110.05954, section 3.2.

        Fresh switcher, alternation by iteration, plain SGD 0.1 for both, no budget, no distillation, no
        fine-tuning, stop when the loss no longer falls. Three things are added, without which the published
        learning rate diverges or every neuron comes back: the switcher's gradient is clipped, its output is
        standardised per layer, and the rates fall along a cosine.

        Args:
            changes: options that differ from the preset. `search` or `recovery` as a mapping changes what it
                names; as an object it takes the place of all options of the preset's group.

        Example:
            >>> config = snnprune.PruneConfig.paper(epochs=25, search={"patience": 3})
            >>> config.search.patience, config.search.start
            (3, 'fresh')
        """
        preset = cls(
            target=None,
            lr=0.1,
            weight_decay=0.0,
            distill=0.0,
            search=SearchOptions(
                share=1.0,
                probe=0,
                alternate=1,
                scores="switcher",
                start="fresh",
                switcher_optimizer="sgd",
                switcher_lr=0.1,
                switcher_clip=0.5,
                decay=True,
                patience=5,
            ),
            recovery=RecoveryOptions(momentum=0.0),
        )
        return replace(preset, **in_groups(cls, changes, GROUPS, MOVED, _UNTIL, preset))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for reports and checkpoints; those of a group in a dict of its own."""
        values = asdict(self)
        values |= {name: list(values[name]) for name in ("width", "uniform", "keep", "outputs")}
        values["search"]["scores"] = words_of(self.search.scores)
        values["target"] = None if self.target is None else dict(self.target)
        values["profile"] = None if self.profile is None else str(self.profile)
        return values

    def identity(self) -> dict[str, Any]:
        """What a run must have in common with the one that it goes on with.

        A compiler changes last bits alone, and what serves a model only matters where its time is the target.
        """
        timed = self.target is not None and "latency" in self.target
        without = ("compile",) if timed else ("compile", "serving", "profile")
        found = {name: value for name, value in self.to_dict().items() if name not in without}
        if callable(self.search.scores):
            found["search"] = {**found["search"], "code of scores": fingerprint_of(self.search.scores)}
        return found
