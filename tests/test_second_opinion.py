"""Our groups against torch-pruning's dependency graph, on networks that it gets right."""

from __future__ import annotations

import random

import pytest
import torch
import torchvision
from conftest import make_network

from snnprune import layers
from snnprune.graph import find_groups


def theirs(graph, model, root: str, channel: int) -> set[tuple[str, str, int]]:
    """(layer, side, channel) of everything that torch-pruning couples to one channel of a layer."""
    names = {module: name for name, module in model.named_modules()}
    module = model.get_submodule(root)
    group = graph.get_pruning_group(module, graph.get_pruner_of_module(module).prune_out_channels, [channel])
    found = set()
    for item in group:
        name = names.get(item.dep.target.module)
        if name is None:
            continue
        target = item.dep.target.module
        side = "out" if graph.is_out_channel_pruning_fn(item.dep.handler) else "in"
        if layers.is_grouped(target) or layers.is_channelwise(target):
            side = "out"
        elif not (layers.is_conv(target) or isinstance(target, torch.nn.Linear)):
            continue
        found |= {(name, side, int(i)) for i in item.idxs}
    return found


@pytest.mark.parametrize(
    "name",
    ["vgg11_bn", "resnet18", "densenet121", "mobilenet_v2", "mobilenet_v3_small", "squeezenet1_1", "googlenet",
     "efficientnet_b0", "mnasnet0_5", "lenet5_caffe", "vgg_cov2", "resnet34", "mobilenet_v1"],
)  # fmt: skip
def test_the_same_channels_are_coupled(name):
    import torch_pruning

    if name in torchvision.models.list_models():
        options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
        model, x = torchvision.models.get_model(name, weights=None, **options).eval(), torch.randn(1, 3, 64, 64)
    else:
        _, model, x = make_network(name)
    groups = [g for g in find_groups(model, x, input_neurons=False) if g.prunable]
    graph = torch_pruning.DependencyGraph().build_dependency(model, x, verbose=False)
    draw = random.Random(0)
    for group in draw.sample(groups, min(8, len(groups))):
        for neuron in draw.sample(range(group.size), min(3, group.size)):
            ours = {
                (m.module, "in" if m.role == "consumer" else "out", c)
                for m in group.members
                for c, n in zip(m.channels, m.neurons, strict=True)
                if n == neuron
            }
            root = group.producers[0]
            channel = root.channels[root.neurons.index(neuron)]
            assert ours == theirs(graph, model, root.module, channel), (group.id, neuron)
