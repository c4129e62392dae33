"""From folders to runs: tells what kind of run a folder holds and reads it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trl_math.errors import DataError
from trl_math.evaluation import calibration, coverage_at_k, majority_confidence, mean_estimate, summarise
from trl_math.evaluation.results import with_fallback
from trl_math.evaluation.summary import by_group
from trl_math.reporting.page.read_json import is_count, read_object, refuse
from trl_math.reporting.page.read_samples import (
    Lines,
    count_samples,
    no_counts,
    read_answers,
    read_lines,
    read_problems,
)
from trl_math.reporting.page.read_summary import read_summary
from trl_math.reporting.page.runs import (
    COVERAGE,
    FALLBACK,
    LEVEL,
    PROGRAM,
    TEXT,
    UNNAMED_MODES,
    Problem,
    Result,
    Run,
    Samples,
    Training,
)


SAMPLES, GRADED, SUMMARY, STATE = "samples.jsonl", "graded.jsonl", "summary.json", "trainer_state.json"
ANSWERS = "coverage.jsonl"
EXPECTED = f"a run has {SAMPLES} and {SUMMARY} (trl-math evaluate), {GRADED} (trl-math grade) or {STATE} (training)"
UNLOGGED = ("epoch", "step", "total_flos", "num_tokens", "num_input_tokens_seen")
UNLOGGED_PARTS = ("runtime", "_per_second", "train_loss", "num_tokens")
LARGEST_LOGGED = 1e300  # what is above cannot be drawn, nor can infinity and NaN
COVERAGE_KS = (1, 4, 16, 64, 256, 1024)  # of a run that has no summary yet


def read_runs(folders: Sequence[str | Path], most_shown: int) -> list[Run]:
    """Read every folder, in the order given; raise a `DataError` for one that holds no run."""
    paths = [Path(folder) for folder in folders]
    resolved = [path.resolve() for path in paths]
    for place, path in enumerate(resolved):
        if path in resolved[:place]:
            raise DataError(f"{paths[place]} is given twice: give each run once.")
    return [
        _read_run(path, name, index, most_shown)
        for index, (path, name) in enumerate(zip(paths, _names(resolved), strict=True))
    ]


def _names(paths: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that tell them apart."""
    for length in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _read_run(folder: Path, name: str, index: int, most_shown: int) -> Run:
    _check_folder(folder)
    run = Run(folder, name, index)
    state = _state_file(folder)
    if state is not None:
        run.training = _read_training(folder, state)
    for file in (SAMPLES, GRADED):
        if (folder / file).is_file() and run.samples_file is None:
            run.samples_file = folder / file
    if run.samples_file is not None or any((folder / file).is_file() for file in (SUMMARY, ANSWERS)):
        _read_evaluation(run, most_shown)
    if not run.results and run.training is None:
        why = f" {run.notes[-1]}" if run.notes else ""
        raise DataError(f"{folder} is an empty run: there is no graded sample in it yet. Leave it out.{why}")
    return run


def _check_folder(folder: Path) -> None:
    if not folder.exists():
        raise DataError(f"There is no folder {folder}: give the folder of a run; {EXPECTED}.")
    if not folder.is_dir():
        raise DataError(f"{folder} is a file: give the folder of a run; {EXPECTED}.")
    if _is_run(folder):
        return
    inside = sorted(path.name for path in folder.iterdir() if path.is_dir() and _is_run(path))
    hint = f" Its folders {', '.join(inside[:5])} are runs: give those." if inside else ""
    raise DataError(f"{folder} is no run: {EXPECTED}.{hint}")


def _is_run(folder: Path) -> bool:
    files = (SAMPLES, GRADED, SUMMARY, ANSWERS)
    return any((folder / name).is_file() for name in files) or _state_file(folder) is not None


# evaluations


def _read_evaluation(run: Run, most_shown: int) -> None:
    file = run.samples_file
    is_graded = file is not None and file.name == GRADED
    summary = {} if is_graded else read_summary(run.folder / SUMMARY)
    run.header = {key: value for key, value in summary.items() if key != "results"}
    lines = read_lines(file) if file else Lines({}, {}, False)
    answers = {} if is_graded else read_answers(run.folder / ANSWERS)
    if file is not None and lines.is_torn:
        run.notes.append(f"{file.name} ends in the middle of a line, which is left out.")
    if not summary and not is_graded:
        run.notes.append(f"No {SUMMARY} yet: numbers are of the samples written so far.")
    problems = read_problems(run.folder / "problems.jsonl")
    stored = {(one["benchmark"], one["mode"]): one for one in summary.get("results", [])}
    _fall_back([name for name, mode in stored if mode == FALLBACK], lines)
    for benchmark, mode in dict.fromkeys([*stored, *lines.rows, *((name, COVERAGE) for name in answers)]):
        asked = problems.get(benchmark, {}) or (problems.get("", {}) if len(problems) <= 1 else {})
        rows = lines.rows.pop((benchmark, mode), [])  # no longer held than needed
        samples = count_samples(rows, lines.counts[benchmark, mode], asked, most_shown) if rows else None
        logps = answers.get(benchmark) if mode == COVERAGE else None
        row = stored.get((benchmark, mode)) or _counted(samples, logps, asked)
        if row is None:
            run.notes.append(f"No gold answer of {benchmark or 'the problems'} can be read, so there is no number.")
            continue
        result = Result(run, benchmark or _source(run), mode, row, samples, asked, logps)
        run.results.append(result)
        _check_counts(run, result)


def _fall_back(benchmarks: Sequence[str], lines: Lines) -> None:
    """Add the rows of mode fallback, which are rows of two other modes and are not written again."""
    for name in benchmarks:
        programs, texts = lines.rows.get((name, PROGRAM)), lines.rows.get((name, TEXT))
        if programs and texts:
            lines.rows[name, FALLBACK] = with_fallback(programs, texts)
            lines.counts[name, FALLBACK] = no_counts()  # the summary has them


def _source(run: Run) -> str:
    """Return what to call the problems of a folder that names no benchmark."""
    manifest = read_object(run.folder / "run.json")
    settings = manifest.get("settings")
    named = manifest.get("data") or (settings.get("data") if isinstance(settings, dict) else None)
    return str(named or "graded samples")


def _counted(
    samples: Samples | None, logps: Mapping[str, float] | None, problems: Mapping[str, Problem]
) -> dict[str, Any] | None:
    """Return what summary.json would say; None if there is nothing to count."""
    if samples is not None:
        ks = [2**place for place in range(1, samples.fewest.bit_length())]
        row = summarise(samples.tallies, ks, num_unreadable=samples.num_unreadable, confidence=LEVEL).as_dict()
        return row | {"calibration": _calibration(samples), "grading": samples.grading}
    if not logps:
        return None
    values = coverage_at_k(list(logps.values()), COVERAGE_KS)
    metrics = {f"coverage@{k}": column for k, column in zip(COVERAGE_KS, values.T, strict=True)}
    asked = [problems.get(id, Problem("", "")) for id in logps]
    row = {"metrics": _plain(metrics), "num_problems": len(logps), "levels": {}, "subjects": {}}
    for name, labels in (("levels", [one.level for one in asked]), ("subjects", [one.subject for one in asked])):
        found = by_group(labels, metrics, LEVEL)
        row[name] = {group: {key: one._asdict() for key, one in table.items()} for group, table in found.items()}
    return row


def _plain(metrics: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {name: mean_estimate(values, LEVEL)._asdict() for name, values in metrics.items()}


def _calibration(samples: Samples) -> dict[str, Any] | None:
    if samples.fewest < 2:
        return None
    votes = [one.votes for one in samples.tallies]
    found = calibration(*majority_confidence(votes, [one.correct_classes for one in samples.tallies]), level=LEVEL)
    bins = [one._asdict() | {"accuracy": one.accuracy._asdict()} for one in found.bins]
    estimates = {name: getattr(found, name)._asdict() for name in ("error", "overconfidence")}
    return found._asdict() | estimates | {"bins": bins}


def _check_counts(run: Run, result: Result) -> None:
    """Note where the summary is of something else than the rows that are there, and where it is of nothing."""
    name = result.benchmark if result.mode in UNNAMED_MODES else f"{result.benchmark}, {result.mode}"
    if not result.metrics:
        run.notes.append(f"{name}: there is no number, as no gold answer of its problems could be read.")
    if result.mode == COVERAGE:
        said, found, file, noun = result.stored.get("num_problems"), len(result.logps or ()), ANSWERS, "problems"
    else:
        found = sum(one.num_samples for one in result.samples.tallies) if result.samples else 0
        said, file, noun = result.stored.get("num_samples"), SAMPLES, "samples"
    if found != said and said is not None:
        shown = "The table shows the former, figures the latter." if found else "There are numbers, but no figures."
        run.notes.append(f"{name}: {SUMMARY} is of {said} {noun}, but {file} has {found or 'none'}. {shown}")


# training


def _state_file(folder: Path) -> Path | None:
    """Return the trainer's state: of the finished run, or of its newest checkpoint."""
    if (folder / STATE).is_file():
        return folder / STATE
    steps = {path.parent: path.parent.name.rpartition("-")[2] for path in folder.glob(f"checkpoint-*/{STATE}")}
    numbered = sorted((int(step), path) for path, step in steps.items() if step.isdigit())
    return numbered[-1][1] / STATE if numbered else None


def _read_training(folder: Path, path: Path) -> Training:
    state = read_object(path)
    history = state.get("log_history")
    if not isinstance(history, list):
        raise DataError(f"{path} has no log_history: it is not a trainer's state.")
    series: dict[str, list[tuple[int, float]]] = {}
    for entry in history:
        if not isinstance(entry, dict):
            refuse(f"{path}: an entry of log_history", "an object", entry)
        for name, value in entry.items():
            if _is_number(value) and _is_shown(name) and is_count(entry.get("step")):
                series.setdefault(name, []).append((entry["step"], float(value)))
    manifest = read_object(folder / "run.json")
    settings = manifest.get("settings")
    num_steps = state.get("global_step") or 0
    if not is_count(num_steps):
        refuse(f"{path}: global_step", "a whole number, 0 or above", num_steps)
    return Training(
        series=series,
        settings=settings if isinstance(settings, dict) else {},
        num_steps=num_steps,
        is_finished=path.parent == folder,
    )


def _is_number(value: Any) -> bool:
    """Whether a logged value can be drawn."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST_LOGGED


def _is_shown(name: str) -> bool:
    return name not in UNLOGGED and not any(part in name for part in UNLOGGED_PARTS)
