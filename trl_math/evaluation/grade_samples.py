"""From samples to graded samples: the program is run if there is one, and the answer is compared with the gold one."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import islice
from typing import Any

from trl_math.errors import DataError
from trl_math.evaluation.graded_file import GradedFile
from trl_math.grading import Grader
from trl_math.grading.programs import answers_in
from trl_math.grading.sandbox import Sandbox


# Samples graded at a time: enough to keep all workers busy, few enough to lose little.
CHUNK = 1024
MARKED = ("box", "hashes", "phrase", "bare")

Row = Mapping[str, Any]


def grade_new(
    samples: Iterable[Row],
    problems: Mapping[str, Row],
    graded: GradedFile,
    grader: Grader,
    sandbox: Sandbox | None = None,
    extra: Row | None = None,
) -> int:
    """Grade the samples that a file lacks and append them, a chunk at a time; return how many those were.

    Args:
        samples: Completions; those of problems that are not in `problems` are left out.
        problems: The problems by id.
        graded: Where the graded samples go.
        grader: Compares the answers.
        sandbox: If given, completions are programs, and what they print is the answer.
        extra: Columns that every row gets.
    """
    columns = dict(extra or {})
    new = ({**row, **columns} for row in samples if row["problem_id"] in problems)
    missing = (row for row in new if row not in graded)
    number = 0
    for chunk in _chunks(missing, CHUNK):
        graded.extend(_graded(chunk, problems, grader, sandbox))
        number += len(chunk)
    return number


def _graded(
    samples: Sequence[Row], problems: Mapping[str, Row], grader: Grader, sandbox: Sandbox | None
) -> list[dict[str, Any]]:
    answers = None if sandbox is None else answers_in(sandbox, [row["completion"] for row in samples])
    asked = [
        {
            "completion": row["completion"] if answers is None else answers[index].answer or "",
            "answer": problems[row["problem_id"]]["answer"],
            "answer_kind": problems[row["problem_id"]]["answer_kind"],
            "choices": problems[row["problem_id"]].get("choices"),
        }
        for index, row in enumerate(samples)
    ]
    rows = []
    for index, (row, grade) in enumerate(zip(samples, grader.grade_all(asked).grades, strict=True)):
        verdict = {
            "correct": grade.correct,
            "extracted": grade.extracted,
            "reason": grade.reason,
            "place": grade.place,
        }
        outcome = {} if answers is None else {"outcome": answers[index].outcome.status}
        rows.append({**row, **verdict, **outcome})
    return rows


def by_id(problems: Iterable[Row]) -> dict[str, Row]:
    """Return problems by their id."""
    return {problem["problem_id"]: problem for problem in problems}


def check_overlap(samples: Iterable[Row], problems: Mapping[str, Row], where: str) -> None:
    """Raise unless some sample answers one of the problems."""
    first = None
    for row in samples:
        first = first or row["problem_id"]
        if row["problem_id"] in problems:
            return
    found = f"a sample is of {first!r}, a problem is {next(iter(problems), None)!r}"
    raise DataError(
        f"No sample in {where} answers one of these problems ({found}): are these the data it was made of?"
        if first
        else f"There are no samples in {where}."
    )


def grader_facts() -> dict[str, str]:
    """Return the versions that verdicts depend on."""
    return {name: version(name) for name in ("trl-math", "math-verify")}


def answers_digest(problems: Iterable[Row]) -> str:
    """Return a short hash of what completions are compared with."""
    sha = hashlib.sha256()
    for row in sorted(problems, key=lambda row: row["problem_id"]):
        sha.update(repr([row["problem_id"], row["answer"], row["answer_kind"], row.get("choices")]).encode())
    return sha.hexdigest()[:16]


def grading_health(rows: Iterable[Row]) -> dict[str, Any]:
    """Count why grades are what they are and where answers stood: failures of format and of grading, apart."""
    reasons: Counter[str] = Counter()
    places: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    for row in rows:
        reasons[row.get("reason") or "unknown"] += 1
        places[row.get("place") or "none"] += 1
        if row.get("outcome"):
            outcomes[row["outcome"]] += 1
    health = {
        "reasons": dict(reasons.most_common()),
        "places": dict(places.most_common()),
        "num_unmarked": sum(count for place, count in places.items() if place not in MARKED),
        "num_timeouts": reasons["timeout"],
    }
    return health | ({"outcomes": dict(outcomes.most_common())} if outcomes else {})


def _chunks(rows: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    iterator = iter(rows)
    while chunk := list(islice(iterator, size)):
        yield chunk
