"""Live pairs on a tiny model that answers 7 or 8 by chance, so that every problem has right and wrong samples."""

import json
from pathlib import Path

import torch
from datasets import Dataset
from helpers import make_trainer, settings

from trl_math.models.tiny import tiny_tokenizer
from trl_math.trainers import MathDPOConfig, MathDPOTrainer


NUM_PROBLEMS = 24


def save_answerer(folder: Path) -> str:
    """Train the tiny model to answer 7 or 8, and to stop; write it and the problems, whose answer is 7 or 8."""
    rows = [{"prompt": f"{i}=", "completion": "78"[(i * 7 + i // 3) % 2]} for i in range(96)]
    trainer = make_trainer(folder / "training", Dataset.from_list(rows), max_steps=60, learning_rate=5e-3)
    trainer.train()
    trainer.model.save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    problems = [{"id": f"p{i}", "problem": f"{i}=", "answer": "78"[i % 2]} for i in range(100, 100 + NUM_PROBLEMS)]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in problems))
    return str(folder)


def live_settings(answerer: str, folder: Path, **overrides):
    """Settings of a live run: spans of two steps of four pairs."""
    live = {
        "live_data": f"{answerer}/problems.jsonl",
        "live_prompt_style": "plain",
        "live_every": 2,
        "live_problems": 4,
        "live_num_samples": 4,
        "live_max_tokens": 3,
        "max_length": 64,
        "max_steps": 6,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-3,
        "model_init_kwargs": {"dtype": "float32"},
    }
    return settings(folder, **{**live, **overrides})


def live_trainer(answerer: str, folder: Path, **overrides):
    """A trainer of live pairs. Trainer arguments are taken out of `overrides`."""
    names = ("peft_config", "eval_dataset", "callbacks", "model")
    arguments = {"model": f"{answerer}/model"} | {name: overrides.pop(name) for name in names if name in overrides}
    return MathDPOTrainer(args=MathDPOConfig(**live_settings(answerer, folder, **overrides)), **arguments)


def read_pairs(folder: Path) -> dict[int, list[dict]]:
    """The pairs of every refresh, by the step at which it was."""
    files = (Path(folder) / "live_pairs").glob("step-*.jsonl")
    return dict(sorted((int(file.stem.split("-")[1]), read_rows(file)) for file in files))


def read_rows(file) -> list[dict]:
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


@torch.no_grad()
def log_probability(model, prompt_ids, answer_ids) -> float:
    """What a model says of an answer's tokens behind a prompt, in full logits."""
    ids = torch.tensor([[*prompt_ids, *answer_ids]])
    logps = model.eval()(ids).logits.double().log_softmax(-1)[0, len(prompt_ids) - 1 : -1]
    return logps.gather(1, torch.tensor(answer_ids)[:, None]).sum().item()
