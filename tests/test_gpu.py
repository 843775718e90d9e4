"""The whole way on a GPU; skipped where there is none."""

from __future__ import annotations

import pytest
import torch
from conftest import make_network

import snnprune
from snnprune import PruneConfig
from snnprune.errors import ExactnessError
from snnprune.learner import TaskLoss
from snnprune.learner.searching import SearchStage
from snnprune.proof import relative_difference
from snnprune.switching import switch_neurons

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("name", ["digits_cnn", "resnet20", "mobilenet_v1_025", "lenet5_caffe"])
def test_gated_is_compact_on_the_gpu(name):
    _, model, x = make_network(name)
    model, x = model.cuda(), x.cuda()
    with snnprune.attach(model, x) as gated:
        gated.set_budget({"macs": 0.5})
        assert relative_difference(gated(x), gated.compact()(x)) <= 1e-10


@pytest.mark.parametrize("name", ["digits_cnn", "resnet20", "mobilenet_v1_025", "lenet5_caffe", "mlp"])
def test_a_step_of_the_search_does_not_wait_for_the_gpu(name):
    """Reading a number would stop Python until the GPU is done; PyTorch says so itself when it is asked to."""
    _, model, x = make_network(name)
    model, batch = model.float().cuda(), (x.float().cuda(), torch.zeros(len(x), dtype=torch.long, device="cuda"))
    config = PruneConfig(target={"params": 0.5})
    loss = TaskLoss(None, distill=0.0, temperature=1.0)
    with switch_neurons(model, snnprune.trace(model, batch[0]), batch[0]) as gated:
        stage = SearchStage(gated, loss, config, total=100, per_epoch=100, val=None, extra={})
        for stage.step in range(3):
            stage.train_step(batch)  # tables and the optimisers' state are made
        torch.cuda.set_sync_debug_mode("error")
        try:
            for stage.step in range(3, 6):
                stage.train_step(batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_sums_on_the_gpu_have_the_same_bits_every_time():
    _, model, x = make_network("resnet20")
    model, x = model.float().cuda(), x.float().cuda()
    with snnprune.attach(model, x) as gated:
        first = gated.scorer(gated.model)
        assert all(torch.equal(first, gated.scorer(gated.model)) for _ in range(5))


def test_optimize_on_the_gpu_exports_a_file_that_the_cpu_agrees_with(tmp_path):
    _, model, _ = make_network("digits_cnn")
    train, val, test = snnprune.load_data("digits", batch_size=64)
    config = PruneConfig(target={"params": 0.4}, epochs=3)
    try:
        result = snnprune.optimize(model.float(), train, val, config, test=test, device="cuda")
    except ExactnessError as error:  # pragma: no cover - says what the GPU does differently
        pytest.fail(str(error))
    assert next(result.model.parameters()).is_cuda
    result.save(tmp_path / "run")
    assert result.report.exactness["onnx"] < 1e-4


@pytest.mark.parametrize("fits", [True, False])
def test_batches_made_on_the_gpu_are_those_of_the_cpu(fits, monkeypatch):
    train, _, _ = snnprune.load_data("digits", batch_size=64)
    if not fits:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (0, 0))
    moved = train.on(torch.device("cuda"))
    assert moved.images.is_cuda == fits
    for (x, y), (a, b) in zip(train.batches(3), moved.batches(3), strict=True):
        assert a.is_cuda
        assert b.is_cuda
        assert torch.equal(y, b.cpu())
        assert torch.allclose(x, a.cpu(), atol=1e-6)


def test_half_precision_on_the_gpu():
    _, model, _ = make_network("digits_cnn")
    train, val, test = snnprune.load_data("digits", batch_size=64)
    config = PruneConfig(target={"params": 0.4}, epochs=3, precision="bfloat16")
    result = snnprune.optimize(model.float(), train, val, config, test=test, device="cuda")
    assert result.report.exactness["remove"] < 1e-10


def test_interrupted_on_the_gpu_goes_on(tmp_path):
    _, model, _ = make_network("digits_cnn")
    train, val, _ = snnprune.load_data("digits", batch_size=64)
    config = PruneConfig(target={"params": 0.4}, epochs=3)
    seen = []

    def stop(event):
        seen.append(event)
        if event.stage == "recover" and event.step > 10:
            raise KeyboardInterrupt

    model = model.float().cuda()
    with pytest.raises(KeyboardInterrupt):
        snnprune.optimize(model, train, val, config, checkpoint=tmp_path, callbacks=[stop])
    result = snnprune.optimize(model, train, val, config, checkpoint=tmp_path, resume=True)
    assert result.report.compact.params <= 0.4 * result.report.dense.params
