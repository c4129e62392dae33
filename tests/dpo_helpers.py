"""Pairs to train on, and trainers of them, ours or TRL's own."""

from typing import Any

import torch
from datasets import Dataset
from helpers import settings
from trl import DPOConfig, DPOTrainer

from trl_math.models.tiny import save_tiny, tiny_tokenizer
from trl_math.trainers import MathDPOConfig, MathDPOTrainer


def pairs(num_rows: int = 16) -> Dataset:
    """Right and wrong products as texts, of ragged length, with pass rates."""
    return Dataset.from_list(
        [
            {
                "prompt": f"{i}*{i + 3}=",
                "chosen": f" {i * (i + 3)}" + "!" * (i % 4),
                "rejected": f" {i * (i + 3) + 1}" + "?" * (i % 3),
                "problem_id": str(i),
                "pass_rate": (i % 7 + 1) / 8,
            }
            for i in range(num_rows)
        ]
    )


def sampled_pairs(num_rows: int = 16, *, masks: bool = True) -> Dataset:
    """The same as token ids: the last rejected answers never ended, and some tokens are a tool's output."""
    tokenizer, rows = tiny_tokenizer(), []
    for i, row in enumerate(pairs(num_rows)):
        chosen = tokenizer(row["chosen"])["input_ids"] + [tokenizer.eos_token_id]
        rejected = tokenizer(row["rejected"])["input_ids"] + [tokenizer.eos_token_id] * (i % 2)
        row |= {"prompt_ids": tokenizer(row["prompt"])["input_ids"], "chosen_ids": chosen, "rejected_ids": rejected}
        if masks:
            row["chosen_mask"] = [int(position % 3 != 1) for position in range(len(chosen))]
            row["rejected_mask"] = [int(position != 1) for position in range(len(rejected))]
        rows.append(row)
    return Dataset.from_list(rows)


def make_dpo_trainer(folder: Any, dataset: Any = None, *, plain_trl: bool = False, **overrides: Any) -> Any:
    """Build our trainer, or TRL's own, on the tiny model by its name; its arguments are taken out of `overrides`."""
    names = ("peft_config", "eval_dataset", "callbacks", "model", "ref_model", "data_collator", "train_dataset")
    arguments = {name: overrides.pop(name) for name in names if name in overrides}
    trainer_class, config_class = (DPOTrainer, DPOConfig) if plain_trl else (MathDPOTrainer, MathDPOConfig)
    arguments.setdefault("train_dataset", pairs() if dataset is None else dataset)
    if "model" not in arguments:
        arguments["model"] = str(save_tiny(f"{folder}-model"))
        overrides.setdefault("model_init_kwargs", {"dtype": "float32"})
    arguments.setdefault("processing_class", tiny_tokenizer())
    return trainer_class(args=config_class(**settings(folder, **overrides)), **arguments)


def trained_dpo(folder: Any, *args: Any, **overrides: Any) -> Any:
    """Build a trainer and train it."""
    trainer = make_dpo_trainer(folder, *args, **overrides)
    trainer.train()
    return trainer


def first_loss(trainer: Any, batch: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
    """Return the loss of the first batch (or the given one), with its graph, while the model is in training mode."""
    batch = batch if batch is not None else next(iter(trainer.get_train_dataloader()))
    trainer.model.train()
    return trainer.compute_loss(trainer.model, batch)
