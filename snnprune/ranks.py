"""Several processes that learn one model together: what they exchange.

Gradients are averaged after the backward pass by `torch.distributed`, not by wrapping the model in
`DistributedDataParallel`: that decides once which parameters learn, and here it changes from phase to phase.
Without a process group every function leaves things as they are, so callers need not ask.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import logging
import os
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .errors import ConfigError, LostRankError, RunError, first_line

logger = logging.getLogger(__name__)
_BUCKET = 2**23  # values that are exchanged at a time
_TIMEOUT = datetime.timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those of the run.

    Attributes:
        rank: its number; 0 writes files and speaks to the user.
        world: number of processes.
    """

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return self.rank == 0

    # -- data ----------------------------------------------------------------------------------

    def part(self, count: int) -> slice:
        """This process's share of `count` inputs; all of them where somebody would get fewer than two.

        Batch norm over one input has nothing to normalise.
        """
        if count < 2 * self.world:
            return slice(0, count)
        return slice(count * self.rank // self.world, count * (self.rank + 1) // self.world)

    # -- exchange ------------------------------------------------------------------------------

    def mean(self, value: Tensor, weight: float) -> tuple[Tensor, Tensor | float]:
        """Weighted mean over all processes, and this one's share of the weight.

        Args:
            value: of this process, a number on any device.
            weight: of it, such as its inputs; >= 0.

        Returns:
            Both as float64 tensors on the value's device, so that nobody waits for them; alone, what was given
            and 1.
        """
        if self.world == 1:
            return value, 1.0
        value = value.double()
        own = torch.full_like(value, weight)
        with _exchange():
            both = _sum(torch.stack([value * own, own]))
        return both[0] / both[1], own / both[1]

    def total(self, *values: float) -> tuple[float, ...]:
        """Each number's sum over all processes."""
        if self.world == 1:
            return values
        with _exchange():
            return tuple(_sum(torch.tensor(values, dtype=torch.float64)).tolist())

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Each flag, true everywhere if it is true anywhere."""
        if self.world == 1:
            return flags
        with _exchange():
            return tuple(bool(v) for v in _sum(torch.tensor([float(f) for f in flags])))

    def average_gradients_(self, parameters: Iterable[Tensor], share: Tensor | float) -> None:
        """Replace gradients by their mean over all processes, each weighted by its share of the inputs."""
        if self.world == 1:
            return
        parameters = list(parameters)
        if not parameters:
            return
        there = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32)
        with _exchange():
            anywhere = _sum(there) > 0
        chosen = [p for p, needed in zip(parameters, anywhere.tolist(), strict=True) if needed]
        for p in chosen:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad.mul_(share)
        self.sum_([p.grad for p in chosen if p.grad is not None])

    def average_statistics_(self, model: nn.Module, share: Tensor | float) -> None:
        """Replace the running statistics of norms by their weighted mean over all processes."""
        if self.world == 1:
            return
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase) and m.training]
        found = [b for m in norms for b in (m.running_mean, m.running_var) if b is not None]
        for buffer in found:
            buffer.mul_(share)
        self.sum_(found)

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over all processes, in place; same dtype and device."""
        if self.world == 1:
            return
        with torch.no_grad(), _exchange():
            for bucket in _buckets(tensors):
                flat = torch.cat([t.reshape(-1).to(bucket[0].dtype) for t in bucket])
                parts = _sum(flat).split([t.numel() for t in bucket])
                for tensor, part in zip(bucket, parts, strict=True):
                    tensor.copy_(part.view_as(tensor))

    def pool_(self, total: Mapping[str, Tensor], reached: set[str], seen: int) -> tuple[set[str], int]:
        """Sums over all processes, in place; names that were reached anywhere, and inputs seen by all."""
        if self.world == 1:
            return reached, seen
        self.sum_(list(total.values()))
        anywhere = self.any(*(name in reached for name in total))
        with _exchange():
            inputs = int(_sum(torch.tensor([float(seen)], dtype=torch.float64)))
        return {name for name, found in zip(total, anywhere, strict=True) if found}, inputs

    def same_(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by those of rank 0, in place."""
        if self.world == 1:
            return
        import torch.distributed as dist

        with torch.no_grad(), _exchange():
            for tensor in tensors:
                moved = tensor.detach().to(_carrier())
                moved = moved.to(torch.uint8) if moved.dtype == torch.bool else moved.contiguous()
                dist.broadcast(moved, 0)
                tensor.copy_(moved.to(tensor.device, tensor.dtype))

    def same_values(self, *values: float) -> list[float]:
        """Numbers of rank 0."""
        found = torch.tensor(values, dtype=torch.float64)
        self.same_([found])
        return found.tolist()

    def check_equal(
        self, state: Mapping[str, Any], what: str, remedy: str = "Please report this with the model's name."
    ) -> None:
        """Every process must hold the same to the bit.

        Raises:
            RunError: they do not.
        """
        if self.world == 1:
            return
        value = hashlib.sha256()
        for name, tensor in state.items():
            value.update(name.encode())
            if isinstance(tensor, Tensor):
                value.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        own = torch.frombuffer(bytearray(value.digest()), dtype=torch.uint8).to(torch.float32)
        first = own.clone()
        self.same_([first])
        if self.any(not torch.equal(own, first))[0]:
            raise RunError(
                f"the {self.world} processes of this run hold different {what}, so the result cannot be trusted. "
                + remedy
            )

    def wait(self) -> None:
        """Wait for the others."""
        self.any(False)


def current() -> Ranks:
    """This process's place; a lonely one without a process group."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return Ranks()
    return Ranks(dist.get_rank(), dist.get_world_size())


@contextlib.contextmanager
def launched(device: str) -> Iterator[tuple[Ranks, str]]:
    """Join the other processes if `torchrun` started this one; yields the ranks and this one's device.

    Args:
        device: as the user gave it; `cuda` becomes this process's own GPU.

    Raises:
        ConfigError: the others cannot be found, or there are fewer GPUs than processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "RANK" not in os.environ:
        yield current(), device
        return
    import torch.distributed as dist

    if device.startswith("cuda"):
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"process {local} of this machine has no GPU of its own: there are {torch.cuda.device_count()}. "
                "Start fewer processes with --nproc-per-node, or give --device cpu."
            )
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
    try:
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=_TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"the processes of this run do not find each other ({first_line(error)}).") from error
    before = signal.signal(signal.SIGTERM, _told_to_stop)
    try:
        yield current(), device
    except BaseException:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which the launcher sends now; there is a message to write
        raise
    else:
        signal.signal(signal.SIGTERM, before)
    finally:
        with contextlib.suppress(Exception):
            dist.destroy_process_group()


def _told_to_stop(_signal: int, _frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise LostRankError("the launcher ended this process, as it does when another one of the run has failed.")


@contextlib.contextmanager
def _exchange() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # every backend has its own words for a peer that is gone
        logger.info("exchange failed: %s", first_line(error))
        raise LostRankError("another process of this run has ended, and none can go on alone.") from error


def _carrier() -> torch.device:
    """Where tensors must lie to be exchanged."""
    import torch.distributed as dist

    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")


def _sum(tensor: Tensor) -> Tensor:
    import torch.distributed as dist

    where = tensor.device
    moved = tensor.to(_carrier())
    dist.all_reduce(moved)
    return moved.to(where)


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        alike = not bucket or (tensor.dtype, tensor.device) == (bucket[0].dtype, bucket[0].device)
        if bucket and (size + tensor.numel() > _BUCKET or not alike):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.numel()
    if bucket:
        yield bucket
