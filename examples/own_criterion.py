"""A criterion of your own: its order in a run, and a contest with learned scales and a norm of torch-pruning's."""

import sys
from pathlib import Path

import torch
from torch import nn

import snnprune

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "models"))
from digits_cnn import digits_cnn


def own_l1(model: nn.Module, groups: list[snnprune.NeuronGroup]) -> dict[str, torch.Tensor]:
    """Per group (size,) L1 norms of the neurons' own weights over their mean; groups left out go last."""
    scores = {}
    for group in groups:
        total = torch.zeros(group.size)
        for part in group.producers:  # layers that make the group's channels; a residual stream has several
            norms = model.get_submodule(part.module).weight.detach().abs().flatten(1).sum(1)
            total.index_add_(0, torch.tensor(part.neurons), norms[list(part.channels)])
        if group.producers:
            scores[group.id] = total / total.mean()
    return scores


def main(data: str = "digits", epochs: float = 3, share: float = 0.2, seeds: int = 2) -> snnprune.Contest:
    train, val, test = snnprune.load_data(data)
    model = digits_cnn()
    model.load_state_dict(torch.load(Path(__file__).parent.parent / "models" / "digits_cnn.pt"))

    # One threshold for all groups meets the target; everything but the order is as in any other run.
    config = snnprune.PruneConfig(
        target={"macs": share}, epochs=epochs, search=snnprune.SearchOptions(scores=own_l1)
    )
    result = snnprune.optimize(model, train, val, config, test=test)
    print(result.report)

    config = snnprune.PruneConfig(target={"macs": share}, epochs=epochs)
    found = snnprune.contest(model, train, val, config, methods=["ours", own_l1, "l1"], seeds=seeds, test=test)
    print(found)
    return found


if __name__ == "__main__":
    main(*sys.argv[1:2])
