"""What the papers published, and with which networks and data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Paper:
    """A row of the tables of arXiv 2110.05954.

    Attributes:
        make: file and function of the network.
        kwargs: of the function.
        data: the data set.
        baseline: published accuracy of the network alone, %.
        joint: published (accuracy %, weights removed %, what was kept) of the alternating learning.
        separate: the same for learning the switcher on a trained, frozen network.
        fc_only: the published percentage counts FC layers alone.
    """

    make: str
    data: str
    baseline: float
    joint: tuple[float, float, str]
    separate: tuple[float, float, str] | None = None
    kwargs: tuple[tuple[str, Any], ...] = ()
    fc_only: bool = False


PAPERS = {
    "mlp": Paper("mlp:mlp", "mnist", 98.36, (98.41, 74.61, "456-134-45"), (98.37, 8.23, "756-287-92")),
    "lenet": Paper("lenet:lenet5_caffe", "mnist", 99.20, (99.27, 84.95, "12-37-268-192")),
    "vgg_cov2": Paper("vgg:vgg_cov2", "cifar10", 78.90, (85.13, 39.62, "49-43-12530-203-156")),
    "vgg16": Paper("vgg:vgg16", "cifar10", 92.52, (92.94, 31.53, "FC 322-3632-3235"), fc_only=True),
    "resnet34": Paper("resnet:resnet34", "cifar10", 93.52, (93.81, 51.76, "FC 247"), fc_only=True),
    "mobilenet": Paper("mobilenet:mobilenet_v1_025", "cifar10", 86.30, (91.00, 42.87, "FC 584"), fc_only=True),
    "resnet34-mini": Paper(
        "resnet:resnet34", "mini-imagenet", 52.71, (53.50, 26.56, "FC 376"), None, (("num_classes", 100),), True
    ),
    "mobilenet-mini": Paper(
        "mobilenet:mobilenet_v1_025",
        "mini-imagenet",
        46.30,
        (48.80, 20.31, "FC 816"),
        None,
        (("num_classes", 100),),
        True,
    ),
}
