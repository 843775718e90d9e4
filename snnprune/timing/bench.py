"""Models side by side: each on every engine, at every batch size, all by the one clock."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from ..errors import ConfigError
from ..export import export_onnx
from ..inputs import Inputs
from ..options import Count, CountOrZero, Part, Place, Positive, checked, each
from ..plain import plain
from ..shown import brief_repr
from .clock import Measured, measure, own_time
from .latency import Latency, judged
from .networks import serve_network, threads_of
from .serving import Engine, Precision, Serving, Threads, cores_here
from .sessions import Served, serve_file

Provider = Literal["auto", "cuda", "cpu"]
_UNTIL = "0.3"


@dataclass(frozen=True, slots=True)
class Contender:
    """A model to be timed, in one or both of the forms in which it can be served.

    Attributes:
        name: in the table.
        onnx: its ONNX file, for ONNX Runtime; without it the network is exported.
        network: for PyTorch; None where there is only the file.
        example_inputs: that the network takes, at least two.
    """

    name: str
    onnx: Path | None = None
    network: nn.Module | None = None
    example_inputs: Inputs | None = None


def bench(
    models: Sequence[Any] | Mapping[str, Any],
    servings: Sequence[Serving] = (Serving(),),
    *,
    example_inputs: Inputs | None = None,
    limit: float = 20.0,
    spread: float = 0.02,
    calls: int | None = None,
    warm_up: int = 10,
) -> list[Latency]:
    """Time models beside each other, on one engine after the other.

    On each, calls of all models take turns, so that a slow moment of the machine meets all of them, until the
    ratios have settled. Inputs and outputs stay on the device, so that copies are not timed.

    Args:
        models: paths of ONNX files, networks, or `Contender`s; a dict gives them names.
        servings: how each of them is served.
        example_inputs: what the networks among them take, at least two.
        limit: seconds for each model on each engine at most.
        spread: of the ratios, aimed at. Figures that vary much more in the end are refused.
        calls: timings of each model on each engine at most; None sets no bound but `limit`.
        warm_up: calls before those.

    Returns:
        Every model on the first serving, then on the next; `ratio` is to the first model on the same serving.

    Raises:
        CompilerError: `torch.compile` fails.
        ConfigError: an option makes no sense, or PyTorch is to run a model of which there is only an ONNX file.
        ExportError: a file cannot be loaded or run at that batch size, or the engine does not serve here.
        UnsupportedModelError: PyTorch cannot run a network so.

    Example:
        >>> servings = [snnprune.Serving(engine=engine) for engine in ("cpu", "torch")]
        >>> small = snnprune.bench({"small": model}, servings, example_inputs=images, calls=6)
        >>> [latency.engine for latency in small]
        ['cpu', 'torch']
    """
    calls, warm_up = checked("calls", calls, Count | None), checked("warm_up", warm_up, CountOrZero)
    limit, spread = checked("limit", limit, Positive), checked("spread", spread, Part)
    contenders, found = _contenders(models, example_inputs), []
    if isinstance(servings, Serving) or not all(isinstance(serving, Serving) for serving in servings):
        raise ConfigError(f"servings={brief_repr(servings)} must be a sequence of snnprune.Serving.")
    if not contenders or not servings:
        raise ConfigError("bench needs at least one model and one serving (an engine and a batch size).")
    with tempfile.TemporaryDirectory() as folder:
        files: dict[int, Path] = {}
        for serving in servings:
            serving = serving.resolved()
            with ExitStack() as stack:
                if serving.in_torch:
                    stack.enter_context(threads_of(serving))
                ready = [_ready(c, serving, at, files, Path(folder)) for at, c in enumerate(contenders)]
                alone = serving.threads == 1 and not serving.on_gpu
                measured = measure(
                    {str(at): served.call for at, served in enumerate(ready)},
                    spread=spread,
                    limit=limit,
                    most=calls,
                    warm_up=warm_up,
                    cpu=own_time if alone else None,
                )
            found += _rows(contenders, ready, serving, measured)
    return [judged(one, found) for one in found]


def bench_onnx(
    paths: Sequence[str | Path],
    *,
    batch_sizes: Sequence[int] = (1, 32),
    engine: Engine = "auto",
    precision: Precision = "fp32",
    threads: int = 1,
    limit: float = 20.0,
    spread: float = 0.02,
    calls: int | None = None,
    warm_up: int = 10,
    provider: Provider | None = None,
) -> list[Latency]:
    """Time ONNX files in ONNX Runtime, in turn, call by call: `bench` with one engine and several batch sizes.

    Args:
        paths: ONNX files; inputs are random.
        batch_sizes: inputs per call.
        engine: one of ONNX Runtime's. `cuda` fails where ONNX Runtime would fall back to the CPU, which it does
            silently; `auto` takes what there is, and the result names it.
        precision: with `fp16` a file is converted unless it is of half precision already.
        threads: of the CPU.
        limit: seconds for each file at each batch size at most.
        spread: of the ratios to the first file, aimed at.
        calls: timings per file and batch size at most; None sets no bound but `limit`.
        warm_up: calls before those.
        provider: the old name of `engine`, which goes in 0.3.

    Raises:
        ConfigError: a number makes no sense.
        ExportError: a file cannot be loaded or run at that batch size, or the engine does not serve here.

    Example:
        >>> check = snnprune.export_onnx(model, "m.onnx", images)
        >>> (latency,) = snnprune.bench_onnx(["m.onnx"], batch_sizes=[1], engine="cpu", calls=6)
        >>> 0 < latency.p10_ms <= latency.median_ms
        True
    """
    if provider is not None:
        engine = checked("provider", provider, Provider)
        _warn(f"provider={provider!r}", f"engine={provider!r}")
    if type(threads) is int and threads == 0:
        threads = cores_here()
        _warn("threads=0", f"a number, such as threads={threads}")
    batch_sizes, paths = each("batch_sizes", batch_sizes, Count), each("paths", paths, Place)
    one = Serving(engine=engine, precision=precision, threads=checked("threads", threads, Threads))
    servings = [replace(one, batch=batch) for batch in batch_sizes]
    return bench(paths, servings, limit=limit, spread=spread, calls=calls, warm_up=warm_up)


def _warn(old: str, new: str) -> None:
    text = f"snnprune.bench_onnx({old}) has moved: write {new}. The old way goes in {_UNTIL}."
    warnings.warn(text, DeprecationWarning, stacklevel=3)


def _contenders(models: Any, example_inputs: Inputs | None) -> list[Contender]:
    """What was given, each with a name and its forms."""
    if isinstance(models, Mapping):
        named: Iterator[tuple[str | None, Any]] = ((str(name), model) for name, model in models.items())
    elif isinstance(models, (str, bytes, os.PathLike, nn.Module)) or not isinstance(models, Sequence):
        raise ConfigError(f"models={brief_repr(models)} must be a sequence or a dict of files and networks.")
    else:
        named = ((None, model) for model in models)
    found = []
    for at, (name, model) in enumerate(named):
        if isinstance(model, Contender):
            found.append(model)
        elif isinstance(model, nn.Module):
            if example_inputs is None:
                raise ConfigError("bench of a network needs example_inputs, at least two.")
            network = plain(model, "bench()")
            found.append(Contender(name or f"model {at}", None, network, example_inputs))
        else:
            path = checked(f"models[{at}]", model, Place)
            found.append(Contender(name or str(path), path))
    return found


def _ready(one: Contender, serving: Serving, at: int, files: dict[int, Path], folder: Path) -> Served:
    """A contender as the serving has it; what is exported for that is kept for the next one."""
    if serving.in_torch:
        if one.network is None or one.example_inputs is None:
            raise ConfigError(
                f"{one.name}: an ONNX file is run by ONNX Runtime alone, and not by engine={serving.engine!r}. "
                "Give the network itself: a run folder or a model file."
            )
        return serve_network(one.network, one.example_inputs, serving, one.name)
    file = one.onnx or files.get(at)
    if file is None:
        if one.network is None or one.example_inputs is None:
            raise ConfigError(f"{one.name}: there is neither an ONNX file nor a network with example inputs.")
        file = files[at] = folder / f"{at}.onnx"
        export_onnx(one.network, file, one.example_inputs)
    return serve_file(file, serving, one.name)


def _rows(
    contenders: Sequence[Contender], ready: Sequence[Served], serving: Serving, measured: Measured
) -> Iterator[Latency]:
    device = serving.device()
    for at, (contender, served) in enumerate(zip(contenders, ready, strict=True)):
        name, time = str(at), measured[str(at)]
        refused = measured.ratio_refused(name)
        yield Latency(
            contender.name,
            served.provider,
            serving.batch,
            time.median_ms,
            time.ms,
            time.p90_ms,
            time.calls,
            engine=serving.engine,
            device=device,
            precision=served.precision,
            threads=serving.threads,
            spread=time.spread,
            load=str(measured.load),
            refused=measured.refused(name),
            ratio=measured.ratio(name) if refused is None else None,
            ratio_spread=measured.ratio_spread(name),
            ratio_refused=refused,
        )
