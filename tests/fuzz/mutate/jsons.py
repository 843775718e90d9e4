"""Damage to JSON: its values, names and nesting."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from .raw import mutate_bytes

VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    *(-1, 0, 1, 2, 5, 10**6, 2**31, 2**40, 2**63, 10**30),
    *(0.5, -0.5, 1e308, float("inf"), float("nan")),
    *("", "a", "0", "weight", "../../x", "\x1b[2J", "[red]", "\ud800", "\u202e", "x" * 5000, "fc.weight", "é"),
    *([], {}, [None], [1, 2], [[]], {"a": {}}, {"": 0}, [1e400]),
)


def mutate_json(random: Random, data: bytes) -> bytes:
    """Other values, other names, missing entries, very many, deep nesting; sometimes the bytes."""
    if random.random() < 0.2:
        return mutate_bytes(random, data)
    if random.random() < 0.01:
        return b"[" * random.choice((10, 1000, 10**5)) + data
    content = json.loads(data)
    if random.random() < 0.1:
        _crowd(random, content)
    else:
        for _ in range(random.choice((1, 1, 2, 3))):
            content = _change(random, content)
    text = json.dumps(content)
    if random.random() < 0.05:
        text = text.replace(": ", ': 1e999, "a": ', 1)
    return text.encode()


def _crowd(random: Random, content: Any) -> None:
    """Thousands of entries, in one of the lists and dicts that have any; and a text of any length."""
    places = [place for place in _containers(content) if place]
    if not places:
        return
    place, count = random.choice(places), random.choice((300, 3000, 30_000))
    if isinstance(place, list):
        place[:] = (place * count)[:count]
        return
    value = random.choice(list(place.values()))
    place.update({f"entry.{at}": value for at in range(count)})
    place["long"] = "x\n" * count


def _containers(value: Any) -> list[Any]:
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else None
    return [] if inner is None else [value, *(found for item in inner for found in _containers(item))]


def _change(random: Random, value: Any) -> Any:
    if isinstance(value, dict) and value and random.random() < 0.9:
        key = random.choice(list(value))
        kind = random.random()
        if kind < 0.08:
            del value[key]
        elif kind < 0.14:
            value[str(random.choice(VALUES))[:2000]] = value.pop(key)
        elif kind < 0.2:
            value[str(random.choice(VALUES))[:2000]] = random.choice(VALUES)
        elif kind < 0.25:
            value[key] = value[random.choice(list(value))]
        else:
            value[key] = _change(random, value[key])
        return value
    if isinstance(value, list) and value and random.random() < 0.85:
        at = random.randrange(len(value))
        kind = random.random()
        if kind < 0.1:
            del value[at]
        elif kind < 0.2:
            value.insert(at, random.choice(VALUES))
        else:
            value[at] = _change(random, value[at])
        return value
    if type(value) is int and random.random() < 0.5:
        return value + random.choice((-1, 1, -value, 2**20, 10**18))
    return json.loads(json.dumps(random.choice(VALUES)))
