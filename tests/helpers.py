"""Small things that many tests train on."""

import json
import os
import subprocess
import sys
from typing import Any

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from trl_math import MathSFTConfig, MathSFTTrainer
from trl_math.models.tiny import tiny_model, tiny_tokenizer


def products(num_rows: int = 24) -> Dataset:
    """Products as prompt and completion, of ragged length."""
    return Dataset.from_list(
        [{"prompt": f"{i}*{i + 3}=", "completion": f" {i * (i + 3)}" + "!" * (i % 5)} for i in range(num_rows)]
    )


def proofs(num_rows: int = 16) -> Dataset:
    """Completions of two to four steps each."""
    rows = []
    for i in range(num_rows):
        steps = [f"step {j} of {i}. " for j in range(2 + i % 3)]
        rows.append({"prompt": f"Prove {i}: ", "completion": "".join(steps), "steps": steps})
    return Dataset.from_list(rows)


def settings(folder: Any, **overrides: Any) -> dict[str, Any]:
    """Trainer settings for a CPU test in float32."""
    return {
        "output_dir": str(folder),
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "logging_steps": 1,
        "max_steps": 3,
        "per_device_train_batch_size": 4,
        "save_strategy": "no",
        "learning_rate": 1e-3,
        "disable_tqdm": True,
        "gradient_checkpointing": False,
    } | overrides


def make_trainer(folder: Any, dataset: Dataset | None = None, *, plain_trl: bool = False, **overrides: Any) -> Any:
    """Build our trainer, or TRL's own, on the tiny model. Trainer arguments are taken out of `overrides`."""
    names = (
        "peft_config",
        "eval_dataset",
        "callbacks",
        "processing_class",
        "model",
        "data_collator",
        "formatting_func",
    )
    arguments = {name: overrides.pop(name) for name in names if name in overrides}
    trainer_class, config_class = (SFTTrainer, SFTConfig) if plain_trl else (MathSFTTrainer, MathSFTConfig)
    arguments.setdefault("processing_class", tiny_tokenizer())
    arguments.setdefault("model", tiny_model(arguments["processing_class"]))
    arguments.setdefault("train_dataset", products() if dataset is None else dataset)
    return trainer_class(args=config_class(**settings(folder, **overrides)), **arguments)


def history(trainer: Any, *keys: str) -> list[tuple]:
    """Return what was logged at every step, by default loss and gradient norm."""
    keys = keys or ("loss", "grad_norm")
    return [tuple(log[key] for key in keys) for log in trainer.state.log_history if keys[0] in log]


def trained(folder: Any, *args: Any, **overrides: Any) -> Any:
    """Build a trainer and train it."""
    trainer = make_trainer(folder, *args, **overrides)
    trainer.train()
    return trainer


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    """Return a copy of the trainable weights."""
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}


def same_weights(first: Any, second: Any) -> bool:
    """Whether two trainers ended with the same bits."""
    a, b = weights(first), weights(second)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def quiet_environment() -> dict[str, str]:
    """Environment for a subprocess: no network, no telemetry, one thread, wandb offline."""
    return {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "WANDB_MODE": "offline",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def run_processes(script, launcher, folder, port, **request):
    """Train in processes of their own and return what they wrote."""
    folder.mkdir(exist_ok=True)
    request = {"output_dir": str(folder), **request}
    done = subprocess.run(
        [sys.executable, "-m", *launcher, str(script), json.dumps(request)],
        env={**quiet_environment(), "MASTER_PORT": str(port)},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "result.json").read_text())
