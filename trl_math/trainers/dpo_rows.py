"""Pairs before training: tokenised by TRL or taken as token ids, checked, counted. Nothing here needs the model.

Rows that bring `prompt_ids`, `chosen_ids` and `rejected_ids` are the tokens that were sampled, and are trained on as
they are: no second tokenisation, which may cut words elsewhere, and no end token for an answer that never ended.
"""

import copy
import logging
from types import SimpleNamespace
from typing import NamedTuple

from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl import DPOTrainer

from trl_math.data.columns import listing
from trl_math.data.pair_check import SAME, TOKENS, Check, check_pair_columns, refuse_rows
from trl_math.errors import DataError, UsageError
from trl_math.trainers.dpo_config import MathDPOConfig
from trl_math.trainers.dpo_references import REFERENCES
from trl_math.trainers.pair_collator import LOSS_WEIGHT, MASKS, PAIR_BETA, PAIR_MARGIN, PASS_RATE
from trl_math.trainers.pair_rows import PairScale, pass_rates, schedule_columns, schedule_scale


logger = logging.getLogger(__name__)

SHOWN = 5
NUMBERS = (LOSS_WEIGHT, PAIR_BETA, PAIR_MARGIN)


class PairReport(NamedTuple):
    """Which rows of a tokenised data set are too long."""

    truncated: list[int]  # an answer loses its end
    answerless: list[int]  # of these, those in which no trained token of an answer is left
    longest: int


def ready_pairs(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    config: MathDPOConfig,
    name: str,
    scale: PairScale | None = None,
) -> tuple[Dataset, PairScale]:
    """Return tokenised, checked rows with their scheduled numbers, or raise a `DataError` that says what is wrong.

    Also return what the schedules were divided by: the rows' own means, or the given ones (of the training rows).
    """
    check_pair_columns(dataset, name)
    if not set(TOKENS) <= set(dataset.column_names):
        dataset = tokenize_pairs(dataset, tokenizer, config, name)
    _check_tokens(dataset, len(tokenizer), name)
    dataset = _check_references(dataset, config, name)
    _check_samplers(dataset, config, name)
    dataset = _fit(dataset, config, name)
    if config.anchor == "coverage_pass_rate":
        pass_rates(dataset, "anchor: coverage_pass_rate")
    dataset = _without_numbers(dataset, name)
    scale = scale or schedule_scale(dataset, config)
    dataset = schedule_columns(dataset, config, scale)
    if PASS_RATE in dataset.column_names and None in dataset[PASS_RATE]:
        dataset = dataset.remove_columns(PASS_RATE)  # only logged, and not for some rows alone
    return dataset, scale


def tokenize_pairs(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, config: MathDPOConfig, name: str) -> Dataset:
    """Return the rows with `prompt_ids`, `chosen_ids` and `rejected_ids` as TRL makes them, none of them left out.

    TRL's method needs a trainer for its tokenizer only, so a stand-in does while no model is loaded.
    """
    if tokenizer.eos_token is None:
        raise UsageError("The tokenizer has no EOS token, so the model could never learn to stop.")
    whole = copy.copy(config)
    whole.max_length = None
    return DPOTrainer._prepare_dataset(SimpleNamespace(_tokenizer=tokenizer), dataset, tokenizer, whole, name)


def _check_tokens(dataset: Dataset, num_tokens: int, name: str) -> None:
    """Raise for token ids that are missing, no tokens or the same, and for masks that do not fit them."""
    vocabulary = f"outside of the tokenizer's vocabulary (0 to {num_tokens - 1}): is it another model's?"
    checks = [Check((column,), lambda ids: ids is None, f"have no {column}") for column in TOKENS]
    checks += [
        Check(
            (column,),
            lambda ids: bool(ids) and not 0 <= min(ids) <= max(ids) < num_tokens,
            f"have {column} {vocabulary}",
        )
        for column in TOKENS
    ]
    checks += [Check((answer,), lambda ids: not ids, f"have empty {answer}") for answer in TOKENS[1:]]
    checks.append(Check(TOKENS[1:], lambda chosen, rejected: chosen == rejected, SAME))
    refuse_rows(dataset, [*checks, *_mask_checks(dataset, name)], name)


def _mask_checks(dataset: Dataset, name: str) -> list[Check]:
    """Return the checks of loss masks, if there are any: one 0 or 1 for each token, and something left to train."""
    present = [mask for mask in MASKS if mask in dataset.column_names]
    if len(present) == 1:
        raise DataError(f"The {name} data set has {present[0]} alone: both answers have masks, or none.")
    checks = []
    for ids, mask in zip(TOKENS[1:], present, strict=False):
        fits = f"have no {mask} with a 0 or 1 for each of {ids}"
        checks.append(Check((ids, mask), lambda tokens, kept: kept is None or len(tokens) != len(kept), fits))
        checks.append(Check((mask,), lambda kept: not set(kept) <= {0, 1}, fits))
        checks.append(
            Check((mask,), lambda kept: not any(kept), f"have no token to train on in {ids} ({mask} is all 0)")
        )
    return checks


def _check_references(dataset: Dataset, config: MathDPOConfig, name: str) -> Dataset:
    """Keep reference log-probabilities that all rows bring, drop those that some do, refuse those that go unused."""
    present = [column for column in REFERENCES if column in dataset.column_names]
    if not present:
        return dataset
    if len(present) < len(REFERENCES) or any(None in dataset[column] for column in present):
        return dataset.remove_columns(present)
    if not config.precompute_ref_log_probs:
        raise DataError(
            f"The {name} data set brings {listing(REFERENCES)}, which only precompute_ref_log_probs: true uses: set "
            "it, or drop the columns."
        )
    return dataset


def _without_numbers(dataset: Dataset, name: str) -> Dataset:
    """Drop what the trainer computes itself: columns of a data set that was prepared before, or of a user's."""
    present = [column for column in NUMBERS if column in dataset.column_names]
    if present:
        logger.warning(
            "The %s data set brings %s, which the trainer computes itself: not used. A row's own weight is the column "
            "'weight'.",
            name,
            listing(present),
        )
    return dataset.remove_columns(present)


def _check_samplers(dataset: Dataset, config: MathDPOConfig, name: str) -> None:
    found = set(dataset["sampler"]) if "sampler" in dataset.column_names else set()
    # Of a pair whose answers two samplers gave, both are named.
    samplers = sorted({sampler for each in found for sampler in str(each).split("|")})
    if len(samplers) > 1 and not config.mixed_samplers:
        raise DataError(
            f"The {name} data set has pairs of {len(samplers)} samplers ({listing(map(str, samplers[:SHOWN]))}): "
            "other models, templates or ways of sampling. Train on one, or set mixed_samplers: true."
        )


def report_lengths(dataset: Dataset, max_length: int) -> PairReport:
    """Find the rows that `max_length` cuts."""
    truncated, answerless, longest = [], [], 0
    for index, row in enumerate(dataset.select_columns([c for c in (*TOKENS, *MASKS) if c in dataset.column_names])):
        start = len(row["prompt_ids"])
        lengths = [start + len(row[answer]) for answer in TOKENS[1:]]
        longest = max(longest, *lengths)
        if max(lengths) > max_length:
            truncated.append(index)
            left = [(row.get(mask) or [1] * len(row[answer])) for answer, mask in zip(TOKENS[1:], MASKS, strict=True)]
            if not all(any(mask[: max(max_length - start, 0)]) for mask in left):
                answerless.append(index)
    return PairReport(truncated, answerless, longest)


def _fit(dataset: Dataset, config: MathDPOConfig, name: str) -> Dataset:
    """Count what `max_length` cuts, refuse it above a share, leave out what has no answer left (as TRL does)."""
    if config.max_length is None or config.truncation_mode != "keep_start":
        return dataset
    report = report_lengths(dataset, config.max_length)
    if not report.truncated:
        return dataset
    fraction = len(report.truncated) / len(dataset)
    share = (
        f"{len(report.truncated)} of {len(dataset)} pairs ({fraction:.1%}) of the {name} data set are longer than "
        f"max_length {config.max_length} (longest: {report.longest} tokens; in {len(report.answerless)} nothing of an "
        "answer fits)"
    )
    if not config.drop_truncated and fraction > config.max_truncated_fraction:
        raise DataError(
            f"{share}: an answer without its end teaches the wrong thing. At most {config.max_truncated_fraction:.1%} "
            "may be: raise max_length, set drop_truncated: true, or raise max_truncated_fraction."
        )
    left_out = set(report.truncated if config.drop_truncated else report.answerless)
    if len(left_out) == len(dataset):
        raise DataError(f"{share}: nothing is left of it. Raise max_length.")
    what = "are left out" if config.drop_truncated else "lose an end, those without an answer are left out"
    logger.warning("%s and %s.", share, what)
    kept = [index for index in range(len(dataset)) if index not in left_out]
    return dataset.select(kept) if left_out else dataset
