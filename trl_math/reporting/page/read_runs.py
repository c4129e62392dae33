"""From folders to runs: tells what kind of run a folder holds and reads it."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trl_math.errors import DataError
from trl_math.evaluation import calibration, majority_confidence, summarise
from trl_math.reporting.page.read_samples import Lines, count_samples, read_lines, read_problems
from trl_math.reporting.page.runs import Result, Run, Samples, Training


SAMPLES, GRADED, SUMMARY, STATE = "samples.jsonl", "graded.jsonl", "summary.json", "trainer_state.json"
EXPECTED = f"a run has {SAMPLES} and {SUMMARY} (trl-math evaluate), {GRADED} (trl-math grade) or {STATE} (training)"
UNLOGGED = ("epoch", "step", "total_flos", "num_tokens", "num_input_tokens_seen")
UNLOGGED_PARTS = ("runtime", "_per_second", "train_loss", "num_tokens")


def read_runs(folders: Sequence[str | Path], most_shown: int, level: float = 0.95) -> list[Run]:
    """Read every folder, in the order given; raise a `DataError` for one that holds no run."""
    paths = [Path(folder) for folder in folders]
    resolved = [path.resolve() for path in paths]
    for place, path in enumerate(resolved):
        if path in resolved[:place]:
            raise DataError(f"{paths[place]} is given twice: give each run once.")
    return [
        _read_run(path, name, index, most_shown, level)
        for index, (path, name) in enumerate(zip(paths, _names(resolved), strict=True))
    ]


def _names(paths: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that tell them apart."""
    for length in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _read_run(folder: Path, name: str, index: int, most_shown: int, level: float) -> Run:
    _check_folder(folder)
    run = Run(folder, name, index)
    state = _state_file(folder)
    if state is not None:
        run.training = _read_training(folder, state)
    for file in (SAMPLES, GRADED):
        if (folder / file).is_file() and run.samples_file is None:
            run.samples_file = folder / file
    if run.samples_file is not None or (folder / SUMMARY).is_file():
        _read_evaluation(run, most_shown, level)
    if not run.results and run.training is None:
        raise DataError(f"{folder} is an empty run: there is no graded sample in it yet. Leave it out.")
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
    files = (SAMPLES, GRADED, SUMMARY)
    return any((folder / name).is_file() for name in files) or _state_file(folder) is not None


def _read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; an empty one if there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise DataError(f"{path} is not JSON: it is damaged, or another program's.") from None
    if not isinstance(value, dict):
        raise DataError(f"{path} must hold a JSON object, but holds a {type(value).__name__}.")
    return value


# evaluations


def _read_summary(folder: Path) -> dict[str, Any]:
    summary = _read_json(folder / SUMMARY)
    results = summary.get("results", [])
    is_ours = isinstance(results, list) and all(
        isinstance(one, dict) and {"benchmark", "mode", "metrics"} <= one.keys() for one in results
    )
    if summary and not ("results" in summary and is_ours):
        raise DataError(
            f"{folder / SUMMARY} is not one that `trl-math evaluate` writes (it has {', '.join(list(summary)[:5])}): "
            "leave that folder out, or evaluate again."
        )
    return summary


def _read_evaluation(run: Run, most_shown: int, level: float) -> None:
    is_graded = run.samples_file is not None and run.samples_file.name == GRADED
    summary = {} if is_graded else _read_summary(run.folder)
    run.header = {key: value for key, value in summary.items() if key != "results"}
    lines = read_lines(run.samples_file) if run.samples_file else Lines({}, {}, False)
    if lines.is_torn:
        run.notes.append(f"{run.samples_file.name} ends in the middle of a line, which is left out.")  # type: ignore[union-attr]
    if not summary and not is_graded:
        run.notes.append(f"No {SUMMARY} yet: numbers are of the samples written so far.")
    problems = read_problems(run.folder / "problems.jsonl")
    stored = {(one["benchmark"], one["mode"]): one for one in summary.get("results", [])}
    for key in [*stored, *(key for key in lines.rows if key not in stored)]:
        samples = None
        asked = problems.get(key[0], {}) or (problems.get("", {}) if len(problems) <= 1 else {})
        if key in lines.rows:
            samples = count_samples(lines.rows.pop(key), lines.counts[key], asked, most_shown)
        if key not in stored and samples is None:
            run.notes.append(f"No gold answer of {key[0] or 'the problems'} can be read, so there is no number.")
            continue
        row = stored.get(key) or _summarised(samples, level)  # type: ignore[arg-type]
        result = Result(run, key[0] or _source(run), key[1], row, samples, asked)
        run.results.append(result)
        _check_counts(run, result)


def _source(run: Run) -> str:
    """Return what to call the problems of a folder that names no benchmark."""
    manifest = _read_json(run.folder / "run.json")
    return str(manifest.get("data") or (manifest.get("settings") or {}).get("data") or "graded samples")


def _summarised(samples: Samples, level: float) -> dict[str, Any]:
    """Return what summary.json would say of the samples."""
    largest = samples.fewest.bit_length()
    ks = [2**place for place in range(1, largest) if 2**place <= samples.fewest]
    row = summarise(samples.tallies, ks, num_unreadable=samples.num_unreadable, confidence=level).as_dict()
    return row | {"calibration": _calibration(samples, level), "grading": samples.grading}


def _calibration(samples: Samples, level: float) -> dict[str, Any] | None:
    if samples.fewest < 2:
        return None
    votes = [one.votes for one in samples.tallies]
    found = calibration(*majority_confidence(votes, [one.correct_classes for one in samples.tallies]), level=level)
    bins = [one._asdict() | {"accuracy": one.accuracy._asdict()} for one in found.bins]
    estimates = {name: getattr(found, name)._asdict() for name in ("error", "overconfidence")}
    return found._asdict() | estimates | {"bins": bins}


def _check_counts(run: Run, result: Result) -> None:
    """Note where the summary was made of other samples than those that are there."""
    if result.samples is None or "num_samples" not in result.stored:
        return
    found, said = sum(one.num_samples for one in result.samples.tallies), result.stored["num_samples"]
    if found != said:
        run.notes.append(
            f"{result.benchmark}: {SUMMARY} is of {said} samples, but {SAMPLES} has {found}. The table shows the "
            "former, figures the latter."
        )


# training


def _state_file(folder: Path) -> Path | None:
    """Return the trainer's state: of the finished run, or of its newest checkpoint."""
    if (folder / STATE).is_file():
        return folder / STATE
    steps = {path.parent: path.parent.name.rpartition("-")[2] for path in folder.glob(f"checkpoint-*/{STATE}")}
    numbered = sorted((int(step), path) for path, step in steps.items() if step.isdigit())
    return numbered[-1][1] / STATE if numbered else None


def _read_training(folder: Path, path: Path) -> Training:
    state = _read_json(path)
    history = state.get("log_history")
    if not isinstance(history, list):
        raise DataError(f"{path} has no log_history: it is not a trainer's state.")
    series: dict[str, list[tuple[int, float]]] = {}
    for entry in history:
        for name, value in entry.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if is_number and _is_shown(name) and isinstance(entry.get("step"), int):
                series.setdefault(name, []).append((entry["step"], float(value)))
    manifest = _read_json(folder / "run.json")
    settings = manifest.get("settings")
    return Training(
        series=series,
        settings=settings if isinstance(settings, dict) else {},
        num_steps=int(state.get("global_step") or 0),
        is_finished=path.parent == folder,
    )


def _is_shown(name: str) -> bool:
    return name not in UNLOGGED and not any(part in name for part in UNLOGGED_PARTS)
