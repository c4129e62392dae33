"""Rows to blocks of tokens, for token files: what `MathSFTTrainer` would train on, some thousands of rows at a time.

The rows go through the trainer's own functions, so that a token file holds its tokens and masks one for one. The
style `original` is that of llm-decontaminator: the tokens of a prompt, those of its solution, the EOS token, and a
loss on all of them. Two differences: the original drops the first token of every solution, on the assumption that it
is a BOS token, and here the solution is tokenised without one; and of rows that are cut, the original keeps no count.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from datasets import Dataset

from trl_math.data.columns import listing
from trl_math.data.row_report import RowReport, check_columns, joined_reports, report_rows
from trl_math.data.token_blocks import IGNORED, Block
from trl_math.errors import DataError, UsageError
from trl_math.trainers.rows import prepare_tokenizer, refuse_report, tokenize_rows, truncated_share
from trl_math.trainers.sft_config import MathSFTConfig


logger = logging.getLogger(__name__)

NUM_ROWS = 5_000  # are tokenised at once
ORIGINAL = "original"
PROMPT, SOLUTION, TEXT = "prompt", "canonical_solution", "text"
# What changes the loss of a row, and has no place in a token file.
HAVE_NO_PLACE = ("weight",)


class Tokenised(NamedTuple):
    """Rows with `input_ids` and `labels`, and whether they ended as a chat template ends them."""

    rows: Dataset
    is_templated: bool


Tokenise = Callable[[Dataset], Tokenised]


class TokenStream:
    """Blocks of tokenised rows, checked as training checks them; what is known afterwards is in `report`."""

    def __init__(self, dataset: Dataset, tokenizer: Any, config: MathSFTConfig, style: str | None) -> None:
        prepare_tokenizer(tokenizer, config)
        self._dataset, self._tokenizer, self._config = dataset, tokenizer, config
        self._tokenise = self._original if style == ORIGINAL else self._as_sft
        self.report = RowReport()
        self.num_dropped = 0
        _check(dataset, config, style)

    def __iter__(self) -> Iterator[Block]:
        reports, is_templated = [], False
        for first in range(0, len(self._dataset), NUM_ROWS):
            part = self._dataset.select(range(first, min(first + NUM_ROWS, len(self._dataset))))
            rows, is_templated = self._tokenise(part)
            reports.append(report_rows(rows, self._config.max_length, [self._tokenizer.eos_token_id]))
            yield self._within_length(rows)
        self.report = joined_reports(reports)
        refuse_report(self.report, self._tokenizer, self._config, "train", is_templated=is_templated)
        if self.report.num_truncated:
            says = "are left out" if self._config.drop_truncated else "lose their end"
            logger.warning("%s and %s.", truncated_share(self.report, self._config, "train"), says)
        if self.num_dropped == self.report.num_rows:
            raise DataError(
                f"{truncated_share(self.report, self._config, 'train')}: nothing is left. Raise max_length."
            )

    def _as_sft(self, part: Dataset) -> Tokenised:
        is_tokenised = "input_ids" in part.column_names
        return Tokenised(tokenize_rows(part, self._tokenizer, self._config, None, "train"), not is_tokenised)

    def _original(self, part: Dataset) -> Tokenised:
        rows = [
            original_row(row, self._tokenizer, self._config.completion_only_loss)
            for row in part.select_columns(_original_columns(part))
        ]
        return Tokenised(Dataset.from_list(rows), False)

    def _within_length(self, rows: Dataset) -> Block:
        """Return rows as truncation leaves them: without those of which nothing is trained any more."""
        limit, kept = self._config.max_length, []
        for ids, labels in zip(rows["input_ids"], rows["labels"], strict=True):
            is_cut = limit is not None and len(ids) > limit
            is_dropped = is_cut and (self._config.drop_truncated or all(label == IGNORED for label in labels[:limit]))
            self.num_dropped += is_dropped
            if not is_dropped:
                kept.append((ids[:limit], labels[:limit]) if is_cut else (ids, labels))
        return Block.of_labels([ids for ids, _ in kept], [labels for _, labels in kept])


def original_row(row: dict[str, Any], tokenizer: Any, is_solution_only: bool | None) -> dict[str, list[int]]:
    """Return ids and labels of a row in the original's way: prompt, solution, EOS token."""
    prompt, solution = (row[PROMPT], row[SOLUTION]) if SOLUTION in row else ("", row[TEXT])
    bos = tokenizer.bos_token_id
    head = [bos] if bos is not None and tokenizer("")["input_ids"][:1] == [bos] else []
    head += tokenizer(prompt, add_special_tokens=False)["input_ids"]
    tail = [*tokenizer(solution, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    return {"input_ids": head + tail, "labels": [IGNORED] * len(head) + tail if is_solution_only else head + tail}


def _check(dataset: Dataset, config: MathSFTConfig, style: str | None) -> None:
    """Raise for rows that cannot be tokenised this way, or would lose what they are to be trained with."""
    if style == ORIGINAL:
        columns = _original_columns(dataset)
        if config.completion_only_loss and SOLUTION not in columns:
            raise UsageError(f"loss: solution needs rows with {PROMPT} and {SOLUTION}; these have {TEXT} alone.")
        for column in columns:
            if holes := [index for index, value in enumerate(dataset[column]) if not isinstance(value, str)]:
                raise DataError(f"{len(holes)} rows have no text in {column}, the first is row {holes[0]}.")
        return
    check_columns(dataset, "train", config.dataset_text_field)
    lost = [column for column in HAVE_NO_PLACE if column in dataset.column_names]
    if lost and len(set(dataset[lost[0]])) > 1:
        raise DataError(
            f"The rows have a {lost[0]}, which token files have no place for: train on the rows themselves, or remove "
            "that column."
        )


def _original_columns(dataset: Dataset) -> list[str]:
    found = dataset.column_names
    columns = next((names for names in ([PROMPT, SOLUTION], [TEXT]) if {*names} <= {*found}), None)
    if columns is None:
        raise DataError(
            f"prompt_style: {ORIGINAL} reads {PROMPT} and {SOLUTION}, or {TEXT}. Found: {listing(sorted(found))}."
        )
    return columns
