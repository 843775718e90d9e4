"""What folders of photos cost: memory of every command on a large one, and images a second.

    python benchmarks/images.py memory --images 100000 --classes 1000
    python benchmarks/images.py rate --photos DIR
    python benchmarks/images.py --table

`memory` writes a folder laid out as ImageNet's (`train/<class>/`, `val/<class>/`) of small JPEG files, of which
many are links to one another, and runs `inspect`, `evaluate --limit 500` and `optimize --epochs 0.01` on it, each
in a process of its own, whose largest resident memory is taken, with that of its workers. How much the machine
would give is in the row too, since images are held where an eighth of it holds them; Linux says 3 GiB by

    systemd-run --user --scope -p MemoryMax=3G -p MemorySwapMax=0 python benchmarks/images.py memory

`rate` reads a folder
of photos by our loader and by torchvision's `ImageFolder` in PyTorch's `DataLoader`, with the same transforms and
the same number of workers, one epoch each in turn. Rows go into `images.json`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import HERE, parser, record, say
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import models
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import snnprune
from snnprune.data import StreamLoader
from snnprune.files import write_atomically
from snnprune.memory import available_memory

RESULTS, TABLE = HERE / "images.json", HERE / "images.md"
_DISTINCT = 200
_ROUNDS = 9


def layout(folder: Path, images: int, classes: int) -> None:
    """A folder as ImageNet's."""
    rng = np.random.default_rng(0)
    drawn = folder / "drawn"
    drawn.mkdir(parents=True)
    for number in range(_DISTINCT):
        height, width = rng.integers(200, 400, 2)
        coarse = rng.integers(0, 256, (height // 20, width // 20, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR).save(drawn / f"{number}.jpg")
    for kind, each in (("train", images // classes), ("val", 5)):
        for label in range(classes):
            own = folder / kind / f"n{label:08d}"
            own.mkdir(parents=True)
            for number in range(each):
                os.link(drawn / f"{(label + number) % _DISTINCT}.jpg", own / f"{number}.jpg")


def peak_of(command: list[str], folder: Path) -> tuple[float, int]:
    """Seconds of a command and the most bytes that it and its children held at once, shared pages counted once."""
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    most = 0

    def watch() -> None:
        nonlocal most
        while process.poll() is None:
            most = max(most, sum(map(_held, _family(process.pid))))
            time.sleep(0.5)

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, errors = process.communicate()
    watcher.join()
    if process.returncode:
        raise SystemExit(errors)
    return time.monotonic() - began, most


def _family(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [p for child in task.read_text().split() for p in _family(int(child))]
        except OSError:
            continue
    return found


def _held(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def memory(args: Any) -> list[dict[str, Any]]:
    """Rows of the commands."""
    rows, free = [], available_memory()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        layout(folder / "photos", args.images, args.classes)
        torch.manual_seed(0)
        torch.save(models.mobilenet_v3_small(num_classes=args.classes).state_dict(), folder / "net.pt")
        common = ["--arch", "mobilenet_v3_small", "--num-classes", str(args.classes)]
        data = [*common, "--data", "photos", "--image-size", str(args.image_size), "--device", "cpu"]
        for name, more in (
            ("inspect", common),
            ("evaluate", [*data, "--limit", "500"]),
            (
                "optimize",
                [*data, "--epochs", "0.01", "--batch-size", str(args.batch_size), "--no-time", "--output", "out"],
            ),
        ):
            seconds, most = peak_of([sys.executable, "-m", "snnprune", name, "net.pt", *more], folder)
            rows.append(
                {
                    "case": name,
                    "images": args.images,
                    "classes": args.classes,
                    "free": free,
                    "seconds": seconds,
                    "bytes": most,
                }
            )
            say(name, f"{seconds:.0f} s", f"{most / 2**30:.2f} GiB")
    return rows


def rate(args: Any) -> list[dict[str, Any]]:
    """Images a second of both loaders."""
    side, rows = args.image_size, []
    theirs = {
        "train": v2.Compose(
            [v2.PILToTensor(), v2.RandomResizedCrop(side, (0.25, 1.0)), v2.RandomHorizontalFlip()]
        ),
        "measure": v2.Compose([v2.Resize(round(side / 0.875)), v2.CenterCrop(side), v2.PILToTensor()]),
    }
    for kind, part, level in (("train", "train", "standard"), ("measure", "test", "none")):
        splits = snnprune.load_data(args.photos, image_size=side, augment="standard")
        source = splits.train if kind == "train" else splits.test
        files = sorted(source.samples.files)  # type: ignore[attr-defined]
        ours = StreamLoader(
            source.samples,  # type: ignore[attr-defined]
            source.labels,  # type: ignore[attr-defined]
            source.info,  # type: ignore[attr-defined]
            batch_size=64,
            shuffle=kind == "train",
            augment=level,  # type: ignore[arg-type]
            workers=args.workers,
        )
        names = {str(file) for file in files}
        same = ImageFolder(
            str(Path(args.photos) / part), _Prepared(theirs[kind]), is_valid_file=names.__contains__
        )
        other = DataLoader(same, 64, shuffle=kind == "train", num_workers=args.workers)
        seconds: dict[str, list[float]] = {"ours": [], "torchvision": []}
        for _ in range(_ROUNDS):
            for name, loader in (("ours", ours), ("torchvision", other)):
                began = time.perf_counter()
                count = sum(len(labels) for _, labels in loader)
                seconds[name].append(time.perf_counter() - began)
                assert count == len(files)
        ratios = [b / a for a, b in zip(seconds["ours"], seconds["torchvision"], strict=True)]
        rates = {name: len(files) / statistics.median(found) for name, found in seconds.items()}
        rows.append({"case": kind, "images": len(files), "workers": args.workers, **rates, "ratios": ratios})
        say(kind, {name: round(value) for name, value in rates.items()}, [round(ratio, 2) for ratio in ratios])
    return rows


class _Prepared:
    """Bytes as numbers with mean 0 and deviation 1, as one does it in a data set."""

    def __init__(self, transform: Any) -> None:
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        self.steps = v2.Compose([transform, v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])

    def __call__(self, image: Any) -> Any:
        return self.steps(image)


def table() -> str:
    """What the rows say."""
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    text = "# Folders of photos\n\nMade by `python benchmarks/images.py`, rows in `images.json`.\n\n"
    text += "Memory is the most that a command and its workers held at once, "
    text += "of what the machine (or the control group) gave.\n\n"
    text += "| command | images | classes | seconds | memory, GiB | of, GiB |\n|---|---|---|---|---|---|\n"
    for r in (r for r in rows if r["benchmark"] == "memory"):
        text += (
            f"| `{r['case']}` | {r['images']} | {r['classes']} | {r['seconds']:.0f} | {r['bytes'] / 2**30:.2f} "
            f"| {r['free'] / 2**30:.2f} |\n"
        )
    text += "\nImages a second; the ratio is of epochs in turn.\n\n"
    text += "| for | workers | ours | torchvision's | ours / torchvision's |\n|---|---|---|---|---|\n"
    for r in (r for r in rows if r["benchmark"] == "rate"):
        spread = f"{statistics.median(r['ratios']):.2f} ({min(r['ratios']):.2f} to {max(r['ratios']):.2f})"
        text += f"| {r['case']} | {r['workers']} | {r['ours']:.0f} | {r['torchvision']:.0f} | {spread} |\n"
    write_atomically(TABLE, lambda p: p.write_text(text))
    return text


def main() -> None:
    """Command line."""
    made = parser(__doc__ or "")
    made.set_defaults(results=RESULTS)
    made.add_argument("what", nargs="?", choices=["memory", "rate"])
    made.add_argument("--images", type=int, default=100_000)
    made.add_argument("--classes", type=int, default=1000)
    made.add_argument("--photos")
    made.add_argument("--image-size", type=int, default=224)
    made.add_argument("--workers", type=int, default=2)
    made.add_argument("--batch-size", type=int, default=64)
    made.add_argument("--table", action="store_true")
    args = made.parse_args()
    if args.table:
        print(table())
        return
    rows = memory(args) if args.what == "memory" else rate(args)
    record(args.results, args.what, rows, args)


if __name__ == "__main__":
    main()
