"""What a target of time comes to before anything is timed for it: by a profile, or by times that are kept."""

from __future__ import annotations

from dataclasses import dataclass

from ..budget import Latency
from ..learner import PruneConfig
from ..pipeline.setting import Setting
from ..timing import Profile, profile_of
from ..timing.answers import load
from ..timing.coarse import WHOLES, takes_whole
from ..timing.profile import fit
from ..timing.questions import ask


@dataclass(frozen=True, slots=True)
class Foretold:
    """What a target of time comes to.

    Attributes:
        share: of the time that the layers take together; None where it is not known yet.
        note: a sentence for people.
    """

    share: float | None
    note: str


def foretold(setting: Setting, config: PruneConfig, wanted: Latency) -> Foretold:
    """Tell the cost model what is known of time, and say what a target comes to; nothing is timed.

    Args:
        setting: of the run.
        config: its options, as the user gave them.
        wanted: its target.

    Raises:
        ExportError: the network cannot be exported.
        TimingError: the profile is none, or of another network.
    """
    profile, missing = _known(setting, config)
    if profile is None:
        stands = f"macs={wanted.share or 0.5:g}"
        return Foretold(
            None,
            f"{missing} graphs of its layers are timed first, once on this machine (`snnprune profile` does it "
            f"alone); until then the figures are for {stands}",
        )
    setting.cost.add_times(profile.parts)
    ms = wanted.of(profile.dense_ms) * profile.dense_ms if wanted.ms is None else wanted.ms
    share = min(1.0, ms / profile.predicted_ms)
    served = f"{profile.key['engine']} on {profile.key['device']}, batch size {profile.key['batch']}"
    end = (
        "it is that device's times that the search goes by; nothing is timed here"
        if config.profile is not None
        else "the cut is timed at the end of the search, which sets the share right"
    )
    return Foretold(
        share,
        f"the dense model takes {profile.dense_ms:.3g} ms ({served}); latency={wanted} is {ms:.3g} ms, "
        f"{share:.3f} of what its layers take; {end}",
    )


def _known(setting: Setting, config: PruneConfig) -> tuple[Profile | None, int]:
    """The times of the layers, or how many graphs are still to be timed for them."""
    given = setting.dense, setting.groups, setting.cost, setting.sample
    if config.profile is not None:
        return profile_of(*given, config.serving, answers=config.profile), 0
    serving = config.serving.resolved()
    if takes_whole(serving):  # nothing of it is kept
        return None, WHOLES
    questions, key = ask(*given, serving), serving.key()
    answers = load(key)
    missing = sum(name not in answers for name in questions.graphs)
    return (None, missing) if missing else (fit(questions, answers, key), 0)
