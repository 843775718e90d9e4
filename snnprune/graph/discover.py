"""Groups of channels: what the walk found, put into frozen records."""

from __future__ import annotations

import copy
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from .. import layers
from ..errors import UnsupportedModelError, first_line
from ..inputs import Inputs, batch_size
from ..layers import attention
from ..resting import still
from .follow import Followed, Following, follow
from .labels import Classes, compress, core, varying
from .ledger import Ledger
from .outputs import check_outputs
from .records import Member, NeuronGroup, Role
from .tied import unite_tied
from .unreached import follow_unreached
from .walk import Walk

logger = logging.getLogger(__name__)


def channel_groups(
    model: nn.Module, example_inputs: Inputs, outputs: Sequence[str] = ()
) -> tuple[list[NeuronGroup], dict[str, int]]:
    """Every group of coupled output channels, prunable or not, and the order in which layers run.

    The model runs once in evaluation mode and, where it can, once in training mode, so that auxiliary
    heads are seen.

    Args:
        model: the network; it is copied, nothing in it changes.
        example_inputs: what its forward takes.
        outputs: paths of the outputs that matter; none for all.

    Raises:
        UnsupportedModelError: the model does not run.
        ConfigError: a path names no output.
    """
    clone = copy.deepcopy(model).train().eval()  # without what was computed from parameters before
    attention.open_(clone.modules())
    attention.unnest_(clone)
    walk = Walk(clone, outputs)
    try:
        walk.run(example_inputs)
    except Exception as error:
        raise UnsupportedModelError(
            f"the model cannot be followed ({type(error).__name__}: {first_line(error)})."
        ) from error
    evaluated, trained = walk.returned, list[str]()
    with still(clone):
        try:
            walk.run(example_inputs)
            trained = walk.returned
        except Exception as error:  # a detector that wants its targets, ...
            logger.info("no pass in training mode (%s: %s)", type(error).__name__, first_line(error))
    check_outputs(outputs, evaluated, trained)
    follow_unreached(walk, example_inputs)
    unite_tied(walk.ledger)
    walk.ledger.close()
    settle(walk.ledger)
    builder = _Builder(walk.ledger, batch_size(example_inputs))
    return builder.groups(lambda group_of: follow(clone, walk.classes, walk.sizes, group_of)), walk.ledger.order


def settle(ledger: Ledger) -> None:
    """Unite labels until every view, split and parameter of the model still fits when classes go.

    A dimension that is taken apart as (groups, channels) can lose whole groups or the same channels of
    every group, but nothing else; where both are still possible the same channels go everywhere.
    """
    classes = ledger.classes
    pending: list[tuple[Tensor, str]] = []
    changed = True
    while changed:
        changed = sum(_settle_grid(classes, grid) for grid in ledger.constraints.grids) > 0
        if changed:
            continue
        pending.clear()
        unions: list[tuple[Tensor, Tensor]] = []
        for labels, raw, size, why in ledger.constraints.operands:
            now = compress(torch.from_numpy(classes.roots(core(labels))))
            inside = [d for d in varying(now) if size[d] > 1]
            if not inside:
                continue
            if len(inside) < len(varying(now)):  # a parameter shared between heads, say
                classes.along(now, inside, "a parameter is shared between its parts")
                changed = True
            elif raw is not None:
                unions.append((core(labels), core(raw)))
            else:
                pending.append((labels, why))
        if changed:
            continue
        for labels, raw in unions:
            a, b = np.broadcast_arrays(classes.roots(labels), classes.roots(raw))
            if (a != b).any():
                classes.unite(labels, raw)
                changed = True
    for labels, why in pending:
        classes.pin(labels, why)


def _settle_grid(classes: Classes, grid: Tensor) -> bool:
    now = compress(torch.from_numpy(classes.roots(grid)))
    dims = [d for d in varying(now) if d < grid.dim() - 1]
    if len(dims) < 2:
        return False
    classes.along(now, dims[:-1], "its channels are taken apart by the code")
    return True


@dataclass(eq=False)
class _Part:
    """One layer's, parameter's or module's share: labels as classes."""

    name: str
    role: Role
    roots: np.ndarray  # (channels,), 0 where no neuron owns the channel
    dim: int = 0
    place: str = ""
    width: int = 0


@dataclass(eq=False)
class _Group:
    """Producers whose classes overlap."""

    parts: list[_Part] = field(default_factory=list)
    classes: dict[int, int] = field(default_factory=dict)  # class -> number, in the order of the producers


class _Builder:
    def __init__(self, ledger: Ledger, batch: int) -> None:
        self.ledger, self.rank, self.batch = ledger, ledger.order, batch
        self.still: set[tuple[str, str]] = set()
        self.parts = [
            *self._layer_parts("producer", ledger.produced),
            *self._layer_parts("between", ledger.between),
        ]
        self.parts += self._layer_parts("consumer", ledger.consumed)
        known = {int(r) for part in self.parts for r in np.unique(part.roots)} | {0}
        self.parts += self._parameters(known)
        self.pins, self.merges = ledger.classes.reasons()
        self.ruled = [
            (set(np.unique(ledger.classes.roots(labels)).tolist()), rule) for labels, rule in ledger.ruled
        ]

    def _layer_parts(self, role: Role, table: dict[str, Tensor]) -> list[_Part]:
        found = [_Part(name, role, self.ledger.classes.roots(labels)) for name, labels in table.items()]
        return sorted(found, key=lambda part: self.rank.get(part.name, len(self.rank)))

    def _parameters(self, known: set[int]) -> list[_Part]:
        """Parameters outside layers of which whole slices belong to neurons; others keep theirs."""
        found = []
        for name, labels in self.ledger.raw.items():
            owner = name.rpartition(".")[0]
            module = self.ledger.model.get_submodule(owner)
            if layers.is_channelwise(module) and name.rpartition(".")[2] in layers.tensors(module, "outputs"):
                continue  # goes with its layer
            roots = np.ascontiguousarray(self.ledger.classes.roots(labels))
            if self.ledger.classes.is_raw(labels):
                roots = np.where(np.isin(roots, list(known)), roots, 0)
            if not roots.any():
                continue
            for dim in range(roots.ndim):
                lines = np.moveaxis(roots, dim, 0).reshape(roots.shape[dim], -1)
                top = lines.max(1)
                if ((lines == 0) | (lines == top[:, None])).all() and len(np.unique(top)) > 1:
                    found.append(_Part(name, "parameter", top, dim))
                    break
            else:
                self.ledger.classes.pin(
                    np.unique(roots), f"the parameter {name!r} outside a layer holds its channels"
                )
        return found

    def groups(self, follow: Callable[[dict[int, int]], Following]) -> list[NeuronGroup]:
        """Connected producers with everything that their classes reach.

        Args:
            follow: from class that may go -> its group to what becomes of the network's own numbers.
        """
        producers = [p for p in self.parts if p.role == "producer"]
        matrices = [p for p in self.parts if p.role == "parameter" and not self._raw(p.name)]
        of_class: dict[int, _Group] = {}
        found: list[_Group] = []
        for part in [*producers, *matrices]:
            own = [int(r) for r in dict.fromkeys(part.roots.tolist()) if r]
            touched = list({id(of_class[r]): of_class[r] for r in own if r in of_class}.values())
            group = touched[0] if touched else _Group()
            if not touched:
                found.append(group)
            for other in touched[1:]:
                found.remove(other)
                for root in other.classes:
                    group.classes.setdefault(root, len(group.classes))
                    of_class[root] = group
            for root in own:
                group.classes.setdefault(root, len(group.classes))
                of_class[root] = group
        for part in self.parts:
            for group in {id(of_class[r]): of_class[r] for r in part.roots.tolist() if r in of_class}.values():
                group.parts.append(part)
        found = [group for group in found if group.parts]
        group_of = {root: i for i, group in enumerate(found) for root in self._open(group)[0]}
        found_out = follow(group_of)
        for number in found_out.numbers:
            part = _number_part(number)
            for i in {group_of[r] for r in {*part.roots.tolist(), *number.anchors} if r in group_of}:
                found[i].parts.append(part)
        self.still = found_out.still
        refused, doubts = found_out.refused, found_out.doubts
        return [self._record(group, refused.get(i), doubts.get(i, "")) for i, group in enumerate(found)]

    def _open(self, group: _Group) -> tuple[list[int], str | None]:
        """Classes of a group that may go, or why none may."""
        open_ = [root for root in group.classes if root not in self.pins]
        kept = [root for root in group.classes if root in self.pins]
        if len(group.classes) == 1 and (root := next(iter(group.classes))) in self.merges:
            return [], self.merges[root]
        if not open_:
            return [], Counter(self.pins[r] for r in kept).most_common(1)[0][0]
        if len(group.classes) == 1:
            return [], "it has a single neuron"
        if not any(p.role == "consumer" and np.isin(p.roots, open_).any() for p in group.parts):
            return [], "no convolution or linear layer reads it"
        return open_, None

    def _raw(self, name: str) -> bool:
        return self.ledger.classes.is_raw(self.ledger.raw[name])

    def _record(self, group: _Group, refused: str | None, doubt: str) -> NeuronGroup:
        first = self._first(group)
        kept = [root for root in group.classes if root in self.pins]
        (open_, reason), note = self._open(group), ""
        reason = reason or refused
        rules = tuple(dict.fromkeys(rule for roots, rule in self.ruled if not roots.isdisjoint(group.classes)))
        if reason is not None:
            return NeuronGroup(first.name, "channel", len(first.roots), self._whole(group), reason, rules=rules)
        if kept:
            count = Counter(self.pins[r] for r in kept)
            note = f"{len(kept)} more channels are kept: {count.most_common(1)[0][0]}"
        number = {root: i for i, root in enumerate(open_)}
        members = tuple(m for part in group.parts if (m := _member(part, number)) is not None)
        heads, macs = self._products(number)
        members += tuple(Member(n, "heads", tuple(range(len(open_))), tuple(range(len(open_)))) for n in heads)
        return NeuronGroup(first.name, "channel", len(open_), members, None, note, macs, rules, doubt)

    def _first(self, group: _Group) -> _Part:
        """The layer that names a group, or the matrix where no layer makes its channels."""
        found = [p for role in ("producer", "parameter") for p in group.parts if p.role == role]
        return next(p for p in found if p.role == "producer" or not self._raw(p.name))

    def _whole(self, group: _Group) -> tuple[Member, ...]:
        """Members of a group that is kept: who holds its channels."""
        size = len(self._first(group).roots)
        found = []
        for part in group.parts:
            if part.role in ("producer", "between"):
                channels = np.flatnonzero(np.isin(part.roots, list(group.classes))).tolist()
                found.append(Member(part.name, part.role, tuple(channels), tuple(c % size for c in channels)))
        return tuple(found)

    def _products(self, number: dict[int, int]) -> tuple[list[str], float]:
        """Attention modules whose heads are these neurons, and multiply-adds per neuron for one input."""
        total, modules = 0.0, {}
        for count, labels, module in self.ledger.products:
            roots, counts = np.unique(self.ledger.classes.roots(labels), return_counts=True)
            mine = np.isin(roots, list(number))
            if not mine.any():
                continue
            total += count * counts[mine].sum() / counts.sum()
            heads = attention.head_count(self.ledger.model.get_submodule(module))
            if any((module, name) in self.still for name in attention.HEAD_COUNTS):
                continue  # the module counts something else by it, too; calls in its code ask for their sizes
            if heads == len(number) and mine.all() and int(mine.sum()) == heads:
                modules[module] = None
        return list(modules), float(total / max(1, len(number)) / self.batch)


def _number_part(number: Followed) -> _Part:
    """A number that follows, as classes of what it counts."""
    count = number.count
    roots = [0] * (count.fixed if count else 0) + [r for r, n in (count.parts if count else ()) for _ in range(n)]
    width = -1 if count is None else count.total
    return _Part(number.module, number.role, np.array(roots, dtype=np.int64), place=number.place, width=width)


def _member(part: _Part, number: dict[int, int]) -> Member | None:
    pairs = [(c, number[r]) for c, r in enumerate(part.roots.tolist()) if r in number]
    if not pairs and not part.place:
        return None
    channels, neurons = tuple(c for c, _ in pairs), tuple(n for _, n in pairs)
    return Member(part.name, part.role, channels, neurons, part.dim, part.place, part.width)
