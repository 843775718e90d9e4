"""What a checkpoint belongs to: digests of a model, its data and its options."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..data import ArrayLoader, info_of
from ..inputs import Inputs, tensors_in
from ..learner import PruneConfig


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of all weights and buffers with their names."""
    value = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, Tensor):
            value.update(name.encode())
            value.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return value.hexdigest()


def run_digest(
    dense: nn.Module, config: PruneConfig, train: Iterable[Any], example: Inputs, per_epoch: int
) -> str:
    """SHA-256 of what a run depends on.

    Args:
        dense: the model that came in.
        config: its options.
        train: the training loader.
        example: what the model's forward takes.
        per_epoch: training steps in an epoch.
    """
    value = hashlib.sha256(weights_digest(dense).encode())
    value.update(json.dumps(config.identity(), sort_keys=True).encode())
    shapes = [size for tensor in tensors_in(example) for size in tensor.shape]
    value.update(json.dumps([per_epoch, shapes, repr(info_of(train))]).encode())
    if isinstance(train, ArrayLoader):  # another folder of the same name is another data set
        value.update(train.images[:64].cpu().numpy().tobytes())
        value.update(train.labels.cpu().numpy().tobytes())
    return value.hexdigest()
