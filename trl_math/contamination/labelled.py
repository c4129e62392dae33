"""Pairs of texts of which it is known whether one is the other in other words: what detectors are measured on.

    {"pair_id": "gsm8k-test-7/light", "test": "...", "train": "...", "is_contaminated": true, "kind": "paraphrase"}

A row may have the scores that something else gave it, in columns of its own. A pair of which a text is empty is no
pair: it is left out and counted, whatever its label says.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from trl_math.data.columns import FROM_0, listing
from trl_math.errors import DataError


REQUIRED = ("test", "train", "is_contaminated")
NO_KIND = "unnamed"
NUM_EXAMPLES = 5


class LabelledPairs(NamedTuple):
    """Pairs with their labels. `columns`: scores that came with them, NaN where there is none."""

    ids: list[str]
    test: list[str]
    train: list[str]
    labels: np.ndarray  # of bool: contaminated
    kinds: list[str]
    columns: dict[str, np.ndarray]
    facts: dict[str, Any]

    @property
    def groups(self) -> np.ndarray:
        """The number of each pair's test item, in an order that depends on the texts alone."""
        places = {text: place for place, text in enumerate(sorted(set(self.test)))}
        return np.array([places[text] for text in self.test], dtype=np.int64)

    def halves(self, seed: int) -> np.ndarray:
        """Return which pairs are in the half that measures; the pairs of a test item are in one half."""
        texts = sorted(set(self.test), key=lambda text: hashlib.sha256(f"{seed}\n{text}".encode()).digest())
        second = set(texts[len(texts) // 2 :])
        return np.array([text in second for text in self.test], dtype=bool)


def read_pairs(
    rows: Iterable[Mapping[str, Any]], score_columns: Sequence[str] = (), source: str = "the pairs"
) -> LabelledPairs:
    """Return labelled pairs; raise for rows that are none, and unless there are some of either label."""
    pairs = LabelledPairs([], [], [], np.zeros(0, dtype=bool), [], {}, {})
    labels: list[bool] = []
    scores: dict[str, list[float]] = {name: [] for name in score_columns}
    blanks: list[str] = []
    seen: dict[str, int] = {}
    kinds: Counter[str] = Counter()
    number = -1
    for number, row in enumerate(rows):
        _check_row(row, number, source)
        pair_id = f"pair-{number}" if row.get("pair_id") in (None, "") else str(row["pair_id"])
        if pair_id in seen:
            raise DataError(
                f"The pair_id {pair_id!r} is that of rows {seen[pair_id]} and {number} of {source}. {FROM_0}"
            )
        seen[pair_id] = number
        kind = str(row.get("kind") or NO_KIND)
        if not (row["test"] or "").strip() or not (row["train"] or "").strip():
            blanks.append(pair_id)
            kinds[kind] += 1
            continue
        pairs.ids.append(pair_id)
        pairs.test.append(row["test"])
        pairs.train.append(row["train"])
        pairs.kinds.append(kind)
        labels.append(row["is_contaminated"])
        for name, values in scores.items():
            values.append(_score(row, name, number, source))
    facts = {
        "num_rows": number + 1,
        "num_pairs": len(labels),
        "num_contaminated": sum(labels),
        "num_test_items": len(set(pairs.test)),
        "num_blank": len(blanks),
        "blank_of_kind": dict(kinds.most_common()),
        "blank_ids": blanks[:NUM_EXAMPLES],
    }
    if len(set(labels)) < 2:
        has = "contaminated" if any(labels) else "clean" if labels else "no"
        raise DataError(
            f"Pairs of both labels are needed, and {source} has {has} ones only ({facts['num_rows']:,} rows, of which "
            f"{len(blanks):,} are blank): is_contaminated must be true for some and false for others."
        )
    columns = {name: np.array(values, dtype=float) for name, values in scores.items()}
    return pairs._replace(labels=np.array(labels, dtype=bool), columns=columns, facts=facts)


def _check_row(row: Mapping[str, Any], number: int, source: str) -> None:
    missing = [name for name in REQUIRED if name not in row]
    if missing:
        raise DataError(
            f"Row {number} of {source} has no {listing(missing)}; a labelled pair has {listing(REQUIRED)}. {FROM_0}"
        )
    if not isinstance(row["is_contaminated"], bool):
        said = row["is_contaminated"]
        raise DataError(f"Row {number} of {source}: is_contaminated must be true or false, got {said!r}. {FROM_0}")
    for name in ("test", "train"):
        if row[name] is not None and not isinstance(row[name], str):
            raise DataError(f"Row {number} of {source}: {name} must be a text, got {row[name]!r:.80}. {FROM_0}")


def _score(row: Mapping[str, Any], name: str, number: int, source: str) -> float:
    """Return a score that came with a row; NaN if it has none."""
    if name not in row:
        raise DataError(f"Row {number} of {source} has no column {name!r}. Found: {listing(sorted(row))}. {FROM_0}")
    value = row[name]
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"Row {number} of {source}: {name} must be a number or null, got {value!r:.80}. {FROM_0}")
    return float(value)
