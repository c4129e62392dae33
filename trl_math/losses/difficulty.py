"""Difficulty schedules: functions of a problem's pass rate p, in [0, 1], for weights, betas and margins.

They say which problems count, and are relative: whoever uses one keeps the mean over the training data (1 for weights,
the configured value for beta and margin). Keyword-only arguments are parameters (no default means that the user must
give it). Shapes are the input's; the computation is in float64 and without gradient.

    uniform    1
    linear     1 - p                            hard problems count more
    power      (1 - p)^gamma
    bell       4 p (1 - p)                      problems at the edge of what the model can do count most
    focal      focal's weight on cross-entropy  (1-p)^gamma - gamma p (1-p)^(gamma-1) log p
    coverage   F(N, p)                          problems that N attempts already solve count no more
    band       1 within [min_pass_rate, max_pass_rate], 0 outside
"""

from collections.abc import Callable

import torch

from trl_math.losses.coverage import coverage_weight
from trl_math.losses.token import focal_weight


def uniform(pass_rate: torch.Tensor) -> torch.Tensor:
    """Return 1."""
    return torch.ones_like(pass_rate, dtype=torch.float64)


def linear(pass_rate: torch.Tensor) -> torch.Tensor:
    """Return `1 - p`."""
    return 1 - pass_rate.double()


def power(pass_rate: torch.Tensor, *, gamma: float = 2.0) -> torch.Tensor:
    """Return `(1 - p)^gamma`."""
    return (1 - pass_rate.double()) ** gamma


def bell(pass_rate: torch.Tensor) -> torch.Tensor:
    """Return `4 p (1 - p)`, the variance of one attempt's outcome, 1 at one half."""
    rate = pass_rate.double()
    return 4 * rate * (1 - rate)


def focal(pass_rate: torch.Tensor, *, gamma: float = 2.0) -> torch.Tensor:
    """Return the weight that the focal loss puts on the cross-entropy gradient at probability p; 1 at p = 0."""
    return _at_log(pass_rate, lambda logps: focal_weight(logps, gamma))


def coverage(pass_rate: torch.Tensor, *, num_attempts: float) -> torch.Tensor:
    """Return `F(N, p)`, the weight that the coverage loss puts on the cross-entropy gradient; 1 at p = 0."""
    return _at_log(pass_rate, lambda logps: coverage_weight(logps, num_attempts))


def band(pass_rate: torch.Tensor, *, min_pass_rate: float = 0.0, max_pass_rate: float = 1.0) -> torch.Tensor:
    """Return 1 within the band, its ends included, and 0 outside."""
    rate = pass_rate.double()
    return ((rate >= min_pass_rate) & (rate <= max_pass_rate)).double()


def _at_log(pass_rate: torch.Tensor, weight: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Return a weight that is known as a function of log p, and is 1 where p is 0."""
    rate = pass_rate.double()
    is_zero = rate <= 0
    return torch.where(is_zero, 1.0, weight(torch.where(is_zero, 0.5, rate).log()))


DIFFICULTY_SCHEDULES: dict[str, Callable[..., torch.Tensor]] = {
    "uniform": uniform,
    "linear": linear,
    "power": power,
    "bell": bell,
    "focal": focal,
    "coverage": coverage,
    "band": band,
}
