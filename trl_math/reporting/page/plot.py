"""Axes for figures: from numbers to pixels, with ticks that a reader can do without thinking about."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from trl_math.reporting.page.drawing import BAND, Figure, Points


LABEL_SIZE = 11.5
SMALL = 0.1
Ticks = Sequence[tuple[float, str]]


@dataclass
class Plot:
    """A figure with one pair of axes. `x` and `y` are (lowest, highest) of the data."""

    figure: Figure
    x: tuple[float, float]
    y: tuple[float, float]
    margins: tuple[float, float, float, float] = (12, 14, 34, 44)  # top, right, bottom, left
    log_x: bool = False
    _span: tuple[float, float] = field(init=False, default=(0, 1))

    def __post_init__(self) -> None:
        low, high = (self._scaled(value) for value in self.x)
        self._span = (low, high) if high > low else (low - 0.5, high + 0.5)

    @property
    def left(self) -> float:
        return self.margins[3]

    @property
    def right(self) -> float:
        return self.figure.width - self.margins[1]

    @property
    def top(self) -> float:
        return self.margins[0]

    @property
    def bottom(self) -> float:
        return self.figure.height - self.margins[2]

    def _scaled(self, value: float) -> float:
        return math.log2(value) if self.log_x else value

    def at_x(self, value: float) -> float:
        low, high = self._span
        return self.left + (self._scaled(value) - low) / (high - low) * (self.right - self.left)

    def at_y(self, value: float) -> float:
        low, high = self.y
        high = high if high > low else low + 1
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)

    def place(self, points: Points) -> Points:
        return [(self.at_x(x), self.at_y(y)) for x, y in points]

    def line(self, points: Points, colour: str, width: float = 2.0, dash: str = "", opacity: float = 1.0) -> None:
        self.figure.line(self.place(points), colour, width, dash, opacity)

    def band(self, lows: Points, highs: Points, colour: str) -> None:
        self.figure.area([*self.place(lows), *reversed(self.place(highs))], colour, BAND)

    def y_ticks(self, ticks: Ticks, label: str = "") -> None:
        """Draw horizontal lines with their values, and the axis' label above them."""
        for value, words in ticks:
            y = self.at_y(value)
            self.figure.line([(self.left, y), (self.right, y)], "grid")
            self.figure.text(self.left - 6, y + 4, words, size=LABEL_SIZE, anchor="end")
        if label:
            self.figure.text(0, self.top - 12, label, size=LABEL_SIZE)

    def x_ticks(self, ticks: Ticks, label: str = "", *, lines: bool = False) -> None:
        """Draw the axis with its values, and its label below them."""
        for value, words in ticks:
            x = self.at_x(value)
            if lines:
                self.figure.line([(x, self.top), (x, self.bottom)], "grid")
            else:
                self.figure.line([(x, self.bottom), (x, self.bottom + 4)], "axis")
            self.figure.text(x, self.bottom + 16, words, size=LABEL_SIZE, anchor="middle")
        self.figure.line([(self.left, self.bottom), (self.right, self.bottom)], "axis")
        if label:
            middle = (self.left + self.right) / 2
            self.figure.text(middle, self.bottom + 31, label, size=LABEL_SIZE, anchor="middle")


def round_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return at most about `most` round numbers in [low, high]."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    raw = span / most
    unit = 10 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [step * place for place in range(first, math.floor(high / step + 1e-9) + 1)]


def round_limits(low: float, high: float, most: int = 5) -> tuple[float, float]:
    """Return limits around [low, high] that are round numbers themselves."""
    if not high > low:
        return low - 0.5, high + 0.5
    ticks = round_ticks(low, high, most)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else high - low
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step


def share_limits(low: float, high: float) -> tuple[float, float]:
    """Return limits for shares: round tenths around them, at least three tenths apart; small ones fill the axis."""
    if 0 < high <= SMALL:  # where hardly anything is solved, an axis to 30 % would show nothing
        return 0.0, round_limits(0.0, high)[1]
    bottom, top = max(0.0, math.floor(low * 10 - 1e-9) / 10), min(1.0, math.ceil(high * 10 + 1e-9) / 10)
    while top - bottom < 0.299:
        top, bottom = min(1.0, top + 0.1), max(0.0, bottom - 0.1 if top >= 0.999 else bottom)
    return round(bottom, 1), round(top, 1)


def share(value: float, digits: int = 1, *, of: float | None = None) -> str:
    """Return a share in percent; one that would be rounded to 0 keeps two digits that say something.

    `of` is the number of which this is an end of the interval: that needs more digits only if the number does.
    """
    limit = 0.005 * 10**-digits
    if 0 < abs(value) < limit and 0 < abs(value if of is None else of) < limit:
        return _short_exponent(f"{100 * value:.2g}")
    return f"{100 * value:.{digits}f}"


def percent(value: float) -> str:
    """Return a share as a tick's words."""
    return _short_exponent(f"{round(100 * value, 12):.3g}") + " %"


def _short_exponent(words: str) -> str:
    """Write 2e-07 as 2e-7, with a minus sign, at which no line is broken."""
    return re.sub(r"e-0*(\d)", "e\N{MINUS SIGN}\\1", words)


def number(value: float) -> str:
    """Return a number as a tick's words."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def ticked(values: Sequence[float], words: Callable[[float], str] = number) -> Ticks:
    return [(value, words(value)) for value in values]


def room_for(ticks: Ticks) -> float:
    """Return how wide the margin of an axis with these words must be."""
    return max(44.0, 10 + 6.6 * max((len(words) for _, words in ticks), default=0))


def doublings(highest: int, most: int = 8) -> Ticks:
    """Return powers of two up to `highest` as ticks, every second one if there would be too many."""
    powers = [2**place for place in range(highest.bit_length()) if 2**place <= highest]
    every = math.ceil(len(powers) / most)
    return [(value, str(value)) for value in powers[::every]]
