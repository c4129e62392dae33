"""The loss of an encoder-decoder does not depend on how a step is cut up, and is what full logits say."""

from pathlib import Path

import pytest
import torch
from helpers import history, products, proofs, run_processes, weights
from seq2seq_helpers import make_seq2seq, save_own_head, trained
from test_sft_invariance import accelerate, launch_settings
from torch.nn import functional as F
from transformers import AutoModelForSeq2SeqLM

from trl_math.losses import coverage_nll
from trl_math.models import save_tiny_t5, tiny_t5


OBJECTIVES = {
    "cross-entropy": {},
    "sequence": {"objective": "coverage", "num_attempts": 64},
    "sequence, published reduction": {"objective": "coverage", "num_attempts": 64, "coverage_reduction": "mean"},
    "token": {"objective": "coverage", "num_attempts": 1.5, "coverage_level": "token"},
    "focal": {"objective": "focal"},
    "tempered": {"objective": "tempered"},
    "entropy": {"objective": "entropy_bonus", "objective_params": {"weight": 0.1}},
    "gate": {"objective": "gate", "objective_params": {"max_probability": 1e-9}},
}
STEPS = {
    "step": {"objective": "coverage", "num_attempts": 16, "coverage_level": "step"},
    "step, uniform, mean": {
        "objective": "coverage",
        "num_attempts": 16,
        "coverage_level": "step",
        "coverage_allocation": "uniform",
        "coverage_reduction": "mean",
    },
}


def weighted(num_rows=24):
    return products(num_rows).add_column("weight", [1.0 + index % 3 for index in range(num_rows)])


ALL = {
    **{name: (products, config) for name, config in OBJECTIVES.items()},
    **{name: (proofs, config) for name, config in STEPS.items()},
    "weights": (weighted, {}),
    "weights with coverage": (weighted, OBJECTIVES["sequence"]),
}
DISTRIBUTED = Path(__file__).parent / "distributed" / "seq2seq_once.py"


def close(first, second, tolerance=1e-5):
    return all(a == pytest.approx(b, rel=tolerance) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(("rows", "objective"), ALL.values(), ids=ALL.keys())
def test_accumulation(tmp_path, rows, objective):
    """Batch 1 with 8 accumulation steps is batch 8, in loss, gradient and what is logged."""
    whole = trained(make_seq2seq(tmp_path / "a", rows(16), per_device_train_batch_size=8, **objective))
    steps = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}
    parts = trained(make_seq2seq(tmp_path / "b", rows(16), **steps, **objective))
    assert close(history(whole), history(parts))
    assert history(whole, "num_tokens") == history(parts, "num_tokens")
    logged = [key for key in whole.state.log_history[0] if key.startswith("coverage/")]
    assert bool(logged) == ("num_attempts" in objective)
    assert not logged or close(history(whole, *logged), history(parts, *logged), 1e-4)


def one_step(folder, rows, **objective):
    """The loss and the gradient of one step over all rows."""
    trainer = make_seq2seq(
        folder,
        rows,
        max_steps=1,
        learning_rate=1.0,
        optim="sgd",
        max_grad_norm=0.0,
        per_device_train_batch_size=len(rows),
        **objective,
    )
    before = weights(trainer)
    trainer.train()
    after = weights(trainer)
    return history(trainer, "loss")[0][0], {name: before[name] - after[name] for name in before}


def reference(rows, loss_of_row):
    """The same from one row at a time, through the model's own shift of labels."""
    tokenizer = make_seq2seq("x", rows).processing_class
    model, total, count = tiny_t5(), 0.0, 0
    for row in rows:
        labels = torch.tensor([tokenizer(text_target=row["completion"])["input_ids"]])
        logits = model(input_ids=torch.tensor([tokenizer(row["prompt"])["input_ids"]]), labels=labels).logits[0]
        nll = F.cross_entropy(logits, labels[0], reduction="none")
        total, count = total + loss_of_row(nll, logits, row), count + labels.numel()
    loss = total / count
    loss.backward()
    return loss.item(), {name: weight.grad for name, weight in model.named_parameters()}


REFERENCES = {
    "cross-entropy": lambda nll, logits, row: nll.sum(),
    "sequence": lambda nll, logits, row: coverage_nll(-nll.double().sum(), 64).float(),
    "token": lambda nll, logits, row: coverage_nll(-nll.double(), 1.5).sum().float(),
    "focal": lambda nll, logits, row: ((1 - (-nll).exp()) ** 2 * nll).sum(),
    "entropy": lambda nll, logits, row: (nll + 0.1 * (logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)).sum(),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_losses_are_what_full_logits_say(tmp_path, name):
    """Padding, shift and end token are right: value and gradient agree with a plain computation."""
    rows = products(6)
    loss, gradient = one_step(tmp_path, rows, **OBJECTIVES[name])
    expected, expected_gradient = reference(rows, REFERENCES[name])
    assert loss == pytest.approx(expected, rel=1e-5)
    for key, value in gradient.items():
        torch.testing.assert_close(value, expected_gradient[key], rtol=1e-3, atol=2e-5)


def test_weights_of_rows(tmp_path):
    """A row's weight, over their mean by trained tokens, multiplies its loss."""
    rows = weighted(6)
    loss, gradient = one_step(tmp_path, rows)
    sizes = [len(row["completion"]) + 1 for row in rows]
    mean = sum(size * row["weight"] for size, row in zip(sizes, rows, strict=True)) / sum(sizes)
    expected, expected_gradient = reference(rows, lambda nll, logits, row: nll.sum() * row["weight"] / mean)
    assert loss == pytest.approx(expected, rel=1e-5)
    for key, value in gradient.items():
        torch.testing.assert_close(value, expected_gradient[key], rtol=1e-3, atol=2e-5)


def test_pass_rates_weigh_rows(tmp_path):
    """F(N, p) of a problem's pass rate multiplies its row's cross-entropy: (1-p)^(N-1) here."""
    rates = [0.0, 0.25, 0.5, 0.25, 0.0, 0.5]
    rows = products(6).add_column("pass_rate", rates)
    settings = {"objective": "coverage", "num_attempts": 4, "coverage_from": "pass_rate"}
    loss, _ = one_step(tmp_path, rows, **settings)
    from trl_math.losses import schedule_values

    factors = iter(schedule_values("coverage", rates, {"num_attempts": 4}))
    expected, _ = reference(rows, lambda nll, logits, row: nll.sum() * next(factors))
    assert loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "port"),
    [
        pytest.param("cross-entropy", 29741, marks=pytest.mark.slow),
        pytest.param("step, uniform, mean", 29743, marks=pytest.mark.slow),
    ],
)
def test_two_processes(tmp_path, name, port):
    """Two processes with half the batch each are one process with all of it."""
    rows, objective = ALL[name]
    alone = trained(make_seq2seq(tmp_path / "a", rows(), per_device_train_batch_size=4, **objective))
    launcher = ["torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}"]
    request = {"settings": {"per_device_train_batch_size": 2, **objective}, "dataset": rows.__name__}
    together = run_processes(DISTRIBUTED, launcher, tmp_path / "b", port, **request)
    assert together["num_processes"] == 2
    assert close(history(alone), [tuple(row) for row in together["history"]])
    assert [log["num_tokens"] for log in together["logs"] if "num_tokens" in log] == [
        tokens for (tokens,) in history(alone, "num_tokens")
    ]


HEADS = {"T5's": save_tiny_t5, "Flan-T5's": save_own_head}


@pytest.mark.slow
@pytest.mark.parametrize(("head", "port"), [("T5's", 29745), ("Flan-T5's", 29747)])
def test_zero3(tmp_path, head, port):
    """ZeRO-3 on two processes is plain training, and what it saves is the same model, with the head that it had."""
    model = {"model": str(HEADS[head](tmp_path / "start"))}
    saves = {"save_strategy": "steps", "save_steps": 3}
    alone = trained(make_seq2seq(tmp_path / "a", per_device_train_batch_size=4, **model))
    launcher = accelerate(launch_settings(tmp_path), port)
    request = {"settings": {"per_device_train_batch_size": 2, **saves, **model}, "dataset": "products"}
    together = run_processes(DISTRIBUTED, launcher, tmp_path / "b", port, **request)
    assert together["num_processes"] == 2 and together["cut_up"]
    assert close(history(alone), [tuple(row) for row in together["history"]])
    saved = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "b" / "checkpoint-3")
    assert (saved.lm_head.weight is saved.shared.weight) == (head == "T5's")
    assert saved.config.scale_decoder_outputs == (head == "T5's")
    for name, value in alone.model.state_dict().items():
        torch.testing.assert_close(saved.state_dict()[name], value, rtol=0, atol=2e-4)
