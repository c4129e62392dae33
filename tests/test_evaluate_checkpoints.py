"""Whatever training left is evaluated by the same command: the 135M model, real training, real vLLM on the CPU."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import quiet_environment
from test_sft_invariance import launch_settings
from transformers import AutoModelForCausalLM, AutoTokenizer

from trl_math.evaluation.graded_file import read_graded
from trl_math.models import resolve_model
from trl_math.optional import is_installed


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not is_installed("vllm"), reason="vllm is not installed: no wheel fits this machine"),
]
BASE = "embedded:smollm2-135m-instruct"
KINDS = ("plain", "lora", "zero3")


def command(*words, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "trl_math.cli.main", *map(str, words)],
        env={**quiet_environment(), "VLLM_CPU_KVCACHE_SPACE": "1", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module", params=KINDS)
def checkpoint(request, tmp_path_factory):
    """The folder that two steps of training left."""
    folder = tmp_path_factory.mktemp(request.param)
    more = {
        "plain": [],
        "lora": ["--use_peft", "true", "--lora_r", "8", "--lora_target_modules", "all-linear"],
        "zero3": ["--accelerate_config", launch_settings(folder)],
    }[request.param]
    settings = ["--model_name_or_path", BASE, "--dataset_name", "reasoning_gym:products?size=16", "--prompt_style"]
    settings += ["chat_direct", "--max_steps", "2", "--per_device_train_batch_size", "2", "--learning_rate", "1e-4"]
    settings += ["--use_cpu", "true", "--bf16", "false", "--report_to", "none", "--output_dir", folder / "out"]
    command("sft", *settings, *more, MASTER_PORT="29861")
    return request.param, folder / "out"


def greedy(kind, folder, prompts, number):
    """What transformers says of what was saved."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(
        resolve_model(BASE) if kind == "lora" else folder, dtype=torch.float32
    )
    if kind == "lora":
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(folder))
    found = []
    for prompt in prompts:
        ids = tokenizer.apply_chat_template(
            prompt, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        output = model.generate(**ids, max_new_tokens=number, do_sample=False, repetition_penalty=1.0)
        found.append(output[0, ids["input_ids"].shape[1] :].tolist())
    return found


def test_a_checkpoint_is_evaluated_without_conversion(checkpoint, tmp_path):
    kind, folder = checkpoint
    words = ["--benchmarks", "arithmetic", "--max-problems", "4", "--max-tokens", "16", "--dtype", "float32"]
    command("evaluate", "--model", folder, "--backend", "vllm", *words, "--output", tmp_path / "run")
    rows = sorted(read_graded(tmp_path / "run" / "samples.jsonl"), key=lambda row: row["problem_id"])
    expected = greedy(kind, folder, [row["prompt"] for row in rows], 16)
    assert [row["completion_ids"] for row in rows] == expected
    [result] = json.loads((tmp_path / "run" / "summary.json").read_text())["results"]
    assert result["num_problems"] == 4 and result["engine"] == "vllm"


def test_killed_with_vllm_it_goes_on(tmp_path):
    """100 problems x 8 samples of the 135M model, ended by SIGKILL in the middle."""
    words = ["evaluate", "--model", BASE, "--benchmarks", "arithmetic", "--max-problems", "100", "--num-samples", "8"]
    words += ["--max-tokens", "24", "--backend", "vllm", "--output", tmp_path / "run"]
    file = tmp_path / "run" / "arithmetic" / "completions.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "trl_math.cli.main", *map(str, words)],
        env={**quiet_environment(), "VLLM_CPU_KVCACHE_SPACE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while process.poll() is None and (not file.exists() or file.read_bytes().count(b"\n") < 300):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    there = file.read_bytes().count(b"\n")
    assert 300 <= there < 800
    said = command(*words)
    assert f"{800 - there} samples to draw" in said
    keys = [(row["problem_id"], row["sample_index"]) for row in read_graded(tmp_path / "run" / "samples.jsonl")]
    assert len(keys) == len(set(keys)) == 800
    [result] = json.loads(Path(tmp_path, "run", "summary.json").read_text())["results"]
    assert result["num_samples"] == 800 and result["metrics"]["pass@8"]["n"] == 100
