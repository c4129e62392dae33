"""Which solved problems stand before a few-shot prompt: the same for everyone who asks with the same seed.

Rows are ranked by a hash of the seed and their text, and the first ones are taken. So the choice does not depend on
the order of the rows, and leaving a problem out changes no other choice.
"""

import hashlib
from collections.abc import Iterable
from typing import Any

import datasets

from trl_math.data.columns import listing
from trl_math.data.problems import without_problems
from trl_math.data.prompts import PromptStyle
from trl_math.errors import DataError, UsageError


def choose_shots(
    rows: datasets.Dataset,
    num_shots: int,
    seed: int,
    style: PromptStyle,
    exclude: datasets.Dataset | Iterable[str],
) -> list[dict[str, Any]]:
    """Return `num_shots` rows for `style.with_shots`, none of which is a problem in `exclude`.

    `exclude`: the problems that will be asked (problems, or their texts), compared without regard to case and white
    space. Rows that lack what the style needs are passed over.
    """
    if num_shots < 0:
        raise UsageError(f"num_shots must be 0 or above, got {num_shots}.")
    if num_shots == 0:
        return []
    needed = tuple(dict.fromkeys(("problem", *style.columns)))
    if missing := [column for column in needed if column not in rows.column_names]:
        raise DataError(
            f"Shots need the columns {listing(needed)}; there is no {' and no '.join(missing)}. "
            f"Found: {listing(rows.column_names)}."
        )
    others, _ = without_problems(rows, exclude)
    usable = {row["problem"]: row for row in others if all(row[column] for column in needed)}
    if len(usable) < num_shots:
        raise DataError(
            f"{num_shots} shots were asked for, and {len(usable)} of {len(rows)} rows can be one: the others are "
            f"being asked, or lack one of {listing(needed)}. Take shots from another set (the training split), or "
            "fewer."
        )
    return sorted(usable.values(), key=lambda row: _rank(seed, row["problem"]))[:num_shots]


def _rank(seed: int, problem: str) -> str:
    return hashlib.sha256(f"{seed}\n{problem}".encode()).hexdigest()
