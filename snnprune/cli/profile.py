"""`snnprune profile`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .gather import gathered
from .options import EngineName, Json, ModelFile, Network, Patterns, ThreadCount, served
from .progress import Display
from .show import BY_JSON, console, emit, say, say_rest, scripted
from .tables import columns, show_table

if TYPE_CHECKING:
    from ..analysis.profiling import Layers, TimedCut
    from ..timing.profile import Profile
    from ..timing.serving import Serving

_SLOWEST = 15  # parts that are shown
_WITHIN = 0.1  # error of a prediction that the search sets right without ado
_COUNTS = (1, 8, 16, 24, 32)


@gathered
def profile(
    model: ModelFile,
    network: Network,
    patterns: Patterns,
    engine: EngineName = None,
    batch_size: Annotated[int | None, served("batch")] = None,
    precision: Annotated[str | None, served("precision")] = None,
    threads: ThreadCount = None,
    script: Annotated[
        Path | None,
        typer.Option(
            help="time nothing here, but write a script for another device, where it needs onnxruntime and numpy "
            "alone; what it writes there is for optimize --profile"
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="also write the times to this file, for optimize --profile elsewhere")
    ] = None,
    anew: Annotated[bool, typer.Option("--anew", help="also time what is kept from earlier")] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="also time real cuts at 0.75, 0.5 and 0.25 of all widths, and compare"),
    ] = False,
    limit: Annotated[float, typer.Option(help="seconds for each model that --check times at most")] = 20.0,
    as_json: Json = False,
) -> None:
    """Time the layers of a model at several widths, on this machine or by a script on another device."""
    from ..analysis.profiling import Layers, check_writable, told, write_times
    from ..errors import ConfigError
    from ..options import Positive, checked
    from ..runs.examples import example_for
    from ..timing.script import check_scripted
    from ..timing.serving import Serving

    asked = {"engine": engine, "batch": batch_size, "precision": precision, "threads": threads}
    serving = Serving(**{name: value for name, value in asked.items() if value is not None})  # type: ignore[arg-type]  # checked
    limit = checked("limit", limit, Positive)
    if script is not None:
        for flag, given in (("--output", output is not None), ("--anew", anew), ("--check", check)):
            if given:
                raise ConfigError(
                    f"{flag} is for times of this machine, and --script takes none here. Leave one out."
                )
        check_scripted(serving)
    check_writable(script)
    check_writable(output)
    with scripted(as_json):
        display = Display()
        with display.running():
            display.stage("load")
            opened = network.open(model)
            display.stage("trace")
            layers = Layers.of(opened.model, example_for(opened, network.image_size), **patterns.all)
            if script is not None:
                graphs = layers.script(serving, script)
                if as_json:
                    emit({"model": str(model), "script": str(script), "graphs": graphs, **serving.to_dict()})
                _tell_script(script, graphs)
                return
            found = _timed(layers, serving, display, anew=anew)
            if output is not None:
                write_times(found, output)
            cuts = layers.cuts(found, serving, limit=limit, tell=display.on("widths")) if check else []
        if as_json:
            emit({"model": str(model), **told(found), "cuts": [one.to_dict() for one in cuts]})
        _show(found)
        _show_cuts(cuts)
        _say_use(found, output)


def _timed(layers: Layers, serving: Serving, display: Display, *, anew: bool) -> Profile:
    try:
        return layers.profile(serving, anew=anew, tell=display.on("latency"))
    except KeyboardInterrupt:
        kept = "" if anew else ", and the same command goes on from there"
        raise KeyboardInterrupt(f"what was timed so far is kept{kept}") from None


def _tell_script(script: Path, graphs: int) -> None:
    from .show import size

    say(f"wrote {script} ({size(script)}, {graphs} graphs without their weights)")
    say(f"there, with onnxruntime and numpy: {shlex.join(['python', script.name, 'times.json'])}")
    say("a run here takes what that writes by: --target latency=0.5 --profile times.json")


def _show(found: Profile) -> None:
    from ..shown import cut, largest

    total, rows = found.predicted_ms, []
    parts, rest = largest(found.parts, _SLOWEST, "parts", lambda part: part.dense, BY_JSON)
    for part in sorted(parts, key=lambda part: -part.dense):
        widths = [
            str(side.read) if side is not None and side.parts else "-" for side in (part.inputs, part.outputs)
        ]
        rows.append((cut(part.name), *widths, f"{part.dense:.3g}", f"{part.dense / total:.1%}"))
    show_table(console, columns("part", "inputs", "outputs", "ms", "of all"), rows, title="what takes longest")
    say_rest(rest)
    fixed = sum(part.dense for part in found.parts if not part.reached)
    say(f"what no neuron changes: {fixed:.3g} ms, {fixed / total:.1%}")
    if found.steps:
        _show_stairs(found)
    key = found.key
    say(
        f"the whole model: {found.dense_ms:.3g} ms measured, {total:.3g} ms by its parts "
        f"({total / found.dense_ms - 1:+.1%}); {found.graphs} graphs timed"
    )
    for one in found.checks[1:]:
        say(
            f"cut at random to {one.kept:.0%} of its neurons: {one.measured_ms:.3g} ms measured, "
            f"{one.predicted_ms:.3g} ms predicted ({one.error:+.1%})"
        )
    threads = "" if key["engine"] != "cpu" else f", threads: {key['threads']}"
    say(
        f"served by {key['engine']} ({key['version']}) on {key['device']}, batch size {key['batch']}, "
        f"{key['precision']}{threads}"
    )


def _show_stairs(found: Profile) -> None:
    rows = [
        (kind, "inputs" if role == "in" else "outputs", *(f"{count:.0f}" for count in channels))
        for kind, roles in found.steps.items()
        for role, channels in roles.items()
    ]
    heads = columns("kind of layer", "its", *map(str, _COUNTS), text=["its"])
    show_table(console, heads, rows, title="stairs: a layer of so many channels costs as one of")


def _show_cuts(cuts: Sequence[TimedCut]) -> None:
    if not cuts:
        return
    rows = []
    for one in cuts:
        both = one.compared
        known = both.compact_ms is not None
        row = (
            f"{one.width:g}",
            f"{both.compact_ms:.3g}" if known else "?",
            f"{both.compact_spread:.1%}" if known else "?",
            f"{one.predicted_ms:.3g}",
            f"{one.error:+.1%}" if one.error is not None else "?",
            f"{both.share:.2f}" if both.share is not None else "?",
        )
        rows.append(row)
    heads = columns("widths", "measured ms", "spread", "predicted ms", "error", "of the dense time")
    show_table(console, heads, rows, title="real cuts")
    for one in cuts:
        if one.compared.refused is not None:
            say(f"? widths {one.width:g}: {one.compared.refused}", style="yellow")
    for load in dict.fromkeys(one.compared.load for one in cuts if one.compared.load):
        say(load)


def _say_use(found: Profile, output: Path | None) -> None:
    if found.error > _WITHIN:
        say(
            f"warning: the parts say a whole model's time only within {found.error:.0%}; a run times its cuts "
            "and sets that right. --anew times once more, best while nothing else runs",
            style="yellow",
        )
    if output is not None:
        given = shlex.join(["--target", "latency=0.5", "--profile", str(output)])
        say(f"wrote {output}, which a run elsewhere takes by: {given}")
    say("kept on this machine, where a run takes it by itself: --target latency=0.5")
