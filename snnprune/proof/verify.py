"""The proof that removal is exact: the same scales as gates, and folded and removed, in float64."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .. import layers
from ..draws import Draws
from ..errors import UnsupportedModelError, first_line
from ..graph import NeuronGroup
from ..inputs import Inputs, call, map_tensors, tensors_in, to_dtype
from ..resting import kept_buffers
from ..surgery.fold import fold_
from ..surgery.remove import remove_
from ..surgery.scales import leave_alive_
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

    Tensors of fewer than `least` dimensions (boxes, which not every number can be) stay as they are, and so do
    infinities, which masks of attention consist of.
    """

    def add(x: Tensor) -> Tensor:
        if not x.is_floating_point() or x.dim() < least:
            return x
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        finite = x[x.isfinite()]
        scale = float(finite.std()) if finite.numel() > 1 else 0.0
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


Stage = Literal["runs", "agrees", "trains"]


@dataclass(frozen=True, slots=True)
class _Fault:
    """What went wrong, where, and what it takes to see it again.

    Attributes:
        why: for the reason of the group.
        module: that ran when it went wrong, where that is known.
        draw: number of the scales.
        stage: the removed model fails, or differs from the gated one, or fails in training mode alone.
    """

    why: str
    module: str | None
    draw: int
    stage: Stage


class _Proof:
    """Tries sets of groups on one float64 copy of a model."""

    def __init__(
        self, model: nn.Module, groups: Sequence[NeuronGroup], inputs: Inputs, seed: int, outputs: Sequence[str]
    ) -> None:
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
        self.watch = layers_to_watch(self.probe, groups, self.draws[0], self.inputs, outputs)
        self.groups, self.outputs = groups, outputs
        self.trials = 0
        self.reasons: dict[str, str] = {}

    def fault(self, chosen: Sequence[NeuronGroup]) -> _Fault | None:
        """Why these groups are not exact together; None when they are."""
        return next((f for n in range(len(self.draws)) if (f := self._try(chosen, n)) is not None), None)

    def _again(self, chosen: Sequence[NeuronGroup], found: _Fault) -> _Fault | None:
        """Whether these groups show a fault of this kind too, by no more passes than that takes."""
        self.trials += 1
        if self.trials > _TRIALS:
            return replace(
                found, why=f"too many groups are at fault: the proof was given up after {_TRIALS} trials"
            )
        return self._try(chosen, found.draw, found.stage)

    @torch.no_grad()
    def _try(self, chosen: Sequence[NeuronGroup], draw: int, only: Stage | None = None) -> _Fault | None:
        scales = {group.id: self.draws[draw][group.id] for group in chosen}
        entered: list[str] = []
        stage: Stage = only or "runs"
        try:
            groups = [g for g in self.groups if g.id in scales]
            removed = remove_(fold_(copy.deepcopy(self.probe), groups, scales), groups, scales)
            with _entering(removed, entered):
                if only == "runs":
                    Draws(draw).run(lambda: call(removed, self.inputs))
                elif only != "trains":
                    stage = "agrees"
                    difference = gated_difference(
                        self.probe,
                        removed,
                        groups,
                        scales,
                        self.inputs,
                        watch=self.watch,
                        seed=draw,
                        outputs=self.outputs,
                    )
                    if not difference.exact:
                        why = f"removal changes the output by {difference.relative:.2g} of its spread"
                        return _Fault(why, None, draw, stage)
                if self.trains and only in (None, "trains"):  # auxiliary heads and the like run only in training
                    stage = "trains"
                    Draws().run(lambda: call(removed.train(), self.given))
        except Exception as error:  # whatever the model's own forward raises
            why = first_line(error)
            cure = " (is its shape fixed in the code? flatten(1) follows it)" if "invalid for input" in why else ""
            if entered and stage == "agrees":  # it is the removed model that failed
                stage = "runs"
            where = entered[-1] if entered else None
            return _Fault(f"the model fails without its neurons: {why}{cure}", where, draw, stage)
        return None

    def search(self, chosen: list[NeuronGroup]) -> list[NeuronGroup]:
        """The groups of `chosen` that are exact together; `reasons` has the others.

        A fault is looked for by what shows it alone: that the removed model runs takes one pass. What is left
        without it is proved anew.
        """
        while chosen and (found := self.fault(chosen)) is not None:
            left = chosen if self.trials > _TRIALS else self._without(chosen, found)
            if len(left) == len(chosen) and found.stage == "runs":
                left = self._without(chosen, replace(found, stage="agrees"))
            if len(left) == len(chosen):  # it comes and goes, or there is no end of faults
                found = self._again(chosen, found) or found
                self.reasons |= {group.id: found.why + _suspects(group) for group in chosen}
                return []
            chosen = left
        return chosen

    def _without(self, chosen: list[NeuronGroup], found: _Fault) -> list[NeuronGroup]:
        """Groups that do not show a fault, as many as there are.

        As long as the model fails in some layer all groups of that layer are put aside, which leaves a set that
        runs after as many tries as there are such layers. Those that were put aside are then admitted again, by
        halves.
        """
        rest, aside, now = list(chosen), [], found
        while now is not None and now.module is not None:
            near = [g for g in rest if any(m.module == now.module for m in g.members)]
            if not near or len(near) == len(rest):
                break
            aside.append(near)
            rest = [g for g in rest if g not in near]
            now = self._again(rest, found)
        if now is not None:
            rest = self._admitted([], rest, found, now)
        for near in aside:
            rest = self._admitted(rest, near, found, None)
        return rest

    def _admitted(
        self, base: list[NeuronGroup], some: list[NeuronGroup], found: _Fault, known: _Fault | None
    ) -> list[NeuronGroup]:
        """The groups of `base`, and those of `some` that show no such fault together with them.

        Args:
            base: groups that show none.
            some: others.
            found: the kind of fault.
            known: that of all of them together, where it is known.
        """
        if known is None and (known := self._again([*base, *some], found)) is None:
            return [*base, *some]
        if len(some) == 1:
            alone = self._again(some, found) if base else known
            why = "it is exact alone but not together with other groups"
            if alone is not None:
                why = (some[0].doubt if self.trials <= _TRIALS else "") or alone.why
            self.reasons[some[0].id] = why + _suspects(some[0])
            return base
        half = len(some) // 2
        more = self._admitted(base, some[:half], found, None)
        whole = len(more) == len(base) + half  # then it is in the other half
        return self._admitted(more, some[half:], found, known if whole else None)


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
    model: nn.Module, groups: Sequence[NeuronGroup], inputs: Inputs, *, seed: int = 0, outputs: Sequence[str] = ()
) -> list[NeuronGroup]:
    """Prove every prunable group; those that fail come back as kept, with the reason.

    All groups are tried together with random scales; on failure the groups at fault are searched.
    """
    chosen = [group for group in groups if group.prunable]
    if not chosen:
        return list(groups)
    proof = _Proof(model, groups, inputs, seed, outputs)
    proof.search(chosen)
    for name, why in proof.reasons.items():
        logger.warning("group %s is kept: %s", name, why)
    return [replace(g, reason=proof.reasons[g.id]) if g.id in proof.reasons else g for g in groups]
