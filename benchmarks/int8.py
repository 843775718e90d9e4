"""What int8 costs: accuracy and bytes of fp32, fp16 and int8 files, of a dense network and of pruned ones.

    python benchmarks/int8.py digits
    python benchmarks/int8.py flowers --weights mobilenet_v2_flowers.pt --images flowers144 --shares 0.5
    python benchmarks/int8.py flowers --weights W --images DIR --time          # and the speed-up over fp32
    python benchmarks/int8.py --table

Every network is exported as it is and after `optimize` with `macs=SHARE`; each file is measured on the test images
in ONNX Runtime. int8 is calibrated on 256 training images and has no tolerance here, so that every loss is seen.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
import torchvision
from common import HERE, parser, record, say
from digits_cnn import digits_cnn
from torch import nn

import snnprune
from snnprune.analysis.evaluating import evaluator
from snnprune.analysis.quantizing import _unaugmented
from snnprune.files import write_atomically
from snnprune.inputs import first_images

RESULTS, TABLE = HERE / "int8.json", HERE / "int8.md"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
METHODS = ("minmax", "percentile")


def load(name: str, args: Any) -> tuple[nn.Module, Any]:
    """The dense network and its data."""
    if name == "digits":
        model = digits_cnn()
        model.load_state_dict(torch.load(HERE.parent / "models" / "digits_cnn.pt"))
        return model.eval(), snnprune.load_data("digits")
    state = torch.load(args.weights, weights_only=True)
    classes = state["classifier.1.bias"].numel()
    model = torchvision.models.mobilenet_v2(num_classes=classes)
    model.load_state_dict(state)
    data = snnprune.load_data(args.images, image_size=args.image_size, batch_size=64, **IMAGENET)
    return model.eval(), data


def files(model: nn.Module, splits: Any, folder: Path, args: Any) -> list[dict[str, Any]]:
    """Rows of one network: fp32, fp16 and int8 by engine and method of calibration."""
    example, full = first_images(splits.val, 4), folder / "fp32.onnx"
    snnprune.export_onnx(model, full, example)
    check = snnprune.export_onnx(model, folder / "fp16.onnx", example, fp16=True)
    rows = [
        {"file": "fp32", "accuracy": evaluator(full)[1](splits.test).accuracy, "bytes": full.stat().st_size},
        {
            "file": "fp16",
            "accuracy": evaluator(check.path)[1](splits.test).accuracy,
            "bytes": check.path.stat().st_size,
            "checked_on": list(check.differences),
        },
    ]
    paths = [full, check.path]
    for engine in args.engines:
        for method in METHODS if engine == "cpu" else METHODS[:1]:
            paths.append(folder / f"int8-{engine}-{method}.onnx")
            made = snnprune.quantize_onnx(
                full,
                paths[-1],
                _unaugmented(splits.train),
                splits.val,
                test=splits.test,
                tolerance=1.0,
                method=method,
                engine=engine,
            )
            assert made.test is not None
            score = {"accuracy": made.test.int8, "same_class": made.test.same_class, "bytes": made.bytes_after}
            layers = {"layers": made.layers, "of": made.layers_in_all, "quantized": made.quantized}
            rows.append({"file": f"int8 {engine} {method}", **score, **layers})
    if args.time:
        times = snnprune.bench_onnx(paths, batch_sizes=[1], provider="cpu", threads=1, calls=args.calls)
        for row, one in zip(rows, times, strict=True):
            row |= {"median_ms": one.median_ms, "speed_up": times[0].median_ms / one.median_ms}
    return rows


def run(name: str, args: Any) -> None:
    """Measure one network, dense and pruned, and put the rows on file."""
    torch.manual_seed(0)
    dense, splits = load(name, args)
    for share in (1.0, *args.shares):
        model = dense
        if share < 1:
            config = snnprune.PruneConfig(target={"macs": share}, epochs=args.epochs, lr=args.lr)
            model = snnprune.optimize(dense, splits.train, splits.val, config).model.eval()
        with tempfile.TemporaryDirectory() as folder:
            rows = files(model, splits, Path(folder), args)
        told = {"network": name, "macs": share, "epochs": args.epochs if share < 1 else 0}
        found = [{**told, "test_images": count(splits.test), **row} for row in rows]
        named = argparse.Namespace(**{k: v for k, v in vars(args).items() if k != "images"})
        record(args.results, "int8", found, named)
        for row in rows:
            say(name, share, row)


def count(loader: Any) -> int:
    """Inputs in a loader."""
    return sum(len(x) for x, _ in loader)


def table() -> str:
    """The results as a page."""
    rows = json.loads(RESULTS.read_text())
    lines = [
        "# int8: accuracy and bytes",
        "",
        "Made by `python benchmarks/int8.py --table` from `int8.json`; test accuracy in ONNX Runtime on the CPU.",
        "",
        "| network | MACs | file | test accuracy | same class as fp32 | bytes | layers in 8 bits | speed-up |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        same = f"{row['same_class']:.2%}" if "same_class" in row else ""
        layers = f"{row['layers']} of {row['of']} ({row['quantized']})" if "layers" in row else ""
        speed = f"{row['speed_up']:.2f}" if "speed_up" in row else ""
        cells = (
            row["network"],
            row["macs"],
            row["file"],
            f"{row['accuracy']:.2%}",
            same,
            row["bytes"],
            layers,
            speed,
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    last = rows[-1]
    lines += [
        "",
        f"{last['date']}, {last['device']}, {', '.join(f'{k} {v}' for k, v in last['versions'].items())}.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, or write the page."""
    made = parser(__doc__ or "")
    made.set_defaults(results=RESULTS)
    made.add_argument("networks", nargs="*", help="digits, flowers")
    made.add_argument("--weights", type=Path, help="state dict of a MobileNetV2, for flowers")
    made.add_argument("--images", help="folder with train/ and test/, for flowers")
    made.add_argument("--image-size", type=int, default=128)
    made.add_argument("--shares", type=float, nargs="*", default=[0.5], help="of the MACs that pruned ones keep")
    made.add_argument("--epochs", type=float, default=4)
    made.add_argument("--lr", type=float, default=0.01)
    made.add_argument("--engines", nargs="*", default=["cpu", "cpu-vnni", "tensorrt"])
    made.add_argument(
        "--time", action="store_true", help="also time the files, on a machine that does nothing else"
    )
    made.add_argument("--calls", type=int, default=50)
    made.add_argument("--table", action="store_true")
    args = made.parse_args()
    for name in args.networks:
        run(name, args)
    if args.table:
        text = table()
        write_atomically(TABLE, lambda p: p.write_text(text))


if __name__ == "__main__":
    main()
