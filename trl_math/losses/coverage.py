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
from torch.autograd.function import once_differentiable


LOG_HALF = -math.log(2.0)
# Below N p = e^-27 (2e-12) the second-order series is exact to float64, and p itself may already be an underflowed 0.
LOG_SERIES = -27.0
# log p = 0 is p = 1: moved by less than any float64 step around 1, so that p / (1-p) stays finite.
MAX_LOGP = -1e-300


def _as_float64(logps: torch.Tensor, num_attempts: float | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    if not isinstance(num_attempts, torch.Tensor) and not (num_attempts > 0 and math.isfinite(num_attempts)):
        raise ValueError(f"num_attempts must be a finite number above 0, got {num_attempts}")
    # 'mps' has no float64; one number a sequence is cheap to move.
    wide = (logps.cpu() if logps.device.type == "mps" else logps).detach().double()
    attempts = torch.as_tensor(num_attempts, dtype=torch.float64, device=wide.device)
    # Below N = 1 the slope is infinite at p = 1, so there log p = 0 is read as half a step of its own dtype below 0.
    half_step = -torch.finfo(logps.dtype).eps / 2
    return torch.where(attempts < 1, wide.clamp(max=half_step), wide.clamp(max=MAX_LOGP)), attempts


def _log1mexp(x: torch.Tensor, exp_x: torch.Tensor) -> torch.Tensor:
    """Return `log(1 - exp(x))` for `x <= 0` without cancellation on either side."""
    return torch.where(x > LOG_HALF, torch.log(-torch.expm1(x)), torch.log1p(-exp_x))


def _nll_and_weight(logps: torch.Tensor, attempts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return L and F of float64 `logps`. Not for autograd: the branch that is not taken may be infinite or NaN.

    (1-p)^N / (1 - (1-p)^N) = 1 / expm1(-N log(1-p)), so F = N * p/(1-p) / expm1(-N log(1-p)): no subtraction at all.
    N is multiplied last, because p/(1-p) may be as large as floats go.
    """
    p = torch.exp(logps)
    log_miss = attempts * _log1mexp(logps, p)  # log (1-p)^N
    weight = attempts * (p / -torch.expm1(logps) / torch.expm1(-log_miss))
    nll = -_log1mexp(log_miss, torch.exp(log_miss))
    second_order = (attempts - 1) / 2 * p
    is_small = attempts.clamp(min=1).log() + logps < LOG_SERIES  # both N p and p: N may be below 1
    nll = torch.where(is_small, second_order - attempts.log() - logps, nll)
    weight = torch.where(is_small, 1 - second_order, weight)
    return nll, torch.where(attempts == 1, 1.0, weight)


def coverage_nll_and_weight(
    logps: torch.Tensor, num_attempts: float | torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `coverage_nll` and `coverage_weight` in one go, both without gradient: what the logs need."""
    nll, weight = _nll_and_weight(*_as_float64(logps, num_attempts))
    return nll.to(logps), weight.to(logps)


def coverage_weight(logps: torch.Tensor, num_attempts: float | torch.Tensor) -> torch.Tensor:
    """Return `F(N, p)`, the factor that coverage puts on the cross-entropy gradient, without gradient.

    Args:
        logps: Log-probability of the right answer in one draw, any shape.
        num_attempts: N, a real number above 0 or a tensor that broadcasts with `logps`. N = 1 gives exactly 1.

    Returns the shape and dtype of `logps`. For `num_attempts` below 1 the factor exceeds 1 (the loss sharpens).
    """
    return coverage_nll_and_weight(logps, num_attempts)[1]


class _CoverageNLL(torch.autograd.Function):
    """The loss with its analytic gradient: autograd through the logarithms would give 0 * inf at the ends."""

    @staticmethod
    def forward(ctx: Any, logps: torch.Tensor, num_attempts: float | torch.Tensor) -> torch.Tensor:
        wide, attempts = _as_float64(logps, num_attempts)
        nll, weight = _nll_and_weight(wide, attempts)
        ctx.save_for_backward(weight.to(logps))
        # N = 1 is cross-entropy: the input's own bits, not a round trip through the logarithms.
        return torch.where((attempts == 1).to(logps.device), -logps, nll.to(logps))

    @staticmethod
    @once_differentiable
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
    return torch.exp(-coverage_nll_and_weight(logps.double(), num_attempts)[0]).to(logps)


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
