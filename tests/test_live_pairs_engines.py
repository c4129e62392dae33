"""Live pairs beside real engines of vLLM on the CPU, and in several processes.

vLLM binds the threads of its process to cores, so it lives in processes of its own here.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import quiet_environment
from live_runs import live_trainer, log_probability, read_pairs, save_answerer
from safetensors.torch import load_file
from test_sft_invariance import accelerate, launch_settings, torchrun
from transformers import AutoModelForCausalLM

from trl_math.optional import is_installed


LAUNCH = Path(__file__).parent / "engine" / "live_pairs_launch.py"
NEEDS_VLLM = pytest.mark.skipif(not is_installed("vllm"), reason="vllm is not installed: no wheel fits this machine")
SAVES = {"save_strategy": "steps", "save_steps": 1}
VLLM = {"live_engine": "vllm", "live_engine_params": {"dtype": "float32", "max_num_seqs": 8}}


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


def logged(result, name):
    return {log["step"]: log[f"live/{name}"] for log in result["logs"] if f"live/{name}" in log}


def same_files(first, second):
    a, b = (load_file(Path(folder) / "saved" / "model.safetensors") for folder in (first, second))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def beside_vllm(answerer, tmp_path_factory):
    """A run beside an engine of vLLM, and the same resumed in the middle of its second span, by another engine.

    The first is evaluated too, by the same engine; the second is not.
    """
    folder = tmp_path_factory.mktemp("vllm")
    changes = {"answerer": answerer, "max_steps": 5, **SAVES, **VLLM}
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
def test_the_engine_samples_from_the_current_weights(beside_vllm, answerer):
    """In every refresh the engine's log-probabilities are those of the checkpoint of that step."""
    for step, pairs in read_pairs(beside_vllm / "whole").items():
        weights = beside_vllm / "whole" / f"checkpoint-{step}" if step else f"{answerer}/model"
        model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32)
        assert len(pairs) >= 8
        for pair in pairs:
            for side in ("chosen", "rejected"):
                found = log_probability(model, pair["prompt_ids"], pair[f"{side}_ids"])
                assert found == pytest.approx(pair[f"{side}_logprob"], abs=1e-3)


@NEEDS_VLLM
def test_training_sees_what_the_engine_said(beside_vllm):
    """After every refresh the two agree within 1e-3 for every token; a step later the policy has moved."""
    result = json.loads((beside_vllm / "whole" / "result.json").read_text())
    assert result["engine"] == "FollowingEngines"
    assert list(logged(result, "parity")) == [1, 3, 5]
    assert max(logged(result, "parity_max").values()) < 1e-3
    drift = logged(result, "drift")
    assert drift[2] > 10 * drift[1]


@NEEDS_VLLM
def test_resume_is_exact_beside_an_engine(beside_vllm):
    """Mid-span and through a refresh: another engine draws what the first would have drawn, and training goes on."""
    whole, again = beside_vllm / "whole", beside_vllm / "again"
    assert same_files(whole, again)
    assert read_pairs(again) == {step: pairs for step, pairs in read_pairs(whole).items() if step > 3}
    assert read_pairs(again)


@NEEDS_VLLM
def test_one_engine_serves_evaluation_too(beside_vllm):
    result = json.loads((beside_vllm / "whole" / "result.json").read_text())
    assert [log["step"] for log in result["logs"] if "eval_pass@1" in log] == [2, 4, 5]
    assert result["num_engines"] == 1


@pytest.mark.slow
@pytest.mark.timeout(1900)
def test_the_example_runs_as_written():
    """It needs no arguments, and says what became of held-out problems."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parents[1] / "examples" / "dpo_math.py")],
        env={**quiet_environment(), "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    before, after = map(float, re.search(r"pass@1 of (\S+) before, (\S+) after", done.stdout).groups())
    assert 0 < before <= 1
    assert 0 < after <= 1
    assert list(read_pairs("runs/examples/dpo_math")) == [0, 6]


@pytest.mark.slow
def test_two_processes_are_one(answerer, tmp_path):
    """With half the batch each: the same pairs, whoever samples them, and the same losses."""
    alone = live_trainer(answerer, tmp_path / "alone", per_device_train_batch_size=4)
    alone.train()
    request = {"answerer": answerer, "folder": str(tmp_path / "two"), "per_device_train_batch_size": 2}
    together = launch(["-m", *torchrun(29841)], request, port=29841)
    assert read_pairs(tmp_path / "two") == _near(read_pairs(tmp_path / "alone"))
    losses = [log["loss"] for log in alone.state.log_history if "loss" in log]
    assert [log["loss"] for log in together["logs"] if "loss" in log] == pytest.approx(losses, rel=1e-5)
    assert together["states"][0] == together["states"][1]


def _near(refreshes):
    return {step: [_Near(pair) for pair in pairs] for step, pairs in refreshes.items()}


class _Near(dict):
    """A pair that equals another up to the rounding of log-probabilities."""

    def __eq__(self, other):
        return self.keys() == other.keys() and all(
            value == (pytest.approx(other[name], abs=1e-4) if name.endswith("logprob") else other[name])
            for name, value in self.items()
        )

    __hash__ = None


LAUNCHES = {
    "ddp": ("ddp", {}),
    "zero3": ("zero3", {}),
    "zero3, one engine of two, LoRA": ("zero3", {"lora": True, "live_num_engines": 1}),
}


@NEEDS_VLLM
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "changes", "port"),
    [pytest.param(*launch, 29843 + 2 * number, id=name) for number, (name, launch) in enumerate(LAUNCHES.items())],
)
def test_engines_beside_two_processes(answerer, tmp_path, kind, changes, port):
    """The first pairs come before the trainer's first pass; all processes hold one buffer; resume goes on exactly."""
    launcher = torchrun(port) if kind == "ddp" else accelerate(launch_settings(tmp_path), port)
    run = {"answerer": answerer, "max_steps": 5, "per_device_train_batch_size": 1, **SAVES, **VLLM, **changes}
    whole = launch(["-m", *launcher], {**run, "folder": str(tmp_path / "whole")}, port=port)
    assert whole["cut_up"] == (kind == "zero3")
    assert whole["states"][0] == whole["states"][1]
    assert list(logged(whole, "parity")) == [1, 3, 5]
    assert max(logged(whole, "parity_max").values()) < 1e-3
    resume = {"folder": str(tmp_path / "again"), "resume": str(tmp_path / "whole" / "checkpoint-3")}
    again = launch(["-m", *launcher], {**run, **resume}, port=port)
    assert read_pairs(tmp_path / "again") == {4: read_pairs(tmp_path / "whole")[4]}
    assert [log for log in again["logs"] if "loss" in log][-2:] == [log for log in whole["logs"] if "loss" in log][-2:]
