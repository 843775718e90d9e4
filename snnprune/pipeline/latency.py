"""The `latency` target: the most MACs that run in a given share of the dense model's time."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import ConfigError, RunError, TargetError, TimingError
from ..export import export_onnx
from ..files import read_json, write_json
from ..inputs import Inputs
from ..learner import check_same_run
from ..ranks import current
from ..runs.places import LATENCY
from ..switching import Switched
from ..timing.bench import bench_onnx
from .job import Job
from .setting import Setting

_CUTS = 6


class LatencySearch:
    """Bisection of the kept share of MACs by timing exported cuts beside the dense model.

    A cut is what the threshold would keep before anything is learned, so that each takes one export and no
    training. Latency falls with the MACs only roughly (odd widths, kernels that a GPU has to start), hence the
    measuring. The share that was found is written down, because a second measurement might find another one.

    Args:
        setting: what the cuts and the run share; its options have a `latency` target.
        wanted: share of the dense model's time, at batch size 1 in ONNX Runtime.
        folder: of the checkpoints; None keeps nothing.
        resume: take the share that lies there.

    Attributes:
        trials: what each cut kept and took, so far; last the final model.
    """

    def __init__(self, setting: Setting, wanted: float, folder: Path | None, *, resume: bool) -> None:
        self.setting, self.wanted, self.resume = setting, wanted, resume
        self.path = None if folder is None else folder / LATENCY
        self.identity: dict[str, Any] = {}
        self.trials: list[dict[str, Any]] = []

    def share(self) -> float:
        """The largest share of MACs that was seen to be fast enough.

        Raises:
            ConfigError: connections are switched, which saves no time.
            ExportError: the model cannot be exported.
            RunError: the share on file belongs to another run.
            TargetError: even the smallest cut that the floors allow takes longer.
        """
        setting = self.setting
        if setting.config.granularity == "connection":
            raise ConfigError("target latency=... has no meaning for connections: zeros save no time.")
        job = Job(setting, replace(setting.config, target={"macs": 1.0}))
        if self.path is not None:
            self.identity = {**setting.identity(job.config), "latency": self.wanted}
            if self.resume and self.path.exists():
                return self.known(self.path)
        setting.prepare()
        with job.attach(copy.deepcopy(setting.dense)) as gated:
            found = self._search(gated)
        if self.path is not None and current().first:
            write_json(self.path, {"identity": self.identity, "share": found, "trials": self.trials})
        return found

    def _search(self, gated: Switched) -> float:
        setting = self.setting
        low, high = setting.least_share(), 1.0
        share, best = min(max(self.wanted, low), high), None
        clock, ranks = Clock(setting.dense, setting.sample), current()
        for at in range(_CUTS):
            setting.tell("latency", step=at + 1, total=_CUTS)
            gated.set_budget({"macs": share})
            cut = gated.compact()  # by all processes, which exchange what is kept; only the first one times it
            trial = {"macs": round(share, 6), **(clock(cut) if ranks.first else {"latency": 0.0, "provider": ""})}
            (trial["latency"],) = ranks.same_values(trial["latency"])
            trial["passed"] = trial["latency"] <= self.wanted
            self.trials.append(trial)
            if trial["passed"]:
                low, best = share, max(share, best or 0.0)
            else:
                high = share
            share = (low + high) / 2
        if best is None:
            least = self.trials[-1]
            raise TargetError(
                f"latency={self.wanted:g} was not reached: with {least['macs']:.3f} of the MACs the model still "
                f"takes {least['latency']:.2f} of the dense time ({least['provider']}). Ask for more, or lower "
                "the floor; on a GPU compare larger batches with `snnprune bench`."
            )
        return best

    def note(self, compact: nn.Module) -> None:
        """Add what the final model takes."""
        if current().first:
            self.trials.append({"final": True, **Clock(self.setting.dense, self.setting.sample)(compact)})

    def known(self, path: Path) -> float:
        """The share that an interrupted run has written down.

        Raises:
            RunError: it is of another run, or malformed.
        """
        content = read_json(path)
        try:
            check_same_run(path, content["identity"], self.identity)
            self.trials = list(content["trials"])
            share = content["share"]
            if (
                type(share) not in (int, float)
                or not 0 < share <= 1
                or not all(type(t) is dict for t in self.trials)
            ):
                raise ValueError("the share is none")
            return float(share)
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{path} is malformed ({error!r}). Remove its folder to start anew.") from error


class Clock:
    """Times models as exported files beside the dense one, in ONNX Runtime at batch size 1."""

    def __init__(self, dense: nn.Module, sample: Inputs) -> None:
        self.dense, self.sample = dense, sample
        self.exported: bytes | None = None

    def __call__(self, model: nn.Module) -> dict[str, Any]:
        """Time as a share of the dense model's, both times, and who served them.

        Raises:
            TimingError: other work keeps the share from being told.
        """
        with tempfile.TemporaryDirectory() as folder:
            whole, small = (Path(folder) / name for name in ("dense.onnx", "compact.onnx"))
            if self.exported is None:
                export_onnx(self.dense, whole, self.sample)
                self.exported = whole.read_bytes()
            whole.write_bytes(self.exported)
            export_onnx(model, small, self.sample)
            slow, fast = bench_onnx([whole, small], batch_sizes=[1])
        if fast.ratio is None:
            raise TimingError(
                f"the compact model's time as a share of the dense one's cannot be trusted: {fast.ratio_refused}. "
                "Stop what else runs on this machine, or choose a target of macs."
            )
        return {
            "latency": fast.ratio,
            "dense_ms": slow.p10_ms,
            "compact_ms": fast.p10_ms,
            "provider": fast.provider,
        }
