"""The coverage loss against 60-digit arithmetic, its gradient, its limits, and what minimising it leads to."""

import math
from collections.abc import Callable

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_math.losses import coverage, coverage_logp, coverage_nll, coverage_weight


ATTEMPTS = [1.0, 1.0 + 1e-9, 1.5, 2.0, 3.7, 16.0, 64.0, 1000.5, 1e5, 1e6]
# log p from 1e-30 to 1 - 1e-12, densest around the gate of each N.
LOGPS = [
    *(math.log(10.0) * exponent for exponent in range(-30, 0)),
    *(math.log(u / attempts) for attempts in ATTEMPTS[3:] for u in (0.05, 0.3, 1.0, 1.5)),
    *(math.log1p(-(10.0**exponent)) for exponent in range(-12, 0)),
]
# What the derivative is of: nothing here may be NaN or infinite.
ENDS = [0.0, -5e-324, -1e-300, -1e-45, -1e-16, -745.0, -800.0, -1e5, -1e308]
REAL_ATTEMPTS = [1e-200, 1e-15, 0.25, *ATTEMPTS, 1e9, 1e15, 1e300]
TINY = 1e-270  # below this (1-p)^N may have underflowed


def exact(logp: float, attempts: float) -> tuple[mpmath.mpf, mpmath.mpf]:
    """Return loss and factor of the float that the function was given, to 60 digits, straight from the definition."""
    with mpmath.workdps(60):
        n, p, miss = mpmath.mpf(attempts), mpmath.exp(mpmath.mpf(logp)), -mpmath.expm1(mpmath.mpf(logp))
        return -mpmath.log1p(-(miss**n)), n * p * miss ** (n - 1) / -mpmath.expm1(n * mpmath.log(miss))


def error(got: float, expected: mpmath.mpf, smallest: float = TINY) -> float:
    return float(abs(mpmath.mpf(got) - expected) / max(abs(expected), mpmath.mpf(smallest)))


def float64(*values: float, requires_grad: bool = False) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=requires_grad)


# ---- Values ----


@pytest.mark.parametrize("attempts", ATTEMPTS)
@pytest.mark.parametrize(
    ("dtype", "tolerance", "smallest"), [(torch.float64, 1e-12, TINY), (torch.float32, 1e-5, 1e-36)]
)
def test_agrees_with_60_digits(attempts: float, dtype: torch.dtype, tolerance: float, smallest: float) -> None:
    logps = torch.tensor(LOGPS, dtype=torch.float64).to(dtype)
    logps = logps[logps < 0]
    losses, weights = coverage_nll(logps, attempts), coverage_weight(logps, attempts)
    for logp, loss, weight in zip(logps.tolist(), losses.tolist(), weights.tolist(), strict=True):
        expected_loss, expected_weight = exact(logp, attempts)
        assert error(loss, expected_loss, smallest) < tolerance, (logp, loss)
        assert error(weight, expected_weight, smallest) < tolerance, (logp, weight)


@settings(max_examples=300, deadline=None)
@given(
    attempts=st.floats(0, 6).map(lambda exponent: 10**exponent),
    logp=st.floats(math.log(1e-30), -1e-12) | st.floats(-12, -0.001).map(lambda exponent: math.log1p(-(10**exponent))),
)
def test_agrees_with_60_digits_anywhere(attempts: float, logp: float) -> None:
    expected_loss, expected_weight = exact(logp, attempts)
    assert error(coverage_nll(float64(logp), attempts).item(), expected_loss) < 1e-12
    assert error(coverage_weight(float64(logp), attempts).item(), expected_weight) < 1e-12


@settings(max_examples=200, deadline=None)
@given(attempts=st.floats(1e-15, 1, exclude_max=True), logp=st.floats(-60, -1e-6))
def test_fewer_than_one_attempt_sharpens(attempts: float, logp: float) -> None:
    expected_loss, expected_weight = exact(logp, attempts)
    weight = coverage_weight(float64(logp), attempts).item()
    assert error(coverage_nll(float64(logp), attempts).item(), expected_loss) < 1e-12
    assert error(weight, expected_weight) < 1e-12
    assert weight >= 1 - 1e-12


@pytest.mark.parametrize("logp", [-690.0, -745.0, -800.0, -1e5, -1e308])
def test_answers_too_improbable_for_a_float(logp: float) -> None:
    # p = 1e-300 and below: the loss is -log(N p) and the factor 1.
    assert coverage_nll(float64(logp), 64.0).item() == pytest.approx(-logp - math.log(64), rel=1e-15)
    assert coverage_weight(float64(logp), 64.0).item() == 1


def test_a_certain_answer_is_left_alone() -> None:
    for attempts in (2.0, 64.0, 1e6, 1e300):
        assert coverage_nll(float64(0.0), attempts).item() == 0
        assert coverage_weight(float64(0.0), attempts).item() == pytest.approx(0, abs=1e-290)


@pytest.mark.parametrize("attempts", [2, 3, 5, 17])
def test_equivalent_forms(attempts: int) -> None:
    p = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    weights = coverage_weight(p.log(), attempts)
    # N / sum_{j<N} (1-p)^-j
    sums = sum((1 - p) ** -j for j in range(attempts))
    torch.testing.assert_close(weights, attempts / sums, rtol=1e-13, atol=0)
    # elasticity: d log pass@N / d log p
    logps = p.log().requires_grad_()
    (slope,) = torch.autograd.grad((1 - (1 - logps.exp()) ** attempts).log().sum(), logps)
    torch.testing.assert_close(weights, slope, rtol=1e-10, atol=1e-13)
    covered = 1 - (1 - p) ** attempts
    torch.testing.assert_close(coverage_nll(p.log(), attempts), -covered.log(), rtol=1e-11, atol=1e-15)
    torch.testing.assert_close(coverage(p.log(), attempts), covered, rtol=1e-13, atol=0)


def test_two_attempts() -> None:
    p = torch.linspace(0.001, 0.999, 99, dtype=torch.float64)
    torch.testing.assert_close(coverage_weight(p.log(), 2), 2 * (1 - p) / (2 - p), rtol=1e-13, atol=0)


def test_many_attempts_depend_on_their_product_with_p() -> None:
    u = float64(0.1, 1.0, 3.0, 6.0)
    torch.testing.assert_close(coverage_weight((u / 1e9).log(), 1e9), u / torch.expm1(u), rtol=1e-7, atol=0)
    torch.testing.assert_close(coverage_nll((u / 1e9).log(), 1e9), -torch.log(-torch.expm1(-u)), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("attempts", "weight", "p"),
    [
        (16, 0.5, 0.0795),
        (16, 0.3, 0.127),
        (16, 0.1, 0.210),
        (16, 0.01, 0.343),
        (64, 0.5, 0.0197),
        (64, 0.3, 0.0321),
        (64, 0.1, 0.0555),
        (64, 0.01, 0.0971),
        (256, 0.5, 0.00491),
        (256, 0.3, 0.00806),
        (256, 0.1, 0.0141),
        (256, 0.01, 0.0250),
        (1024, 0.5, 0.00123),
        (1024, 0.3, 0.00202),
        (1024, 0.1, 0.00353),
        (1024, 0.01, 0.00631),
    ],
)
def test_gate_positions(attempts: int, weight: float, p: float) -> None:
    logp = coverage_logp(weight, attempts)
    assert math.exp(logp) == pytest.approx(p, rel=5e-3)
    assert coverage_weight(float64(logp), attempts).item() == pytest.approx(weight, rel=1e-12)


@pytest.mark.parametrize(("weight", "attempts"), [(1 - 1e-12, 2.0), (1e-12, 1e6), (1e-30, 2.0), (0.5, 1.1)])
def test_gate_positions_far_out(weight: float, attempts: float) -> None:
    found = coverage_weight(float64(coverage_logp(weight, attempts)), attempts).item()
    assert found == pytest.approx(weight, rel=1e-9, abs=0)


# ---- Gradients ----


@pytest.mark.parametrize("attempts", [0.5, 1.0, 2.0, 3.7, 64.0, 1e5])
def test_gradient_is_the_factor_and_the_slope(attempts: float) -> None:
    logps = torch.linspace(-20, -0.01, 200, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(coverage_nll(logps, attempts).sum(), logps)
    assert torch.equal(gradient, -coverage_weight(logps, attempts))
    step = 1e-5
    with torch.no_grad():
        slope = (coverage_nll(logps + step, attempts) - coverage_nll(logps - step, attempts)) / (2 * step)
    torch.testing.assert_close(gradient, slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("attempts", [0.5, 1.0, 64.0, float64(1.0, 2.5, 1e3, 1e6)])
def test_gradcheck(attempts: float | torch.Tensor) -> None:
    logps = -torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 12
    assert torch.autograd.gradcheck(lambda x: coverage_nll(x, attempts), logps.requires_grad_())


def test_gradient_passes_through_a_sum_of_tokens() -> None:
    token_logps = float64(-0.5, -1.0, -0.25, -2.0, requires_grad=True)
    # the last two tokens are another sequence
    sums = torch.stack([token_logps[:2].sum(), token_logps[2:].sum()])
    (3 * coverage_nll(sums, 64)).sum().backward()
    weights = coverage_weight(sums, 64)
    assert torch.equal(token_logps.grad, -3 * weights.repeat_interleave(2))


def test_the_factor_has_no_gradient() -> None:
    logps = float64(-1.0, requires_grad=True)
    assert not coverage_weight(logps, 64).requires_grad
    assert not coverage(logps, 64).requires_grad


@pytest.mark.parametrize("attempts", REAL_ATTEMPTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_ends_are_finite(attempts: float, dtype: torch.dtype) -> None:
    lowest = torch.finfo(dtype).min
    logps = torch.tensor([max(logp, lowest) for logp in ENDS], dtype=dtype, requires_grad=True)
    losses = coverage_nll(logps, attempts)
    losses.sum().backward()
    assert losses.isfinite().all()
    assert logps.grad.isfinite().all()
    assert (losses >= 0).all()
    assert (logps.grad <= 0).all()
    assert attempts < 1 or (logps.grad >= -1).all()


@pytest.mark.parametrize("attempts", REAL_ATTEMPTS)
def test_an_impossible_answer_has_infinite_loss_and_the_gradient_of_cross_entropy(attempts: float) -> None:
    # log p = -inf, a masked logit: the limit of the finite case, and never NaN.
    logps = float64(-math.inf, requires_grad=True)
    loss = coverage_nll(logps, attempts)
    loss.backward()
    assert loss.item() == math.inf
    assert logps.grad.item() == -1
    assert coverage(logps, attempts).item() == 0


@pytest.mark.parametrize("attempts", [1, 2.0, 64.0])
def test_nan_is_not_hidden(attempts: float) -> None:
    assert coverage_nll(float64(math.nan), attempts).isnan().all()


# ---- N = 1 is cross-entropy ----


@pytest.mark.parametrize("attempts", [1, 1.0, torch.tensor(1), torch.tensor(1.0), torch.ones(400)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_one_attempt_is_cross_entropy_bit_for_bit(attempts: float | torch.Tensor, dtype: torch.dtype) -> None:
    values = -torch.logspace(-10, 4, 400, dtype=torch.float64)
    values[:4] = float64(0.0, 1e-8, -math.inf, -1e-30)  # and what rounding does to log 1
    logps = values.to(dtype).requires_grad_()
    losses = coverage_nll(logps, attempts)
    assert torch.equal(losses, -logps)
    outer = torch.linspace(-3, 5, 400, dtype=torch.float64).to(dtype)
    (gradient,) = torch.autograd.grad(losses, logps, outer)
    assert torch.equal(gradient, -outer)
    assert torch.equal(coverage_weight(logps, attempts), torch.ones_like(logps))


# ---- Shapes and dtypes ----


def test_one_n_for_each_element() -> None:
    logps = -torch.rand(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 9
    attempts = float64(1.0, 2.5, 64.0)
    for function in (coverage_nll, coverage_weight, coverage):
        columns = [function(logps[:, j], attempts[j].item()) for j in range(3)]
        assert torch.equal(function(logps, attempts), torch.stack(columns, dim=1))


def test_n_broadcasts_both_ways() -> None:
    logps = float64(-0.1, -3.0, requires_grad=True)
    attempts = torch.tensor([[1], [8], [64]])  # integers will do
    losses = coverage_nll(logps, attempts)
    assert losses.shape == (3, 2)
    losses.sum().backward()
    torch.testing.assert_close(logps.grad, -coverage_weight(logps.detach(), attempts).sum(dim=0), rtol=1e-15, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_short_floats_are_the_rounded_result(dtype: torch.dtype) -> None:
    logps = (-torch.logspace(-6, 3, 100, dtype=torch.float64)).to(dtype).requires_grad_()
    losses = coverage_nll(logps, 64)
    (gradient,) = torch.autograd.grad(losses.sum(), logps)
    wide = logps.detach().double()
    assert torch.equal(losses, coverage_nll(wide, 64).to(dtype))
    assert torch.equal(gradient, -coverage_weight(wide, 64).to(dtype))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (7,), (2, 3, 4)])
@pytest.mark.parametrize("function", [coverage_nll, coverage_weight, coverage])
def test_shape_and_dtype_are_kept(shape: tuple[int, ...], function: Callable) -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        result = function(torch.full(shape, -1.5, dtype=dtype), 16)
        assert result.shape == shape
        assert result.dtype == dtype


def test_memory_layout_does_not_matter() -> None:
    logps = -torch.rand(6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 9
    for view in (logps.t(), logps[::2, 1::3], logps[:, :1].expand(6, 5)):
        leaf = view.detach().requires_grad_()
        losses = coverage_nll(leaf, 64)
        losses.sum().backward()
        assert torch.equal(losses, coverage_nll(view.contiguous(), 64))
        assert torch.equal(leaf.grad, -coverage_weight(view.contiguous(), 64))


def test_the_input_is_left_alone() -> None:
    logps = float64(0.0, -1.0, -800.0)
    coverage_nll(logps, 64)
    coverage_weight(logps, 0.5)
    assert torch.equal(logps, float64(0.0, -1.0, -800.0))


@pytest.mark.parametrize("attempts", [0, -1, -0.5, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("function", [coverage_nll, coverage_weight, coverage])
def test_impossible_numbers_of_attempts_are_refused(attempts: float, function: Callable) -> None:
    with pytest.raises(ValueError, match="num_attempts must be a finite number above 0"):
        function(float64(-1.0), attempts)


@pytest.mark.parametrize(
    ("weight", "attempts"), [(0, 64), (1, 64), (-0.1, 64), (math.nan, 64), (0.5, 1), (0.5, 0.5), (0.5, math.inf)]
)
def test_gate_without_a_position_is_refused(weight: float, attempts: float) -> None:
    with pytest.raises(ValueError, match=r"F\(N, p\)|num_attempts"):
        coverage_logp(weight, attempts)


# ---- Monotonicity ----


@settings(max_examples=300, deadline=None)
@given(
    logps=st.tuples(st.floats(-900, 0), st.floats(-900, 0)).map(sorted),
    attempts=st.tuples(st.floats(0, 9), st.floats(0, 9)).map(lambda pair: sorted(10**x for x in pair)),
)
def test_monotone_in_p_and_in_n(logps: list[float], attempts: list[float]) -> None:
    slack = 1 + 1e-12
    (low_p, high_p), (few, many) = logps, attempts
    for function in (coverage_weight, coverage_nll):
        # less to learn the more probable the answer is, and the more attempts there are
        at_low, at_high = function(float64(low_p, high_p), few).tolist()
        assert at_high <= at_low * slack + TINY
        assert function(float64(low_p), many).item() <= at_low * slack + TINY
    assert 0 <= coverage_weight(float64(low_p), many).item() <= slack
    assert coverage_nll(float64(low_p), many).item() >= 0
    assert coverage(float64(low_p), few).item() <= coverage(float64(high_p), many).item() * slack


# ---- What minimising it leads to ----

ACCURACIES = float64(0.5, 0.2, 0.15, 0.1, 0.05)  # answer i is right with this probability


def descend(objective: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Return the categorical over answers that gradient descent on the logits finds."""
    logits = torch.zeros_like(ACCURACIES, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=500, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        # the logarithm moves no optimum, and keeps the slope from vanishing where nearly everything is covered
        loss = objective(logits.log_softmax(-1)).log()
        loss.backward()
        return loss

    optimizer.step(closure)
    return logits.detach().softmax(-1)


@pytest.mark.parametrize(
    ("attempts", "expected", "value"),
    [
        (2, [0.707, 0.268, 0.024, 0.0, 0.0], 0.557),
        (4, [0.461, 0.268, 0.194, 0.078, 0.0], 0.714),
        (8, [0.331, 0.237, 0.205, 0.158, 0.070], 0.880),
        (64, [0.215, 0.204, 0.200, 0.195, 0.186], 1.000),
    ],
)
def test_maximal_pass_at_n_is_water_filling(attempts: int, expected: list[float], value: float) -> None:
    """The expected miss, 1 - pass@N, descended through the loss, ends at the closed-form optimum."""
    found = descend(lambda logps: (ACCURACIES * -torch.expm1(-coverage_nll(logps, attempts))).sum())
    torch.testing.assert_close(found, float64(*expected), rtol=0, atol=2e-3)
    assert (ACCURACIES * coverage(found.log(), attempts)).sum().item() == pytest.approx(value, abs=6e-4)
    # q_i = 1 - (K-1) A_i^-s / sum_{j<=K} A_j^-s with s = 1/(N-1), over the K answers that are tried at all
    num_active = sum(q > 0 for q in expected)
    prices = ACCURACIES[:num_active] ** (-1 / (attempts - 1))
    torch.testing.assert_close(found[:num_active], 1 - (num_active - 1) * prices / prices.sum(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("attempts", [1, 2, 8, 64])
def test_the_loss_itself_spreads_too(attempts: int) -> None:
    """The expected loss has its minimum where A_i F(N, q_i) is proportional to q_i: at N = 1 that is q = A."""
    found = descend(lambda logps: (ACCURACIES * coverage_nll(logps, attempts)).sum())
    ratios = ACCURACIES * coverage_weight(found.log(), attempts) / found
    torch.testing.assert_close(ratios, ratios.mean().expand(5), rtol=1e-4, atol=0)
    if attempts == 1:
        torch.testing.assert_close(found, ACCURACIES, rtol=0, atol=1e-6)
    else:
        assert found[0] < ACCURACIES[0]
        assert found[-1] > ACCURACIES[-1]
