"""Coverage of direct answers from teacher forcing: with the probability of the right answer known, nothing is sampled.

    coverage@k = 1 - (1 - p)^k       p = exp(log p), the probability of the right answer in one draw at temperature 1

It is pass@k exactly if one spelling of the answer is right, and a lower bound otherwise. The same quantity as a loss,
for tensors, is `losses.coverage`; this is for rooms without torch.

Paper: Chen, Raventos, Cheng, Ganguli, Druckmann, "Rethinking Fine-Tuning when Scaling Test-Time Compute"
(https://huggingface.co/papers/2502.07154).
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from trl_math.errors import UsageError
from trl_math.evaluation.intervals import Estimate, mean_estimates


ROUNDING = 1e-3  # how far above 0 a sum of float32 or bfloat16 log-probabilities may be


def coverage_at_k(logps: ArrayLike, k: ArrayLike) -> np.ndarray:
    """Return `1 - (1-p)^k` of each problem, from `log p` and in float64, accurate for p near 0 and near 1.

    Args:
        logps: Log-probability of the right answer in one draw, any shape; -inf is p = 0.
        k: One number of attempts or several, (K,); real numbers above 0.

    Returns the shape of `logps`, with K as a last axis if several k were given.
    """
    x, attempts = np.asarray(logps, dtype=float), np.asarray(k, dtype=float)
    if attempts.ndim > 1 or attempts.size == 0 or not (np.isfinite(attempts) & (attempts > 0)).all():
        raise UsageError(f"k must be a number above 0, or several; got {k!r}.")
    wrong = ~(x <= ROUNDING)  # so that NaN is wrong
    if wrong.any():
        place = int(np.argmax(wrong))
        raise UsageError(f"Log-probabilities are at most 0; problem {place} has {x.flat[place]}.")
    x = np.minimum(x, 0.0)
    with np.errstate(divide="ignore"):  # p = 1 misses with log-probability -inf, which is right
        # log(1 - p), without cancellation on either side.
        log_miss = np.where(x > -math.log(2), np.log(-np.expm1(x)), np.log1p(-np.exp(x)))
        return -np.expm1(np.multiply.outer(log_miss, attempts))


def coverage_estimates(logps: ArrayLike, k: ArrayLike, confidence: float = 0.95) -> list[Estimate]:
    """Return the mean coverage over problems, one log-probability a problem, with its interval, for each k."""
    return mean_estimates(coverage_at_k(np.ravel(logps), np.atleast_1d(k)), confidence)
