"""How a command's help is laid out: options in groups, then examples that can be pasted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from typer.core import TyperCommand

from .paste import Call

OWN = "Options"
GROUPS = {
    "The model": ("arch", "num_classes", "entry", "trust_pickle"),
    "The data": (
        "data", "data_root", "mean", "std", "image_size", "crop_ratio", "augment", "val_split", "workers",
        "batch_size", "limit",
    ),
    "What is cut": (
        "methods", "our_surgery", "as_they_are", "both", "seeds", "target", "granularity", "scores", "trials",
        "keep", "width", "uniform", "outputs", "floor", "round_to", "metric",
    ),
    "Learning": ("epochs", "lr", "distill", "seed", "device", "precision", "channels_last", "compile"),
    "The time that it takes": ("engine", "serve_batch_size", "serve_precision", "threads", "profile", "time"),
}  # fmt: skip
_GROUP_OF = {name: group for group, names in GROUPS.items() for name in names}
_FLAGS = {"help_option_names": ["-h", "--help"]}


class GroupedCommand(TyperCommand):
    """A command whose options stand in groups."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; what it was asked for is noted, for messages that name commands."""
        if isinstance(ctx.obj, Call):
            ctx.obj.params = ctx.params
        return super().invoke(ctx)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then the options of each group."""
        found: dict[str, list[tuple[str, str]]] = {}
        params = self.get_params(ctx)
        groups = _GROUP_OF if any(param.name == "data" for param in params) else {}  # few options stand together
        for param in params:
            record = param.get_help_record(ctx)
            if record is None:
                continue
            is_argument = param.param_type_name == "argument"
            group = "Arguments" if is_argument else groups.get(param.name or "", OWN)
            found.setdefault(group, []).append(record)
        for group in ("Arguments", *GROUPS, OWN):
            if group in found:
                with formatter.section(group):
                    formatter.write_dl(found[group])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples as they are, one line each, however long."""
        if self.epilog:
            with formatter.section("Examples"):
                for line in self.epilog.splitlines():
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


def add(app: Any, command: Callable[..., None]) -> None:
    """Make a function a command of the application.

    Args:
        app: the application.
        command: the function.
    """
    example = "\n".join(EXAMPLES[command.__name__])
    app.command(cls=GroupedCommand, epilog=example, context_settings=_FLAGS)(command)


EXAMPLES = {
    "optimize": (
        "snnprune optimize model.pt --data cifar10",
        "snnprune optimize model.pt --data photos --target latency=0.5 --epochs 10",
        "snnprune optimize model.pt --arch net.py:build --data loaders.py:loaders --target drop=0.01",
        "snnprune optimize --config runs/model-1/run.yaml --epochs 40",
    ),
    "contest": (
        "snnprune contest model.pt --data photos --target macs=0.5",
        "snnprune contest model.pt --data photos --methods ours,lamp --both --seeds 5 --output runs/contest",
        "snnprune contest model.pt --data photos --methods all --output runs/contest --resume",
    ),
    "export": (
        "snnprune export --onnx",
        "snnprune export runs/model-1 --onnx --fp16 --output small.onnx",
        "snnprune export runs/model-1 --onnx --int8 --data photos",
    ),
    "inspect": ("snnprune inspect model.pt", "snnprune inspect model.pt --target macs=0.3 --keep 'layer4'"),
    "evaluate": (
        "snnprune evaluate runs/model-1 --data photos",
        "snnprune evaluate small.onnx --data photos --limit 500",
    ),
    "compare": ("snnprune compare runs/model-1 runs/model-2 --html both.html",),
    "sensitivity": ("snnprune sensitivity model.pt --data photos --html curves.html",),
    "profile": ("snnprune profile model.pt --engine cpu", "snnprune profile model.pt --script times.py"),
    "bench": (
        "snnprune bench dense.onnx runs/model-1",
        "snnprune bench model.pt runs/model-1 --engine torch --engine cpu --batch-size 1",
    ),
    "doctor": ("snnprune doctor",),
}
