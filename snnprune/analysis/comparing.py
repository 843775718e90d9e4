"""What `snnprune compare` sets side by side: the reports of runs, or what can be said without one."""

from __future__ import annotations

from pathlib import Path

from ..errors import RunError
from ..files import STRUCTURE, check_name, file_errors
from ..registry import build
from ..runs.comparing import compare
from ..runs.examples import example_for
from ..runs.folder import REPORT, open_model, refuse_unfinished
from ..runs.report import Report


@file_errors()
def report_of(
    run: Path, *, arch: str | None = None, num_classes: int | None = None, image_size: int | None = None
) -> Report:
    """The report of a run; of a folder that `snnprune.save` wrote, the costs of its model and of the original.

    Args:
        run: folder.
        arch: architecture, when there is no report and it is not torchvision's.
        num_classes: outputs of that model.
        image_size: side of its images; by default recorded or found by trying.

    Raises:
        RunError: it is no such folder, it is damaged, or it needs `arch`.
    """
    check_name(run)
    refuse_unfinished(run)
    if (run / REPORT).is_file():
        return Report.read(run / REPORT)
    if not (run / STRUCTURE).is_file():
        raise RunError(
            f"{run} is no run folder (it has neither {REPORT} nor {STRUCTURE}). Name one that `snnprune optimize` "
            "or `snnprune.save` wrote."
        )
    opened = open_model(run, arch=arch, num_classes=num_classes)
    assert opened.arch is not None  # it is a folder
    return compare(
        build(opened.arch, **opened.kwargs), opened.model, example_inputs=example_for(opened, image_size)
    )
