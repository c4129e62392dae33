"""Two evaluations of the same problems, metric by metric: what the second gains over the first."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from trl_math.errors import DataError, UsageError, nearest
from trl_math.evaluation.coverage import coverage_at_k
from trl_math.evaluation.paired import Comparison, compare
from trl_math.evaluation.results import Key, Rows, read_samples, tallies_of, with_fallback
from trl_math.evaluation.run import COVERAGE, FALLBACK, PROBLEMS, SAMPLES, SUMMARY, read_lines, read_summary
from trl_math.evaluation.summary import LOWER_IS_BETTER, problem_metrics
from trl_math.grading import Grader


# Settings that may differ without a remark: comparing models is what comparisons are for.
EXPECTED = ("model", "tokenizer", "end_ids", "chat_template", "dtype", "max_model_len")


class Run(NamedTuple):
    """An evaluation that was read."""

    folder: Path
    summary: dict[str, Any]
    samples: dict[Key, Rows]
    problems: dict[str, dict[str, dict[str, Any]]]  # benchmark -> id -> problem

    def result(self, key: Key) -> dict[str, Any]:
        """Return what the summary says of a benchmark and mode."""
        return next(one for one in self.summary["results"] if (one["benchmark"], one["mode"]) == key)

    @property
    def keys(self) -> list[Key]:
        """The benchmarks and modes that have results."""
        return [(result["benchmark"], result["mode"]) for result in self.summary["results"]]


class Compared(NamedTuple):
    """One benchmark and mode of two runs."""

    benchmark: str
    mode: str
    metrics: dict[str, Comparison]
    differing: dict[str, tuple[Any, Any]]  # settings of the sampler that are not the same

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON can write it."""
        metrics = {}
        for name, one in self.metrics.items():
            estimates = {side: getattr(one, side)._asdict() for side in ("difference", "first", "second")}
            metrics[name] = {**one._asdict(), **estimates, "p_value": one.p_value._asdict()}
        differing = {name: list(values) for name, values in self.differing.items()}
        return {"benchmark": self.benchmark, "mode": self.mode, "metrics": metrics, "differing_settings": differing}


def read_run(folder: str | Path) -> Run:
    """Read an evaluation, or raise what is wrong with it."""
    folder = Path(folder)
    missing = [name for name in (SUMMARY, PROBLEMS) if not (folder / name).is_file()]
    if missing:
        raise UsageError(
            f"{folder} is no finished evaluation: there is no {' and no '.join(missing)}. Give folders of "
            "`trl-math evaluate`."
        )
    summary = read_summary(folder)
    problems: dict[str, dict[str, dict[str, Any]]] = {}
    for row in read_lines(folder / PROBLEMS):
        problems.setdefault(row["benchmark"], {})[row["problem_id"]] = row
    samples = read_samples(folder / SAMPLES) if (folder / SAMPLES).exists() else {}
    for name, mode in [(result["benchmark"], result["mode"]) for result in summary["results"]]:
        if mode == FALLBACK:
            samples[name, mode] = with_fallback(samples.get((name, "program"), ()), samples.get((name, "cot"), ()))
        if mode != "coverage" and not samples.get((name, mode)):
            raise DataError(
                f"{folder / SUMMARY} has results of {name} ({mode}), and {SAMPLES} beside it none of their samples: "
                "evaluate again."
            )
    return Run(folder, summary, samples, problems)


def compare_runs(
    first: Run, second: Run, *, intersect: bool = False, confidence: float = 0.95, metrics: list[str] | None = None
) -> list[Compared]:
    """Compare every benchmark and mode that both runs have.

    Args:
        first: The run that is compared with.
        second: The run whose gain is told.
        intersect: If the runs asked different problems, compare those that both asked.
        confidence: Of the intervals.
        metrics: Which; by default all that both summaries have.
    """
    keys = [key for key in first.keys if key in second.keys]
    if metrics:
        known = {name for key in keys for name in _metrics(first, second, key, None)}
        if unknown := [name for name in metrics if name not in known]:
            raise UsageError(
                f"Not in both runs: {', '.join(unknown)}.{nearest(unknown[0], known)} Both have: "
                f"{', '.join(sorted(known))}."
            )
        keys = [key for key in keys if set(metrics) & set(_metrics(first, second, key, None))]
    if not keys:
        raise UsageError(
            f"The runs have no benchmark in common: {keys_said(first)} in {first.folder}, {keys_said(second)} in "
            f"{second.folder}."
        )
    with Grader() as grader:
        return [_compared(first, second, key, intersect, confidence, metrics, grader) for key in keys]


def keys_said(run: Run) -> str:
    """Return the benchmarks and modes of a run, as a message names them."""
    return ", ".join(f"{name} ({mode})" for name, mode in run.keys)


def _compared(
    first: Run, second: Run, key: Key, intersect: bool, confidence: float, metrics: list[str] | None, grader: Grader
) -> Compared:
    check_same_problems(first.problems[key[0]], second.problems[key[0]], key[0])
    names = _metrics(first, second, key, metrics)
    sides = [by_problem(run, key, names, grader) for run in (first, second)]
    found = {
        name: compare(
            sides[0][name],
            sides[1][name],
            intersect=intersect,
            confidence=confidence,
            lower_is_better=name in LOWER_IS_BETTER,
        )
        for name in names
    }
    return Compared(*key, found, differing_settings(first.result(key), second.result(key)))


def _metrics(first: Run, second: Run, key: Key, asked: list[str] | None) -> list[str]:
    """Return the metrics that both runs have, of those that are asked."""
    both = [name for name in first.result(key)["metrics"] if name in second.result(key)["metrics"]]
    return [name for name in both if asked is None or name in asked]


def by_problem(run: Run, key: Key, names: list[str], grader: Grader) -> dict[str, dict[str, float]]:
    """Return each metric's value of each problem."""
    if key[1] == "coverage":
        rows = [row for row in read_lines(run.folder / COVERAGE) if row["benchmark"] == key[0]]
        ks = [int(name.partition("@")[2]) for name in names]
        values = coverage_at_k([row["logp"] for row in rows], ks)
        ids = [row["problem_id"] for row in rows]
        return {name: dict(zip(ids, values[:, place].tolist(), strict=True)) for place, name in enumerate(names)}
    tallies, _ = tallies_of(run.samples[key], run.problems[key[0]], grader)
    ks = sorted({int(name.partition("@")[2]) for name in names if name.startswith("pass@")})
    majority_ks = sorted({int(name.partition("@")[2]) for name in names if name.startswith("maj@")})
    found, _ = problem_metrics(tallies, ks, majority_ks)
    ids = [one.problem_id for one in tallies]
    return {name: dict(zip(ids, found[name].tolist(), strict=True)) for name in names}


def check_same_problems(
    first: Mapping[str, Mapping[str, Any]], second: Mapping[str, Mapping[str, Any]], benchmark: str
) -> None:
    """Raise if the same id stands for two problems of a benchmark."""
    for problem_id, problem in first.items():
        other = second.get(problem_id)
        if other is not None and any(problem.get(name) != other.get(name) for name in ("problem", "answer")):
            raise UsageError(
                f"Problem {problem_id} of {benchmark} is not the same in both runs (another text or answer): these "
                "are different data under one name."
            )


def differing_settings(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the settings that two results differ in, beside those that comparisons are for."""
    a, b = ({**_of_grading(result), **result["settings"]} for result in (first, second))
    names = [name for name in {**a, **b} if name not in EXPECTED and a.get(name) != b.get(name)]
    return {name: (a.get(name), b.get(name)) for name in names}


def _of_grading(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a result depends on beside the sampler."""
    return {"samples of a problem": result.get("samples_per_problem"), "graded with": result.get("graded_with")}
