"""What samples say about a problem's pass rate: a Beta posterior, its interval, and what further samples will show.

With a Beta(a, b) prior and k right samples of n, the pass rate is Beta(a + k, b + n - k), and the number of right ones
in m further samples is beta-binomial. Unlike an interval around k/n, the posterior says the same whatever made the
sampling stop, so long as the prior is right; so priors have names, and one can be fitted to the set of problems:

    jeffreys   a = b = 1/2                    says nothing about the problem, whatever the scale of p
    uniform    a = b = 1
    fitted     the (a, b) under which the counts of the whole set are the most probable (empirical Bayes)

Intervals are equal-tailed, except that they reach to 0 where no sample is right and to 1 where all are: else they
would leave out what was seen (Brown, Cai and DasGupta, "Interval Estimation for a Binomial Proportion", 2001).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from trl_math.errors import UsageError, pick
from trl_math.evaluation.beta import beta_cdf, beta_quantile, log_beta, log_gamma


class Prior(NamedTuple):
    """A Beta distribution of pass rates, before a problem is sampled."""

    a: float
    b: float
    name: str = "given"


JEFFREYS = Prior(0.5, 0.5, "jeffreys")
UNIFORM = Prior(1.0, 1.0, "uniform")
PRIORS = {prior.name: prior for prior in (JEFFREYS, UNIFORM)}
FITTED = "fitted"

ESTIMATORS = ("plug_in", "posterior_mean")

# A fit looks here: at least, a prior weighs a twentieth of a sample, so that no set of problems is beyond surprise.
WEIGHTS = (0.05, 1000.0)  # a + b, in samples
MEANS = (0.001, 0.999)
GRID, ZOOMS = 15, 9


def find_prior(name: str) -> Prior:
    """Return the prior of this name, or of two numbers such as `0.3,2`."""
    parts = name.split(",")
    if len(parts) != 2:
        return PRIORS[pick("prior", name, PRIORS)]
    try:
        a, b = map(float, parts)
    except ValueError:
        a = b = -1.0
    if not (0 < a < np.inf and 0 < b < np.inf):
        raise UsageError(f"A prior is a name ({', '.join(PRIORS)}) or two numbers above 0 (0.3,2), got {name!r}.")
    return Prior(a, b)


def fit_prior(num_correct: ArrayLike, num_samples: ArrayLike, max_weight: float = WEIGHTS[1]) -> Prior:
    """Return the prior under which these counts of the problems of a set are the most probable.

    One right sample and one wrong one, of two problems more, are counted too: a set in which nothing was right so far
    shall not make it certain that nothing ever is.

    A grid over the prior's mean (in log-odds) and weight (a + b, in logs) is looked at again and again, each time
    finer around the best place: slower than Newton's method, and it cannot fail. The counts may come from any way of
    stopping that looks at nothing but samples, since that changes no likelihood. `max_weight`: the most that a + b
    may be.
    """
    samples, correct = check_counts(num_samples, num_correct)
    pairs = np.stack([np.ravel(samples), np.ravel(correct)], axis=1)
    pairs = np.concatenate([pairs[pairs[:, 0] > 0], [[1, 0], [1, 1]]])
    if len(pairs) == 2:
        raise UsageError("A prior cannot be fitted without samples: draw some of each problem.")
    pairs, problems = np.unique(pairs, axis=0, return_counts=True)
    n, k = pairs.T[..., None, None]  # (U, 1, 1)
    low = np.array([_logit(MEANS[0]), np.log(WEIGHTS[0])])
    high = np.array([_logit(MEANS[1]), np.log(max_weight)])
    bounds = low, high
    for _ in range(ZOOMS):
        means, weights = np.linspace(low, high, GRID).T
        mean = 1 / (1 + np.exp(-means))[:, None]
        a, b = mean * np.exp(weights), (1 - mean) * np.exp(weights)  # (GRID, GRID)
        likelihood = np.tensordot(problems, log_beta(a + k, b + n - k) - log_beta(a, b), axes=1)
        row, column = np.unravel_index(np.argmax(likelihood), likelihood.shape)
        best = np.array([means[row], weights[column]])
        reach = 2 * (high - low) / (GRID - 1)
        low, high = np.maximum(best - reach, bounds[0]), np.minimum(best + reach, bounds[1])
    return Prior(float(a[row, column]), float(b[row, column]), FITTED)


def posterior_mean(num_correct: ArrayLike, num_samples: ArrayLike, prior: Prior = JEFFREYS) -> np.ndarray:
    """Return the expected pass rate, which is also the probability that the next sample is right; element-wise."""
    samples, correct = check_counts(num_samples, num_correct)
    return (correct + prior.a) / (samples + prior.a + prior.b)


def posterior_interval(
    num_correct: ArrayLike, num_samples: ArrayLike, confidence: float = 0.95, prior: Prior = JEFFREYS
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the interval that has the pass rate with this probability, element-wise."""
    check_confidence(confidence)
    samples, correct = check_counts(num_samples, num_correct)
    a, b = correct + prior.a, samples - correct + prior.b
    tail = (1 - confidence) / 2
    low, high = beta_quantile(tail, a, b), 1 - beta_quantile(tail, b, a)
    return np.where(correct == 0, 0.0, low), np.where(correct == samples, 1.0, high)


def probability_at_least(
    threshold: ArrayLike, num_correct: ArrayLike, num_samples: ArrayLike, prior: Prior = JEFFREYS
) -> np.ndarray:
    """Return the probability that the pass rate is at least a threshold, element-wise."""
    samples, correct = check_counts(num_samples, num_correct)
    return beta_cdf(1 - np.asarray(threshold, dtype=float), samples - correct + prior.b, correct + prior.a)


def predictive(num_correct: int, num_samples: int, num_further: int, prior: Prior = JEFFREYS) -> np.ndarray:
    """Return the probability of each number of right ones in so many further samples, (num_further + 1,)."""
    check_counts(num_samples, num_correct)
    if num_further < 0:
        raise UsageError(f"num_further must be 0 or above, got {num_further}.")
    a, b = prior.a + num_correct, prior.b + num_samples - num_correct
    right = np.arange(num_further + 1)
    ways = log_gamma(num_further + 1) - log_gamma(right + 1) - log_gamma(num_further - right + 1)
    return np.exp(ways + log_beta(a + right, b + num_further - right) - log_beta(a, b))


def pass_rates(
    num_correct: ArrayLike, num_samples: ArrayLike, estimator: str = "plug_in", prior: Prior = JEFFREYS
) -> np.ndarray:
    """Return pass rates by the estimator of this name: `plug_in` is k/n, the share of right samples."""
    pick("estimator", estimator, ESTIMATORS)
    samples, correct = check_counts(num_samples, num_correct)
    if np.any(samples < 1):
        raise UsageError("A pass rate needs at least one sample of every problem.")
    return correct / samples if estimator == "plug_in" else posterior_mean(correct, samples, prior)


def check_counts(num_samples: ArrayLike, num_correct: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return counts as arrays of one shape; raise unless of each problem's samples 0 to all are right."""
    samples, correct = np.broadcast_arrays(num_samples, num_correct)
    if not all(np.issubdtype(array.dtype, np.integer) for array in (samples, correct)):
        raise UsageError("num_samples and num_correct are counts: give whole numbers, not shares.")
    if np.any((correct < 0) | (correct > samples)):
        place = int(np.argmax((correct < 0) | (correct > samples)))
        raise UsageError(
            f"num_correct must be from 0 to num_samples; problem {place} has {correct.flat[place]} of "
            f"{samples.flat[place]}."
        )
    return samples, correct


def check_confidence(confidence: float) -> None:
    """Raise unless this is a probability that something can be said with."""
    if not 0 < confidence < 1:
        raise UsageError(f"confidence must be between 0 and 1, got {confidence!r}; 0.95 is usual.")


def _logit(share: float) -> float:
    return float(np.log(share) - np.log1p(-share))
