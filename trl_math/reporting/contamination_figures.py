"""The figures of a decontamination: how much of each benchmark was found, and how far detectors agree."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trl_math.reporting.page.drawing import NUM_COLOURS, SHAPES, WIDTH, Figure, Key, clipped
from trl_math.reporting.page.plot import Plot, percent, round_limits, round_ticks, ticked


ALL = "all detectors"
CELL = 34
NAME_WIDTH = 128
LONGEST_NAME = 18
FAINTEST, STRONGEST = 0.06, 0.92  # opacity of a cell
DARK = 0.55  # from this opacity on, words on a cell are light
ROW, BELOW = 24, 46  # heights of a detector, and of the axis

Found = Mapping[str, Any]


def looks_of(summary: Found) -> dict[str, Key]:
    """Return how each detector looks, and all that count together."""
    looks = {ALL: Key(ALL, "ink", "diamond")}
    for place, name in enumerate(summary["detectors"]):
        shape = SHAPES[place // NUM_COLOURS % len(SHAPES)]
        counts = summary["detectors"][name]["counts"]
        looks[name] = Key(name if counts else f"{name} (compared)", f"run{place % NUM_COLOURS}", shape)
    return looks


def rates_figures(summary: Found) -> list[Figure]:
    """Draw the share of each benchmark's items that was found, by each detector and by all; over one scale."""
    shares = {name: {ALL: one["contaminated"], **one["by_detector"]} for name, one in summary["benchmarks"].items()}
    highest = max(one["high"]["high"] for found in shares.values() for one in found.values())
    limits = (0.0, min(1.0, round_limits(0.0, highest, 4)[1]))
    return [_rates(name, found, summary, limits) for name, found in shares.items()]


def _rates(name: str, found: Mapping[str, Found], summary: Found, limits: tuple[float, float]) -> Figure:
    looks = looks_of(summary)
    title = f"{short_name(name)}, {summary['benchmarks'][name]['num']:,} items"
    caption = f"The share of the items of {name} that detectors found, with 95 % intervals."
    figure = Figure(f"found--{slug_of(name)}", title, caption, WIDTH, ROW * len(found) + BELOW)
    plot = Plot(figure, limits, (0, 1), (4, 52, BELOW - 4, NAME_WIDTH))
    ticks = ticked(round_ticks(*limits, 4), percent)
    plot.x_ticks(ticks, "test items found", lines=True)
    for place, (who, one) in enumerate(found.items()):
        y = plot.top + ROW * (place + 0.5)
        counts = who == ALL or summary["detectors"][who]["counts"]
        figure.text(0, y + 4, clipped(who, LONGEST_NAME), "ink" if counts else "muted", 11.5, is_bold=who == ALL)
        ends = (plot.at_x(one["low"]["low"]), plot.at_x(min(one["high"]["high"], limits[1])))
        key = looks[who]
        figure.line([(end, y) for end in ends], key.colour, 2)
        words = f"{one['num_yes']:,}" + (f" + {one['num_unknown']:,}?" if one["num_unknown"] else "")
        note = f"{who}: {words} of {one['num']:,}"
        figure.dot(plot.at_x(one["low"]["value"]), y, key.colour, 4, key.shape, note=note)
        figure.text(WIDTH, y + 4, words, "ink" if counts else "muted", 11.5, anchor="end")
    return figure


def short_name(name: str) -> str:
    """Return the name of a benchmark, or of another source without the folders that say nothing to a reader."""
    name, equals, path = name.partition("=")
    if not equals or "/" in name:
        name += equals + path
    return "/".join(Path(name).parts[-2:]) if "/" in name else name


def slug_of(name: str) -> str:
    """Return a name as part of a file's."""
    return re.sub(r"[^\w.-]+", "-", short_name(name)).strip("-.") or "benchmark"


def agreement_figure(summary: Found) -> Figure | None:
    """Draw Cohen's kappa of each two detectors as a lower triangle; on its edge, how many items each found."""
    names = list(summary["detectors"])
    if len(names) < 2:
        return None
    kappas = {(one["second"], one["first"]): one["kappa"] for one in summary["agreement"]}
    side = CELL if len(names) <= 6 else max(18, (WIDTH - NAME_WIDTH) // len(names))
    figure = Figure(
        "agreement",
        "How far detectors agree on test items",
        "Cohen's kappa of each two detectors: 1 where they find the same items, 0 where they agree as by chance. On "
        "the edge of the triangle stands how many items a detector found.",
        WIDTH,
        len(names) * side + 22,
    )
    size = 11 if side >= 30 else 9
    for row, name in enumerate(names):
        top = row * side
        figure.text(0, top + side / 2 + 4, f"{row + 1}  {clipped(name, LONGEST_NAME)}", "ink", 11.5)
        for column, other in enumerate(names[: row + 1]):
            left = NAME_WIDTH + column * side
            if row == column:
                num = summary["detectors"][name]["num_test_items"]
                _cell(figure, left, top, side, "grid", 1.0, f"{name} found {num:,} test items")
                figure.text(left + side / 2, top + side / 2 + 4, _few(num), "ink", size, anchor="middle")
                continue
            _kappa_cell(figure, left, top, side, size, (name, other, kappas[name, other]))
    for column in range(len(names)):
        middle = NAME_WIDTH + column * side + side / 2
        figure.text(middle, len(names) * side + 15, str(column + 1), "muted", 11, anchor="middle")
    return figure


def _kappa_cell(
    figure: Figure, left: float, top: float, side: float, size: float, pair: tuple[str, str, float | None]
) -> None:
    name, other, kappa = pair
    middle = (left + side / 2, top + side / 2 + 4)
    if kappa is None:
        _cell(figure, left, top, side, "grid", 0.5, f"{other} and {name}: nothing that could agree")
        figure.text(*middle, "\N{EN DASH}", "muted", size, anchor="middle")
        return
    opacity = FAINTEST + (STRONGEST - FAINTEST) * min(abs(kappa), 1.0)
    colour = "run0" if kappa >= 0 else "run1"
    _cell(figure, left, top, side, colour, opacity, f"{other} and {name}: kappa {kappa:.2f}")
    words = f"{kappa:.2f}".replace("-", "\N{MINUS SIGN}").replace("0.", ".") if abs(kappa) < 0.995 else f"{kappa:.0f}"
    figure.text(*middle, words, "paper" if opacity > DARK else "ink", size, anchor="middle")


def _cell(figure: Figure, left: float, top: float, side: float, colour: str, opacity: float, note: str) -> None:
    right, bottom = left + side - 2, top + side - 2
    corners: Sequence[tuple[float, float]] = [(left, top), (right, top), (right, bottom), (left, bottom)]
    figure.area(corners, colour, opacity, note)


def _few(number: int) -> str:
    """Return a number in the room of a cell."""
    return f"{number:,}" if number < 1000 else f"{number / 1000:.1f}k" if number < 10_000 else f"{number // 1000}k"
