"""Pickles that are small and ask for much: repeated structures, colliding keys, states with special names."""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random

_PRIME = 2**61 - 1
_SPECIAL = (
    *("__setstate__", "__class__", "__dict__", "__getattr__", "__call__", "__reduce_ex__", "__torch_function__"),
    *("forward", "_call_impl", "_apply", "_compiled_call_impl", "_forward_hooks", "_backward_hooks", "_modules"),
    *("_parameters", "_buffers", "training", "_non_persistent_buffers_set", "grad", "data", "_orig_mod", "", "x"),
)
_CLASSES = (
    *(
        "torch.nn.modules.linear Identity",
        "torch.nn.modules.linear Linear",
        "torch.nn.modules.container ModuleDict",
    ),
    *("torch.nn.modules.activation MultiheadAttention", "torch.nn.modules.upsampling Upsample"),
    *("collections OrderedDict", "collections Counter", "torch.nn.parameter Parameter", "builtins set"),
)


def _name(text: str) -> bytes:
    return b"c" + text.replace(" ", "\n").encode() + b"\n"


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


def _long(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def _many(random: Random) -> int:
    return random.choice((1, 2, 10, 100, 1000, 10_000, 100_000, 1_000_000))


def _leaf(random: Random) -> bytes:
    return random.choice((b"N", b"K\x01", b"]", b"}", b")", b"\x8f", _text("x" * min(_many(random), 10_000))))


def _shared(random: Random) -> bytes:
    """One container in the next one as often as it likes, and so on."""
    repeats, depth = random.choice((1, 2, 8, 50)), random.choice((1, 3, 8, 60, 2000))
    inner = b"h\xf0" * repeats
    wraps = (b"](" + inner + b"eq\xf0", b"(" + inner + b"tq\xf0", b"}K\x01h\xf0sq\xf0", b"h\xf0h\xf0\x86q\xf0")
    wrap = random.choice(wraps)
    return _leaf(random) + b"q\xf0" + wrap * depth


def _nested(random: Random) -> bytes:
    depth = min(_many(random), 10_000)
    opens, closes = random.choice(((b"]", b"a"), (b"}K\x01", b"s"), (b"(", b"t"), (b"", b"\x85")))
    return opens * depth + _leaf(random) + closes * depth


def _repeated(random: Random) -> bytes:
    """A list of very many of one thing."""
    thing = random.choice((_leaf(random), _name(random.choice(_CLASSES)), b"G" + bytes(8), b"(t"))
    return b"](" + thing * min(_many(random), 3_000_000 // len(thing)) + b"e"


def _colliding(random: Random) -> bytes:
    count = min(_many(random), 60_000)
    key = random.choice(
        (
            lambda i: _long(_PRIME * i),
            lambda i: b"G" + struct.pack(">d", 2.0 ** (61 * (i % 16))),
            lambda i: _long(i) + b"K\x02\x86",
            lambda i: _long(i << 40),
        )
    )
    keys = [key(i) for i in range(1, count + 1)]
    if random.random() < 0.5:
        return b"}(" + b"".join(k + b"N" for k in keys) + b"u"
    return _name("builtins set") + b"](" + b"".join(keys) + b"e\x85R"


def _called(random: Random) -> bytes:
    """What a function makes of one large argument, again and again."""
    large = random.choice((_repeated, _colliding, lambda r: _text("x" * min(_many(r), 500_000))))(random)
    function = _name(random.choice(("collections Counter", "builtins set", "torch Size", "_codecs encode")))
    call = b"h\xf1h\xf0" + (_text("latin1") + b"\x86R" if b"encode" in function else b"\x85R")
    return b"](" + large + b"q\xf0" + function + b"q\xf1" + call * min(_many(random), 10_000) + b"e"


def _stated(random: Random) -> bytes:
    """Objects with states of special names, several times over."""
    cls, key = _name(random.choice(_CLASSES)), _text(random.choice(_SPECIAL))
    value = random.choice((_leaf(random), _name(random.choice(_CLASSES)), b"h\xf0"))
    made = cls + random.choice((b")\x81", b")R")) + b"q\xf0"
    states = (b"}" + key + value + b"sb") + random.choice((b"}b", b"}h\xf0h\xf0sb", b"")) * min(
        _many(random), 10_000
    )
    return made + states


_SHAPES: tuple[Callable[[Random], bytes], ...] = (_shared, _nested, _repeated, _colliding, _called, _stated)


def costly(random: Random) -> bytes:
    """Opcodes that push one value."""
    return random.choice(_SHAPES)(random)


def costly_pickle(random: Random) -> bytes:
    """A pickle of such a value alone, in a dict or in the state of a module."""
    head, tail = random.choice(
        ((b"", b""), (b"}" + _text("w"), b"s"), (_name(_CLASSES[0]) + b")\x81}" + _text("x"), b"sb"))
    )
    return b"\x80\x02" + head + costly(random) + tail + b"."
