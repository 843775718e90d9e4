"""The exception tree.

    SnnPruneError
    ├── ConfigError (ValueError)          a bad option or argument
    │   ├── TargetError                   a target that makes no sense, or cannot be met
    │   └── AttachError (RuntimeError)    gates where a plain model is needed, or used after detach
    ├── DataError                         a data set that is missing, empty or malformed
    ├── ModelFileError                    a model file that cannot be read safely or fits nothing
    ├── UnsupportedModelError             the model does not run, or nothing in it can be pruned exactly
    ├── CollapsedLayerError               a whole layer would be removed
    ├── CriterionError                    a criterion or another library's pruner is of no use on this model
    ├── DivergedError (ArithmeticError)   the loss, a gradient or a scale is not finite
    ├── ExactnessError                    gated, folded, removed and exported models disagree
    │   └── ExportError                   the ONNX file is not what the model computes
    ├── StructureError (ValueError)       a saved structure does not fit the model
    ├── CompilerError (RuntimeError)      torch.compile fails
    ├── TimingError                       what was timed is not to be believed
    └── RunError                          a run folder or checkpoint is in the way, missing or damaged
        └── LostRankError                 another process of a run on several GPUs has ended

A message names the value and where it stands, the cause, and the remedy. It is one line of characters that print,
whatever the names that it quotes hold.
"""

from __future__ import annotations

import re

from .shown import visible


class SnnPruneError(Exception):
    """Base of every error that this package raises on purpose."""

    def __str__(self) -> str:
        return visible(super().__str__())


class ConfigError(SnnPruneError, ValueError):
    """An option or argument has a value that makes no sense."""


class TargetError(ConfigError):
    """The target makes no sense, or what it asks for cannot be reached."""


class DataError(SnnPruneError):
    """A data set is missing, empty or malformed."""


class ModelFileError(SnnPruneError):
    """A model file cannot be read, is not trusted, or fits no architecture."""


class UnsupportedModelError(SnnPruneError):
    """The model does not run on its example, or nothing in it can be pruned exactly; the message says why."""


class AttachError(ConfigError, RuntimeError):
    """A model with gates was given where a plain one is needed, or gates were used after they were detached."""


class CollapsedLayerError(SnnPruneError):
    """Every neuron of a layer has scale 0, which would cut the network."""


class CriterionError(SnnPruneError):
    """A criterion cannot judge this model, or a pruner of another library cannot cut it; the message says why."""


class DivergedError(SnnPruneError, ArithmeticError):
    """Training produced a value that is not finite."""


class MetricError(SnnPruneError):
    """A metric of the user's own fails, or gives no finite number."""


class ExactnessError(SnnPruneError):
    """Two models that must compute the same do not."""


class ExportError(ExactnessError):
    """An exported file does not compute what the model computes, or cannot be written."""


class StructureError(SnnPruneError, ValueError):
    """A saved structure does not fit the model it is loaded into."""


class CompilerError(SnnPruneError, RuntimeError):
    """`torch.compile` cannot compile the model, or finds no compiler here."""


class TimingError(SnnPruneError):
    """Times vary so much, or other work took so much of the machine, that no figure can be given."""


class RunError(SnnPruneError):
    """A run folder or a checkpoint is in the way, in use, missing, damaged, or of another run."""


class LostRankError(RunError):
    """Another process of this run has ended, so that this one cannot go on."""


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, shortened, for messages of our own."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
