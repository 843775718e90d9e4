"""A Hugging Face data set on disk: images are decoded and cropped when they are asked for.

`snnprune optimize net.pt --arch mine.py:net --data hugging_face_data.py:loaders` takes what `save_to_disk` wrote
into the folder below. Started as a script, this file writes some digits there, and prunes a small network on them.
"""

import sys
import tempfile

import torch
from torch import nn
from torch.utils.data import DataLoader, default_collate
from torchvision.transforms import v2

import snnprune

try:
    import datasets
except ImportError:
    datasets = None

FOLDER = (
    "photos"  # `datasets.load_dataset("imagefolder", data_dir=..)` or any other, then `.save_to_disk("photos")`
)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def loader(part, *, size: int, batch_size: int, training: bool, workers: int = 2):
    """Batches of (images, labels) of one part, which has the columns `image` and `label`."""
    crop = [v2.RandomResizedCrop(size, scale=(0.25, 1.0)), v2.RandomHorizontalFlip()]
    whole = [v2.Resize(round(size / 0.875)), v2.CenterCrop(size)]
    to_numbers = [v2.RGB(), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    transform = v2.Compose([*(crop if training else whole), *to_numbers])

    def prepared(batch):
        return {"image": [transform(image) for image in batch["image"]], "label": batch["label"]}

    def as_pair(rows):
        batch = default_collate(rows)
        return batch["image"], batch["label"]

    return DataLoader(
        part.with_transform(prepared),
        batch_size,
        shuffle=training,
        drop_last=training,
        num_workers=workers,
        collate_fn=as_pair,
    )


def loaders(folder: str = FOLDER, *, size: int = 224, batch_size: int = 64):
    """Training, validation and test loaders, as `--data` takes them; a tenth is held out if no part is for it."""
    data = datasets.load_from_disk(folder)
    if "validation" not in data:
        parts = data["train"].train_test_split(0.1, seed=0, stratify_by_column="label")
        data["train"], data["validation"] = parts["train"], parts["test"]
    return tuple(
        loader(data[part], size=size, batch_size=batch_size, training=part == "train")
        for part in ("train", "validation", "test")
    )


def train_dense(model: nn.Module, train, epochs: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for _ in range(epochs):
        for images, labels in train:
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def main(epochs: float = 4, out: str = "runs/hugging-face"):
    if datasets is None:
        print("datasets is not installed: pip install datasets")
        return None
    torch.manual_seed(0)
    digits = snnprune.load_data("digits")
    columns = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(10)})
    parts = {}
    for name in ("train", "test"):
        own = getattr(digits, name)
        images = [v2.ToPILImage()(image) for image in own.images]
        parts[name] = datasets.Dataset.from_dict({"image": images, "label": own.labels.tolist()}, columns)
    with tempfile.TemporaryDirectory() as place:
        datasets.DatasetDict(parts).save_to_disk(place)
        train, val, test = loaders(place, size=16, batch_size=64)
        model = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(64, 10),
        )  # fmt: skip
        train_dense(model, train, round(2 * epochs))
        config = snnprune.PruneConfig(target={"macs": 0.5}, epochs=epochs)
        result = snnprune.optimize(model, train, val, config, test=test, data_name="digits on disk")
    print(result.report)
    result.save(out)
    return result


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]))
