"""Every objective against its definition on full logits: values, and gradients in the logits."""

import inspect
import math
from collections.abc import Callable

import pytest
import torch

from trl_math.losses import SEQUENCE_OBJECTIVES, TOKEN_OBJECTIVES, coverage_weight, cross_entropy_weight
from trl_math.losses.token import focal_weight


NUM_TOKENS, VOCABULARY = 40, 12
Loss = Callable[..., torch.Tensor]


@pytest.fixture
def logits() -> torch.Tensor:
    """From flat to peaked next-token distributions, (T, V)."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(NUM_TOKENS, VOCABULARY, dtype=torch.float64, generator=generator)
    return (noise * torch.linspace(0.1, 8, NUM_TOKENS, dtype=torch.float64)[:, None]).requires_grad_()


@pytest.fixture
def targets(logits: torch.Tensor) -> torch.Tensor:
    """Mostly improbable tokens first, mostly probable ones last, (T,)."""
    probabilities = logits.detach().softmax(-1)
    return torch.multinomial(probabilities, 1, generator=torch.Generator().manual_seed(1))[:, 0]


def target_logps(logits: torch.Tensor, targets: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    return torch.log_softmax(logits / temperature, -1).gather(-1, targets[:, None])[:, 0]


def fields(logits: torch.Tensor, targets: torch.Tensor, temperature: float) -> dict[str, torch.Tensor]:
    """Return what one forward pass offers to an objective, (T,) each."""
    all_logps = torch.log_softmax(logits, -1)
    return {
        "logps": target_logps(logits, targets),
        "entropy": -(all_logps.exp() * all_logps).sum(-1),
        "tempered_logps": target_logps(logits, targets, temperature),
    }


def evaluate(name: str, params: dict[str, float], logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the objective's per-token losses, (T,)."""
    function = TOKEN_OBJECTIVES[name]
    given = fields(logits, targets, params.get("temperature", 0.7))
    reads = [name for name, p in inspect.signature(function).parameters.items() if p.kind is not p.KEYWORD_ONLY]
    return function(*(given[name] for name in reads), **params)


# ---- References: plain definitions in p, and their gradients in the logits worked out by hand ----


def one_hot(targets: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(targets, VOCABULARY).double()


def of_p(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return all probabilities (T, V), the target's (T, 1), and cross-entropy's gradient softmax - onehot (T, V)."""
    probabilities = logits.exp() / logits.exp().sum(-1, keepdim=True)
    return probabilities, probabilities.gather(-1, targets[:, None]), probabilities - one_hot(targets)


def cross_entropy(logits, targets):
    _, p, gradient = of_p(logits, targets)
    return -p.log(), gradient


def focal(logits, targets, *, gamma):
    _, p, gradient = of_p(logits, targets)
    # d/dp of -(1-p)^gamma log p, times p
    return -((1 - p) ** gamma) * p.log(), ((1 - p) ** gamma - gamma * p * (1 - p) ** (gamma - 1) * p.log()) * gradient


def cap(logits, targets, *, max_probability):
    _, p, gradient = of_p(logits, targets)
    return -p.clamp(max=max_probability).log(), (p < max_probability) * gradient


def tempered(logits, targets, *, temperature):
    _, p, gradient = of_p(logits / temperature, targets)
    return -temperature * p.log(), gradient


def entropy_bonus(logits, targets, *, weight):
    everywhere, p, gradient = of_p(logits, targets)
    entropy = -(everywhere * everywhere.log()).sum(-1, keepdim=True)
    # dH / dz_v = -p_v (log p_v + H)
    return -p.log() - weight * entropy, gradient + weight * everywhere * (everywhere.log() + entropy)


def tofu(logits, targets, *, gamma, temperature):
    _, p, _ = of_p(logits, targets)
    losses, gradient = tempered(logits, targets, temperature=temperature)
    factor = (1 - p) ** gamma - gamma * p * (1 - p) ** (gamma - 1) * p.log()
    return factor * losses, factor * gradient


def dft(logits, targets):
    _, p, gradient = of_p(logits, targets)
    return -p * p.log(), p * gradient


def profit(logits, targets, *, min_probability):
    _, p, gradient = of_p(logits, targets)
    return (p > min_probability) * -p.log(), (p > min_probability) * gradient


REFERENCES: list[tuple[str, Loss, dict[str, float]]] = [
    ("cross_entropy", cross_entropy, {}),
    ("focal", focal, {"gamma": 2.0}),
    ("focal", focal, {"gamma": 0.5}),
    ("focal", focal, {"gamma": 1.0}),
    ("focal", focal, {"gamma": 5.0}),
    ("cap", cap, {"max_probability": 0.3}),
    ("cap", cap, {"max_probability": 0.9}),
    ("tempered", tempered, {"temperature": 0.7}),
    ("tempered", tempered, {"temperature": 1.0}),
    ("tempered", tempered, {"temperature": 2.0}),
    ("entropy_bonus", entropy_bonus, {"weight": 0.1}),
    ("entropy_bonus", entropy_bonus, {"weight": -0.5}),
    ("tofu", tofu, {"gamma": 2.0, "temperature": 0.8}),
    ("tofu", tofu, {"gamma": 0.5, "temperature": 1.0}),
    ("dft", dft, {}),
    ("profit", profit, {"min_probability": 0.1}),
    ("profit", profit, {"min_probability": 0.5}),
]


@pytest.mark.parametrize(("name", "reference", "params"), REFERENCES)
def test_objective_is_its_definition(name: str, reference: Loss, params: dict, logits, targets) -> None:
    losses = evaluate(name, params, logits, targets)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    with torch.no_grad():
        expected_losses, expected_gradient = reference(logits, targets, **params)
    torch.testing.assert_close(losses, expected_losses[:, 0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-12)


def test_every_objective_has_a_reference() -> None:
    assert {name for name, _, _ in REFERENCES} == set(TOKEN_OBJECTIVES)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("focal", {"gamma": 2.0}), ("tempered", {"temperature": 0.7}), ("profit", {"min_probability": 0.1})],
)
def test_defaults(name: str, expected: dict[str, float], logits, targets) -> None:
    assert torch.equal(evaluate(name, {}, logits, targets), evaluate(name, expected, logits, targets))


@pytest.mark.parametrize("beta", [0.5, 0.7, 1.0])
def test_tempered_has_the_gradient_of_gem(beta: float, logits, targets) -> None:
    """GEM, linear h, as published: -sum_v q_v (log p_y - log p_v) with q = softmax(z / beta) held fixed."""
    q = torch.softmax(logits.detach() / beta, -1)
    all_logps = torch.log_softmax(logits, -1)
    gem = -(q * (all_logps.gather(-1, targets[:, None]) - all_logps)).sum()
    (expected,) = torch.autograd.grad(gem, logits)
    (gradient,) = torch.autograd.grad(evaluate("tempered", {"temperature": beta}, logits, targets).sum(), logits)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(gradient, q - one_hot(targets), rtol=1e-10, atol=1e-13)


def test_entropy_bonus_of_nothing_is_cross_entropy(logits, targets) -> None:
    neutral = {"entropy_bonus": {"weight": 0.0}, "tempered": {"temperature": 1.0}}
    for name, params in neutral.items():
        assert torch.equal(evaluate(name, params, logits, targets), evaluate("cross_entropy", {}, logits, targets))


# ---- Weight on the cross-entropy gradient ----


def certain(*values: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype)


def test_weights_of_the_table() -> None:
    p = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    expected = {
        "cross_entropy": torch.ones_like(p),
        "focal": (1 - p) ** 2 - 2 * p * (1 - p) * p.log(),
        "cap": (p < 0.42).double(),
        "dft": p,
        "profit": (p > 0.1).double(),
    }
    params = {"cap": {"max_probability": 0.42}}
    for name, weights in expected.items():
        found = cross_entropy_weight(lambda x, name=name: TOKEN_OBJECTIVES[name](x, **params.get(name, {})), p.log())
        torch.testing.assert_close(found, weights, rtol=1e-10, atol=1e-12, msg=name)
    torch.testing.assert_close(focal_weight(p.log(), 2.0), expected["focal"], rtol=1e-12, atol=0)


@pytest.mark.parametrize("attempts", [1, 2.5, 64.0, torch.tensor([1.0, 8.0, 64.0])])
def test_weight_of_coverage_is_its_factor(attempts: float | torch.Tensor) -> None:
    logps = certain(-0.1, -3.0, -70.0)
    with torch.no_grad():  # the weight is wanted while scoring, too
        found = cross_entropy_weight(lambda x: SEQUENCE_OBJECTIVES["coverage"](x, attempts), logps)
    assert torch.equal(found, coverage_weight(logps, attempts))
    assert not found.requires_grad


# ---- Ends ----


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("name", "reference", "params"), REFERENCES)
def test_finite_from_impossible_to_certain(name: str, reference: Loss, params: dict, dtype: torch.dtype) -> None:
    logps = certain(0.0, -1e-300, -1e-30, -1e-12, -1e-7, -1e-3, -1.0, -100.0, -1e4, -1e30, dtype=dtype)
    leaves = {field: logps.clone().requires_grad_() for field in ("logps", "tempered_logps")}
    leaves["entropy"] = torch.zeros_like(logps, requires_grad=True)
    function = TOKEN_OBJECTIVES[name]
    reads = [field for field in inspect.signature(function).parameters if field in leaves]
    losses = function(*(leaves[field] for field in reads), **params)
    losses.sum().backward()
    assert losses.isfinite().all()
    assert (losses >= -1e-30).all()
    for field in reads:
        if leaves[field].grad is not None:
            assert leaves[field].grad.isfinite().all()


@pytest.mark.parametrize("name", ["focal", "cap", "tofu"])
def test_what_limits_confidence_lets_go_of_a_certain_token(name: str) -> None:
    params = {"focal": {"gamma": 2.0}, "cap": {"max_probability": 0.9}, "tofu": {"gamma": 2.0, "temperature": 1.0}}
    logps = certain(-1e-8, -20.0).requires_grad_()
    function = TOKEN_OBJECTIVES[name]
    losses = function(logps, logps, **params[name]) if name == "tofu" else function(logps, **params[name])
    (gradient,) = torch.autograd.grad(losses.sum(), logps)
    assert abs(gradient[0]) < 1e-6
    assert gradient[1] == pytest.approx(-1, abs=1e-6)


def test_raw_logits_far_apart_stay_finite() -> None:
    """Through the logits too: a target that is certain, and one that is out of the question, in float32."""
    for name, _, params in REFERENCES:
        logits = torch.zeros(2, VOCABULARY)
        logits[:, 0] = 80.0
        logits.requires_grad_()
        losses = evaluate(name, params, logits, torch.tensor([0, 1]))
        losses.sum().backward()
        assert losses.isfinite().all(), name
        assert logits.grad.isfinite().all(), name


# ---- Whole answers ----


def answer_logps(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the log-probability of ten answers of four tokens each, (10,)."""
    return target_logps(logits, targets).view(10, 4).sum(-1)


def test_coverage_of_an_answer_is_its_definition(logits, targets) -> None:
    n = 50.0
    losses = SEQUENCE_OBJECTIVES["coverage"](answer_logps(logits, targets), n)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    with torch.no_grad():
        _, token_p, token_gradient = of_p(logits, targets)
        p = token_p.view(10, 4).prod(-1)
        covered = -torch.expm1(n * torch.log1p(-p))
        factor = n * p * (1 - p) ** (n - 1) / covered
    torch.testing.assert_close(losses, -covered.log(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradient, factor.repeat_interleave(4)[:, None] * token_gradient, rtol=1e-9, atol=1e-12)
    assert factor.min() < 0.1 < 0.9 < factor.max()  # some answers are gated, some are not


def test_gate_on_an_answer_is_its_definition(logits, targets) -> None:
    logps = answer_logps(logits, targets)
    threshold = logps.exp().median().item()
    losses = SEQUENCE_OBJECTIVES["gate"](logps, max_probability=threshold * 1.001)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    with torch.no_grad():
        _, token_p, token_gradient = of_p(logits, targets)
        p = token_p.view(10, 4).prod(-1)
        is_live = p < threshold * 1.001
    assert is_live.sum() == 5
    torch.testing.assert_close(losses, torch.where(is_live, -p.log(), -math.log(threshold * 1.001)))
    torch.testing.assert_close(gradient, is_live.repeat_interleave(4)[:, None] * token_gradient, rtol=1e-9, atol=1e-12)


def test_sequence_objectives_are_all_tested_here() -> None:
    assert set(SEQUENCE_OBJECTIVES) == {"coverage", "gate"}
