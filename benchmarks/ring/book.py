"""The ring's results on file."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

from snnprune.files import write_json


class Book:
    """Results on file; every row is written as soon as it is there, whole or not at all.

    Several processes may add rows to one file.
    """

    def __init__(self, path: Path, stamp: dict[str, Any]) -> None:
        self.path, self.stamp = path, stamp

    def rows(self) -> list[dict[str, Any]]:
        """All of them, of whatever process."""
        return json.loads(self.path.read_text()) if self.path.exists() else []

    def find(self, **key: Any) -> dict[str, Any] | None:
        """The row of this method, target, seed and these knobs, if it was run."""
        return next((r for r in self.rows() if all(r.get(k) == v for k, v in key.items())), None)

    def add(self, row: dict[str, Any]) -> None:
        """Append one row."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_name(f".{self.path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            write_json(self.path, [*self.rows(), {**self.stamp, **row}])
