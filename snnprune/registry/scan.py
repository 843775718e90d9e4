"""Look through what `torch.save` wrote before it is loaded: what it would call, and how large it would become.

`torch.load(weights_only=True)` keeps foreign code out. It still calls every allowed class with the file's
own arguments and gives tensors the sizes that the file claims, so that a file of a few bytes can ask for
any amount of memory or time.
"""

from __future__ import annotations

import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO

from ..errors import ModelFileError, first_line
from ..memory import check_unpacked
from .opcodes import PICKLE_LIMIT, Machine, OldModel, Refused

REMEDY = "Give a .safetensors, or what torch.save(model.state_dict(), file) writes."


def scan(path: Path, classes: Collection[str] = ()) -> None:
    """Refuse a file that would call anything else than what rebuilds tensors, plain containers and modules.

    Args:
        path: what `torch.save` wrote, in the zipped or the old format.
        classes: names of the module classes that it may hold.

    Raises:
        ModelFileError: it needs other names, is damaged, or would become far larger than it is.
    """
    foreign: set[str] = set()
    why = ""
    try:
        with path.open("rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            (_scan_zip if zipped else _scan_old)(path, file, classes, foreign)
    except ModelFileError:
        raise
    except OldModel:
        foreign = foreign or {"the code of a whole model of an old PyTorch"}
    except Exception as error:  # whatever zipfile and pickletools say of a damaged file
        why = "it is no pickle" if isinstance(error, LookupError) else first_line(error)
    if foreign:
        names = ", ".join(sorted(foreign)[:10]) + (" and more" if len(foreign) > 10 else "")
        raise ModelFileError(
            f"{path} is a pickle that needs {names}; loading it can run code. Save the model's state_dict() and "
            "name its architecture with --arch, or, if you trust the file, add --trust-pickle."
        )
    if why:
        raise ModelFileError(f"{path} is not what torch.save writes, or it is damaged ({why}). {REMEDY}")


def _scan_zip(path: Path, file: IO[bytes], classes: Collection[str], foreign: set[str]) -> None:
    with zipfile.ZipFile(file) as archive:
        entries = {item.filename: item.file_size for item in archive.infolist()}
        if len({name.lower() for name in entries}) != len(archive.infolist()):
            raise Refused("two parts of it have the same name")
        total = sum(entries.values())
        check_unpacked(path, total, path.stat().st_size, ModelFileError, "Use a machine with more memory.")
        pickles = [name for name in entries if name.lower().endswith("data.pkl")]
        if len(pickles) != 1 or pickles[0].count("/") != 1:
            raise Refused(f"it holds {len(pickles)} data.pkl, not one")
        if entries[pickles[0]] > PICKLE_LIMIT:
            raise Refused(f"its data.pkl is larger than {PICKLE_LIMIT >> 20} MiB")
        root = pickles[0].rpartition("/")[0]
        with archive.open(pickles[0]) as stream:
            machine = Machine(classes, foreign, total)
            machine.storage_limit = lambda key: entries.get(f"{root}/data/{key}", 0)
            machine.run(stream)


def _scan_old(path: Path, file: IO[bytes], classes: Collection[str], foreign: set[str]) -> None:
    size = path.stat().st_size
    machine = Machine(classes, foreign, size)
    machine.storage_limit = lambda key: size
    for _ in range(5):  # a magic number, a version, the machine, the content, the names of its storages
        machine.run(file)
    if machine.storages > size:
        raise Refused(f"its tensors are said to have {machine.storages} bytes, which the file does not have")
