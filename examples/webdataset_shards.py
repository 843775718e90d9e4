"""Photos in WebDataset's tar shards: read in a stream, shuffled so that a stopped run goes on to the bit.

`snnprune optimize net.pt --arch mine.py:net --data webdataset_shards.py:loaders` takes the shards of the folders
below. Started as a script, this file packs some digits, and prunes a small network on them.
"""

import io
import random
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn
from torchvision.transforms import v2

import snnprune

try:
    import webdataset as wds
except ImportError:
    wds = None

FOLDERS = {"train": "shards/train", "val": "shards/val", "test": "shards/test"}
COUNTS = {"train": 1_281_167, "val": 25_000, "test": 25_000}  # a stream does not tell how long it is
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def stream(folder: str | Path, count: int, *, size: int, batch_size: int, training: bool, workers: int = 2):
    """Batches of (images, labels) from all `*.tar` in a folder, whose samples are `<key>.jpg` and `<key>.cls`."""
    crop = [v2.RandomResizedCrop(size, scale=(0.25, 1.0)), v2.RandomHorizontalFlip()]
    whole = [v2.Resize(round(size / 0.875)), v2.CenterCrop(size)]
    to_numbers = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    transform = v2.Compose([*(crop if training else whole), *to_numbers])
    shards = [path.as_posix() for path in sorted(Path(folder).glob("*.tar"))]
    rng = random.Random(0)  # snnprune finds it, and sets it at the beginning of every epoch
    shuffle = [wds.shuffle(len(shards), initial=len(shards), rng=rng)] if training else []
    mixed = [wds.shuffle(1000, rng=rng)] if training else []  # of so many samples of a worker
    data = wds.DataPipeline(
        wds.SimpleShardList(shards),
        *shuffle,
        wds.split_by_worker,
        wds.tarfile_to_samples(),
        *mixed,
        wds.decode("pilrgb"),
        wds.to_tuple("jpg;jpeg;png;webp", "cls"),
        wds.map_tuple(transform, lambda label: label),
        wds.batched(16),
    )
    workers = min(workers, len(shards))
    loader = wds.WebLoader(data, batch_size=None, num_workers=workers)
    # Every worker ends with a smaller batch: they are taken apart and put together anew.
    loader = loader.unbatched().batched(batch_size, partial=not training)
    steps = count // batch_size if training else -(-count // batch_size)
    return loader.with_length(steps, silent=True)


def loaders(folders=FOLDERS, counts=COUNTS, *, size: int = 224, batch_size: int = 64):
    """Training, validation and test loaders, as `--data` takes them."""
    return tuple(
        stream(folders[part], counts[part], size=size, batch_size=batch_size, training=part == "train")
        for part in ("train", "val", "test")
    )


def pack(folder: Path, images, labels, shard: int = 100) -> int:
    """Write shards; images are PIL's."""
    folder.mkdir(parents=True)
    with wds.ShardWriter((folder / "%05d.tar").as_posix(), maxcount=shard, verbose=0) as writer:
        for key, (image, label) in enumerate(zip(images, labels, strict=True)):
            file = io.BytesIO()
            image.save(file, "PNG")
            writer.write({"__key__": f"{key:06d}", "png": file.getvalue(), "cls": int(label)})
    return len(labels)


def train_dense(model: nn.Module, train, epochs: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for _ in range(epochs):
        for images, labels in train:
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def main(epochs: float = 4, out: str = "runs/shards"):
    if wds is None:
        print("webdataset is not installed: pip install webdataset")
        return None
    torch.manual_seed(0)
    digits = snnprune.load_data("digits")
    with tempfile.TemporaryDirectory() as place:
        folders = {part: Path(place) / part for part in FOLDERS}
        counts = {
            part: pack(
                folders[part], map(v2.ToPILImage(), getattr(digits, part).images), getattr(digits, part).labels
            )
            for part in FOLDERS
        }
        train, val, test = loaders(folders, counts, size=16, batch_size=64)
        model = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(64, 10),
        )  # fmt: skip
        train_dense(model, train, round(2 * epochs))
        config = snnprune.PruneConfig(target={"macs": 0.5}, epochs=epochs)
        result = snnprune.optimize(model, train, val, config, test=test, data_name="shards")
    print(result.report)
    result.save(out)
    return result


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]))
