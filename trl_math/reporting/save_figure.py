"""Figures as files: every figure is a PNG and an SVG of one name."""

from pathlib import Path
from typing import Any


def save_figure(figure: Any, path: Path, dpi: int = 160) -> list[Path]:
    """Write a matplotlib figure as PNG and SVG, whatever the suffix of `path`, and return both paths.

    The same figure gives the same bytes: the SVG has no date, and `svg.hashsalt` is in the style.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [path.with_suffix(suffix) for suffix in (".png", ".svg")]
    figure.savefig(files[0], dpi=dpi)
    figure.savefig(files[1], metadata={"Date": None})
    return files
