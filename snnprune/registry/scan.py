"""Look through what `torch.save` wrote, then load it: what it would call, and how large it would become.

`torch.load(weights_only=True)` keeps foreign code out. It still calls every allowed class with the file's
own arguments and gives tensors the sizes that the file claims, so that a file of a few bytes can ask for
any amount of memory or time.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import IO, Any

import torch

from ..errors import ModelFileError, first_line
from ..memory import check_unpacked
from .allowed import allowed_by_name
from .calls import OldModel
from .layout import parts_of
from .nodes import Refused
from .opcodes import PICKLE_LIMIT, Machine
from .stand_ins import stand_ins
from .tally import Tally

REMEDY = "Give a .safetensors, or what torch.save(model.state_dict(), file) writes."
_SMALL, _RATIO = 2**20, 4  # a pickle may unpack to this many bytes, and to this many times the file
_PADDING = 16  # bytes that a storage may have beyond its last value


def read_scanned(file: IO[bytes], path: Path, *, modules: bool = False) -> Any:
    """Load what `torch.save` wrote, if all that it would call is what rebuilds tensors, containers and modules.

    What is looked through and what is loaded are one open file, and of an archive PyTorch's own reader gives both.

    Args:
        file: what `torch.save` wrote, in the zipped or the old format, open from its first byte on.
        path: its name, for messages.
        modules: whether it may hold modules of the allowed classes.

    Raises:
        ModelFileError: it needs other names, is damaged, or would become far larger than it is.
    """
    classes = scan(file, path, modules=modules)
    file.seek(0)
    with torch.serialization.safe_globals([*classes, *stand_ins()]):
        return torch.load(file, map_location="cpu", weights_only=True, mmap=False)


def scan(file: IO[bytes], path: Path, *, modules: bool = False) -> list[Any]:
    """The module classes that a file of `read_scanned` needs; nothing is loaded."""
    foreign: set[str] = set()
    why = ""
    try:
        zipped = file.read(4) == b"PK\x03\x04"
        classes = allowed_by_name() if modules else {}
        tally = (_scan_zip if zipped else _scan_old)(file, path, classes, foreign)
        if not foreign:
            return [classes[name] for name in sorted(tally.named)]
    except ModelFileError:
        raise
    except OldModel:
        foreign = foreign or {"the code of a whole model of an old PyTorch"}
    except Exception as error:  # whatever zipfile, PyTorch and pickletools say of a damaged file
        why = "it is no pickle" if isinstance(error, LookupError) else first_line(error)
    if foreign:
        names = ", ".join(sorted(foreign)[:10]) + (" and more" if len(foreign) > 10 else "")
        raise ModelFileError(
            f"{path} is a pickle that needs {names}; loading it can run code. Save the model's state_dict() and "
            "name its architecture with --arch, or, if you trust the file, add --trust-pickle."
        )
    raise ModelFileError(f"{path} is not what torch.save writes, or it is damaged ({why}). {REMEDY}")


def _scan_zip(file: IO[bytes], path: Path, classes: dict[str, type], foreign: set[str]) -> Tally:
    stored = file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        parts = parts_of(file, archive)
        total = sum(parts.values())
        check_unpacked(path, total, stored, ModelFileError, "Use a machine with more memory.")
        pickles = [name for name in parts if name.lower().endswith("data.pkl")]
        if len(pickles) != 1 or pickles[0].count("/") != 1:
            raise Refused(f"it holds {len(pickles)} data.pkl, not one")
        if parts[pickles[0]] > min(PICKLE_LIMIT, _SMALL + _RATIO * stored):
            raise Refused(f"its data.pkl is far larger than the file, or larger than {PICKLE_LIMIT >> 20} MiB")
        content = archive.read(pickles[0])
    root = pickles[0].removesuffix("data.pkl")
    file.seek(0)
    reader = torch._C.PyTorchFileReader(file)
    if {root + name for name in reader.get_all_records()} != set(parts) or reader.get_record(
        "data.pkl"
    ) != content:
        raise Refused("PyTorch and zipfile find different parts in it")
    tally = Tally(total, stored, lambda key, size: 0 <= parts.get(f"{root}data/{key}", -1) - size < _PADDING)
    Machine(classes, foreign, tally).run(io.BytesIO(content))
    return tally


def _scan_old(file: IO[bytes], path: Path, classes: dict[str, type], foreign: set[str]) -> Tally:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    tally = Tally(size, size, lambda key, count: count <= size)
    machine = Machine(classes, foreign, tally)
    for _ in range(5):  # a magic number, a version, the machine, the content, the names of its storages
        machine.run(file)
    if tally.storages > size:
        raise Refused(f"its tensors are said to have {tally.storages} bytes, which the file does not have")
    return tally
