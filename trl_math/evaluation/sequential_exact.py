"""What a stopping rule does, exactly: dynamic programming over (number of samples n, right ones among them k).

A rule is a table of verdicts, (M + 1, M + 1), at [n, k]: -1 says go on. Samples are independent given the problem's
pass rate, so where sampling stops has a distribution that M steps compute, without simulation: for one pass rate, or
on average over a prior, for which the next sample is right with the posterior's mean.
"""

from typing import NamedTuple

import numpy as np

from trl_math.evaluation.posterior import Prior


GO_ON = -1


class Stops(NamedTuple):
    """Where sampling stops."""

    probability: np.ndarray  # (M + 1, M + 1), that it stops at [n, k]
    expected_samples: float

    def of_verdict(self, table: np.ndarray, verdict: int) -> float:
        """Return the probability of stopping with this verdict."""
        return float(self.probability[table == verdict].sum())


def stops(table: np.ndarray, pass_rate: float | Prior, start: tuple[int, int] = (0, 0)) -> Stops:
    """Return where sampling stops that begins with `start`, k of n: at a verdict, or at the table's end."""
    most = len(table) - 1
    probability = np.zeros(table.shape)
    here = np.zeros(most + 1)
    here[start[0]] = 1.0
    for n in range(start[1], most + 1):
        halts = (table[n] != GO_ON) | (n == most)
        probability[n] = np.where(halts, here, 0.0)
        going = np.where(halts, 0.0, here)
        right = going * next_right(n, most, pass_rate)
        here = going - right + np.roll(right, 1)  # nothing goes around: k = M only where n = M
    return Stops(probability, float(probability.sum(axis=1) @ np.arange(most + 1)))


def next_right(n: int, most: int, pass_rate: float | Prior) -> np.ndarray:
    """Return the probability that the sample behind n is right, for each k from 0 to `most`."""
    if not isinstance(pass_rate, Prior):
        return np.full(most + 1, float(pass_rate))
    return np.minimum((np.arange(most + 1) + pass_rate.a) / (n + pass_rate.a + pass_rate.b), 1.0)


def expected_further(table: np.ndarray, prior: Prior) -> np.ndarray:
    """Return how many more samples are expected until sampling stops, at each [n, k]."""
    most = len(table) - 1
    further = np.zeros(table.shape)
    for n in reversed(range(most)):
        right = next_right(n, most, prior)[:-1]
        later = 1 + right * further[n + 1, 1:] + (1 - right) * further[n + 1, :-1]
        further[n, :-1] = np.where(table[n, :-1] == GO_ON, later, 0.0)
    return further


def fewest_further(table: np.ndarray) -> np.ndarray:
    """Return after how many more samples, at the earliest, sampling may stop, at each [n, k]."""
    most = len(table) - 1
    fewest = np.zeros(table.shape, dtype=int)
    for n in reversed(range(most)):
        sooner = 1 + np.minimum(fewest[n + 1, 1:], fewest[n + 1, :-1])
        fewest[n, :-1] = np.where(table[n, :-1] == GO_ON, sooner, 0)
    return fewest
