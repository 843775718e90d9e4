"""A pretrained network on photos: ours, torch-pruning's L2 and LAMP, and the dense network trained on.

    python benchmarks/photos.py 0.5 --images flowers144 --weights mobilenet_v2_flowers.pt
    python benchmarks/photos.py 0.3 --images flowers144 --weights mobilenet_v2_flowers.pt
    python benchmarks/photos.py --table

A MobileNetV2 with torchvision's ImageNet weights, fine-tuned on five kinds of flowers, is cut to a share of its
MACs by `snnprune.contest`: equal steps, batches and recovery (distilled) for all. Stopped, it goes on.
Books lie in `--cache`; their rows are copied to `photos.json`, which `--table` makes `photos.md` of.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torchvision
from common import HERE, parser, say

import snnprune
from snnprune.files import write_atomically
from snnprune.measures import MetricInfo
from snnprune.rivals import BOOK
from snnprune.rivals.standing import heads, standings, table, verdict

RESULTS, TABLE = HERE / "photos.json", HERE / "photos.md"
METHODS = (
    "dense",
    "ours",
    "l2:local",
    "lamp:global",
)  # LAMP orders a layer's channels as L2 does: one local is enough
ABOUT = """\
Made by `python benchmarks/photos.py` ([photos.py](photos.py)) from `photos.json`. A MobileNetV2 with
torchvision's ImageNet weights, fine-tuned on five kinds of flowers at 128 pixels, is cut by `snnprune.contest`:
equal steps, batches and recovery, distilled for all, nothing tuned. Test accuracies (736 photos, centre crops
of 0.875) with 95 % intervals over (n) seeds; *as fast*: times of ONNX Runtime beside the dense model's, where
the clock believed them. *local*: the same ratio in every layer, *global*: one ranking. Runs of one method
differ by up to 3 points, so the intervals are wide. Methods with one run are shown for completeness; *lamp,
local* is *l2, local*, because LAMP orders the channels of a layer as L2 does."""
KEPT = ("rows", "dense", "metric", "target", "steps", "split", "device", "versions", "config")


def run(share: float, args: Any) -> None:
    """One contest, to its end."""
    torch.set_num_threads(1)  # sums are then in one order, so the same command gives the same digits
    state = torch.load(args.weights, weights_only=True)
    model = torchvision.models.mobilenet_v2(num_classes=state["classifier.1.bias"].numel())
    model.load_state_dict(state)
    data = snnprune.load_data(args.images, image_size=args.image_size, batch_size=64)
    config = snnprune.PruneConfig(target={"macs": share}, epochs=args.epochs, lr=args.lr, channels_last=True)
    folder = args.cache / f"{share}"

    def tell(event: Any) -> None:
        if (row := (event.values or {}).get("ended")) is not None:
            say(f"{event.step} of {event.total}: {row['method']}, seed {row['seed']}: {row['value']}")
            collect(args)

    found = snnprune.contest(
        model.eval(), data.train, data.val, config, methods=args.methods, ways="as-they-are", seeds=args.seeds,
        test=data.test, time=True, folder=folder, resume=folder.exists(), device=args.device, callbacks=[tell],
        data_name="five kinds of flowers",
    )  # fmt: skip
    say(str(found))


def collect(args: Any) -> None:
    """Copy the books' rows to the results; a book that is not here keeps what is on file."""
    known = json.loads(args.results.read_text()) if args.results.exists() else {}
    for book in sorted(args.cache.glob(f"*/{BOOK}")):
        content = json.loads(book.read_text())
        known[book.parent.name] = {key: content[key] for key in KEPT if key in content}
    text = json.dumps(dict(sorted(known.items())), indent=1) + "\n"
    write_atomically(args.results, lambda p: p.write_text(text))


def write_table(args: Any) -> None:
    """`photos.md`: for every target the methods, the sentence, and how it was made."""
    parts = ["# A pretrained network on photos", "", *ABOUT.splitlines(), ""]
    for share, book in json.loads(args.results.read_text()).items():
        metric = MetricInfo(**book["metric"])
        found = standings(book["rows"], metric)
        parts += [
            f"## `macs={share}`",
            "",
            f"{verdict(found, metric)} Dense {metric.text(book['dense']['value'])}; {book['steps']} steps a run.",
            "",
            _row(heads(found, metric)),
            _row(["---"] * len(heads(found, metric))),
            *(_row(cells) for cells in table(found, metric)),
            "",
            f"{max(row['date'] for row in book['rows'])[:10]}, {book['device']}, "
            + ", ".join(f"{k} {v}" for k, v in book["versions"].items())
            + ".",
            "",
        ]
    write_atomically(TABLE, lambda p: p.write_text("\n".join(parts)))


def main() -> None:
    """Read the command line, and run a contest or write the table."""
    made = parser(__doc__.splitlines()[0], seeds=3)
    made.set_defaults(results=RESULTS)
    made.add_argument("shares", type=float, nargs="*", help="of the MACs to keep, a contest for each")
    made.add_argument("--images", type=Path, help="folder with train/<class>/ and test/<class>/")
    made.add_argument("--weights", type=Path, help="state dict of the fine-tuned MobileNetV2")
    made.add_argument("--cache", type=Path, default=Path(".photos"), help="folder of the books and checkpoints")
    made.add_argument("--methods", nargs="+", default=METHODS)
    made.add_argument("--epochs", type=float, default=3)
    made.add_argument("--lr", type=float, default=0.02)
    made.add_argument("--image-size", type=int, default=128)
    made.add_argument("--table", action="store_true", help="write photos.md of what is on file")
    args = made.parse_args()
    if args.shares and not (args.images and args.weights):
        made.error("a contest needs --images and --weights")
    for share in args.shares:
        run(share, args)
    collect(args)
    if args.table:
        write_table(args)


def _row(cells: Any) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


if __name__ == "__main__":
    main()
