"""Decontamination as a stage: what it takes, what the stages behind it train on, and how it stops them."""

import json
from pathlib import Path

import pytest
import yaml
from test_decontaminate import CLEAN, TESTS, lines_of, write
from test_pipeline import ended, start

from trl_math.errors import UsageError
from trl_math.pipeline.commands import ROWS, SIDES, SOLUTIONS
from trl_math.pipeline.plan import make_plan, makes
from trl_math.pipeline.recipe import read_experiment, run_smoke_values


GATE = {"against": ["tests.jsonl"], "detectors": ["exact", "normalised", "ngram_8"]}
SFT = {"use_cpu": True, "bf16": False, "report_to": "none", "max_steps": 1, "per_device_train_batch_size": 2}
COLLECT = {"backend": "scripted", "num_correct": 1, "max_trials": 2}


@pytest.fixture(autouse=True)
def _files(_working_folder):
    write("tests.jsonl", [{"id": f"t{n}", "problem": text, "answer": "1"} for n, text in enumerate(TESTS)])
    write("train.jsonl", [{"problem": text, "answer": "1", "solution": "So 1."} for text in [*CLEAN, TESTS[0]]])
    write("rows.jsonl", [{"prompt": f"{text} ", "completion": "1"} for text in [*CLEAN, *TESTS[:2]]])


def recipe(**sections):
    return {"command": "run", "model": "embedded:tiny", "data": "train.jsonl", "output": "out", **sections}


def stages(**sections):
    return {stage.label: stage for stage in make_plan(read_experiment(recipe(**sections))).stages}


# ---- the plan ----


def test_training_behind_it_takes_the_clean_rows():
    found = stages(round=[{"collect": COLLECT}, {"decontaminate": GATE}, {"sft": SFT}])
    gate = found["round-1/decontaminate"]
    assert gate.settings["data"] == str(found["round-1/collect"].output)
    assert found["round-1/sft"].settings["dataset_name"] == str(gate.output)
    assert makes(gate, ROWS) and makes(gate, SOLUTIONS) and not makes(gate, SIDES)
    with pytest.raises(UsageError, match="leave prompt_style out"):
        stages(round=[{"collect": COLLECT}, {"decontaminate": GATE}, {"sft": {**SFT, "prompt_style": "cot"}}])


def test_problems_that_were_cleaned_are_the_ones_that_are_asked():
    generate = {"backend": "scripted", "num_samples": 2, "max_tokens": 8}
    found = stages(before=[{"decontaminate": GATE}], round=[{"generate": generate}, "grade"])
    gate = found["before/decontaminate"]
    assert gate.settings["data"] == "train.jsonl" and makes(gate, SIDES)
    asked = found["round-1/generate"].settings
    assert (asked["data"], asked["split"]) == (str(gate.output), "train")
    split = {"split": {"by": "random"}}
    found = stages(before=[split, {"decontaminate": GATE}], round=[{"generate": generate}])
    assert found["before/decontaminate"].settings["data"] == str(found["before/split"].output)
    assert found["round-1/generate"].settings["data"] == str(found["before/decontaminate"].output)


def test_rows_of_a_file_are_no_problems_to_ask():
    generate = {"backend": "scripted", "num_samples": 2, "max_tokens": 8}
    gate = {**GATE, "data": "rows.jsonl"}
    found = stages(before=[{"decontaminate": gate}], round=[{"generate": generate}, "grade"])
    assert found["round-1/generate"].settings["data"] == "train.jsonl"


def test_the_key_follows_from_both_sides_and_not_from_machines():
    def key(data="rows.jsonl", **changes):
        found = stages(round=[{"decontaminate": {**GATE, "data": data, **changes}}, {"sft": SFT}])
        return found["round-1/decontaminate"].key

    first = key()
    assert key(processes=2) == key(cache="elsewhere") == key(data=["rows.jsonl"]) == first
    assert len({first, key(part="all"), key(on_contaminated="stop"), key(data=["rows.jsonl", "train.jsonl"])}) == 4
    write("tests.jsonl", lines_of("tests.jsonl")[:2])
    second = key()
    write("rows.jsonl", lines_of("rows.jsonl")[:4])
    assert len({first, second, key()}) == 3


def test_mistakes_are_told_before_anything_runs(capsys):
    from trl_math.cli.run import run

    gate = {"against": ["gsm9k"], "detectors": ["exact"], "data": "rows.jsonl"}
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe(round=[{"decontaminate": gate}, {"sft": SFT}])))
    assert run(["--config", "recipe.yaml", "--dry-run"]) == 0
    assert "Unknown benchmark 'gsm9k'" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(UsageError, match="Unknown detector 'ngram8'"):
        stages(round=[{"decontaminate": {**GATE, "detectors": ["ngram8"]}}, {"sft": SFT}])


def test_the_smoke_form_keeps_who_looks():
    values = run_smoke_values(recipe(round=[{"decontaminate": {**GATE, "part": "all"}}, {"sft": SFT}]), "gate")
    [gate] = [stage["decontaminate"] for stage in values["round"] if "decontaminate" in stage]
    assert gate["detectors"] == GATE["detectors"] and gate["part"] == "all" and gate["against"] != GATE["against"]


# ---- for real ----


def run_recipe(**gate):
    round_ = [{"decontaminate": {**GATE, "data": "rows.jsonl", **gate}}, {"sft": SFT}]
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe(round=round_)))
    return start("--config", "recipe.yaml")


def test_a_gate_that_stops_keeps_what_is_behind_it_from_running():
    process = run_recipe(on_contaminated="stop")
    out, errors = process.communicate(timeout=400)
    assert process.returncode == 1, out
    assert "2 of 5 training rows have test items in them, and none may" in errors + out
    assert "decontaminate failed (exit status 1), and the stages behind it were not run" in errors
    assert not list(Path("out").rglob("sft-*")) and list(Path("out").rglob("report.html"))


@pytest.mark.slow
def test_training_goes_on_with_the_clean_rows():
    ended(run_recipe())
    [clean] = Path("out").rglob("clean.jsonl")
    assert lines_of(clean) == lines_of("rows.jsonl")[:3]
    [manifest] = Path("out").rglob("sft-*/run.json")
    settings = json.loads(manifest.read_text())["settings"]
    assert Path(settings["dataset_name"]).name == clean.parent.name
