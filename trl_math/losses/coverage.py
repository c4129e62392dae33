"""Coverage (pass@N) of one problem as a loss: Direct Coverage Optimization.

`p` is the probability of the right answer in one draw, `N` the number of draws. The coverage is `1 - (1-p)^N`, the
loss its negative logarithm. Its gradient is the cross-entropy gradient times a factor `F(N, p)` in `[0, 1]` that falls
to zero once `p` is a few times `1/N`: the loss stops pushing an example that N attempts solve anyway.

    L(N, p) = -log(1 - (1-p)^N)                  dL / d log p = -F(N, p)
    F(N, p) = N p (1-p)^(N-1) / (1 - (1-p)^N)

Paper: Chen, Raventos, Cheng, Ganguli, Druckmann, "Rethinking Fine-Tuning when Scaling Test-Time Compute: Limiting
Confidence Improves Mathematical Reasoning" (https://huggingface.co/papers/2502.07154).

Differences from the published code:
1. Everything is computed from `log p` in float64 with `expm1`/`log1p`, so `p` may underflow; the published code goes
   through `p` and switches to a Taylor quotient at `N p = 0.1`, where it is off by up to 1.4e-4.
2. N may be any real number above zero, and a tensor (one N for each element).
"""

import math
from typing import Any

import torch


LOG_HALF = -math.log(2.0)
# Below N p = e^-27 (2e-12) the second-order series is exact to float64, and p itself may already be an underflowed 0.
LOG_SERIES = -27.0
# log p = 0 is p = 1: moved by less than any float64 step around 1, so that p / (1-p) stays finite.
MAX_LOGP = -1e-300


def log1mexp(x: torch.Tensor) -> torch.Tensor:
    """Return `log(1 - exp(x))` for `x <= 0` without cancellation on either side."""
    # Both branches are evaluated, so each gets an argument that is harmless where the other is used.
    near_zero = torch.log(-torch.expm1(x.clamp(min=LOG_HALF)))
    far = torch.log1p(-torch.exp(x.clamp(max=LOG_HALF)))
    return torch.where(x > LOG_HALF, near_zero, far)


def _as_float64(logps: torch.Tensor, num_attempts: float | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    if not isinstance(num_attempts, torch.Tensor) and not (num_attempts > 0 and math.isfinite(num_attempts)):
        raise ValueError(f"num_attempts must be a finite number above 0, got {num_attempts}")
    # 'mps' has no float64; one number a sequence is cheap to move.
    wide = (logps.cpu() if logps.device.type == "mps" else logps).detach().double()
    attempts = torch.as_tensor(num_attempts, dtype=torch.float64, device=wide.device)
    # Below N = 1 the slope is infinite at p = 1, so there log p = 0 is read as half a step of its own dtype below 0.
    half_step = -torch.finfo(logps.dtype).eps / 2
    return torch.where(attempts < 1, wide.clamp(max=half_step), wide.clamp(max=MAX_LOGP)), attempts


def _is_small(logps: torch.Tensor, attempts: torch.Tensor) -> torch.Tensor:
    """Whether N p and p itself (N may be below 1) are so small that the series is used."""
    return attempts.clamp(min=1).log() + logps < LOG_SERIES


def _weight(logps: torch.Tensor, attempts: torch.Tensor) -> torch.Tensor:
    # (1-p)^N / (1 - (1-p)^N) = 1 / expm1(-N log(1-p)), so F = N * p/(1-p) / expm1(-N log(1-p)): no subtraction at all.
    # Multiplied by N last, because p/(1-p) may be as large as floats go; the quotient is F / N.
    odds = torch.exp(logps) / -torch.expm1(logps)
    closed = attempts * (odds / torch.expm1(-attempts * log1mexp(logps)))
    series = 1 - (attempts - 1) / 2 * torch.exp(logps)
    weight = torch.where(_is_small(logps, attempts), series, closed)
    return torch.where(attempts == 1, torch.ones_like(weight), weight)


def _nll(logps: torch.Tensor, attempts: torch.Tensor) -> torch.Tensor:
    closed = -log1mexp(attempts * log1mexp(logps))
    series = -(attempts.log() + logps) + (attempts - 1) / 2 * torch.exp(logps)
    return torch.where(_is_small(logps, attempts), series, closed)


def coverage_weight(logps: torch.Tensor, num_attempts: float | torch.Tensor) -> torch.Tensor:
    """Return `F(N, p)`, the factor that coverage puts on the cross-entropy gradient, without gradient.

    Args:
        logps: Log-probability of the right answer in one draw, any shape.
        num_attempts: N, a real number above 0 or a tensor that broadcasts with `logps`. N = 1 gives exactly 1.

    Returns the shape and dtype of `logps`. For `num_attempts` below 1 the factor exceeds 1 (the loss sharpens).
    """
    weight = _weight(*_as_float64(logps, num_attempts))
    return weight.to(logps)


class _CoverageNLL(torch.autograd.Function):
    """The loss with its analytic gradient: autograd through the logarithms would give 0 * inf at the ends."""

    @staticmethod
    def forward(ctx: Any, logps: torch.Tensor, num_attempts: float | torch.Tensor) -> torch.Tensor:
        wide, attempts = _as_float64(logps, num_attempts)
        ctx.save_for_backward(_weight(wide, attempts).to(logps))
        # N = 1 is cross-entropy: the input's own bits, not a round trip through the logarithms.
        return torch.where((attempts == 1).to(logps.device), -logps, _nll(wide, attempts).to(logps))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None]:
        (weight,) = ctx.saved_tensors
        return -weight * grad_outputs[0], None


def coverage_nll(logps: torch.Tensor, num_attempts: float | torch.Tensor) -> torch.Tensor:
    """Return `-log(1 - (1-p)^N)`, element-wise, differentiable in `logps`.

    Args:
        logps: Log-probability of the right answer in one draw, any shape: one sequence (summed over its tokens), one
            proof step, or one token each.
        num_attempts: N, a real number above 0 or a tensor that broadcasts with `logps`. N = 1 is cross-entropy.

    Returns the shape and dtype of `logps`; the computation is in float64.
    """
    return _CoverageNLL.apply(logps, num_attempts)


def coverage(logps: torch.Tensor, num_attempts: float) -> torch.Tensor:
    """Return pass@N of one problem, `1 - (1-p)^N`, without gradient."""
    wide, attempts = _as_float64(logps, num_attempts)
    return torch.exp(-_nll(wide, attempts)).to(logps)


def coverage_logp(weight: float, num_attempts: float) -> float:
    """Return the `log p` at which `F(N, p)` falls to `weight`: the gate's position, by bisection (F falls with p)."""
    if not 0 < weight < 1 or num_attempts <= 1:
        raise ValueError(f"F(N, p) takes a value in (0, 1) only for N > 1; got weight {weight}, N {num_attempts}")
    low, high = -800.0, 0.0
    for _ in range(200):
        middle = (low + high) / 2
        inside = coverage_weight(torch.tensor(middle, dtype=torch.float64), num_attempts) > weight
        low, high = (middle, high) if inside else (low, middle)
    return low
