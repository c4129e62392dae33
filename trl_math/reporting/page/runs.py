"""What a report is made of: the runs that were given, each with its results, as the sections read them."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trl_math.evaluation import Tally


COVERAGE = "coverage"  # the mode that draws no samples: its numbers are made of the answers' probabilities
FALLBACK, PROGRAM, TEXT = "fallback", "program", "cot"  # the first has the samples of the two others, and only those
UNNAMED_MODES = ("cot", "samples")  # what a reader expects without being told
LEVEL = 0.95  # of intervals, where a run does not say it


class Problem(NamedTuple):
    """What was asked, as far as a reader wants to know."""

    statement: str
    answer: str
    level: str | None = None
    subject: str | None = None
    choices: tuple[str, ...] = ()
    kind: str = "math"

    def key(self, problem_id: str) -> str:
        """Return what tells this problem from others: an id alone may be a row number."""
        written = "\0".join((problem_id, self.statement, self.answer))
        return hashlib.blake2b(written.encode("utf-8", "replace"), digest_size=8).hexdigest()


class Chosen(NamedTuple):
    """A sample to be shown: where its line begins, and what the page says of it."""

    offset: int
    correct: bool | None
    share: float | None  # of the problem's samples that give the same answer


@dataclass
class Samples:
    """Everything counted from the samples of one benchmark in one mode."""

    tallies: list[Tally]
    num_unreadable: int
    tokens: dict[bool, np.ndarray]  # lengths of correct and of wrong samples
    grading: Mapping[str, Any]  # how often which reason, place and program outcome, as in summary.json
    chosen: dict[str, list[Chosen]]  # by problem

    @property
    def fewest(self) -> int:
        return min((one.num_samples for one in self.tallies), default=0)

    @property
    def most(self) -> int:
        return max((one.num_samples for one in self.tallies), default=0)


@dataclass
class Result:
    """One benchmark in one mode of one run."""

    run: "Run"
    benchmark: str
    mode: str
    stored: Mapping[str, Any]  # as in summary.json, or the same counted from the samples
    samples: Samples | None  # None if there are no rows, as of mode coverage
    problems: Mapping[str, Problem]
    logps: Mapping[str, float] | None = None  # log-probability of each problem's answer, in mode coverage

    def key_of(self, problem_id: str) -> str:
        """Return what identifies a problem among those of all runs."""
        problem = self.problems.get(problem_id)
        return problem.key(problem_id) if problem else problem_id

    @cached_property
    def keys(self) -> frozenset[str]:
        """What problems the samples, or the probabilities, are of."""
        ids = [one.problem_id for one in self.samples.tallies] if self.samples else self.logps or ()
        return frozenset(map(self.key_of, ids))

    @property
    def metrics(self) -> Mapping[str, Mapping[str, Any]]:
        return self.stored["metrics"]

    @property
    def level(self) -> float:
        """The confidence of the intervals."""
        return next((one["confidence"] for one in self.metrics.values()), LEVEL)

    @property
    def num_problems(self) -> int:
        """How many problems the numbers are of."""
        return next((one["n"] for one in self.metrics.values()), self.stored.get("num_problems") or 0)

    @property
    def has_curve(self) -> bool:
        """Whether there is more than k = 1."""
        return self.logps is not None or (self.samples is not None and self.samples.fewest > 1)


@dataclass
class Training:
    """What a training run logged."""

    series: dict[str, list[tuple[int, float]]]  # (step, value) of each logged number
    settings: Mapping[str, Any]
    num_steps: int
    is_finished: bool


@dataclass
class Run:
    """One folder of those that were given."""

    folder: Path
    name: str  # short, and different from those of the others
    index: int
    header: Mapping[str, Any] = field(default_factory=dict)  # of summary.json: model, created, versions
    results: list[Result] = field(default_factory=list)
    training: Training | None = None
    samples_file: Path | None = None
    notes: list[str] = field(default_factory=list)  # what a reader must know: torn lines, missing numbers


class Group(NamedTuple):
    """Results that may be drawn together: the same benchmark, mode and problems."""

    benchmark: str
    mode: str
    results: list[Result]
    is_split: bool  # there is another group of this benchmark and mode, over other problems

    @property
    def title(self) -> str:
        name = self.benchmark if self.mode in UNNAMED_MODES else f"{self.benchmark}, {self.mode}"
        return name + self._whose

    @property
    def subject(self) -> str:
        """The title beside the name of a metric, where coverage@k says the mode already."""
        return self.benchmark + self._whose if self.mode == COVERAGE else self.title

    @property
    def _whose(self) -> str:
        return f" ({', '.join(one.run.name for one in self.results)})" if self.is_split else ""

    @property
    def slug(self) -> str:
        """Return the title as part of a file's name."""
        return slug_of(self.title)


def slug_of(words: str) -> str:
    """Return words as part of a file's name."""
    letters = "".join(c if c.isascii() and c.isalnum() else "-" for c in words.lower())
    return "-".join(part for part in letters.split("-") if part)[:80] or "unnamed"


def groups(runs: Sequence[Run], *, with_rows: bool = True) -> list[Group]:
    """Return the results of all runs, those over the same problems together, in the order of the runs.

    With `with_rows` false, results of which only the numbers are known are there too, and those of one benchmark and
    mode are together whatever their problems are.
    """
    found: dict[tuple[str, str, frozenset[str]], list[Result]] = {}
    for run in runs:
        for result in run.results:
            if result.samples is not None or result.logps is not None or not with_rows:
                keys = result.keys if with_rows else frozenset()
                found.setdefault((result.benchmark, result.mode, keys), []).append(result)
    counts = Counter((benchmark, mode) for benchmark, mode, _ in found)
    order = {key: place for place, key in enumerate(counts)}  # groups of one benchmark stand together
    ordered = sorted(found.items(), key=lambda item: order[item[0][:2]])
    return [Group(*key[:2], results, counts[key[:2]] > 1) for key, results in ordered]
