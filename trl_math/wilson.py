"""Wilson's score interval (1927) of a share, by the formula alone; `evaluation.intervals` says what it is used for."""

from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from trl_math.errors import UsageError


def quantile(confidence: float) -> float:
    """Return how many standard errors a two-sided normal interval reaches: 1.96 for 0.95."""
    if not 0 < confidence < 1:
        raise UsageError(f"confidence must be between 0 and 1, got {confidence!r}; 0.95 is usual.")
    return NormalDist().inv_cdf((1 + confidence) / 2)


def wilson(share: ArrayLike, num: ArrayLike, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of Wilson's score interval for shares of `num` (any positive real numbers), element-wise."""
    z = quantile(confidence)
    share, num = np.asarray(share, dtype=float), np.asarray(num, dtype=float)
    shrink = 1 + z * z / num
    centre = (share + z * z / (2 * num)) / shrink
    half = z / shrink * np.sqrt(share * (1 - share) / num + (z / (2 * num)) ** 2)
    # At 0 and 1 the two terms cancel but for rounding, and the interval ends at the share itself.
    low, high = np.minimum(centre - half, share), np.maximum(centre + half, share)
    return np.where(share == 0, 0.0, np.maximum(low, 0)), np.where(share == 1, 1.0, np.minimum(high, 1))
