"""What a loader gives is told apart from what others give, and whether it can give it again."""

from __future__ import annotations

import json

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from snnprune.pipeline.contents import contents, why_not_again


class Files(Dataset):
    """Names and labels, as of a folder of images; what they hold comes from elsewhere."""

    def __init__(self, folder: str, shift: float = 0.0, last: int = 2, count: int = 9) -> None:
        self.samples = [(f"{folder}/{i}.png", i % 3) for i in range(count - 1)] + [(f"{folder}/z.png", last)]
        self.shift, self.opened = shift, 0

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index):
        self.opened += 1
        generator = torch.Generator().manual_seed(index)
        return torch.rand(1, 4, 4, generator=generator) + self.shift, self.samples[index][1]


def test_loaders_of_all_kinds_are_told_apart():
    x, y = torch.rand(70, 1, 4, 4), torch.arange(70) % 3
    late = x.clone()
    late[69, 0, 0, 0] += 1
    numpy = [(np.asarray(a), int(b)) for a, b in zip(x, y, strict=True)]
    makers = [
        lambda: DataLoader(TensorDataset(x, y), batch_size=8),
        lambda: DataLoader(TensorDataset(late, y), batch_size=8),
        lambda: DataLoader(TensorDataset(x, y), batch_size=16),
        lambda: DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True),
        lambda: DataLoader(torch.utils.data.Subset(TensorDataset(x, y), range(69)), batch_size=8),
        lambda: DataLoader(torch.utils.data.Subset(TensorDataset(x, y), list(range(69, -1, -1))), batch_size=8),
        lambda: [(x[:8], y[:8])],
        lambda: [(late[60:68], y[:8])],
        lambda: DataLoader(numpy, batch_size=8),  # type: ignore[arg-type]
        lambda: DataLoader(numpy[:69], batch_size=8),  # type: ignore[arg-type]
        lambda: DataLoader(Files("a"), batch_size=3),
        lambda: DataLoader(Files("a", shift=0.5), batch_size=3),
        lambda: DataLoader(Files("a", last=1), batch_size=3),
        lambda: DataLoader(Files("a", count=10), batch_size=3),
    ]
    found = [json.dumps(contents(make())) for make in makers]
    assert len(set(found)) == len(makers)
    assert found == [json.dumps(contents(make())) for make in makers]
    assert all(why_not_again(make()) is None for make in makers)


def test_what_changes_by_itself_does_not_set_runs_apart():
    """The folder of the files may have moved, and a data set may count what it gives."""
    data = Files("a")
    first = contents(DataLoader(data, batch_size=3))
    for index in range(5):
        _ = data[index]
    assert contents(DataLoader(data, batch_size=3)) == first
    assert contents(DataLoader(Files("/elsewhere/b"), batch_size=3)) == first


class Unseeded(TensorDataset):
    """Draws from nowhere that could be set."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + np.random.default_rng().random(), y


def test_loaders_that_cannot_draw_an_epoch_again_are_known():
    data = TensorDataset(torch.rand(8, 1), torch.arange(8))
    assert why_not_again(DataLoader(data, shuffle=True, generator=torch.Generator())) is None
    assert "other samples" in str(why_not_again(DataLoader(Unseeded(*data.tensors))))
    workers = DataLoader(data, num_workers=1, persistent_workers=True)
    assert "persistent_workers" in str(why_not_again(workers))
    drawn = contents(DataLoader(Unseeded(*data.tensors)))
    assert "samples" not in drawn, "else no such run could ever go on"
