"""The recovery that ends the runs in which our search has no part, and the dense network trained equally long."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

from torch import nn

from ..learner import Checkpoint, recover
from ..pipeline.identity import environment
from ..pipeline.setting import Setting
from .entrants import Entrant
from .later import later

logger = logging.getLogger(__name__)


def store_of(setting: Setting, entrant: Entrant, place: Path | None) -> Checkpoint | None:
    """The checkpoint of a run in a folder; None keeps none."""
    if place is None:
        return None
    identity = {**setting.identity(setting.config), "entrant": entrant.name}
    return Checkpoint(place, identity, environment=environment(setting.where))


def let_learn_(network: nn.Module, dense: nn.Module) -> None:
    """What learned in the dense network learns again, and nothing else."""
    flags = {name: p.requires_grad for name, p in dense.named_parameters()}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(flags.get(name, True))


def finished(
    setting: Setting, network: nn.Module, steps: int, store: Checkpoint | None, *, resume: bool, before: int = 0
) -> nn.Module:
    """A network after the recovery that all have.

    Args:
        setting: data, loss and options.
        network: cut or not; it learns in place.
        steps: of the recovery.
        store: for checkpoints.
        resume: go on from the one that lies there.
        before: steps in which it has learned from the data already; it goes on with those that follow.

    Raises:
        DivergedError: the learning diverged.
    """
    let_learn_(network, setting.dense)
    known = store.load() if store is not None and resume else None
    if known is not None and not _fits(known, network):
        logger.warning(
            "the cut came out another way than before the stop, as sums on a GPU do; its recovery begins anew"
        )
        known = None
    recover(
        network,
        later(setting.train, before, setting.per_epoch),
        setting.loss,
        setting.config,
        total=steps,
        val=setting.val,
        metric=setting.metric,
        callbacks=setting.callbacks,
        checkpoint=store,
        resume=known,
        speed=setting.speed,
    )
    return network.eval()


def _fits(checkpoint: dict[str, Any], network: nn.Module) -> bool:
    """Whether a checkpoint is of a network of these widths; with its values any channels will do."""
    known = checkpoint["state"]["model"]
    now = network.state_dict()
    return known.keys() == now.keys() and all(known[name].shape == value.shape for name, value in now.items())


def trained_on(setting: Setting, store: Checkpoint | None, *, resume: bool) -> tuple[nn.Module, dict[str, int]]:
    """The dense network, nothing cut, after all steps in the same recovery; and those steps by stage.

    Raises:
        DivergedError: the learning diverged.
    """
    setting.begin()
    total = setting.steps(setting.config).total
    return finished(setting, copy.deepcopy(setting.dense), total, store, resume=resume), {"recover": total}
