"""Live screening on a tiny model that answers 7 or 8 by chance: a problem is solved half of the time, or never."""

import torch
from datasets import Dataset
from helpers import make_trainer
from transformers import AutoModelForCausalLM

from trl_math.models.tiny import tiny_tokenizer


NUM_ROWS = 24
LIVE = {
    "objective": "coverage",
    "num_attempts": 16,
    "coverage_from": "pass_rate",
    "max_pass_rate": 0.1,
    "screening": "live",
    "screening_samples": 16,
    "screening_max_tokens": 3,
    "screening_engine": "transformers",
    "learning_rate": 1e-5,
    "max_length": 64,
}


def problems(answers="75", number=NUM_ROWS, solution="{}"):
    """Rows whose gold answers take turns: `7` is the model's answer half of the time, `5` never."""
    golds = [answers[i % len(answers)] for i in range(number)]
    return Dataset.from_list(
        [
            {"prompt": f"{i}=", "completion": solution.format(gold), "answer": gold}
            for i, gold in enumerate(golds, start=100)
        ]
    )


def screening_trainer(answerer, folder, rows=None, **overrides):
    """A trainer with live screening of the answerer, by the model itself unless the settings say otherwise."""
    model = overrides.pop("model", None)
    if model is None:
        model = AutoModelForCausalLM.from_pretrained(f"{answerer}/model", dtype=torch.float32)
    rows = problems() if rows is None else rows
    return make_trainer(folder, rows, model=model, **{**LIVE, **overrides})


def screened(answerer, folder, rows=None, resume=None, **overrides):
    """Build such a trainer and train it."""
    trainer = screening_trainer(answerer, folder, rows, **overrides)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def texts(steps):
    """The texts of the rows of each step, as `seen_rows` returns them."""
    tokenizer = tiny_tokenizer()
    return [[tokenizer.decode(list(row)) for row in step] for step in steps]


def logged(trainer, name):
    """What was logged under a name, by step."""
    return {log["step"]: log[name] for log in trainer.state.log_history if name in log}
