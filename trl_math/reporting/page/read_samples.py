"""Graded samples, read as a stream: a file may be larger than memory, and its last line may be torn.

Of each sample only what counts is kept; its text stays in the file, and the few that are shown are read again.
"""

import json
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trl_math.errors import DataError
from trl_math.evaluation import Tally, tally
from trl_math.evaluation.coverage import ROUNDING
from trl_math.grading import Report, cluster_all
from trl_math.grading.steps import KINDS
from trl_math.reporting.page.read_json import is_count, json_lines, refuse
from trl_math.reporting.page.runs import COVERAGE, Chosen, Problem, Samples


NEEDED = ("problem_id", "sample_index", "correct", "extracted", "finish_reason", "num_tokens")
COUNTED = ("reason", "place", "outcome")

PLAIN = "samples"  # the mode of samples that name none

Rows = list[dict[str, Any]]


class Lines(NamedTuple):
    """The rows of a file by (benchmark, mode), and whether its last line was cut off."""

    rows: dict[tuple[str, str], Rows]
    counts: dict[tuple[str, str], dict[str, Counter[str]]]  # of the values of each of `COUNTED`
    is_torn: bool


def read_lines(path: Path) -> Lines:
    """Read a file of graded samples, texts left out."""
    lines = Lines({}, {}, False)
    for number, offset, row in json_lines(path):
        if row is None:
            return lines._replace(is_torn=True)
        where = f"{path}, line {number}:"
        missing = [name for name in NEEDED if name not in row]
        if missing:
            raise DataError(
                f"{path} has a row without {missing[0]!r}, line {number}: graded samples have {', '.join(NEEDED)}."
            )
        key = _text(row.get("benchmark"), f"{where} benchmark") or "", _text(row.get("mode"), f"{where} mode") or PLAIN
        if key[1] == COVERAGE:
            raise DataError(f"{where} is a sample of mode {COVERAGE}, which draws none: the file is not ours.")
        lines.rows.setdefault(key, []).append(_kept(row, where) | {"offset": offset})
        counts = lines.counts.setdefault(key, no_counts())
        for name in COUNTED:
            if row.get(name) is not None:
                counts[name][str(row[name])] += 1
    return lines


def no_counts() -> dict[str, Counter[str]]:
    return {name: Counter() for name in COUNTED}


def _kept(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return what numbers are made of, each checked."""
    index, tokens, correct = (row[name] for name in ("sample_index", "num_tokens", "correct"))
    if not is_count(index):
        refuse(f"{where} sample_index", "a whole number, 0 or above", index)
    if tokens is not None and not is_count(tokens):
        refuse(f"{where} num_tokens", "a whole number, 0 or above, or null", tokens)
    if correct is not None and not isinstance(correct, bool):
        refuse(f"{where} correct", "true, false or null", correct)
    texts = {name: _text(row.get(name), f"{where} {name}") for name in ("extracted", "finish_reason", "sampler")}
    kept = {"problem_id": id_of(row, where), "sample_index": index, "num_tokens": tokens, "correct": correct} | texts
    # Only programs have one, and only rows that fall back on others need it.
    outcome = _text(row.get("outcome"), f"{where} outcome")
    return kept if outcome is None else kept | {"outcome": outcome}


def id_of(row: Mapping[str, Any], where: str) -> str:
    """Return a problem's id as a text; it may be a number."""
    value = _text(row.get("problem_id"), f"{where} problem_id")
    if value is None:
        refuse(f"{where} problem_id", "a text or a number", value)
    return value


def _text(value: Any, where: str) -> str | None:
    """Return a text or a number as text. The same few words come in every line: one copy of each is enough."""
    if value is None or isinstance(value, str):
        return value if value is None else sys.intern(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or (isinstance(value, float) and not math.isfinite(value)):
        refuse(where, "a text, a number or null", value)
    return sys.intern(str(value))


def read_problems(path: Path) -> dict[str, dict[str, Problem]]:
    """Read the problems by benchmark and id; none if there is no such file."""
    problems: dict[str, dict[str, Problem]] = {}
    for number, _, row in json_lines(path) if path.is_file() else ():
        if row is not None:
            where = f"{path}, line {number}:"
            benchmark = _text(row.get("benchmark"), f"{where} benchmark") or ""
            problems.setdefault(benchmark, {})[id_of(row, where)] = _problem(row, where)
    return problems


def _problem(row: Mapping[str, Any], where: str) -> Problem:
    names = ("problem", "answer", "level", "subject", "answer_kind")
    statement, answer, level, subject, kind = (_text(row.get(name), f"{where} {name}") or None for name in names)
    choices = row.get("choices")
    if choices is not None and not isinstance(choices, list):
        refuse(f"{where} choices", "a list or null", choices)
    if kind is not None and kind not in KINDS:
        refuse(f"{where} answer_kind", f"one of {', '.join(KINDS)}", kind)
    return Problem(statement or "", answer or "", level, subject, tuple(map(str, choices or ())), kind or "math")


def read_answers(path: Path) -> dict[str, dict[str, float]]:
    """Read the log-probability of each problem's answer, by benchmark and id; none if there is no such file."""
    found: dict[str, dict[str, float]] = {}
    for number, _, row in json_lines(path) if path.is_file() else ():
        if row is None:
            raise DataError(f"{path}, line {number}, is not whole: evaluate again in mode {COVERAGE}.")
        where = f"{path}, line {number}:"
        logps = found.setdefault(_text(row.get("benchmark"), f"{where} benchmark") or "", {})
        id, logp = id_of(row, where), row.get("logp")
        if isinstance(logp, bool) or not isinstance(logp, int | float) or not logp <= ROUNDING:
            refuse(f"{where} logp", "a number of at most 0", logp)
        if id in logps:
            raise DataError(f"{where} problem {id} is there twice: the file is damaged; evaluate again.")
        logps[id] = float(logp)
    return found


def count_samples(
    rows: Rows, counts: Mapping[str, Counter[str]], problems: Mapping[str, Problem], most_shown: int
) -> Samples | None:
    """Count the rows of one benchmark and mode by problem and choose those to show; None if none has a verdict."""
    facts = {
        id: {"level": one.level, "subject": one.subject, "answer_kind": one.kind, "choices": one.choices}
        for id, one in problems.items()
    }
    by_problem: dict[str, Rows] = {}
    for row in rows:
        by_problem.setdefault(row["problem_id"], []).append(row)
    for ordered in by_problem.values():
        ordered.sort(key=lambda row: row["sample_index"])
    tallies, num_unreadable = tally(rows, facts, _classes(by_problem, problems))
    if not tallies:
        return None
    lengths = {
        verdict: np.array(
            [row["num_tokens"] for row in rows if row["correct"] is verdict and row["num_tokens"] is not None],
            dtype=float,
        )
        for verdict in (True, False)
    }
    chosen = {one.problem_id: choose(by_problem[one.problem_id], one, most_shown) for one in tallies}
    report = Report(len(rows), reasons=counts["reason"], places=counts["place"])
    grading: dict[str, Any] = {"reasons": report.reasons, "places": report.places, "outcomes": counts["outcome"]}
    grading |= {"num_unmarked": report.num_unmarked, "num_timeouts": report.num_timeouts}
    return Samples(tallies, num_unreadable, lengths, grading, chosen)


def _classes(by_problem: Mapping[str, Rows], problems: Mapping[str, Problem]) -> Any:
    """Return what groups equal answers. All lists of answers are compared at once, each answer once a list.

    A list that is not among those, as where the text of an option was made its letter, is compared by itself.
    """
    asked: dict[str, dict[tuple[str, ...], None]] = {}
    for id, rows in by_problem.items():
        kind = problems[id].kind if id in problems else "math"
        asked.setdefault(kind, {})[_different(row["extracted"] for row in rows)] = None
    known = {
        (kind, answers): dict(zip(answers, classes, strict=True))
        for kind, lists in asked.items()
        for answers, classes in zip(lists, cluster_all(list(lists), kind), strict=True)
    }

    def cluster(answers: Sequence[str | None], kind: str) -> list[int | None]:
        different = _different(answers)
        if (kind, different) not in known:
            known[kind, different] = dict(zip(different, cluster_all([different], kind)[0], strict=True))
        classes = known[kind, different]
        return [None if answer is None else classes[answer] for answer in answers]

    return cluster


def _different(answers: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(answer for answer in answers if answer is not None))


def choose(rows: Rows, one: Tally, most: int) -> list[Chosen]:
    """Choose samples to show, right and wrong ones: of the most frequent answers, one sample an answer.

    Of the samples with the same answer the one of median length speaks for them. Where a side has one answer only, as
    right ones have, another way to it is shown too, if there is room.
    """
    answers: dict[tuple[bool, Any], Rows] = {}
    for row, vote in zip(rows, one.votes, strict=True):
        answers.setdefault((bool(row["correct"]), vote), []).append(row)
    # A missing answer shows little, so it comes last.
    ranked = sorted(answers.items(), key=lambda item: (item[0][1] is None, -len(item[1])))
    sides = [[_median(same, one) for (verdict, _), same in ranked if verdict is side] for side in (True, False)]
    for verdict, side in zip((True, False), sides, strict=True):
        if len(side) == 1:
            others = (row for row in rows if bool(row["correct"]) is verdict and row["offset"] != side[0].offset)
            side += [Chosen(row["offset"], row["correct"], None) for row in islice(others, 1)]
    num_right = min(len(sides[0]), max((most + 1) // 2, most - len(sides[1])))
    return sides[0][:num_right] + sides[1][: most - num_right]


def _median(same: Rows, one: Tally) -> Chosen:
    middle = sorted(same, key=lambda row: row["num_tokens"] or 0)[(len(same) - 1) // 2]
    return Chosen(middle["offset"], middle["correct"], len(same) / one.num_samples)


def read_rows(path: Path, offsets: Sequence[int]) -> list[dict[str, Any]]:
    """Read the rows whose lines begin at `offsets`."""
    rows = []
    with open(path, "rb") as file:
        for offset in offsets:
            file.seek(offset)
            rows.append(json.loads(file.readline()))
    return rows
