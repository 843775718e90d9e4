"""How fast a stage computes: precision, memory format and compiler, given or measured on the device at hand."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, get_args

import torch
from torch import nn

from ..errors import first_line
from ..ranks import Ranks
from .config import Precision, PruneConfig

logger = logging.getLogger(__name__)
_MEASURED = ("cuda",)  # kinds of devices on which `auto` measures; elsewhere it is plain
_GAIN = 0.95  # of the time without it that something may take, to be worth its trouble
_COMPILING_PAYS = 600.0  # seconds that are still to be learned
_WARM, _BLOCKS, _STEPS = 3, 2, 4


@dataclass(frozen=True, slots=True)
class Speed:
    """What a stage computes in.

    Attributes:
        precision: of the network and its teacher, under `torch.autocast`.
        channels_last: whether convolutions' weights and feature maps lie in memory with their channels next to
            each other.
        compile: whether network and teacher run through `torch.compile`.
        measured: candidate -> seconds of a step, where it was measured; candidates that failed are left out.
    """

    precision: Precision = "float32"
    channels_last: bool = False
    compile: bool = False
    measured: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """In words, such as `bfloat16, channels_last`."""
        parts = [self.precision, "channels_last" * self.channels_last, "compile" * self.compile]
        return ", ".join(filter(None, parts))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for reports and checkpoints."""
        return asdict(self)

    @classmethod
    def read(cls, values: Any) -> Speed:
        """What `to_dict` gave.

        Args:
            values: from a file.

        Raises:
            KeyError, TypeError, ValueError: they are of another form.
        """
        found = cls(**values)
        flags = type(found.channels_last) is bool and type(found.compile) is bool
        if found.precision not in get_args(Precision) or not flags or type(found.measured) is not dict:
            raise ValueError(f"nothing computes in {values!r}")
        return found


def speed_of(config: PruneConfig) -> Speed:
    """What the options say; `auto` is the plain way: float32, the usual memory format, no compiler."""
    return Speed(
        "float32" if config.precision == "auto" else config.precision,
        config.channels_last is True,
        config.compile is True,
    )


def is_open(config: PruneConfig, device: torch.device) -> bool:
    """Whether something is left to be measured on this device."""
    return device.type in _MEASURED and "auto" in (config.precision, config.channels_last, config.compile)


def candidates(config: PruneConfig, model: nn.Module) -> list[Speed]:
    """What `auto` has to choose from, without the compiler: the plain way first, then what changes more."""
    start = speed_of(config)
    formats, precisions = [start.channels_last], [start.precision]
    if config.channels_last == "auto" and any(p.dim() == 4 for p in model.parameters()):
        formats.append(True)
    if config.precision == "auto" and (not torch.cuda.is_available() or torch.cuda.is_bf16_supported()):
        precisions.append("bfloat16")
    return [replace(start, precision=p, channels_last=c) for p in precisions for c in formats]


def choose(
    found: Sequence[Speed],
    seconds: Callable[[Speed], float],
    *,
    left: int,
    may_compile: bool,
    ranks: Ranks,
) -> Speed:
    """The fastest candidate; one that changes more has to be faster by more than a twentieth.

    Args:
        found: candidates, the plain one first.
        seconds: of a step of a candidate; infinite where it fails.
        left: steps that the stage still has to do.
        may_compile: also measure the compiler, if so many steps take long enough for it to pay.
        ranks: the processes that measure together; all come to the same choice.

    Returns:
        The choice, with all that was measured.
    """
    measured: dict[str, float] = {}

    def timed(candidate: Speed) -> float:
        (total,) = ranks.total(seconds(candidate))
        if math.isfinite(total):
            measured[candidate.name] = round(total / ranks.world, 6)
        return total / ranks.world

    best, least = found[0], math.inf
    if len(found) > 1 or may_compile:
        least = timed(best)
        for candidate in found[1:]:
            value = timed(candidate)
            if value < _GAIN * least:
                best, least = candidate, value
    if may_compile and least < math.inf and left * least > _COMPILING_PAYS:
        candidate = replace(best, compile=True)
        value = timed(candidate)
        if value < _GAIN * least:
            best = candidate
        elif value == math.inf:
            logger.warning("torch.compile does not take this model; the recovery goes on without it")
    return replace(best, measured=measured)


def now() -> float:
    """Seconds, after all that was asked of a GPU is done."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds_of(make: Callable[[], Callable[[], torch.Tensor]], clock: Callable[[], float], name: str) -> float:
    """Seconds of a step, the better of two looks after a few steps to warm up; infinite where it fails.

    Args:
        make: gives the step, on copies of everything that it changes; the step returns its figures.
        clock: gives the time in seconds, and waits for the device before.
        name: of what is measured.
    """
    looks, step = [], None
    try:
        step = make()
        for _ in range(_WARM):
            step()
        for _ in range(_BLOCKS):
            began = clock()
            for _ in range(_STEPS):
                figures = step()
            looks.append((clock() - began) / _STEPS)
        if not bool(figures.isfinite().all()):  # pyright: ignore[reportPossiblyUnboundVariable]
            raise FloatingPointError("its loss is not finite")
    except Exception as error:  # whatever a model, a loss or the memory says to this way to compute
        logger.info("%s is out of the question (%s: %s)", name, type(error).__name__, first_line(error))
        return math.inf
    finally:
        step = None  # with its copies, whose memory the next one needs
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.empty_cache()
    return min(looks)


def is_channels_last(model: nn.Module) -> bool:
    """Whether all weights of convolutions of images lie so in memory."""
    wide = [p for p in model.parameters() if p.dim() == 4]
    return all(p.is_contiguous(memory_format=torch.channels_last) for p in wide)


def channels_last_(model: nn.Module) -> nn.Module:
    """Let the weights of convolutions of images lie in memory with their channels next to each other, in place."""
    for parameter in model.parameters():  # Module.to() stumbles over convolutions of videos
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


def in_format(model: nn.Module, speed: Speed) -> nn.Module:
    """The model itself where it lies in memory as wanted, or a copy that does."""
    if not speed.channels_last or is_channels_last(model):
        return model
    return channels_last_(copy.deepcopy(model))
