"""Damage to the opcodes of a pickle, by itself or in an archive."""

from __future__ import annotations

import pickletools
import struct
from random import Random

from .costly import costly, costly_pickle
from .raw import NUMBERS, mutate_bytes
from .zips import mutate_zip

_NAMES = (
    "collections OrderedDict",
    "collections Counter",
    "__builtin__ set",
    "__builtin__ bytearray",
    "__builtin__ complex",
    "_codecs encode",
    "torch Size",
    "torch device",
    "torch Tensor",
    "torch FloatStorage",
    "torch LongStorage",
    "torch float32",
    "torch float8_e4m3fn",
    "torch strided",
    "torch.nn.parameter Parameter",
    "torch.nn.modules.linear Linear",
    "torch.nn.modules.conv Conv2d",
    "torch.nn.modules.container Sequential",
    "torch.nn.modules.activation MultiheadAttention",
    "torch.nn.modules.upsampling Upsample",
    "torch.storage UntypedStorage",
    "torch._tensor _rebuild_from_type_v2",
    "torch._utils _rebuild_tensor",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_tensor_v3",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_parameter_with_state",
    "torch._utils _rebuild_sparse_tensor",
    "torch._utils _rebuild_qtensor",
    "torch._utils _rebuild_wrapper_subclass",
    "torch._utils _rebuild_meta_tensor_no_storage",
    "torchvision.models.resnet ResNet",
    "torchvision.models.vision_transformer ConvStemConfig",
    "os system",
    "builtins eval",
)
_STRINGS = (
    b"forward",
    b"_forward_hooks",
    b"_modules",
    b"_parameters",
    b"weight",
    b"storage",
    b"0",
    b"cpu",
    b"",
    b"\xff",
)


def _piece(random: Random) -> bytes:
    kind = random.randrange(9)
    if kind == 0:
        return b"c" + random.choice(_NAMES).replace(" ", "\n").encode() + b"\n"
    if kind == 1:
        return b"J" + struct.pack("<I", random.choice(NUMBERS) % 2**32)
    if kind == 2:
        number = random.choice(NUMBERS).to_bytes(9, "little")
        return b"\x8a" + bytes([len(number)]) + number
    if kind == 3:
        text = random.choice(_STRINGS)
        return b"X" + struct.pack("<I", len(text)) + text
    if kind == 4:
        return random.choice((b"q", b"h")) + bytes([random.randrange(20)])
    if kind == 5:
        return random.choice((b"R", b"\x81", b"b", b"Q"))
    if kind == 6:
        return random.choice((b"]", b"}", b"\x8f", b")", b"(", b"N", b"\x88"))
    if kind == 7:
        return random.choice((b"t", b"\x85", b"\x86", b"\x87", b"a", b"e", b"s", b"u"))
    return random.choice(
        (b".", b"0", b"2", b"\x93", b"r" + struct.pack("<I", 2**32 - 1), b"\x80\x04", b"G" + bytes(8))
    )


def mutate_pickle(random: Random, data: bytes) -> bytes:
    """Opcodes dropped, doubled, swapped, put in, with other arguments; sometimes the bytes, or a costly one."""
    if random.random() < 0.2:
        return mutate_bytes(random, data)
    if random.random() < 0.1:
        return costly_pickle(random)
    try:
        starts = [at for _, _, at in pickletools.genops(data) if at is not None]
    except ValueError:  # damaged once already
        return mutate_bytes(random, data)
    end = data.index(b".", starts[-1]) + 1
    pieces = [data[a:b] for a, b in zip(starts, [*starts[1:], end], strict=True)]
    rest = data[end:]
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(pieces))
        kind = random.randrange(7)
        if kind == 6:
            pushes = [i for i, p in enumerate(pieces) if p[:1] in b"KMJNX])}\x88\x89"]
            pieces[random.choice(pushes or [at])] = costly(random)
        elif kind == 0 and len(pieces) > 2:
            del pieces[at]
        elif kind == 1:
            pieces[at:at] = [_piece(random) for _ in range(random.choice((1, 1, 2, 5)))]
        elif kind == 2:
            pieces[at] = _piece(random)
        elif kind == 3:
            other = random.randrange(len(pieces))
            pieces[at], pieces[other] = pieces[other], pieces[at]
        elif kind == 4:
            pieces[at:at] = pieces[max(0, at - random.choice((1, 2, 5, 20))) : at]
        else:
            numbers = [i for i, p in enumerate(pieces) if p[:1] in b"KMJ"]
            if numbers:
                value = random.choice(NUMBERS) % 2**32
                pieces[random.choice(numbers)] = b"J" + struct.pack("<I", value)
    return b"".join(pieces) + rest


def zipped_pickle(random: Random, data: bytes) -> bytes:
    return mutate_zip(random, data, lambda r, d: mutate_pickle(r, d) if d[:1] == b"\x80" else mutate_bytes(r, d))
