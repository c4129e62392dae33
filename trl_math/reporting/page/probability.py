"""The probability that a model gives to each problem's answer: how many problems have which, over powers of ten.

It says what coverage@k will do at any k: a problem of probability p takes about 1/p tries.
"""

import math
from collections.abc import Sequence

import numpy as np

from trl_math.reporting.page.drawing import WIDTH, Figure
from trl_math.reporting.page.figures import HEIGHT, key_of
from trl_math.reporting.page.markup import Child, Markup
from trl_math.reporting.page.plot import Plot, round_ticks, share, ticked
from trl_math.reporting.page.runs import Result
from trl_math.reporting.page.tables import table


LOWEST = -12  # powers of ten; what is below counts there
BINS_A_DECADE = 2
MOST_TICKS = 6
THRESHOLDS = (0.5, 0.1, 1e-2, 1e-3, 1e-4, 1e-6)


def probability_figure(result: Result, slug: str) -> Figure:
    """Draw how many problems have which probability of their answer."""
    figure = Figure(
        f"probability--{slug}--{result.run.index + 1}",
        f"Probability of the answer, {result.benchmark}, {result.run.name}",
        f"Problems by the probability that {result.run.name} gives to their answer, over powers of ten.",
        WIDTH,
        HEIGHT,
        [key_of(result.run)],
    )
    powers = np.maximum(_logps(result) / math.log(10), LOWEST)
    first = min(-1, math.floor(powers.min()))
    edges = np.linspace(first, 0, -first * BINS_A_DECADE + 1)
    counts = np.histogram(powers, edges)[0].tolist()
    plot = Plot(figure, (first, 0), (0, max(counts)), (24, 20, 38, 44))
    plot.y_ticks(ticked([tick for tick in round_ticks(0, max(counts), 4) if tick == int(tick)]), "problems")
    step = math.ceil(-first / MOST_TICKS)
    ticks = ticked(range(0, first - 1, -step), lambda power: _tick(int(power), is_last=power == LOWEST))
    plot.x_ticks(ticks, "probability of the answer")
    colour = key_of(result.run).colour
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        if count:
            left, top = plot.at_x(low) + 0.6, plot.at_y(count)
            ends = f"{10**low:.2g} to {10**high:.2g}" if low > LOWEST else f"{10**high:.2g} or less"
            note = f"probability {ends}: {count} problem{'s' if count > 1 else ''}"
            figure.bar(left, top, plot.at_x(high) - left - 0.6, plot.bottom - top, colour, note)
    return figure


def _logps(result: Result) -> np.ndarray:
    return np.minimum(np.array(list((result.logps or {}).values())), 0.0)


def _tick(power: int, *, is_last: bool) -> str:
    if power > -3:
        return f"{10.0**power:g}"
    written = "10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"≤ {written}" if is_last else written


def probability_note(result: Result) -> Child:
    """Return the quartiles in words."""
    low, middle, high = (f"{share(one)} %" for one in np.quantile(np.exp(_logps(result)), (0.25, 0.5, 0.75)).tolist())
    return f"Median {middle}; half of the {len(result.logps or ())} problems have {low} to {high}."


def probability_table(result: Result) -> Markup:
    """Return how many problems have at least which probability."""
    probabilities = np.exp(_logps(result))
    counts: Sequence[int] = [int((probabilities >= one).sum()) for one in THRESHOLDS]
    rows: list[list[Child]] = [
        [f"{share(least, 0)} %", str(count), share(count / len(probabilities))]
        for least, count in zip(THRESHOLDS, counts, strict=True)
    ]
    return table(["at least", "problems", "%"], rows, f"Probabilities of {result.run.name}")
