"""What matches come to: which items and rows, how many of them, and how far detectors agree.

A judge's `unknown` is neither a leak nor clean. It is counted by itself, every rate has two ends (all of it clean, all
of it a leak), and a row that is unknown is not kept. How far two detectors agree is counted over the test items that
both know about: those that both name, one of them, none; and Cohen's kappa, which is 0 where they agree as often as
two that draw their items by chance, and 1 where they always do.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trl_math.contamination.matches import Match
from trl_math.contamination.outcomes import is_unknown, share_bounds


CLEAN, UNKNOWN, LEAKED = 0, 1, 2
States = NDArray[np.int8]


def states(matches: Iterable[Match], side: str, number: int) -> States:
    """Return for each item (`test`) or row (`train`) whether it is clean, unknown, or in a match."""
    found = np.zeros(number, dtype=np.int8)
    for match in matches:
        place = getattr(match, side)
        found[place] = max(found[place], UNKNOWN if is_unknown(match) else LEAKED)
    return found


def together(every: Sequence[States], number: int) -> States:
    """Return the states by several detectors: a leak for one is a leak."""
    return np.max(np.stack(every), axis=0) if every else np.zeros(number, dtype=np.int8)


def bounds(found: States) -> dict[str, Any]:
    """Return the share that leaked, with its interval and what is unknown about it."""
    num_leaked, num_unknown = int((found == LEAKED).sum()), int((found == UNKNOWN).sum())
    return share_bounds(num_leaked, num_unknown, len(found)).as_dict()


def agreements(items: Mapping[str, States]) -> list[dict[str, Any]]:
    """Return how far each two detectors agree."""
    return [
        {"first": first, "second": second, **agreement(items[first], items[second])}
        for first, second in combinations(items, 2)
    ]


def agreement(first: States, second: States) -> dict[str, Any]:
    """Return in how many items two detectors agree, and Cohen's kappa; None where one of them never varies."""
    known = (first != UNKNOWN) & (second != UNKNOWN)
    one, other = first[known] == LEAKED, second[known] == LEAKED
    both, only_first, only_second = (int(x.sum()) for x in (one & other, one & ~other, ~one & other))
    num = int(known.sum())
    counts = {
        "both": both,
        "only_first": only_first,
        "only_second": only_second,
        "neither": num - both - only_first - only_second,
        "num_unknown": len(first) - num,
    }
    return {**counts, "kappa": kappa(both, only_first, only_second, counts["neither"])}


def kappa(both: int, only_first: int, only_second: int, neither: int) -> float | None:
    """Return Cohen's kappa of a table of two by two; None where chance alone would agree always."""
    num = both + only_first + only_second + neither
    first, second = both + only_first, both + only_second
    by_chance = first * second + (num - first) * (num - second)  # times num squared
    if by_chance == num * num:
        return None
    return (num * (both + neither) - by_chance) / (num * num - by_chance)
