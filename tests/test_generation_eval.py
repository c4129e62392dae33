"""Evaluation by generation: a tiny model that learns to answer 7, and then 8, so that what is best is known."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from datasets import Dataset
from helpers import make_trainer, quiet_environment, same_weights, settings
from test_sft_invariance import accelerate, launch_settings, torchrun
from transformers import EarlyStoppingCallback, TrainerCallback

from trl_math import GenerationEvalCallback, MathSFTConfig
from trl_math.cli.main import main
from trl_math.data.columns import GRADED
from trl_math.errors import DataError, TrlMathError, UsageError
from trl_math.grading import grade
from trl_math.models import save_tiny
from trl_math.models.tiny import tiny_model, tiny_tokenizer
from trl_math.optional import is_installed
from trl_math.records import Sampling


LAUNCH = Path(__file__).parent / "engine" / "generation_eval_launch.py"
NUM_PROBLEMS, NUM_SAMPLES = 6, 4
SAMPLING = Sampling(num_samples=NUM_SAMPLES, max_tokens=4)
# Twenty optimiser steps of the right answer, twenty of a wrong one.
ROWS = [{"prompt": f"{i}=", "completion": "7" if i < 80 else "8"} for i in range(160)]
PROBLEMS = [{"problem_id": f"p{i}", "problem": f"{i}=", "answer": "7"} for i in range(200, 200 + NUM_PROBLEMS)]
CHOOSES_BEST = {
    "max_steps": 40,
    "learning_rate": 3e-3,
    "train_sampling_strategy": "sequential",
    "eval_strategy": "steps",
    "eval_steps": 10,
    "save_strategy": "steps",
    "save_steps": 10,
    "load_best_model_at_end": True,
    "metric_for_best_model": "pass@1",
}

NEEDS_VLLM = pytest.mark.skipif(not is_installed("vllm"), reason="vllm is not installed: no wheel fits this machine")


def trainer_on(folder, *, with_callback=True, callback=None, **overrides):
    rows = Dataset.from_list(ROWS)
    overrides.setdefault("eval_dataset", rows.select(range(4)))
    trainer = make_trainer(folder, rows, **{**CHOOSES_BEST, **overrides})
    if with_callback:
        options = {"prompt_style": "plain", "sampling": SAMPLING, **(callback or {})}
        trainer.add_callback(GenerationEvalCallback(trainer, Dataset.from_list(PROBLEMS), **options))
    return trainer


def evaluations(trainer, name="eval_pass@1"):
    """Return (step, value) of every evaluation."""
    return [(log["step"], log[name]) for log in trainer.state.log_history if name in log]


def read_samples(folder, name):
    return [json.loads(line) for line in (Path(folder) / "eval_samples" / f"{name}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A training whose best checkpoint is the second of four, and its folder."""
    folder = tmp_path_factory.mktemp("finished") / "out"
    trainer = trainer_on(folder)
    trainer.train()
    return trainer, folder


def test_the_best_model_is_the_one_that_answers_best(finished):
    """Of four checkpoints the one with the highest pass@1 is loaded at the end; not the last, nor the first."""
    trainer, folder = finished
    found = evaluations(trainer)
    assert [step for step, _ in found] == [10, 20, 30, 40]
    best_step, best = max(found, key=lambda pair: pair[1])
    assert best_step == 20
    assert trainer.state.best_metric == best
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-20")
    saved = tiny_model().from_pretrained(folder / "checkpoint-20", dtype=torch.float32).state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in trainer.model.state_dict().items())


def test_metrics_are_what_the_samples_say(finished):
    """Every number can be counted again from the samples that were written."""
    trainer, folder = finished
    for step, accuracy in evaluations(trainer):
        rows = read_samples(folder, f"step-{step}")
        assert [tuple(row) for row in rows] == [GRADED.required] * len(rows)
        assert [(row["problem_id"], row["sample_index"]) for row in rows] == [
            (problem["problem_id"], index) for problem in PROBLEMS for index in range(NUM_SAMPLES)
        ]
        correct = [grade(row["completion"], "7", "number").correct for row in rows]
        assert [row["correct"] for row in rows] == correct
        assert all(row["correct"] for row in rows if row["completion"] == "7")
        assert not any(row["correct"] for row in rows if "7" not in row["completion"])
        assert accuracy == pytest.approx(sum(correct) / len(rows))
        by_problem = [correct[start : start + NUM_SAMPLES] for start in range(0, len(rows), NUM_SAMPLES)]
        assert dict(evaluations(trainer, "eval_pass@4"))[step] == pytest.approx(sum(map(any, by_problem)) / 6)
        pairs = [1 - math.comb(4 - sum(one), 2) / math.comb(4, 2) for one in by_problem]
        assert dict(evaluations(trainer, "eval_pass@2"))[step] == pytest.approx(sum(pairs) / 6)
        cut = sum(row["finish_reason"] == "length" for row in rows)
        assert dict(evaluations(trainer, "eval_truncated"))[step] == pytest.approx(cut / len(rows))
        silent = sum(row["extracted"] is None for row in rows)
        assert dict(evaluations(trainer, "eval_unanswered"))[step] == pytest.approx(silent / len(rows))
        assert dict(evaluations(trainer, "eval_generation_num_samples"))[step] == NUM_PROBLEMS * NUM_SAMPLES
        assert dict(evaluations(trainer, "eval_generation_seconds"))[step] > 0
        assert step in dict(evaluations(trainer, "eval_maj@4"))


def test_the_summary_has_n_and_interval(finished):
    trainer, folder = finished
    summary = json.loads((folder / "eval_samples" / "summary.json").read_text())
    steps = [entry for entry in summary["evaluations"] if entry["name"] != "final"]
    assert [entry["name"] for entry in steps] == ["step-10", "step-20", "step-30", "step-40"]
    assert [entry["metrics"]["accuracy"]["value"] for entry in steps] == [value for _, value in evaluations(trainer)]
    for entry in steps:
        assert set(entry["metrics"]) == {"accuracy", "pass@2", "pass@4", "maj@4", "truncated", "unanswered"}
        for metric in entry["metrics"].values():
            assert metric["n"] == NUM_PROBLEMS
            assert metric["low"] <= metric["value"] <= metric["high"]
    assert summary["settings"]["sampling"]["stop"] == ["\n"]  # the prompt style's
    assert summary["engine"]["engine"] == "transformers"


def test_evaluating_after_training_is_of_the_model_that_was_loaded(finished):
    """The step is still the last one, and the weights are the best checkpoint's: a file of its own."""
    trainer, folder = finished
    last = (folder / "eval_samples" / "step-40.jsonl").read_text()
    metrics = trainer.evaluate()
    assert metrics["eval_pass@1"] == trainer.state.best_metric
    assert (folder / "eval_samples" / "step-40.jsonl").read_text() == last
    final, best = read_samples(folder, "final"), read_samples(folder, "step-20")
    assert [row["completion_ids"] for row in final] == [row["completion_ids"] for row in best]
    assert {row["sampler"] for row in final} != {row["sampler"] for row in best}


def test_grading_processes_end_with_training(finished):
    trainer, _ = finished
    (callback,) = (one for one in trainer.callback_handler.callbacks if isinstance(one, GenerationEvalCallback))
    assert callback._grader.pool.workers == []


def test_resuming_goes_on_as_if_nothing_had_happened(finished, tmp_path):
    """From the second checkpoint on: the same metrics, the same best model, one summary."""
    whole, folder = finished
    shutil.copytree(folder / "checkpoint-20", tmp_path / "out" / "checkpoint-20")
    shutil.copytree(folder / "eval_samples", tmp_path / "out" / "eval_samples")
    again = trainer_on(tmp_path / "out")
    again.train(resume_from_checkpoint=True)
    assert evaluations(again)[:4] == evaluations(whole)[:4]
    assert again.state.best_metric == whole.state.best_metric
    assert Path(again.state.best_model_checkpoint).name == "checkpoint-20"
    assert same_weights(again, whole)
    summary = json.loads((tmp_path / "out" / "eval_samples" / "summary.json").read_text())
    assert [entry["name"] for entry in summary["evaluations"]][:4] == ["step-10", "step-20", "step-30", "step-40"]


def test_training_is_the_same_bit_for_bit(tmp_path):
    """With dropout, shuffling and sampling: weights do not show whether the model was asked meanwhile."""

    class Draws(TrainerCallback):
        """Draws from the random state as a callback of a user might."""

        def __init__(self):
            self.drawn = []

        def on_step_end(self, args, state, control, **kwargs):
            self.drawn.append(torch.rand(1).item())

    trainers, draws = [], []
    for with_callback in (False, True):
        draws.append(Draws())
        model = tiny_model(tiny_tokenizer(), attention_dropout=0.2)
        trainer = trainer_on(
            tmp_path / str(with_callback),
            with_callback=with_callback,
            model=model,
            callbacks=[draws[-1]],
            max_steps=12,
            eval_steps=4,
            save_strategy="no",
            load_best_model_at_end=False,
            metric_for_best_model=None,
            train_sampling_strategy="random",
        )
        trainer.train()
        trainers.append(trainer)
    assert len(evaluations(trainers[1])) == 3
    assert same_weights(*trainers)
    assert draws[0].drawn == draws[1].drawn


def test_early_stopping_reads_the_metric(tmp_path):
    """Also if it was added first: training ends at the first evaluation that is no better."""
    trainer = trainer_on(tmp_path, callbacks=[EarlyStoppingCallback(early_stopping_patience=1)])
    trainer.train()
    assert [step for step, _ in evaluations(trainer)] == [10, 20, 30]
    assert trainer.state.global_step == 30
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-20")


def test_several_evaluation_sets_ask_once(tmp_path):
    """The problems are asked with the first set; the metric is found in what all of them give together."""
    rows = Dataset.from_list(ROWS)
    sets = {"a": rows.select(range(4)), "b": rows.select(range(4, 8))}
    trainer = trainer_on(tmp_path, eval_dataset=sets, max_steps=20, save_total_limit=1)
    trainer.train()
    assert [step for step, _ in evaluations(trainer)] == [10, 20]
    assert trainer.state.best_metric == evaluations(trainer)[1][1]
    assert "eval_pass@1" not in trainer.evaluate(rows.select(range(2)), metric_key_prefix="other")


def test_lora_and_samples_switched_off(tmp_path):
    """An adapter is sampled with, not without; the summary is written, and no samples."""
    from peft import LoraConfig

    config = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = trainer_on(
        tmp_path,
        peft_config=config,
        callback={"save_samples": False},
        max_steps=20,
        learning_rate=3e-2,
        load_best_model_at_end=False,
        save_strategy="no",
    )
    trainer.train()
    assert evaluations(trainer)[-1][1] > 0
    assert [path.name for path in (tmp_path / "eval_samples").iterdir()] == ["summary.json"]


def test_dpo(tmp_path):
    """TRL's DPO trainer, in which the model is taught to prefer 7, keeps the checkpoint that answers best."""
    from trl import DPOConfig, DPOTrainer

    pairs = Dataset.from_list([{"prompt": f"{i}=", "chosen": "7", "rejected": "8"} for i in range(80)])
    once = {"save_strategy": "no", "eval_strategy": "no", "load_best_model_at_end": False, "max_steps": 15}
    taught = trainer_on(tmp_path / "sft", with_callback=False, metric_for_best_model=None, **once)
    taught.train()
    taught.save_model()
    args = settings(tmp_path / "out", **{**CHOOSES_BEST, "max_steps": 20, "learning_rate": 1e-4})
    trainer = DPOTrainer(
        model=str(tmp_path / "sft"),
        args=DPOConfig(**args),
        train_dataset=pairs,
        eval_dataset=pairs.select(range(4)),
    )
    callback = GenerationEvalCallback(trainer, Dataset.from_list(PROBLEMS), prompt_style="plain", sampling=SAMPLING)
    trainer.add_callback(callback)
    trainer.train()
    found = evaluations(trainer)
    assert [step for step, _ in found] == [10, 20]
    assert trainer.state.best_metric == max(value for _, value in found) > 0
    assert len(read_samples(tmp_path / "out", "step-20")) == NUM_PROBLEMS * NUM_SAMPLES


# ---- Several processes ----


def launch(words, folder, port, **request):
    folder.mkdir(exist_ok=True)
    request = {
        "output_dir": str(folder),
        "rows": ROWS,
        "problems": PROBLEMS[:5],  # of which one process gets three
        "sampling": {"num_samples": 2, "max_tokens": 4},
        "engine": "transformers",
        **request,
    }
    return subprocess.run(
        [sys.executable, *words, str(LAUNCH), json.dumps(request)],
        env={**quiet_environment(), "MASTER_PORT": str(port), "VLLM_CPU_KVCACHE_SPACE": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )


SHORT = {**CHOOSES_BEST, "max_steps": 20, "per_device_train_batch_size": 2}


def test_two_processes(tmp_path):
    """Each asks its share; all see the same numbers, which are those of one process that asks everything."""
    done = launch(["-m", *torchrun(29911)], tmp_path / "two", 29911, settings=SHORT)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / "two" / "result.json").read_text())
    saw, other = result["saw"]
    assert saw == other
    assert [entry["step"] for entry in saw] == [10, 20]
    assert result["best"][0] == result["best"][1] == result["after"]
    assert result["best"][0] == max(entry["eval_pass@1"] for entry in saw)
    rows = read_samples(tmp_path / "two", "step-20")
    assert [row["problem_id"] for row in rows] == [problem["problem_id"] for problem in PROBLEMS[:5] for _ in range(2)]
    # One process on the checkpoint that two have saved.
    alone = make_trainer(
        tmp_path / "one",
        Dataset.from_list(ROWS),
        model=str(tmp_path / "two" / "checkpoint-20"),
        eval_dataset=Dataset.from_list(ROWS[:4]),
        model_init_kwargs={"dtype": "float32"},
    )
    sampling = Sampling(num_samples=2, max_tokens=4)
    problems = Dataset.from_list(PROBLEMS[:5])
    alone.add_callback(GenerationEvalCallback(alone, problems, prompt_style="plain", sampling=sampling))
    assert alone.evaluate()["eval_pass@1"] == saw[1]["eval_pass@1"]
    assert [row["completion_ids"] for row in read_samples(tmp_path / "one", "step-0")] == [
        row["completion_ids"] for row in rows
    ]


@pytest.mark.slow
def test_a_failure_of_one_process_ends_all(tmp_path):
    """The first cannot write; the second would wait for it, and says why it does not."""
    done = launch(["-m", *torchrun(29913)], tmp_path / "out", 29913, settings=SHORT, blocks=True)
    assert done.returncode != 0
    first, second = ((tmp_path / "out" / f"failure-{rank}.txt").read_text() for rank in (0, 1))
    assert first.startswith("Cannot write what was evaluated to")
    assert second == f"writing the samples failed on process 0: {first}"


@pytest.mark.slow
@NEEDS_VLLM
def test_an_engine_beside_one_process(tmp_path):
    """It is shut down when training ends, and started again for the evaluation that comes after."""
    done = launch([], tmp_path / "out", 29919, engine="vllm", settings=SHORT, problems=PROBLEMS)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["engine"] == "vllm" and not result["cut_up"]
    assert [entry["step"] for entry in result["saw"][0]] == [10, 20]
    assert len(read_samples(tmp_path / "out", "final")) == NUM_PROBLEMS * 2


@pytest.mark.slow
@NEEDS_VLLM
def test_zero3(tmp_path):
    """The model is in pieces, so it never generates: an engine in each process follows it."""
    launcher = ["-m", *accelerate(launch_settings(tmp_path), 29915)]
    done = launch(launcher, tmp_path / "out", 29915, engine="auto", settings=SHORT, problems=PROBLEMS)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["cut_up"] and result["engine"] == "vllm"
    saw, other = result["saw"]
    assert saw == other
    assert [entry["step"] for entry in saw] == [10, 20]
    assert result["best"] == [max(entry["eval_pass@1"] for entry in saw)] * 2
    assert (tmp_path / "out" / "saved" / "model.safetensors").exists()  # the processes can still talk to each other
    assert len(read_samples(tmp_path / "out", "step-20")) == NUM_PROBLEMS * 2


@pytest.mark.slow
def test_zero3_without_an_engine_is_refused(tmp_path):
    launcher = ["-m", *accelerate(launch_settings(tmp_path), 29917)]
    done = launch(launcher, tmp_path / "out", 29917, settings=SHORT)
    assert done.returncode != 0
    assert "engine transformers cannot sample from it: use engine vllm" in done.stderr


# ---- Settings ----


def config(**changes):
    return MathSFTConfig(**{**settings("out"), "eval_strategy": "steps", "eval_steps": 1, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eval_generation_samples": 8}, "eval_generation_samples is given, and no problems to ask"),
        ({"eval_generation_data": "x", "eval_strategy": "no"}, "set eval_strategy: steps or epoch"),
        ({"eval_generation_data": "x", "eval_generation_engine": "vlm"}, "Did you mean 'vllm'?"),
        ({"eval_generation_data": "x", "eval_generation_prompt_style": "chat_cott"}, "Did you mean 'chat_cot'?"),
        ({"eval_generation_data": "x", "eval_generation_prompt_style": "tactic"}, "Known: direct, cot"),
        ({"eval_generation_data": "x", "eval_generation_problems": 0}, "eval_generation_problems must be at least 1"),
        ({"eval_generation_data": "x", "eval_generation_temperature": -1}, "eval_generation settings cannot work"),
        ({"eval_generation_data": "x", "eval_generation_temperature": 0}, "all 4 samples would be the same"),
        ({"eval_generation_data": "x", "metric_for_best_model": "pass@3"}, "Known: pass@1, pass@2, pass@4, maj@4"),
        (
            {
                "eval_generation_data": "x",
                "eval_generation_engine": "vllm",
                "eval_generation_batch_size": 8,
            },
            "eval_generation_batch_size is for engine transformers",
        ),
        (
            {"eval_generation_data": "x", "eval_generation_gpu_memory_utilization": 1.5},
            "eval_generation_gpu_memory_utilization must be above 0",
        ),
    ],
)
def test_settings_that_cannot_work(changes, message):
    with pytest.raises(UsageError) as error:
        config(**changes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_less_truncation_is_better():
    """transformers takes more for better unless a metric is a loss."""
    chosen = {"eval_generation_data": "x", "load_best_model_at_end": True, "save_steps": 1, "save_strategy": "steps"}
    assert config(**chosen, metric_for_best_model="truncated").greater_is_better is False
    assert config(**chosen, metric_for_best_model="pass@4").greater_is_better is True


def test_problems_that_cannot_work(tmp_path, monkeypatch):
    """Before a model is loaded."""

    def load(*args, **kwargs):
        raise AssertionError("a model was loaded")

    save_tiny(tmp_path / "model")
    monkeypatch.setattr("trl.trainer.sft_trainer.create_model_from_path", load)
    rows = Dataset.from_list(ROWS)
    file = tmp_path / "problems.jsonl"
    file.write_text(json.dumps({"problem": "1+1=", "answer": ""}) + "\n")
    asked = {"model": str(tmp_path / "model"), "eval_dataset": rows, "eval_strategy": "epoch"}
    for changes, error, message in (
        ({"eval_generation_data": "nowhere.jsonl", "eval_generation_prompt_style": "plain"}, UsageError, "nowhere"),
        ({"eval_generation_data": str(file), "eval_generation_prompt_style": "plain"}, DataError, "final answer"),
        ({"eval_generation_data": str(file)}, UsageError, "How shall the problems"),
    ):
        with pytest.raises(error, match=message):
            make_trainer(tmp_path / "out", rows, **asked, **changes)


def test_callbacks_that_cannot_work(tmp_path):
    trainer = trainer_on(tmp_path, with_callback=False)
    problems = Dataset.from_list(PROBLEMS)
    with pytest.raises(UsageError, match="Known: direct"):
        GenerationEvalCallback(trainer, problems, prompt_style="chat_program")
    with pytest.raises(UsageError, match="Did you mean 'vllm'"):
        GenerationEvalCallback(trainer, problems, prompt_style="plain", engine="vlm")
    trainer.args.metric_for_best_model = "eval_pass@64"
    with pytest.raises(UsageError, match="Known: pass@1, pass@2, pass@4"):
        GenerationEvalCallback(trainer, problems, prompt_style="plain", sampling=SAMPLING)
    with pytest.raises(UsageError, match="asks problems already"):
        GenerationEvalCallback(trainer_on(tmp_path), problems, prompt_style="plain", sampling=SAMPLING)


def test_a_model_made_in_memory_has_no_files_for_vllm(tmp_path):
    from trl_math.trainers.eval_engines import FollowingEngines

    trainer = trainer_on(tmp_path, with_callback=False)
    with pytest.raises(TrlMathError, match="made in memory"):
        FollowingEngines(trainer, tiny_tokenizer(), 64, {})


def test_problems_without_a_readable_answer_are_left_out(tmp_path, caplog):
    rows = [*PROBLEMS, {"problem_id": "unreadable", "problem": "?", "answer": "\\frac{1"}]
    trainer = trainer_on(tmp_path, with_callback=False)
    callback = GenerationEvalCallback(trainer, Dataset.from_list(rows), prompt_style="plain", sampling=SAMPLING)
    assert callback.problems["problem_id"] == [problem["problem_id"] for problem in PROBLEMS]
    assert "1 of 7 evaluation problems" in caplog.text
    few = GenerationEvalCallback(trainer, Dataset.from_list(rows), prompt_style="plain", num_problems=3)
    again = GenerationEvalCallback(trainer, Dataset.from_list(rows), prompt_style="plain", num_problems=3)
    assert len(few.problems) == 3
    assert few.problems["problem_id"] == again.problems["problem_id"]


# ---- The command line ----


def recipe(folder, **changes):
    for name, rows in (
        ("rows", [{"problem": row["prompt"], "answer": row["completion"]} for row in ROWS]),
        ("asked", PROBLEMS),
    ):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        **settings(folder / "out"),
        **CHOOSES_BEST,
        "model_name_or_path": str(save_tiny(folder / "model")),
        "dtype": "float32",
        "dataset_name": str(folder / "rows.jsonl"),
        "prompt_style": "plain",
        "dataset_test_split": "train",  # what counts here is what the model is asked
        "max_eval_rows": 4,
        "eval_generation_data": str(folder / "asked.jsonl"),
        "eval_generation_samples": NUM_SAMPLES,
        "eval_generation_max_tokens": 4,
        **changes,
    }
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(values))
    return str(file)


def test_a_recipe_chooses_its_model_by_pass_at_1(tmp_path):
    """All of it by configuration: the same numbers, and the best checkpoint's weights in the output folder."""
    assert main(["sft", "--config", recipe(tmp_path)]) == 0
    out = tmp_path / "out"
    state = json.loads((out / "trainer_state.json").read_text())
    found = [(log["eval_pass@1"], log["step"]) for log in state["log_history"] if "eval_pass@1" in log]
    assert len(found) == 4
    assert state["best_metric"] == max(found)[0]
    best = tiny_model().from_pretrained(out / f"checkpoint-{max(found)[1]}").state_dict()
    saved = tiny_model().from_pretrained(out).state_dict()
    assert all(torch.equal(value, best[name]) for name, value in saved.items())
    assert json.loads((out / "run.json").read_text())["settings"]["eval_generation_problems_drawn"].startswith(
        "6 rows"
    )


def test_mistakes_in_a_recipe_are_one_line(tmp_path, capsys):
    for flags, message in (
        (["--eval_generation_dta", "x"], "Did you mean 'eval_generation_data'?"),
        (["--prompt_style", "program"], "Unknown eval_generation_prompt_style 'program'"),
        (
            ["--eval_generation_engine", "transformers", "--accelerate_config", "zero3"],
            "eval_generation_engine: transformers cannot sample",
        ),
    ):
        assert main(["sft", "--config", recipe(tmp_path), *flags]) == 2
        assert message in capsys.readouterr().err.strip().splitlines()[-1]
    without = recipe(tmp_path, eval_generation_data=None, eval_generation_samples=4, eval_generation_max_tokens=512)
    assert main(["sft", "--config", without]) == 2
    assert "metric_for_best_model: pass@1 needs problems to ask" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
