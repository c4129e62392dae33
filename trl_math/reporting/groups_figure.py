"""A number under several conditions, by experiment: points with their intervals, one group for each condition."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from trl_math.optional import require
from trl_math.reporting.coverage_figure import CROSS_ENTROPY, GREY, INK, STYLE
from trl_math.reporting.rounds import Point
from trl_math.reporting.save_figure import save_figure


COLOURS = (GREY, "#0072B2", CROSS_ENTROPY, "#009E73")


def draw_groups(
    title: str, groups: Sequence[str], experiments: Mapping[str, Sequence[Point]], path: Path, caption: str = ""
) -> list[Path]:
    """Draw shares with their intervals as PNG and SVG; return both paths.

    Args:
        title: What the shares are.
        groups: Names of the conditions.
        experiments: Name -> a share under each condition; the first is what the others are held against, in grey.
    """
    matplotlib = require("matplotlib", "the figure of groups")
    figure_module = importlib.import_module("matplotlib.figure")
    ticker = importlib.import_module("matplotlib.ticker")
    with matplotlib.rc_context(STYLE):
        figure = figure_module.Figure(figsize=(6.2, 3.6))
        axis = figure.subplots(gridspec_kw={"left": 0.09, "right": 0.98, "top": 0.88, "bottom": 0.33})
        for place, ((name, points), colour) in enumerate(zip(experiments.items(), COLOURS, strict=False)):
            shift = 0.16 * (place - (len(experiments) - 1) / 2)
            for group, point in enumerate(points):
                errors = [[100 * (point.value - point.low)], [100 * (point.high - point.value)]]
                where = group + shift
                axis.errorbar(
                    [where],
                    [100 * point.value],
                    yerr=errors,
                    color=colour,
                    marker="o",
                    ms=6,
                    elinewidth=1.4,
                    clip_on=False,
                )
                axis.annotate(
                    f"{100 * point.value:.0f}",
                    (where, 100 * point.value),
                    xytext=(6, 0),
                    textcoords="offset points",
                    va="center",
                    color=INK,
                    fontsize=8.5,
                )
            figure.text(0.09, 0.19 - 0.055 * place, name, color=colour, weight="bold", fontsize=9)
        axis.set_xticks(range(len(groups)), labels=list(groups))
        axis.tick_params(axis="x", labelsize=9.5, labelcolor=INK, length=0)
        axis.set(title=title, xlim=(-0.5, len(groups) - 0.4), ylim=(0, None))
        axis.yaxis.set_major_formatter(ticker.PercentFormatter(decimals=0, symbol=" %"))
        figure.text(0.98, 0.02, caption, color=GREY, fontsize=8, ha="right")
        return save_figure(figure, path, dpi=200)
