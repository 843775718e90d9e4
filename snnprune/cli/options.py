"""What several commands share: their options, and how data are loaded.

Options of `PruneConfig` have their help and their defaults from there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from ..learner import PruneConfig
from ..options import about
from ..timing.serving import Engine, Serving
from . import parse
from .progress import Display
from .show import say

DEFAULT = PruneConfig()
_ABOUT = about(PruneConfig)
_SERVING = about(Serving)
ENGINES = ", ".join(get_args(Engine))


def served(name: str, *flags: str, more: str = "") -> Any:
    """An option of `Serving` on the command line; None where it was not given."""
    one = _SERVING[name]
    return typer.Option(*flags, help=one.help + more, show_default=str(one.default))


def of(name: str, *flags: str, **more: Any) -> Any:
    """An option of `PruneConfig` on the command line; a switch needs its flag, or it gets one that negates it."""
    return typer.Option(*flags, help=_ABOUT[name].help, **more)


ModelFile = Annotated[Path, typer.Argument(help="state dict, safetensors, whole model, or a run folder")]
Data = Annotated[
    str,
    typer.Option(help="digits, mnist, cifar10, ..., fake, a folder, an .npz, or file.py:function"),
]
Arch = Annotated[
    str | None,
    typer.Option(help="torchvision name, file.py:function or package.module:function (runs that code)"),
]
Classes = Annotated[int | None, typer.Option(help="outputs of the model; read off the weights by default")]
DataRoot = Annotated[Path, typer.Option(help="where torchvision's data sets lie")]
Mean = Annotated[str | None, typer.Option(help="per channel, of pixels in [0, 1]: 0.49,0.48,0.45")]
Std = Annotated[str | None, typer.Option(help="per channel, of pixels in [0, 1]")]
ImageSize = Annotated[int | None, typer.Option(help="side of the square images, in pixels")]
BatchSize = Annotated[int, typer.Option(help="images per step")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Json = Annotated[bool, typer.Option("--json", help="print JSON on stdout; what is for people goes to stderr")]
Keep = Annotated[list[str] | None, of("keep")]
EngineName = Annotated[str | None, served("engine", more=f" One of {ENGINES}.")]
ThreadCount = Annotated[int | None, served("threads")]
Floor = Annotated[float, of("floor")]
RoundTo = Annotated[int, of("round_to")]
Trust = Annotated[bool, typer.Option("--trust-pickle", help="load any pickled model, which can run code")]


def load_splits(
    data: str,
    root: Path,
    batch_size: int,
    image_size: int | None,
    mean: str | None,
    std: str | None,
    seed: int,
    display: Display,
    opened: Any,
    limit: int | None = None,
    num_classes: int | None = None,
) -> Any:
    """Load the data; folders are read as the model takes them, and a run brings its own normalisation."""
    from ..data import load_data
    from ..data.load import is_folder
    from ..runs.examples import image_channels

    constants: dict[str, Any] = {"mean": parse.numbers(mean, "--mean"), "std": parse.numbers(std, "--std")}
    recorded = (opened.structure or {}).get("normalization") if opened is not None else None
    if isinstance(recorded, dict) and mean is None and std is None:
        constants = {"mean": recorded.get("mean"), "std": recorded.get("std")}
    display.stage("data")
    size_makes_sense = image_size is None or image_size > 0  # if not, load_data says so
    channels = image_channels(opened, image_size) if is_folder(data) and size_makes_sense else None
    splits = load_data(
        data,
        root,
        batch_size=batch_size,
        image_size=image_size,
        channels=channels,
        seed=seed,
        limit=limit,
        num_classes=num_classes,
        progress=display.reading,
        **constants,
    )
    info = getattr(splits.train, "info", None)
    if info is not None and info.kind in ("folder", "arrays"):
        say(f"pixels are normalised with mean {list(info.mean)} and std {list(info.std)}")
    return splits
