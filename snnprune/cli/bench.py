"""`snnprune bench`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import Json
from .show import console, emit, say, scripted


def bench(
    files: Annotated[list[Path], typer.Argument(help="ONNX files or run folders; ratios are against the first")],
    batch_size: Annotated[list[int] | None, typer.Option(help="inputs per call; default 1 and 32")] = None,
    provider: Annotated[str, typer.Option(help="auto, cuda or cpu; cuda fails where it does not serve")] = "auto",
    calls: Annotated[int, typer.Option(help="timed calls per file and batch size")] = 50,
    warm_up: Annotated[int, typer.Option(help="calls before those")] = 10,
    threads: Annotated[int, typer.Option(help="of the CPU provider; 0: ONNX Runtime's choice")] = 0,
    as_json: Json = False,
) -> None:
    """Latency of ONNX files in ONNX Runtime, side by side."""
    from rich.markup import escape
    from rich.table import Table

    from ..bench import CURE, bench_onnx
    from ..errors import RunError
    from ..runs.folder import ONNX

    for path in files:
        if path.is_dir() and not (path / ONNX).is_file():
            raise RunError(f"{path} holds no {ONNX}. `snnprune export {path} --onnx` makes it of a run folder.")
    with scripted(as_json):
        found = bench_onnx(
            [path / ONNX if path.is_dir() else path for path in files],
            batch_sizes=batch_size or (1, 32),
            provider=provider,  # type: ignore[arg-type]  # checked there
            calls=calls,
            warm_up=warm_up,
            threads=threads,
        )
    if as_json:
        emit([dataclasses.asdict(one) for one in found])
        return
    table = Table()
    for name in ("file", "provider", "batch", "median ms", "p10-p90", "inputs/s", "speed-up"):
        text = name in ("file", "provider")
        width = min(20, max(len(str(path)) for path in files)) if name == "file" else None
        justify = "left" if text else "right"
        table.add_column(name, justify=justify, overflow="fold", no_wrap=name != "file", min_width=width)
    first: dict[int, Any] = {}
    for number, one in enumerate(found):  # all files at one batch size, then at the next
        base = first.setdefault(one.batch, one)
        table.add_row(
            escape(str(files[number % len(files)])),
            one.provider.removesuffix("ExecutionProvider"),
            str(one.batch),
            f"{one.median_ms:.3g}",
            f"{one.p10_ms:.2g}-{one.p90_ms:.2g}",
            f"{1000 * one.batch / one.median_ms:.0f}",
            f"{base.median_ms / one.median_ms:.2f}x",
        )
    console.print(table)
    bound = sorted({one.batch for one in found if one.launch_bound})
    if bound:
        say(
            f"launch-bound at batch size {', '.join(map(str, bound))}: many more inputs take hardly longer, so "
            "the GPU waits for kernels to be started, and a smaller model is not faster there"
        )
    if provider == "auto" and not any(one.provider.startswith("CUDA") for one in found) and _has_gpu():
        say(f"warning: there is a GPU, but ONNX Runtime ran on the CPU. {CURE}", style="yellow")


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
