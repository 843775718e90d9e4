"""attach(): gates on any model in one call."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..encoding import Scorer, Scores, Start
from ..errors import AttachError
from ..inputs import Inputs, unwrap
from ..tracing import trace
from .gated import GatedModel, attach_groups
from .hooks import is_gated


def attach(
    model: nn.Module,
    example_inputs: Inputs,
    *,
    switcher: Scores | None = "switcher+offset",
    start: Start = "post-training",
    floor: float = 0.1,
    round_to: int = 1,
    keep: Sequence[str] = (),
    input_neurons: bool = True,
    seed: int = 0,
) -> GatedModel:
    """Attach gates to a model, for a training loop of your own.

    The model changes its behaviour only through hooks, which `detach()` or the end of a `with` block
    takes off again. Freshly attached at the post-training start the scales lie within a few per cent
    of 1 and nothing is switched off; `set_budget` moves the threshold.

    Args:
        model: a trained network; wrappers (DataParallel, DistributedDataParallel, `torch.compile`) are
            looked through, so the gates sit on the network itself.
        example_inputs: what its forward takes, a small batch.
        switcher: who gives the scores: `switcher`, `switcher+offset`, `free`, or None for scales set
            by hand with `set_scales`.
        start: `post-training` keeps the trained function; `fresh` is the papers' start.
        floor: least kept share of every group under a budget, in [0, 1].
        round_to: keep multiples of this many channels.
        keep: shell patterns of module names whose channels must stay.
        input_neurons: also switch single inputs of fully connected layers.
        seed: of the switcher's initialisation.

    Returns:
        The gated model. Call it as you would call the model.

    Raises:
        AttachError: the model has gates already.
        UnsupportedModelError: nothing in it can be pruned exactly.
    """
    model = unwrap(model)
    if is_gated(model):
        raise AttachError("this model has gates attached already; detach() them first.")
    groups = trace(model, example_inputs, keep=keep, input_neurons=input_neurons)
    scorer = None if switcher is None else Scorer(model, groups, scores=switcher, start=start, seed=seed)
    return attach_groups(model, groups, example_inputs, scorer=scorer, floor=floor, round_to=round_to)
