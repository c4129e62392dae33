"""What a teacher's samples come to, in one figure: rationales of a problem, and problems that have one.

Left, over the number of samples: blue is what is kept, grey what is right, and the gap between is what says the same
again or does not serve. Middle: the share of problems that have a rationale at all. Right: how unevenly rationales are
spread over problems, which weights or a cap mend. Bands are 95 % intervals over problems.
"""

import importlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trl_math.optional import require
from trl_math.reporting.coverage_figure import CROSS_ENTROPY, GREY, INK, STYLE
from trl_math.reporting.save_figure import save_figure


BLUE, ORANGE, LIGHT = "#0072B2", CROSS_ENTROPY, "#C9CDD1"
MOST_BARS = 24
FEW_BARS = 6  # fewer are no wider

Found = Mapping[str, Any]


def draw_yield(found: Found, path: Path) -> list[Path]:
    """Draw what `yield.json` holds as PNG and SVG, whatever the suffix of `path`, and return both paths."""
    matplotlib = require("matplotlib", "the figure of the yield")
    figure_module = importlib.import_module("matplotlib.figure")
    points = found["points"]
    with matplotlib.rc_context({**STYLE, "axes.titlepad": 22}):
        figure = figure_module.Figure(figsize=(11.0, 3.7))
        axes = figure.subplots(1, 3)
        figure.subplots_adjust(left=0.05, right=0.985, top=0.7, bottom=0.16, wspace=0.24)
        figure.text(0.05, 0.9, _headline(found), fontsize=12.5, weight="bold", color=INK)
        _kept(axes[0], points)
        _with_one(axes[1], points)
        _spread(axes[2], found["kept_of_problems"])
        return save_figure(figure, path)


def _headline(found: Found) -> str:
    last = found["points"][-1]
    rows, problems = _number(last["num_rows"], "rationale"), _number(last["kept"]["n"], "problem")
    return f"{rows} of {problems}, from {_number(last['num_samples'], 'sample')} of each"


def _kept(axis: Any, points: Sequence[Found]) -> None:
    for name, colour in (("right", GREY), ("kept", BLUE)):
        _line(axis, points, name, colour, 1.0)
    axis.set(title="Rationales of a problem", xlabel="samples of a problem")
    _over_samples(axis, points)
    axis.set_ylim(0, 1.08 * max(max(point["right"]["high"], point["kept"]["high"]) for point in points) or 1)
    _subtitle(axis, "kept", BLUE)
    _subtitle(axis, "right", GREY, 0.14)


def _with_one(axis: Any, points: Sequence[Found]) -> None:
    _line(axis, points, "with_one", BLUE, 100.0)
    axis.set(title="Problems with a rationale", xlabel="samples of a problem", ylim=(0, 104))
    _over_samples(axis, points)
    ticker = importlib.import_module("matplotlib.ticker")
    axis.yaxis.set_major_formatter(ticker.PercentFormatter(decimals=0, symbol=" %"))
    value, low, high = (100 * points[-1]["with_one"][end] for end in ("value", "low", "high"))
    _subtitle(axis, f"{value:.0f} % [{low:.0f}, {high:.0f}] at the end", GREY)


def _spread(axis: Any, kept: Sequence[int]) -> None:
    """How many problems have how many rationales; those that have none are orange."""
    counts = Counter(kept)
    most = max(counts)
    step = -(-(most + 1) // MOST_BARS)
    edges = np.arange(1, most + step + 1, step)
    heights = [sum(counts[number] for number in range(low, low + step)) for low in edges[:-1]]
    ends = (-0.8, edges[-1] - 0.2)
    slim = (ends[1] - ends[0]) / FEW_BARS
    axis.bar(edges[:-1] + (step - 1) / 2, heights, 0.86 * min(step, slim), color=BLUE)
    axis.bar([0], [counts[0]], 0.86 * min(1, slim), color=ORANGE)
    axis.set(title="Spread over problems", xlabel="rationales of a problem", xlim=ends)
    axis.set_ylim(0, 1.08 * max([*heights, counts[0], 1]))
    ticker = importlib.import_module("matplotlib.ticker")
    axis.xaxis.set_major_locator(ticker.MaxNLocator(8, integer=True, min_n_ticks=1))
    axis.yaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
    _subtitle(axis, f"{_number(counts[0], 'problem')} without one", ORANGE if counts[0] else GREY)


def _line(axis: Any, points: Sequence[Found], name: str, colour: str, scale: float) -> None:
    sizes = [point["num_samples"] for point in points]
    low, value, high = ([scale * point[name][end] for point in points] for end in ("low", "value", "high"))
    if len(sizes) == 1:
        axis.errorbar(
            sizes, value, yerr=[[value[0] - low[0]], [high[0] - value[0]]], color=colour, marker="o", elinewidth=1.4
        )
        return
    axis.fill_between(sizes, low, high, color=colour, alpha=0.15, lw=0)
    axis.plot(sizes, value, color=colour, lw=2, marker="o", ms=4.5, clip_on=False)


def _over_samples(axis: Any, points: Sequence[Found]) -> None:
    sizes = [point["num_samples"] for point in points]
    ticker = importlib.import_module("matplotlib.ticker")
    axis.set_xscale("log", base=2)
    axis.set_xlim(0.9 * sizes[0], 1.1 * sizes[-1])
    axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axis.xaxis.set_minor_locator(ticker.NullLocator())


def _number(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _subtitle(axis: Any, text: str, colour: str, place: float = 0.0) -> None:
    """Write a line between the title and the axes, where nothing is drawn."""
    axis.text(place, 1.045, text, transform=axis.transAxes, ha="left", va="bottom", color=colour, fontsize=8.5)
