"""The detectors that `trl-math decontaminate` is asked for, made ready; those whose packages are missing are told."""

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trl_math.cli.decontaminate_settings import CANDIDATES, CANDIDATES_THRESHOLD, Asked
from trl_math.cli.detectors import JUDGE
from trl_math.contamination.detectors import DETECTORS
from trl_math.contamination.judge import Budget, Judge, JudgeDetector
from trl_math.contamination.matches import Detector
from trl_math.contamination.outcomes import Rules
from trl_math.errors import MissingPackageError, UsageError


if TYPE_CHECKING:
    from trl_math.contamination.vectors import KeptEmbedder


MANY_ROWS = 50_000  # from which on processes pay
Say = Callable[[str], None]


class Looking(NamedTuple):
    """Detectors that are ready."""

    counted: dict[str, Detector]  # what they find is a leak
    compared: dict[str, Detector]
    absent: dict[str, str]  # those that are left out, and why
    facts: dict[str, Any]  # what a result depends on


def detectors_of(asked: Asked, num_rows: int, work: Path, say: Say) -> Looking:
    """Return the detectors that are asked for. One whose package is missing is left out, if others are there."""
    look = asked.look
    maker = _Maker(asked, num_rows, work, say)
    every: dict[str, Detector] = {}
    absent: dict[str, str] = {}
    for name in [*look.names, *(look.compare or ())]:
        try:
            every[name] = maker.judge() if name == JUDGE else maker.detector(name, look.limits().get(name))
        except MissingPackageError as error:
            absent[name] = str(error)
            last = error
    counted = {name: every[name] for name in look.names if name in every}
    if not counted:
        raise last
    compared = {name: every[name] for name in look.compare or () if name in every}
    facts: dict[str, Any] = {name: detector.threshold for name, detector in counted.items()}
    facts |= {f"{name} (compared)": detector.threshold for name, detector in compared.items()}
    return Looking(counted, compared, absent, facts | maker.facts)


class _Maker:
    """Makes detectors, which share one embedder."""

    def __init__(self, asked: Asked, num_rows: int, work: Path, say: Say) -> None:
        self._asked, self._work, self._say = asked, work, say
        self._processes = asked.look.processes or (1 if num_rows < MANY_ROWS else num_cores())
        self._embedder: KeptEmbedder | None = None
        self.facts: dict[str, Any] = {}

    def detector(self, name: str, threshold: float | None) -> Detector:
        """Return a detector, with those of the settings that it takes."""
        make = DETECTORS[name]
        takes = inspect.signature(make).parameters
        settings: dict[str, Any] = {}
        if threshold is not None:
            if "threshold" not in takes:
                raise UsageError(f"{name} has no threshold: leave it out of thresholds.")
            settings["threshold"] = threshold
        if "processes" in takes:
            settings["processes"] = self._processes
        if "embedder" in takes:
            settings["embedder"] = self.embedder()
        return make(**settings)

    def embedder(self) -> "KeptEmbedder":
        from trl_math.contamination.vectors import KeptEmbedder, identity_of

        if self._embedder is None:
            name = self._asked.look.embedder
            self._embedder = KeptEmbedder(name, self._work / "vectors", self._say)
            self.facts["embedder"] = f"{name} {identity_of(name)}"
        return self._embedder

    def judge(self) -> Detector:
        """Return the judge with the detector that proposes pairs to it."""
        asked, own, look = self._asked, self._asked.judge, self._asked.look
        limit = look.candidates_threshold
        if limit is None and look.candidates == CANDIDATES:
            limit = CANDIDATES_THRESHOLD
        candidates = self.detector(look.candidates, limit)
        judge = Judge(
            asked.engine,
            own.judge_folder or self._work / "judge",
            own.judge_kind,
            rules=Rules(own.judge_threshold, own.judge_margin),
            budget=Budget(asked.prices.price, asked.prices.max_cost),
            logprobs=own.judge_logprobs,
            say=self._say,
        )
        self.facts["judge's model"] = judge.facts()
        self.facts["candidates"] = {look.candidates: candidates.threshold}
        return JudgeDetector(judge, candidates)


def num_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
