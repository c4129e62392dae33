"""Is a model as often right as it is confident? One confidence and one outcome a problem.

The confidence in a problem's majority answer is its share of all samples; a sample without an answer is drawn, so it
counts against every answer. The outcome is whether the majority answer is right, a tie as in `majority`.

    ECE = sum over bins of  (problems in bin / problems) * | share right in bin - mean confidence in bin |

Bins are of equal mass by default: as many problems in each, so that none is empty and none is decided by three
problems. Equal confidences share a bin. "width" cuts [0, 1] into equal parts instead, as Guo et al. (2017,
https://huggingface.co/papers/1706.04599) do.

That sum is biased: chance alone makes every bin's gap different from 0, so the ECE of a calibrated model over 100
problems and ten bins is 0.1, and a bootstrap, which adds chance to chance, has an interval that does not contain the
truth. So three numbers are given:

1. `error`, with the bias removed that each bin's standard error predicts (the mean of a folded normal, as in Kumar,
   Liang and Ma 2019, https://huggingface.co/papers/1909.10155). The interval is normal with the standard deviation of
   a bootstrap over problems, and begins at 0 if a calibrated model would show a sum as large in 2.5 % of cases.
2. `plug_in`, the sum itself, which is what others report.
3. `plug_in_if_calibrated`, what the sum would be on average if the model were calibrated.

ECE depends on the number of bins; compare only what was binned in the same way.
"""

import math
from collections.abc import Collection, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from trl_math.errors import UsageError, pick
from trl_math.evaluation.intervals import Estimate, mean_estimate, problem_values, quantile
from trl_math.evaluation.majority import Votes, count_votes, winning_share
from trl_math.evaluation.paired import difference_estimate


BINNINGS = ("mass", "width")
NUM_BINS = 10
SMALLEST_BIN = 20  # problems; with fewer, chance is larger than what is to be seen
NUM_RESAMPLES = 1000
HELD_AT_ONCE = 4_000_000


class Bin(NamedTuple):
    """A row of the reliability table."""

    low: float  # confidences from here
    high: float  # to below here; the last bin has its end
    confidence: float  # their mean
    accuracy: Estimate  # share right; its n is the problems in the bin


class Calibration(NamedTuple):
    """How far confidence is from accuracy. All n are problems."""

    error: Estimate  # expected calibration error, bias removed
    plug_in: float  # the same without that: the usual number
    plug_in_if_calibrated: float
    overconfidence: Estimate  # mean confidence minus accuracy
    bins: tuple[Bin, ...]
    binning: str


def majority_confidence(
    votes: Sequence[Votes], correct_classes: Sequence[Collection[Hashable]]
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each problem the confidence in its majority answer and whether that is right (0 to 1), both (P,)."""
    if len(votes) != len(correct_classes):
        raise UsageError(f"There are votes for {len(votes)} problems, but correct classes for {len(correct_classes)}.")
    ballots = [count_votes(row, right) for row, right in zip(votes, correct_classes, strict=True)]
    confidence = [max(b.correct + b.wrong, default=0) / max(b.num_samples, 1) for b in ballots]
    return np.array(confidence, dtype=float), np.array([winning_share(ballot) for ballot in ballots], dtype=float)


def _inner_edges(confidence: np.ndarray, num_bins: int, binning: str) -> np.ndarray:
    parts = np.linspace(0, 1, num_bins + 1)[1:-1]
    return np.unique(np.quantile(confidence, parts)) if binning == "mass" else parts


def _bins(
    confidence: np.ndarray, correct: np.ndarray, inner: np.ndarray, level: float
) -> tuple[np.ndarray, list[Bin]]:
    """Return to which bin each problem belongs, (P,), empty bins left out, and the bins."""
    edges = np.concatenate([[0.0], inner, [1.0]])
    used, members = np.unique(np.searchsorted(inner, confidence, side="right"), return_inverse=True)
    rows = [
        Bin(
            float(edges[place]),
            float(edges[place + 1]),
            float(confidence[members == row].mean()),
            mean_estimate(correct[members == row], level),
        )
        for row, place in enumerate(used)
    ]
    return members, rows


def _folded(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Return the mean of |X| for X normal."""
    deviation = np.maximum(deviation, 1e-15)
    z = mean / deviation / math.sqrt(2)
    erf = np.array([math.erf(value) for value in z.ravel()]).reshape(z.shape)
    return deviation * math.sqrt(2 / math.pi) * np.exp(-z * z) + mean * erf


def _unbiased(sums: np.ndarray, squares: np.ndarray, n: int) -> np.ndarray:
    """Return ECE with its bias removed from the sums over each bin of gaps and squared gaps, (..., B), over n."""
    deviation = np.sqrt(np.maximum(squares - sums**2, 0) / n)
    return (2 * np.abs(sums) - _folded(sums, deviation)).sum(axis=-1)


def _resampled(gaps: np.ndarray, members: np.ndarray, rng: np.random.Generator, num: int) -> float:
    """Return the standard deviation of the unbiased ECE over bootstrap draws of the problems."""
    n = len(gaps)
    inside = members[:, None] == np.arange(members.max() + 1)  # (P, B)
    errors = []
    for start in range(0, num, max(1, HELD_AT_ONCE // n)):
        rows = min(num - start, max(1, HELD_AT_ONCE // n))
        weights = rng.multinomial(n, np.full(n, 1 / n), size=rows) / n  # (R, P)
        errors.append(_unbiased(weights @ (inside * gaps[:, None]), weights @ (inside * gaps[:, None] ** 2), n))
    return float(np.concatenate(errors).std(ddof=1))


def _if_calibrated(confidence: np.ndarray, members: np.ndarray, rng: np.random.Generator, num: int) -> np.ndarray:
    """Return plug-in errors of a model that is right with the probability that it states, (num,)."""
    n = len(confidence)
    inside = (members[:, None] == np.arange(members.max() + 1)).astype(float)
    errors = []
    for start in range(0, num, max(1, HELD_AT_ONCE // n)):
        rows = min(num - start, max(1, HELD_AT_ONCE // n))
        gaps = (rng.random((rows, n)) < confidence) - confidence
        errors.append(np.abs(gaps @ inside / n).sum(axis=1))
    return np.concatenate(errors)


def calibration(
    confidence: ArrayLike,
    correct: ArrayLike,
    *,
    num_bins: int | None = None,
    binning: str = "mass",
    level: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Calibration:
    """Return the calibration error, the reliability table and the overconfidence.

    Args:
        confidence: One for each problem, in [0, 1].
        correct: Whether the answer that has it is right: 0 or 1, or between for a tie.
        num_bins: By default ten, or as many as leave 20 problems to each.
        binning: "mass" or "width".
        level: Confidence of the intervals.
        num_resamples: Of the bootstrap, and of calibrated models.
        seed: Of both.
    """
    pick("binning", binning, BINNINGS)
    confidence = problem_values(np.ravel(confidence), "confidence")
    correct = problem_values(np.ravel(correct), "correct")
    n = len(confidence)
    if len(correct) != n:
        raise UsageError(f"There are {n} confidences, but {len(correct)} outcomes: give one of each for each problem.")
    if num_bins is not None and num_bins < 1:
        raise UsageError(f"num_bins must be at least 1, got {num_bins}.")
    wanted = max(1, min(NUM_BINS, n // SMALLEST_BIN)) if num_bins is None else num_bins
    members, rows = _bins(confidence, correct, _inner_edges(confidence, wanted, binning), level)
    gaps = confidence - correct
    sums, squares = (np.bincount(members, values) / n for values in (gaps, gaps**2))
    plug_in = float(np.abs(sums).sum())
    rng = np.random.default_rng(seed)
    half = quantile(level) * _resampled(gaps, members, rng, num_resamples)
    calibrated = _if_calibrated(confidence, members, rng, num_resamples)
    value = min(max(float(_unbiased(sums, squares, n)), 0.0), 1.0)
    is_chance = plug_in <= np.quantile(calibrated, (1 + level) / 2)
    low = 0.0 if is_chance else max(value - half, 0.0)
    method = "bias removed, bootstrap over problems"
    return Calibration(
        error=Estimate(value, low, min(value + half, 1.0), n, method, level),
        plug_in=plug_in,
        plug_in_if_calibrated=float(calibrated.mean()),
        overconfidence=difference_estimate(gaps, level),
        bins=tuple(rows),
        binning=f"{len(rows)} bins of equal {binning}",
    )
