"""How many operations a step of the search launches, against a plain training step.

    python benchmarks/speed/operations.py
    python benchmarks/speed/operations.py resnet50 --parts --names
    python benchmarks/speed/operations.py --table

A GPU waits for every operation to be launched, so their number says more of a step's time there than what they
compute, and any machine can count them. Counted is what PyTorch dispatches, but for views and memory that is not
yet filled. One call for a list of tensors counts as one operation: the network's optimiser works so on both sides,
as it does by default on a GPU. Few inputs are enough, because layers choose what they scale, inputs or weights, as
they would for a whole batch of that network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from steps import NETWORKS, PlainStep, SearchStep, add_row, batch_of, build, options
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from snnprune.switching import hooks

_NOTHING = {  # these compute nothing
    "_record_function_enter_new",
    "_record_function_exit",
    "_reshape_alias",
    "_unsafe_view",
    "alias",
    "detach",
    "empty",
    "empty_like",
    "empty_strided",
    "lift_fresh",
    "new_empty",
    "new_empty_strided",
}


class Count(TorchDispatchMode):
    """Counts launched operations by name while it is on.

    Attributes:
        names: operation -> how often.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count one operation and run it."""
        name = func._schema.name.split("::")[-1]
        view = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        if not view and name not in _NOTHING:
            self.names[name] += 1
        return func(*args, **(kwargs or {}))


def counted(call: Callable[[], object]) -> Counter[str]:
    """Operations of a call; it should have been made once before, so that nothing is set up meanwhile."""
    with Count() as found:
        call()
    return found.names


def scorer_pass(step: SearchStep) -> Callable[[], None]:
    """The scorer's own forward and backward, alone."""
    gated = step.gated
    scorer = gated.scorer
    assert scorer is not None
    learned = [p for p in (*gated.network_parameters(), *gated.scorer_parameters()) if p.requires_grad]
    pull: torch.Tensor = torch.linspace(-1, 1, scorer.segments.total, device=learned[0].device)

    def call() -> None:
        torch.autograd.grad(scorer(gated.model), learned, grad_outputs=pull, allow_unused=True)

    return call


def as_on_a_gpu(*optimizers: torch.optim.Optimizer | None) -> None:
    """Let optimisers update all parameters by one call."""
    for optimizer in optimizers:
        for group in optimizer.param_groups if optimizer is not None else ():
            group["foreach"] = None if group["fused"] else True


def more_by_parameter(optimizer: torch.optim.Optimizer) -> int:
    """How many more operations an optimiser launches that goes from parameter to parameter, as on a CPU."""
    at_once = counted(optimizer.step).total()
    for group in optimizer.param_groups:
        group["foreach"] = False
    return counted(optimizer.step).total() - at_once


def for_whole_batches(times: float) -> Callable[[nn.Module, tuple[Any, ...]], bool]:
    """The choice between scaled inputs and scaled weights for so many times the inputs."""

    def cheaper(module: nn.Module, args: tuple[Any, ...]) -> bool:
        weight = module._parameters.get("weight")
        return bool(args) and weight is not None and times * args[0].numel() > weight.numel()

    return cheaper


def measure(name: str, device: str, batch: int) -> dict[str, Any]:
    """Counts of one network, by operation."""
    inputs = batch_of(name, batch, device)
    plain = PlainStep(build(name, device), inputs, None)
    search = SearchStep(build(name, device), inputs, None, hold=1)
    as_on_a_gpu(plain.optimizer, search.stage.optimizer, search.stage.scorer_optimizer)
    found = {}
    with mock.patch.object(hooks, "_cheaper_on_weight", for_whole_batches(NETWORKS[name].batch / batch)):
        for part, call in (("plain", plain), ("search", search), ("scorer", scorer_pass(search))):
            call()
            found[part] = counted(call)
    found["by parameter"] = Counter({"optimizer": found["plain"].total() + more_by_parameter(plain.optimizer)})
    return found


def main() -> None:
    """Command line."""
    parser = options(__doc__ or "")
    parser.add_argument("networks", nargs="*", choices=[*NETWORKS, []])
    parser.add_argument("--batch", type=int, default=2, help="the counts do not depend on it")
    parser.add_argument("--parts", action="store_true", help="show the scorer's own forward and backward")
    parser.add_argument("--names", action="store_true", help="show every operation")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.table:
        from speed_report import write_speed

        print(write_speed(args.results))
        return
    for name in args.networks or [n for n in NETWORKS if n != "lenet"]:
        found = measure(name, args.device, args.batch)
        counts = {part: names.total() for part, names in found.items()}
        if args.parts:
            print(f"{name}: the scorer alone {counts['scorer']}")
        if args.names:
            for part, names in found.items():
                print(part, dict(names.most_common()))
        row = {
            **counts,
            "ratio": counts["search"] / counts["plain"],
            "ratio_by_parameter": counts["search"] / counts["by parameter"],
        }
        add_row(args.results, {"benchmark": "operations", "case": name, "batch": args.batch, **row}, args)


if __name__ == "__main__":
    main()
