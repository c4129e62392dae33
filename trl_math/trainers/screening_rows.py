"""What live screening needs of training rows: a gold answer that can be read, and a prompt to ask."""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset

from trl_math.data.answers import answer_kind, answer_text
from trl_math.data.columns import ANSWER_KINDS, listing
from trl_math.data.load import GOLD_COLUMNS
from trl_math.errors import DataError, pick
from trl_math.grading import grade


# Of the columns that say what is right, all but this one may be missing.
ANSWER = "answer"


def gold_answer(row: Mapping[str, Any]) -> tuple[str, str, Sequence[str] | None]:
    """Return a row's gold answer, how it is compared, and the choices, if there are any."""
    answer, choices = answer_text(row[ANSWER]), row.get("choices") or None
    kind = row.get("answer_kind") or answer_kind(answer, "", choices=choices is not None, boxed=False)
    return answer or "", pick("answer_kind", kind, ANSWER_KINDS), choices


def check_gold_answers(rows: Dataset) -> None:
    """Raise unless each training row has a gold answer that samples can be compared with."""
    asking = "screening: live grades samples of each training row's problem against its gold answer"
    if ANSWER not in rows.column_names:
        raise DataError(
            f"{asking}, and the rows have no column {ANSWER!r}: add it, or give problems and a prompt_style. "
            f"Found: {listing(rows.column_names)}."
        )
    found = rows.select_columns([column for column in GOLD_COLUMNS if column in rows.column_names])
    wrong = [index for index, row in enumerate(found) if not _is_readable(row)]
    if wrong:
        raise DataError(
            f"{asking}, and {len(wrong)} of {len(rows)} rows have none that can be read: the first is row {wrong[0]} "
            f"with {found[wrong[0]][ANSWER]!r}. Add the answers, or remove these rows."
        )


def check_prompts(rows: Dataset) -> None:
    """Raise unless each tokenised row has tokens before those that are trained on: the prompt that is asked."""
    wrong = [index for index, row in enumerate(rows.select_columns(["input_ids", "labels"])) if not prompt_of(row)]
    if wrong:
        raise DataError(
            f"screening: live asks each row's prompt, and {len(wrong)} of {len(rows)} rows have none, the first is "
            f"row {wrong[0]}: all of their tokens are trained on. Give rows with prompt and completion."
        )


def prompt_of(row: Mapping[str, Any]) -> list[int]:
    """Return the tokens of a tokenised row before the first that is trained on."""
    labels = row["labels"]
    end = next((place for place, label in enumerate(labels) if label != -100), len(labels))
    return list(row["input_ids"][:end])


def _is_readable(row: Mapping[str, Any]) -> bool:
    answer, kind, choices = gold_answer(row)
    return bool(answer) and grade("", answer, kind, choices=choices).correct is not None
