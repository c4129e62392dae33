"""Graded samples, read as a stream: a file may be larger than memory, and its last line may be torn.

Of each sample only what counts is kept; its text stays in the file, and the few that are shown are read again.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trl_math.errors import DataError
from trl_math.evaluation import Tally, tally
from trl_math.grading import Report, cluster_all
from trl_math.reporting.page.runs import Chosen, Problem, Samples


NEEDED = ("problem_id", "sample_index", "correct", "extracted", "finish_reason", "num_tokens")
KEPT = (*NEEDED, "sampler")
COUNTED = ("reason", "place", "outcome")

Rows = list[dict[str, Any]]


class Lines(NamedTuple):
    """The rows of a file by (benchmark, mode), and whether its last line was cut off."""

    rows: dict[tuple[str, str], Rows]
    counts: dict[tuple[str, str], dict[str, Counter[str]]]  # of the values of each of `COUNTED`
    is_torn: bool


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Yield (where the line begins, its object); None for a last line that is not whole."""
    offset = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line) if line.strip() else {}
            except ValueError:
                row = None
            if row is None and file.peek(1):
                raise DataError(f"{path}, line {number}, is not JSON: the file is damaged; write it anew.")
            if row is not None and not isinstance(row, dict):
                raise DataError(f"{path}, line {number}, is no JSON object: is this a file of rows?")
            if row != {}:
                yield offset, row
            offset += len(line)


def read_lines(path: Path) -> Lines:
    """Read a file of graded samples, texts left out."""
    lines = Lines({}, {}, False)
    for offset, row in json_lines(path):
        if row is None:
            return lines._replace(is_torn=True)
        missing = [name for name in NEEDED if name not in row]
        if missing:
            raise DataError(f"{path} has a row without {missing[0]!r}: graded samples have {', '.join(NEEDED)}.")
        key = str(row.get("benchmark", "")), str(row.get("mode", "samples"))
        # The same few words come in every line: one copy of each is enough.
        row["problem_id"] = str(row["problem_id"])
        kept = {name: _shared(row[name]) for name in KEPT if name in row}
        lines.rows.setdefault(key, []).append(kept | {"offset": offset})
        counts = lines.counts.setdefault(key, {name: Counter() for name in COUNTED})
        for name in COUNTED:
            if row.get(name) is not None:
                counts[name][str(row[name])] += 1
    return lines


def _shared(value: Any) -> Any:
    return sys.intern(value) if isinstance(value, str) else value


def read_problems(path: Path) -> dict[str, dict[str, Problem]]:
    """Read the problems by benchmark and id; none if there is no such file."""
    problems: dict[str, dict[str, Problem]] = {}
    for _, row in json_lines(path) if path.is_file() else ():
        if row is not None and "problem_id" in row:
            problems.setdefault(str(row.get("benchmark", "")), {})[str(row["problem_id"])] = _problem(row)
    return problems


def _problem(row: Mapping[str, Any]) -> Problem:
    level, subject = (None if row.get(name) in (None, "") else str(row[name]) for name in ("level", "subject"))
    choices = tuple(str(choice) for choice in row.get("choices") or ())
    kind = str(row.get("answer_kind") or "math")
    return Problem(str(row.get("problem") or ""), str(row.get("answer") or ""), level, subject, choices, kind)


def count_samples(
    rows: Rows, counts: Mapping[str, Counter[str]], problems: Mapping[str, Problem], most_shown: int
) -> Samples | None:
    """Count the rows of one benchmark and mode by problem and choose those to show; None if none has a verdict."""
    facts = {id: {"level": one.level, "subject": one.subject, "answer_kind": one.kind} for id, one in problems.items()}
    by_problem: dict[str, Rows] = {}
    for row in rows:
        by_problem.setdefault(row["problem_id"], []).append(row)
    for ordered in by_problem.values():
        ordered.sort(key=lambda row: row["sample_index"])
    tallies, num_unreadable = tally(rows, facts, _classes(by_problem, problems))
    if not tallies:
        return None
    lengths = {
        verdict: np.array([row["num_tokens"] for row in rows if row["correct"] is verdict], dtype=float)
        for verdict in (True, False)
    }
    chosen = {one.problem_id: choose(by_problem[one.problem_id], one, most_shown) for one in tallies}
    report = Report(len(rows), reasons=counts["reason"], places=counts["place"])
    grading: dict[str, Any] = {"reasons": report.reasons, "places": report.places, "outcomes": counts["outcome"]}
    grading |= {"num_unmarked": report.num_unmarked, "num_timeouts": report.num_timeouts}
    return Samples(tallies, num_unreadable, lengths, grading, chosen)


def _classes(by_problem: Mapping[str, Rows], problems: Mapping[str, Problem]) -> Any:
    """Return what groups equal answers. All lists of answers are compared at once, each answer once a list."""
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
        classes = known[kind, _different(answers)]
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
    middle = sorted(same, key=lambda row: row["num_tokens"])[(len(same) - 1) // 2]
    return Chosen(middle["offset"], middle["correct"], len(same) / one.num_samples)


def read_rows(path: Path, offsets: Sequence[int]) -> list[dict[str, Any]]:
    """Read the rows whose lines begin at `offsets`."""
    rows = []
    with open(path, "rb") as file:
        for offset in offsets:
            file.seek(offset)
            rows.append(json.loads(file.readline()))
    return rows
