"""Trainers of encoder-decoder models for tests: ours, and transformers' own on the same batches."""

import json
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from helpers import products, settings
from safetensors.torch import load_file, save_file
from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments

from trl_math import MathSeq2SeqConfig, MathSeq2SeqTrainer
from trl_math.models import save_tiny_t5, tiny_t5, tiny_t5_tokenizer


HEAD = "lm_head.weight"
ARGUMENTS = ("peft_config", "eval_dataset", "callbacks", "processing_class", "model", "compute_loss_func")


def save_own_head(folder: Any) -> Path:
    """Write a T5 as Flan-T5 is: its head is its own, and its configuration says what it says on the hub."""
    save_tiny_t5(folder)
    weights = load_file(folder / "model.safetensors")
    noise = torch.randn(weights["shared.weight"].shape, generator=torch.Generator().manual_seed(1))
    save_file({**weights, HEAD: 0.05 * noise}, folder / "model.safetensors", metadata={"format": "pt"})
    told = json.loads((folder / "config.json").read_text())
    told.pop("scale_decoder_outputs")
    (folder / "config.json").write_text(json.dumps({**told, "tie_word_embeddings": False}))
    return Path(folder)


def make_seq2seq(folder: Any, dataset: Dataset | None = None, **overrides: Any) -> MathSeq2SeqTrainer:
    """Build our trainer on the tiny T5."""
    arguments = {name: overrides.pop(name) for name in ARGUMENTS if name in overrides}
    arguments.setdefault("processing_class", tiny_t5_tokenizer())
    arguments.setdefault("model", tiny_t5())
    arguments.setdefault("train_dataset", products() if dataset is None else dataset)
    return MathSeq2SeqTrainer(args=MathSeq2SeqConfig(**settings(folder, **overrides)), **arguments)


def make_theirs(folder: Any, dataset: Dataset | None = None, **overrides: Any) -> Seq2SeqTrainer:
    """Build transformers' trainer on the tiny T5, with rows tokenised as its users do."""
    arguments = {name: overrides.pop(name) for name in ARGUMENTS if name in overrides}
    tokenizer = tiny_t5_tokenizer()
    model = arguments.setdefault("model", tiny_t5())

    def tokenize(rows: dict[str, list[str]]) -> dict[str, Any]:
        return tokenizer(text=rows["prompt"], text_target=rows["completion"])

    for name, rows in (("train_dataset", products() if dataset is None else dataset), ("eval_dataset", None)):
        rows = rows if rows is not None else arguments.pop(name, None)
        if rows is not None:
            arguments[name] = rows.map(tokenize, batched=True, remove_columns=rows.column_names)
    return Seq2SeqTrainer(
        args=Seq2SeqTrainingArguments(**settings(folder, **overrides)),
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
        processing_class=tokenizer,
        **arguments,
    )


def trained(trainer: Any) -> Any:
    """Train and return a trainer."""
    trainer.train()
    return trainer
