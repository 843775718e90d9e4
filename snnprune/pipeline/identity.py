"""What a run depends on: its model, its data, its options."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .. import streams
from ..fingerprint import digest_of
from ..inputs import Inputs, call, map_tensors, tensors_in
from ..learner import PruneConfig
from ..learner.identity import LEARNING, OUTPUTS, SETTINGS
from ..measures import Measure
from ..resting import evaluating
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
        SETTINGS: _digest(_settings(dense)),
        LEARNING: _digest(learning),
        OUTPUTS: _outputs(dense, example),
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


def _settings(model: nn.Module) -> list[str]:
    """Numbers that layers were made with, such as the rate of a dropout, and switches of the user's own layers.

    Whole numbers are left out, which may count something; so are switches of PyTorch's layers, of which every
    version has more.
    """
    found = []
    for name, module in model.named_modules():
        kinds = (float,) if type(module).__module__.startswith("torch.") else (float, bool)
        found += [
            f"{name}.{key} {value!r}"
            for key, value in sorted(vars(module).items())
            if type(value) in kinds and key != "training" and not key.startswith("_")
        ]
    return found


def _outputs(model: nn.Module, example: Inputs) -> list[float] | None:
    """What the model makes of made-up inputs, in which changed code shows, whatever its layers are called."""
    generator = torch.Generator().manual_seed(0)

    def made_up(x: Tensor) -> Tensor:
        if not x.is_floating_point():
            return torch.ones_like(x)
        return torch.rand(x.shape, generator=generator).to(x)

    try:
        with streams.kept(), evaluating(model):
            streams.seed_all(0)
            found = tensors_in(call(model, map_tensors(made_up, example)))
        values = torch.cat([t.flatten()[:_KEPT] for t in found if t.is_floating_point()]).double().cpu()
        numbers = values[:_KEPT].tolist()
        return numbers if all(map(math.isfinite, numbers)) else None
    except Exception:  # made-up inputs are not for every model
        return None
