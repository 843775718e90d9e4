"""Damage to the members of an archive, and to what says where they are."""

from __future__ import annotations

import io
import zipfile
from random import Random
from typing import Any

from .archives import end, members_of, parts, plain, two_directories, two_records
from .raw import mutate_bytes

_WAYS = (zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def mutate_zip(random: Random, data: bytes, inner: Any = mutate_bytes) -> bytes:
    """Members changed by `inner`, dropped, renamed, doubled, compressed, in two directories; or the bytes."""
    if random.random() < 0.25:
        return mutate_bytes(random, data)
    before = members_of(io.BytesIO(data))
    members = list(before)
    at = random.randrange(len(members))
    name, content = members[at]
    kind = random.random()
    if kind < 0.06:
        del members[at]
    elif kind < 0.1:
        names = (
            "x",
            "../x",
            "data.pkl",
            "a/data.pkl",
            name.upper(),
            name + "0",
            name + "\0",
            "é" + name,
            name + "/",
        )
        members[at] = (random.choice(names), content)
    elif kind < 0.14:
        members.append((name, mutate_bytes(random, content)))
    elif kind < 0.16:
        members[at] = (name, content + bytes(2**20))
    else:
        chosen = [i for i, (n, _) in enumerate(members) if n.endswith((".pkl", ".npy"))]
        at = random.choice(chosen) if chosen and random.random() < 0.85 else at
        members[at] = (members[at][0], inner(random, members[at][1]))
    if random.random() < 0.2:
        return _arranged(random, before, members)
    how = random.choice(_WAYS) if random.random() < 0.3 else zipfile.ZIP_STORED
    target = _OneWay() if random.random() < 0.1 else io.BytesIO()
    with zipfile.ZipFile(target, "w", how) as archive:
        for n, c in members:
            archive.writestr(zipfile.ZipInfo(n), c, compress_type=how)
    return target.getvalue()


class _OneWay(io.BytesIO):
    """Cannot go back, so that sizes follow the contents."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: Any) -> int:
        raise OSError

    def tell(self) -> int:
        raise OSError


def _arranged(random: Random, before: Any, members: Any) -> bytes:
    """Two contents in one file, or one with something before, between or behind its parts; sometimes damaged."""
    shown, loaded = (before, members) if random.random() < 0.5 else (members, before)
    rest = random.choice((b"", b"PK\3\4", b"PK\5\6", bytes(random.choice((1, 4, 100, 70_000)))))
    data, directory = parts(members, len(rest))
    kind = random.randrange(6)
    if kind == 0 and [n for n, _ in shown] == [n for n, _ in loaded]:
        found = two_directories(shown, loaded)
    elif kind == 1:
        found = two_records(shown, loaded)
    elif kind == 2:
        found = rest + data + directory + end(len(members), len(directory), len(rest) + len(data))
    elif kind == 3:
        found = plain(members) + rest
    elif kind == 4:
        data, directory = parts(members, 0)
        found = data + rest + directory + end(len(members), len(directory), len(data) + len(rest), rest[:1000])
    else:
        data, directory = parts(members, 0, random.choice((-30, -1, 0)))
        count = random.choice((0, 1, len(members), 0xFFFF))
        found = data + directory + end(count, len(directory), random.choice((0, len(data), 0xFFFFFFFF)))
    return mutate_bytes(random, found) if random.random() < 0.1 else found
