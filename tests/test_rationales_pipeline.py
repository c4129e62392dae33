"""From a teacher to the students' table in one staged recipe, for real, killed on the way: it comes to the same."""

import json
from pathlib import Path

import pytest
import yaml
from test_cli import wait_for
from test_pipeline import ended, gone, kill, start


NUM_PROBLEMS, NUM_RATIONALES = 16, 4
CPU = {"use_cpu": True, "bf16": False, "dtype": "float32", "gradient_checkpointing": False, "report_to": "none"}
RECIPE = {
    "command": "run",
    "model": "embedded:smollm2-135m-instruct",
    "data": "embedded:times_tables",
    "output": "out",
    "seeds": [0],
    "arms": {
        "decoder": {
            "sft.model_name_or_path": "embedded:tiny",
            "rationales.row_style": "ft_cot_token",
            "sft.eval_generation_prompt_style": "ft_cot_token",
            "evaluate.prompt_style": "ft_cot_token",
        },
        "t5": {
            "sft.model_name_or_path": "embedded:t5-tiny",
            "rationales.row_style": "ft_cot_token_seq2seq",
            "sft.eval_generation_prompt_style": "ft_cot_token_seq2seq",
            "evaluate.prompt_style": "ft_cot_token_seq2seq",
        },
    },
    "before": [
        {"split": {"by": "official", "validation_share": 0.25}},
        {
            "rationales": {
                "name": "teacher",
                "model": "{start}",
                "backend": "transformers",
                "dtype": "float32",
                "max_model_len": 160,
                "batch_size": 4,
                "prompt_style": "zero_shot_cot",
                "max_problems": NUM_PROBLEMS,
                "num_rationales": NUM_RATIONALES,
                "max_tokens": 32,
            }
        },
    ],
    "rationales": {"keep_unfinished": True},
    "sft": {
        **CPU,
        "max_steps": 240,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "eval_strategy": "steps",
        "eval_steps": 120,
        "save_strategy": "steps",
        "save_steps": 20,
        "eval_generation_data": "{split}",
        "eval_generation_split": "validation",
        "eval_generation_samples": 1,
        "eval_generation_temperature": 0.0,
        "eval_generation_max_tokens": 8,
        "logging_steps": 20,
    },
    "evaluate": {
        "backend": "transformers",
        "dtype": "float32",
        "benchmarks": ["times_tables"],
        "num_samples": 1,
        "temperature": 0.0,
        "max_tokens": 48,
    },
    "round": [{"rationales": {"samples": "{teacher}"}}, "sft", "evaluate"],
    "finally": ["compare"],
}


def files(folder, name):
    """The files of a name, by their places, which have the keys of their stages in them."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(Path(folder).rglob(name))}


def num_drawn():
    return sum(text.count(b"\n") for text in files("out", "completions.jsonl").values())


def in_training(arm):
    """Whether a student is between its first checkpoint and its end."""
    states = list(Path("out", arm).rglob("checkpoint-*/trainer_state.json"))
    return bool(states) and not any(
        b'"is_finished": true' in text for text in files(f"out/{arm}", "run.json").values()
    )


def found(folder):
    """What evaluations found, with intervals."""
    summaries = Path(folder).glob("*/seed-0/round-1/evaluate-*/summary.json")
    documents = {str(path.relative_to(folder)): json.loads(path.read_text()) for path in summaries}
    return {place: document["results"][0]["metrics"] for place, document in documents.items()}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_teacher_students_and_table_are_the_same_after_kills():
    """SIGKILL for everything, in the teacher's sampling and in both students' training; then the command again."""
    Path("recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    ended(start("--config", "recipe.yaml", "--output", "whole"))
    moments = [
        lambda: 4 <= num_drawn() < NUM_PROBLEMS * NUM_RATIONALES,
        lambda: in_training("decoder"),
        lambda: in_training("t5"),
    ]
    for moment in moments:
        process = start("--config", "recipe.yaml")
        wait_for(moment, process, seconds=600)
        stage = kill(process, with_stage=True)
        assert stage is not None and gone(stage) and moment(), "it was in the middle"
    ended(start("--config", "recipe.yaml"))
    for name in ("rows.jsonl", "model.safetensors", "samples.jsonl"):
        assert files("out", name) == files("whole", name), name  # their places have the keys of their stages
    drawn = {folder: sorted(files(folder, "graded.jsonl").popitem()[1].splitlines()) for folder in ("out", "whole")}
    assert drawn["out"] == drawn["whole"] and len(drawn["out"]) == NUM_PROBLEMS * NUM_RATIONALES
    rows = [text for place, text in files("out", "rows.jsonl").items() if not place.startswith("before")]
    assert len(rows) == 2 and all(text.count(b"\n") >= 2 for text in rows)
    assert found("out") == found("whole") and len(found("out")) == 2
    assert all(metrics["accuracy"]["low"] < metrics["accuracy"]["high"] for metrics in found("out").values())
