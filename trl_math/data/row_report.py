"""What tokenised rows are worth before anything is trained on them: truncated, answerless, unfinished, padded."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset

from trl_math.data.columns import listing, sft_format, sft_formats
from trl_math.errors import DataError


# The per-token column that `steps` become; rows that were tokenised elsewhere may bring it along.
STEP_IDS = "step_ids"


class RowReport(NamedTuple):
    """Counts over a tokenised data set, before truncation."""

    num_rows: int = 0
    num_masked: int = 0  # no token is trained
    first_masked: int = -1
    num_truncated: int = 0  # longer than max_length
    num_answerless: int = 0  # of these, the prompt alone fills max_length
    longest: int = 0
    num_ending: int = 0  # an end token is among the last trained tokens
    num_padded: int = 0  # several end tokens are trained at the end: padding that is also EOS

    @property
    def truncated_fraction(self) -> float:
        """Share of rows that lose their end."""
        return self.num_truncated / max(self.num_rows, 1)


def joined_reports(reports: Iterable[RowReport]) -> RowReport:
    """Return the counts over data sets that follow each other."""
    whole = RowReport()
    for report in reports:
        firsts = (whole.first_masked, whole.num_rows + report.first_masked if report.num_masked else -1)
        sums = {name: getattr(whole, name) + getattr(report, name) for name in RowReport._fields}
        first = next((first for first in firsts if first >= 0), -1)
        whole = RowReport(**{**sums, "first_masked": first, "longest": max(whole.longest, report.longest)})
    return whole


def check_columns(dataset: Dataset, name: str, text_field: str = "text", *, needs_steps: bool = False) -> None:
    """Raise a `DataError` for an empty data set, or one without columns that can be trained on."""
    columns = set(dataset.column_names)
    found = f"Found: {listing(sorted(columns))}."
    if len(dataset) == 0:
        raise DataError(f"The {name} data set is empty. {found}")
    if sft_format(columns) is None and text_field not in columns:
        raise DataError(
            f"The {name} data set has no columns to train on. {found} Needed, one of: {sft_formats()}. A "
            "prompt_style makes such rows of problems."
        )
    for column in sorted(columns & {"prompt", "completion", "messages", "steps", text_field}):
        holes = [index for index, value in enumerate(dataset[column]) if value is None]
        if holes:
            raise DataError(f"{len(holes)} rows of the {name} data set have no {column}, the first is row {holes[0]}.")
        if column in ("prompt", "completion", text_field) and not isinstance(dataset[0][column], str | list):
            raise DataError(f"Column {column} of the {name} data set holds {dataset[0][column]!r}, which is not text.")
    if needs_steps and not columns & {"steps", STEP_IDS}:
        raise DataError(
            "coverage_level: step needs a column 'steps' (the completion cut into a list of texts) in the "
            f"{name} data set. {found} Where every row is one step, use coverage_level: sequence."
        )


# A chat template may close a turn with a newline or two after its end token.
NUM_LAST_TOKENS = 4


def before_end(labels: list[int], end_id: int) -> int:
    """Return how many tokens stand before the end token with which labels close; all of them if there is none."""
    last = labels[-NUM_LAST_TOKENS:]
    return len(labels) - len(last) + last.index(end_id) if end_id in last else len(labels)


def report_rows(dataset: Dataset, max_length: int | None, end_ids: Iterable[int]) -> RowReport:
    """Count what is wrong with tokenised rows (`input_ids`, `labels`)."""
    counts = dict.fromkeys(RowReport._fields, 0) | {"first_masked": -1}
    ends = set(end_ids)
    for batch in dataset.select_columns(["input_ids", "labels"]).iter(batch_size=1000):
        for input_ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
            _count_row(counts, len(input_ids), np.asarray(labels), max_length, ends)
    return RowReport(**counts)


def _count_row(counts: dict[str, int], length: int, labels: Any, max_length: int | None, ends: set[int]) -> None:
    targets = labels[1:]  # the first token of a row is never predicted
    trained = targets[targets != -100]
    if not len(trained):
        counts["num_masked"] += 1
        if counts["first_masked"] < 0:
            counts["first_masked"] = counts["num_rows"]
    counts["num_rows"] += 1
    counts["longest"] = max(counts["longest"], length)
    if max_length is not None and length > max_length:
        counts["num_truncated"] += 1
        counts["num_answerless"] += bool(len(trained)) and bool((labels[:max_length] == -100).all())
    last = trained[-NUM_LAST_TOKENS:].tolist()
    counts["num_ending"] += any(token in ends for token in last)
    counts["num_padded"] += len(last) > 1 and last[-1] in ends and last[-2] == last[-1]
