"""Engines that follow training, for real: vLLM on the CPU, the 135M model, optimiser steps, two processes of ZeRO-3.

vLLM binds the threads of its process to cores, so it lives in processes of its own here.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import quiet_environment
from test_sft_invariance import accelerate, launch_settings, torchrun

from trl_math.models import resolve_model
from trl_math.optional import is_installed


pytestmark = [
    pytest.mark.skipif(not is_installed("vllm"), reason="vllm is not installed: no wheel fits this machine"),
    # Over a minute; of the suite without slow tests, test_live_pairs_engines follows training with a small model.
    pytest.mark.slow,
]
SCRIPTS = Path(__file__).parent / "engine"
PROMPTS = ["What is 17 + 25?", "The capital of France is", "1, 2, 3,"]


def run(words, **environment):
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        env={**quiet_environment(), "VLLM_CPU_KVCACHE_SPACE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What one process with a trainer and an engine found: one run for all tests, since engines start slowly."""
    file = tmp_path_factory.mktemp("follow") / "found.json"
    run([SCRIPTS / "follow_training.py", file])
    return json.loads(file.read_text())


def test_greedy_parity_before_training(found):
    engine, model = found["before"]
    assert engine == model


def test_greedy_parity_after_optimiser_steps(found):
    engine, model = found["after"]
    assert engine == model
    assert engine != found["before"][0]


def test_greedy_parity_through_lora_merged_into_a_copy(found):
    engine, model = found["lora_merged"]
    assert engine == model
    assert engine != found["after"][0]


def test_the_base_model_keeps_its_bits(found):
    """Exchanges of a LoRA model leave its base weights as they were, however many there are."""
    assert found["base_untouched"]


def test_greedy_parity_through_adapters(found):
    """On an engine whose base was exchanged before: adapter, changed adapter of the same folder, merged again."""
    assert all(engine == model for engine, model in found["lora_adapter"])
    said = [engine for engine, _ in found["lora_adapter"]]
    assert said[0] != said[1] != said[2]


def test_logprobs_are_the_model_s_own(found):
    assert found["sampled_logprob_difference"] < 1e-3
    assert found["sampled_ids_end_or_fill"]
    assert max(found["parity"]) < 1e-3


def test_a_stale_engine_is_noticed(found):
    """A model that changed since the exchange fails the probe, or warns."""
    assert "does not follow the model" in found["stale_engine"]["fail"]
    assert found["stale_engine"]["warn"] is False


def test_training_keeps_its_random_state(found):
    """Neither an exchange nor sampling draws from the trainer's random numbers."""
    assert found["random_state_is_training's"]


def test_the_example_runs_as_written(tmp_path):
    run([SCRIPTS.parents[1] / "examples" / "sample_while_training.py"], OMP_NUM_THREADS="2")


LAUNCHES = {
    # The 135M model, cut up by ZeRO-3, an engine in each process.
    "zero3": ("embedded:smollm2-135m-instruct", "zero3", None, {}),
    "zero3, LoRA merged": ("embedded:tiny", "zero3", "merged", {}),
    "zero3, adapter": ("embedded:tiny", "zero3", "adapter", {}),
    # One engine whose two pieces are the two processes.
    "zero3, one engine of two": ("embedded:tiny", "zero3", None, {"num_engines": 1}),
    "two processes, one engine of two": ("embedded:tiny", "ddp", "merged", {"tensor_parallel_size": 2}),
}


@pytest.mark.parametrize(
    ("model", "kind", "exchange", "layout", "port"),
    [pytest.param(*launch, 29811 + 2 * number, id=name) for number, (name, launch) in enumerate(LAUNCHES.items())],
)
def test_two_processes(tmp_path, model, kind, exchange, layout, port):
    request = {
        "output_dir": str(tmp_path / "out"),
        "model": model,
        "exchange": exchange,
        "layout": layout,
        "prompts": PROMPTS,
        "max_tokens": 16,
        "settings": {"max_steps": 2, "per_device_train_batch_size": 2, "learning_rate": 1e-3 if exchange else 1e-4},
    }
    launcher = accelerate(launch_settings(tmp_path), port) if kind == "zero3" else torchrun(port)
    run(["-m", *launcher, SCRIPTS / "follow_launch.py", json.dumps(request)], MASTER_PORT=str(port))
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["everyone"] == [[len(PROMPTS), True], [0, True]]
    assert result["cut_up"] == (kind == "zero3")
    assert result["tokens"] == greedy(resolve_model(model), tmp_path / "out", exchange is not None)


def greedy(base, saved, is_adapter):
    """What `generate` of transformers says of the model that was saved."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base if is_adapter else saved, dtype=torch.float32)
    if is_adapter:
        model = PeftModel.from_pretrained(model, str(saved))
    tokens = []
    for text in PROMPTS:
        ids = tokenizer(text, return_tensors="pt")
        output = model.generate(**ids, max_new_tokens=16, do_sample=False)
        tokens.append(output[0, ids["input_ids"].shape[1] :].tolist())
    return tokens
