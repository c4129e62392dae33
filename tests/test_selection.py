"""The best epoch is chosen on a validation split, by generated answers or loss, for both kinds of students."""

import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from helpers import make_trainer
from seq2seq_helpers import make_seq2seq

from trl_math.cli.main import main
from trl_math.preflight import is_test_split


# Twenty optimiser steps of the right answer, twenty of a wrong one.
ROWS = [{"prompt": f"{i}=", "completion": "7" if i < 80 else "8"} for i in range(160)]
CHOOSES_BEST = {
    "max_steps": 40,
    "train_sampling_strategy": "sequential",
    "eval_strategy": "steps",
    "eval_steps": 10,
    "save_strategy": "steps",
    "save_steps": 10,
    "load_best_model_at_end": True,
}
GENERATED = {
    "metric_for_best_model": "eval_pass@1",
    "eval_generation_split": "validation",
    "eval_generation_prompt_style": "plain",
    "eval_generation_samples": 4,
    "eval_generation_max_tokens": 4,
}
STUDENTS = {"decoder": (make_trainer, 3e-3), "encoder-decoder": (make_seq2seq, 1e-2)}


@pytest.fixture
def validation(tmp_path):
    """A folder of splits whose validation problems have the answer 7, and whose test problems have 8."""
    folder = tmp_path / "split"
    folder.mkdir()
    for split, answer in (("train", "7"), ("validation", "7"), ("test", "8")):
        rows = [{"problem_id": f"{split}{i}", "problem": f"{i}=", "answer": answer} for i in range(200, 206)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def evaluations(trainer, name):
    return [(log["step"], log[name]) for log in trainer.state.log_history if name in log]


def saved_weights(folder, name):
    from safetensors.torch import load_file

    return load_file(folder / name / "model.safetensors")


@pytest.mark.parametrize("student", STUDENTS)
def test_the_epoch_chosen_is_the_best_of_validation(student, tmp_path, validation):
    """By what the model answers: neither the last epoch, which is the test problems' best, nor the first."""
    make, rate = STUDENTS[student]
    out = tmp_path / "out"
    rows = Dataset.from_list(ROWS)
    settings = {**CHOOSES_BEST, **GENERATED, "learning_rate": rate, "eval_generation_data": str(validation)}
    trainer = make(out, rows, eval_dataset=rows.select(range(4)), **settings)
    trainer.train()
    found = evaluations(trainer, "eval_pass@1")
    assert [step for step, _ in found] == [10, 20, 30, 40]
    best_step, best = max(found, key=lambda pair: pair[1])
    assert best_step == 20 and best > 0.5 > found[-1][1]
    assert trainer.state.best_metric == best
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-20")
    saved = saved_weights(out, "checkpoint-20")
    state = trainer.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in saved.items())
    summary = json.loads((out / "eval_samples" / "summary.json").read_text())
    assert [entry["step"] for entry in summary["evaluations"]] == [10, 20, 30, 40]


@pytest.mark.parametrize("student", STUDENTS)
def test_the_epoch_chosen_by_loss(student, tmp_path):
    """The same by the loss on validation rows."""
    make, rate = STUDENTS[student]
    rows = Dataset.from_list(ROWS)
    settings = {**CHOOSES_BEST, "learning_rate": rate}
    trainer = make(tmp_path / "out", rows, eval_dataset=rows.select(range(4)), **settings)
    trainer.train()
    found = evaluations(trainer, "eval_loss")
    best_step, best = min(found, key=lambda pair: pair[1])
    assert best_step == 20 and trainer.state.best_metric == best
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-20")


@pytest.mark.parametrize("student", STUDENTS)
def test_asking_needs_no_rows(student, tmp_path, validation):
    """Without evaluation rows the same epoch is chosen; a loss that decides is refused as `Trainer` refuses it."""
    make, rate = STUDENTS[student]
    rows = Dataset.from_list(ROWS)
    settings = {**CHOOSES_BEST, **GENERATED, "learning_rate": rate, "eval_generation_data": str(validation)}
    trainer = make(tmp_path / "out", rows, eval_on_start=True, **settings)
    assert trainer.args.eval_strategy == "steps", "it was put back"
    trainer.train()
    found = evaluations(trainer, "eval_pass@1")
    assert [step for step, _ in found] == [0, 10, 20, 30, 40]
    assert max(found, key=lambda pair: pair[1])[0] == 20
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-20")
    assert not evaluations(trainer, "eval_loss")
    with pytest.raises(ValueError, match="eval_dataset"):
        make(tmp_path / "loss", rows, **{**settings, "metric_for_best_model": "loss"})


BASE = {
    "use_cpu": "true",
    "bf16": "false",
    "report_to": "none",
    "prompt_style": "plain",
    "num_train_epochs": "2",
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "load_best_model_at_end": "true",
    "dataset_test_split": "validation",
    "per_device_train_batch_size": "4",
    "gradient_checkpointing": "false",
}


def sft(folder, model="embedded:t5-tiny", **settings):
    given = {"model_name_or_path": model, "output_dir": "out", "dataset_name": str(folder), **BASE, **settings}
    return main(["sft", *(word for key, value in given.items() for word in (f"--{key}", str(value)))])


def generated(folder, **settings):
    return {"eval_generation_data": str(folder), **{key: str(value) for key, value in GENERATED.items()}, **settings}


@pytest.mark.parametrize("model", ["embedded:t5-tiny", "embedded:tiny"])
def test_a_test_split_chooses_nothing(model, validation, capsys):
    """One line, before anything is loaded, whether rows or problems are the test split's; so says the dry run."""
    wrong = [
        {"dataset_test_split": "test"},
        {"eval_dataset_name": str(validation / "test.jsonl"), "dataset_test_split": "train"},
        generated(validation, eval_generation_split="test"),
        generated(validation / "test.jsonl", eval_generation_split="train"),
        {"save_strategy": "best", "load_best_model_at_end": "false", "dataset_test_split": "test"},
    ]
    wrong[-1]["metric_for_best_model"] = "loss"
    for settings in wrong:
        for more in ({}, {"dry_run": "true"}):
            assert sft(validation, model, **settings, **more) == 2
            said = capsys.readouterr().err.strip()
            assert "chosen on the test split of" in said and "\n" not in said and "validation" in said
    assert sft(validation, model, load_best_model_at_end="false", dataset_test_split="test", max_steps="1") == 0


def test_the_command_chooses_saves_and_is_evaluated(validation, capsys):
    """A T5 from `sft` with the best epoch of validation, then `generate`, `grade` and `evaluate` on its folder."""
    assert sft(validation, **generated(validation)) == 0
    state = json.loads(Path("out/trainer_state.json").read_text())
    scores = {log["step"]: log["eval_pass@1"] for log in state["log_history"] if "eval_pass@1" in log}
    assert state["best_metric"] == max(scores.values()) and len(scores) == 2
    capsys.readouterr()
    asked = ["--prompt_style", "plain", "--max_tokens", "4", "--num_samples", "2"]
    data = str(validation / "test.jsonl")
    assert main(["generate", "--model", "out", "--data", data, "--output", "samples", *asked]) == 0
    files = Path("samples").rglob("*.jsonl")
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert len(rows) == 12 and all(row["prompt"] and not row["completion"].startswith(row["prompt"]) for row in rows)
    assert main(["grade", "samples", "--data", data]) == 0
    evaluated = ["--output", "evaluated", "--benchmarks", data]
    assert main(["evaluate", "--model", "out", *evaluated, *asked]) == 0
    coverage = ["--output", "covered", "--benchmarks", data, "--mode", "coverage", "--prompt_style", "plain"]
    assert main(["evaluate", "--model", "out", *coverage]) == 0


@pytest.mark.parametrize("model", ["embedded:t5-tiny", "embedded:tiny"])
def test_rows_of_one_side_are_trained_on_and_problems_asked(model, validation, capsys):
    """Rationales have no side to evaluate on, and need none; where rows are named, or decide, their loss is logged."""
    rows = validation / "train.jsonl"
    asks = {**generated(validation), "dataset_name": str(rows)}
    given = {"model_name_or_path": model, **BASE, **asks}
    del given["dataset_test_split"]

    def run(output, **more):
        words = {**given, "output_dir": output, **more}
        return main(["sft", *(word for key, value in words.items() for word in (f"--{key}", str(value)))])

    def logged(output):
        logs = json.loads(Path(output, "trainer_state.json").read_text())["log_history"]
        return ["eval_loss" in log for log in logs if {"eval_loss", "eval_pass@1"} & set(log)]

    assert run("asked") == 0
    assert logged("asked") == [False, False]
    assert run("both", eval_dataset_name=validation / "validation.jsonl", dataset_test_split="validation") == 0
    assert logged("both") == [True, False, True, False]
    assert run("dry", dry_run="true") == 0
    assert "eval:" not in capsys.readouterr().out
    assert run("loss", metric_for_best_model="loss") == 2
    assert "is one file, without a split 'test' to evaluate on" in capsys.readouterr().err
    assert run("neither", eval_generation_data="", metric_for_best_model="loss") == 2
    assert "set eval_dataset_name (rows, for their loss), eval_generation_data (problems" in capsys.readouterr().err


def test_names_of_test_splits(tmp_path):
    """By the split, or by the file's name where the source is one file."""
    for name in ("test", "validation", "test-00000-of-00001", "testimony"):
        (tmp_path / f"{name}.jsonl").write_text("{}\n")
    assert is_test_split("gsm8k", "test") and is_test_split("gsm8k", "test[:10]")
    assert not is_test_split("gsm8k", "validation")
    assert is_test_split("gsm8k", "validation+test") and not is_test_split("gsm8k", "train+validation")
    assert is_test_split("task:svamp", "all") and not is_test_split("gsm8k", "all")
    assert is_test_split(str(tmp_path / "test.jsonl"), "train")
    assert is_test_split(str(tmp_path / "test-00000-of-00001.jsonl"), "train")
    assert not is_test_split(str(tmp_path / "validation.jsonl"), "test")
    assert not is_test_split(str(tmp_path / "testimony.jsonl"), "test")
