"""The public surface, the direction of imports, and what importing costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import snnprune

ROOT = Path(snnprune.__file__).parent

# A module imports only modules of a smaller rank.
RANK = {
    "shown": -1,
    "errors": 0,
    "streams": 0,
    "batches": 0,
    "fingerprint": 0,
    "resting": 0,
    "memory": 1,
    "files": 1,
    "forms": 1,
    "inputs": 1,
    "labels": 1,
    "late": 1,
    "draws": 1,
    "layers": 2,
    "loaders": 2,
    "losses": 1,
    "moved": 1,
    "options": 1,
    "plain": 1,
    "ranks": 1,
    "runtime": 1,
    "carried": 1,
    "registrations": 1,
    "ties": 1,
    "macs": 3,
    "exporter": 3,
    "parity": 3,
    "protos": 2,
    "feeds": 2,
    "quantize": 4,
    "quantizer": 3,
    "scores": 3,
    "sizes": 2,
    "export": 4,
    "graph": 4,
    "measures": 3,
    "metrics": 4,
    "registry": 4,
    "budget": 5,
    "criteria": 5,
    "data": 5,
    "surgery": 5,
    "timing": 6,
    "proof": 6,
    "runs": 7,
    "doctor": 8,
    "switching": 7,
    "learner": 8,
    "pipeline": 9,
    "rivals": 10,
    "analysis": 10,
    "cli": 11,
}
OWNERS = {
    "torch_pruning": {"criteria/foreign.py"},
    "typer": {
        "cli/app.py",
        "cli/bench.py",
        "cli/config.py",
        "cli/contest.py",
        "cli/doctor.py",
        "cli/export.py",
        "cli/help.py",
        "cli/look.py",
        "cli/main.py",
        "cli/optimize.py",
        "cli/options.py",
        "cli/profile.py",
        "cli/sensitivity.py",
    },
    "rich": {
        "cli/main.py",
        "cli/progress.py",
        "cli/show.py",
        "cli/tables.py",
    },
    "onnx": {
        "parity.py",
        "protos.py",
        "quantize.py",
        "quantizer.py",
        "runtime.py",
        "timing/cuts.py",
        "timing/questions.py",
        "timing/pieces.py",
        "timing/sessions.py",
        "timing/skeleton.py",
    },
    "onnxruntime": {
        "protos.py",
        "quantizer.py",
        "runtime.py",
        "timing/portable.py",
        "timing/serving.py",
        "timing/sessions.py",
    },
    "sklearn": {"data/sources.py"},
    "yaml": {"cli/config.py"},
    "matplotlib": {
        "rivals/figure.py",
        "runs/visual/charts.py",
        "runs/visual/figures.py",
        "runs/visual/render.py",
    },
}


def imports(path: Path) -> list[tuple[str | None, str]]:
    """(our top-level module or None, foreign top-level package or '') of every import in a file."""
    relative = path.relative_to(ROOT)
    package = ["snnprune", *relative.parts[:-1]]
    found: list[tuple[str | None, str]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            parts = [*base[1:], *(node.module.split(".") if node.module else [])]
            names = [parts[0]] if parts else [alias.name for alias in node.names]
            found += [(name, "") for name in names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append((None, node.module.split(".")[0]))
        elif isinstance(node, ast.Import):
            found += [(None, alias.name.split(".")[0]) for alias in node.names]
    return found


FILES = sorted(p for p in ROOT.rglob("*.py"))


def test_every_module_has_a_rank():
    tops = {p.relative_to(ROOT).parts[0].removesuffix(".py") for p in FILES}
    assert tops - {"__init__", "__main__"} == set(RANK)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downwards(path):
    relative = path.relative_to(ROOT)
    top = relative.parts[0].removesuffix(".py")
    for ours, foreign in imports(path):
        assert foreign not in OWNERS or str(relative) in OWNERS[foreign], f"{relative} imports {foreign}"
        if ours is not None and top in RANK and ours != top:
            assert ours in RANK, f"{relative} imports {ours}"
            assert RANK[ours] < RANK[top], f"{relative} (rank {RANK[top]}) imports {ours} (rank {RANK[ours]})"


def test_files_stay_small():
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 330, path


def test_importing_is_light():
    heavy = [
        "torch",
        "torch_pruning",
        "typer",
        "rich",
        "onnx",
        "onnxruntime",
        "onnxscript",
        "matplotlib",
        "sklearn",
    ]
    code = f"import snnprune, sys; print([m for m in {heavy!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
    assert out.stderr == ""


def test_using_the_api_loads_no_command_line():
    code = (
        "import snnprune, sys, torch, torch.nn as nn\n"
        "m = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))\n"
        "g = snnprune.attach(m, torch.randn(2, 4)); g.compact(); g.detach()\n"
        "print([m for m in ('typer', 'rich', 'onnx', 'onnxruntime', 'matplotlib', 'sklearn') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_all_names_exist_and_nothing_else_is_promised():
    assert sorted(snnprune.__all__) == sorted(set(snnprune.__all__))
    for name in snnprune.__all__:
        assert getattr(snnprune, name) is not None
    assert set(snnprune.__all__) == {*snnprune._EXPORTS, "__version__"}
    with pytest.raises(AttributeError):
        _ = snnprune.no_such_name


def test_every_error_has_one_base():
    from snnprune import errors

    found = [v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, Exception)]
    assert len(found) >= 12
    assert all(issubclass(e, snnprune.SnnPruneError) for e in found)


def test_library_prints_nothing(capfd):
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 3))
    data = [(torch.randn(8, 4), torch.randint(0, 3, (8,))) for _ in range(4)]
    snnprune.optimize(model, data, data, snnprune.PruneConfig(target={"params": 0.6}, epochs=2))
    out = capfd.readouterr()
    assert out.out == ""
    assert out.err == ""
