"""Rows for encoder-decoder models, before the model is there: tokenised, counted, checked, given their step numbers.

A row's prompt is what the encoder reads (`encoder_ids`). On the decoder's side it looks like a decoder's row whose
prompt is a single token (`input_ids`, `labels`), so that steps are numbered and weights spread by the functions that
do it for decoders.
"""

import logging
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from trl_math.data.columns import listing
from trl_math.data.row_report import check_columns
from trl_math.errors import DataError, UsageError
from trl_math.generation.encoder_decoder import IGNORED
from trl_math.generation.tokenise import all_prompt_token_ids, target_token_ids
from trl_math.trainers.rows import add_step_ids, without_ends
from trl_math.trainers.segments import STEP_IDS
from trl_math.trainers.seq2seq_config import MathSeq2SeqConfig
from trl_math.trainers.sft_weights import usable_rows


logger = logging.getLogger(__name__)

ENCODER_IDS = "encoder_ids"
NEEDED = ("prompt", "completion")


def ready_rows(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    config: MathSeq2SeqConfig,
    name: str,
    *,
    is_training: bool,
) -> Dataset:
    """Return tokenised, checked, step-numbered rows, cut to `max_length`; raise a `DataError` for what is wrong."""
    check_texts(dataset, name, config)
    dataset = usable_rows(dataset, config, name, is_training=is_training)
    check_tokenizer(tokenizer)
    rows = tokenize_rows(dataset, tokenizer, config)
    _check_targets(rows, tokenizer, config, name)
    rows = without_ends(rows, tokenizer.eos_token_id, config, name)
    rows = _within_length(rows, config, name)
    if config.coverage_level == "step" and STEP_IDS not in rows.column_names:
        rows = add_step_ids(rows, tokenizer, config)
    rows = _cut(rows, config)
    return rows.shuffle(seed=config.seed) if config.shuffle_dataset else rows


def check_texts(dataset: Dataset, name: str, config: MathSeq2SeqConfig) -> None:
    """Raise unless the rows have prompts and completions that are texts."""
    check_columns(dataset, name, config.dataset_text_field, needs_steps=config.coverage_level == "step")
    missing = [column for column in NEEDED if column not in dataset.column_names]
    if missing:
        raise DataError(
            f"An encoder-decoder model needs a prompt and a completion in every row, and the {name} data set has no "
            f"{' and no '.join(missing)}. Found: {listing(sorted(dataset.column_names))}."
        )
    if not all(isinstance(dataset[0][column], str) for column in NEEDED):
        raise DataError(
            f"The {name} data set has conversations, and an encoder-decoder model reads texts: use a plain "
            "prompt_style."
        )


def check_tokenizer(tokenizer: Any) -> None:
    """Raise for a tokenizer that cannot end a completion or fill up a batch."""
    if tokenizer.eos_token_id is None:
        raise UsageError("The tokenizer has no EOS token, so the model could never learn to stop.")
    if tokenizer.pad_token_id is None:
        raise UsageError("The tokenizer has no pad token, which a batch of prompts of several lengths needs.")


def tokenize_rows(dataset: Dataset, tokenizer: Any, config: MathSeq2SeqConfig) -> Dataset:
    """Return the rows with the tokens of both sides, whole: no truncation."""

    def tokenize(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        targets = target_token_ids(tokenizer, batch["completion"])
        return {
            ENCODER_IDS: all_prompt_token_ids(tokenizer, batch["prompt"]),
            "input_ids": [[tokenizer.pad_token_id, *ids] for ids in targets],
            "labels": [[IGNORED, *ids] for ids in targets],
        }

    return dataset.map(tokenize, batched=True, num_proc=config.dataset_num_proc, desc="Tokenizing")


def _check_targets(rows: Dataset, tokenizer: Any, config: MathSeq2SeqConfig, name: str) -> None:
    """Raise for empty sides, and for too many rows with what the tokenizer cannot write, as T5's no braces."""
    unknown = tokenizer.unk_token_id
    empty, unwritable = [], []
    for index, row in enumerate(rows.select_columns([ENCODER_IDS, "input_ids", *NEEDED])):
        if len(row["input_ids"]) < 3 or not row[ENCODER_IDS]:  # the start, and the end, token alone
            empty.append(index)
        if unknown is not None and unknown in row["input_ids"][1:]:
            unwritable.append(index)
    if empty:
        raise DataError(
            f"{len(empty)} of {len(rows)} rows of the {name} data set have no token to train on or no prompt, the "
            f"first is row {empty[0]}: is the completion empty?"
        )
    if unwritable:
        _handle_unwritable(rows, unwritable, tokenizer, config, name)


def _handle_unwritable(
    rows: Dataset, unwritable: list[int], tokenizer: Any, config: MathSeq2SeqConfig, name: str
) -> None:
    """Count the rows that would teach the model to write the unknown token; refuse too many of them."""
    first = rows[unwritable[0]]["completion"]
    lost = sorted({text for text in first if tokenizer.unk_token_id in tokenizer(text_target=text)["input_ids"]})
    share = (
        f"{len(unwritable)} of {len(rows)} rows ({len(unwritable) / len(rows):.1%}) of the {name} data set have "
        f"completions with characters that the tokenizer does not have (row {unwritable[0]}: "
        f"{' '.join(map(repr, lost)) or 'unknown ones'})"
    )
    if len(unwritable) > config.max_unwritable_fraction * len(rows):
        raise DataError(
            f"{share}: the model would learn to write {tokenizer.unk_token} in their place, and no answer with them "
            f"could ever be right. At most {config.max_unwritable_fraction:.1%} may be: use a prompt_style without "
            "them, write the rows in other characters, or raise max_unwritable_fraction."
        )
    logger.warning("%s, and teach the model to write %s in their place.", share, tokenizer.unk_token)


def longest_sides(rows: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of tokens of each row's prompt, and of its completion with its end token."""
    prompts, targets = [], []
    for batch in rows.select_columns([ENCODER_IDS, "labels"]).iter(batch_size=1000):
        prompts += [len(ids) for ids in batch[ENCODER_IDS]]
        targets += [len(ids) - 1 for ids in batch["labels"]]
    return np.array(prompts), np.array(targets)


def _within_length(rows: Dataset, config: MathSeq2SeqConfig, name: str) -> Dataset:
    """Count rows that `max_length` would cut; refuse too many of them, or leave them out if asked."""
    limit = config.max_length
    if limit is None:
        return rows
    prompts, targets = longest_sides(rows)
    is_cut = (prompts > limit) | (targets > limit)
    if not is_cut.any():
        return rows
    share = (
        f"{is_cut.sum()} of {len(rows)} rows ({is_cut.mean():.1%}) of the {name} data set are longer than max_length "
        f"{limit} ({(prompts > limit).sum()} prompts, the longest of {prompts.max()} tokens, and "
        f"{(targets > limit).sum()} completions, the longest of {targets.max()})"
    )
    if config.drop_truncated:
        if is_cut.all():
            raise DataError(f"{share}: nothing is left of it. Raise max_length.")
        logger.warning("%s and are left out.", share)
        return rows.select(np.flatnonzero(~is_cut))
    if is_cut.mean() > config.max_truncated_fraction:
        raise DataError(
            f"{share}: without its end a prompt does not ask, and a completion teaches the model never to stop. At "
            f"most {config.max_truncated_fraction:.1%} may be: raise max_length, set drop_truncated: true, or raise "
            "max_truncated_fraction."
        )
    logger.warning("%s and lose their end.", share)
    return rows


def _cut(rows: Dataset, config: MathSeq2SeqConfig) -> Dataset:
    """Return rows of which each side has at most `max_length` tokens."""
    limit = config.max_length
    if limit is None:
        return rows
    prompts, targets = longest_sides(rows)
    if prompts.max() <= limit and targets.max() <= limit:
        return rows
    columns = [column for column in ("input_ids", "labels", STEP_IDS) if column in rows.column_names]

    def cut(row: dict[str, Any]) -> dict[str, Any]:
        return {ENCODER_IDS: row[ENCODER_IDS][:limit], **{name: row[name][: limit + 1] for name in columns}}

    return rows.map(cut, num_proc=config.dataset_num_proc, desc="Truncating")
