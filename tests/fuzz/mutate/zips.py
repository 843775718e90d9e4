"""Damage to the members of an archive."""

from __future__ import annotations

import io
import zipfile
from random import Random
from typing import Any

from .raw import mutate_bytes


def mutate_zip(random: Random, data: bytes, inner: Any = mutate_bytes) -> bytes:
    """Members changed by `inner`, dropped, renamed, doubled, compressed; sometimes the archive's own bytes."""
    if random.random() < 0.3:
        return mutate_bytes(random, data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(item.filename, archive.read(item)) for item in archive.infolist()]
    at = random.randrange(len(members))
    name, content = members[at]
    kind = random.random()
    if kind < 0.06:
        del members[at]
    elif kind < 0.1:
        members[at] = (random.choice(("x", "../x", "data.pkl", "a/data.pkl", name.upper(), name + "0")), content)
    elif kind < 0.14:
        members.append((name, mutate_bytes(random, content)))
    elif kind < 0.16:
        members[at] = (name, content + bytes(2**20))
    else:
        chosen = [i for i, (n, _) in enumerate(members) if n.endswith((".pkl", ".npy"))]
        at = random.choice(chosen) if chosen and random.random() < 0.85 else at
        members[at] = (members[at][0], inner(random, members[at][1]))
    how = zipfile.ZIP_DEFLATED if random.random() < 0.3 else zipfile.ZIP_STORED
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", how) as archive:
        for n, c in members:
            archive.writestr(zipfile.ZipInfo(n), c, compress_type=how)
    return target.getvalue()
