"""Times made by hand: products, stairs, and what they are for a whole model."""

from __future__ import annotations

import numpy as np

from snnprune.budget import TimedPart


def part(name, inputs, outputs, table, rows=None, columns=None):
    """A part whose maps are the counts themselves, where none are given."""

    def places(side, given):
        if side is None:
            return np.zeros(1, dtype=np.int64)
        return np.arange(side.read + 1) if given is None else np.asarray(given)

    return TimedPart(name, inputs, outputs, places(inputs, rows), places(outputs, columns), np.atleast_2d(table))


def products(cost, metric):
    """Parts whose times are the MACs or params of the layers, and one with the rest."""
    found = []
    for layer in cost.layers:
        out = np.arange(layer.outputs.read + 1.0)
        pair, single = (layer.macs, 0.0) if metric == "macs" else (layer.params, layer.params_out)
        if layer.inputs is None:
            found.append(part(layer.name, None, layer.outputs, (pair + single) * out))
        else:
            into = np.arange(layer.inputs.read + 1.0)
            table = pair * np.outer(into, out) + single * out
            found.append(part(layer.name, layer.inputs, layer.outputs, table))
    rest = cost._rest[metric]
    return [*found, part("rest", None, None, [[rest]])] if rest else found


def stairs(cost, wide, *, base=0.0, slope=0.0):
    """Parts whose times are products of the numbers of stairs, `wide` columns each; `slope` falls evenly."""
    found = []
    for layer in cost.layers:
        sides = [layer.inputs, layer.outputs]
        maps = [np.zeros(1, int) if s is None else -(-np.arange(s.read + 1) // wide) for s in sides]
        steps = [np.arange(m[-1] + 1.0) if s is not None else np.ones(1) for s, m in zip(sides, maps, strict=True)]
        weight = layer.macs * wide ** sum(s is not None for s in sides)
        found.append(TimedPart(layer.name, *sides, *maps, base + weight * np.outer(*steps)))
        if slope:
            out = np.arange(layer.outputs.read + 1.0)
            found.append(part(f"{layer.name} rest", None, layer.outputs, slope * weight * out / len(out)))
    return found
