"""Screening and refill: every step is full of live examples, no example is lost, and a stopped run goes on exactly."""

import json
import math

import pytest
from helpers import history, make_trainer, products, proofs, same_weights, trained
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_math.trainers.refill import RefillLoader, RefillState, StepShape


# F of a fresh tiny model is almost 1, so a large N and a threshold close to 1 tell its rows apart.
REFILL = {"objective": "coverage", "num_attempts": 1e8, "min_coverage_weight": 0.99999999}


def loader(num_rows, shape, is_live, max_passes=math.inf):
    """A loader over row numbers with a given answer to which rows are live."""
    return RefillLoader(
        dataset=range(num_rows),
        shape=shape,
        score=lambda rows: [1.0 if is_live(row) else 0.0 for row in rows],
        collate=lambda rows: rows,
        threshold=0.5,
        seed=0,
        max_passes=max_passes,
    )


def epoch(rows):
    return [row for micro_batch in rows for row in micro_batch]


@given(
    num_rows=st.integers(1, 40),
    micro_batch=st.integers(1, 4),
    accumulation=st.integers(1, 3),
    live=st.integers(1, 5),
    passes=st.integers(1, 4),
)
@settings(deadline=None, max_examples=200)
def test_every_live_example_is_seen_once_a_pass(num_rows, micro_batch, accumulation, live, passes):
    """Over all epochs: full steps only, and trained + waiting = survivors = live rows x passes."""
    shape = StepShape(micro_batch, accumulation, 1, 0)
    batches = loader(num_rows, shape, lambda row: row % live == 0, passes)
    seen = []
    for _ in range(passes):
        rows = list(batches)
        assert len(rows) % accumulation == 0
        assert len(rows) <= len(batches)
        assert all(len(row) == micro_batch for row in rows)
        seen += epoch(rows)
    survivors = sorted([row for row in range(num_rows) if row % live == 0] * passes)
    if batches.state.passes == passes:
        assert sorted(seen + batches.state.queue) == survivors
    assert batches.state.num_screened == num_rows * batches.state.passes + batches.state.cursor
    assert all(row % live == 0 for row in seen)


def test_without_discards_an_epoch_is_the_data_set():
    """Where nothing is discarded every row is trained once in each pass, in a new order."""
    batches = loader(12, StepShape(2, 2, 1, 0), lambda row: True)
    first, second = epoch(batches), epoch(batches)
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second


def test_processes_share_one_queue():
    """Two processes train disjoint halves of every step of the same queue."""
    alone = epoch(loader(20, StepShape(4, 1, 1, 0), lambda row: row % 3 > 0))
    halves = [list(loader(20, StepShape(2, 1, 2, rank), lambda row: row % 3 > 0)) for rank in (0, 1)]
    assert [row for pair in zip(*halves, strict=True) for half in pair for row in half] == alone


def test_nothing_alive_ends_training(caplog):
    """If no example is above the threshold the epoch is empty and says so."""
    assert list(loader(10, StepShape(2, 1, 1, 0), lambda row: False)) == []
    assert "nothing more to train on" in caplog.text


def test_fewer_live_than_a_batch_take_several_passes():
    """Three live rows fill a batch of eight in three passes, as one epoch."""
    batches = loader(10, StepShape(8, 1, 1, 0), lambda row: row < 3)
    assert sorted(epoch(batches)) == [0, 0, 0, 1, 1, 1, 2, 2] or len(epoch(batches)) == 8
    assert batches.state.passes >= 3


def test_a_step_has_its_full_number_of_live_examples(tmp_path):
    """Trained rows are above the threshold under the weights they were screened with, and every batch is full."""
    trainer = make_trainer(tmp_path, products(40), gradient_accumulation_steps=2, max_steps=4, **REFILL)
    sizes = []
    original = trainer.get_batch_samples

    def recorded(*args):
        samples, count = original(*args)
        if samples:
            sizes.append([len(batch["input_ids"]) for batch in samples])
        return samples, count

    trainer.get_batch_samples = recorded
    trainer.train()
    assert sizes == [[4, 4]] * 4
    state = trainer._refill.state
    assert state.num_discarded > 0
    assert state.num_screened == 40 * state.passes + state.cursor
    assert state.num_screened - state.num_discarded == 4 * 8 + len(state.queue)
    logged = [log["coverage/num_discarded"] for log in trainer.state.log_history if "coverage/num_discarded" in log]
    assert logged[-1] == state.num_discarded
    assert trainer.state.log_history[0]["coverage/live_fraction"] == 1.0
    assert trainer.state.epoch == pytest.approx(trainer._refill.progress)


def test_epochs_count_passes_over_the_data(tmp_path):
    """`num_train_epochs: 3` screens every row three times, however few are left to train on."""
    trainer = trained(tmp_path, products(20), max_steps=-1, num_train_epochs=3, **REFILL)
    assert trainer._refill.state.num_screened == 60
    assert trainer.state.epoch == 3.0
    assert trainer.state.global_step == (60 - trainer._refill.state.num_discarded) // 4


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 6])
def test_resume_is_exact(tmp_path, steps):
    """k steps, resume, the rest: the same bits as without the stop, queue included."""
    changes = {"max_steps": 8, "save_strategy": "steps", "save_steps": 1, "gradient_accumulation_steps": 2, **REFILL}
    whole = trained(tmp_path / "whole", products(21), **changes)
    again = make_trainer(tmp_path / "again", products(21), **changes)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{steps}"))
    assert history(again)[-3:] == history(whole)[-3:]
    assert same_weights(whole, again)
    assert again._refill.state == whole._refill.state


def test_epochs_that_discard_nothing(tmp_path):
    """Three walks are three epochs, also where an epoch has all the steps that it can have."""
    trainer = trained(
        tmp_path,
        products(22),
        max_steps=-1,
        num_train_epochs=3,
        **{**REFILL, "num_attempts": 2, "min_coverage_weight": 0.1},
    )
    state = trainer._refill.state
    assert state.num_discarded == 0
    assert (state.passes, trainer.state.epoch, trainer.state.global_step) == (3, 3.0, 16)


def test_resume_keeps_epoch_events(tmp_path):
    """A stop at the end of a pass resumes with the next epoch: evaluation per epoch happens as often."""
    changes = {"max_steps": -1, "num_train_epochs": 3, "save_strategy": "epoch", "eval_strategy": "epoch", **REFILL}
    whole = trained(tmp_path / "whole", products(20), eval_dataset=products(4), **changes)
    first = sorted((tmp_path / "whole").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))[0]
    again = make_trainer(tmp_path / "again", products(20), eval_dataset=products(4), **changes)
    again.train(resume_from_checkpoint=str(first))
    evaluations = [[log["eval_loss"] for log in t.state.log_history if "eval_loss" in log] for t in (whole, again)]
    assert evaluations[0] == evaluations[1]
    assert len(evaluations[0]) == 3
    assert same_weights(whole, again)


def test_state_survives_json():
    """What a checkpoint holds is the whole state."""
    state = RefillState(passes=2, cursor=5, epoch=1, queue=[3, 1], num_screened=25, num_discarded=7)
    assert RefillState(**json.loads(json.dumps(state.__dict__))) == state


@pytest.mark.parametrize("level", ["step", "token"])
def test_screening_at_other_levels(tmp_path, level):
    """A row is dead only when all of its steps (or tokens) are."""
    trainer = make_trainer(
        tmp_path, proofs(12), objective="coverage", num_attempts=1e6, coverage_level=level, min_coverage_weight=0.5
    )
    trainer.get_train_dataloader()
    weights = trainer._score_rows(list(range(12)))
    assert len(weights) == 12
    assert all(0 <= weight <= 1 for weight in weights)


def test_screening_is_the_weight_of_training(tmp_path):
    """F by screening equals F(N, p) of the row's summed log-probability, whatever the layout of the batch."""
    from trl_math.losses import coverage_weight

    for layout in ({}, {"padding_free": True, "max_length": None}):
        trainer = make_trainer(
            tmp_path,
            products(9),
            objective="coverage",
            num_attempts=1e7,
            min_coverage_weight=0.1,
            per_device_eval_batch_size=4,
            **layout,
        )
        trainer.get_train_dataloader()
        weights = trainer._score_rows(list(range(9)))
        for row, weight in enumerate(weights):
            batch = trainer.data_collator([trainer._refill.dataset[row]])
            trainer.model.eval()
            logps = trainer.model(**batch, fused_lm_head=True).log_probs.double().sum()
            assert weight == pytest.approx(coverage_weight(logps, 1e7).item(), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "port"), [("processes", 29721), ("zero-3", 29723)])
def test_refill_on_two_processes(tmp_path, kind, port):
    """Two processes screen different slices of one queue: the same steps as one process, resume included."""
    from helpers import run_processes
    from test_sft_invariance import DISTRIBUTED, accelerate, close, launch_settings, torchrun

    changes = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, **REFILL, "min_coverage_weight": 0.9999999}
    alone = trained(tmp_path / "alone", per_device_train_batch_size=4, **changes)
    launcher = torchrun(port) if kind == "processes" else accelerate(launch_settings(tmp_path), port)
    request = {"settings": {"per_device_train_batch_size": 2, **changes}}
    together = run_processes(DISTRIBUTED, launcher, tmp_path / "two", port, **request)
    assert together["num_processes"] == 2
    assert together["refill"] == alone._refill.state.__dict__
    assert close(history(alone), [tuple(row) for row in together["history"]])
    checkpoint = str(tmp_path / "two" / "checkpoint-3")
    resumed = run_processes(DISTRIBUTED, launcher, tmp_path / "resumed", port + 1, resume=checkpoint, **request)
    assert resumed["refill"] == together["refill"]
    assert resumed["history"][-3:] == together["history"][-3:]
