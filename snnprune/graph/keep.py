"""What a pattern of module names means (`keep`, `width`), for groups of neurons and for layers of connections."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable

from .records import NeuronGroup


def named_by(name: str, patterns: Iterable[str]) -> str | None:
    """The first pattern that names a module or one that it lies in; None when there is none.

    Args:
        name: dotted name of a module or of a parameter, or the id of a group.
        patterns: shell patterns, such as `layer4`, `layer4.*` or `*.0`, which all name `layer4.0.conv1`. Upper and
            lower case differ.
    """
    parts = name.split(".")
    outer = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return next((p for p in patterns if any(fnmatch.fnmatchcase(module, p) for module in outer)), None)


def names_of(group: NeuronGroup) -> list[str]:
    """What a pattern may name to mean a group: the group, or what holds its neurons."""
    held = [member.module for member in group.members if member.role != "consumer"]
    return [group.id, group.id.removesuffix(":in"), *held]
