"""Shared by all tests: the reference networks, small inputs, a pickle with code, an empty folder, one thread."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
DIGITS = f"{ROOT / 'models' / 'digits_cnn.py'}:digits_cnn"
SMALL = "mobilenet_v3_small"
sys.path.insert(0, str(ROOT / "models"))

import digits_cnn  # noqa: E402
import lenet  # noqa: E402
import mlp  # noqa: E402
import mobilenet  # noqa: E402
import resnet  # noqa: E402
import vgg  # noqa: E402

from snnprune.runs.timer import Timer  # noqa: E402
from snnprune.timing.compared import Compared  # noqa: E402

# name -> (factory, input shape); every network of models/ is here, some of the widest in a narrow form
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "mlp": (mlp.mlp, (1, 28, 28)),
    "lenet5_caffe": (lenet.lenet5_caffe, (1, 28, 28)),
    "vgg_cov2": (vgg.vgg_cov2, (3, 32, 32)),
    "vgg16": (lambda: vgg.VGG16(hidden=256), (3, 32, 32)),
    "resnet18": (lambda: resnet.ResNet((2, 2, 2, 2), base=32), (3, 32, 32)),
    "resnet34": (lambda: resnet.ResNet((3, 4, 6, 3), base=16), (3, 32, 32)),
    "resnet20": (resnet.resnet20, (3, 32, 32)),
    "resnet32": (resnet.resnet32, (3, 32, 32)),
    "resnet44": (resnet.resnet44, (3, 32, 32)),
    "resnet56": (resnet.resnet56, (3, 32, 32)),
    "mobilenet_v1": (lambda: mobilenet.MobileNetV1(width=0.5), (3, 32, 32)),
    "mobilenet_v1_025": (mobilenet.mobilenet_v1_025, (3, 32, 32)),
    "digits_cnn": (digits_cnn.digits_cnn, (1, 8, 8)),
}


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_pages(request, monkeypatch) -> None:
    """Runs are saved without their page, which takes a second to draw, but where it is what is tested."""
    if "pages" not in request.keywords:
        monkeypatch.setattr("snnprune.runs.folder.write_page", lambda _folder: None)


TIMES = Timer.__call__


@pytest.fixture(autouse=True, scope="session")
def no_times() -> Iterator[None]:
    """Nothing is timed, which would take seconds for every run and be another figure every time; see `timed`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Timer, "__call__", lambda _timer, _model, **_more: None)
        yield


def compared(dense: float | None = 3.0, compact: float | None = 1.5, **changes) -> Compared:
    """Times as a clock might tell them."""
    known = {"share": compact / dense} if dense is not None and compact is not None else {"share": None}
    values = {
        **known,
        "spread": 0.02,
        "dense_spread": 0.03,
        "compact_spread": 0.04,
        "refused": None,
        "engine": "cpu",
        "version": "onnxruntime 1.31.1",
        "device": "Some CPU",
        "batch": 1,
        "precision": "fp32",
        "threads": 1,
        "load": "0.5 of 2 cores were busy with other things",
    }
    return Compared(dense_ms=dense, compact_ms=compact, **{**values, **changes})


@pytest.fixture
def timed(monkeypatch) -> list[tuple[float, float]]:
    """A machine that takes a millisecond for a million MACs; lists (dense, compact) MACs of what it timed."""
    from snnprune.metrics import count_macs

    seen = []

    class Beside:
        def __init__(self, dense, example_inputs, serving, *, limit) -> None:
            self.dense, self.example, self.batch = dense, example_inputs, serving.batch
            assert limit >= 4

        def __call__(self, compact, *, predicted_ms=None) -> Compared:
            seen.append(tuple(count_macs(model, self.example) for model in (self.dense, compact)))
            slow, fast = (self.batch * macs / 1e6 for macs in seen[-1])
            return compared(slow, fast, batch=self.batch, predicted_ms=predicted_ms)

    monkeypatch.setattr(Timer, "__call__", TIMES)
    monkeypatch.setattr("snnprune.runs.timer.SideBySide", Beside)
    return seen


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> None:
    """Times are kept in a folder of the test's own."""
    monkeypatch.setenv("SNNPRUNE_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def layer_times(monkeypatch) -> list[str]:
    """Layers take a time that follows from their weights alone; nothing runs. Lists the graphs that were timed."""
    timed: list[str] = []

    def answer(families, providers, threads=1, seconds=0.05, known=None, tell=None):
        found, total, done = dict(known or {}), sum(map(len, families)), 0
        for family in families:
            for name, weights, _data in family:
                if name not in found:
                    timed.append(name)
                    found[name] = 0.01 + 1e-6 * weights
            done += len(family)
            if tell is not None:
                tell(done, total, found)
        return found

    monkeypatch.setattr("snnprune.timing.portable.answer", answer)
    return timed


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty working folder, on a machine without a GPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return tmp_path


@pytest.fixture(scope="session")
def small() -> nn.Module:
    """A small network of torchvision's; not to be changed."""
    from torchvision import models

    torch.manual_seed(0)
    return models.mobilenet_v3_small(num_classes=7).eval()


@pytest.fixture(params=sorted(NETWORKS))
def network(request: pytest.FixtureRequest) -> tuple[str, nn.Module, Tensor]:
    """(name, float64 network in eval mode with random batch-norm statistics, four inputs)."""
    return make_network(request.param)


def make_network(name: str, seed: int = 0, batch: int = 4) -> tuple[str, nn.Module, Tensor]:
    from snnprune.proof import randomize_norms_

    factory, shape = NETWORKS[name]
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = randomize_norms_(factory().double().eval(), generator)
    return name, model, torch.randn(batch, *shape, generator=generator, dtype=torch.float64)


def randomized(factory: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A float64 network in eval mode, with random norms and no parameter that is all zero."""
    from snnprune.proof import randomize_norms_

    torch.manual_seed(seed)
    return randomize_norms_(factory().double().eval(), torch.Generator().manual_seed(seed))


def same_state(a: nn.Module, b: nn.Module) -> bool:
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


@contextmanager
def importable(*places: str | Path) -> Iterator[None]:
    """Modules of these folders can be imported; afterwards these entries go, and only they.

    Not `monkeypatch` on `sys.path`, which puts the whole list back: `onnxruntime.transformers` adds itself to it
    when it is first imported, whichever test that is, and cannot be imported further without.
    """
    added = [str(p) for p in places]
    sys.path[:0] = added
    try:
        yield
    finally:
        for place in added:
            sys.path.remove(place)


class Explosive:
    """Runs code when it is unpickled: leaves a file."""

    def __init__(self, marker: str | Path = "ran") -> None:
        self.marker = marker

    def __reduce__(self):
        return exec, (f"open({str(self.marker)!r}, 'w').close()",)
