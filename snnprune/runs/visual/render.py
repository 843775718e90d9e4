"""A figure as SVG that takes the page's colours, and as PNG."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#1f2a37"  # lines and letters; in a page whatever its text has
PRUNED, WEAKENED, STRENGTHENED = "#9aa3ad", "#3b8ed0", "#e07b2a"  # told apart also by the colour-blind
KINDS = {"pruned": PRUNED, "weakened": WEAKENED, "strengthened": STRENGTHENED}
# And by those who see no colours; dots would make a page four times as large.
HATCHES = {"pruned": "", "weakened": "////", "strengthened": "\\\\\\\\"}


@contextmanager
def style() -> Iterator[None]:
    """Settings of matplotlib for the figures drawn within, whatever the user's are."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # the reader's browser has other fonts
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                **dict.fromkeys(
                    ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK
                ),
                "figure.facecolor": "none",
                "axes.facecolor": "none",
                "savefig.facecolor": "none",
                "axes.spines.top": False,
                "axes.spines.right": False,
                "font.size": 9,
                "axes.titlesize": 9,
                "axes.labelsize": 9,
                "hatch.linewidth": 0.6,
                "legend.frameon": False,
                "svg.fonttype": "none",
                "text.parse_math": False,  # names may hold any sign
            }
        )
        yield


def svg(figure: Figure, name: str) -> str:
    """Inline SVG whose ink is the page's text colour; `name` keeps its ids apart from those of other figures."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    figure.set_layout_engine("none")  # the places that were found hold for the PNG too; finding them takes seconds
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style.*?</style>", "", text, count=1, flags=re.DOTALL)  # it would hold for the whole page
    return re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)


def png(figure: Figure) -> bytes:
    """PNG on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()
