"""Architectures by name: torchvision's, `package.module:function` or `file.py:function`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import ModelFileError
from ..files import check_name, missing
from .heads import put_head_


@lru_cache(maxsize=1)
def torchvision_names() -> tuple[str, ...]:
    """Names of torchvision's classification models."""
    from torchvision import models

    return tuple(models.list_models(module=models))


def load_factory(spec: str) -> Callable[..., Any]:
    """The function that `package.module:function` or `path/file.py:function` names. Runs that code.

    Raises:
        ModelFileError: there is no such file, module or function, or it fails while loading.
    """
    found = load_named(spec)
    if not callable(found):
        source, _, function = spec.rpartition(":")
        raise ModelFileError(f"{spec}: {source} has no function {function!r}.")
    return found


def load_named(spec: str) -> Any:
    """What `package.module:name` or `path/file.py:name` names, a function or an object; None if it is not there.

    Raises:
        ModelFileError: there is no such file or module, or it fails while loading.
    """
    source, _, function = spec.rpartition(":")
    if not source or not function:
        raise ModelFileError(f"{spec!r} is not of the form file.py:function or package.module:function.")
    if source.endswith(".py"):
        module = _load_file(Path(source), spec)
    else:
        try:
            module = importlib.import_module(source)
        except (Exception, SystemExit) as error:  # code that is no module, but a script, may end the process
            raise ModelFileError(f"{spec}: cannot import {source} ({type(error).__name__}: {error}).") from error
    return getattr(module, function, None)


def _load_file(path: Path, spec: str) -> Any:
    check_name(path, ModelFileError)
    if not path.is_file():
        raise ModelFileError(f"{spec}: {missing(path)}")
    unique = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    name = f"_snnprune_user_{path.stem}_{unique}"
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module  # so that classes defined there can be looked up
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        raise ModelFileError(f"{spec}: {path} fails while loading ({type(error).__name__}: {error}).") from error
    finally:
        if folder in sys.path:  # the file may have taken it away itself
            sys.path.remove(folder)
    return module


def build(arch: str, num_classes: int | None = None, *, meta: bool = False, **kwargs: Any) -> nn.Module:
    """Build an architecture with random weights.

    Args:
        arch: a torchvision name, or code as `load_factory` takes it.
        num_classes: passed on when given.
        meta: build it without memory for the weights, to look at names and shapes.
        kwargs: passed on to the factory; `head` of torchvision's tells of another classifier, see `heads`.

    Raises:
        ModelFileError: the name is unknown, or the factory fails or returns no module.
    """
    if ":" in arch:
        factory = load_factory(arch)
    elif arch in torchvision_names():
        from torchvision import models

        factory = models.get_model_builder(arch)
        kwargs = {"weights": None, **kwargs}
        if arch in ("googlenet", "inception_v3"):
            kwargs.setdefault("init_weights", False)
    else:
        if arch.endswith(".py"):
            raise ModelFileError(
                f"--arch {arch} names a file alone; add its function that makes the model, {arch}:name."
            )
        raise ModelFileError(
            f"architecture {arch!r} is unknown. Give a torchvision name such as resnet18, or code as "
            "file.py:function or package.module:function."
        )
    head = kwargs.pop("head", None) if ":" not in arch else None
    if num_classes is not None and head is None:
        if ":" in arch and not _takes(factory, "num_classes"):
            raise ModelFileError(f"{arch} takes no num_classes, so --num-classes cannot be used with it.")
        kwargs["num_classes"] = num_classes
    try:
        with warnings.catch_warnings(), torch.device("meta" if meta else "cpu"):
            warnings.simplefilter("ignore")
            model = factory(**kwargs)
    except (Exception, SystemExit) as error:
        raise ModelFileError(f"{arch} cannot be built ({type(error).__name__}: {error}).") from error
    if not isinstance(model, nn.Module):
        raise ModelFileError(f"{arch} returned {type(model).__name__}, not a torch.nn.Module.")
    if head is not None:
        with torch.device("meta" if meta else "cpu"):
            put_head_(model, 1000 if num_classes is None else num_classes, head)
    return model


def _takes(factory: Callable[..., Any], name: str) -> bool:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(p.name == name or p.kind is p.VAR_KEYWORD for p in parameters)
