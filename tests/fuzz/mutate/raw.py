"""Damage to the bytes of any file."""

from __future__ import annotations

import struct
from random import Random

NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    8,
    9,
    64,
    255,
    256,
    1000,
    2**16,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**63 - 1,
    2**64 - 1,
)


def mutate_bytes(random: Random, data: bytes) -> bytes:
    """A few changes of the bytes themselves."""
    found = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 3, 8))):
        at = random.randrange(len(found) + 1)
        kind = random.randrange(8)
        if kind == 0:
            found[at : at + 1] = bytes([random.randrange(256)])
        elif kind == 1 and at < len(found):
            found[at] ^= 1 << random.randrange(8)
        elif kind == 2:
            del found[at : at + random.choice((1, 2, 4, 16, 100))]
        elif kind == 3:
            found[at:at] = random.randbytes(random.choice((1, 2, 4, 16)))
        elif kind == 4:
            form = random.choice(["<B", "<H", "<I", "<Q", ">I", ">Q"])
            value = random.choice(NUMBERS) % 2 ** (8 * struct.calcsize(form))
            found[at : at + struct.calcsize(form)] = struct.pack(form, value)
        elif kind == 5:
            start, length = random.randrange(len(found) + 1), random.choice((1, 4, 16, 64))
            found[at:at] = found[start : start + length]
        elif kind == 6 and random.random() < 0.3:
            del found[at:]
        elif kind == 7:
            length = random.choice((1, 4, 8, 32))
            found[at : at + length] = bytes([random.choice((0, 255, 0x5D, 0x7B))]) * length
    return bytes(found)
