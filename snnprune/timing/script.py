"""A script that times a network's layers on another machine, with ONNX Runtime and NumPy alone."""

from __future__ import annotations

import base64
import inspect
import json
import zlib
from pathlib import Path

from ..files import write_atomically
from . import portable
from .questions import Questions
from .serving import Serving
from .sessions import providers_of

_END = """

if __name__ == "__main__":
    main(json.loads(zlib.decompress(base64.b64decode(PAYLOAD))))
"""


def write_script(questions: Questions, serving: Serving, path: Path) -> None:
    """Write the script; it is run as `python script.py times.json`, and goes on where it was stopped.

    Args:
        questions: of the network.
        serving: what will serve on that machine.
        path: of the script.

    Raises:
        RunError: it cannot be written.
    """
    families = [
        [(q.name, q.weights, base64.b64encode(zlib.compress(q.data, 9)).decode()) for q in family]
        for family in questions.families
    ]
    payload = {"families": families, "providers": providers_of(serving), "serving": serving.to_dict()}
    packed = base64.b64encode(zlib.compress(json.dumps(payload).encode(), 9)).decode()
    text = f'{inspect.getsource(portable)}\n\nPAYLOAD = (\n    "{packed}"\n)\n{_END}'
    write_atomically(path, lambda p: p.write_text(text))
