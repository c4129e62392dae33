"""pass@k, maj@k and coverage@k over k, and the frontier that several runs reach together."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from trl_math.evaluation import Estimate, coverage_at_k, majority_at_k, mean_estimates, pass_at_k
from trl_math.reporting.page.drawing import WIDTH, Figure
from trl_math.reporting.page.figures import HEIGHT, key_of, said
from trl_math.reporting.page.plot import Plot, doublings, percent, room_for, round_ticks, share_limits, ticked
from trl_math.reporting.page.runs import Group, Result, Run


EVERY_K = 256
TIE = 12  # digits after which two runs are equal
COVERAGE_TO = 4096  # the k to which coverage@k is drawn, or to the largest that the summary tells
LARGEST_K = 1 << 30


class Curve(NamedTuple):
    """A metric of one run over k."""

    run: Run
    ks: list[int]
    estimates: list[Estimate]

    @property
    def points(self) -> list[tuple[float, float]]:
        return [(k, one.value) for k, one in zip(self.ks, self.estimates, strict=True)]


def _ks(fewest: int) -> list[int]:
    """Return every k up to `EVERY_K`, and 16 for each doubling beyond: the same k for all runs, but for their ends."""
    beyond = EVERY_K * 2.0 ** (np.arange(16 * max(0, fewest.bit_length() - EVERY_K.bit_length() + 1)) / 16)
    ks = {*range(1, min(fewest, EVERY_K) + 1), *beyond.round().astype(int).tolist(), fewest}
    return sorted(k for k in ks if k <= fewest)


def curve_of(result: Result) -> Curve:
    """Return pass@k for every k that the problem with the fewest samples allows, or coverage@k."""
    if result.logps is not None:
        told = [k for k in map(k_of, result.metrics) if k is not None]
        ks = _ks(min(max(COVERAGE_TO, *told), LARGEST_K))
        return Curve(result.run, ks, mean_estimates(coverage_at_k(list(result.logps.values()), ks), result.level))
    assert result.samples is not None
    ks, tallies = _ks(result.samples.fewest), result.samples.tallies
    values = pass_at_k([one.num_samples for one in tallies], [one.num_correct for one in tallies], ks)
    return Curve(result.run, ks, mean_estimates(values, result.level))


def k_of(metric: str) -> int | None:
    """Return the k of pass@k and its like; None for what has none."""
    kind, _, k = metric.partition("@")
    return int(k) if kind and k.isascii() and k.isdigit() and len(k) < 16 else None


def majority_curve(result: Result) -> Curve:
    """Return maj@k for k that are powers of two, and for all samples."""
    assert result.samples is not None
    fewest, tallies = result.samples.fewest, result.samples.tallies
    ks = sorted({2**place for place in range(fewest.bit_length()) if 2**place <= fewest} | {fewest})
    found = majority_at_k([one.votes for one in tallies], [one.correct_classes for one in tallies], ks)
    return Curve(result.run, ks, mean_estimates(found.values, result.level))


def curves_figure(group: Group, curves: Sequence[Curve], metric: str) -> Figure:
    """Draw a metric over k, a line and a band for each run."""
    figure = Figure(
        f"{metric.removesuffix('@k')}-at-k--{group.slug}",
        f"{metric}, {group.subject}",
        f"{metric} over k of {_names(curves)}, with confidence bands.",
        WIDTH,
        HEIGHT,
        [key_of(curve.run) for curve in curves],
    )
    plot = _over_k(figure, curves, "k, attempts at each problem")
    for curve in curves:
        ends = zip(curve.ks, curve.estimates, strict=True)
        lows, highs = zip(*(((k, one.low), (k, one.high)) for k, one in ends), strict=True)
        plot.band(lows, highs, key_of(curve.run).colour)
    for curve in curves:
        _draw_curve(plot, curve, metric)
    return figure


def _over_k(figure: Figure, curves: Sequence[Curve], label: str) -> Plot:
    highest = max(curve.ks[-1] for curve in curves)
    every = [one for curve in curves for one in curve.estimates]
    limits = share_limits(min(one.low for one in every), max(one.high for one in every))
    ticks = ticked(round_ticks(*limits), percent)
    plot = Plot(figure, (1, max(highest, 2)), limits, (12, 14, 34, room_for(ticks)), log_x=True)
    plot.y_ticks(ticks)
    plot.x_ticks(doublings(max(highest, 2)), label)
    return plot


def _draw_curve(plot: Plot, curve: Curve, metric: str) -> None:
    key = key_of(curve.run)
    plot.line(curve.points, key.colour)
    for k, one in zip(curve.ks, curve.estimates, strict=True):
        if k & (k - 1) == 0 or k == curve.ks[-1]:
            note = f"{curve.run.name}: {metric.replace('k', str(k), 1)} {said(one)}"
            plot.figure.dot(plot.at_x(k), plot.at_y(one.value), key.colour, 3.6, key.shape, note=note)


def _names(curves: Sequence[Curve]) -> str:
    return ", ".join(curve.run.name for curve in curves)


class Stretch(NamedTuple):
    """A range of k over which one run is the best, or several are equal."""

    runs: tuple[Run, ...]
    first: int
    last: int


def best_runs(curves: Sequence[Curve]) -> list[Stretch]:
    """Return which run is the best from which k to which, over the k that all runs have."""
    shared = set.intersection(*(set(curve.ks) for curve in curves))
    stretches: list[Stretch] = []
    for k in sorted(shared):
        values = [round(curve.estimates[curve.ks.index(k)].value, TIE) for curve in curves]
        best = tuple(curve.run for curve, value in zip(curves, values, strict=True) if value == max(values))
        if stretches and [one.index for one in stretches[-1].runs] == [one.index for one in best]:
            stretches[-1] = stretches[-1]._replace(last=k)
        else:
            stretches.append(Stretch(best, k, k))
    return stretches


def frontier_figure(group: Group, curves: Sequence[Curve], stretches: Sequence[Stretch]) -> Figure:
    """Draw what the runs reach together, the best at each k, and below which run that is."""
    figure = Figure(
        f"frontier--{group.slug}",
        f"Coverage frontier, {group.title}",
        "The best run at each k: " + ", ".join(map(said_of, stretches)) + ".",
        WIDTH,
        HEIGHT + 18,
        [key_of(curve.run) for curve in curves],
    )
    every = [one.value for curve in curves for one in curve.estimates]
    limits = share_limits(min(every), max(every))
    highest = stretches[-1].last
    ticks = ticked(round_ticks(*limits), percent)
    plot = Plot(figure, (1, max(highest, 2)), limits, (12, 14, 52, room_for(ticks)), log_x=True)
    plot.y_ticks(ticks)
    shown = [
        curve._replace(ks=curve.ks[:end], estimates=curve.estimates[:end]) for curve, end in _cut(curves, highest)
    ]
    best = [(k, max(dict(curve.points)[k] for curve in shown)) for k in shown[0].ks]
    plot.line(best, "frontier", 10)
    for curve in shown:
        key = key_of(curve.run)
        plot.line(curve.points, key.colour)
        k, value = curve.points[-1]
        figure.dot(plot.at_x(k), plot.at_y(value), key.colour, 3.6, key.shape)
    _draw_strip(plot, stretches)
    return figure


def _cut(curves: Sequence[Curve], highest: int) -> list[tuple[Curve, int]]:
    return [(curve, sum(k <= highest for k in curve.ks)) for curve in curves]


def said_of(one: Stretch) -> str:
    """Return in words which run is the best, and where."""
    where = f"at k = {one.first}" if one.first == one.last else f"for k = {one.first} to {one.last}"
    names = " and ".join(run.name for run in one.runs)
    return f"{names} {'' if len(one.runs) == 1 else '(equal) '}{where}"


def _draw_strip(plot: Plot, stretches: Sequence[Stretch]) -> None:
    top, edges = plot.bottom + 4, [plot.at_x(one.first) for one in stretches[1:]]
    ends = zip(stretches, [plot.left, *edges], [*edges, plot.right], strict=True)
    for one, left, right in ends:
        colour = key_of(one.runs[0]).colour if len(one.runs) == 1 else "axis"
        plot.figure.bar(left, top, max(right - left - 1, 1), 8, colour, f"Best: {said_of(one)}")
    for value, words in doublings(max(stretches[-1].last, 2)):
        plot.figure.text(plot.at_x(value), top + 22, words, size=11.5, anchor="middle")
    middle = (plot.left + plot.right) / 2
    plot.figure.text(middle, top + 38, "k; the strip: which run is best", size=11.5, anchor="middle")
