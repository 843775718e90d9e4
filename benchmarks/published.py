"""What the papers published, and with which networks and data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Paper:
    """A network of the papers on its data, with what arXiv 2110.05954 published of it.

    Attributes:
        make: file and function of the network.
        kwargs: of the function.
        data: the data set.
        baseline: published accuracy of the network alone, %; None where that paper has none.
        joint: published (accuracy %, weights removed %, what was kept) of the alternating learning.
        separate: the same for learning the switcher on a trained, frozen network.
        fc_only: the published percentage counts FC layers alone.
    """

    make: str
    data: str
    baseline: float | None = None
    joint: tuple[float, float, str] | None = None
    separate: tuple[float, float, str] | None = None
    kwargs: tuple[tuple[str, Any], ...] = ()
    fc_only: bool = False


@dataclass(frozen=True)
class Known:
    """By what a data set is known: shape of an image, classes, mean pixel of each channel in [0, 1]."""

    shape: tuple[int, int, int]
    classes: int
    mean: tuple[float, ...]


KNOWN = {
    "mnist": Known((1, 28, 28), 10, (0.1307,)),
    "cifar10": Known((3, 32, 32), 10, (0.4914, 0.4822, 0.4465)),
    "cifar100": Known((3, 32, 32), 100, (0.5071, 0.4865, 0.4409)),
}
STD = 0.6  # of the scores at the start of the separate learning
AS_JPEG = " as JPEG"  # no figure of it may stand beside a published one

HUNDRED = (("num_classes", 100),)
PAPERS = {
    "mlp": Paper("mlp:mlp", "mnist", 98.36, (98.41, 74.61, "456-134-45"), (98.37, 8.23, "756-287-92")),
    "lenet": Paper("lenet:lenet5_caffe", "mnist", 99.20, (99.27, 84.95, "12-37-268-192")),
    "vgg_cov2": Paper("vgg:vgg_cov2", "cifar10", 78.90, (85.13, 39.62, "49-43-12530-203-156")),
    "vgg16": Paper("vgg:vgg16", "cifar10", 92.52, (92.94, 31.53, "FC 322-3632-3235"), fc_only=True),
    "resnet34": Paper("resnet:resnet34", "cifar10", 93.52, (93.81, 51.76, "FC 247"), fc_only=True),
    "mobilenet": Paper("mobilenet:mobilenet_v1_025", "cifar10", 86.30, (91.00, 42.87, "FC 584"), fc_only=True),
    "resnet34-mini": Paper(
        "resnet:resnet34", "mini-imagenet", 52.71, (53.50, 26.56, "FC 376"), None, HUNDRED, True
    ),
    "mobilenet-mini": Paper(
        "mobilenet:mobilenet_v1_025",
        "mini-imagenet",
        46.30,
        (48.80, 20.31, "FC 816"),
        None,
        HUNDRED,
        True,
    ),
    "resnet18": Paper("resnet:resnet18", "cifar10", fc_only=True),
    "resnet18-100": Paper("resnet:resnet18", "cifar100", kwargs=HUNDRED, fc_only=True),
    "resnet34-100": Paper("resnet:resnet34", "cifar100", kwargs=HUNDRED, fc_only=True),
    "vgg16-100": Paper("vgg:vgg16", "cifar100", kwargs=HUNDRED, fc_only=True),
    "mobilenet-100": Paper("mobilenet:mobilenet_v1_025", "cifar100", kwargs=HUNDRED, fc_only=True),
}


@dataclass(frozen=True)
class Row:
    """A row that a paper has published, and what it takes to have it here.

    Attributes:
        paper: its number on arXiv.
        network: a name of `PAPERS`.
        mode: how it was learned: `joint`, `separate` or `connections`.
        epochs: as many as we mean to run; the papers say no number, they stop when the loss no longer falls.
        runs: as many as we mean to have; arXiv 2110.05954 has eight.
    """

    paper: str
    network: str
    mode: str
    epochs: int
    runs: int = 3


NEURONS, CONNECTIONS = "2110.05954", "2103.15590"
PUBLISHED = (
    Row(NEURONS, "mlp", "joint", 25),
    Row(NEURONS, "mlp", "separate", 10),
    Row(NEURONS, "lenet", "joint", 30),
    *(Row(NEURONS, name, "joint", 60) for name in ("vgg_cov2", "vgg16", "resnet34", "mobilenet")),
    *(Row(NEURONS, name, "joint", 60) for name in ("resnet34-mini", "mobilenet-mini")),
    Row(CONNECTIONS, "lenet", "connections", 8),
    *(Row(CONNECTIONS, name, "connections", 60) for name in ("resnet18", "resnet34", "vgg16", "mobilenet")),
    *(
        Row(CONNECTIONS, f"{name}-100", "connections", 60)
        for name in ("resnet18", "resnet34", "vgg16", "mobilenet")
    ),
)
