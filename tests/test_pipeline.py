"""`trl-math run` for real: stages in processes of their own, stopped in every way, and gone on with."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from helpers import quiet_environment
from test_cli import wait_for

from trl_math.cli.main import main
from trl_math.pipeline import records
from trl_math.pipeline.describe import jobs_of
from trl_math.pipeline.plan import make_plan
from trl_math.pipeline.recipe import read_experiment
from trl_math.recipes import read_recipe


GENERATE = {"backend": "scripted", "num_samples": 6, "max_tokens": 64}
ENDLESS = {"backend": "transformers", "num_samples": 2000, "max_tokens": 24, "batch_size": 4}
PAIRS = {"rule": "balanced", "max_pairs_per_problem": 2}
DPO = {
    "use_cpu": True,
    "bf16": False,
    "report_to": "none",
    "max_steps": 2,
    "per_device_train_batch_size": 2,
    "learning_rate": 1e-3,
}


@pytest.fixture(autouse=True)
def _problems(_working_folder):
    write_problems()


def write_problems(largest_answer=10):
    """A guess of one digit is right for one in ten, unless answers are larger."""
    rows = [{"problem": f"What is {i} mod 10?", "answer": str(i % 10 + largest_answer - 10)} for i in range(12)]
    Path("problems.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def write_recipe(**changes):
    values = {
        "command": "run",
        "model": "embedded:tiny",
        "data": "problems.jsonl",
        "output": "out",
        "round": [{"generate": GENERATE}, "grade", {"pairs": PAIRS}],
    }
    Path("recipe.yaml").write_text(yaml.safe_dump({**values, **changes}))


def start(*words, lock=()):
    """Start a command in a group of its own, as a shell does."""
    return subprocess.Popen(
        [sys.executable, "-m", "trl_math.cli.main", "run", *words],
        env=quiet_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        pass_fds=lock,
    )


def start_runner():
    """Start what the planner becomes, without the seconds that planning takes."""
    plan = make_plan(read_experiment(read_recipe("recipe.yaml")))
    lock = records.take_lock(Path("out/.run.lock"))
    records.write_plan(plan.folder, {}, jobs_of(plan))
    try:
        return start("--run-plan", "out", str(lock), lock=[lock])
    finally:
        os.close(lock)


def ended(process, status=0):
    """What a runner said until it ended by itself."""
    try:
        out, errors = process.communicate(timeout=1500)
    finally:
        process.kill()  # its stage ends with it
    assert process.returncode == status, f"{out[-2000:]}\n{errors[-2000:]}"
    return out, errors


def states():
    return {stage["label"]: stage["state"] for stage in json.loads(Path("out/run.json").read_text())["stages"]}


def runs(folder="out"):
    """How each stage's runs ended, for stages of all keys."""
    found = {}
    for file in sorted(Path(folder).rglob("*.stage.json")):
        record = json.loads(file.read_text())
        found.setdefault(record["label"], []).append([one["status"] for one in record["runs"]])
    return found


def seconds(folder):
    """How long each stage took."""
    found = [json.loads(file.read_text()) for file in Path(folder).rglob("*.stage.json")]
    return {record["label"]: record["runs"][-1]["seconds"] for record in found}


def pairs(folder):
    """The files of pairs, with their places below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("pairs.jsonl")}


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def stage_of(process):
    """The process id of the stage that a runner is waiting for; None if there is none."""
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        children = []
    return int(children[0]) if children else None


def num_samples():
    return sum(path.read_bytes().count(b"\n") for path in Path("out").glob("round-1/generate-*/completions.jsonl"))


def plan_states(*words):
    """What a plan would do now."""
    plan = make_plan(read_experiment(read_recipe("recipe.yaml") | dict(word.split("=") for word in words)))
    return {job.label: records.is_finished(job) for job in jobs_of(plan)}


# ---- Run, fail, go on ----


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A folder with an experiment that ran until its last stage, which found no pair."""
    folder = tmp_path_factory.mktemp("undisturbed")
    before = Path.cwd()
    os.chdir(folder)
    try:
        write_problems()
        write_recipe(after=[{"pairs": {"name": "none", "max_tokens": 1}}, {"generate": {"name": "more", **GENERATE}}])
        out, errors = ended(start("--config", "recipe.yaml"), status=2)
    finally:
        os.chdir(before)
    return folder, out, errors


def test_stages_run_one_after_the_other_and_say_what_they_do(undisturbed, monkeypatch):
    folder, out, _ = undisturbed
    monkeypatch.chdir(folder)
    assert "out: 5 stages, 1 round; 0 of them are finished." in out
    assert "[1/5] round-1/generate: trl-math generate, to out/round-1/generate-" in out
    assert "    72 samples to draw with scripted; 0 are there." in out, "what a stage says is shown"
    assert "72 samples to draw" in next(Path("out").glob("round-1/generate-*.log")).read_text()
    assert states() == {
        **{f"round-1/{name}": "finished" for name in ("generate", "grade", "pairs")},
        "after/none": "failed",
        "after/more": "to do",
    }
    [rows] = pairs("out").values()
    assert len(rows.splitlines()) > 3


def test_a_stage_that_fails_names_its_log_and_stops_the_run(undisturbed, monkeypatch):
    folder, _, errors = undisturbed
    monkeypatch.chdir(folder)
    [log] = Path("out").glob("after/none-*.log")
    assert f"after/none failed (exit status 2), and the stages behind it were not run. {log} ends with" in errors
    assert "No pair can be built" in errors and "No pair can be built" in log.read_text()
    assert "after/more" not in runs()


def test_only_what_changed_is_to_be_run_again(undisturbed, monkeypatch):
    folder, _, _ = undisturbed
    monkeypatch.chdir(folder)
    there = {"round-1/generate": True, "round-1/grade": True, "round-1/pairs": True}
    rest = {"after/none": False, "after/more": False}
    assert plan_states() == plan_states("generate.data_parallel_size=2") == {**there, **rest}
    assert plan_states("pairs.rule=all") == {**there, "round-1/pairs": False, **rest}
    assert plan_states("grade.deadline=1.0") == {**there, "round-1/grade": False, "round-1/pairs": False, **rest}
    assert not any(plan_states("generate.num_samples=5").values())


@pytest.mark.slow
def test_the_same_command_again_does_nothing_and_another_overwrites_nothing():
    write_recipe()
    ended(start("--config", "recipe.yaml"))
    before = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file() and path.name != "run.json"}
    out, _ = ended(start("--config", "recipe.yaml"))
    assert "3 of them are finished" in out and "[1/3]" not in out
    out, _ = ended(start("--config", "recipe.yaml", "--pairs.rule", "all"))
    assert "[3/3] round-1/pairs" in out and "[2/3]" not in out
    after = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file() and path.name != "run.json"}
    assert before.items() <= after.items() and len(after) > len(before)
    assert runs() == {"round-1/generate": [[0]], "round-1/grade": [[0]], "round-1/pairs": [[0], [0]]}


# ---- Stopped ----


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_told_to_end_the_runner_ends_its_stage_and_says_how_to_go_on(number, capsys):
    write_recipe(round=[{"generate": ENDLESS}])
    process = start_runner()
    wait_for(lambda: num_samples() > 20, process)
    stage = stage_of(process)
    assert main(["run", "--config", "recipe.yaml"]) == 2
    assert "Another process is running out: wait for it, or choose another output." in capsys.readouterr().err
    process.send_signal(number)
    _, errors = ended(process, 128 + number)
    assert "The same command goes on where it stopped." in errors and "Traceback" not in errors
    assert not is_alive(stage)
    assert states() == {"round-1/generate": "stopped"}


@pytest.mark.slow
def test_a_stage_that_is_killed_has_failed():
    write_recipe(round=[{"generate": ENDLESS}])
    process = start_runner()
    wait_for(lambda: num_samples() > 20, process)
    os.kill(stage_of(process), signal.SIGKILL)
    _, errors = ended(process, 128 + signal.SIGKILL)
    assert "round-1/generate failed (ended by SIGKILL)" in errors
    assert states() == {"round-1/generate": "failed"}


def kill(process, *, with_stage):
    """SIGKILL for the runner, and for its stage with all its processes too; return the stage's id."""
    stage = stage_of(process)
    process.kill()
    if with_stage and stage is not None:
        os.killpg(stage, signal.SIGKILL)
    process.communicate()
    return stage


def gone(pid, seconds=60):
    """Whether a process ends."""
    deadline = time.monotonic() + seconds
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_alive(pid)


@pytest.mark.slow
@pytest.mark.parametrize("with_stage", [False, True])
def test_killed_the_pairs_are_the_same(undisturbed, with_stage):
    """The runner alone, which takes its stage with it; or everything."""
    write_recipe()
    process = start_runner()
    wait_for(lambda: stage_of(process) is not None, process)
    time.sleep(random.Random(0).uniform(0.5, 3))
    stage = kill(process, with_stage=with_stage)
    assert stage is None or gone(stage)
    ended(start_runner())
    assert pairs("out") == pairs(undisturbed[0] / "out")
    assert {label: ends.count(0) for label, [ends] in runs().items()} == {
        f"round-1/{name}": 1 for name in ("generate", "grade", "pairs")
    }


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_twenty_times_in_two_rounds_the_pairs_are_the_same(tmp_path):
    """Whole commands, killed at any moment from planning to training; no stage is completed twice."""
    write_recipe(rounds=2, round=[{"generate": {**GENERATE, "problems": 8}}, "grade", {"pairs": PAIRS}, {"dpo": DPO}])
    ended(start("--config", "recipe.yaml", "--output", "whole"))
    lasts = seconds("whole")
    generator = random.Random(1)
    for number in range(20):
        process = start("--config", "recipe.yaml")
        if number % 5 == 4:  # while it plans
            time.sleep(generator.uniform(0, 8))
        else:  # within a stage, or in one of the next
            while stage_of(process) is None and process.poll() is None:
                time.sleep(0.01)
            running = [label for label, state in states().items() if state == "running"]
            time.sleep(generator.uniform(0, 1.5) * lasts[(running or ["round-1/grade"])[0]])
        stage = kill(process, with_stage=bool(number % 2))
        assert stage is None or gone(stage)
    ended(start("--config", "recipe.yaml"))
    assert len(pairs("out")) == 2 and pairs("out") == pairs("whole")
    assert all(ends.count(0) == 1 for all_ends in runs().values() for ends in all_ends)
    assert runs().keys() == runs("whole").keys() and len(runs()) == 8
    assert sum(len(ends) for all_ends in runs().values() for ends in all_ends) > 8, "no kill hit a stage"


def test_the_runner_holds_nothing_that_a_stage_could_want():
    """It waits for days beside stages that use all memory and all GPUs.

    Nor does reading a recipe import what looks at the environment, which the recipe may set (`env`, `--dry-run`).
    """
    code = (
        "import sys, trl_math.cli.main, trl_math.cli.run, trl_math.pipeline.runner, trl_math.pipeline.recipe;"
        "assert not {'torch', 'transformers', 'datasets', 'numpy', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- Refused before anything runs ----


def fails(capsys, message, *words):
    capsys.readouterr()
    assert main(["run", "--config", "recipe.yaml", *words]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("trl-math: ") and message in said[-1], said
    assert not list(Path().glob("out/**/*.log"))


def test_a_recipe_without_gold_answers_is_refused(capsys):
    write_recipe()
    Path("problems.jsonl").write_text('{"problem": "What is 1 + 1?", "answer": null}\n')
    fails(capsys, "No row of 'problems.jsonl' has a final answer")
    Path("problems.jsonl").write_text('{"problem": "What is 1 + 1?"}\n')
    fails(capsys, "Found: problem. Expected a problem")


def test_an_engine_that_is_not_there_is_refused(capsys, monkeypatch):
    from trl_math import optional

    monkeypatch.setattr(optional, "is_installed", lambda package: package != "vllm")
    write_recipe(round=[{"generate": {"backend": "vllm"}}, "grade"])
    fails(capsys, "round-1/generate: backend vllm needs the package 'vllm', which is not installed")


def test_a_mistake_in_a_late_stage_is_found_before_the_first(capsys):
    write_recipe(after=[{"evaluate": {"backend": "scripted", "benchmarks": ["gsm8"]}}])
    fails(capsys, "after/evaluate: Unknown benchmark 'gsm8'. Did you mean 'gsm8k'?")
    write_recipe(round=[{"generate": GENERATE}, {"grade": {"data": "other.jsonl"}}])
    fails(capsys, "round-1/grade: No file or folder 'other.jsonl'")
    write_recipe(after=[{"dpo": {**DPO, "accelerate_config": "zero4"}}])
    fails(capsys, "after/dpo: accelerate_config 'zero4' is neither a file nor one of")


def test_a_folder_of_something_else_is_refused(capsys):
    write_recipe()
    Path("out").mkdir()
    Path("out/notes.txt").write_text("mine")
    fails(capsys, "output out is not empty and holds no run of stages: choose another.")
    Path("file").write_text("mine")
    fails(capsys, "output file is a file: choose another.", "--output", "file")
    fails(capsys, "Cannot write to file/below: Not a directory", "--output", "file/below")


def test_a_dry_run_tells_the_plan_and_writes_nothing(capsys):
    write_recipe(rounds=2, round=[{"generate": {**GENERATE, "problems": 8}}, "grade", "pairs", {"dpo": DPO}])
    assert main(["run", "--config", "recipe.yaml", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "data    problems.jsonl, split train: 12 problems" in out
    assert "8 problems x 6 samples = 48, from problem 9 of 12; pass 2 begins in it" in out
    assert " 1  to do     round-1/generate-" in out
    assert "settings of round 1, dpo: trl-math dpo" in out
    assert out.rstrip().endswith("missing on this machine\n  nothing")
    assert not Path("out").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_smoke():
    """The recipe for a cluster runs here, with pairs in both rounds."""
    write_recipe(
        rounds=5,
        model="Qwen/Qwen2.5-Math-1.5B",
        data="nlile/hendrycks-MATH-benchmark",
        round=[
            {"generate": {"backend": "vllm", "num_samples": 8, "data_parallel_size": 8, "problems": 2000}},
            "grade",
            {"pairs": {"rule": "balanced", "min_pass_rate": 0.1, "max_pass_rate": 0.9}},
            {"dpo": {"accelerate_config": "zero3", "learning_rate": 5e-7}},
        ],
        after=[{"evaluate": {"benchmarks": ["math500"], "backend": "vllm", "num_samples": 16}}],
    )
    out, _ = ended(start("--config", "recipe.yaml", "--smoke"))
    assert "All 9 stages of runs/smoke/recipe-" in out
    assert len(pairs("runs/smoke")) == 2
