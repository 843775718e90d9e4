"""From a network and what will serve it to the times of its parts: measured here, kept, or from another device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from torch import nn

from ..budget import CostModel
from ..errors import TimingError
from ..graph import NeuronGroup
from ..inputs import Inputs
from . import portable
from .answers import Answers, keep, load, read_answers, serving_of
from .coarse import coarse_profile, takes_whole
from .profile import Profile, fit
from .questions import Questions, ask
from .serving import Serving
from .sessions import CURE, check_serves, providers_of

Told = Callable[[int, int], None]
Agree = Callable[[list[float]], list[float]]


def profile_of(
    model: nn.Module,
    groups: Sequence[NeuronGroup],
    cost: CostModel,
    example_inputs: Inputs,
    serving: Serving,
    *,
    answers: Path | None = None,
    cache: Path | None = None,
    anew: bool = False,
    tell: Told | None = None,
    times: bool = True,
    agree: Agree | None = None,
) -> Profile:
    """The times of a network's parts.

    Args:
        model: the network.
        groups: its groups.
        cost: what they cost.
        example_inputs: what its forward takes, at least two.
        serving: what will serve it; ignored where `answers` say it. Engines that take a network as a whole
            (see `coarse`) time whole cuts of it.
        answers: file that a script of `write_script` has written on another device; then nothing is timed here.
        cache: folder of the cache; by default the user's.
        anew: time also what the cache holds.
        tell: called with the number of graphs done and of all.
        times: whether this process times; the others take what `agree` gives them.
        agree: makes of numbers those of the process that times; None where there is one alone.

    Raises:
        ExportError: the network cannot be exported, or the engine does not serve here.
        TimingError: the file is of another network.
    """
    network = model, groups, cost, example_inputs
    if answers is not None:
        key, found = read_answers(answers)
        if takes_whole(serving_of(key)):
            return replace(coarse_profile(*network, serving_of(key), known=found), key=key)
        return fit(ask(*network, serving_of(key)), found, key)
    serving = serving.resolved()
    if times and not serving.in_torch:
        check_serves(serving)
    if takes_whole(serving):
        return _whole(network, serving, tell, times=times, agree=agree)
    questions = ask(*network, serving)
    key = serving.key()
    found = _timed(questions, serving, key, cache, anew=anew, tell=tell) if times else {}
    if agree is not None:
        names = sorted(questions.graphs)
        numbers = agree([-1.0 if (ms := found.get(name)) is None else ms for name in names])
        found = {name: None if ms < 0 else ms for name, ms in zip(names, numbers, strict=True)}
    return fit(questions, found, key)


def _whole(
    network: tuple[nn.Module, Sequence[NeuronGroup], CostModel, Inputs],
    serving: Serving,
    tell: Told | None,
    *,
    times: bool,
    agree: Agree | None,
) -> Profile:
    """The profile by whole networks, in one process or in several."""
    first = coarse_profile(*network, serving, tell=tell) if times else None
    if agree is None:
        assert first is not None
        return first
    count = int(agree([0.0 if first is None else float(len(first.answers))])[0])
    told = [0.0] * count if first is None else [ms or 0.0 for ms in first.answers.values()]
    known: Answers = {f"whole-{i}": ms for i, ms in enumerate(agree(told))}
    return coarse_profile(*network, serving, known=known)


def _timed(
    questions: Questions,
    serving: Serving,
    key: dict[str, Any],
    cache: Path | None,
    *,
    anew: bool,
    tell: Told | None,
) -> Answers:
    """Answers to all questions, which are kept as they come."""
    known = {} if anew else load(key, cache)
    fresh: Answers = {}

    def told(done: int, total: int, found: Answers) -> None:
        if tell is not None:
            tell(done, total)
        fresh.update({name: ms for name, ms in found.items() if name not in known})

    families = [[(q.name, q.weights, q.data) for q in family] for family in questions.families]
    try:
        return portable.answer(families, providers_of(serving), serving.threads, known=known, tell=told)
    except portable.NotServed as error:
        raise TimingError(f"{error} {CURE}") from error
    except OSError as error:
        raise TimingError(
            f"graphs to be timed cannot be written to {gettempdir()} ({error}). Set TMPDIR."
        ) from error
    finally:
        if fresh:  # also after Ctrl-C: half of the work is not to be done again
            keep(key, fresh, cache)
