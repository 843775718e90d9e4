"""Your own training loop: attach gates, learn switcher and network in turn, compact."""

import copy
import sys
from pathlib import Path

import torch
from torch.nn import functional as F

import snnprune

MODELS = Path(__file__).resolve().parent.parent / "models"
sys.path.insert(0, str(MODELS))
from digits_cnn import digits_cnn  # noqa: E402


def main(data: str = "digits", epochs: int = 6, out: str = "runs/own-loop", seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)  # of whatever the network draws, such as dropout
    train, val, _ = snnprune.load_data(data, batch_size=64, seed=seed)
    images, _ = next(iter(train))
    dense = digits_cnn()
    dense.load_state_dict(torch.load(MODELS / "digits_cnn.pt"))
    model = copy.deepcopy(dense).train()  # it learns; `dense` stays to compare with

    with snnprune.attach(model, example_inputs=images[:2], seed=seed) as gated:
        networks = torch.optim.SGD(gated.network_parameters(), lr=0.01, momentum=0.9)
        switchers = torch.optim.AdamW(gated.scorer_parameters(), lr=1e-3)
        for epoch in range(epochs):
            gated.set_budget({"params": 0.4}, progress=(epoch + 1) / epochs)  # moves the threshold
            switching = epoch % 2 == 0
            gated.set_phase("switcher" if switching else "network")
            optimizer = switchers if switching else networks
            for images, labels in train:
                loss = F.cross_entropy(gated(images), labels)  # the task's loss alone
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        small = gated.compact()  # computes what gated(x) computes

    # `model` is plain again here; `small` is an ordinary smaller DigitsCNN to train on or to export
    print(snnprune.compare(dense, small, val, example_inputs=images))
    snnprune.save(small, out)
    snnprune.export_onnx(small, Path(out) / "model.onnx", example_inputs=images[:8])
    return small


if __name__ == "__main__":
    main(*sys.argv[1:2])
