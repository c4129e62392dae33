"""Each loss of MathDPOTrainer against one that is written out here from full logits in float64, gradients included."""

import copy
import math

import pytest
import torch
from dpo_helpers import first_loss, make_dpo_trainer, sampled_pairs

from trl_math.losses import DIFFICULTY_SCHEDULES
from trl_math.models.tiny import tiny_model


# ---- The reference ----


def log(x):
    return torch.log(torch.as_tensor(x, dtype=torch.float64))


def sigma(x):
    return 1 / (1 + torch.exp(-x))


def answer_logp(model, row, answer):
    """log p of the trained tokens of one answer, and how many they are."""
    ids = torch.tensor([row["prompt_ids"] + row[f"{answer}_ids"]])
    logps = torch.log_softmax(model(ids).logits[0], dim=-1)
    start, total, count = len(row["prompt_ids"]), 0.0, 0
    for offset, token in enumerate(row[f"{answer}_ids"]):
        if row.get(f"{answer}_mask", [1] * 99)[offset]:
            total, count = total + logps[start + offset - 1, token], count + 1
    return total, count


def coverage(logp, attempts):
    return -log1mexp(attempts * log1mexp(logp))


def log1mexp(x):
    return torch.log1p(-torch.exp(x))


def pair_terms(kind, z, delta, beta, margin, smoothing):
    if kind in ("sigmoid", "sigmoid_norm"):
        return -(1 - smoothing) * log(sigma(z)) - smoothing * log(sigma(-z))
    if kind == "robust":
        return (-(1 - smoothing) * log(sigma(z)) + smoothing * log(sigma(-z))) / (1 - 2 * smoothing)
    if kind == "hinge":
        return torch.clamp(1 - z, min=0)
    if kind == "ipo":
        return (delta - (margin + 0.5) / beta) ** 2
    if kind == "exo_pair":
        q = torch.stack([sigma(z), sigma(-z)])
        return (q * (log(q) - log([1 - smoothing, smoothing]))).sum()
    assert kind == "discopop"
    share = sigma(z / 0.05)
    return (1 - share) * -log(sigma(z)) + share * torch.exp(-z)


def reference_loss(policy, reference, rows, numbers, **settings):
    """The loss of `rows`, whose weight, beta and margin are in `numbers`."""
    kinds = settings.get("loss_type", ["sigmoid"])
    shares = settings.get("loss_weights", [1.0] * len(kinds))
    smoothing, penalty = settings.get("label_smoothing", 0.0), settings.get("displacement_penalty", 0.0)
    total, token_sum, num_tokens = 0.0, 0.0, 0
    for row, (weight, beta, margin) in zip(rows, numbers, strict=True):
        (chosen, num_chosen), (rejected, num_rejected) = (answer_logp(policy, row, a) for a in ("chosen", "rejected"))
        with torch.no_grad():
            ref_chosen, ref_rejected = (answer_logp(reference, row, a)[0] for a in ("chosen", "rejected"))
        loss = 0.0
        for kind, share in zip(kinds, shares, strict=True):
            if kind == "sft":
                token_sum, num_tokens = token_sum - share * weight * chosen, num_tokens + num_chosen
                continue
            is_normal = kind in ("ipo", "sigmoid_norm") or settings.get("length_normalised")
            sizes = (num_chosen, num_rejected) if is_normal else (1, 1)
            ratio = (chosen - ref_chosen) / sizes[0]
            delta = ratio - (rejected - ref_rejected) / sizes[1] - penalty * torch.clamp(-ratio, min=0)
            loss = loss + share * pair_terms(kind, beta * delta - margin, delta, beta, margin, smoothing)
        loss = loss + settings.get("anchor_weight", 1.0) * anchor_term(chosen, num_chosen, row, settings)
        total = total + weight * loss / len(rows)
    return total + (token_sum / num_tokens if num_tokens else 0.0)


def anchor_term(chosen, num_chosen, row, settings):
    kind, attempts = settings.get("anchor", "none"), settings.get("anchor_attempts")
    if kind == "nll":
        return -chosen / num_chosen
    if kind == "coverage":
        return coverage(chosen, attempts) / num_chosen
    if kind == "coverage_pass_rate":
        p = row["pass_rate"]
        weight = attempts * p * (1 - p) ** (attempts - 1) / (1 - (1 - p) ** attempts)
        return weight * -chosen / num_chosen
    return 0.0


def expected_numbers(rows, settings):
    """Weight, beta and margin of each row: schedule times value, means kept."""
    schedules = {
        "linear": lambda p: 1 - p,
        "bell": lambda p: 4 * p * (1 - p),
        "power": lambda p: (1 - p) ** 3,
        "coverage": lambda p: 8 * p * (1 - p) ** 7 / (1 - (1 - p) ** 8),
        "uniform": lambda p: 1.0,
    }
    own = {"pair_weight": [row.get("weight", 1.0) for row in rows]}
    values = {
        "pair_weight": 1.0,
        "beta_schedule": settings.get("beta", 0.1),
        "margin_schedule": settings.get("margin", 0),
    }
    columns = []
    for key, value in values.items():
        shape = schedules[settings.get(key, "uniform")]
        raw = [shape(row["pass_rate"]) * w for row, w in zip(rows, own.get(key, [1.0] * len(rows)), strict=True)]
        columns.append([value * part * len(raw) / sum(raw) for part in raw])
    return list(zip(*columns, strict=True))


# ---- The cases ----

SCHEDULES = {
    "pair_weight": "coverage",
    "pair_weight_params": {"num_attempts": 8},
    "beta_schedule": "linear",
    "margin": 0.3,
    "margin_schedule": "power",
    "margin_schedule_params": {"gamma": 3},
}
CASES = {
    "weights": {"pair_weight": "bell"},
    "schedules": SCHEDULES,
    "margin": {"margin": 0.5},
    "hinge": {"loss_type": ["hinge"], **SCHEDULES},
    "ipo": {"loss_type": ["ipo"], **SCHEDULES},
    "robust": {"loss_type": ["robust"], "label_smoothing": 0.1, **SCHEDULES},
    "conservative": {"label_smoothing": 0.1},
    "exo": {"loss_type": ["exo_pair"], "label_smoothing": 1e-3, "margin": 0.1},
    "discopop": {"loss_type": ["discopop"], "margin": 0.1},
    "per token": {"length_normalised": True, "beta": 2.0},
    "sigmoid_norm": {"loss_type": ["sigmoid_norm"], "margin": 0.1, "beta": 2.0},
    "displacement": {"displacement_penalty": 5.0},
    "displacement per token": {"displacement_penalty": 5.0, "length_normalised": True},
    "nll anchor": {"anchor": "nll", "anchor_weight": 0.7},
    "coverage anchor": {"anchor": "coverage", "anchor_attempts": 1e8},
    "coverage of the pass rate": {"anchor": "coverage_pass_rate", "anchor_attempts": 6},
    "several": {
        "loss_type": ["sigmoid", "ipo", "sft"],
        "loss_weights": [0.8, 0.1, 0.5],
        "anchor": "coverage",
        "anchor_attempts": 4,
        "displacement_penalty": 2.0,
        **SCHEDULES,
    },
}


@pytest.fixture(scope="module")
def models():
    """A policy and another reference, and both in float64."""
    pair = tiny_model(seed=0), tiny_model(seed=3)
    return pair, [copy.deepcopy(model).double() for model in pair]


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES.keys())
def test_loss_and_gradient(tmp_path, models, settings):
    """On token ids with loss masks, against another reference, for the rows of one batch."""
    (policy, reference), (wide_policy, wide_reference) = models
    policy.zero_grad(), wide_policy.zero_grad()
    rows = sampled_pairs(4).to_list()
    trainer = make_dpo_trainer(
        tmp_path, sampled_pairs(4), model=policy, ref_model=reference, train_sampling_strategy="sequential", **settings
    )
    loss = first_loss(trainer)
    loss.backward()
    expected = reference_loss(wide_policy, wide_reference, rows, expected_numbers(rows, settings), **settings)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    scale = max(parameter.grad.abs().max() for parameter in wide_policy.parameters())
    for (name, mine), other in zip(policy.named_parameters(), wide_policy.parameters(), strict=True):
        assert torch.allclose(mine.grad.double(), other.grad, rtol=1e-3, atol=1e-5 * scale), name


def test_weights_of_rows_multiply_the_schedule(tmp_path, models):
    """A column `weight` counts by itself, and times `pair_weight`."""
    (policy, reference), (wide_policy, wide_reference) = models
    rows = [row | {"weight": 1.0 + index} for index, row in enumerate(sampled_pairs(4).to_list())]
    for settings in ({}, {"pair_weight": "linear"}):
        trainer = make_dpo_trainer(
            tmp_path,
            sampled_pairs(4).add_column("weight", [row["weight"] for row in rows]),
            model=policy,
            ref_model=reference,
            **settings,
        )
        expected = reference_loss(wide_policy, wide_reference, rows, expected_numbers(rows, settings), **settings)
        assert first_loss(trainer).item() == pytest.approx(expected.item(), rel=1e-5)


def test_ours_is_trls_where_they_meet(tmp_path, models):
    """What TRL computes too, ours computes alike: its normalised sigmoid, and a zero margin by another way."""
    (policy, reference), _ = models

    def loss(**settings):
        trainer = make_dpo_trainer(tmp_path, model=policy, ref_model=reference, **settings)
        return first_loss(trainer).item()

    assert loss(length_normalised=True) == loss(loss_type=["sigmoid_norm"])
    assert loss(anchor="coverage", anchor_attempts=1) == loss(anchor="nll")
    trl_types = ["sigmoid", "hinge", "ipo", "robust", "discopop"]
    for kind in trl_types:
        # So small a penalty that only the code that runs is another one.
        ours = loss(loss_type=[kind], displacement_penalty=1e-12)
        assert ours == pytest.approx(loss(loss_type=[kind]), rel=1e-6)


def test_masked_tokens_get_no_gradient_and_count_nowhere(tmp_path, models):
    """The output of a tool may say anything: as a target it changes nothing, at neutral settings, too."""
    (policy, reference), _ = models
    rows = sampled_pairs(4).to_list()
    outside = [
        [id for id, kept in zip(row["chosen_ids"], row["chosen_mask"], strict=True) if not kept] for row in rows
    ]
    assert any(outside)
    trainer = make_dpo_trainer(tmp_path, sampled_pairs(4), model=policy, ref_model=reference)
    batch = next(iter(trainer.get_train_dataloader()))
    kept = sum(sum(row["chosen_mask"]) + sum(row["rejected_mask"]) for row in rows)
    assert batch["completion_mask"].sum() == kept
    wide = copy.deepcopy(policy).double(), copy.deepcopy(reference).double()
    expected = reference_loss(*wide, rows, [(1.0, 0.1, 0.0)] * 4)
    assert first_loss(trainer, batch).item() == pytest.approx(expected.item(), rel=1e-5)


# ---- Schedules ----


@pytest.mark.parametrize(
    ("name", "params", "expected"),
    [
        ("uniform", {}, lambda p: 1.0),
        ("linear", {}, lambda p: 1 - p),
        ("power", {"gamma": 0.5}, lambda p: math.sqrt(1 - p)),
        ("bell", {}, lambda p: 4 * p * (1 - p)),
        ("focal", {"gamma": 2}, lambda p: (1 - p) ** 2 - 2 * p * (1 - p) * math.log(p) if p > 0 else 1.0),
        ("coverage", {"num_attempts": 16}, lambda p: 16 * p * (1 - p) ** 15 / (1 - (1 - p) ** 16) if p > 0 else 1.0),
        ("band", {"min_pass_rate": 0.25, "max_pass_rate": 0.5}, lambda p: float(0.25 <= p <= 0.5)),
    ],
)
def test_schedules(name, params, expected):
    """Values on a grid that has both ends, none of them NaN."""
    rates = torch.linspace(0, 1, 9)
    values = DIFFICULTY_SCHEDULES[name](rates, **params)
    assert values.dtype == torch.float64
    assert values.tolist() == pytest.approx([expected(p) for p in rates.tolist()], abs=1e-9)
