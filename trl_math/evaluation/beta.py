"""The Beta distribution in NumPy, which has no special functions; SciPy is no dependency of ours."""

import numpy as np
from numpy.typing import ArrayLike


BISECTIONS, NEWTON_STEPS = 25, 2
MOST_TERMS = 10_000
_TINY = 1e-300


def beta_cdf(x: ArrayLike, a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """Return the probability that a Beta(a, b) variable is at most x, element-wise."""
    x, a, b = (np.array(part) for part in np.broadcast_arrays(np.asarray(x, float), np.asarray(a, float), b))
    b = b.astype(float)
    swap = x > (a + 1) / (a + b + 2)  # where the fraction converges for 1 - x
    x, a, b = np.where(swap, 1 - x, x), np.where(swap, b, a), np.where(swap, a, b)
    inside = (x > 0) & (x < 1)
    safe = np.where(inside, x, 0.5)
    front = np.exp(a * np.log(safe) + b * np.log1p(-safe) - log_beta(a, b)) / a
    tail = np.where(inside, front * _beta_fraction(safe, a, b), (x >= 1).astype(float))
    return np.clip(np.where(swap, 1 - tail, tail), 0.0, 1.0)


def beta_quantile(share: ArrayLike, a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """Return the x that a Beta(a, b) variable is below with probability `share`, element-wise."""
    share, a, b = np.broadcast_arrays(share, np.asarray(a, float), np.asarray(b, float))
    low, high = np.zeros(share.shape), np.ones(share.shape)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        is_below = beta_cdf(middle, a, b) < share
        low, high = np.where(is_below, middle, low), np.where(is_below, high, middle)
    x = (low + high) / 2
    for _ in range(NEWTON_STEPS):
        density = np.exp((a - 1) * np.log(x) + (b - 1) * np.log1p(-x) - log_beta(a, b))
        x = np.clip(x - (beta_cdf(x, a, b) - share) / np.maximum(density, _TINY), x / 2, (1 + x) / 2)
    # Next to 0 the density is a power, which Newton's steps do not follow, and which has an inverse.
    power = np.exp(np.maximum((np.log(share * a) + log_beta(a, b)) / a, np.log(_TINY)))
    return np.where(low == 0, np.minimum(power, high), x)


def log_beta(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """Return the logarithm of the Beta function."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    return log_gamma(a) + log_gamma(b) - log_gamma(a + b)


def log_gamma(x: ArrayLike) -> np.ndarray:
    """Return the logarithm of the Gamma function of positive numbers: Stirling's series, 16 above x."""
    x = np.asarray(x, dtype=float)
    # In halves, whose products stay in range.
    steps = sum(np.log(np.prod([x + step for step in range(first, first + 8)], axis=0)) for first in (0, 8))
    z = x + 16
    series = 1 / (12 * z) - 1 / (360 * z**3) + 1 / (1260 * z**5) - 1 / (1680 * z**7)
    return (z - 0.5) * np.log(z) - z + 0.5 * np.log(2 * np.pi) + series - steps


def _beta_fraction(x: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the continued fraction of the incomplete Beta function, by Lentz' method."""
    c = np.ones(x.shape)
    d = 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    value = d
    is_open = np.ones(x.shape, dtype=bool)  # what has converged stays, whatever else is computed with it
    for m in range(1, MOST_TERMS):
        for factor in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _away_from_zero(1 + factor * d)
            c = _away_from_zero(1 + factor / c)
            value = np.where(is_open, value * d * c, value)
        is_open &= np.abs(d * c - 1) >= 1e-15
        if not is_open.any():
            break
    return value


def _away_from_zero(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < _TINY, _TINY, x)
