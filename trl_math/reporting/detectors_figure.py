"""Detectors on labelled pairs, in one figure: what is found against what of it is right, over all thresholds.

Left, precision over recall; middle and right, each of them over the threshold. A dot is where a detector stands with
its own threshold. A line begins at the lowest score that was looked for.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trl_math.optional import require
from trl_math.reporting.coverage_figure import GREY, INK, STYLE
from trl_math.reporting.figure_parts import in_rows, names_in_a_row
from trl_math.reporting.save_figure import save_figure


# Told apart by colour-blind readers (Okabe and Ito); where there are more detectors than colours, lines are broken.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
LINES = ("-", (0, (4, 2)), (0, (1, 1.5)))
LINE_NAMES = ("", " (dashed)", " (dotted)")
WIDTH, PANELS, ROW = 11.0, 3.5, 0.21  # inches

Found = Mapping[str, Any]


def draw_detectors(results: Found, path: Path) -> list[Path]:
    """Draw what `detectors.json` holds as PNG and SVG, whatever the suffix of `path`, and return both paths."""
    matplotlib = require("matplotlib", "the figure of detectors")
    figure_module = importlib.import_module("matplotlib.figure")
    detectors = results["detectors"]
    looks = {
        name: (COLOURS[place % len(COLOURS)], place // len(COLOURS) % len(LINES))
        for place, name in enumerate(detectors)
    }
    with matplotlib.rc_context(STYLE):
        names = [(f"{name}{LINE_NAMES[line]}", colour) for name, (colour, line) in looks.items()]
        rows = in_rows(names, 0.93 * WIDTH)
        height = PANELS + 0.55 + ROW * len(rows)
        figure = figure_module.Figure(figsize=(WIDTH, height))
        axes = figure.subplots(1, 3)
        top = (PANELS - 0.35) / height
        figure.subplots_adjust(left=0.05, right=0.985, top=top, bottom=0.48 / height, wspace=0.2)
        figure.text(0.05, 1 - 0.33 / height, _headline(results), fontsize=12.5, weight="bold", color=INK)
        figure.text(0.985, 1 - 0.33 / height, "dots: a detector's own threshold", fontsize=9, color=GREY, ha="right")
        for place, row in enumerate(rows):
            names_in_a_row(figure, row, 0.05, 1 - (0.62 + ROW * place) / height)
        for name, found in detectors.items():
            colour, line = looks[name]
            _lines(axes, found, colour, LINES[line])
        _label(axes, results)
        return save_figure(figure, path)


def _headline(results: Found) -> str:
    facts = results["labelled"]
    contaminated = facts["num_contaminated"]
    clean = facts["num_pairs"] - contaminated
    return f"{contaminated:,} contaminated and {clean:,} clean pairs"


def _lines(axes: Any, found: Found, colour: str, line: Any) -> None:
    curve = {name: 100 * np.array(values) for name, values in found["curve"].items() if name != "thresholds"}
    thresholds = np.array(found["curve"]["thresholds"])
    options = {"color": colour, "ls": line, "lw": 1.7}
    axes[0].plot(curve["recall"], curve["precision"], **options)
    if len(thresholds) and found["curve_from"] is not None:
        # Down to the lowest score that was looked for, nothing more is returned.
        thresholds = np.insert(thresholds, 0, min(found["curve_from"], thresholds[0]))
        curve = {name: np.insert(values, 0, values[0]) for name, values in curve.items()}
    for axis, name in zip(axes[1:], ("precision", "recall"), strict=True):
        axis.plot(thresholds, curve[name], drawstyle="steps-pre", **options)
    here = found["as_it_is"]
    if here["precision"] is None or here["recall"] is None:
        return
    precision, recall = (100 * here[name]["value"] for name in ("precision", "recall"))
    dot = {"color": colour, "marker": "o", "ms": 5.5, "ls": "", "clip_on": False, "zorder": 5}
    axes[0].plot([recall], [precision], **dot)
    if -0.02 <= here["threshold"] <= 1.02:
        axes[1].plot([here["threshold"]], [precision], **dot)
        axes[2].plot([here["threshold"]], [recall], **dot)


def _label(axes: Any, results: Found) -> None:
    ticker = importlib.import_module("matplotlib.ticker")
    ratio = results["settings"].get("prevalence")
    at = "" if ratio is None else f", at {ratio:g} clean to one"
    for axis, title, across in zip(
        axes,
        (f"Precision{at}", f"Precision{at}", "Recall"),
        ("recall", "threshold", "threshold"),
        strict=True,
    ):
        axis.set(title=title, xlabel=across, ylim=(-2, 103))
        axis.yaxis.set_major_formatter(ticker.PercentFormatter(decimals=0, symbol=" %"))
        axis.tick_params(axis="y", labelcolor=GREY)
    axes[0].set_xlim(-2, 103)
    axes[0].xaxis.set_major_formatter(ticker.PercentFormatter(decimals=0, symbol=" %"))
    for axis in axes[1:]:
        axis.set_xlim(-0.02, 1.02)
