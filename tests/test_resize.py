"""What is left of a layer when channels go, tensor by tensor."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snnprune.errors import StructureError
from snnprune.graph.records import Member, NeuronGroup
from snnprune.layers import IndexedLinear
from snnprune.surgery import fold_, remove_, select_, select_slices_

KEEP = torch.tensor([0, 2, 3])


def numbered(layer: nn.Module) -> nn.Module:
    """Every weight is a number of its own."""
    at = 1.0
    for tensor in [*layer.parameters(), *(b for b in layer.buffers() if b.is_floating_point())]:
        tensor.data = torch.arange(at, at + tensor.numel()).reshape(tensor.shape)
        at += tensor.numel()
    return layer


def selected(layer: nn.Module, **options) -> nn.Module:
    model = nn.Sequential(layer)
    select_(model, "0", **options)
    return model[0]


@pytest.mark.parametrize(
    ("kind", "outputs", "inputs"),
    [(nn.Conv1d, 0, 1), (nn.Conv3d, 0, 1), (nn.ConvTranspose2d, 1, 0), (nn.Linear, 0, 1)],
)
def test_weight_and_bias_lose_the_same_outputs_and_the_weight_its_inputs(kind, outputs, inputs):
    options = {} if kind is nn.Linear else {"kernel_size": 2}
    layer = numbered(kind(4, 5, **options))
    weight, bias = layer.weight.clone(), layer.bias.clone()
    rows, columns = torch.tensor([4, 1]), torch.tensor([3, 0, 1])
    layer = selected(layer, outputs=rows, inputs=columns)
    assert torch.equal(layer.weight, weight.index_select(outputs, rows).index_select(inputs, columns))
    assert torch.equal(layer.bias, bias[rows])
    names = ("in_features", "out_features") if kind is nn.Linear else ("in_channels", "out_channels")
    assert [getattr(layer, name) for name in names] == [3, 2]


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("bias", [True, False])
def test_grouped_convolutions_lose_whole_groups_on_both_sides(kind, bias):
    """8 inputs and 12 outputs in 4 groups: group 1 goes, so inputs 2 and 3 and outputs 3 to 5."""
    layer = numbered(kind(8, 12, 3, groups=4, bias=bias)).double()
    x = torch.randn(2, 8, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = layer(x)
    outputs = torch.tensor([0, 1, 2, *range(6, 12)])
    layer = selected(layer, outputs=outputs)
    assert (layer.groups, layer.in_channels, layer.out_channels) == (3, 6, 9)
    torch.testing.assert_close(layer(x[:, [0, 1, 4, 5, 6, 7]]), before[:, outputs], rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("outputs", [[0, 1, 2, 3], [3, 4, 5, 6, 7, 8, 0, 1], [1, 0, 2]])
def test_parts_of_a_convolution_group_are_refused(outputs):
    with pytest.raises(StructureError, match="4 groups can only lose whole groups"):
        selected(nn.Conv2d(8, 12, 3, groups=4), outputs=torch.tensor(outputs))


def test_a_batch_norm_loses_its_statistics_and_its_count_stays():
    norm = numbered(nn.BatchNorm2d(4))
    norm.num_batches_tracked.fill_(7)
    tensors = {name: getattr(norm, name).clone() for name in ("weight", "bias", "running_mean", "running_var")}
    norm = selected(norm, outputs=KEEP)
    for name, tensor in tensors.items():
        assert torch.equal(getattr(norm, name), tensor[KEEP]), name
    assert norm.num_features == 3
    assert int(norm.num_batches_tracked) == 7
    assert set(norm._buffers) == {"running_mean", "running_var", "num_batches_tracked"}


def test_group_norms_lose_whole_groups():
    norm = selected(numbered(nn.GroupNorm(3, 6)), outputs=torch.tensor([0, 1, 4, 5]))
    assert (norm.num_groups, norm.num_channels) == (2, 4)
    assert norm.weight.tolist() == [1, 2, 5, 6]
    with pytest.raises(StructureError, match="group norm of 3 groups"):
        selected(nn.GroupNorm(3, 6), outputs=torch.tensor([0, 1, 2]))


def test_slopes_and_instance_norms_follow():
    assert selected(numbered(nn.PReLU(4)), outputs=KEEP).weight.tolist() == [1, 3, 4]
    assert selected(nn.PReLU(4), outputs=KEEP).num_parameters == 3
    assert selected(nn.InstanceNorm1d(4), outputs=KEEP).num_features == 3
    norm = numbered(nn.BatchNorm1d(4))
    assert torch.equal(selected(norm, inputs=KEEP).weight, norm.weight), "a norm has outputs alone"


def test_flags_memory_format_and_mode_survive_and_nothing_is_shared():
    layer = nn.Conv2d(4, 5, 3).to(memory_format=torch.channels_last)
    layer.weight.requires_grad_(False)
    old = layer.weight
    layer = selected(layer, outputs=KEEP)
    assert not layer.weight.requires_grad
    assert layer.bias.requires_grad
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        layer.weight.zero_()
    assert bool(old.any())
    assert selected(nn.Conv2d(4, 5, 3), outputs=KEEP).weight.is_contiguous()


def test_slices_of_parameters_and_buffers():
    model = nn.Module()
    model.part = nn.Module()
    model.part.table = nn.Parameter(torch.arange(12.0).reshape(3, 4), requires_grad=False)
    model.part.register_buffer("places", torch.arange(4), persistent=False)
    select_slices_(model, "part.table", 1, KEEP)
    select_slices_(model, "part.places", 0, KEEP)
    assert model.part.table.tolist() == [[0, 2, 3], [4, 6, 7], [8, 10, 11]]
    assert isinstance(model.part.table, nn.Parameter)
    assert not model.part.table.requires_grad
    assert model.part.places.tolist() == [0, 2, 3]
    assert "places" in model.part._non_persistent_buffers_set


def linear(**options) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 2, **options)).double().eval()


def inputs_of(model: nn.Module, candidates, scales) -> list[NeuronGroup]:
    columns = tuple(candidates)
    member = Member("0", "consumer", columns, tuple(range(len(columns))))
    return [NeuronGroup("0:in", "input", len(columns), (member,))]


@pytest.mark.parametrize("bias", [True, False])
def test_single_inputs_go_once_and_again(bias):
    """The index of the second time counts in features that arrive, not in columns that were left."""
    model, x = linear(bias=bias), torch.randn(3, 6, dtype=torch.float64)
    first = torch.tensor([0.0, 2, 1, 1, 0, 3]).double()
    weight = model[0].weight.detach().clone()
    groups = inputs_of(model, range(6), first)
    remove_(fold_(model, groups, {"0:in": first}), groups, {"0:in": first})
    layer = model[0]
    assert type(layer) is IndexedLinear
    assert (layer.index.tolist(), layer.in_features, layer.source_features) == ([1, 2, 3, 5], 4, 6)
    assert (layer.bias is not None) == bias
    assert layer.weight.dtype == torch.float64
    assert not layer.training
    second = torch.tensor([0.0, 1, 4, 0]).double()
    groups = inputs_of(model, [1, 2, 3, 5], second)
    remove_(fold_(model, groups, {"0:in": second}), groups, {"0:in": second})
    assert (model[0].index.tolist(), model[0].source_features) == ([2, 3], 6)
    expected = x @ (weight * torch.tensor([0, 0, 1, 4.0, 0, 0]).double()).t()
    torch.testing.assert_close(model(x), expected if not bias else expected + model[0].bias, rtol=0, atol=1e-12)


def test_channels_that_go_shift_the_index_and_a_full_one_falls_away():
    """Of six features 0 and 3 are not read; then 0, 1 and 5 do not arrive; then 3 does not either."""
    model = linear()
    weight = model[0].weight.detach().clone()
    single = torch.tensor([0.0, 1, 1, 0, 1, 1]).double()
    groups = inputs_of(model, range(6), single)
    remove_(model, groups, {"0:in": single})
    member = Member("0", "consumer", (0, 1, 2, 3, 4, 5), (0, 0, 1, 2, 3, 4))
    channels = [NeuronGroup("c", "channel", 5, (member,))]
    remove_(model, channels, {"c": torch.tensor([0.0, 1, 1, 1, 0]).double()})
    assert type(model[0]) is IndexedLinear
    assert (model[0].index.tolist(), model[0].source_features) == ([0, 2], 3)  # of 2, 3, 4
    assert torch.equal(model[0].weight, weight[:, [2, 4]])
    member = Member("0", "consumer", (0, 1, 2), (0, 1, 2))
    remove_(model, [NeuronGroup("c", "channel", 3, (member,))], {"c": torch.tensor([1.0, 0, 1]).double()})
    assert type(model[0]) is nn.Linear
    assert torch.equal(model[0].weight, weight[:, [2, 4]])
    assert (model[0].in_features, model[0].out_features) == (2, 2)


def test_outputs_alone_leave_an_index_as_it_is():
    layer = IndexedLinear(2, 3, source_features=5, index=torch.tensor([1, 4]))
    model = nn.Sequential(numbered(layer))
    member = Member("0", "producer", (0, 1, 2), (0, 1, 2))
    remove_(model, [NeuronGroup("0", "channel", 3, (member,))], {"0": torch.tensor([1.0, 0, 1])})
    assert (model[0].index.tolist(), model[0].source_features) == ([1, 4], 5)
    assert model[0].weight.tolist() == [[1, 2], [5, 6]]
    assert model[0].bias.tolist() == [7, 9]


def test_a_column_that_two_groups_scale_goes_when_either_is_off():
    model = linear()
    weight = model[0].weight.detach().clone()
    member = Member("0", "consumer", tuple(range(6)), tuple(range(6)))
    groups = [NeuronGroup(name, "channel", 6, (member,)) for name in ("c", "d")]
    scales = {"c": torch.tensor([0.0, 1, 1, 1, 1, 1]), "d": torch.tensor([1.0, 1, 0, 1, 0, 1])}
    remove_(model, groups, scales)
    assert torch.equal(model[0].weight, weight[:, [1, 3, 5]])


def test_a_slice_that_two_groups_hold_goes_when_either_is_off():
    model = nn.Module()
    model.table = nn.Parameter(torch.arange(8.0).reshape(2, 4))
    member = Member("table", "parameter", tuple(range(4)), tuple(range(4)), 1)
    groups = [NeuronGroup(name, "channel", 4, (member,)) for name in ("c", "d")]
    remove_(model, groups, {"c": torch.tensor([0.0, 1, 1, 1]), "d": torch.tensor([1.0, 1, 1, 0])})
    assert model.table.tolist() == [[1, 2], [5, 6]]
