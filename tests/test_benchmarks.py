"""The benchmarks run and print their figure; how large it is, is not tested here."""

import re
import sys
from pathlib import Path

import pytest
import torch


@pytest.fixture
def sft_step(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import sft_step

    yield sft_step
    del sys.modules["sft_step"]


@pytest.mark.slow
def test_sft_step_prints_its_figure_last(sft_step, capsys) -> None:
    sft_step.main(["--quick"])
    lines = capsys.readouterr().out.splitlines()
    number = r"\d+\.\d{3}"
    times, memory = rf"time {number}x \({number}\.\.{number}\)", rf"peak memory {number}x of TRL"
    assert re.fullmatch(rf"sft step: {times}, {memory} \(worst of 8 settings: .*; 2 pairs each\); .+", lines[-1])
    settings = [line.split()[:2] for line in lines if " ours " in line]
    assert settings == [[name, layout] for layout in ("padded", "packed") for name in sft_step.OBJECTIVES]


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_sft_step_compares_with_the_same_loss_on_full_logits(sft_step, tmp_path, layout: str) -> None:
    trainer = sft_step.make_trainer(str(tmp_path), sft_step.QUICK, layout, sft_step.COVERAGE, "cpu")
    batch = sft_step.first_batch(trainer)
    gradients = []
    for forward_backward in (trainer.training_step, sft_step.naive_coverage_step(trainer)):
        samples, num_items = trainer.get_batch_samples(iter([dict(batch)]), 1, trainer.args.device)
        forward_backward(trainer.model_wrapped, samples[0], num_items)
        gradients.append([parameter.grad.clone() for parameter in trainer.model.parameters()])
        trainer.model_wrapped.zero_grad()
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)


def test_bootstrap_interval_of_a_median(sft_step) -> None:
    assert sft_step.median_interval([2.0] * 9) == (2.0, 2.0, 2.0)
    median, low, high = sft_step.median_interval([float(value) for value in range(101)])
    assert median == 50
    assert 30 < low < 50 < high < 70


def test_peak_memory_on_the_cpu_is_the_largest_sum_held_at_once(sft_step) -> None:
    def step() -> None:
        for _ in range(3):
            first = torch.empty(1000, 250)  # 1 MB
            second = first.exp()  # and another
            del first, second

    assert sft_step.peak_bytes(step, "cpu") == pytest.approx(2e6, rel=0.01)
