"""What a folder of pairs is made of, in one figure: which problems, how many pairs of each, and how pairs differ.

Six panels: the pass rates of all problems and of those that have pairs; pairs of a problem; different answers of a
problem; the difference in length with the AUC of a classifier that knows nothing else; the sampler's difference in
log-probability; and what was left out. Grey is everything that was sampled, blue what is trained on, and orange warns.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trl_math.data.pair_statistics import PairStatistics, Spread
from trl_math.optional import require
from trl_math.reporting.coverage_figure import CROSS_ENTROPY, FAINT, GREY, INK, STYLE
from trl_math.reporting.save_figure import save_figure


BLUE, ORANGE, LIGHT = "#0072B2", CROSS_ENTROPY, "#C9CDD1"
MOST_BARS = 24  # of a histogram of whole numbers; more are binned
MOST_REASONS = 7


def draw(statistics: PairStatistics, path: Path) -> list[Path]:
    """Draw the figure as PNG and SVG, whatever the suffix of `path`, and return both paths."""
    matplotlib = require("matplotlib", "the figure of pairs")
    figure_module = importlib.import_module("matplotlib.figure")
    with matplotlib.rc_context({**STYLE, "axes.titlepad": 22}):
        figure = figure_module.Figure(figsize=(11.0, 6.4))
        axes = figure.subplots(2, 3)
        figure.subplots_adjust(left=0.055, right=0.985, top=0.82, bottom=0.095, wspace=0.26, hspace=0.72)
        figure.text(0.055, 0.945, _headline(statistics), fontsize=12.5, weight="bold", color=INK)
        _pass_rates(axes[0, 0], statistics)
        _whole_numbers(axes[0, 1], statistics.pairs_per_problem, "Pairs of a problem", "pairs")
        _whole_numbers(axes[0, 2], statistics.distinct_answers, "Different answers of a problem", "answers")
        _lengths(axes[1, 0], statistics)
        _logprobs(axes[1, 1], statistics.logprob_difference)
        _left_out(axes[1, 2], statistics.dropped)
        return save_figure(figure, path, dpi=160)


def _headline(statistics: PairStatistics) -> str:
    pairs, used = _number(statistics.num_pairs, "pair"), _number(statistics.num_used, "problem")
    samples, problems = _number(statistics.num_samples, "sample"), _number(statistics.num_problems, "problem")
    return f"{pairs} of {used}; {samples} of {problems} were judged"


def _number(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _pass_rates(axis: Any, statistics: PairStatistics) -> None:
    """All problems behind those that have pairs; the outermost bars are the problems that can have none."""
    places = np.arange(len(statistics.pass_rates))
    axis.bar(places, list(statistics.pass_rates.values()), 0.86, color=LIGHT)
    axis.bar(places, list(statistics.pass_rates_used.values()), 0.86, color=BLUE)
    # The bins between lie between their ends; none right and all right have bins of their own.
    axis.set_xticks([0, 2.5, 4.5, 6.5, 8.5, 11], ["0", "0.2", "0.4", "0.6", "0.8", "1"])
    axis.set(title="Pass rates of problems", xlabel="share of right samples", ylabel="problems")
    _room_above(axis)
    _subtitle(axis, "with pairs", BLUE)
    _subtitle(axis, "without", GREY, 0.27)


def _whole_numbers(axis: Any, histogram: Mapping[int, int], title: str, unit: str) -> None:
    axis.set(title=title, xlabel=unit, ylabel="problems")
    if not histogram:
        _nothing(axis, "no pairs")
        return
    values, counts = np.array(list(histogram)), np.array(list(histogram.values()))
    low, high = int(values.min()), int(values.max())
    step = -(-(high - low + 1) // MOST_BARS)  # numbers to a bar
    edges = np.arange(low, high + step + 1, step)
    heights, _ = np.histogram(values, edges, weights=counts)
    axis.bar(edges[:-1] + (step - 1) / 2, heights, 0.86 * step, color=BLUE)
    axis.set_xlim(low - 0.8 * step, max(float(edges[-1]) - 1 + 0.8 * step, low + 5.8))
    axis.xaxis.set_major_locator(_integers())
    mean = float((values * counts).sum() / counts.sum())
    _room_above(axis)
    _subtitle(axis, f"mean {mean:.1f}, at most {high:,}", GREY)


def _lengths(axis: Any, statistics: PairStatistics) -> None:
    axis.set(title="Length, chosen minus rejected", xlabel=statistics.length_unit, ylabel="pairs")
    spread, auc = statistics.length_difference, statistics.length_auc
    if spread is None or auc is None:
        _nothing(axis, "no pairs")
        return
    colour = ORANGE if statistics.length_tells else BLUE
    _differences(axis, spread, colour)
    said = f"chosen is shorter in {auc.value:.0%} [{auc.low:.0%}, {auc.high:.0%}]"
    _subtitle(axis, f"{said}: length tells" if statistics.length_tells else said, ORANGE if colour == ORANGE else GREY)


def _logprobs(axis: Any, spread: Spread | None) -> None:
    axis.set(title="Log-probability, chosen minus rejected", xlabel="nats of the sampler", ylabel="pairs")
    if spread is None:
        _nothing(axis, "not known: the samples have\nno log-probabilities\n(generate with logprobs)")
        return
    _differences(axis, spread, BLUE)
    _subtitle(axis, f"mean {spread.mean:+.1f}, median {spread.median:+.1f}", GREY)


def _differences(axis: Any, spread: Spread, colour: str) -> None:
    edges = np.array(spread.edges)
    axis.bar(edges[:-1], spread.counts, np.diff(edges), align="edge", color=colour, edgecolor="white", linewidth=0.4)
    middle, half = (edges[0] + edges[-1]) / 2, max(0.53 * (edges[-1] - edges[0]), 3.0)
    axis.set_xlim(middle - half, middle + half)
    if edges[0] < 0 < edges[-1]:
        axis.axvline(0, color=INK, lw=1, ls=(0, (2, 2)))
    _room_above(axis)


def _left_out(axis: Any, dropped: Mapping[str, int]) -> None:
    """The reasons, most frequent first: names above their bars, so that long ones have room."""
    axis.set_title("Left out")
    axis.spines["bottom"].set_visible(False)
    axis.spines["left"].set_visible(False)
    axis.grid(visible=False)
    axis.set_xticks([])
    axis.set_yticks([])
    if not dropped:
        _nothing(axis, "nothing")
        return
    reasons = sorted(dropped.items(), key=lambda item: -item[1])
    if len(reasons) > MOST_REASONS:
        _subtitle(axis, f"the {MOST_REASONS} most frequent of {len(reasons)} reasons", GREY)
    shown = reasons[:MOST_REASONS]
    for place, (reason, count) in enumerate(shown):
        axis.barh(place, 0.82, 0.24, color=FAINT)
        axis.barh(place, 0.82 * count / shown[0][1], 0.24, color=GREY)
        axis.text(0, place - 0.22, reason, ha="left", va="bottom", color=INK, fontsize=8)
        axis.text(1, place, f"{count:,}", ha="right", va="center", color=INK, fontsize=8.5)
    axis.set(xlim=(0, 1), ylim=(max(len(shown), 5) - 0.6, -0.8))


def _nothing(axis: Any, why: str) -> None:
    axis.text(0.5, 0.5, why, transform=axis.transAxes, ha="center", va="center", color=GREY)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set(xlabel="", ylabel="")


def _room_above(axis: Any) -> None:
    axis.yaxis.set_major_locator(_integers(5))
    axis.set_ylim(0, 1.08 * axis.get_ylim()[1])


def _subtitle(axis: Any, text: str, colour: str, place: float = 0.0) -> None:
    """Write a line between the title and the axes, where nothing is drawn."""
    axis.text(place, 1.045, text, transform=axis.transAxes, ha="left", va="bottom", color=colour, fontsize=8.5)


def _integers(number: int | str = "auto") -> Any:
    return importlib.import_module("matplotlib.ticker").MaxNLocator(number, integer=True)
