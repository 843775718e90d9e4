"""Groups of channels from torch-pruning's dependency graph.

This is the only module that imports torch_pruning. What comes out are our own frozen records. The
graph is built on a copy of the model, in evaluation mode, with every parameter requiring gradients
(torch-pruning follows autograd, so a frozen layer would be invisible).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from .. import layers
from ..errors import UnsupportedModelError, first_line
from ..inputs import Inputs, call, tensors_in
from .records import Member, NeuronGroup, Role


class _Trace:
    """A dependency graph with the names of its modules and the nodes that reach an output."""

    def __init__(self, model: nn.Module, example_inputs: Inputs) -> None:
        import torch_pruning as tp

        self.tp: Any = tp
        self.model = model
        self.names = {module: name for name, module in model.named_modules()}
        outputs: list[Any] = []

        def keep_outputs(out: Any) -> Any:
            outputs.extend(t for t in tensors_in(out) if t.grad_fn is not None)
            return list(outputs)

        self.graph = tp.DependencyGraph()
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            try:
                self.graph.build_dependency(
                    model,
                    example_inputs,
                    forward_fn=lambda m, _: call(m, example_inputs),
                    output_transform=keep_outputs,
                    verbose=False,
                )
            except Exception as error:
                raise UnsupportedModelError(
                    "the dependency graph of this model cannot be built "
                    f"({type(error).__name__}: {first_line(error)})."
                ) from error
        roots = {o.grad_fn for o in outputs}
        self.output_nodes = {n for n in self.graph.module2node.values() if n.grad_fn in roots}
        self.pads = {n: p for n in self.graph.module2node.values() if (p := _channel_pad(n))}
        if self.pads:
            self._teach_pads()

    def _teach_pads(self) -> None:
        """Teach the graph that channel padding changes the width and shifts the indices.

        torch-pruning takes a pad for an element-wise operation, which silently couples the wrong
        channels (residual networks with option-A shortcuts) and misjudges widths downstream. Index
        maps made on that ground are dropped; the graph makes them anew at every query.
        """
        from torch_pruning.dependency.index_mapping import _ConcatIndexMapping

        self.graph.CUSTOMIZED_PRUNERS[_ChannelPad] = _ChannelPadPruner()
        for node in self.graph.module2node.values():
            for edge in node.dependencies:
                edge.index_mapping = [None, None]
        for node, (left, inner, right) in self.pads.items():
            node.module = _ChannelPad(inner, left + inner + right)
            offset = (left, left + inner)
            for source in node.inputs:
                for edge in node.dependencies:
                    if edge.target is source:
                        edge.index_mapping[0] = _ConcatIndexMapping(offset, reverse=True)
                for edge in source.dependencies:
                    if edge.target is node:
                        edge.index_mapping[0] = _ConcatIndexMapping(offset, reverse=False)

    def producers(self) -> list[nn.Module]:
        """Layers with output channels of their own, widest first.

        Widest first, so that the root of a group sees all of it: from the 16 channels of an early
        stage one does not reach the zero-padded channels of a later one.
        """
        found = [
            m
            for m in self.graph.module2node
            if isinstance(m, nn.Module)
            and m in self.names
            and (layers.is_conv(m) or isinstance(m, nn.Linear))
            and not layers.is_depthwise(m)
        ]
        return sorted(found, key=lambda m: -layers.out_width(m))

    def items(self, root: nn.Module, channels: list[int]) -> list[tuple[Any, list[int], list[int]]]:
        """(dependency, channel indices, root channels) of everything coupled to `channels`."""
        pruner: Any = self.graph.get_pruner_of_module(root)
        group = self.graph.get_pruning_group(root, pruner.prune_out_channels, channels)
        return [(item.dep, list(item.idxs), list(item.root_idxs)) for item in group]


class _ChannelPad(nn.Module):
    """Stands in the graph for a constant pad of the channel dimension."""

    def __init__(self, inner: int, width: int) -> None:
        super().__init__()
        self.inner, self.width = inner, width


class _ChannelPadPruner:
    """Tells torch-pruning's shape inference how wide a padded tensor is; it never prunes."""

    pruning_dim = 1

    def prune_out_channels(self, layer: _ChannelPad, _idxs: Any) -> _ChannelPad:
        return layer

    prune_in_channels = prune_out_channels

    def get_out_channels(self, layer: _ChannelPad) -> int:
        return layer.width

    def get_in_channels(self, layer: _ChannelPad) -> int:
        return layer.inner


def _channel_pad(node: Any) -> tuple[int, int, int] | None:
    """(left, inner, right) of a constant pad of the channel dimension of an NCHW tensor."""
    grad_fn = node.grad_fn
    if grad_fn is None or not hasattr(grad_fn, "name") or "ConstantPad" not in grad_fn.name():
        return None
    shape = tuple(grad_fn._input_metadata[0].shape)
    pad = tuple(grad_fn._saved_pad)
    at = 2 * (len(shape) - 2)  # pairs run from the last dimension backwards
    if len(shape) < 3 or len(pad) <= at or not (pad[at] or pad[at + 1]):
        return None
    left, right = pad[at], pad[at + 1]
    return left, shape[1] - left - right, right


def channel_groups(model: nn.Module, example_inputs: Inputs, order: Iterable[str]) -> list[NeuronGroup]:
    """Every group of coupled output channels, prunable or not, in the order of the forward pass.

    Args:
        model: the network; it is copied, nothing in it changes.
        example_inputs: what its forward takes.
        order: names of the layers in the order in which they run.

    Raises:
        UnsupportedModelError: the dependency graph cannot be built.
    """
    trace = _Trace(_traceable(model), example_inputs)
    rank = {name: i for i, name in enumerate(order)}
    covered: dict[nn.Module, set[int]] = {}
    groups: list[NeuronGroup] = []
    for root in trace.producers():
        free = [c for c in range(layers.out_width(root)) if c not in covered.get(root, set())]
        if free:
            groups.append(_group_of(trace, root, free, covered, rank))
    groups.sort(key=lambda g: rank.get(g.id, len(rank)))
    return groups


def _traceable(model: nn.Module) -> nn.Module:
    """A copy that torch-pruning can follow: gradients everywhere, index selections opened up."""
    clone = copy.deepcopy(model)
    for name, module in list(clone.named_modules()):
        if isinstance(module, layers.IndexedLinear):
            weight = module.weight
            plain = nn.Linear(
                module.source_features, module.out_features, device=weight.device, dtype=weight.dtype
            )
            parent, _, child = name.rpartition(".")
            setattr(clone.get_submodule(parent), child, plain)
    for parameter in clone.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)
    return clone


def _group_of(
    trace: _Trace,
    root: nn.Module,
    channels: list[int],
    covered: dict[nn.Module, set[int]],
    rank: dict[str, int],
) -> NeuronGroup:
    """The record of everything coupled to `channels` of `root`."""
    reason: str | None = None
    pinned: set[int] = set()
    found: dict[tuple[str, Role], dict[int, int]] = {}
    try:
        items = trace.items(root, channels)
    except Exception as error:  # whatever torch-pruning stumbles over
        covered.setdefault(root, set()).update(channels)
        why = f"its dependencies cannot be followed ({type(error).__name__}: {first_line(error)})"
        return NeuronGroup(trace.names[root], "channel", len(channels), (), why)
    for edge, idxs, roots in items:
        node = edge.target
        module = node.module
        if node in trace.pads:
            left, inner, _ = trace.pads[node]
            pinned.update(r for i, r in zip(idxs, roots, strict=True) if not left <= i < left + inner)
        if node in trace.output_nodes and trace.graph.is_out_channel_pruning_fn(edge.handler):
            reason = reason or "it is an output of the model"
        role, why = _role(trace, edge)
        if why:
            reason = reason or why
        if role is None:
            continue
        if role != "consumer":
            covered.setdefault(module, set()).update(idxs)
        columns = found.setdefault((trace.names[module], role), {})
        for index, neuron in zip(idxs, roots, strict=True):
            if columns.setdefault(index, neuron) != neuron:
                reason = reason or f"channel {index} of {trace.names[module]} is coupled to two neurons"
    kept = [c for c in channels if c not in pinned]
    note = ""
    if pinned:
        note = f"{len(pinned)} more channels are kept: the code pads them with zeros, by a constant width"
        if not kept:
            reason = reason or "its channels are padded with zeros, by a width that is a constant in the code"
            kept = channels
    number = {channel: i for i, channel in enumerate(kept)}
    members = []
    for (name, role), columns in found.items():
        pairs = sorted((c, number[r]) for c, r in columns.items() if r in number)
        if pairs:
            members.append(Member(name, role, tuple(c for c, _ in pairs), tuple(n for _, n in pairs)))
    members.sort(key=lambda m: rank.get(m.module, len(rank)))
    producers = [m.module for m in members if m.role == "producer"]
    consumers = [m for m in members if m.role == "consumer"]
    if reason is None and not consumers:
        reason = "no convolution or linear layer reads it"
    name = producers[0] if producers else trace.names[root]
    return NeuronGroup(name, "channel", len(kept), tuple(members), reason, note)


_NO_EXACT_RULE = {
    nn.LayerNorm: "layer norm reads across its channels",
    nn.GroupNorm: "group norm reads across its channels",
    nn.MultiheadAttention: "attention reads across its channels",
    nn.RNNBase: "a recurrent layer holds its channels",
    nn.Embedding: "an embedding holds its channels",
}


def _role(trace: _Trace, edge: Any) -> tuple[Role | None, str | None]:
    """(role of the layer, None) or (None, None) for a pass-through, or (role, why not prunable)."""
    module, ops = edge.target.module, trace.tp.ops
    if isinstance(module, nn.Parameter):
        return (
            None,
            f"the parameter {trace.graph._param_to_name.get(module, '')!r} outside a layer holds its channels",
        )
    name = trace.names.get(module)
    if name is None:  # an operation between layers
        unsafe = {
            ops.OPTYPE.OUTPUT: "it is an output of the model",
            ops.OPTYPE.SPLIT: "it is split by a constant in the code",
            ops.OPTYPE.UNBIND: "it is unbound",
            ops.OPTYPE.EXPAND: "it is expanded",
        }
        return None, unsafe.get(edge.target.type)
    for kind, why in _NO_EXACT_RULE.items():
        if isinstance(module, kind):
            return None, f"{why} ({name})"
    if layers.is_depthwise(module):
        return "between", None
    if layers.is_grouped(module):
        return None, f"grouped convolution ({name})"
    if layers.is_conv(module) or isinstance(module, nn.Linear):
        out = trace.graph.is_out_channel_pruning_fn(edge.handler)
        role: Role = "producer" if out else "consumer"
        plain = layers.is_conv(module) or layers.is_linear(module)
        return role, None if plain else f"{type(module).__name__} ({name}) is no plain layer"
    if isinstance(module, layers.PER_CHANNEL):
        if isinstance(module, nn.PReLU) and module.num_parameters == 1:
            return None, None
        return "between", None
    return None, f"no rule for {type(module).__name__} ({name})"
