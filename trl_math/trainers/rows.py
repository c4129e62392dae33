"""Rows before training: tokenised by TRL, counted, checked, given their step numbers. Nothing here needs the model.

TRL tokenises inside its trainer, after it has loaded the model. The same method is called here on a stand-in that has
the three attributes it reads, so that a data set that cannot work is refused before a model is loaded, and the rows
are tokenised once.
"""

import copy
import logging
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl import SFTTrainer, pack_dataset
from trl.chat_template_utils import get_training_chat_template, has_generation_markers

from trl_math.data.columns import UNFINISHED
from trl_math.data.row_report import RowReport, before_end, check_columns, report_rows
from trl_math.errors import DataError, UsageError
from trl_math.trainers.screening_rows import check_prompts
from trl_math.trainers.segments import STEP_IDS
from trl_math.trainers.sft_config import MathSFTConfig
from trl_math.trainers.sft_weights import usable_rows
from trl_math.trainers.token_file_rows import checked_token_rows, packed_in


logger = logging.getLogger(__name__)


def prepare_tokenizer(tokenizer: PreTrainedTokenizerBase, config: MathSFTConfig) -> None:
    """Apply the configured EOS token and chat template file; refuse a tokenizer that cannot end a sequence."""
    if config.eos_token is not None:
        if config.eos_token not in tokenizer.get_vocab():
            raise UsageError(f"eos_token {config.eos_token!r} is not in the tokenizer's vocabulary.")
        tokenizer.eos_token = config.eos_token
    if tokenizer.eos_token is None:
        raise UsageError("The tokenizer has no EOS token, so the model could never learn to stop: set eos_token.")
    if config.chat_template_path is not None and os.path.isfile(config.chat_template_path):
        with open(config.chat_template_path, encoding="utf-8") as file:
            tokenizer.chat_template = file.read()


def ready_rows(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    config: MathSFTConfig,
    formatting_func: Callable[[dict], str] | None,
    name: str,
    *,
    is_training: bool | None = None,
) -> Dataset:
    """Return tokenised, checked and step-numbered rows, or raise a `DataError` that says what is wrong with them.

    Unless said, rows are those to train on if their name is `train`; an evaluation set may have that name too.
    """
    if formatting_func is None:
        check_columns(dataset, name, config.dataset_text_field, needs_steps=config.coverage_level == "step")
    is_training = name == "train" if is_training is None else is_training
    dataset = usable_rows(dataset, config, name, is_training=is_training)
    prepare_tokenizer(tokenizer, config)
    dataset = checked_token_rows(dataset, tokenizer, config, name)
    is_templated = "input_ids" not in dataset.column_names and formatting_func is None
    rows = tokenize_rows(dataset, tokenizer, config, formatting_func, name)
    rows = without_ends(rows, tokenizer.eos_token_id, config, name)
    rows = check_rows(rows, tokenizer, config, name, is_templated=is_templated)
    if is_training and config.is_screened_live:
        check_prompts(rows)
    if config.coverage_level == "step" and STEP_IDS not in rows.column_names:
        rows = add_step_ids(rows, tokenizer, config)
    return rows


def tokenize_rows(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    config: MathSFTConfig,
    formatting_func: Callable[[dict], str] | None,
    name: str,
) -> Dataset:
    """Return the rows with `input_ids` and `labels` as TRL makes them, neither truncated nor packed nor shuffled."""
    columns = dataset.column_names
    has_pairs = "prompt" in columns and "completion" in columns
    needs_template = config.assistant_only_loss and not has_generation_markers(tokenizer.chat_template)
    stand_in = SimpleNamespace(
        _tokenizer=tokenizer,
        completion_only_loss=has_pairs if config.completion_only_loss is None else config.completion_only_loss,
        chat_template=get_training_chat_template(tokenizer) if needs_template else None,
    )
    untouched = copy.copy(config)
    untouched.max_length, untouched.shuffle_dataset = None, False
    return SFTTrainer._prepare_dataset(stand_in, dataset, tokenizer, untouched, False, formatting_func, name)


def without_ends(rows: Dataset, end_id: int, config: MathSFTConfig, name: str) -> Dataset:
    """Return tokenised rows, those whose completion is marked as unfinished without the end token behind it.

    A sample that ran out of tokens would teach the model to stop in the middle of a sentence. What a chat template
    writes behind the end of a turn goes with it.
    """
    num_open = sum(map(bool, rows[UNFINISHED])) if UNFINISHED in rows.column_names else 0
    if num_open == 0:
        return rows
    if num_open == len(rows):
        raise DataError(
            f"All {num_open} rows of the {name} data set are unfinished: none would teach the model to stop."
        )
    logger.warning("%d of %d rows of the %s data set are unfinished and get no end token.", num_open, len(rows), name)
    columns = [column for column in ("input_ids", "labels", STEP_IDS) if column in rows.column_names]

    def cut(row: dict[str, Any]) -> dict[str, list[int]]:
        length = before_end(row["labels"], end_id) if row[UNFINISHED] else len(row["labels"])
        return {column: row[column][:length] for column in columns}

    return rows.map(cut, num_proc=config.dataset_num_proc, desc="Leaving out ends")


def check_rows(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, config: MathSFTConfig, name: str, *, is_templated: bool
) -> Dataset:
    """Raise for tokenised rows that would teach the wrong thing; return those that are left to train on."""
    cuts = (not config.packing or config.packing_strategy == "bfd") and config.truncation_mode == "keep_start"
    max_length = config.max_length if cuts else None
    report = report_rows(dataset, max_length, [tokenizer.eos_token_id])
    refuse_report(report, tokenizer, config, name, is_templated=is_templated)
    if report.num_truncated:
        return _handle_truncation(dataset, report, config, name)
    return dataset


def refuse_report(
    report: RowReport, tokenizer: PreTrainedTokenizerBase, config: MathSFTConfig, name: str, *, is_templated: bool
) -> None:
    """Raise for rows of which too many would teach the wrong thing, before any is cut or left out."""
    if report.num_masked:
        raise DataError(
            f"{report.num_masked} of {report.num_rows} rows of the {name} data set have no token to train on (all "
            f"labels are -100), the first is row {report.first_masked}: is the completion empty?"
        )
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id) and report.num_padded:
        raise DataError(
            f"{report.num_padded} of {report.num_rows} rows of the {name} data set train on padding: the pad token is "
            "the EOS token, and several stand at the end of the labels. Set the labels of padding to -100."
        )
    if is_templated and not report.num_ending:
        raise DataError(
            f"No row of the {name} data set trains the EOS token {tokenizer.eos_token!r}, so the model would never "
            "stop: the chat template ends its turns with another token. Set eos_token to that one."
        )
    if not config.drop_truncated and report.truncated_fraction > config.max_truncated_fraction:
        raise DataError(
            f"{truncated_share(report, config, name)}: without their end they teach the model never to stop. At most "
            f"{config.max_truncated_fraction:.1%} may be: raise max_length, set drop_truncated: true, or raise "
            "max_truncated_fraction."
        )


def truncated_share(report: RowReport, config: MathSFTConfig, name: str) -> str:
    """Say how many rows are too long."""
    return (
        f"{report.num_truncated} of {report.num_rows} rows ({report.truncated_fraction:.1%}) of the {name} data set "
        f"are longer than max_length {config.max_length} (longest: {report.longest} tokens; in "
        f"{report.num_answerless} the prompt alone fills it)"
    )


def _handle_truncation(dataset: Dataset, report: RowReport, config: MathSFTConfig, name: str) -> Dataset:
    share = truncated_share(report, config, name)
    if config.drop_truncated:
        logger.warning("%s and are left out.", share)
        limit = config.max_length
        kept = dataset.filter(lambda row: len(row["input_ids"]) <= limit, num_proc=config.dataset_num_proc)
        if len(kept) == 0:
            raise DataError(f"{share}: nothing is left of it. Raise max_length.")
        return kept
    logger.warning("%s and lose their end.", share)
    return dataset


def add_step_ids(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, config: MathSFTConfig) -> Dataset:
    """Add the per-token column `step_ids` to tokenised rows that have `steps`."""

    def number(row: dict[str, Any], index: int) -> dict[str, list[int]]:
        return {STEP_IDS: step_ids(row["input_ids"], row["labels"], row["steps"], tokenizer, index)}

    return dataset.map(number, with_indices=True, num_proc=config.dataset_num_proc, desc="Numbering steps")


def step_ids(
    input_ids: list[int], labels: list[int], steps: list[str], tokenizer: PreTrainedTokenizerBase, index: int
) -> list[int]:
    """Return 0 on the prompt and k on the tokens of the k-th step; what is around the steps belongs to the nearest.

    A boundary is found by decoding ever longer beginnings of the completion (by bisection), which needs no offsets
    and works for every tokenizer that can decode. A token across a boundary belongs to the earlier step.
    """
    start = next(position for position, label in enumerate(labels) if label != -100)
    completion = input_ids[start:]
    text, joined = tokenizer.decode(completion), "".join(steps)
    # Some tokenizers do not decode a leading space, so the steps are looked for without theirs.
    lead = text.find(joined.lstrip()) if joined.strip() else -1
    if lead < 0:
        raise DataError(
            f"Row {index}: the steps, joined, are not the completion. Steps begin with {joined[:60]!r}, the "
            f"completion with {text[:60]!r}. Keep the white space between steps inside them."
        )
    end = lead - (len(joined) - len(joined.lstrip()))
    numbers, position = [0] * start, 0
    for number, step in enumerate(steps, start=1):
        end += len(step)
        boundary = _num_tokens_for(completion, text[: max(end, 0)], position, tokenizer)
        numbers += [number] * (boundary - position)
        position = boundary
    return numbers + [len(steps)] * (len(completion) - position)


def _num_tokens_for(ids: list[int], beginning: str, low: int, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return how many tokens it takes to write `beginning`, at least `low`; half a character is not yet written."""
    high = len(ids)
    while low < high:
        middle = (low + high) // 2
        if tokenizer.decode(ids[:middle]).startswith(beginning):
            high = middle
        else:
            low = middle + 1
    return low


def pack_rows(dataset: Dataset, columns: tuple[str, ...], config: MathSFTConfig) -> Dataset:
    """Pack as TRL does (truncate, shuffle if asked, best fit), with our per-token columns kept beside the ids."""
    dataset = dataset.select_columns(["input_ids", "labels", *columns])
    if config.shuffle_dataset:
        dataset = dataset.shuffle(seed=config.seed)
    how = {"num_proc": config.dataset_num_proc, **packed_in(dataset, config)}
    dataset = pack_dataset(dataset, config.max_length, config.packing_strategy, how)
    return dataset.shuffle(seed=config.seed) if config.shuffle_dataset else dataset
