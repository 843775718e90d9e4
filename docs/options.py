"""Write the page of all options, made of what `PruneConfig` says of them: `python docs/options.py`."""

import inspect
from pathlib import Path

from snnprune import PruneConfig, RecoveryOptions, SearchOptions, Serving
from snnprune.cli.optimize import optimize
from snnprune.learner.config import GROUPS
from snnprune.options import About, about

PAGE = Path(__file__).with_name("options.md")
HEAD = """\
# All options

This page is made by `python docs/options.py` of what the classes say of themselves. Which options to look at
first, and what was measured with them, is in [Choosing a target and the options](choosing.md).
"""
PARTS = (
    (PruneConfig, "Everyday options: `PruneConfig`", ""),
    (
        SearchOptions,
        "The search: `PruneConfig(search=SearchOptions(...))`",
        "Only Python offers these, but for `scores`, which is `--scores`.",
    ),
    (
        RecoveryOptions,
        "The network's learning: `PruneConfig(recovery=RecoveryOptions(...))`",
        "Only Python offers these. Warm-up belongs to the recovery alone; the others hold in the search too.",
    ),
    (
        Serving,
        "What serves a model, and is timed: `Serving`",
        "For `PruneConfig(serving=Serving(...))`, `snnprune.profile` and `snnprune.bench`. On the command line of "
        "`optimize`: `--engine`, `--serve-batch-size`, `--serve-precision`, `--threads`; of `profile` and `bench` "
        "`--batch-size` and `--precision` instead.",
    ),
)


def row(one: About, flags: dict[str, str]) -> str:
    """One line of a table."""
    name = f"`{one.name}`" + (f", `{flags[one.name]}`" if one.name in flags else "")
    group = type(one.default).__name__ if one.name in GROUPS else ""
    kind = f"`{group}`" if group else one.kind.replace("'", "`") or "a dict of one number, or None"
    default = f"`{group}()`" if group else f"`{one.default!r}`"
    means = one.means[0].upper() + one.means[1:]
    return f"| {name} | {means.replace('|', ';')} | {kind} | {default} |"


def page() -> str:
    """The whole page."""
    flags = {name: f"--{name.replace('_', '-')}" for name in inspect.signature(optimize).parameters}
    lines = [HEAD]
    for kind, title, text in PARTS:
        lines += [
            f"## {title}",
            "",
            *([text, ""] if text else []),
            "| option | meaning | value | default |",
            "|---|---|---|---|",
        ]
        lines += [row(one, flags if kind is PruneConfig else {}) for one in about(kind).values()]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page())
