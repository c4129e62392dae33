"""Two runs over the same problems: the difference, with what is certain about it.

Both runs meet the same easy and hard problems, so what varies is the difference on each problem, and that is much less
than what each run varies by itself. Everything here reads those differences, second run minus first, one a problem.

The interval is that of Bonett and Price (2012) for paired proportions: two problems are added in thought, one that
speaks for each run, so that "no difference in 30 problems" is not taken for certainty. For runs of one sample a
problem, where differences are -1, 0 or 1, it is theirs, but for being centred at the difference itself. Generalised to
rates, the added problems have the typical size of a difference,

    size = (sum d^2 / sum |d|)^(1 - 1/h)       h = (sum |d|)^2 / sum d^2

which is 1 where differences are 0 or 1, and near 1 where few problems (`h`) carry the difference, for the reason that
`intervals` gives. A t interval on the differences covers 30 to 90 % instead of 95 % in that case; this one errs to the
wide side. `benchmarks/metrics.py` measures both.

The p-value is that of a sign-flip (permutation) test: if it made no difference which run is which, each problem's
difference could as well have the other sign. It is exact where the differences are multiples of a common fraction; for
single samples it is McNemar's exact test.
"""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from trl_math.errors import UsageError
from trl_math.evaluation.intervals import Estimate, mean_estimate, problem_values, quantile


METHOD = "Bonett-Price, paired by problem"
EQUAL = 1e-12  # differences below this are rounding
LARGEST_DENOMINATOR = 4096
EXACT_WORK = 500_000_000  # additions: a second
NUM_FLIPS = 20_000
FLIPS_AT_ONCE = 4_000_000
SHOWN = 3  # problems that a message names


class PValue(NamedTuple):
    """Two-sided probability of a difference at least as large if the two runs were exchangeable."""

    value: float
    standard_error: float  # of its computation: 0 where it is exact
    test: str


class Comparison(NamedTuple):
    """What the second run gains over the first, on the problems that both have."""

    difference: Estimate  # second minus first
    first: Estimate
    second: Estimate
    p_value: PValue
    num_better: int  # problems on which the second run is better
    num_worse: int
    num_equal: int
    num_only_first: int  # problems left out because only one run has them
    num_only_second: int


def difference_estimate(differences: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Return the mean of differences in [-1, 1], one for each problem, with its interval."""
    d = np.ravel(np.asarray(differences, dtype=float))
    problem_values(np.abs(d), "differences, without their signs,")
    d = np.where(np.abs(d) < EQUAL, 0.0, d)
    mean, sizes, squares = float(d.mean()), float(np.abs(d).sum()), float(d @ d)
    size = (squares / sizes) ** (1 - squares / sizes**2) if sizes else 1.0
    n = len(d) + 2
    variance = ((size * sizes + 2 * size**2) / n - (float(d.sum()) / n) ** 2) * n / (n - 1)
    half = quantile(confidence) * math.sqrt(variance / n)
    return Estimate(mean, max(mean - half, -1.0), min(mean + half, 1.0), len(d), METHOD, confidence)


def mcnemar(num_better: int, num_worse: int) -> PValue:
    """Return McNemar's exact test from the problems on which only one of two runs is right."""
    different = num_better + num_worse
    term = total = 1  # C(different, 0)
    for i in range(min(num_better, num_worse)):
        term = term * (different - i) // (i + 1)
        total += term
    return PValue(min(1.0, 2 * total / 2**different), 0.0, "McNemar, exact binomial")


def _whole_numbers(sizes: np.ndarray) -> list[int] | None:
    """Return positive sizes as multiples of their common fraction, if that has a small denominator."""
    kinds, places = np.unique(sizes.round(13), return_inverse=True)
    fractions = [Fraction(float(kind)).limit_denominator(LARGEST_DENOMINATOR) for kind in kinds]
    if any(abs(float(fraction) - kind) > EQUAL for fraction, kind in zip(fractions, kinds, strict=True)):
        return None
    scale = math.lcm(*(fraction.denominator for fraction in fractions))
    units = [int(fraction * scale) for fraction in fractions]
    common = math.gcd(*units)
    return [units[place] // common for place in places]


def _exact_flips(units: Sequence[int], observed: int) -> float:
    """Return P(|sum of +-unit| >= observed) over all signs: how often each sum of a subset occurs, one by one."""
    total = sum(units)
    chance = np.zeros(total + 1)  # of the sum of those with a plus; the signed sum is twice that minus the total
    chance[0] = 1.0
    reached = 0
    for unit in sorted(units):
        shifted = chance[: reached + 1] / 2
        chance[: reached + 1] = shifted
        chance[unit : reached + unit + 1] += shifted
        reached += unit
    signed = 2 * np.arange(total + 1) - total
    return min(1.0, float(chance[np.abs(signed) >= observed].sum()))


def sign_flip(differences: ArrayLike, num_flips: int = NUM_FLIPS, seed: int = 0) -> PValue:
    """Return the sign-flip test of the differences of a metric, one for each problem.

    Args:
        differences: (P,), in [-1, 1].
        num_flips: Random assignments of signs where the exact test is too much work.
        seed: Of these.
    """
    d = np.asarray(differences, dtype=float).ravel()
    d = d[np.abs(d) >= EQUAL]
    exact = "sign flips, exact"
    if not len(d):
        return PValue(1.0, 0.0, exact)
    units = _whole_numbers(np.abs(d))
    if units is not None and len(units) * sum(units) <= EXACT_WORK:
        observed = abs(sum(unit if value > 0 else -unit for unit, value in zip(units, d, strict=True)))
        return PValue(_exact_flips(units, observed), 0.0, exact)
    rng = np.random.default_rng(seed)
    observed_sum, at_least, left = abs(float(d.sum())), 0, num_flips
    while left:
        rows = min(left, max(1, FLIPS_AT_ONCE // len(d)))
        signs = rng.integers(0, 2, size=(rows, len(d)), dtype=np.int8) * 2.0 - 1
        at_least += int((np.abs(signs @ d) >= observed_sum - len(d) * EQUAL).sum())
        left -= rows
    value = (at_least + 1) / (num_flips + 1)  # the observed signs are one of the assignments
    return PValue(value, math.sqrt(value * (1 - value) / num_flips), f"sign flips, {num_flips} sampled")


def _common(first: Mapping[str, float], second: Mapping[str, float], intersect: bool) -> list[str]:
    only_first, only_second = [id for id in first if id not in second], [id for id in second if id not in first]
    common = [id for id in first if id in second]
    if not common:
        raise UsageError(
            f"The two runs have no problem in common (of {len(first)} and {len(second)}): compare runs over the same "
            "benchmark."
        )
    if (only_first or only_second) and not intersect:
        sides = [
            f"{len(ids)} only in the {which} run (such as {', '.join(map(str, ids[:SHOWN]))})"
            for which, ids in (("first", only_first), ("second", only_second))
            if ids
        ]
        raise UsageError(
            f"The two runs are over different problems: {len(common)} in both, {' and '.join(sides)}. Evaluate both "
            "on the same problems, or compare those in both: intersect (--intersect)."
        )
    return common


def compare(
    first: Mapping[str, float],
    second: Mapping[str, float],
    *,
    intersect: bool = False,
    confidence: float = 0.95,
    num_flips: int = NUM_FLIPS,
    seed: int = 0,
    lower_is_better: bool = False,
) -> Comparison:
    """Compare one metric of two runs, problem by problem.

    Args:
        first: The metric of each problem by its id, in [0, 1]: a pass rate, a pass@k, or 0 and 1 for a greedy sample.
        second: The same of the other run.
        intersect: If the runs are over different problems, compare those that both have; the others are counted. By
            default such runs are refused.
        confidence: Of the intervals.
        num_flips: Of the sign-flip test, where it is not exact.
        seed: Of that.
        lower_is_better: Whether a problem is better where its metric is lower.
    """
    ids = _common(first, second, intersect)
    a = problem_values([first[id] for id in ids], "the first run's metric")
    b = problem_values([second[id] for id in ids], "the second run's metric")
    d = np.where(np.abs(b - a) < EQUAL, 0.0, b - a)
    better, worse = int((d > 0).sum()), int((d < 0).sum())
    if lower_is_better:
        better, worse = worse, better
    is_single = bool(np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all())
    return Comparison(
        difference=difference_estimate(d, confidence),
        first=mean_estimate(a, confidence),
        second=mean_estimate(b, confidence),
        p_value=mcnemar(better, worse) if is_single else sign_flip(d, num_flips, seed),
        num_better=better,
        num_worse=worse,
        num_equal=len(ids) - better - worse,
        num_only_first=len(first) - len(ids),
        num_only_second=len(second) - len(ids),
    )
