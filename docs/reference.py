"""Build the API reference from the docstrings: `python docs/reference.py site`, then open site/index.html."""

import sys
from pathlib import Path

import pdoc
import pdoc.render

import snnprune


def main(folder: str = "site") -> None:
    """Write one page for the package's public names and one for its errors."""
    for name in snnprune.__all__:  # they are loaded on first use, and pdoc sees only what is loaded
        setattr(snnprune, name, getattr(snnprune, name))
    pdoc.render.configure(docformat="google", math=False, footer_text=f"snnprune {snnprune.__version__}")
    pdoc.pdoc("snnprune", "snnprune.errors", output_directory=Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:2])
