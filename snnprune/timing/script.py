"""A script that times a network's layers on another machine, with ONNX Runtime and NumPy alone."""

from __future__ import annotations

import base64
import inspect
import json
import zlib
from pathlib import Path

from ..errors import ConfigError
from ..files import write_atomically
from . import portable
from .coarse import takes_whole
from .questions import Questions
from .serving import Serving
from .sessions import providers_of

_END = """

if __name__ == "__main__":
    main(json.loads(zlib.decompress(base64.b64decode(PAYLOAD))))
"""


def check_scripted(serving: Serving) -> None:
    """Refuse what no script can time, before any work is done.

    Raises:
        ConfigError: the engine is `auto`, or takes a network as a whole.
    """
    if serving.engine == "auto":
        raise ConfigError(
            "engine='auto' is found by trying, which cannot be done for another device. Say what serves there: "
            "cpu or cuda."
        )
    if takes_whole(serving):
        raise ConfigError(
            f"engine={serving.engine!r}: a script has only ONNX Runtime and NumPy, and times layer by layer. Take "
            "cpu or cuda."
        )


def write_script(questions: Questions, serving: Serving, path: Path) -> None:
    """Write the script; it is run as `python script.py times.json`, and goes on where it was stopped.

    Args:
        questions: of the network.
        serving: what will serve on that machine.
        path: of the script.

    Raises:
        ConfigError: see `check_scripted`.
        RunError: it cannot be written.
    """
    check_scripted(serving)
    families = [
        [(q.name, q.weights, base64.b64encode(zlib.compress(q.data, 9)).decode()) for q in family]
        for family in questions.families
    ]
    payload = {"families": families, "providers": providers_of(serving), "serving": serving.to_dict()}
    packed = base64.b64encode(zlib.compress(json.dumps(payload).encode(), 9)).decode()
    text = f'{inspect.getsource(portable)}\n\nPAYLOAD = (\n    "{packed}"\n)\n{_END}'
    write_atomically(path, lambda p: p.write_text(text))
