"""What was asked of a run, beside what was got."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...budget.widths import read_width
from ...errors import ConfigError
from ...forms import is_number
from ...graph import named_by
from ...shown import cut
from ..report import Report
from ..times import OPEN, digits, varies
from .material import Material
from .words import COSTS, amount, metric_of, steps_of

_FEW, _NAME = 6, 60  # names in an enumeration, and characters of one
_MOST = 32  # patterns

Row = tuple[str, str, str]


def rows(material: Material) -> list[Row]:
    """(what, asked, got); of a run whose options are not on file the target alone."""
    report = material.report
    found = [_target(report)]
    for part in (_floor, _round_to, _outputs, _passes, _trials, _speed):
        found += part(report)
    return [*found, *_widths(material), *_uniform(report), *_kept(report)]


def kept_share(report: Report, cost: str) -> float:
    """Share of a cost that the compact model has; parameters that are 0 are not counted where there are such."""
    a, b = report.dense, report.compact
    if cost == "macs":
        return b.macs / a.macs
    return (b.params if b.nonzero is None else b.nonzero) / a.params


def target_words(report: Report) -> str:
    """What the target asks for, with its unit."""
    if report.target is None:
        return "free: the switcher alone decides"
    ((name, value),) = report.target.items()
    if name == "drop" and is_number(value):
        return f"at most {amount(float(value), report.metric)} of {metric_of('val', report.metric)} lost"
    if name == "latency":
        return _time_asked(value)
    if is_number(value):
        return f"{float(value):.4g}" if name not in COSTS else f"{float(value):.1%} of the {COSTS[name]}"
    return cut(value, _NAME)


def _time_asked(value: float | str) -> str:
    return f"{value:.1%} of the dense time" if is_number(value) else f"{str(value).removesuffix('ms')} ms a call"


def _target(report: Report) -> Row:
    name = "free" if report.target is None else next(iter(report.target))
    macs, params = (f"{kept_share(report, cost):.1%} of the {COSTS[cost]}" for cost in ("macs", "params"))
    if name in ("macs", "params"):
        got = macs if name == "macs" else params
    elif name == "latency":
        got = _time_got(report)
    elif name == "drop":
        got = _drop_got(report) or f"{macs}, {params}"
    else:
        got = f"{macs}, {params}"
    return "target", target_words(report), got


def _time_got(report: Report) -> str:
    """Of what was timed last, the final model."""
    times = report.latency
    if times is None:
        return "not timed"
    if report.target is not None and isinstance(report.target["latency"], str):
        return f"{digits(times['compact_ms'], ' ms')} a call"
    if times["share"] is None:
        return OPEN
    return f"{times['share']:.1%} of the dense time, {varies(times['spread'])}"


def _drop_got(report: Report) -> str:
    """Of the trial that was taken: the cheapest that lost little enough."""
    cost = next((c for c in ("macs", "params") if any(c in t for t in report.trials)), "macs")
    passed = [t for t in report.trials if t.get("passed") is True and is_number(t.get(cost))]
    if not passed:
        return ""
    best = min(passed, key=lambda t: t[cost])
    share = f"{kept_share(report, cost):.1%} of the {COSTS[cost]}"
    lost: Any = best.get("drop")
    if not is_number(lost):
        return share
    return f"{amount(abs(lost), report.metric)} {'gained' if lost < 0 else 'lost'}, with {share}"


def _floor(report: Report) -> Iterator[Row]:
    floor: Any = report.config.get("floor")
    if report.target is None or not is_number(floor) or not report.groups or _connections(report):
        return
    least = min(report.groups, key=lambda g: g["kept"] / g["size"])
    got = f"least {least['kept'] / least['size']:.1%}, in {cut(least['id'], _NAME)}"
    yield "floor", f"at least {float(floor):.1%} of every group", got


def _round_to(report: Report) -> Iterator[Row]:
    unit = report.config.get("round_to")
    if report.target is None or type(unit) is not int or unit < 2 or _connections(report):
        return
    odd = [f"{cut(name, _NAME)} ({kept:,})" for name, kept in report.odd_widths.items()]
    got = f"in all groups but {_some(odd)}, for the target's sake" if odd else "in all groups that were cut"
    yield "widths", f"multiples of {unit:,} channels, of less in narrow groups", got


def _outputs(report: Report) -> Iterator[Row]:
    paths = _texts(report.config.get("outputs"))
    if paths:
        yield "outputs", _some(paths), "neurons that only other outputs hold could go"


def _passes(report: Report) -> Iterator[Row]:
    epochs = report.config.get("epochs")
    if not is_number(epochs) or not report.steps:
        return
    whole = f"{epochs:.4g} pass{'es' * (epochs != 1)} over the training data"
    each = " in each trial" if report.target is not None and "drop" in report.target else ""
    yield "learning", f"{whole}{each}", f"{sum(report.steps.values()):,} steps: {steps_of(report.steps)}"


def _trials(report: Report) -> Iterator[Row]:
    asked = report.config.get("trials")
    if report.target is None or "drop" not in report.target or type(asked) is not int or not report.trials:
        return
    good = sum(trial.get("passed") is True for trial in report.trials)
    yield "trials", f"{asked:,}", f"{len(report.trials):,}, of which {good:,} were good enough"


def _speed(report: Report) -> Iterator[Row]:
    """What the recovery computed in."""
    config, speed = report.config, report.speed
    if speed is None or "precision" not in config:
        return
    yield "computing", _computed(config), _computed(speed)


def _computed(values: Mapping[str, Any]) -> str:
    words = [f"precision {cut(values.get('precision', ''), _NAME)}"]
    for name, what in (("channels_last", "channels last"), ("compile", "compiled")):
        value = values.get(name)
        words.append({True: what, False: f"not {what}"}.get(value, f"{what} {cut(value, _NAME)}"))  # type: ignore[arg-type]
    return ", ".join(words)


def _widths(material: Material) -> Iterator[Row]:
    """Patterns of widths beside the sizes of the layers that they name."""
    groups = {g["id"]: g for g in material.report.groups}
    for text in _texts(material.report.config.get("width"))[:_MOST]:
        try:
            pattern = read_width(text).pattern
        except ConfigError:
            continue
        names = [n for n in dict.fromkeys((*groups, *material.widths)) if named_by(n, (pattern,))]
        got = [
            f"{cut(n, _NAME)}: {groups[n]['kept']:,} of {groups[n]['size']:,}"
            if n in groups
            else f"{cut(n, _NAME)}: {material.widths[n]:,}"
            for n in names
        ]
        yield "width", cut(text, _NAME), _some(got) or "no layer of that name on file"


def _uniform(report: Report) -> Iterator[Row]:
    """Patterns of groups that keep the same share, beside what each kept."""
    for pattern in _texts(report.config.get("uniform"))[:_MOST]:
        named = [g for g in report.groups if named_by(g["id"], (pattern,))]
        got = [f"{cut(g['id'], _NAME)}: {g['kept']:,} of {g['size']:,}" for g in named]
        yield "uniform", cut(pattern, _NAME), _some(got) or "no group of that name on file"


def _kept(report: Report) -> Iterator[Row]:
    for pattern in _texts(report.config.get("keep"))[:_MOST]:
        mine = [cut(k["id"], _NAME) for k in report.kept_whole if k["reason"] == f"kept by request ({pattern})"]
        own = [cut(k["id"], _NAME) for k in report.kept_whole if named_by(k["id"], (pattern,))]
        names = list(dict.fromkeys((*mine, *own)))
        yield "keep", cut(pattern, _NAME), f"kept whole: {_some(names)}" if names else "stays whole anyway"


def _connections(report: Report) -> bool:
    return report.config.get("granularity") == "connection"


def _texts(value: Any) -> list[str]:
    return [text for text in value if type(text) is str] if isinstance(value, list) else []


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _FEW:,} more" if len(names) > _FEW else ""
    return ", ".join([cut(name, 2 * _NAME) for name in names[:_FEW]]) + more
