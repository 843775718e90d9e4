"""Example inputs: one tensor, a tuple of arguments, or a dict of keyword arguments."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from .batches import are_images, rebuilt
from .errors import ConfigError, DataError, first_line
from .shown import brief_repr

Inputs = Tensor | tuple[Any, ...] | dict[str, Any]


class Batch(tuple[Any, ...]):
    """The fields of a batch, which also says what samples of its loader's data it holds.

    It is a tuple for everybody who unpacks it as (inputs, labels), and stays what it is where it is moved to a
    device.

    Attributes:
        places: (batch,) int64, of its samples in the loader's data; None where nothing is known of them.
        source: the loader that made it; its samples are always the same.
    """

    places: Tensor | None
    source: Any

    def __new__(cls, fields: Iterable[Any], places: Tensor | None = None, source: Any = None) -> Batch:
        """A batch of these fields."""
        made = super().__new__(cls, fields)
        made.places, made.source = places, source
        return made


def call(model: Callable[..., Any], inputs: Inputs) -> Any:
    """Run `model` on example inputs of any of the three forms; parts under `torch.compile` run eagerly."""
    with torch.compiler.set_stance("force_eager"):
        if isinstance(inputs, Mapping):
            return model(**inputs)
        if isinstance(inputs, tuple):
            return model(*inputs)
        return model(inputs)


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Apply `function` to every tensor inside nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {key: map_tensors(function, item) for key, item in value.items()}
    if isinstance(value, list):
        return [map_tensors(function, item) for item in value]
    if isinstance(value, tuple):
        items = [map_tensors(function, item) for item in value]
        if isinstance(value, Batch):
            places = None if value.places is None else function(value.places)
            return Batch(items, places, value.source)
        return rebuilt(value, items)
    return value


def moved(value: Any, device: torch.device) -> Any:
    """Tensors inside `value` on a device; those made under `torch.inference_mode` as ones to learn from."""

    def move(tensor: Tensor) -> Tensor:
        tensor = tensor.clone() if tensor.is_inference() else tensor
        return tensor.to(device, non_blocking=True)

    return map_tensors(move, value)


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors inside a model's output, in order; anything else is passed over."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [tensor for item in value.values() for tensor in tensors_in(item)]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in tensors_in(item)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [t for field in dataclasses.fields(value) for t in tensors_in(getattr(value, field.name))]
    return []


def to_dtype(value: Any, dtype: torch.dtype) -> Any:
    """Cast every floating-point tensor inside `value`."""
    return map_tensors(lambda x: x.to(dtype) if x.is_floating_point() else x, value)


def batch_size(inputs: Inputs) -> int:
    """How many examples the inputs hold, which is the length of the first of them that speaks for it.

    That is the first dimension of a tensor of at least two, or the length of a list with one image (1, 3 or 4
    channels, height, width), or whatever else, for each. A temperature or the weights of classes may stand before
    it: a vector speaks where nothing else does.

    Raises:
        ConfigError: there is no tensor with a batch dimension.
    """
    return len(_speaking(inputs))


def is_listed(inputs: Inputs) -> bool:
    """Whether the examples are entries of a list, not rows of tensors."""
    return isinstance(_speaking(inputs), list)


def _speaking(inputs: Inputs) -> Tensor | list[Any]:
    vector = None
    for entry in _entries(inputs):
        if isinstance(entry, list) or entry.dim() > 1:
            return entry
        if entry.dim() and vector is None:
            vector = entry
    if vector is None:
        raise ConfigError("example_inputs holds no tensor with a batch dimension.")
    return vector


def _entries(value: Any) -> Iterator[Tensor | list[Any]]:
    """Tensors that run over the examples, and lists with one entry for each, in order."""
    if isinstance(value, Tensor) or (isinstance(value, list) and _one_each(value)):
        yield value
    elif isinstance(value, (Mapping, list, tuple)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _entries(item)


def _one_each(items: list[Any]) -> bool:
    """Whether a list holds an entry for each example, not tensors that each run over all of them, nor numbers."""
    if not items or not all(tensors_in(entry) for entry in items):
        return False
    tensors = [entry for entry in items if isinstance(entry, Tensor) and entry.dim() > 1]
    if len(tensors) < len(items):
        return True
    if all(entry.dim() == 3 for entry in tensors):
        return are_images(tensors)
    return len({len(entry) for entry in tensors}) > 1


def rows(inputs: Inputs, count: int) -> Any:
    """So many examples, from the beginning again where there are not enough; what is no example stays whole."""
    speaking = _speaking(inputs)
    batch = len(speaking)
    places = [at % batch for at in range(count)]

    def runs_over(value: Any) -> bool:
        return isinstance(value, Tensor) and value.dim() > 0 and len(value) == batch

    def for_each(items: list[Any]) -> bool:
        return len(items) == batch and _one_each(items) and not all(runs_over(item) for item in items)

    def pick(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[torch.tensor(places, device=value.device)] if runs_over(value) else value
        if isinstance(value, Mapping):
            return {key: pick(item) for key, item in value.items()}
        if value is speaking or (isinstance(value, list) and for_each(value)):
            return [value[at] for at in places]
        if isinstance(value, (list, tuple)):
            return rebuilt(value, [pick(item) for item in value])
        return value

    return pick(inputs)


def unwrap(model: nn.Module) -> nn.Module:
    """The user's own model inside DataParallel, DistributedDataParallel, AveragedModel and `torch.compile`.

    The wrappers add nothing that is pruned, and hooks belong on the module that they wrap.
    """
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


@contextlib.contextmanager
def in_float32() -> Iterator[None]:
    """New tensors are of single precision meanwhile, whatever the program's default is."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def is_compiled(model: nn.Module) -> bool:
    """True when the model or a part of it runs through `torch.compile`."""
    return any(
        getattr(m, "_compiled_call_impl", None) is not None or "_orig_mod" in m._modules for m in model.modules()
    )


def logits_of(output: Any) -> tuple[Any, list[Tensor]]:
    """(main output, auxiliary outputs) of a model that may return more than one tensor.

    GoogLeNet and Inception return a named tuple in training mode, other libraries an object or a dict
    with an entry `logits`; everything of the same shape besides is an auxiliary classifier's output.
    """
    main = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if not isinstance(main, Tensor):
        return output, []
    return main, [t for t in tensors_in(output) if t is not main and t.shape == main.shape]


def device_of(model: nn.Module) -> torch.device:
    """Device of the first parameter or buffer; the CPU when there is none."""
    for tensor in [*model.parameters(), *model.buffers()]:
        return tensor.device
    return torch.device("cpu")


def usable_device(device: torch.device | str | int) -> torch.device:
    """A device on which something can be computed here.

    Raises:
        ConfigError: it is none, or not there.
    """
    try:
        where = torch.device(device)
        if where.type == "meta":
            raise TypeError("nothing is computed on it")
        torch.empty(0, device=where)
        return where
    except (RuntimeError, AssertionError, TypeError, OverflowError, ValueError) as error:
        shown = brief_repr(device)
        raise ConfigError(f"device={shown} cannot be used here ({first_line(error)}). Try cpu or cuda.") from error


def split_batch(batch: Any) -> tuple[Any, Tensor | None]:
    """A batch as (inputs, labels); labels are None in batches of inputs alone.

    Raises:
        DataError: neither a tensor, nor (inputs,), nor (inputs, labels).
    """
    if isinstance(batch, Tensor):
        return batch, None
    if isinstance(batch, (tuple, list)) and len(batch) == 1 and isinstance(batch[0], Tensor):
        return batch[0], None
    if isinstance(batch, (tuple, list)) and len(batch) == 2 and isinstance(batch[1], Tensor):
        return batch[0], batch[1]
    what = f"{len(batch)} parts" if isinstance(batch, (tuple, list)) else type(batch).__name__
    raise DataError(
        f"a batch of the loader is {what}; (inputs, labels) or inputs alone are needed. For anything else give "
        "loss_fn and example_inputs."
    )


def first_images(loader: Any, count: int) -> Tensor:
    """At least one and at most `count` inputs from the front of a loader of (inputs, labels)."""
    if hasattr(loader, "head"):  # ours, which reads no more than it has to
        return loader.head(count)
    parts: list[Tensor] = []
    have = 0
    for batch in loader:
        images = split_batch(batch)[0]
        if not isinstance(images, Tensor):
            raise DataError(
                f"the inputs of a batch are {type(images).__name__}, not one tensor; give example_inputs."
            )
        parts.append(images[: count - have])
        have += len(parts[-1])
        if have >= count:
            break
    if not have:
        raise ConfigError("the data loader yields no batch.")
    return torch.cat(parts)
