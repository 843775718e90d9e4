"""The guide's callback for Lightning, by a trainer of a few lines that calls its hooks as Lightning does."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import torch
from conftest import ROOT
from digits_cnn import digits_cnn
from pages import blocks
from torch import nn
from torch.nn import functional as F

import snnprune


class Module(nn.Module):
    """What a `LightningModule` is here: its network, and a step."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.model = digits_cnn()
        self.model.load_state_dict(torch.load(ROOT / "models" / "digits_cnn.pt"))

    def training_step(self, batch):
        return F.cross_entropy(self.model(batch[0]), batch[1])


def fit(module, callback, train, epochs) -> list[int]:
    """Epochs of training: Lightning's order of hooks, and like it no look at the mode of what comes in."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)
    trainer = SimpleNamespace(optimizers=[optimizer], num_training_batches=len(train), current_epoch=0)
    module.train()
    callback.on_train_start(trainer, module)
    widths = []
    for trainer.current_epoch in range(epochs):
        for index, batch in enumerate(train):
            loss = module.training_step(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            callback.on_train_batch_end(trainer, module, loss, batch, index)
        callback.on_train_epoch_end(trainer, module)
        widths.append(sum(p.numel() for p in module.model.parameters()))
        assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in module.parameters()}
        assert all(m.training for m in module.modules())
    return widths


def test_the_callback_cuts_and_the_rest_learns_on(monkeypatch):
    page = (ROOT / "docs" / "own-loop.md").read_text()
    code = next(body for kind, body in blocks(page) if kind == "file:prune_callback.py")
    stand_in = ModuleType("lightning")
    stand_in.Callback = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lightning", stand_in)
    space: dict = {}
    exec(compile(code, "own-loop.md", "exec"), space)
    torch.manual_seed(0)
    train, _, test = snnprune.load_data("digits", batch_size=64)
    module, images = Module(), next(iter(train))[0]
    before = snnprune.evaluate(module.model, test).accuracy
    widths = fit(module, space["Prune"](images[:2], {"params": 0.4}, epochs=2), train, 4)
    assert widths[0] > widths[1] == widths[2] == widths[3]
    assert widths[1] <= 0.4 * widths[0]
    assert snnprune.evaluate(module.model.eval(), test).accuracy > before - 0.05
