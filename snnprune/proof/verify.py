"""The proof that removal is exact: the same scales as gates, and folded and removed, in float64."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .. import layers
from ..draws import Draws
from ..errors import UnsupportedModelError, first_line
from ..graph import NeuronGroup
from ..inputs import Inputs, call, kept_buffers, map_tensors, tensors_in, to_dtype
from ..surgery.fold import fold_
from ..surgery.remove import remove_
from ..surgery.scales import Scales, leave_alive_
from .difference import gated_difference, layers_to_watch, random_scales, randomize_norms_

logger = logging.getLogger(__name__)

_PARTS = 4  # so many times another share of the neurons is off, until each was once
_TRIALS = 300  # a bound on the search for groups at fault: what is not cleared by then is kept


def _turned_off(groups: Sequence[NeuronGroup], generator: torch.Generator, part: int) -> dict[str, Tensor]:
    """Scales whose zeros are every `_PARTS`-th neuron, from `part` on."""
    scales = random_scales(groups, generator, zeros=0.0)
    for scale in scales.values():
        if len(scale) > 1:
            scale[part::_PARTS] = 0.0
    leave_alive_(groups, scales)
    return scales


def _with_noise(inputs: Inputs, generator: torch.Generator, least: int = 0) -> Inputs:
    """The inputs plus noise of their size: on constant images every mistake would pass.

    Tensors of fewer than `least` dimensions (boxes, which not every number can be) stay as they are.
    """

    def add(x: Tensor) -> Tensor:
        if not x.is_floating_point() or x.dim() < least:
            return x
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        scale = float(x.std()) if x.numel() > 1 else 0.0
        return x + (scale or 1.0) * noise.to(x.device)

    return map_tensors(add, inputs)


@torch.no_grad()
def _probe_inputs(probe: nn.Module, given: Inputs, generator: torch.Generator) -> tuple[Inputs, bool]:
    """Inputs that show mistakes and that the model takes in float64, and whether it draws random numbers.

    Raises:
        UnsupportedModelError: it does not run in float64, or returns nothing to compare.
    """
    outputs: list[Tensor] = []
    draws = Draws()
    for inputs in (_with_noise(given, generator), _with_noise(given, generator, least=3), given):
        try:
            outputs = tensors_in(draws.run(lambda inputs=inputs: call(probe, inputs)))
            break
        except Exception as error:  # whatever the model's own forward raises
            if inputs is given:
                raise UnsupportedModelError(
                    f"the model does not run in float64, in which exactness is proved ({first_line(error)}). Its "
                    "forward fixes a dtype; use the dtype of the inputs or of a weight there."
                ) from error
    if not any(t.is_floating_point() for t in outputs):
        raise UnsupportedModelError(
            "the model returns no tensors (nor tuples, lists or dicts of them), so nothing can be proved about it."
        )
    return inputs, bool(draws.made)


@torch.no_grad()
def _runs_in_training(probe: nn.Module, inputs: Inputs) -> bool:
    """Whether the model runs in training mode; it and its buffers are left as they were."""
    try:
        with kept_buffers(probe):
            Draws().run(lambda: call(probe.train(), inputs))
    except Exception:  # such as a batch norm over a single value
        return False
    finally:
        probe.eval()
    return True


@dataclass(frozen=True, slots=True)
class _Fault:
    """What went wrong, and in which module, where that is known."""

    why: str
    module: str | None = None


class _Proof:
    """Tries sets of groups on one float64 copy of a model."""

    def __init__(self, model: nn.Module, groups: Sequence[NeuronGroup], inputs: Inputs, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.probe = randomize_norms_(copy.deepcopy(model).double().eval(), generator)
        self.given = to_dtype(inputs, torch.float64)
        self.inputs, random = _probe_inputs(self.probe, self.given, generator)
        self.trains = _runs_in_training(self.probe, self.given)
        # A layer or operation of the user's own may depend on single neurons (a maximum over the weights), so
        # there every neuron is off once; elsewhere two draws are enough: one may happen to be symmetric.
        own = any(layers.is_customized(module) for module in self.probe.modules()) or any(g.rules for g in groups)
        # One that draws may happen to mask the very place where a mistake is: it is tried with more draws.
        self.draws = [random_scales(groups, generator) for _ in range(4 if random else 2)]
        self.draws += [_turned_off(groups, generator, part) for part in range(_PARTS if own else 0)]
        self.watch = layers_to_watch(self.probe, groups, self.draws[0], self.inputs)
        self.groups = groups
        self.trials = 0
        self.reasons: dict[str, str] = {}

    def fault(self, chosen: Sequence[NeuronGroup]) -> _Fault | None:
        """Why these groups are not exact together; None when they are."""
        self.trials += 1
        if self.trials > _TRIALS:
            return _Fault(f"too many groups are at fault: the proof was given up after {_TRIALS} trials")
        for number, scales in enumerate(self.draws):
            found = self._try({group.id: scales[group.id] for group in chosen}, number)
            if found is not None:
                return found
        return None

    @torch.no_grad()
    def _try(self, scales: Scales, seed: int) -> _Fault | None:
        entered: list[str] = []
        try:
            groups = [g for g in self.groups if g.id in scales]
            removed = remove_(fold_(copy.deepcopy(self.probe), groups, scales), groups, scales)
            with _entering(removed, entered):
                difference = gated_difference(
                    self.probe, removed, groups, scales, self.inputs, watch=self.watch, seed=seed
                )
                if self.trains and difference.exact:  # auxiliary heads and the like run only in training
                    Draws().run(lambda: call(removed.train(), self.given))
        except Exception as error:  # whatever the model's own forward raises
            why = first_line(error)
            cure = " (is its shape fixed in the code? flatten(1) follows it)" if "invalid for input" in why else ""
            return _Fault(f"the model fails without its neurons: {why}{cure}", entered[-1] if entered else None)
        if difference.exact:
            return None
        return _Fault(f"removal changes the output by {difference.relative:.2g} of its spread")

    def search(self, chosen: list[NeuronGroup]) -> list[NeuronGroup]:
        """The groups of `chosen` that are exact together; `reasons` has the others.

        Where the model fails in a layer, the groups of that layer are tried first; else the set is halved.
        """
        found = self.fault(chosen)
        if found is None:
            return chosen
        if len(chosen) == 1:
            doubt = chosen[0].doubt if self.trials <= _TRIALS else ""
            self.reasons[chosen[0].id] = (doubt or found.why) + _suspects(chosen[0])
            return []
        if found.module is not None:
            near = [g for g in chosen if any(m.module == found.module for m in g.members)]
            guilty = [g.id for g in near if len(near) < len(chosen) and not self.search([g])]
            if guilty:
                return self.search([g for g in chosen if g.id not in guilty])
        half = len(chosen) // 2
        good = self.search(chosen[:half]) + self.search(chosen[half:])
        return good if self.fault(good) is None else self._admit(good)

    def _admit(self, chosen: list[NeuronGroup]) -> list[NeuronGroup]:
        """Groups that are exact apart but not together: take one after the other while they are."""
        accepted: list[NeuronGroup] = []
        for group in chosen:
            if self.fault([*accepted, group]) is None:
                accepted.append(group)
            else:
                self.reasons[group.id] = "it is exact alone but not together with other groups" + _suspects(group)
        return accepted


def _suspects(group: NeuronGroup) -> str:
    """Whom else to suspect when a group fails: rules of the user's own."""
    return f"; perhaps the rule for {' or '.join(group.rules)} is wrong" if group.rules else ""


@contextlib.contextmanager
def _entering(model: nn.Module, stack: list[str]) -> Iterator[None]:
    """Keep the names of the modules that run; after an exception the innermost is the last."""

    def enter(name: str) -> Any:
        return lambda _module, _args: stack.append(name)

    def leave(_module: nn.Module, _args: Any, _output: Any) -> None:
        stack.pop()

    handles = []
    for name, module in model.named_modules():
        handles += [module.register_forward_pre_hook(enter(name)), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def verify_groups(
    model: nn.Module, groups: Sequence[NeuronGroup], inputs: Inputs, *, seed: int = 0
) -> list[NeuronGroup]:
    """Prove every prunable group; those that fail come back as kept, with the reason.

    All groups are tried together with random scales; on failure the groups at fault are searched.
    """
    chosen = [group for group in groups if group.prunable]
    if not chosen:
        return list(groups)
    proof = _Proof(model, groups, inputs, seed)
    proof.search(chosen)
    for name, why in proof.reasons.items():
        logger.warning("group %s is kept: %s", name, why)
    return [replace(g, reason=proof.reasons[g.id]) if g.id in proof.reasons else g for g in groups]
