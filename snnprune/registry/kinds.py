"""Files that hold a network in a form in which its layers cannot be changed, told by what is in them."""

from __future__ import annotations

import zipfile
from pathlib import Path

from ..errors import ModelFileError

_SOURCE = (
    "which cannot be pruned: its code is fixed. Give the state_dict() of the module that it was made from, and "
    "name its architecture with --arch"
)


def refuse_other_kinds(path: Path) -> None:
    """Say what to give instead of TorchScript, of an exported program and of an ONNX file.

    Nothing is unpacked: the names of the parts tell.

    Raises:
        ModelFileError: it is one of them.
    """
    if path.suffix.lower() == ".onnx":
        raise ModelFileError(
            f"{path} is an ONNX file, {_SOURCE}. The commands evaluate and bench take ONNX files."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # whatever zipfile says of a damaged file; its reader finds better words
        return
    ends = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in ends and any("/code/" in name for name in names):
        raise ModelFileError(
            f"{path} is TorchScript, {_SOURCE}; torch.jit.load(file).state_dict() has the same weights."
        )
    if ends & {"archive_format", "serialized_exported_program.json"} and "data.pkl" not in ends:
        raise ModelFileError(
            f"{path} is what torch.export.save writes, {_SOURCE}; torch.export.load(file).state_dict has the same "
            "weights."
        )
