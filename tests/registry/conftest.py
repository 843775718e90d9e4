"""Shared by the tests of model files: a small network, and files that must be refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import DIGITS
from torch import nn

from snnprune.errors import ModelFileError
from snnprune.registry import build, load_model


def digits(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build(DIGITS).eval()


def refused(path: Path, *parts: str, **options) -> str:
    with pytest.raises(ModelFileError) as caught:
        load_model(path, **options)
    text = str(caught.value)
    for part in (str(path), *parts):
        assert part in text, text
    return text


def linear(num_classes: int = 3) -> nn.Module:
    return nn.Linear(4, num_classes)
