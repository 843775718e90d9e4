"""Several processes learn what one would have learned, and end together when one is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from snnprune.batches import inputs_in
from snnprune.cli.main import run
from snnprune.errors import DataError
from snnprune.inputs import tensors_in
from snnprune.learner.loop import part_of
from snnprune.ranks import Ranks, current

NET = """
from torch import nn

def net(num_classes=10):
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(DROP),
        nn.Linear(128, 24), nn.ReLU(), nn.Linear(24, num_classes),
    )
"""
NET_MADE = NET.replace("DROP", "0.0")
CLOCKED = """
import os, sys
sys.path.insert(0, TESTS)
from pipeline.clocks import install

class Patch:
    setattr = staticmethod(setattr)

def clock(macs):
    assert os.environ["RANK"] == "0", "this process has no clock"
    return 0.9 if SLOW else 1.3 * macs

install(Patch, clock)
"""
DATA = """
import os, signal
import snnprune

class Fatal:
    def __init__(self, loader):
        self.loader, self.seen = loader, 0

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        for batch in self.loader:
            self.seen += 1
            if self.seen == 30 and os.environ.get("RANK") == os.environ.get("LOSE"):
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

def loaders():
    train, val, test = snnprune.load_data("digits", batch_size=63, augment=False)
    train.shuffle = False
    return Fatal(train), val, test
"""
WORKER = """
import torch
from snnprune.errors import RunError
from snnprune.metrics import evaluate
from snnprune.ranks import launched

with launched("cpu") as (ranks, device):
    me = ranks.rank
    assert (ranks.world, device) == (3, "cpu")
    mean, share = ranks.mean(torch.tensor(float(me)), me + 1.0)
    assert (mean.item(), share.item()) == ((0 * 1 + 1 * 2 + 2 * 3) / 6, (me + 1) / 6)
    assert ranks.any(me == 2, False) == (True, False)
    assert ranks.same_values(me + 7.5, -me) == [7.5, 0.0]
    flag, numbers = torch.tensor([me == 0, True]), torch.arange(3) * (me + 1)
    ranks.same_([flag, numbers])
    assert flag.tolist() == [True, True] and numbers.tolist() == [0, 1, 2]
    odd = [torch.nn.Parameter(torch.zeros(s)) for s in ((2, 3), (4,), (5,))]
    odd[0].grad = torch.full((2, 3), float(me))
    odd[1].grad = torch.ones(4) if me == 1 else None
    ranks.average_gradients_(odd, share)
    assert torch.allclose(odd[0].grad, torch.full((2, 3), 8 / 6))
    assert torch.allclose(odd[1].grad, torch.full((4,), 2 / 6))
    assert odd[2].grad is None
    norm = torch.nn.BatchNorm1d(2)
    norm.running_mean.fill_(me)
    ranks.average_statistics_(norm, 1 / 3)
    assert torch.allclose(norm.running_mean, torch.ones(2))
    many = [torch.full((n,), float(me), dtype=d) for n in (3, 1) for d in (torch.float32, torch.float64)]
    ranks.sum_(many)
    assert all(bool((t == 3).all()) for t in many)
    assert ranks.pool_({"a": (a := torch.ones(2)), "b": torch.ones(1)}, {"a"} if me else set(), me) == ({"a"}, 3)
    assert a.tolist() == [3, 3]
    ranks.check_equal({"x": torch.ones(3)}, "weights")
    try:
        ranks.check_equal({"x": torch.full((3,), 1.0 + (me == 2) * 1e-7)}, "weights")
    except RunError as error:
        assert "different weights" in str(error)
    else:
        raise AssertionError("a difference in the last bit must be seen")
    model = torch.nn.Linear(4, 3)
    ranks.same_(model.parameters())
    torch.manual_seed(0)
    for count in (1, 3, 4, 8):  # batches: fewer than processes, as many, more
        batches = [(torch.randn(5 + i, 4), torch.randint(3, (5 + i,))) for i in range(count)]
        seen = []
        shared = evaluate(model, batches, ranks=ranks, on_batch=lambda: seen.append(1))
        alone = evaluate(model, batches)
        assert (shared.accuracy, shared.count) == (alone.accuracy, alone.count)
        assert abs(shared.loss - alone.loss) < 1e-6
        assert len(seen) == len(batches[me::3])
        loss = lambda m, b: torch.nn.functional.cross_entropy(m(b[0]), b[1])
        mean = evaluate(model, batches, loss_fn=loss, ranks=ranks)
        assert (mean.count, mean.metric.name) == (alone.count, "loss")
        assert abs(mean.value - alone.loss) < 1e-6
        own = evaluate(model, batches, metric=lambda m, data: len(data) + me / 8, ranks=ranks)
        assert (own.value, own.count) == (count, alone.count), "all see all the data, and take rank 0's number"
    print(f"rank {me} is content")
"""


def torchrun(world: int, *args: str, lose: str = "none") -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
    if lose != "none":  # the launcher stops the others as soon as it looks: they are to notice by themselves
        launcher.append("--monitor-interval=5")
    command = [sys.executable, *launcher, *args]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "LOSE": lose, "SNNPRUNE_DEBUG": "", "RANK": ""}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=env, check=False)


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [14, 15, 64, 131])
def test_parts_cover_a_batch_once(world, count):
    parts = [list(range(count))[Ranks(rank, world).part(count)] for rank in range(world)]
    assert [i for part in parts for i in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_too_few_inputs_go_to_everybody():
    assert all(Ranks(rank, 4).part(7) == slice(0, 7) for rank in range(4))


IMAGES = [torch.full((3, 4, 4), float(i)) for i in range(8)]
TARGETS = [{"boxes": torch.full((i, 4), float(i))} for i in range(8)]


@pytest.mark.parametrize(
    "batch",
    [
        IMAGES,
        (IMAGES, TARGETS),
        [IMAGES, TARGETS],
        (tuple(IMAGES), tuple(TARGETS)),
        [tuple(IMAGES), tuple(TARGETS)],
        list(zip(IMAGES, TARGETS, strict=True)),
        [{"image": i} for i in IMAGES],
        torch.stack(IMAGES),
        (torch.stack(IMAGES), torch.arange(8)),
        [torch.stack(IMAGES), torch.arange(8)],
        {"x": torch.stack(IMAGES), "y": torch.arange(8), "scale": torch.tensor(2.0)},
    ],
)
def test_every_form_of_a_batch_is_shared_out_along_its_inputs(batch):
    assert inputs_in(batch) == 8
    seen = []
    for rank in range(2):
        mine = part_of(batch, Ranks(rank, 2))
        assert type(mine) is type(batch)
        assert inputs_in(mine) == 4
        images = [t for t in tensors_in(mine) if t.dim() in (3, 4)]
        seen += [float(v) for image in images for v in (image.view(-1, 48)[:, 0])]
    assert seen == [float(i) for i in range(8)]


def test_sequences_that_come_time_first_are_shared_out_by_inputs():
    x, y = torch.arange(5 * 8 * 2.0).view(5, 8, 2), torch.arange(8) % 3
    parts = [part_of((x, y), Ranks(rank, 2)) for rank in range(2)]
    assert torch.cat([part[0] for part in parts], 1).equal(x)
    assert torch.cat([part[1] for part in parts]).equal(y)
    assert [part[0].shape[1] for part in parts] == [4, 4]


def test_a_batch_that_cannot_be_shared_out_says_so():
    with pytest.raises(DataError, match="DistributedSampler"):
        part_of((torch.zeros(8, 3), torch.zeros(5)), Ranks(0, 2))


def test_alone_nothing_is_exchanged():
    ranks = current()
    assert ranks == Ranks(0, 1)
    assert ranks.first
    value = torch.tensor(0.3)
    mean, share = ranks.mean(value, 5)
    assert mean is value
    assert share == 1.0
    p = torch.nn.Parameter(torch.ones(2))
    ranks.average_gradients_([p], 0.5)
    assert p.grad is None


def test_what_processes_exchange(tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    done = torchrun(3, str(tmp_path / "worker.py"))
    assert done.returncode == 0, done.stderr
    assert all(f"rank {n} is content" in done.stdout for n in range(3))


@pytest.fixture
def files(here) -> Path:
    (here / "data.py").write_text(DATA)
    for name, drop in (("net.py", "0.0"), ("noisy.py", "0.2")):
        (here / name).write_text(NET.replace("DROP", drop))
    torch.manual_seed(0)
    import importlib.util

    spec = importlib.util.spec_from_file_location("net_of_this_test", here / "net.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.save(module.net().state_dict(), here / "net.pt")
    return here


COMMON = ["optimize", "net.pt", "--epochs", "2", "--device", "cpu", "--target", "params=0.4", "--lr", "0.1"]
COMMON += ["--no-time"]


@pytest.mark.parametrize("more", [[], ["--granularity", "connection"]])
def test_two_processes_learn_what_one_learns(files, more):
    """A batch that does not divide evenly, and shifted images: the same batches and mean gradients."""
    args = [*COMMON, "--data", "digits", "--batch-size", "63", "--arch", "net.py:net", *more]
    assert run([*args, "--output", "one"]) == 0
    done = torchrun(2, "-m", "snnprune", *args, "--output", "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("wrote two") == 1, "only one process speaks"
    assert sorted(p.name for p in files.iterdir() if p.is_dir() and p.name != "__pycache__") == ["one", "two"]
    one, two = load_file("one/model.safetensors"), load_file("two/model.safetensors")
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.allclose(value.double(), two[name].double(), atol=1e-5), name
    reports = [json.loads(Path(run, "report.json").read_text()) for run in ("one", "two")]
    assert reports[0]["groups"] == reports[1]["groups"]
    assert reports[0]["compact"]["accuracy"] == pytest.approx(reports[1]["compact"]["accuracy"], abs=0.005)


@pytest.mark.parametrize("slow", [False, True])
def test_a_latency_is_measured_by_one_process_for_all(files, slow):
    """The first alone has a clock, that disagrees with the prediction; all end with the cut that it asks for."""
    tests = str(Path(__file__).parent)
    (files / "clocked.py").write_text(CLOCKED.replace("TESTS", repr(tests)).replace("SLOW", str(slow)) + NET_MADE)
    args = [*COMMON, "--data", "digits", "--arch", "clocked.py:net", "--target", "latency=0.7", "--output", "fast"]
    done = torchrun(2, "-m", "snnprune", *args)
    if slow:
        assert done.returncode != 0
        assert "latency=0.7 was not reached: the fastest cut is one that takes" in done.stderr
        assert "KeyError" not in done.stderr
        return
    assert done.returncode == 0, done.stderr
    trials = json.loads((files / "fast" / "report.json").read_text())["trials"]
    assert len(trials) >= 3, "a first cut, a corrected one, and the result"
    assert trials[0]["passed"] is False
    assert 0.9 * 0.7 < trials[-1]["latency"] <= 0.7


def test_a_lost_process_ends_the_run_and_the_checkpoint_goes_on_to_the_same_bits(files):
    args = ["-m", "snnprune", *COMMON, "--data", "data.py:loaders", "--arch", "noisy.py:net"]
    whole = torchrun(2, *args, "--output", "whole")
    assert whole.returncode == 0, whole.stderr
    lost = torchrun(2, *args, "--output", "lost", lose="1")
    assert lost.returncode != 0
    assert "error: another process of this run has ended" in lost.stderr
    assert "--output lost --resume" in lost.stderr
    assert not (files / "lost").exists()
    again = torchrun(2, *args, "--output", "lost", "--resume")
    assert again.returncode == 0, again.stderr
    one, two = load_file("whole/model.safetensors"), load_file("lost/model.safetensors")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
