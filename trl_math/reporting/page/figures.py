"""Figures but for curves over k, each a small panel that is readable on a phone; many stand side by side."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from trl_math.evaluation import Estimate, majority_confidence
from trl_math.reporting.page.drawing import NUM_COLOURS, SHAPES, WIDTH, Figure, Key, clipped
from trl_math.reporting.page.plot import (
    Plot,
    number,
    percent,
    round_limits,
    round_ticks,
    share,
    share_limits,
    ticked,
)
from trl_math.reporting.page.runs import Group, Result, Run


HEIGHT = 250
CONFIDENCE_BINS = 20
ROW_HEIGHT = 16
LETTER = 6.1  # how wide a letter of a row's name is
LONGEST_TICK = 6  # letters: of longer ones every second is left out
MOST_DOTS = 20  # of a line; with more, only its end has one
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Interval(NamedTuple):
    """A point with its interval in a dot plot."""

    value: float
    low: float
    high: float


def key_of(run: Run) -> Key:
    """Return how a run looks: one colour and one shape throughout the report."""
    turn = run.index // NUM_COLOURS  # a colour that comes again has another shape
    return Key(run.name, f"run{run.index % NUM_COLOURS}", SHAPES[(run.index + turn) % len(SHAPES)])


def said(one: Estimate | Interval) -> str:
    return f"{share(one.value)} % ({share(one.low, of=one.value)} to {share(one.high, of=one.value)})"


def confidence_figure(result: Result, calibration: Mapping[str, Any] | None, slug: str) -> Figure:
    """Draw how sure the majority answers are, right and wrong, and below how often they are right."""
    assert result.samples is not None
    figure = Figure(
        f"confidence--{slug}--{result.run.index + 1}",
        f"Majority confidence, {result.benchmark}, {result.run.name}",
        f"Problems by the share of samples that the majority answer has, and how often it is right: {result.run.name}",
        WIDTH,
        380,
        [Key("right", "right"), Key("wrong", "wrong")],
    )
    tallies = result.samples.tallies
    sure, right = majority_confidence([one.votes for one in tallies], [one.correct_classes for one in tallies])
    _draw_histogram(Plot(figure, (0, 1), (0, 1), (24, 20, 232, 44)), sure, right, result.samples.most)
    reliability = Plot(figure, (0, 1), (0, 1), (186, 20, 38, 44))
    reliability.y_ticks(ticked((0, 0.25, 0.5, 0.75, 1), percent), "majority answer right")
    reliability.x_ticks(ticked((0, 0.25, 0.5, 0.75, 1), percent), "confidence: share of samples with that answer")
    reliability.line([(0, 0), (1, 1)], "axis", 1.2, "4 4")
    key = key_of(result.run)
    for one in (calibration or {}).get("bins", ()):
        accuracy = one["accuracy"]
        note = f"confidence {percent(one['confidence'])}: {said(Estimate(**accuracy))} right, n = {accuracy['n']}"
        x = reliability.at_x(one["confidence"])
        ends = [(x, reliability.at_y(accuracy[end])) for end in ("low", "high")]
        figure.line(ends, key.colour, 1.6)
        figure.dot(x, reliability.at_y(accuracy["value"]), key.colour, 4.2, key.shape, note=note)
    return figure


def _draw_histogram(plot: Plot, sure: np.ndarray, right: np.ndarray, most: int) -> None:
    # With few samples the shares are few: a bar for each, centred on it.
    num = most if most <= CONFIDENCE_BINS else CONFIDENCE_BINS
    edges = (np.arange(num + 2) - 0.5) / num if most <= CONFIDENCE_BINS else np.linspace(0, 1, num + 1)
    edges = np.clip(edges, 0, 1)
    counts = [np.histogram(sure, edges, weights=part)[0] for part in (right, 1 - right)]
    highest = float(max((counts[0] + counts[1]).max(), 1))
    plot.y = (0, highest)
    plot.y_ticks(ticked([tick for tick in round_ticks(0, highest, 3) if tick == int(tick)]), "problems")
    for low, high, *stack in zip(edges, edges[1:], *counts, strict=False):
        base = 0.0
        for part, colour in zip(stack, ("right", "wrong"), strict=True):
            left, top = plot.at_x(low) + 0.6, plot.at_y(base + part)
            if part > 0:
                note = f"confidence {percent(low)} to {percent(high)}: {part:g} {colour}"
                wide, tall = plot.at_x(high) - left - 0.6, plot.at_y(base) - top
                plot.figure.bar(left, top, wide, tall, colour, note)
            base += part
    plot.figure.line([(plot.left, plot.bottom), (plot.right, plot.bottom)], "axis")


def dot_figure(
    figure: Figure,
    rows: Sequence[tuple[str, Sequence[tuple[Key, Interval]]]],
    limits: tuple[float, float],
    label: str,
    zero: float | None = None,
) -> Figure:
    """Draw rows of points with intervals, and set the figure's height. Limits are of shares, or of differences."""
    longest = max(len(line) for name, _ in rows for line in name.split("\n"))
    left = min(150, 16 + LETTER * longest)
    heights = [max(18 + 14 * (name.count("\n") + 1), ROW_HEIGHT * len(points) + 10) for name, points in rows]
    figure.height = sum(heights) + 50
    words = percent if zero is None else points_of
    ticks = ticked(round_ticks(*limits, 4), words)
    if max(len(text) for _, text in ticks) > LONGEST_TICK:
        ticks = ticks[::2]
    plot = Plot(figure, limits, (0, 1), (8, max(20, 4 * len(ticks[-1][1])), 42, left))
    plot.x_ticks(ticks, label, lines=True)
    if zero is not None:
        figure.line([(plot.at_x(zero), plot.top), (plot.at_x(zero), plot.bottom)], "muted", 1.2)
    top = plot.top
    for place, ((name, points), height) in enumerate(zip(rows, heights, strict=True)):
        if place:
            figure.line([(0, top), (plot.right, top)], "grid")
        lines = name.split("\n")
        for row, line in enumerate(lines):
            y = top + height / 2 + 4 + 14 * (row - (len(lines) - 1) / 2)
            figure.text(0, y, clipped(line, int((left - 10) / LETTER)), "ink", 11.5)
        first = top + height / 2 - ROW_HEIGHT * (len(points) - 1) / 2
        for row, (key, one) in enumerate(points):
            y = first + ROW_HEIGHT * row
            ends = (plot.at_x(max(one.low, limits[0])), plot.at_x(min(one.high, limits[1])))
            figure.line([(end, y) for end in ends], key.colour, 2)
            note = f"{name}, {key.name}: {said(one)}".replace("\n", " ")
            figure.dot(plot.at_x(one.value), y, key.colour, 4, key.shape, note=note)
        top += height
    return figure


def points_of(value: float) -> str:
    """Return a difference as a tick's words."""
    return f"{100 * value:+.0f}".replace("-", "\N{MINUS SIGN}") if abs(value) > 1e-9 else "0"


def lengths_figure(group: Group) -> Figure:
    """Draw quantiles of the samples' lengths in tokens, right and wrong samples apart."""
    names = [one.run for one in group.results]
    figure = Figure(
        f"lengths--{group.slug}",
        f"Tokens a sample, {group.title}",
        "Median (point), middle half (thick) and 5th to 95th percentile (thin) of the number of tokens.",
        WIDTH,
        len(names) * 52 + 50,
        [key_of(run) for run in names],
    )
    spans = [
        (result, verdict, np.quantile(found, QUANTILES))
        for result in group.results
        for verdict, found in (result.samples.tokens if result.samples else {}).items()
        if len(found)
    ]
    highest = max(1.0, *(span[-1] for *_, span in spans))
    plot = Plot(figure, (0, highest), (0, 1), (8, 16, 42, 52))
    plot.x_ticks(ticked(round_ticks(0, highest, 4)), "tokens", lines=True)
    for result, verdict, (low, first, middle, third, high) in spans:
        place = next(place for place, one in enumerate(group.results) if one is result)
        y = plot.top + 52 * place + (18 if verdict else 36)
        key = key_of(result.run)
        words = "right" if verdict else "wrong"
        figure.text(0, y + 4, words, size=11.5)
        figure.line([(plot.at_x(low), y), (plot.at_x(high), y)], key.colour, 1.4)
        figure.line([(plot.at_x(first), y), (plot.at_x(third), y)], key.colour, 5)
        note = f"{key.name}, {words}: median {middle:.0f} tokens, half from {first:.0f} to {third:.0f}"
        figure.dot(plot.at_x(middle), y, key.colour, 5, key.shape, note=note)
    return figure


def training_figure(name: str, lines: Sequence[tuple[Run, Sequence[tuple[int, float]]]], slug: str) -> Figure:
    """Draw one logged number over the steps of several runs."""
    keys = [key_of(run) for run, _ in lines]
    figure = Figure(f"training--{slug}", name, f"{name} over optimiser steps.", WIDTH, HEIGHT, keys)
    steps = [step for _, points in lines for step, _ in points]
    values = [value for _, points in lines for _, value in points]
    is_share = name.startswith(("eval_pass@", "eval_maj@")) and max(values) <= 1
    limits = share_limits(min(values), max(values)) if is_share else round_limits(min(values), max(values))
    plot = Plot(figure, (min(steps), max(steps)), limits, margins=(12, 14, 34, 52))
    plot.y_ticks(ticked(round_ticks(*limits), percent if is_share else number))
    plot.x_ticks(ticked(round_ticks(min(steps), max(steps))), "optimiser steps")
    for key, (run, points) in zip(keys, lines, strict=True):
        plot.line(points, key.colour, 1.8)
        for step, value in points if len(points) <= MOST_DOTS else points[-1:]:
            note = f"{run.name}, step {step}: {number(value)}"
            figure.dot(plot.at_x(step), plot.at_y(value), key.colour, 3.2, key.shape, note=note)
    return figure
