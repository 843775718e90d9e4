"""Numbers that a GPU is still computing: reading one makes Python wait for it, and the GPU then for Python."""

from __future__ import annotations

import torch
from torch import Tensor

_AHEAD = ("cuda",)  # kinds of devices that compute while the CPU goes on


def on_its_way(tensor: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """A copy of a small tensor for the CPU, and what to wait for before it is read: a GPU's is still coming."""
    if tensor.device.type != "cuda":
        return tensor, None
    sent = torch.empty_like(tensor, device="cpu", pin_memory=True)
    sent.copy_(tensor, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record(torch.cuda.current_stream(tensor.device))
    return sent, arrived


def runs_ahead(device: torch.device) -> bool:
    """Whether the CPU may run ahead of what is computed there, so that to read a number makes it wait."""
    return device.type in _AHEAD
