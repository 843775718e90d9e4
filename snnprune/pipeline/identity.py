"""What a run depends on: its model, its data, its options."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .. import streams
from ..fingerprint import digest_of
from ..inputs import Inputs, call, map_tensors, rows, tensors_in
from ..learner import PruneConfig
from ..learner.identity import LEARNING, OUTPUTS, TRAINING
from ..measures import Measure
from ..runs.report import device_name
from ..runs.saving import weights_digest
from .contents import contents

_KEPT = 256  # numbers of the outputs that are kept


def run_identity(
    dense: nn.Module, config: PruneConfig, data: dict[str, Any], example: Inputs, per_epoch: int
) -> dict[str, Any]:
    """What two runs must have in common so that one can go on where the other stopped, by name.

    Args:
        dense: the model that came in.
        config: its options.
        data: from `data_identity`.
        example: what the model's forward takes.
        per_epoch: training steps in an epoch.
    """
    layers = [f"{name} {type(module).__name__}" for name, module in dense.named_modules()]
    learning = [name for name, p in dense.named_parameters() if p.requires_grad]
    return {
        "options": config.identity(),
        "weights": weights_digest(dense),
        "layers": _digest(layers),
        LEARNING: _digest(learning),
        OUTPUTS: _outputs(dense, example),
        TRAINING: _outputs_in_training(dense, example),
        "input shapes": [list(tensor.shape) for tensor in tensors_in(example)],
        "steps per epoch": per_epoch,
        **data,
    }


def data_identity(
    train: Iterable[Any],
    val: Iterable[Any] | None,
    test: Iterable[Any] | None,
    loss_fn: object,
    metric: Measure | None = None,
) -> dict[str, Any]:
    """The loss, a metric of the user's own, and the three parts of the data by name."""
    name = getattr(loss_fn, "__qualname__", type(loss_fn).__qualname__)
    does = None if loss_fn is None else digest_of(loss_fn)
    parts = {"training data": train, "validation data": val, "test data": test}
    judged = None if metric is None else metric.identity()
    return {
        "loss": "cross-entropy" if loss_fn is None else name,
        **({} if does is None else {"loss's code": does}),
        **({} if judged is None else {"metric": judged}),
        **{part: None if loader is None else contents(loader) for part, loader in parts.items()},
    }


def environment(where: torch.device) -> dict[str, Any]:
    """What the last bits of a run depend on; threads share out sums on a CPU."""
    threads = {"threads": torch.get_num_threads()} if where.type == "cpu" else {}
    return {"device": device_name(where), "torch": torch.__version__, **threads}


def _digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _outputs(model: nn.Module, example: Inputs) -> list[float] | None:
    """What the model makes of made-up inputs, in which changed code shows, whatever its layers are called."""
    modes = {m: m.training for m in model.modules()}
    try:
        return _numbers(model.eval(), example)
    finally:
        for module, mode in modes.items():
            module.training = mode


def _outputs_in_training(model: nn.Module, example: Inputs) -> list[float] | None:
    """The same of a copy that trains, in which dropout and code for the training alone show.

    On the CPU, so that what it draws does not depend on the device, and therefore of two inputs.
    """
    try:
        return _numbers(copy.deepcopy(model).cpu().train(), map_tensors(Tensor.cpu, rows(example, 2)))
    except Exception:  # some networks cannot be copied
        return None


@torch.no_grad()
def _numbers(model: nn.Module, example: Inputs) -> list[float] | None:
    generator = torch.Generator().manual_seed(0)

    def made_up(x: Tensor) -> Tensor:
        if not x.is_floating_point():
            return torch.ones_like(x)
        return torch.rand(x.shape, generator=generator).to(x)

    try:
        with streams.kept():
            streams.seed_all(0)
            found = tensors_in(call(model, map_tensors(made_up, example)))
        values = torch.cat([t.flatten()[:_KEPT] for t in found if t.is_floating_point()]).double().cpu()
        numbers = values[:_KEPT].tolist()
        return numbers if all(map(math.isfinite, numbers)) else None
    except Exception:  # made-up inputs are not for every model
        return None
