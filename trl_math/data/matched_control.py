"""The control of a difficulty schedule: as many training rows as it leaves, drawn without regard to difficulty.

A schedule changes which rows are trained on and how many there are; a run without it differs in both. Its control
differs in the first only. Every row stands equally often, the number below or above by systematic rounding, seeded, so
that there are as many rows and optimiser steps as with the schedule. What the schedule leaves alone the control leaves
alone too: rows of exempt sources stand once, and with `difficulty_per_source` each source has as many rows as the
schedule gives it. Weights that the data bring are the data's: the control has them as they are, and not the
schedule's.

Only rows that are trained on count, with the schedule and in the control: none of weight 0 in the data, and none that
the trainer leaves out afterwards (longer than `max_length` with `drop_truncated`, solved as often as `max_pass_rate`).
Hard problems tend to be long, so that fewer of the schedule's rows than of all rows may be left.

For the same reason as many rows need not be as much text. Both amounts are told, in characters, which need no
tokenizer; `matched_control_by: characters` holds the text equal instead, and then the steps differ.
"""

import json
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset

from trl_math.data.difficulty_schedule import (
    DifficultySchedule,
    own_weights,
    row_counts,
    row_groups,
    rows_by_copies,
    systematic_copies,
)
from trl_math.errors import DataError


logger = logging.getLogger(__name__)

MATCHED_BY = ("rows", "characters")
_MARK = "matched control: "  # how the description of a control begins


class Budget(NamedTuple):
    """What a schedule trains on, and what its control does."""

    rows: int
    characters: int
    control_rows: int
    control_characters: int

    @property
    def gap(self) -> float:
        """How much more text the control has, as a share of the schedule's."""
        return self.control_characters / self.characters - 1 if self.characters else 0.0

    def __str__(self) -> str:
        return (
            f"{self.control_rows:,} rows of {self.control_characters:,} characters; the schedule: {self.rows:,} rows "
            f"of {self.characters:,} characters ({self.gap:+.1%} text in the control)"
        )


def control_rows(
    rows: Dataset,
    texts: Dataset,
    schedule: DifficultySchedule,
    seed: int,
    by: str = "rows",
    is_trained: np.ndarray | None = None,
) -> Dataset:
    """Return the control's rows, which know their `budget_of`.

    Args:
        rows: All rows, with what the schedule reads.
        texts: The same rows as they are trained on.
        schedule: Whose control this is.
        seed: Of the rounding, the schedule's and the control's.
        by: What is held equal.
        is_trained: Which rows the trainer would train on; all, if unset.
    """
    is_left = np.ones(len(rows), dtype=bool) if is_trained is None else is_trained
    weights = own_weights(rows, "train")
    if weights is not None:
        is_left = is_left & (weights > 0)
    counts = row_counts(rows, schedule, seed) * is_left
    if counts.sum() == 0:
        raise DataError(
            f"Of the rows that difficulty_schedule: {schedule.name} leaves, none is trained on (by their weights, "
            "max_length and max_pass_rate), so there is nothing to match."
        )
    lengths = np.array([num_characters(row) for row in texts], dtype=np.int64)
    copies = uniform_copies(counts, lengths, _left_of(row_groups(rows, schedule), is_left), seed, by)
    if copies.sum() == 0:
        raise DataError(f"matched_control_by: {by} leaves the control of {len(rows)} rows none: match it by rows.")
    budget = Budget(int(counts.sum()), int(lengths @ counts), int(copies.sum()), int(lengths @ copies))
    logger.warning("difficulty_schedule: %s has a matched control of %s.", schedule.name, budget)
    control = rows_by_copies(texts, copies)
    control.info.description = _MARK + json.dumps(budget._asdict())
    return control


def uniform_copies(
    counts: np.ndarray, lengths: np.ndarray, groups: list[np.ndarray], seed: int, by: str = "rows"
) -> np.ndarray:
    """Return how often each row stands in the control: in each group all equally often, but for rounding.

    Args:
        counts: How often the schedule has each row.
        lengths: Of the rows' texts.
        groups: The rows (whether each is in it) that share a mean; rows in none keep their count.
        seed: Of the rounding.
        by: What is the schedule's in each group, the number of rows or their text.
    """
    copies = counts.copy()
    for members in groups:
        sizes = lengths[members] if by == "characters" else np.ones(members.sum())
        mean = (sizes @ counts[members]) / sizes.sum() if sizes.sum() else 0.0
        copies[members] = systematic_copies(np.full(members.sum(), mean), seed)
    return copies


def _left_of(groups: list[np.ndarray], is_left: np.ndarray) -> list[np.ndarray]:
    return [members & is_left for members in groups]


def num_characters(row: Mapping[str, Any]) -> int:
    """Return how much text a row shows the model, in whichever of TRL's formats it is."""
    return sum(_length(row[name]) for name in ("prompt", "completion", "messages", "text") if name in row)


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    return sum(len(str(turn.get("content") or "")) for turn in value or () if isinstance(turn, Mapping))


def budget_of(rows: Any) -> Budget | None:
    """Return what a control knows of its budget, also after its rows were tokenised; None for other rows."""
    description = getattr(getattr(rows, "info", None), "description", None) or ""
    return Budget(**json.loads(description.removeprefix(_MARK))) if description.startswith(_MARK) else None
