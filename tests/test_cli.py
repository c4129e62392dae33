"""The command line as a user meets it: in processes of its own, with typing mistakes, twice, and killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from helpers import quiet_environment


ON_CPU = {
    "model_name_or_path": "embedded:tiny",
    "dataset_name": "reasoning_gym:chain_sum?size=60&min_terms=2&max_terms=2",
    "prompt_style": "plain",
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "report_to": "none",
    "objective": "coverage",
    "num_attempts": 16,
    "max_steps": 4,
    "per_device_train_batch_size": 4,
    "logging_steps": 1,
    "disable_tqdm": True,
}


def command(*words, seconds=300, **changes):
    return subprocess.run(
        [sys.executable, "-m", "trl_math.cli.main", *map(str, words)],
        env={**quiet_environment(), **changes},
        capture_output=True,
        text=True,
        timeout=seconds,
    )


def recipe(folder, **changes):
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump({**ON_CPU, "output_dir": str(folder / "out"), **changes}))
    return file


def fails(result, message):
    assert result.returncode == 2, result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("trl-math: ")
    assert message in last
    assert "Traceback" not in result.stderr


def test_help_and_version():
    assert "commands:" in command("--help").stdout
    assert command("--version").stdout.startswith("trl-math ")
    assert "--num_attempts" in command("sft", "--help").stdout
    assert "usage: trl-math recipes" in command("recipes", "--help").stdout


def test_mistakes_are_one_line(tmp_path):
    fails(command("stf"), "Unknown command 'stf'. Did you mean 'sft'?")
    fails(command("sft", "--config", "nowhere.yaml"), "There is no recipe 'nowhere.yaml'")
    fails(command("sft", "--config", recipe(tmp_path), "--num_attemps", "4"), "Did you mean 'num_attempts'?")
    fails(command("sft", "--config", recipe(tmp_path), "--learning_rate", "fast"), "learning_rate must be float")
    fails(command("sft", "oops"), "Unexpected word 'oops'")
    fails(command("compare", "--first", "a", "--second"), "second has no value: it must be list, as in --second VALUE")
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_recipes(tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1")
    fails(command("sft", "--config", broken), "not valid YAML")
    broken.write_text("learning_rate: 1\nlearning_rate: 2\n")
    fails(command("sft", "--config", broken), "given twice: learning_rate")
    broken.write_text("- 1\n")
    fails(command("sft", "--config", broken), "must be a mapping")
    broken.write_text("command: dpo\n")
    fails(command("sft", "--config", broken), "a recipe for `trl-math dpo`")


def test_debug_shows_the_traceback(tmp_path):
    result = command("sft", "--config", recipe(tmp_path), "--nonsense", "1", "--debug")
    assert "Traceback" in result.stderr


def test_dry_run_says_everything_and_writes_nothing(tmp_path):
    result = command("sft", "--config", recipe(tmp_path), "--dry-run", "--gradient_accumulation_steps", "2")
    assert result.returncode == 0, result.stderr
    for part in ("= 8 rows", "optimiser steps: 4", "60 rows with", "first prompt", "total per GPU", "(new)"):
        assert part in result.stdout, part
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "runs").exists()


def test_dry_run_of_a_cluster_recipe_on_a_laptop():
    result = command("sft", "--config", "dco/llama3-8b-math-direct-n64", "--dry-run")
    assert result.returncode == 0, result.stderr
    assert "= 128 rows" in result.stdout
    assert "8 GPUs" in result.stdout
    assert "starts 8 processes" in result.stdout


@pytest.mark.slow
def test_train_twice_and_change_your_mind(tmp_path):
    """A run, the same again (nothing to do), another configuration on its folder (refused)."""
    file = recipe(tmp_path, save_strategy="steps", save_steps=2, eval_strategy="epoch", max_eval_rows=5)
    result = command("sft", "--config", file)
    assert result.returncode == 0, result.stderr
    out = tmp_path / "out"
    manifest = json.loads((out / "run.json").read_text())
    assert manifest["is_finished"] and manifest["steps"] == 4
    for card in (out / "README.md", out / "checkpoint-2" / "README.md"):
        text = card.read_text()
        for part in (
            "objective: `coverage`",
            "num_attempts (N): `16`",
            "reasoning_gym:chain_sum",
            "a local checkpoint",
        ):
            assert part in text, part
    again = command("sft", "--config", file)
    assert again.returncode == 0
    assert "nothing to do" in again.stdout
    weights = (out / "model.safetensors").read_bytes()
    fails(command("sft", "--config", file, "--num_attempts", "64"), "num_attempts 16.0 there, 64.0 here")
    assert (out / "model.safetensors").read_bytes() == weights


@pytest.mark.slow
@pytest.mark.parametrize("refill", [False, True])
def test_a_killed_run_goes_on_with_the_same_command(tmp_path, refill):
    """SIGKILL in the middle, the same command again: the bits of a run that was left alone."""
    changes = {"save_strategy": "steps", "save_steps": 5, "max_steps": 300, "save_total_limit": 3}
    if refill:
        changes |= {"num_attempts": 1e8, "min_coverage_weight": 0.9}
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    killed = recipe(tmp_path / "a", **changes)
    process = subprocess.Popen(
        [sys.executable, "-m", "trl_math.cli.main", "sft", "--config", str(killed)],
        env=quiet_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for(lambda: (tmp_path / "a" / "out" / "checkpoint-20" / "trainer_state.json").exists(), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # As if it had been killed a moment later, while the next checkpoint was being written.
    torn = tmp_path / "a" / "out" / "checkpoint-9999"
    torn.mkdir()
    (torn / "trainer_state.json").write_text('{"global_st')
    again = command("sft", "--config", killed)
    assert again.returncode == 0, again.stderr
    assert "Going on from" in again.stdout
    whole = command("sft", "--config", recipe(tmp_path / "b", **changes))
    assert whole.returncode == 0, whole.stderr
    results = [(tmp_path / name / "out" / "model.safetensors").read_bytes() for name in ("a", "b")]
    assert results[0] == results[1]


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the run ended by itself"
        assert time.monotonic() < end
        time.sleep(0.01)


def test_interrupt_is_one_line(tmp_path):
    """Ctrl-C says that the same command goes on, without a traceback."""
    file = recipe(tmp_path, max_steps=100_000, save_strategy="steps", save_steps=5, save_total_limit=1)
    process = subprocess.Popen(
        [sys.executable, "-m", "trl_math.cli.main", "sft", "--config", str(file)],
        env=quiet_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: (tmp_path / "out" / "checkpoint-5").exists(), process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "interrupted. The same command goes on" in errors
    assert "Traceback" not in errors


def test_launches_itself_through_accelerate(tmp_path):
    """A recipe that names an accelerate config starts its own processes, and the result is one finished run."""
    launch = tmp_path / "launch.yaml"
    settings = {"distributed_type": "NO", "use_cpu": True, "num_processes": 1, "mixed_precision": "no"}
    launch.write_text(yaml.safe_dump(settings))
    file = recipe(tmp_path, accelerate_config=str(launch), env={"TRL_MATH_TEST": "1"})
    result = command("sft", "--config", file)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "Trained 4 steps" in result.stdout
    fails(command("sft", "--config", file, "--accelerate_config", "zero9"), "Did you mean 'zero3'?")


def test_reports_to_wandb(tmp_path):
    """`report_to: wandb` logs our metrics beside TRL's, offline."""
    result = command("sft", "--config", recipe(tmp_path, report_to="wandb"), WANDB_DIR=str(tmp_path))
    assert result.returncode == 0, result.stderr[-2000:]
    [log] = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    for name in (b"coverage/loss", b"coverage/live_fraction", b"mean_token_accuracy"):
        assert name in log.read_bytes()


def test_recipes_lists_and_prints():
    listing = command("recipes").stdout
    assert "dco/llama3-8b-math-direct-n64" in listing
    text = command("recipes", "dco/llama3-8b-math-direct-n64").stdout
    assert yaml.safe_load(text)["num_attempts"] == 64
    fails(command("recipes", "dco/llama3-8b-math-direct-n63"), "Did you mean")
    tried = listing.rpartition("--config ")[2].split()[0]
    assert "control" not in yaml.safe_load(command("recipes", tried).stdout)["description"]


def test_a_dry_run_names_what_is_nearest(tmp_path):
    """A model that is not embedded, a recipe that is no file."""
    file = recipe(tmp_path)
    fails(
        command("sft", "--config", file, "--dry-run", "--model_name_or_path", "embedded:tny"), "mean 'embedded:tiny'?"
    )
    fails(
        command("sft", "--config", file, "--dry-run", "--model_name_or_path", "embeded:tiny"), "mean 'embedded:tiny'?"
    )
    wrong = str(file).replace(".yaml", "s.yaml")
    fails(command("sft", "--config", wrong, "--dry-run"), "Did you mean 'recipe.yaml'?")


def test_every_training_recipe_loads_strictly():
    """Each training recipe of the repository passes the typed loader, its launch file too, and describes itself."""
    from trl_math.launch import launch_plan
    from trl_math.recipes import all_recipes, build_sft, read_recipe

    recipes = [values for values in map(read_recipe, all_recipes()) if values["command"] == "sft"]
    assert len(recipes) >= 11
    for values in recipes:
        assert values["description"]
        arguments = build_sft({**values, "use_cpu": True})
        plan = launch_plan(values.get("accelerate_config"), values.get("num_processes"))
        assert plan is None or plan.num_processes >= 1
        assert Path(arguments.training.output_dir).parts[0] == "runs"


@pytest.mark.slow
def test_a_changed_data_set_is_another_run(tmp_path):
    """A run does not go on, nor count as finished, when its rows have changed."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"{i}+1=", "completion": str(i + 1)}) + "\n" for i in range(20)))
    file = recipe(tmp_path, dataset_name=str(rows), prompt_style=None)
    assert command("sft", "--config", file).returncode == 0
    rows.write_text(rows.read_text().replace('"5"', '"6"'))
    fails(command("sft", "--config", file), "data '20 rows")


# The file that a command leaves which leaves no `run.json`.
MADE = {
    "difficulty": "difficulty.jsonl",
    "collect": "rows.jsonl",
    "rationales": "rows.jsonl",
    "split": "train.jsonl",
}


def smoke(name):
    from trl_math.recipes import read_recipe

    kind = read_recipe(name)["command"]
    # An experiment of six rounds is thirty processes, and each imports what it needs.
    result = command(kind, "--config", name, "--smoke", seconds=1800 if kind == "run" else 300)
    assert result.returncode == 0, result.stderr[-3000:]
    if kind in MADE:
        [made] = Path("runs/smoke").glob(f"*/{MADE[kind]}")
        assert made.read_text().strip()
        return
    [folder] = [path.parent for path in Path("runs/smoke").glob("*/run.json")]
    if kind in ("sft", "dpo"):
        assert "Trained 3 steps" in result.stdout
        assert json.loads((folder / "run.json").read_text())["is_finished"]
    elif kind == "evaluate":
        results = json.loads((folder / "summary.json").read_text())["results"]
        assert {result["num_problems"] for result in results} == {4}
    elif kind == "run":
        stages = json.loads((folder / "run.json").read_text())["stages"]
        assert {stage["state"] for stage in stages} == {"finished"}
        for name in {stage["words"][0] for stage in stages} & {"pairs", *MADE}:
            assert any(path.read_text().strip() for path in folder.rglob(MADE.get(name, "pairs.jsonl")))
    else:
        assert len((folder / "completions.jsonl").read_text().splitlines()) in (4, 8)


@pytest.mark.parametrize("name", ["dco/llama3-8b-math-direct-n64"])
def test_smoke_of_one_recipe(name):
    """One recipe runs for real on the embedded model."""
    smoke(name)


def _others():
    from trl_math.recipes import all_recipes, recipe_name

    return [recipe_name(path) for path in all_recipes()]


@pytest.mark.slow
@pytest.mark.timeout(1900)
@pytest.mark.parametrize("name", _others())
def test_smoke_of_every_recipe(name):
    smoke(name)
