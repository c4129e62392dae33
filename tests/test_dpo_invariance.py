"""The loss of pairs and its gradient do not depend on how an optimiser step is cut up. float32, 1e-5."""

import json
from pathlib import Path

import pytest
from dpo_helpers import make_dpo_trainer, pairs, sampled_pairs, trained_dpo
from helpers import history, run_processes
from test_sft_invariance import accelerate, close, launch_settings, torchrun

from trl_math.models.tiny import save_tiny


SCHEDULED = {
    "pair_weight": "bell",
    "beta_schedule": "linear",
    "margin": 0.2,
    "margin_schedule": "power",
    "displacement_penalty": 2.0,
}
SETTINGS = {
    "neutral": {},
    "schedules": SCHEDULED,
    "token mean": {"loss_type": ["sigmoid", "sft"], "length_normalised": True, "beta": 2.0},
    "anchors": {"loss_type": ["ipo"], "anchor": "coverage", "anchor_attempts": 1e6, "pair_weight": "linear"},
}
DISTRIBUTED = Path(__file__).parent / "distributed" / "dpo_once.py"


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_accumulation(tmp_path, settings):
    """Batch 1 with 4 accumulation steps is batch 4, in TRL's token mean, too."""
    whole = trained_dpo(tmp_path / "a", sampled_pairs(), per_device_train_batch_size=4, **settings)
    parts = trained_dpo(
        tmp_path / "b", sampled_pairs(), per_device_train_batch_size=1, gradient_accumulation_steps=4, **settings
    )
    assert close(history(whole), history(parts))
    means = ("pairs/pass_rate", "drift/chosen_per_token", "length/rejected")
    assert close(history(whole, *means), history(parts, *means), 1e-4)


@pytest.mark.parametrize("settings", [SETTINGS["schedules"], SETTINGS["token mean"]], ids=["schedules", "token mean"])
def test_a_step_of_unequal_parts(tmp_path, settings):
    """At the end of the data the last micro-batch is smaller, and its pairs weigh no more than others."""
    one_step = {"max_steps": 1, **settings}
    whole = trained_dpo(tmp_path / "a", sampled_pairs(5), per_device_train_batch_size=5, **one_step)
    parts = trained_dpo(
        tmp_path / "b", sampled_pairs(5), per_device_train_batch_size=2, gradient_accumulation_steps=3, **one_step
    )
    assert close(history(whole), history(parts))


def test_evaluation_means_do_not_depend_on_the_batch(tmp_path):
    """What is logged of pairs is a mean over pairs or tokens, whatever batches they came in."""
    found = []
    for size in (1, 4, 9):
        trainer = make_dpo_trainer(
            tmp_path / str(size), eval_dataset=pairs(9), per_device_eval_batch_size=size, **SCHEDULED
        )
        metrics = trainer.evaluate()
        found.append([metrics[f"eval_{name}"] for name in ("logps/chosen_per_token", "length/chosen", "pairs/beta")])
    assert found == [pytest.approx(found[0], rel=1e-5)] * 3


def test_schedules_keep_their_means_and_mean_the_same_in_evaluation(tmp_path):
    """Weights average to 1 and betas to beta over the training pairs; evaluation pairs get the same function."""
    trainer = make_dpo_trainer(tmp_path, pairs(16), eval_dataset=pairs(3), beta=0.2, **SCHEDULED)
    train, held_out = trainer.train_dataset, trainer.eval_dataset
    for column, mean in (("loss_weight", 1.0), ("pair_beta", 0.2), ("pair_margin", 0.2)):
        assert sum(train[column]) / 16 == pytest.approx(mean)
        assert held_out[column] == pytest.approx(train[column][:3])


def together_and_alone(tmp_path, launcher, port, settings, **request):
    """Return what two processes logged, and what one did with twice the batch."""
    settings = {"model": str(save_tiny(tmp_path / "model")), "model_init_kwargs": {"dtype": "float32"}, **settings}
    alone = trained_dpo(tmp_path / "alone", sampled_pairs(), per_device_train_batch_size=4, **settings)
    halved = {**settings, "per_device_train_batch_size": 2}
    together = run_processes(DISTRIBUTED, launcher, tmp_path / "together", port, settings=halved, **request)
    assert together["num_processes"] == 2
    return alone, together


def test_two_processes(tmp_path):
    """Two processes with half the batch each are one with all of it."""
    settings = {**SCHEDULED, "loss_type": ["sigmoid", "sft"]}
    alone, together = together_and_alone(tmp_path, torchrun(29731), 29731, settings)
    assert close(history(alone), [tuple(row) for row in together["history"]])
    for name in ("pairs/weight", "drift/chosen_per_token"):
        assert together["logs"][1][name] == pytest.approx(alone.state.log_history[1][name], rel=1e-4)


@pytest.mark.slow
def test_two_processes_make_and_read_a_reference_file(tmp_path):
    """Two processes compute what one does, write it once, and need no pass where another run wrote it."""
    made, read = tmp_path / "made.logps", tmp_path / "read.logps"
    settings = {**SCHEDULED, "precompute_ref_log_probs": True, "reference_file": str(read)}
    alone, together = together_and_alone(tmp_path, torchrun(29733), 29733, settings)
    assert close(history(alone), [tuple(row) for row in together["history"]])
    settings["reference_file"] = str(made)
    settings |= {"model": str(tmp_path / "model"), "model_init_kwargs": {"dtype": "float32"}}
    again = run_processes(
        DISTRIBUTED,
        torchrun(29734),
        tmp_path / "again",
        29734,
        settings={**settings, "per_device_train_batch_size": 2},
    )
    assert close([tuple(row) for row in again["history"]], history(alone))
    assert len(made.read_text().splitlines()) == len(read.read_text().splitlines()) == 17


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "port", "settings"),
    [
        (3, 29735, {**SCHEDULED, "loss_type": ["sigmoid", "sft"]}),
        (3, 29737, {**SCHEDULED, "precompute_ref_log_probs": True, "reference_file": "references.logps"}),
        (2, 29739, SCHEDULED),
    ],
    ids=["zero3", "zero3, stored references", "zero2"],
)
def test_zero(tmp_path, stage, port, settings):
    """ZeRO-3 and ZeRO-2 on two processes are plain training, with a reference model and with stored references."""
    if "reference_file" in settings:  # each makes its own
        settings = settings | {"reference_file": str(tmp_path / "alone.logps")}
    changes = {"zero_stage": stage} | ({"zero3_init_flag": False} if stage == 2 else {})
    launcher = accelerate(launch_settings(tmp_path, **changes), port)
    settings = {"model": str(save_tiny(tmp_path / "model")), "model_init_kwargs": {"dtype": "float32"}, **settings}
    alone = trained_dpo(tmp_path / "alone", sampled_pairs(), per_device_train_batch_size=4, **settings)
    if "reference_file" in settings:
        settings["reference_file"] = str(tmp_path / "together.logps")
    settings["per_device_train_batch_size"] = 2
    together = run_processes(DISTRIBUTED, launcher, tmp_path / "together", port, settings=settings)
    assert together["num_processes"] == 2 and "DEEPSPEED" in together["distributed"]
    assert close(history(alone), [tuple(row) for row in together["history"]])
    if "reference_file" in settings:
        _, *mine = map(json.loads, (tmp_path / "together.logps").open())
        _, *theirs = map(json.loads, (tmp_path / "alone.logps").open())
        known = {line["pair"]: line["chosen"] for line in theirs}
        assert len(mine) == len(theirs) == 16
        assert all(line["chosen"] == pytest.approx(known[line["pair"]], abs=1e-4) for line in mine)
