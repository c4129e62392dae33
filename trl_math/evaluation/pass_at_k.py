"""pass@k: the probability that at least one of k samples is right, estimated without bias from n >= k samples.

    pass@k = 1 - C(n-c, k) / C(n, k) = 1 - prod_{i<k} (1 - c / (n-i))

for n samples of a problem of which c are correct: the share of the k-subsets of the samples that have a correct one.

Paper: Chen et al., "Evaluating Large Language Models Trained on Code", equation 1
(https://huggingface.co/papers/2107.03374).

Differences from the published code:
1. The product is a running sum of `log1p`, so that one pass gives every k, problems with the same (n, c) are computed
   once, and neither n = 100,000 nor a pass@k of 1e-12 is a matter of luck.
2. k > n is refused, by the name of the problem. Counting missing samples as failures, or calling such a problem
   solved, are the two ways in which published numbers went wrong.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from trl_math.errors import UsageError


BLOCK = 1 << 17  # numbers worked on at a time: they stay in a processor's cache


def check_k(k: ArrayLike) -> np.ndarray:
    """Return k as an array of whole numbers of at least 1, (K,) or 0-d."""
    ks = np.asarray(k)
    if ks.size == 0 or ks.ndim > 1 or not np.issubdtype(ks.dtype, np.integer) or ks.min() < 1:
        raise UsageError(f"k must be a whole number of at least 1, or several; got {k!r}.")
    return ks


def refuse_large_k(num_samples: np.ndarray, ks: np.ndarray, names: Sequence[str] | None, metric: str = "pass") -> None:
    """Raise a `UsageError` if a problem has fewer samples than the largest k. `num_samples` is (P,)."""
    largest = int(ks.max())
    short = np.flatnonzero(num_samples < largest)
    if not len(short):
        return
    first, fewest = int(short[0]), int(num_samples.min())
    name = f"problem {first}" if names is None else f"problem {first} ({names[first]})"
    others = f", and {len(short) - 1} more problems have fewer than {largest}" if len(short) > 1 else ""
    remedy = f"ask for k of at most {fewest}" if fewest else "leave out problems without samples"
    raise UsageError(
        f"{metric}@{largest} needs at least {largest} samples of every problem: {name} has "
        f"{int(num_samples[first])}{others}. Draw more samples, or {remedy}."
    )


def _counts(num_samples: ArrayLike, num_correct: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    samples, correct = np.broadcast_arrays(num_samples, num_correct)
    if not all(np.issubdtype(array.dtype, np.integer) for array in (samples, correct)):
        raise UsageError("num_samples and num_correct are counts: give whole numbers, not shares.")
    wrong = (correct < 0) | (correct > samples)
    if wrong.any():
        place = int(np.argmax(wrong))
        raise UsageError(
            f"num_correct must be from 0 to num_samples; problem {place} has {correct.flat[place]} correct of "
            f"{samples.flat[place]} samples."
        )
    return samples, correct


def _table(pairs: np.ndarray, ks: np.ndarray) -> np.ndarray:
    """Return pass@k, (U, K), for (U, 2) different pairs of num_samples and num_correct."""
    largest = int(ks.max())
    every = len(ks) == largest and bool((ks == np.arange(1, largest + 1)).all())
    table = np.empty((len(pairs), len(ks)))
    drawn = np.arange(largest)
    rows = max(1, BLOCK // largest)
    for start in range(0, len(pairs), rows):
        samples, correct = pairs[start : start + rows].T[..., None]  # (R, 1)
        # Fewer samples left than are correct: the next draw is right for certain, log 0, and all later ones.
        wrong = np.maximum(-correct / np.maximum(samples - drawn, 1), -1.0)
        log_miss = np.cumsum(np.log1p(wrong, out=wrong), axis=1, out=wrong)  # (R, largest)
        chosen = log_miss if every else log_miss[:, ks - 1]
        np.negative(np.expm1(chosen, out=chosen), out=table[start : start + rows])
    table[:, ks == 1] = (pairs[:, 1] / pairs[:, 0])[:, None]  # the mean's own bits
    return table


def pass_at_k(
    num_samples: ArrayLike, num_correct: ArrayLike, k: ArrayLike, names: Sequence[str] | None = None
) -> np.ndarray:
    """Return pass@k of each problem, unbiased.

    Args:
        num_samples: Samples of each problem, any shape; one number if all have the same.
        num_correct: How many of them are correct, of a shape that broadcasts with it.
        k: One k or several, (K,).
        names: What to call each problem in a message, in the order of the flattened counts.

    Returns float64 of the shape of the counts, with K as a last axis if several k were asked for. k larger than the
    number of samples of a problem is refused.
    """
    samples, correct = _counts(num_samples, num_correct)
    ks = check_k(k)
    refuse_large_k(samples.ravel(), ks, names)
    base = int(samples.max(initial=0)) + 1
    keys, places = np.unique(samples.ravel().astype(np.int64) * base + correct.ravel(), return_inverse=True)
    pairs = np.stack(np.divmod(keys, base), axis=1)
    with np.errstate(divide="ignore"):  # log 0, which is right
        table = _table(pairs, np.atleast_1d(ks))
    return table[places].reshape(samples.shape + ks.shape) + 0.0  # no -0
