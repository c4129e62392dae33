"""How difficult each problem is: rows of a difficulty file, from counts of right samples or from rates in a file.

    pass_rate      by the estimator that the manifest names; `difficulty` is one minus it
    status         never, always or sometimes solved, by the samples that were drawn

Problems that were never or always solved say least and are often most: what becomes of them has a name. Levels are the
two rules of sample-difficulty-adaptive tuning, whose report and released data disagree; see `difficulty_level`.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from trl_math.data.columns import DIFFICULTY, listing
from trl_math.errors import DataError, UsageError, pick


NEVER, ALWAYS, SOMETIMES = STATUSES = ("never", "always", "sometimes")
HANDLINGS = ("keep", "cap", "drop", "resample")
LEVEL_RULES = ("released", "report")
ROUNDING = 1e-9  # (1 - 0.8) 5 is 1 less one step of float64, and is meant to be 1
RATES_ROUNDED = 0.01 + 1e-9  # how far p and 1 - p may be from 1 together, each of two digits

Row = dict[str, Any]


class Measured(NamedTuple):
    """What is known of one problem's pass rate."""

    num_samples: int
    num_correct: int
    pass_rate: float
    low: float
    high: float


class SourceSummary(NamedTuple):
    """The problems of one source, or of all."""

    source: str
    num_problems: int
    num_never: int
    num_always: int
    mean_pass_rate: float
    num_samples: int | None  # None if the file does not say


def status_of(pass_rate: float) -> str:
    """Return whether a problem was solved never, always or sometimes. `pass_rate`: the share of right samples."""
    return NEVER if pass_rate == 0 else ALWAYS if pass_rate == 1 else SOMETIMES


def difficulty_level(pass_rate: float, levels: int = 5, level_rule: str = "released") -> int:
    """Return the level of a pass rate p, higher for harder problems.

    `report`: floor((1-p) L), from 0 to L. `released`: floor((1-p) L - 1e-6) + 1 and at least 1, from 1 to L.
    """
    pick("level_rule", level_rule, LEVEL_RULES)
    if levels < 2:
        raise UsageError(f"levels must be at least 2, got {levels}.")
    scaled = (1 - pass_rate) * levels
    return math.floor(scaled + ROUNDING) if level_rule == "report" else max(math.floor(scaled - 1e-6) + 1, 1)


def difficulty_row(problem: Mapping[str, Any], measured: Measured, more: Mapping[str, Any]) -> Row:
    """Return a row of a difficulty file; `more` are its columns beyond those that all have."""
    row = {
        **{name: problem[name] for name in problem if name in DIFFICULTY.columns},
        "num_samples": measured.num_samples,
        "num_correct": measured.num_correct,
        "pass_rate": measured.pass_rate,
        "pass_rate_low": measured.low,
        "pass_rate_high": measured.high,
        "difficulty": 1 - measured.pass_rate,
        "status": status_of(measured.num_correct / measured.num_samples),
        **more,
    }
    return {name: row[name] for name in DIFFICULTY.columns if name in row}


def rated_rows(rows: Sequence[Mapping[str, Any]], where: str, levels: int, level_rule: str) -> list[Row]:
    """Return rows that come with `pass_rate` or `err_rate`, with their difficulty and status; other columns stay.

    Levels that come with them (`difficulty_level`) must be those of their rates.
    """
    rates = check_pass_rates(rows, where)
    check_levels(rows, rates, where, levels, level_rule)
    return [
        {**row, "source": str(row.get("source") or where), "pass_rate": rate}
        | {"difficulty": 1 - rate, "status": status_of(rate)}
        for row, rate in zip(rows, rates, strict=True)
    ]


def check_pass_rates(rows: Sequence[Mapping[str, Any]], where: str) -> list[float]:
    """Return the pass rates of rows, `err_rate` being one minus it; raise, with the number of rows, for no rates."""
    if not rows:
        raise DataError(f"{where} has no rows.")
    found = sorted({name for row in rows for name in row})
    column = next((name for name in ("pass_rate", "err_rate") if name in found), None)
    if column is None:
        raise DataError(f"{where} has neither pass_rate nor err_rate. Found: {listing(found)}.")
    values: list[Any] = [row.get(column) for row in rows]
    _refuse(where, column, "missing", [value is None or value != value for value in values], values)
    is_number = [isinstance(value, int | float) and not isinstance(value, bool) for value in values]
    _refuse(where, column, "no number", [not good for good in is_number], values)
    _refuse(where, column, "not from 0 to 1", [not 0 <= value <= 1 for value in values], values)
    if column == "pass_rate" and "err_rate" in found:
        others: list[Any] = [row.get("err_rate") for row in rows]
        if wrong := disagreeing_rates(values, others):
            first = wrong[0]
            rate, other = values[first], others[first]
            raise two_rates(f"rows of {where}", len(wrong), len(rows), f"row {first + 1}", rate, other)
    # 1 - (1 - 0.3) is not 0.3, and 0.7 is what a file with 0.3 means.
    return [float(value) if column == "pass_rate" else round(1 - value, 12) for value in values]


def disagreeing_rates(pass_rates: Sequence[Any], err_rates: Sequence[Any]) -> list[int]:
    """Return where there are both rates, and they do not add up to 1, as far as numbers of two digits can."""
    pairs = zip(pass_rates, err_rates, strict=True)
    both = (isinstance(one, int | float) and isinstance(other, int | float) for one, other in pairs)
    return [
        place
        for place, is_pair in enumerate(both)
        if is_pair and abs(pass_rates[place] + err_rates[place] - 1) > RATES_ROUNDED
    ]


def two_rates(rows: str, num_wrong: int, num_rows: int, first: str, pass_rate: float, err_rate: float) -> DataError:
    """Return the error for rows with two rates, of which one would be ignored."""
    return DataError(
        f"In {num_wrong:,} of {num_rows:,} {rows} pass_rate and err_rate do not add up to 1 ({first}: {pass_rate!r} "
        f"and {err_rate!r}), so one of the two is of something else: mend it or take the column out."
    )


def rates_by_problem(rows: Sequence[Mapping[str, Any]], where: str, ids: Sequence[str]) -> dict[str, float]:
    """Return the pass rates of these problems, from rows with `problem_id` and a rate; raise if some have none."""
    if rows and not all("problem_id" in row for row in rows):
        raise DataError(f"{where} has no problem_id, so it does not say whose rates these are.")
    found: dict[str, float] = {}
    for row, rate in zip(rows, check_pass_rates(rows, where), strict=True):
        if found.setdefault(str(row["problem_id"]), rate) != rate:
            raise DataError(f"{where} has two pass rates of {row['problem_id']!r}: leave one of them out.")
    missing = [name for name in ids if name not in found]
    if len(missing) == len(ids):
        raise DataError(
            f"No problem has a pass rate in {where} (a problem is {missing[0]!r}, a rate there is of "
            f"{next(iter(found))!r}): is it about these data?"
        )
    if missing:
        raise DataError(
            f"{len(missing):,} of {len(ids):,} problems have no pass rate in {where} ({missing[0]!r} for one): "
            f"measure these too, or give {where} as data as well, to ask only the problems that have one."
        )
    return {name: found[name] for name in ids}


def check_levels(
    rows: Sequence[Mapping[str, Any]], rates: Sequence[float], where: str, levels: int, level_rule: str
) -> None:
    """Raise if levels that stand in a file are not those of its rates, and say how many."""
    wrong = [
        (number, row["difficulty_level"], rate)
        for number, (row, rate) in enumerate(zip(rows, rates, strict=True), start=1)
        if row.get("difficulty_level") is not None
        and row["difficulty_level"] != difficulty_level(rate, levels, level_rule)
    ]
    if not wrong:
        return
    number, level, rate = wrong[0]
    said = ", ".join(f"{difficulty_level(rate, levels, rule)} by {rule}" for rule in LEVEL_RULES)
    raise DataError(
        f"{len(wrong):,} of {len(rows):,} rows of {where} have a difficulty_level that is not that of their pass rate "
        f"(row {number}: level {level}, pass rate {rate:g}, which is {said} of {levels} levels). Set levels and "
        "level_rule to those of the file, or take the column out."
    )


def _refuse(where: str, column: str, what: str, is_wrong: Sequence[bool], values: Sequence[Any]) -> None:
    count = sum(is_wrong)
    if count:
        first = is_wrong.index(True)
        raise DataError(
            f"{where}: {column} is {what} in {count:,} of {len(values):,} rows (row {first + 1}: {values[first]!r}). "
            "Every row needs a rate from 0 to 1: mend these or leave them out."
        )


def left_out(rows: Sequence[Row], status: str, handling: str, cap: int | None, seed: int) -> set[int]:
    """Return the places of the rows of a status that are left out. Which ones a cap keeps follows from the seed."""
    places = [place for place, row in enumerate(rows) if row["status"] == status]
    if handling == "drop":
        return set(places)
    if handling != "cap" or cap is None:
        return set()

    def lot(place: int) -> bytes:
        name = rows[place].get("problem_id", place)
        return hashlib.sha256(f"{seed}\n{status}\n{name}".encode()).digest()

    return set(sorted(places, key=lot)[cap:])


def by_source(rows: Sequence[Row]) -> list[SourceSummary]:
    """Return what each source is like, in the order in which sources occur."""
    sources: dict[str, list[Row]] = {}
    for row in rows:
        sources.setdefault(str(row["source"]), []).append(row)
    return [summary_of(name, own) for name, own in sources.items()]


def summary_of(name: str, rows: Sequence[Row]) -> SourceSummary:
    """Return what these rows are like, under that name."""
    counts = [row.get("num_samples") for row in rows]
    return SourceSummary(
        name,
        len(rows),
        _count(rows, NEVER),
        _count(rows, ALWAYS),
        math.fsum(row["pass_rate"] for row in rows) / len(rows),
        None if None in counts else sum(counts),  # type: ignore[arg-type]
    )


def _count(rows: Iterable[Row], status: str) -> int:
    return sum(row["status"] == status for row in rows)
