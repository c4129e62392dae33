"""The reference speaks once: what it said is stored, found again, refused where it is of another, never the policy."""

import json
import shutil

import pytest
import torch
from datasets import Dataset
from dpo_helpers import make_dpo_trainer, pairs, sampled_pairs, trained_dpo
from helpers import history, same_weights

from trl_math.cli.train import finish
from trl_math.errors import DataError, UsageError
from trl_math.models.tiny import save_tiny, tiny_model
from trl_math.trainers import MathDPOTrainer
from trl_math.trainers.dpo_references import pair_key
from trl_math.trainers.dpo_trainer import reference_pass


@pytest.fixture
def stored(tmp_path):
    """Settings that keep the reference's log-probabilities in a file."""
    return {
        "model": str(save_tiny(tmp_path / "model")),
        "model_init_kwargs": {"dtype": "float32"},
        "precompute_ref_log_probs": True,
        "reference_file": str(tmp_path / "references.logps"),
    }


@pytest.fixture
def passes(monkeypatch):
    """The number of rows of each reference pass."""
    sizes = []

    def counted(dataset, *args):
        sizes.append(len(dataset))
        return reference_pass(dataset, *args)

    monkeypatch.setattr("trl_math.trainers.dpo_trainer.reference_pass", counted)
    return sizes


def known(path):
    """What a file has, by pair."""
    return {row["pair"]: row for row in map(json.loads, path.read_text().splitlines()[1:])}


def lora(**changes):
    from peft import LoraConfig

    return LoraConfig(r=4, target_modules="all-linear", **changes)


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "LoRA"])
def test_a_stored_reference_is_the_reference(tmp_path, stored, passes, adapter):
    """A run that makes the file, one that reads it and one with a reference model in memory are one run."""

    def train(name, **settings):
        extra = {"peft_config": lora()} if adapter else {}
        return trained_dpo(tmp_path / name, sampled_pairs(), eval_dataset=sampled_pairs(5), **extra, **settings)

    made, read = train("a", **stored), train("b", **stored)
    assert passes == [16]  # the evaluation pairs are among the training pairs
    assert history(made) == history(read) and same_weights(made, read)
    assert read.ref_model is None
    plain = train("c", model=stored["model"], model_init_kwargs={"dtype": "float32"})
    assert history(read) == [pytest.approx(row, rel=1e-5) for row in history(plain)]


def test_rows_are_found_wherever_they_stand(tmp_path, stored, passes):
    """Shuffled rows and parts of them need no pass; new and changed rows, other masks and other cuts need theirs."""
    rows = sampled_pairs(8).to_list()
    make_dpo_trainer(tmp_path / "a", Dataset.from_list(rows), **stored)
    make_dpo_trainer(tmp_path / "b", Dataset.from_list(rows[::-2]), **stored)
    assert passes == [8]
    rows[2]["chosen_mask"] = [*rows[2]["chosen_mask"][:-1], 1 - rows[2]["chosen_mask"][-1]]
    rows[5]["prompt_ids"] = rows[5]["prompt_ids"][1:]
    trainer = make_dpo_trainer(tmp_path / "c", Dataset.from_list(rows), **stored)
    assert passes == [8, 2]
    make_dpo_trainer(tmp_path / "d", Dataset.from_list(rows), max_length=8, max_truncated_fraction=1.0, **stored)
    assert passes[2] > 0
    fresh = stored | {"reference_file": str(tmp_path / "fresh.logps")}
    again = make_dpo_trainer(tmp_path / "e", Dataset.from_list(rows), **fresh)
    expected = again.train_dataset["ref_chosen_logps"]
    assert trainer.train_dataset["ref_chosen_logps"] == pytest.approx(expected, rel=1e-5)


def test_a_key_is_what_the_forward_pass_sees():
    row = {"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [5]}
    others = [
        row | {"prompt_ids": [1], "chosen_ids": [2, 3, 4]},  # the same tokens, another prompt
        row | {"chosen_mask": [1, 0], "rejected_mask": [1]},
        row | {"rejected_ids": [5, 6]},
    ]
    assert len({pair_key(each, None) for each in [row, *others]}) == 4
    assert pair_key(row, None) == pair_key(row | {"chosen_mask": [1, 1], "rejected_mask": [1], "rule": "x"}, 10)
    assert pair_key(row, 3) == pair_key(row | {"chosen_ids": [3, 9]}, 3) != pair_key(row, None)


def test_a_file_of_another_model_is_refused(tmp_path, stored):
    """Also where that model lies in the same folder."""
    make_dpo_trainer(tmp_path / "a", **stored)
    header = json.loads((tmp_path / "references.logps").read_text().splitlines()[0])
    with pytest.raises(DataError) as error:
        make_dpo_trainer(tmp_path / "b", **stored | {"model": str(save_tiny(tmp_path / "other", seed=1))})
    assert f"is of another model ({header['model']} there" in str(error.value)
    shutil.copytree(tmp_path / "other", stored["model"], dirs_exist_ok=True)
    with pytest.raises(DataError, match="of another model"):
        make_dpo_trainer(tmp_path / "b", **stored)
    (tmp_path / "references.logps").write_text('{"format": "trl_math refe')
    with pytest.raises(DataError, match="is no file of reference log-probabilities"):
        make_dpo_trainer(tmp_path / "b", **stored)


def test_each_precision_has_its_own(tmp_path, stored, passes):
    """What float32 said is not taken for what bf16 says; one file keeps both."""
    make_dpo_trainer(tmp_path / "a", sampled_pairs(4), **stored)
    make_dpo_trainer(tmp_path / "b", sampled_pairs(4), **stored, bf16=True)
    make_dpo_trainer(tmp_path / "c", sampled_pairs(4), **stored)
    assert passes == [4, 4]
    assert len((tmp_path / "references.logps").read_text().splitlines()) == 9


def test_models_in_memory_are_known_by_their_weights(tmp_path, passes):
    """Two models of the same weights share a file, with an adapter or without; others do not."""
    file = {"precompute_ref_log_probs": True, "reference_file": str(tmp_path / "references.logps")}
    make_dpo_trainer(tmp_path / "a", model=tiny_model(), **file)
    make_dpo_trainer(tmp_path / "b", model=tiny_model(), peft_config=lora(), **file)
    make_dpo_trainer(tmp_path / "c", model=tiny_model(seed=2), ref_model=tiny_model(), **file)
    assert passes == [16]
    with pytest.raises(DataError, match="of another model"):
        make_dpo_trainer(tmp_path / "d", model=tiny_model(seed=2), **file)


def test_a_pass_that_fails_leaves_no_file(tmp_path, stored, monkeypatch):
    """The file is written whole or not at all."""
    make_dpo_trainer(tmp_path / "a", sampled_pairs(4), **stored)
    before = (tmp_path / "references.logps").read_bytes()

    def fail(*args):
        raise MemoryError

    monkeypatch.setattr(MathDPOTrainer, "compute_ref_log_probs", fail)
    with pytest.raises(MemoryError):
        make_dpo_trainer(tmp_path / "b", sampled_pairs(8), **stored)
    assert (tmp_path / "references.logps").read_bytes() == before
    assert not list(tmp_path.glob("*.part"))


def test_a_resumed_run_never_takes_the_policy_for_the_reference(tmp_path, stored, passes):
    """With the file, and with the file lost: the reference is the model that the run began with."""
    schedules = {"pair_weight": "bell", "beta_schedule": "linear", "anchor": "nll", "learning_rate": 1e-2}
    saving = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, **schedules, **stored}
    whole = trained_dpo(tmp_path / "whole", **saving)
    before = known(tmp_path / "references.logps")
    for name, is_lost in (("kept", False), ("lost", True)):
        folder = tmp_path / name
        shutil.copytree(tmp_path / "whole" / "checkpoint-2", folder / "checkpoint-2")
        if is_lost:
            (tmp_path / "references.logps").unlink()
        trainer = make_dpo_trainer(folder, **saving)
        trainer.train(resume_from_checkpoint=True)
        assert history(trainer) == history(whole)
        assert same_weights(trainer, whole)
    assert passes == [16, 16]
    assert known(tmp_path / "references.logps") == before


def test_rows_that_bring_the_references(tmp_path, passes):
    """Complete columns are used as they are, without a pass; where one value is missing all are computed."""
    first = trained_dpo(tmp_path / "a", precompute_ref_log_probs=True)
    columns = ("ref_chosen_logps", "ref_rejected_logps")
    rows = [
        row | {name: value for name, value in found.items() if name in columns}
        for row, found in zip(pairs().to_list(), first.train_dataset.to_list(), strict=True)
    ]
    again = trained_dpo(tmp_path / "b", Dataset.from_list(rows), precompute_ref_log_probs=True)
    assert history(again) == history(first) and passes == [16]
    rows[4]["ref_chosen_logps"] = None
    trained_dpo(tmp_path / "c", Dataset.from_list(rows), precompute_ref_log_probs=True)
    assert passes == [16, 16]


# ---- The first batch ----


def test_margins_before_the_first_step_stop_the_run(tmp_path):
    """References of another model, in columns that no header guards, are found out; so is an adapter that is not 0."""
    wrong = pairs().add_column("ref_chosen_logps", [-9.0] * 16).add_column("ref_rejected_logps", [-9.0] * 16)
    with pytest.raises(UsageError, match="the reference is not the start model"):
        trained_dpo(tmp_path / "a", wrong, precompute_ref_log_probs=True)
    with pytest.raises(UsageError, match="nats per token away from the reference"):
        trained_dpo(tmp_path / "b", peft_config=lora(init_lora_weights=False))
    trained_dpo(tmp_path / "c", peft_config=lora(init_lora_weights=False), check_reference=False)


def test_what_is_meant_is_not_stopped(tmp_path):
    """Another reference that was given, dropout, and half precision."""
    trained_dpo(tmp_path / "a", model=tiny_model(), ref_model=tiny_model(seed=1))
    trained_dpo(tmp_path / "b", model=tiny_model(attention_dropout=0.3), disable_dropout=False, ref_model=tiny_model())
    trained_dpo(tmp_path / "c", bf16=True, precompute_ref_log_probs=True, precompute_ref_batch_size=7)
    half = tiny_model(dtype=torch.bfloat16)
    trained_dpo(tmp_path / "d", model=half, peft_config=lora(), learning_rate=1e-6)


# ---- The alarm ----


def test_the_alarm(tmp_path, caplog, capsys):
    """Chosen answers that lose are said once, logged, said again when the run ends, and may end training."""
    # Pushing apart by a large step: both answers fall.
    falling = {"learning_rate": 0.05, "max_steps": 6, "warmup_steps": 0}
    trainer = trained_dpo(tmp_path / "a", max_chosen_drop=0.05, **falling)
    drops = [log["drift/chosen_per_token"] for log in trainer.state.log_history if "drift/alarm" in log]
    alarms = [log["drift/alarm"] for log in trainer.state.log_history if "drift/alarm" in log]
    assert min(drops) < -0.05, drops
    assert alarms == [float(drop < -0.05) for drop in drops]
    assert caplog.text.count("nats per token against the reference") == 1
    finish(trainer, tmp_path / "a", {})
    assert capsys.readouterr().out.splitlines()[-1] == f"Warning: {trainer.alarm}"
    ended = trained_dpo(tmp_path / "b", max_chosen_drop=0.05, stop_at_chosen_drop=True, **falling)
    assert ended.state.global_step == 1 + next(index for index, drop in enumerate(drops) if drop < -0.05)
