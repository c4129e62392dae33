"""Means over problems, with intervals. A number never leaves this room without its n and its interval.

Problems are what is sampled: a benchmark is a draw of problems from all that could have been asked, and the samples of
one problem agree with each other more than samples of different problems do. So every metric is first computed for
each problem, a number in [0, 1], and what varies between those numbers is all that the interval reads; many samples of
few problems do not make it narrow. (Miller, "Adding Error Bars to Evals", https://huggingface.co/papers/2411.00640,
clusters by problem in the same sense, and then uses a normal interval.)

The normal (Wald) or t interval fails where benchmarks often are, near 0 and 1 and with 30 problems: it covers 60 %
instead of 95 %. Here it is the score interval of Wilson (1927) with an effective number of problems,

    n_eff = n / design^w       design = s^2 / (m (1-m)), between 1/n^2 and 1       w = 1 - 1/h

`m` is the mean and `s^2` the variance over problems. `design` compares that variance with the largest that numbers in
[0, 1] of this mean can have, which is what one greedy sample a problem has: then `design` is 1 and the interval is
Wilson's own. The idea of an effective sample size in Wilson's interval is from surveys (Korn and Graubard 1998; Dean
and Pagano 2015); the exponent is ours. `h` is the number of problems that effectively contribute to the mean,
`(sum x)^2 / sum x^2`, or to one minus the mean, whichever is smaller. If one problem of thirty carries the mean, `s^2`
says nothing about those like it that were not drawn, and the interval must be Wilson's (`w` = 0); if all contribute,
`s^2` is trusted (`w` near 1). Without it, coverage falls to 80 % there. `benchmarks/metrics.py` measures the coverage.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from trl_math.errors import UsageError
from trl_math.wilson import quantile as quantile
from trl_math.wilson import wilson as wilson


METHOD = "Wilson score, effective number of problems"
ROUNDING = 1e-9  # how far outside [0, 1] a number may be that is in it but for rounding


class Estimate(NamedTuple):
    """A number with its uncertainty."""

    value: float
    low: float
    high: float
    n: int  # problems, unless the function that made it says otherwise
    method: str  # of the interval
    confidence: float = 0.95


def proportion(num_correct: int, num_samples: int, confidence: float = 0.95) -> Estimate:
    """Return the share of correct samples of one problem, whose samples are independent; n counts samples."""
    if not 0 <= num_correct <= num_samples or num_samples < 1:
        raise UsageError(f"Of at least 1 sample, 0 to all can be correct; got {num_correct} of {num_samples}.")
    share = num_correct / num_samples
    low, high = wilson(share, num_samples, confidence)
    return Estimate(share, float(low), float(high), int(num_samples), "Wilson score", confidence)


def problem_values(values: ArrayLike, what: str = "values") -> np.ndarray:
    """Return numbers in [0, 1] as a float64 array whose first axis is the problems; refuse any others."""
    array = np.asarray(values, dtype=float)
    if array.ndim == 0 or len(array) == 0:
        raise UsageError(f"There is no problem to average over: {what} is empty. Give one number for each problem.")
    wrong = ~((array >= -ROUNDING) & (array <= 1 + ROUNDING))  # so that NaN is wrong
    if wrong.any():
        place = tuple(int(index) for index in np.argwhere(wrong)[0])
        raise UsageError(
            f"{what} must be numbers from 0 to 1, one for each problem; problem {place[0]} has {array[place]}."
        )
    return np.clip(array, 0.0, 1.0)


def _contributing(total: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Return `(sum x)^2 / sum x^2`, at least 1."""
    return np.maximum(total**2 / np.where(squares > 0, squares, 1.0), 1.0)


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return means over the first axis (problems) and the ends of their intervals.

    Args:
        values: (P,) or (P, K), numbers in [0, 1]: a metric of each problem, for K settings.
    """
    x = problem_values(values)
    n = len(x)
    total, squares = x.sum(axis=0), np.einsum("p...,p...->...", x, x)
    mean = total / n
    spread = mean * (1 - mean)
    variance = np.maximum(squares - total * mean, 0) / max(n - 1, 1)
    design = np.where((spread > 0) & (n > 1), variance / np.where(spread > 0, spread, 1.0), 1.0)
    # Values that are all the same show that the variance is small, not that there is none.
    design = np.clip(design, n**-2.0, 1.0)
    contributing = np.minimum(
        _contributing(total, squares), _contributing(n - total, np.maximum(n - 2 * total + squares, 0))
    )
    low, high = wilson(mean, n / design ** (1 - 1 / contributing), confidence)
    return mean, low, high


def mean_estimates(values: ArrayLike, confidence: float = 0.95) -> list[Estimate]:
    """Return the mean over problems for each column of `values`, (P, K)."""
    ends = zip(*(column.tolist() for column in mean_interval(values, confidence)), strict=True)
    n = len(np.asarray(values))
    return [Estimate(value, low, high, n, METHOD, confidence) for value, low, high in ends]


def mean_estimate(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> Estimate:
    """Return the mean over problems of one number a problem, in [0, 1], with its interval."""
    value, low, high = (float(end) for end in mean_interval(np.ravel(values), confidence))
    return Estimate(value, low, high, np.size(values), METHOD, confidence)
