"""Detectors at work on whole sides: each text is looked at once, however often it stands there.

A text that stands a thousand times in what is trained on would otherwise make its own words look like boilerplate.
What is found of it holds for all rows that have it.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from trl_math.contamination.matches import Detector, Match, in_order


class Ran(NamedTuple):
    """What one detector found."""

    name: str
    threshold: float
    matches: list[Match]
    seconds: float


class Unique(NamedTuple):
    """The different texts of a side, and which places of it have each."""

    texts: list[str]
    places: list[list[int]]


def unique(texts: Sequence[str]) -> Unique:
    """Return the different texts in the order in which they come."""
    places: dict[str, list[int]] = {}
    for place, text in enumerate(texts):
        places.setdefault(text, []).append(place)
    return Unique(list(places), list(places.values()))


def find_leaks(
    detectors: Mapping[str, Detector], test: Sequence[str], train: Sequence[str], say: Callable[[str], None]
) -> list[Ran]:
    """Return what each detector finds, its matches in the order of `in_order`."""
    tests, trains = unique(test), unique(train)
    ran = []
    for name, detector in detectors.items():
        start = time.monotonic()
        matches = in_order(_everywhere(detector.find(tests.texts, trains.texts), tests, trains))
        ran.append(Ran(name, detector.threshold, matches, round(time.monotonic() - start, 1)))
        items, rows = ({getattr(match, side) for match in matches} for side in ("test", "train"))
        say(f"{name}: {len(items):,} test items in {len(rows):,} rows ({len(matches):,} pairs), {ran[-1].seconds} s")
    return ran


def _everywhere(matches: Sequence[Match], tests: Unique, trains: Unique) -> Iterator[Match]:
    for match in matches:
        for test in tests.places[match.test]:
            for train in trains.places[match.train]:
                yield match._replace(test=test, train=train)
