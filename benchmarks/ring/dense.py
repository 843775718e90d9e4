"""Dense networks of our own on CIFAR-10 in its original pixels: trained once, on what leaves images for testing.

5,000 training images for testing and 2,500 for validation are held out before anything is trained, the same ones
always, as many of each class. The network's file says which, and of what data, so that no row learns from them.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import torch
from common import say
from torch import Tensor, nn

import snnprune
from snnprune.data import ArrayLoader, DataInfo
from snnprune.data.sources import arrays
from snnprune.files import write_atomically
from snnprune.learner import Checkpoint, Event, PruneConfig, TaskLoss, recover

HELD, VALIDATION = 5_000, 2_500
LEARNED = 50_000 - HELD - VALIDATION
SPLIT_SEED = 19


def place(cache: str | Path, name: str) -> Path:
    """File of a dense network."""
    return Path(cache) / f"{name}-dense.pt"


def split(labels: Tensor, held: int = HELD, validation: int = VALIDATION) -> dict[str, Tensor]:
    """Places of the images of each part, as many of each class; the same ones at every call.

    Args:
        labels: (n,) of all training images.
        held: for testing.
        validation: for the choice of knobs.

    Returns:
        `test`, `val` and `train`: (n,) places in ascending order.
    """
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    classes = labels.unique().tolist()
    parts: dict[str, list[Tensor]] = {"test": [], "val": [], "train": []}
    for one in classes:
        own = (labels == one).nonzero().flatten()
        own = own[torch.randperm(len(own), generator=generator)]
        sizes = [held // len(classes), validation // len(classes)]
        for part, places in zip(parts, own.split([*sizes, len(own) - sum(sizes)]), strict=True):
            parts[part].append(places)
    return {part: torch.cat(places).sort().values for part, places in parts.items()}


def images_of(path: str | Path) -> tuple[Tensor, Tensor, DataInfo]:
    """Training images (n, 3, 32, 32) uint8 of an `.npz`, their labels, and how they are normalised."""
    raw = arrays(Path(path))
    info = DataInfo(Path(path).name, raw.train[0].shape, raw.classes, raw.mean, raw.std, "arrays")
    return raw.train[0].all(), raw.train[1], info


def digest(images: Tensor, labels: Tensor) -> str:
    """Tells data from other data, or from the same in another order."""
    found = hashlib.sha256(labels.numpy().tobytes())
    found.update(images.numpy().tobytes())
    return found.hexdigest()[:16]


def loaders(
    path: str | Path, held: dict[str, Tensor], *, batch_size: int, seed: int
) -> tuple[ArrayLoader, ArrayLoader, ArrayLoader]:
    """(train, val, test) of the parts that a network's file names."""
    images, labels, info = images_of(path)

    def part(name: str, **more: Any) -> ArrayLoader:
        return ArrayLoader(images[held[name]], labels[held[name]], info, batch_size=batch_size, seed=seed, **more)

    return part("train", shuffle=True, augment=True, drop_last=True), part("val"), part("test")


def load_(network: nn.Module, path: Path, images: str | Path) -> dict[str, Tensor]:
    """Weights of a dense network put into it, in place; returns the parts of the data.

    Raises:
        SystemExit: there is no such file, or it was trained on other data.
    """
    if not path.exists():
        name = path.name.removesuffix("-dense.pt")
        raise SystemExit(f"{path} is not there: python benchmarks/ring dense {name} --images {images}")
    found = torch.load(path, weights_only=True)
    pixels, labels, _ = images_of(images)
    if digest(pixels, labels) != found["about"]["digest"]:
        raise SystemExit(f"{path} was trained on other images than {images}: what it held out is not known there.")
    network.load_state_dict(found["state"])
    return found["held"]


def train(
    name: str, task: Any, options: Any, *, epochs: int, held: int = HELD, validation: int = VALIDATION
) -> Path:
    """Train the dense network of a task and write its file; one that is there already stays.

    Ctrl-C leaves a checkpoint beside it, from which the same command goes on.

    Args:
        name: of the task.
        task: what makes the network, the batch and the learning rate.
        options: `images`, `cache` and `device`.
        epochs: passes over the part that is learned from.
        held: images for testing.
        validation: images for the choice of knobs.
    """
    path = place(options.cache, name)
    if path.exists():
        say(path, "is there already")
        return path
    images, labels, _ = images_of(options.images)
    parts = split(labels, held, validation)
    learned, val, test = loaders(options.images, parts, batch_size=task.batch, seed=0)
    torch.manual_seed(0)
    network, on = task.make().to(options.device), torch.device(options.device)
    config = PruneConfig(lr=task.dense_lr, distill=0.0, **task.common)
    about = {"epochs": epochs, "seed": 0, "digest": digest(images, labels)}
    store = Checkpoint(path.with_name(f"{name}-dense"), {"task": name, **about})
    loss = TaskLoss(None, distill=0.0, temperature=1.0)
    steps = epochs * len(learned)
    recover(
        network, learned.on(on), loss, config, total=steps, val=val.on(on), callbacks=[_tell], checkpoint=store,
        resume=store.load(),
    )  # fmt: skip
    accuracy = {part: snnprune.evaluate(network, data).accuracy for part, data in (("val", val), ("test", test))}
    state = {key: value.cpu().contiguous() for key, value in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"state": state, "held": parts, "about": about | accuracy}
    write_atomically(path, lambda p: torch.save(content, p))
    shutil.rmtree(store.path.parent, ignore_errors=True)
    say(path, content["about"])
    return path


def _tell(event: Event) -> None:
    if event.values and "val_accuracy" in event.values:
        say(f"step {event.step} of {event.total}:", f"validation {event.values['val_accuracy']:.2%}")
