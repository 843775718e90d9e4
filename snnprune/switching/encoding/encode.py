"""From weights to the switcher's input: the pass itself, and its gradient written by hand.

Written by hand because the features are linear in the weights: the gradient needs the weights and nothing besides,
where autograd would keep and copy a tensor per step on the way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .tensors import Part

if TYPE_CHECKING:
    from .rows import Place, StackedRows

_ZERO = 1e-30


class Encode(torch.autograd.Function):
    """(matrix, statistics, places) of `StackedRows`, differentiable in the kernels and in the stacks."""

    @staticmethod
    def forward(
        ctx: Any, rows: StackedRows, model: nn.Module, kernels: Tensor, *stacked: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Order columns and neurons by their norms, then take all features."""
        weights = read(rows, model, stacked)
        norms = norms_of(rows, weights, kernels)
        order = rows.columns.order(norms)
        matrix = rows.columns.matrix(kernels, order)
        energy = rows.sums.table(kernels)
        mine = energy[: rows.sums.rows]
        torch.square(norms.index_select(0, rows.slots), out=mine)
        # Features and energies are relative to the (constant) root mean square of the whole tensor. Without that
        # the switcher sees values around 0.03, answers with its bias, and gives a layer's neurons all one scale.
        square = energy.index_select(0, rows.members).view(len(rows.parts_of), -1).sum(1) * rows.inverse_sizes
        inverse = torch.where(square > _ZERO, square, 1.0).rsqrt_().index_select(0, rows.source)
        of_features, of_energy = inverse * rows.feature_weight, inverse.square() * rows.energy_weight
        mine.mul_(of_energy)
        picked = rows.sums.complete_(energy).index_select(0, rows.sums.pick)
        statistics, slope, strength = rows.statistics(picked.view(-1, 2))
        places, neurons = rows.place(strength)

        features = rows.sums.table(kernels, matrix.shape[1])
        for place, weight in zip(rows.layout, weights, strict=True):
            for turned, side in place.sides.items():
                if place.by_norms:
                    features[side.rows].zero_()
                    continue
                columns = matrix[side.columns].view(place.members, -1, matrix.shape[1])
                out = features[side.rows].view(place.members, -1, matrix.shape[1])
                torch.bmm(as_rows(weight, turned), columns, out=out)
        features[: rows.sums.rows].mul_(of_features[:, None])
        rows.sums.complete_(features)
        picked = rows.pick_by_neuron.index_select(0, neurons).view(-1)
        sheets = features.index_select(0, picked).view(len(neurons), 2, rows.width, rows.channels)
        ended = torch.cat([statistics, statistics.new_zeros(1, statistics.shape[1])]).index_select(0, neurons)
        wide = ended.t()[:, :, None].expand(-1, -1, rows.width)
        one, other = (sheets[:, side].permute(2, 0, 1) for side in (0, 1))
        result = torch.cat([one, other, wide])[None]

        own = [w for w, p in zip(weights, rows.parts, strict=True) if p.index is not None]  # cheap to keep
        ctx.save_for_backward(order, matrix, of_features, of_energy, slope, places, *own, *stacked)
        ctx.rows, ctx.model, ctx.tables = rows, model, len(own)
        ctx.mark_non_differentiable(places)
        return result, statistics, places

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, of_result: Tensor, of_statistics: Tensor, _places: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """From the matrix and the statistics back to the kernels and the stacks."""
        order, matrix, of_features, of_energy, slope, places, *rest = ctx.saved_tensors
        rows: StackedRows = ctx.rows
        tables, stacked = rest[: ctx.tables], rest[ctx.tables :]
        learns = any(ctx.needs_input_grad[3:])
        sides = 2 * rows.channels
        of_statistics = of_statistics + of_result[0, sides:].sum(2).index_select(1, places).t()
        factor = rows.statistics.gradient(of_statistics, slope).view(-1).index_select(0, rows.neuron_side)
        factor.mul_(of_energy).mul_(2)
        slots = torch.add(rows.side, places.index_select(0, rows.neuron), alpha=2)
        sheets = of_result[0, :sides].view(2, rows.channels, -1, rows.width).permute(2, 0, 3, 1)
        of_rows = sheets.reshape(-1, matrix.shape[1]).index_select(0, slots).mul_(of_features[:, None])

        of_matrix = torch.empty_like(matrix) if ctx.needs_input_grad[2] else None
        found = Gradients(rows, stacked) if learns else None
        for number, place in enumerate(rows.layout):
            weight, leaf = again(rows.parts[number], ctx.model, tables, stacked, number)
            for turned, side in place.sides.items():
                some = of_rows[side.rows].view(place.members, -1, matrix.shape[1])
                if of_matrix is not None and not place.by_norms:
                    out = of_matrix[side.columns].view(place.members, -1, matrix.shape[1])
                    torch.bmm(as_rows(weight, turned).transpose(1, 2), some, out=out)
            if found is not None:
                found.add(number, place, weight, leaf, of_rows, factor, matrix)
        of_kernels = None if of_matrix is None else rows.columns.gradient(of_matrix, order)
        of_stacks = found.finish() if found is not None else [None] * len(stacked)
        return None, None, of_kernels, *of_stacks


def read(rows: StackedRows, model: nn.Module, stacked: tuple[Tensor, ...]) -> list[Tensor]:
    """The weights of every part, (members, rows, units, unit); stacks are not copied."""
    flat = None
    if rows.flat:
        flat = torch.cat([*(stacked[s].float().reshape(-1) for s in rows.flat), rows.nothing])
    found = []
    for part in rows.parts:
        if part.index is not None:
            assert flat is not None
            found.append(flat.index_select(0, getattr(rows, part.name)).view(part.shape))
        elif part.source is not None:
            assert part.stack is not None
            weight = stacked[part.stack][part.member]
            found.append(part.source.cut(weight, model).float().reshape(part.shape))
        else:
            assert part.stack is not None
            found.append(stacked[part.stack].float().reshape(part.shape))
    return found


def again(
    part: Part, model: nn.Module, tables: list[Tensor], stacked: list[Tensor], number: int
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """A part's weights in the backward pass; where they are copied out, also (weight, copy) of that copying."""
    if part.index is not None:
        return tables[number], None
    assert part.stack is not None
    if part.source is None:
        return stacked[part.stack].float().reshape(part.shape), None
    with torch.enable_grad():
        leaf = stacked[part.stack][part.member].detach().requires_grad_()
        cut = part.source.cut(leaf, model)
    return cut.detach().float().reshape(part.shape), (leaf, cut)


def norms_of(rows: StackedRows, weights: list[Tensor], like: Tensor) -> Tensor:
    """Norms of all rows and of all units of every part."""
    norms = like.new_empty(rows.norms)
    for place, weight in zip(rows.layout, weights, strict=True):
        members, count, units, unit = weight.shape
        flat = weight.reshape(members, count, -1)
        torch.linalg.vector_norm(flat, dim=2, out=norms[place.row_norms].view(members, count))
        if place.by_norms:
            continue  # nothing is sorted
        out = norms[place.unit_norms].view(members, units)
        if unit == 1:
            torch.linalg.vector_norm(flat, dim=1, out=out)
        else:
            torch.linalg.vector_norm(weight, dim=(1, 3), out=out)
    return norms


def as_rows(weight: Tensor, turned: bool) -> Tensor:
    """(members, neurons, weights per neuron); turned and with kernels it is a copy."""
    members, _, units, unit = weight.shape
    if not turned:
        return weight.reshape(members, -1, units * unit)
    if unit == 1:
        return weight.squeeze(3).transpose(1, 2)
    return weight.transpose(1, 2).reshape(members, units, -1)


class Gradients:
    """Gradients of the stacks, collected part by part."""

    def __init__(self, rows: StackedRows, stacked: list[Tensor]) -> None:
        self.rows, self.stacked = rows, stacked
        self.found: list[Tensor | None] = [None] * len(stacked)
        self.gathered = rows.nothing.new_empty(rows.gathered + 1)

    def add(
        self,
        number: int,
        place: Place,
        weight: Tensor,
        leaf: tuple[Tensor, Tensor] | None,
        of_rows: Tensor,
        factor: Tensor,
        matrix: Tensor,
    ) -> None:
        """The gradient of one part's weights: of their features, and of the norms of their rows."""
        part, members, channels = self.rows.parts[number], place.members, matrix.shape[1]
        _, count, units, unit = weight.shape
        out = None
        if part.index is not None:
            out = self.gathered[place.gathered].view(weight.shape)
        elif leaf is not None and weight.untyped_storage().data_ptr() != leaf[0].untyped_storage().data_ptr():
            out = weight  # a copy that is not needed any more
        for turned, side in place.sides.items():
            some = factor[side.rows].view((members, 1, units, 1) if turned else (members, count, 1, 1))
            out = torch.mul(weight, some, out=out) if side is place.first else out.addcmul_(weight, some)  # pyright: ignore[reportOptionalMemberAccess]
        assert out is not None
        for turned, side in place.sides.items() if not place.by_norms else ():
            some = of_rows[side.rows].view(members, -1, channels)
            columns = matrix[side.columns].view(members, -1, channels)
            if turned and unit > 1:
                moved = torch.bmm(some, columns.transpose(1, 2))
                out.add_(moved.view(members, units, count, unit).transpose(1, 2))
                continue
            left, right = (columns, some) if turned else (some, columns)
            out.view(members, count, -1).baddbmm_(left, right.transpose(1, 2))
        if part.index is None:
            assert part.stack is not None
            self._take(part, out, leaf)

    def _take(self, part: Part, gradient: Tensor, leaf: tuple[Tensor, Tensor] | None) -> None:
        assert part.stack is not None
        stack = self.stacked[part.stack]
        if leaf is None:
            self._put(part.stack, gradient.view(stack.shape).to(stack.dtype))
            return
        (of_member,) = torch.autograd.grad(leaf[1], leaf[0], gradient.view(leaf[1].shape).to(stack.dtype))
        if len(stack) == 1:
            self._put(part.stack, of_member[None])
            return
        if self.found[part.stack] is None:
            self.found[part.stack] = torch.zeros_like(stack)
        whole = self.found[part.stack]
        assert whole is not None
        whole[part.member].add_(of_member)

    def _put(self, stack: int, gradient: Tensor) -> None:
        have = self.found[stack]
        self.found[stack] = gradient if have is None else have.add_(gradient)

    def finish(self) -> list[Tensor | None]:
        """Of every stack; None where nothing was read."""
        if self.rows.flat:
            self.gathered[-1].zero_()
            table = self.gathered.index_select(0, self.rows.scattered)
            flat = table.view(self.rows.flat_length, -1).sum(1)
            for stack, part in zip(
                self.rows.flat, flat.split([self.stacked[s].numel() for s in self.rows.flat]), strict=True
            ):
                like = self.stacked[stack]
                self._put(stack, part.view(like.shape).to(like.dtype))
        return self.found
