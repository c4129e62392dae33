"""Whether a rephrased problem is still right: by a solver's answers, by the original's tests, or not asked."""

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from trl_math.contamination.rephrase_samples import Samples
from trl_math.contamination.rephrase_ways import Draft, Variant, original_text
from trl_math.data.columns import PROBLEMS
from trl_math.generation.run import Prompt
from trl_math.grading import Grader, cluster_all
from trl_math.grading.sandbox import Outcome, Sandbox


Row = Mapping[str, Any]
CHECKS = ("answer", "tests", "computed", "none")


class Candidate(NamedTuple):
    """A draft that is unlike its original."""

    item_id: str
    attempt: int
    original: Row
    draft: Draft


class Verdict(NamedTuple):
    """Whether a candidate is right; its answer, if that is another one than the original's."""

    reason: str | None  # why not; None if it is right
    agreement: float | None = None
    answer: str | None = None
    said: str = ""  # what there is to say of it


class Judge(Protocol):
    """Tells right candidates from wrong ones."""

    check: str

    def usable(self, rows: Sequence[Row]) -> list[str | None]:
        """Return why nothing can be told of what an original becomes; None where it can."""
        ...

    def judge(self, candidates: Sequence[Candidate], variant: Variant) -> list[Verdict]:
        """Return a verdict on each."""
        ...


class Unchecked:
    """Believes everything."""

    check = "none"

    def usable(self, rows: Sequence[Row]) -> list[str | None]:
        return [None] * len(rows)

    def judge(self, candidates: Sequence[Candidate], variant: Variant) -> list[Verdict]:
        return [Verdict(None)] * len(candidates)


class SolverJudge:
    """Has a model answer what was rephrased.

    Its answers must be the original's in at least the share `min_agreement` of its samples. Where the answer is to
    change, so many must agree with one another, and what they say is the answer. A solver that does not answer the
    original can tell nothing of what it becomes, so it is asked that first.
    """

    check = "answer"

    def __init__(
        self,
        samples: Samples,
        prompts: Callable[[Sequence[Row]], list[Prompt]],
        grader: Grader,
        *,
        number: int,
        min_agreement: float,
        answer_prefix: str = "",
    ) -> None:
        self._samples = samples
        self._prompts = prompts
        self._grader = grader
        self._number = number
        self._min_agreement = min_agreement
        self._answer_prefix = answer_prefix

    def usable(self, rows: Sequence[Row]) -> list[str | None]:
        shares = [share for share, _ in self._graded([dict(row) for row in rows], "Answers to originals")]
        return [None if share >= self._min_agreement else "unsolved" for share in shares]

    def judge(self, candidates: Sequence[Candidate], variant: Variant) -> list[Verdict]:
        found = self._graded([_asked(one) for one in candidates], f"Answers to {variant.name}")
        if variant.way != "renumber":
            return [
                Verdict(None if share >= self._min_agreement else "wrong_answer", share, said=_said(answers))
                for share, answers in found
            ]
        return [self._agreed(one, answers) for one, (_, answers) in zip(candidates, found, strict=True)]

    def _agreed(self, candidate: Candidate, answers: list[str | None]) -> Verdict:
        """Return what the solver's answers agree on."""
        kind = candidate.original.get("answer_kind") or "math"
        classes = cluster_all([answers], kind, grader=self._grader)[0]
        counts = {one: classes.count(one) for one in classes if one is not None}
        if not counts:
            return Verdict("no_agreement", 0.0)
        most = max(counts, key=lambda one: counts[one])
        share = counts[most] / self._number
        if share < self._min_agreement:
            return Verdict("no_agreement", share, said=_said(answers))
        return Verdict(None, share, answers[classes.index(most)])

    def _graded(self, rows: Sequence[dict[str, Any]], what: str) -> list[tuple[float, list[str | None]]]:
        """Return, of each problem, the share of right samples, and the answers that are read in them."""
        if not rows:
            return []
        drawn = self._samples.ask(self._prompts(rows), 0, self._number, what)
        asked = [
            {
                "completion": sample["completion"],
                "answer": row["answer"],
                "answer_kind": row.get("answer_kind"),
                "choices": row.get("choices"),
                "answer_prefix": self._answer_prefix or None,
            }
            for row, samples in zip(rows, drawn, strict=True)
            for sample in samples
        ]
        grades = self._grader.grade_all(asked).grades
        groups = [grades[start : start + self._number] for start in range(0, len(grades), self._number)]
        return [
            (sum(bool(grade.correct) for grade in group) / self._number, [grade.extracted for grade in group])
            for group in groups
        ]


class TestsJudge:
    """Runs the original's tests on a rewritten program, in the sandbox."""

    __test__ = False  # for pytest: the name is not of a test
    check = "tests"

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def usable(self, rows: Sequence[Row]) -> list[str | None]:
        outcomes = self._run([original_text(row) for row in rows], rows)
        return [None if passes else "original_fails" for passes, _ in outcomes]

    def judge(self, candidates: Sequence[Candidate], variant: Variant) -> list[Verdict]:
        outcomes = self._run([one.draft.text for one in candidates], [one.original for one in candidates])
        return [
            Verdict(None if passes else "fails_tests", said="" if passes else outcome.reason or outcome.status)
            for passes, outcome in outcomes
        ]

    def _run(self, programs: Sequence[str], rows: Sequence[Row]) -> list[tuple[bool, Outcome]]:
        """Return whether programs pass their tests. What they print cannot feign it, nor ending early."""
        marks = [secrets.token_hex(16) for _ in programs]
        codes = [with_tests(code, row, mark) for code, row, mark in zip(programs, rows, marks, strict=True)]
        outcomes = self._sandbox.run(codes)
        return [
            (one.is_ok and one.stdout.rstrip().endswith(mark), one) for one, mark in zip(outcomes, marks, strict=True)
        ]


def with_tests(program: str, row: Row, mark: str) -> str:
    """Return a program that runs the tests of another, and then prints the mark."""
    call = f"check({row['entry_point']})" if re.search(r"^def check\(", row["test"], re.MULTILINE) else ""
    return f"{program}\n\n{row['test']}\n\n{call}\nprint({mark!r})\n"


def _asked(candidate: Candidate) -> dict[str, Any]:
    """Return a candidate as a problem for the solver."""
    row = {name: value for name, value in candidate.original.items() if name in PROBLEMS.columns}
    row |= {"problem_id": f"{candidate.item_id}#{candidate.attempt}", "problem": candidate.draft.text}
    return row | ({"choices": candidate.draft.choices} if candidate.draft.choices else {})


def _said(answers: Sequence[str | None]) -> str:
    return ", ".join("nothing" if answer is None else answer for answer in answers)
