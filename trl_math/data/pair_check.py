"""Whether a data set holds pairs that can be trained on, as far as that shows before anything is tokenised."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from datasets import Dataset

from trl_math.data.columns import listing
from trl_math.errors import DataError


# Token ids of prompt and answers as they were sampled; rows that bring them are not tokenised again.
TOKENS = ("prompt_ids", "chosen_ids", "rejected_ids")
ANSWERS = ("chosen", "rejected")
SAME = "have the same chosen and rejected answer"


class Check(NamedTuple):
    """What a row must not be: a test of the values of some columns, and how a message goes on."""

    columns: tuple[str, ...]
    is_wrong: Callable[..., bool]
    what: str


def check_pair_columns(dataset: Dataset, name: str) -> None:
    """Raise for a data set without pairs, and for rows whose texts are missing, empty or the same."""
    columns = set(dataset.column_names)
    found = f"Found: {listing(sorted(columns))}."
    if len(dataset) == 0:
        raise DataError(f"The {name} data set is empty. {found}")
    if set(TOKENS) <= columns:
        return
    some = columns & set(TOKENS)
    if some:
        missing = listing(sorted(set(TOKENS) - columns))
        raise DataError(f"The {name} data set has {listing(sorted(some))} without {missing}: token ids come together.")
    if not set(ANSWERS) <= columns:
        raise DataError(
            f"The {name} data set has no pairs. {found} Needed: prompt, chosen and rejected, or {listing(TOKENS)}. "
            "`trl-math pairs` makes such rows of graded samples."
        )
    given = [column for column in ("prompt", *ANSWERS) if column in columns]
    checks = [Check((column,), lambda text: text is None, f"have no {column}") for column in given]
    checks += [Check((column,), lambda text: not text, f"have an empty {column} answer") for column in ANSWERS]
    checks.append(Check(ANSWERS, lambda chosen, rejected: chosen == rejected, SAME))
    refuse_rows(dataset, checks, name)


def refuse_rows(dataset: Dataset, checks: Sequence[Check], name: str) -> None:
    """Raise a `DataError` for the first check that some rows fail, with their number and the first of them.

    One pass, in batches. A row that fails a check is not shown to the next ones, which may rely on it.
    """
    wrong: list[list[int]] = [[] for _ in checks]
    needed = sorted({column for check in checks for column in check.columns})
    index = 0
    for batch in dataset.select_columns(needed).iter(batch_size=1000):
        for values in zip(*(batch[column] for column in needed), strict=True):
            row = dict(zip(needed, values, strict=True))
            failed = (n for n, check in enumerate(checks) if check.is_wrong(*(row[c] for c in check.columns)))
            first = next(failed, None)
            if first is not None:
                wrong[first].append(index)
            index += 1
    for check, rows in zip(checks, wrong, strict=True):
        if rows:
            raise DataError(
                f"{len(rows)} of {index} rows of the {name} data set {check.what}; the first is row {rows[0]}."
            )
