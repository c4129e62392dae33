"""F(N, p) of a problem whose p is known only by k right ones among n samples.

F (see `coverage`) falls steeply in p, so F at the sample share k/n is biased: high where k = 0, low where F is convex.

    plug_in          F(N, k/n): what the published code does
    posterior_mean   the mean of F under p ~ Beta(k + a, n - k + b); Jeffreys' prior a = b = 1/2 unless given
    u_statistic      N times the unbiased estimate of p (1-p)^(N-1), over the unbiased estimate of pass@N

Of these no one is unbiased for F itself, which is a ratio. What the U-statistics estimate without bias, for whole
N <= n, are the two parts: `pass_at_n` and `pass_at_n_slope`, the derivative of pass@N with respect to log p. The slope
is an unbiased weight for whoever maximises the sum of pass@N; F is the weight for the sum of log pass@N.

Shapes broadcast; the computation is in float64 and without gradient.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from trl_math.losses.coverage import coverage_weight


JEFFREYS = (0.5, 0.5)
# The posterior mean is an integral over logit p. Beyond this the density is below e^-30 of its size even for a = 1/2.
MAX_LOGIT = 60.0
# F is smooth on the scale of one logit: with this step the trapezoid rule is exact to float64.
MAX_STEP = 0.2


def plug_in(num_correct: torch.Tensor, num_samples: torch.Tensor, num_attempts: float) -> torch.Tensor:
    """Return `F(N, k/n)`; 1 at k = 0."""
    rate = num_correct / num_samples
    is_zero = rate <= 0
    weight = coverage_weight(torch.where(is_zero, 0.5, rate).log(), num_attempts)
    return torch.where(is_zero, 1.0, weight)


def posterior_mean(
    num_correct: torch.Tensor,
    num_samples: torch.Tensor,
    num_attempts: float,
    *,
    prior: tuple[float, float] = JEFFREYS,
) -> torch.Tensor:
    """Return the mean of F over `p ~ Beta(k + a, n - k + b)`, by the trapezoid rule over t = logit p.

    The density in t is p^(k+a) (1-p)^(n-k+b), at least 2 / sqrt(n + a + b) wide: steps of half that are exact.
    """
    counts = torch.stack([num_correct, num_samples], dim=-1)
    pairs, places = counts.reshape(-1, 2).unique(dim=0, return_inverse=True)
    step = min(MAX_STEP, 1 / math.sqrt(pairs[:, 1].max().item() + sum(prior)))
    logit = torch.arange(-MAX_LOGIT, MAX_LOGIT, step, dtype=torch.float64)
    logp, log_miss = torch.nn.functional.logsigmoid(logit), torch.nn.functional.logsigmoid(-logit)
    values = coverage_weight(logp, num_attempts)
    means = []
    for some in pairs.split(64):
        right, wrong = some[:, :1] + prior[0], some[:, 1:] - some[:, :1] + prior[1]
        density = torch.softmax(right * logp + wrong * log_miss, dim=1)
        means.append(density @ values)
    return torch.cat(means)[places].reshape(num_correct.shape)


def pass_at_n(num_correct: torch.Tensor, num_samples: torch.Tensor, num_attempts: float) -> torch.Tensor:
    """Return the unbiased estimate of `1 - (1-p)^N`: 1 - C(n-k, N) / C(n, N). Needs whole N <= n."""
    _check_draws(num_samples, num_attempts)
    return 1 - _share_of_draws(num_samples - num_correct, num_samples, num_attempts)


def pass_at_n_slope(num_correct: torch.Tensor, num_samples: torch.Tensor, num_attempts: float) -> torch.Tensor:
    """Return the unbiased estimate of `N p (1-p)^(N-1)`: N k/n C(n-k, N-1) / C(n-1, N-1). Needs whole N <= n."""
    _check_draws(num_samples, num_attempts)
    others = _share_of_draws(num_samples - num_correct, num_samples - 1, num_attempts - 1)
    return num_attempts * num_correct / num_samples * others


def u_statistic(num_correct: torch.Tensor, num_samples: torch.Tensor, num_attempts: float) -> torch.Tensor:
    """Return `pass_at_n_slope / pass_at_n`; 1 at k = 0, which is the limit of F. Needs whole N <= n."""
    coverage = pass_at_n(num_correct, num_samples, num_attempts)
    is_zero = num_correct <= 0
    slope = pass_at_n_slope(num_correct, num_samples, num_attempts)
    return torch.where(is_zero, 1.0, slope / torch.where(is_zero, 1.0, coverage))


COVERAGE_ESTIMATORS: dict[str, Callable[..., torch.Tensor]] = {
    "plug_in": plug_in,
    "posterior_mean": posterior_mean,
    "u_statistic": u_statistic,
}


def estimate(name: str, num_correct: Any, num_samples: Any, num_attempts: float, **parameters: Any) -> torch.Tensor:
    """Return the estimates of F(N, p) by the estimator of that name, for counts that broadcast (numbers, arrays)."""
    right = torch.as_tensor(num_correct, dtype=torch.float64)
    total = torch.as_tensor(num_samples, dtype=torch.float64)
    if not bool(((total >= 1) & (right >= 0) & (right <= total)).all()):
        raise ValueError("num_correct must be from 0 to num_samples, and num_samples at least 1")
    right, total = torch.broadcast_tensors(right, total)
    return COVERAGE_ESTIMATORS[name](right, total, num_attempts, **parameters)


def _check_draws(num_samples: torch.Tensor, num_attempts: float) -> None:
    if num_attempts != int(num_attempts) or bool((num_samples < num_attempts).any()):
        raise ValueError(
            f"U-statistics need a whole num_attempts and at least so many samples of every problem; got "
            f"{num_attempts} and {num_samples.min().item():g} samples"
        )


def _share_of_draws(kind: torch.Tensor, total: torch.Tensor, size: float) -> torch.Tensor:
    """Return C(kind, size) / C(total, size): how often `size` draws without replacement are all of one kind."""

    def log_choose(count: torch.Tensor) -> torch.Tensor:
        return torch.lgamma(count + 1) - torch.lgamma(count - size + 1)

    is_possible = kind >= size
    share = torch.exp(log_choose(torch.where(is_possible, kind, total)) - log_choose(total))
    return torch.where(is_possible, share, 0.0)
