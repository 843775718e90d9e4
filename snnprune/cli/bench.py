"""`snnprune bench`."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..options import about
from ..timing.serving import Serving, cores_here
from .gather import gathered
from .options import Json, Network
from .paste import shown
from .show import console, emit, say, scripted
from .tables import columns, show_table

if TYPE_CHECKING:
    from ..timing.bench import Contender
    from ..timing.latency import Latency

_ABOUT = about(Serving)
_HEAD = (
    "file", "engine", "precision", "batch", "ms", "spread", "median-p90", "inputs/s", "speed-up", "its spread",
)  # fmt: skip


@gathered
def bench(
    files: Annotated[
        list[Path], typer.Argument(help="ONNX files, run folders or model files; ratios are against the first")
    ],
    network: Network,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            help="auto, cpu, cuda, cuda-graphs, tensorrt, torch, torch-compiled, torch-graphs; repeatable"
        ),
    ] = None,
    batch_size: Annotated[
        list[int] | None, typer.Option(help="inputs per call; repeatable, default 1 and 32")
    ] = None,
    precision: Annotated[list[str] | None, typer.Option(help="fp32 or fp16; repeatable")] = None,
    threads: Annotated[int, typer.Option(help=_ABOUT["threads"].help)] = 1,
    limit: Annotated[float, typer.Option(help="seconds for each file on each engine at most")] = 20.0,
    spread: Annotated[
        float, typer.Option(help="of the ratios, aimed at; a figure that varies much more is refused")
    ] = 0.02,
    calls: Annotated[
        int | None, typer.Option(help="timings of each file at most; by default as many as it takes")
    ] = None,
    warm_up: Annotated[int, typer.Option(help="calls before those")] = 10,
    provider: Annotated[str | None, typer.Option(help="the old name of --engine", hidden=True)] = None,
    as_json: Json = False,
) -> None:
    """Latency of models side by side, on one or more engines.

    ONNX files are run by ONNX Runtime alone. For PyTorch's engines give run folders or model files.
    """
    from ..errors import TimingError
    from ..timing.bench import bench as timed

    engines = list(engine or ())
    if provider is not None:
        engines.append(provider)
    cores = cores_here()
    servings = [
        Serving(engine=name, batch=batch, precision=numbers, threads=threads or cores)  # type: ignore[arg-type]  # checked
        for name, numbers, batch in itertools.product(
            engines or ["auto"], precision or ["fp32"], batch_size or [1, 32]
        )
    ]
    with scripted(as_json):
        if provider is not None:
            _old("--provider", f"--engine {provider}")
        if threads == 0:
            _old("--threads 0", f"a number, such as --threads {cores}")
        kinds = {serving.in_torch for serving in servings}
        contenders = [_contender(path, kinds, network) for path in files]
        found = timed(contenders, servings, limit=limit, spread=spread, calls=calls, warm_up=warm_up)
        if as_json:
            emit([{**dataclasses.asdict(one), "ms": one.ms} for one in found])
        else:
            show_table(console, columns(*_HEAD, text=["engine", "precision"]), [_row(one) for one in found])
        _remark(found, auto="auto" in (engines or ["auto"]))
    if all(one.ms is None and one.ratio in (None, 1.0) for one in found):  # of the first 1, whatever it takes
        raise TimingError(
            f"nothing that was timed can be trusted: {found[0].refused}. Stop what else runs on this machine, or "
            "allow more time (--limit) or a larger spread (--spread)."
        )


def _contender(path: Path, in_torch: set[bool], network: Network) -> Contender:
    """A file or folder in the forms that the engines need."""
    from ..errors import RunError
    from ..runs.examples import example_for
    from ..runs.folder import ONNX
    from ..timing.bench import Contender

    if path.suffix in (".onnx", "") and not path.is_dir():
        return Contender(str(path), path)
    onnx = path / ONNX if path.is_dir() else None
    if onnx is not None and False in in_torch and not onnx.is_file():
        command = shown("export", path, "--onnx")
        raise RunError(f"{path} holds no {ONNX}. `{command}` makes it of a run folder.")
    if onnx is not None and True not in in_torch:
        return Contender(str(path), onnx)
    opened = network.open(path)
    return Contender(str(path), onnx, opened.model, example_for(opened, network.image_size))


def _old(option: str, new: str) -> None:
    """One line on standard error about an option that goes."""
    with scripted(True):
        say(f"warning: {option} goes in 0.3: write {new}", style="yellow")


def _row(one: Latency) -> list[str]:
    """What is not to be believed is a question mark."""
    known, compared = one.ms is not None, one.ratio is not None
    return [
        one.path,
        one.engine,
        one.precision,
        str(one.batch),
        f"{one.ms:.3g}" if one.ms is not None else "?",
        f"{one.spread:.1%}" if known else "?",
        f"{one.median_ms:.3g}-{one.p90_ms:.3g}" if known else "?",
        f"{1000 * one.batch / one.ms:.0f}" if one.ms is not None else "?",
        f"{1 / one.ratio:.2f}x" if one.ratio is not None else "?",
        f"{one.ratio_spread:.1%}" if compared else "?",
    ]


def _remark(found: Sequence[Latency], *, auto: bool) -> None:
    """What has to be known of the figures."""
    from ..timing.sessions import CURE

    for device, threads in dict.fromkeys((one.device, one.threads) for one in found):
        say(f"timed on {device}, CPU threads: {threads}")
    for load in dict.fromkeys(one.load for one in found if one.load):
        say(load)
    for one in found:
        reasons = dict.fromkeys(reason for reason in (one.refused, one.ratio_refused) if reason)
        for reason in reasons:
            say(f"? {one.path}, {one.engine}, {one.precision}, batch {one.batch}: {reason}", style="yellow")
    bound = sorted({one.batch for one in found if one.launch_bound})
    if bound:
        say(
            f"launch-bound at batch size {', '.join(map(str, bound))}: many more inputs take hardly longer, so "
            "the GPU waits for kernels to be started, and a smaller model is not faster there"
        )
    if auto and not any(one.on_gpu for one in found) and _has_gpu():
        say(f"warning: there is a GPU, but ONNX Runtime ran on the CPU. {CURE}", style="yellow")


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
