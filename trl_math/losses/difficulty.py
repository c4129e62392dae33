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
    levels     base + factor d                  d is p's level (or 1 - p): sample-difficulty-adaptive tuning
    easiest_half   1 on the easier half, 0 on the other; the only one that looks at all the problems it is given
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch

from trl_math.losses.coverage import coverage_weight
from trl_math.losses.token import focal_weight


# (1 - 0.8) 5 is 1 less a rounding error, and is meant to be 1. The released code's own tolerance, wide enough for
# pass rates in float32.
ROUNDING = 1e-6


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


def difficulty_levels(
    pass_rate: torch.Tensor, *, num_levels: int = 5, rule: Literal["released", "report"] = "released"
) -> torch.Tensor:
    """Return the level of each pass rate, a whole number that is higher for harder problems.

    The system that these levels are from (github.com/tongyx361/sample-difficulty-adaptive-tuning) defines them twice.
    `report` is what its report says, floor((1-p) L), from 0 to L. `released` is what its code does and its released
    data hold, floor((1-p) L - 1e-6) + 1 and at least 1: from 1 to L, so that a problem that is always solved counts.
    """
    scaled = (1 - pass_rate.double()) * num_levels
    if rule == "report":
        return torch.floor(scaled + ROUNDING)
    return torch.floor(scaled - ROUNDING).add(1).clamp(min=1)


def levels(
    pass_rate: torch.Tensor,
    *,
    base: float = 1.0,
    factor: float = 1.0,
    num_levels: int = 5,
    rule: Literal["released", "report", "err_rate"] = "released",
) -> torch.Tensor:
    """Return `base + factor * d`, where d is the problem's level by that rule, or with `err_rate` 1 - p itself.

    The published runs copied each row floor(base + factor d) times with the `released` levels (the numbers of steps
    of their checkpoints say so); the training script that was published with them uses `err_rate`.
    """
    if rule == "err_rate":
        return base + factor * (1 - pass_rate.double())
    return base + factor * difficulty_levels(pass_rate, num_levels=num_levels, rule=rule)


def easiest_half(pass_rate: torch.Tensor) -> torch.Tensor:
    """Return 1 on the half with the higher pass rates and 0 on the other; ties at the border share what is left.

    The half is of the problems given together, so the sum is half their number. SelectiveDPO
    (https://huggingface.co/papers/2502.09650) keeps the easiest half, by another measure of difficulty.
    """
    rate = pass_rate.double()
    if rate.numel() == 0:
        return rate
    half = rate.numel() / 2
    border = rate.flatten().sort(descending=True).values[math.ceil(half) - 1]
    is_tied, is_above = rate == border, rate > border
    return is_above.double() + is_tied.double() * (half - is_above.sum()) / is_tied.sum()


def schedule_values(
    name: str, pass_rates: Sequence[float], parameters: Mapping[str, Any] | None = None
) -> list[float]:
    """Return a schedule's values for plain numbers, in float64."""
    rates = torch.tensor(list(pass_rates), dtype=torch.float64)
    return DIFFICULTY_SCHEDULES[name](rates, **(parameters or {})).tolist()


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
    "levels": levels,
    "easiest_half": easiest_half,
}
