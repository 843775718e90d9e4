"""Options that several commands share.

Options of `PruneConfig` have their help and their defaults from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from ..criteria import CRITERIA, LEARNED
from ..learner import PruneConfig
from ..options import about
from ..timing.serving import Engine, Serving

if TYPE_CHECKING:
    from ..runs.folder import Opened

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
CropRatio = Annotated[
    float | None,
    typer.Option(help="side over what it is cut from: photos in a folder 0.875, small images 1"),
]
ValSplit = Annotated[
    float,
    typer.Option(help="share of the training part to validate on; of a folder of classes alone also to test on"),
]
Workers = Annotated[
    int | None, typer.Option(help="processes that read images; by default one per core, at most 8", min=0)
]
BatchSize = Annotated[int, typer.Option(help="images per step")]
OwnMetric = Annotated[
    str | None,
    typer.Option(
        "--metric",
        help="file.py:function of (model, loader) that gives a number, instead of the accuracy (runs that code); "
        "function.higher_is_better = False where less is better",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Json = Annotated[bool, typer.Option("--json", help="print JSON on stdout; what is for people goes to stderr")]
Augment = Annotated[
    str,
    typer.Option(
        help="of training images: none, light (shifts), standard (random crops), strong; auto: standard for "
        "folders of photos, else light"
    ),
]
Scores = Annotated[
    str,
    typer.Option(
        help=f"who orders the neurons: {', '.join(LEARNED)}, or a criterion, by which nothing is searched: "
        f"{', '.join(CRITERIA)}"
    ),
]
EngineName = Annotated[str | None, served("engine", more=f", one of {ENGINES}")]
ThreadCount = Annotated[int | None, served("threads")]
Floor = Annotated[float, of("floor")]
RoundTo = Annotated[int, of("round_to")]
Entry = Annotated[
    str | None, typer.Option(help="of a checkpoint with several sets of weights the one to take: model_ema")
]
Trust = Annotated[bool, typer.Option("--trust-pickle", help="load any pickled model, which can run code")]


@dataclass(frozen=True, slots=True)
class Network:
    """What a model file is opened with."""

    arch: Arch = None
    num_classes: Classes = None
    image_size: ImageSize = None
    trust_pickle: Trust = False
    entry: Entry = None

    def open(self, path: Path) -> Opened:
        """The model of a file or a run folder, as `open_model` says."""
        from ..runs.folder import open_model

        return open_model(path, **self.opening)

    @property
    def opening(self) -> dict[str, Any]:
        """Arguments of `open_model`."""
        names = ("arch", "num_classes", "trust_pickle", "entry")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Patterns:
    """What is asked of layers and outputs by their names."""

    keep: Annotated[list[str] | None, of("keep")] = None
    width: Annotated[list[str] | None, of("width")] = None
    uniform: Annotated[list[str] | None, of("uniform")] = None
    outputs: Annotated[list[str] | None, of("outputs")] = None

    @property
    def all(self) -> dict[str, Any]:
        """Each of them as `PruneConfig` takes it."""
        return {name: tuple(getattr(self, name) or ()) for name in ("keep", "width", "uniform", "outputs")}
