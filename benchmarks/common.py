"""What the benchmark scripts share: dense training, a results file, figures of the papers' tables."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import snnprune
from snnprune.files import write_atomically
from snnprune.runs.report import device_name, versions

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "models"))
RESULTS = HERE / "results.json"


def parser(text: str, **defaults: Any) -> argparse.ArgumentParser:
    """Options that every benchmark has."""
    made = argparse.ArgumentParser(description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    made.add_argument("--device", default="cpu")
    made.add_argument("--results", type=Path, default=RESULTS, help="JSON file to append to")
    if "seeds" in defaults:
        made.add_argument("--seeds", type=int, default=defaults["seeds"])
    return made


def train_dense(
    model: nn.Module,
    loader: Any,
    *,
    steps: int,
    lr: float,
    device: str = "cpu",
    weight_decay: float = 5e-4,
    seed: int = 0,
) -> nn.Module:
    """SGD with momentum 0.9 and a cosine with a short warm-up, in place, for exactly `steps` steps."""
    torch.manual_seed(seed)
    model.to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, nesterov=True, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
    done = 0
    while done < steps:
        for x, y in loader:
            loss = F.cross_entropy(model(x.to(device)), y.to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            done += 1
            if done == steps:
                break
    return model.eval()


def weights_removed(dense: nn.Module, compact: nn.Module) -> float:
    """Share of the weights removed, biases and norms not counted: how the papers' tables count."""

    def count(model: nn.Module) -> int:
        layers = (nn.Linear, nn.modules.conv._ConvNd)
        return sum(m.weight.numel() for m in model.modules() if isinstance(m, layers))

    return 1 - count(compact) / count(dense)


def record(path: Path, benchmark: str, rows: Iterable[dict[str, Any]], args: argparse.Namespace) -> None:
    """Append rows to the results file, with date, versions and device."""
    known = json.loads(path.read_text()) if path.exists() else []
    stamp = {
        "benchmark": benchmark,
        "date": datetime.date.today().isoformat(),
        "device": device_name(torch.device(args.device)),
        "versions": versions(),
        "options": {
            k: str(v)
            for k, v in vars(args).items()
            if k not in ("results", "data_root", "weights", "data", "adapted")
        },
    }
    known += [{**stamp, **row} for row in rows]
    write_atomically(path, lambda p: p.write_text(json.dumps(known, indent=1) + "\n"))


def say(*parts: Any) -> None:
    """Print at once, with the time."""
    print(time.strftime("%H:%M:%S"), *parts, flush=True)


def kept(result: snnprune.Result) -> dict[str, str]:
    """Kept of size per group."""
    return {g["id"]: f"{g['kept']}/{g['size']}" for g in result.report.groups}
