"""Arms that were trained with several seeds: what an arm gains over another, and how certain that is.

Two things vary. On other problems the same models would differ by another amount; and training again, with other
seeds, would give other models. So a gain comes with more than one interval:

    problems   other problems, these models: seeds are averaged, then `paired.difference_estimate` over the problems.
               With one seed it is the interval of `trl-math compare`.
    seeds      other models, these problems: a t interval over the gains of the seeds. One seed has none.
    both       other models and other problems: the two put together by squares. What is of neither cause alone, as
               the luck of one seed on one problem, is in both parts and counts twice, so that the interval is rather
               too wide than too narrow.

A claim about a method is one about `both`: the first interval alone can be a lucky run, the second one a lucky
benchmark. Three seeds make a wide t interval, which is how much three seeds tell.

Hard against easy: gains on two sets of problems that have none in common, and the shift, hard minus easy. Its interval
over problems puts the two together by squares (Newcombe 1998), which needs no more assumptions than they do.
"""

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from trl_math.errors import UsageError
from trl_math.evaluation.beta import beta_quantile
from trl_math.evaluation.intervals import Estimate, mean_estimate, problem_values
from trl_math.evaluation.paired import PValue, difference_estimate, sign_flip


T_METHOD = "t over seeds"
BOTH_METHOD = "problems and seeds, by squares"
SHIFT_METHOD = "Newcombe, of two independent differences"


class Level(NamedTuple):
    """The mean of one arm."""

    problems: Estimate
    seeds: Estimate | None
    by_seed: list[float]


class Gain(NamedTuple):
    """What one arm has more than another."""

    problems: Estimate
    seeds: Estimate | None  # None with one seed
    both: Estimate | None
    by_seed: list[float]


class HardEasy(NamedTuple):
    """Gains on the hard and on the easy problems, and what the first is above the second."""

    hard: Gain
    easy: Gain
    shift: Gain


def arm_level(values: ArrayLike, confidence: float = 0.95) -> Level:
    """Return an arm's mean. `values`: (S, P), a metric in [0, 1] of each seed on each problem."""
    table = _table(values)
    by_seed = table.mean(axis=1)
    return Level(mean_estimate(table.mean(axis=0), confidence), t_estimate(by_seed, confidence), by_seed.tolist())


def arm_gain(values: ArrayLike, than: ArrayLike, confidence: float = 0.95) -> Gain:
    """Return what an arm has more than another one, seed by seed and problem by problem.

    Args:
        values: (S, P), a metric in [0, 1] of each seed on each problem.
        than: (S, P), of the other arm: the same seeds and problems in the same order.
        confidence: Of the intervals.
    """
    d = _differences(values, than)
    return _gain(difference_estimate(d.mean(axis=0), confidence), d.mean(axis=1))


def gain_p_value(values: ArrayLike, than: ArrayLike) -> PValue:
    """Return how likely so large a mean gain on these problems is if it does not matter which arm is which."""
    return sign_flip(_differences(values, than).mean(axis=0))


def hard_against_easy(
    values: ArrayLike, than: ArrayLike, hard: ArrayLike, easy: ArrayLike, confidence: float = 0.95
) -> HardEasy:
    """Return an arm's gains on hard and on easy problems.

    Args:
        values: (S, P), as `arm_gain` has them.
        than: (S, P).
        hard: (P,), whether a problem is one of the hard ones.
        easy: (P,), one of the easy ones; none is both.
        confidence: Of the intervals.
    """
    a, b = (np.asarray(table, dtype=float) for table in (values, than))
    masks = [np.asarray(mask, dtype=bool) for mask in (hard, easy)]
    if (masks[0] & masks[1]).any():
        raise UsageError("A problem cannot be hard and easy.")
    on_hard, on_easy = (arm_gain(a[:, mask], b[:, mask], confidence) for mask in masks)
    shift = newcombe(on_hard.problems, on_easy.problems)
    return HardEasy(on_hard, on_easy, _gain(shift, np.subtract(on_hard.by_seed, on_easy.by_seed)))


def t_estimate(values: ArrayLike, confidence: float = 0.95) -> Estimate | None:
    """Return the mean of one number a seed, with its t interval; None for one seed, which tells of no spread."""
    x = np.ravel(np.asarray(values, dtype=float))
    if len(x) < 2:
        return None
    half = t_quantile(confidence, len(x) - 1) * float(x.std(ddof=1)) / math.sqrt(len(x))
    mean = float(x.mean())
    return Estimate(mean, mean - half, mean + half, len(x), T_METHOD, confidence)


def both_estimate(problems: Estimate, seeds: Estimate | None) -> Estimate | None:
    """Return the gain with an interval for other problems and other seeds; None if there is but one seed."""
    if seeds is None:
        return None
    low = problems.value - math.hypot(problems.value - problems.low, seeds.value - seeds.low)
    high = problems.value + math.hypot(problems.high - problems.value, seeds.high - seeds.value)
    return Estimate(problems.value, low, high, problems.n, BOTH_METHOD, problems.confidence)


def newcombe(first: Estimate, second: Estimate) -> Estimate:
    """Return the difference of two independent estimates: the ends of their intervals, put together by squares."""
    value = first.value - second.value
    low = value - math.hypot(first.value - first.low, second.high - second.value)
    high = value + math.hypot(first.high - first.value, second.value - second.low)
    return Estimate(value, low, high, first.n + second.n, SHIFT_METHOD, first.confidence)


@cache
def t_quantile(confidence: float, degrees: float) -> float:
    """Return how many standard errors a two-sided t interval reaches; `degrees` of freedom need not be whole."""
    if not 0 < confidence < 1:
        raise UsageError(f"confidence must be between 0 and 1, got {confidence!r}; 0.95 is usual.")
    # P(|T| > t) is the probability that a Beta(v/2, 1/2) variable is below v / (v + t^2).
    x = float(beta_quantile(1 - confidence, degrees / 2, 0.5))
    return math.sqrt(degrees * (1 - x) / x)


def split_by_level(levels: Sequence[str | None]) -> tuple[list[str], list[str]] | None:
    """Return the names of the easy and of the hard levels; None unless levels are at least two with numbers.

    Lower numbers are easier. Of an odd number of levels, the one in the middle is neither.
    """
    names = {name for name in levels if name is not None}
    numbers = {name: _number_in(name) for name in names}
    if len(names) < 2 or None in numbers.values() or len(set(numbers.values())) < len(names):
        return None
    ordered = sorted(names, key=lambda name: numbers[name] or 0.0)
    half = len(ordered) // 2
    return ordered[:half], ordered[-half:]


def split_by_rate(rates: Mapping[str, float]) -> tuple[list[str], list[str]] | None:
    """Return the easy and the hard problems: the halves of those by pass rate, equal rates on one side.

    None if all rates are the same. The rates must be of another run than those that are compared: problems that a run
    failed by chance do better in the next one, which would look like a gain on what is hard.
    """
    kinds = sorted(set(rates.values()))
    if len(kinds) < 2:
        return None
    values = np.array(list(rates.values()))
    limit = min(kinds[1:], key=lambda kind: abs((values < kind).sum() - len(values) / 2))
    easy = [name for name, rate in rates.items() if rate >= limit]
    return easy, [name for name, rate in rates.items() if rate < limit]


def _gain(problems: Estimate, by_seed: np.ndarray) -> Gain:
    seeds = t_estimate(by_seed, problems.confidence)
    if seeds is not None:
        seeds = seeds._replace(value=problems.value)  # the same mean, but for rounding
    return Gain(problems, seeds, both_estimate(problems, seeds), by_seed.tolist())


def _differences(values: ArrayLike, than: ArrayLike) -> np.ndarray:
    a, b = _table(values), _table(than)
    if a.shape != b.shape:
        raise UsageError(f"Arms are compared seed by seed on the same problems, got {a.shape} and {b.shape} of them.")
    return a - b


def _table(values: ArrayLike) -> np.ndarray:
    """Return values as an array of seeds and problems, all in [0, 1]."""
    table = np.asarray(values, dtype=float)
    if table.ndim != 2 or table.size == 0:
        raise UsageError(f"Give one row for each seed and one column for each problem, got an array of {table.shape}.")
    return problem_values(table.T).T


def _number_in(name: str) -> float | None:
    """Return the number in the name of a level, as in "Level 3"."""
    found = re.findall(r"\d+(?:\.\d+)?", name)
    return float(found[0]) if len(found) == 1 else None
