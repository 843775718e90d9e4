"""What a network's layers take on the machine that will serve it: what `snnprune profile` measures, and shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..budget import Bounds, CostModel, demands_of, read_widths
from ..errors import ConfigError, RunError
from ..files import write_json
from ..graph import NeuronGroup
from ..inputs import Inputs, unwrap
from ..options import Names, Part, Paths, Place, checked, each
from ..plain import copied, plain
from ..proof.tracing import trace
from ..shown import brief_repr
from ..switching import first_scores
from ..timing import Compared, Profile, Serving, SideBySide, profile_of, write_script
from ..timing.answers import answers_in
from ..timing.cuts import cut
from ..timing.questions import ask
from ..timing.script import check_scripted

WIDTHS = (0.75, 0.5, 0.25)  # of all groups, at which real cuts are timed
_BLOCK = 8  # channels: cuts of wide groups are made as runs make them
Told = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class TimedCut:
    """A real cut, timed as it would be served.

    Attributes:
        width: share of every group's neurons that was kept.
        predicted_ms: milliseconds by the times of the layers.
        compared: times of the dense network and of the cut, side by side.
    """

    width: float
    predicted_ms: float
    compared: Compared

    @property
    def error(self) -> float | None:
        """Predicted over measured, less 1; None where the measured time is not to be believed."""
        measured = self.compared.compact_ms
        return None if measured is None else self.predicted_ms / measured - 1

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"width": self.width, "error": self.error, **self.compared.to_dict()}


@dataclass(frozen=True, slots=True)
class Layers:
    """A network whose layers can be timed.

    Attributes:
        model: the network in evaluation mode, a copy.
        groups: its groups.
        cost: what they cost.
        example: what its forward takes, at least two.
    """

    model: nn.Module
    groups: Sequence[NeuronGroup]
    cost: CostModel
    example: Inputs

    @classmethod
    def of(
        cls,
        model: nn.Module,
        example_inputs: Inputs,
        *,
        keep: Sequence[str] = (),
        outputs: Sequence[str] = (),
        width: Sequence[str] = (),
        uniform: Sequence[str] = (),
    ) -> Layers:
        """Trace a network.

        Args:
            model: the network; it stays as it is.
            example_inputs: what its forward takes, at least two.
            keep: shell patterns of module names whose channels must stay.
            outputs: paths of the outputs that matter; none for all.
            width: what stays of groups in real cuts, as `PruneConfig` takes it.
            uniform: patterns whose groups keep the same share in real cuts.

        Raises:
            AttachError: the model has gates attached.
            ConfigError: an option makes no sense.
            UnsupportedModelError: nothing can be pruned exactly.
        """
        network = copied(unwrap(plain(model, "profile()"))).eval()
        keep, outputs = checked("keep", keep, Names), checked("outputs", outputs, Paths)
        groups = trace(network, example_inputs, keep=keep, outputs=outputs)
        asked = {"width": read_widths(width), "uniform": checked("uniform", uniform, Names)}
        return cls(network, groups, CostModel(network, groups, example_inputs, **asked), example_inputs)

    def profile(self, serving: Serving, *, anew: bool = False, tell: Told | None = None) -> Profile:
        """The times of all parts on this machine."""
        return profile_of(self.model, self.groups, self.cost, self.example, serving, anew=anew, tell=tell)

    def script(self, serving: Serving, path: Path) -> int:
        """Write the script that times them elsewhere; returns the number of its graphs."""
        questions = ask(self.model, self.groups, self.cost, self.example, serving)
        write_script(questions, serving, path)
        return len(questions.graphs)

    def cuts(
        self,
        profile: Profile,
        serving: Serving,
        widths: Sequence[float] = WIDTHS,
        *,
        limit: float = 20.0,
        tell: Told | None = None,
    ) -> list[TimedCut]:
        """Real cuts at a few widths, timed beside the dense network.

        Args:
            profile: by which their time is predicted.
            serving: what serves them; the profile is of the same.
            widths: share of every group's neurons that stay, the strongest by the norms of their weights; where
                the network was traced with widths, as near to it as they allow.
            limit: seconds for each of the two networks.
            tell: called with the number of cuts done and of all.

        Raises:
            ExportError: a cut cannot be exported, or the engine cannot run it.
        """
        widths = each("widths", widths, Part)
        clock, found = SideBySide(self.model, self.example, serving, limit=limit), []
        scores = first_scores(self.model, self.groups, self.cost)
        channels = [name for name, group in self.cost.groups.items() if group.kind == "channel"]
        bounds = {name: one.bounds for name, one in demands_of(self.cost, "macs", 0.0, 1).items()}
        for done, width in enumerate(widths):
            if tell is not None:
                tell(done, len(widths))
            kept = {name: _strongest(scores[name], width, bounds[name]) for name in channels}
            predicted = sum(part.cost(kept) for part in profile.parts)
            compared = clock(cut(self.model, self.groups, kept), predicted_ms=predicted)
            found.append(TimedCut(width, predicted, compared))
        return found


@torch.inference_mode(False)
def profile(
    model: nn.Module,
    example_inputs: Inputs,
    serving: Serving | None = None,
    *,
    keep: Sequence[str] = (),
    outputs: Sequence[str] = (),
    output: str | Path | None = None,
    anew: bool = False,
    on_step: Told | None = None,
) -> Profile:
    """Time the layers of a network on this machine, at several widths: what a target of time has as its prices.

    `optimize` does that itself. This shows the times, and writes them down, so that runs on other machines can
    prune for this one.

    Args:
        model: the network; it stays as it is.
        example_inputs: what its forward takes, at least two. Of images the size counts, and nothing else.
        serving: engine, batch size, precision and threads; by default ONNX Runtime with one input per call.
        keep: shell patterns of module names whose channels must stay, as for `trace`; a run needs the same.
        outputs: paths of the outputs that matter, as for `trace`; a run needs the same.
        output: a file for the times, which `PruneConfig(profile=...)` takes; None writes none.
        anew: also time what is kept from earlier.
        on_step: told (graphs timed, in all).

    Returns:
        `dense_ms`, the time of the whole network; `predicted_ms`, the same by its `parts`; `checks`, cuts of it as
        they were measured and as the parts predict them.

    Raises:
        AttachError: the model has gates attached.
        ConfigError: an option makes no sense, or the engine is one of PyTorch's.
        ExportError: the network cannot be exported.
        RunError: the file cannot be written.
        TimingError: the engine does not serve here.
        UnsupportedModelError: nothing can be pruned exactly.

    Example:
        >>> times = snnprune.profile(model, images, snnprune.Serving(engine="cpu"), output="times.json")
        >>> times.dense_ms > 0
        True
        >>> config = snnprune.PruneConfig(target={"latency": 0.5}, profile="times.json")
    """
    serving = _checked(serving)
    place = None if output is None else checked("output", output, Place)
    if on_step is not None and not callable(on_step):
        raise ConfigError(f"on_step={brief_repr(on_step)} must be a function of (done, in all), or None.")
    check_writable(place)
    layers = Layers.of(model, example_inputs, keep=keep, outputs=outputs)
    found = layers.profile(serving, anew=checked("anew", anew, bool), tell=on_step)
    if place is not None:
        write_times(found, place)
    return found


@torch.inference_mode(False)
def profile_script(
    model: nn.Module,
    example_inputs: Inputs,
    serving: Serving,
    path: str | Path,
    *,
    keep: Sequence[str] = (),
    outputs: Sequence[str] = (),
) -> Path:
    """Write a script that times a network's layers on another device, where it needs ONNX Runtime and NumPy alone.

    `python times.py times.json` there writes the times that `PruneConfig(profile="times.json")` takes. The script
    has the layers' shapes, and none of their weights.

    Args:
        model: the network; it stays as it is.
        example_inputs: what its forward takes, at least two. Of images the size counts, and nothing else.
        serving: what serves on that device: `cpu` or `cuda`, batch size, precision and threads.
        path: of the script.
        keep: shell patterns of module names whose channels must stay, as for `trace`; a run needs the same.
        outputs: paths of the outputs that matter, as for `trace`; a run needs the same.

    Returns:
        The path.

    Raises:
        AttachError: the model has gates attached.
        ConfigError: an option makes no sense, or a script has no such engine.
        ExportError: the network cannot be exported.
        RunError: the script cannot be written.
        UnsupportedModelError: nothing can be pruned exactly.

    Example:
        >>> path = snnprune.profile_script(model, images, snnprune.Serving(engine="cpu"), "times.py")
        >>> path.name
        'times.py'
    """
    serving, place = _checked(serving), checked("path", path, Place)
    check_writable(place)
    check_scripted(serving)
    Layers.of(model, example_inputs, keep=keep, outputs=outputs).script(serving, place)
    return place


def check_writable(path: Path | None) -> None:
    """Refuse a place for a file before minutes of work are done for it.

    Raises:
        RunError: it is a folder, or its own folder does not exist.
    """
    if path is None:
        return
    if path.is_dir():
        raise RunError(f"{path} is a folder; give the name of a file in it.")
    if not path.absolute().parent.is_dir():
        raise RunError(f"{path} cannot be written: there is no folder {path.parent}. Make it, or name another.")


def write_times(profile: Profile, path: Path) -> None:
    """Write the times as another machine's script would.

    Raises:
        RunError: the file cannot be written.
    """
    write_json(path, answers_in(profile.answers, profile.key))


def told(profile: Profile) -> dict[str, Any]:
    """A profile as plain values, without the single answers that it is made of."""
    parts = [{"name": p.name, "ms": p.dense, "falls": p.reached, **_widths(p)} for p in profile.parts]
    return {
        "serving": dict(profile.key),
        "dense_ms": profile.dense_ms,
        "predicted_ms": profile.predicted_ms,
        "checks": [{**asdict(check), "error": check.error} for check in profile.checks],
        "parts": parts,
        "stairs": profile.steps,
        "graphs": profile.graphs,
    }


def _widths(part: Any) -> dict[str, int | None]:
    sides = {"inputs": part.inputs, "outputs": part.outputs}
    return {name: None if side is None else side.read for name, side in sides.items()}


def _checked(serving: object) -> Serving:
    found = Serving() if serving is None else serving
    if not isinstance(found, Serving):
        raise ConfigError(f"serving={brief_repr(serving)} must be a snnprune.Serving.")
    return found


def _strongest(scores: NDArray[np.float64], width: float, bounds: Bounds) -> NDArray[np.bool_]:
    """Which neurons of a group stay: so large a share within bounds, in blocks where the group is wide."""
    size = len(scores)
    block = _BLOCK if size >= 4 * _BLOCK else 1
    count = min(max(block, bounds.low, block * round(width * size / block)), bounds.high)
    mask = np.zeros(size, dtype=np.bool_)
    mask[np.argsort(-scores, kind="stable")[:count]] = True
    return mask
