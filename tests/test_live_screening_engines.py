"""Live screening beside real engines of vLLM on the CPU, and in several processes.

vLLM binds the threads of its process to cores, so it lives in processes of its own here.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import history, quiet_environment
from live_runs import save_answerer
from safetensors.torch import load_file
from screening_runs import problems, screened
from test_sft_invariance import accelerate, launch_settings, torchrun

from trl_math.optional import is_installed


LAUNCH = Path(__file__).parent / "engine" / "screening_launch.py"
NEEDS_VLLM = pytest.mark.skipif(not is_installed("vllm"), reason="vllm is not installed: no wheel fits this machine")
SAVES = {"save_strategy": "steps", "save_steps": 1}
VLLM = {"screening_engine": "vllm", "screening_engine_params": {"dtype": "float32", "max_num_seqs": 32}}
ROWS = {"rows": ["7585", 22], "max_pass_rate": 0.6, "num_attempts": 2}


@pytest.fixture(scope="module")
def answerer(tmp_path_factory):
    return save_answerer(tmp_path_factory.mktemp("answerer"))


def launch(launcher, *runs, port=0):
    """Train the runs in one start of the launcher, and return the last one's result."""
    for run in runs:
        Path(run["folder"]).mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, *launcher, str(LAUNCH), json.dumps(runs)],
        env={**quiet_environment(), "VLLM_CPU_KVCACHE_SPACE": "1", **({"MASTER_PORT": str(port)} if port else {})},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(Path(runs[-1]["folder"], "result.json").read_text())


def read(folder):
    return json.loads(Path(folder, "result.json").read_text())


def same_files(first, second):
    a, b = (load_file(Path(folder) / "saved" / "model.safetensors") for folder in (first, second))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def of_screening(result):
    """What was logged of screening, without how long it took."""
    return [
        {name: value for name, value in log.items() if name.startswith("screening/") and "seconds" not in name}
        for log in result["logs"]
    ]


@pytest.fixture(scope="module")
def beside_vllm(answerer, tmp_path_factory):
    """A run beside an engine of vLLM, evaluated by the same one; and the same without evaluation, resumed half-way."""
    folder = tmp_path_factory.mktemp("vllm")
    changes = {"answerer": answerer, "max_steps": 6, "screening_trains_on": "own_chain", **ROWS, **SAVES, **VLLM}
    evaluates = {
        "eval_generation_data": f"{answerer}/problems.jsonl",
        "eval_generation_split": "problems",
        "eval_generation_prompt_style": "plain",
        "eval_generation_max_tokens": 4,
        "eval_generation_engine": "vllm",
        "eval_strategy": "steps",
        "eval_steps": 2,
    }
    whole = {"folder": str(folder / "whole"), **changes, **evaluates}
    again = {"folder": str(folder / "again"), "resume": str(folder / "whole" / "checkpoint-3"), **changes}
    launch([], whole, again)
    return folder


@NEEDS_VLLM
@pytest.mark.slow
def test_the_engine_finds_what_the_model_would(answerer, tmp_path):
    """Pass rates of the same problems at the start, by vLLM and by the model itself, differ by chance only."""
    fixed = {"max_steps": 1, "screening_rule": "fixed", "screening_samples": 64, "screening_problems": 22, **ROWS}
    result = launch([], {"folder": str(tmp_path / "vllm"), "answerer": answerer, **fixed, **VLLM})
    (there,) = result["caches"]
    del fixed["rows"]
    here = screened(answerer, tmp_path / "own", problems("7585", 22), **fixed)._screening.cache.estimates
    assert there["estimates"].keys() == here.keys()
    for key, (right, total, *_) in there["estimates"].items():
        assert total == here[key].num_samples == 64
        assert abs(right - here[key].num_correct) < 4.5 * (2 * 16) ** 0.5  # standard deviations of a difference


@NEEDS_VLLM
@pytest.mark.slow
def test_resume_is_exact_beside_an_engine(beside_vllm):
    """Another engine draws what the first would have drawn, and training goes on."""
    whole, again = read(beside_vllm / "whole"), read(beside_vllm / "again")
    assert whole["engine"] == "FollowingEngines"
    assert again["history"] == whole["history"]
    assert again["caches"] == whole["caches"]
    assert same_files(beside_vllm / "whole", beside_vllm / "again")


@NEEDS_VLLM
@pytest.mark.slow
def test_one_engine_serves_evaluation_too(beside_vllm):
    result = read(beside_vllm / "whole")
    assert [log["step"] for log in result["logs"] if "eval_pass@1" in log] == [2, 4, 6]
    assert result["num_engines"] == 1


@pytest.mark.slow
def test_two_processes_are_one(answerer, tmp_path):
    """With half the batch each: the same samples, whoever draws them, the same estimates and the same losses."""
    common = {"max_steps": 6, "screening_trains_on": "own_chain", "screening_samples": 8, **ROWS}
    request = {"answerer": answerer, "folder": str(tmp_path / "two"), "per_device_train_batch_size": 2, **common}
    together = launch(["-m", *torchrun(29861)], request, port=29861)
    first, second = together["caches"]
    assert first == second
    del common["rows"]
    alone = screened(answerer, tmp_path / "alone", problems("7585", 22), **common)
    assert first == alone._screening.cache.as_json()
    assert together["queue"] == alone._refill.state.queue
    expected = [pytest.approx(one, rel=1e-4) for one in history(alone)]
    assert [tuple(one) for one in together["history"]] == expected


@NEEDS_VLLM
@pytest.mark.slow
def test_the_benchmark_prints_its_figure_last(tmp_path):
    script = Path(__file__).parents[1] / "benchmarks" / "screening.py"
    done = subprocess.run(
        [sys.executable, str(script), "--quick", "--folder", str(tmp_path)],
        env=quiet_environment(),
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    *_, before, last = done.stdout.splitlines()
    assert before.startswith("samples: ")
    assert re.fullmatch(r"decisions per second: [\d.]+ against [\d.]+: [\d.]+x", last)


LAUNCHES = {
    "ddp": ("ddp", {}),
    "zero3": ("zero3", {}),
    "zero3, one engine of two, LoRA": ("zero3", {"lora": True, "screening_num_engines": 1}),
}


@NEEDS_VLLM
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "changes", "port"),
    [pytest.param(*launch, 29863 + 2 * number, id=name) for number, (name, launch) in enumerate(LAUNCHES.items())],
)
def test_engines_beside_two_processes(answerer, tmp_path, kind, changes, port):
    """Screening comes before the trainer's first pass; all processes know the same; resume goes on exactly."""
    launcher = torchrun(port) if kind == "ddp" else accelerate(launch_settings(tmp_path), port)
    run = {"answerer": answerer, "max_steps": 5, "per_device_train_batch_size": 2, **ROWS, **SAVES, **VLLM, **changes}
    whole = launch(["-m", *launcher], {**run, "folder": str(tmp_path / "whole")}, port=port)
    assert whole["cut_up"] == (kind == "zero3")
    assert whole["caches"][0] == whole["caches"][1]
    assert whole["caches"][0]["num_calls"] > 1
    resume = {"folder": str(tmp_path / "again"), "resume": str(tmp_path / "whole" / "checkpoint-3")}
    again = launch(["-m", *launcher], {**run, **resume}, port=port)
    assert again["caches"] == whole["caches"]
    assert again["history"][-2:] == whole["history"][-2:]
    assert of_screening(again)[-3:-1] == of_screening(whole)[-3:-1]
