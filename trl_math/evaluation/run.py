"""One evaluation in one folder: samples are drawn, graded and counted, and whatever stopped goes on.

run.json             of which model this is an evaluation
samples.jsonl        the graded samples of all benchmarks and modes
problems.jsonl       the problems that were asked
summary.json         every number, with its n, its interval and what it depends on
gsm8k/ ...           the samples as they were drawn: a folder for each benchmark and mode
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trl_math.errors import RunFolderError
from trl_math.evaluation import teacher_forced
from trl_math.evaluation.arguments import EvaluateArguments
from trl_math.evaluation.grade_samples import answers_digest, by_id, grade_new, grader_facts
from trl_math.evaluation.graded_file import GradedFile
from trl_math.evaluation.results import Key, Rows, numbers, read_samples, with_fallback
from trl_math.evaluation.units import Unit
from trl_math.files import json_line, write_json, write_whole
from trl_math.generation.arguments import sampler_hash
from trl_math.generation.engines import EngineArguments, versions
from trl_math.generation.sample_files import unique_rows
from trl_math.generation.session import Engine, Say, fill_folder
from trl_math.generation.store import Shard, read_manifest
from trl_math.grading import Grader
from trl_math.grading.sandbox import Limits, Sandbox
from trl_math.run_folder import MANIFEST


FALLBACK = "fallback"
# Of the sampler's settings, those that a probability depends on.
SETTINGS_OF_COVERAGE = (
    "model",
    "dtype",
    "tokenizer",
    "end_ids",
    "prompt_style",
    "num_shots",
    "template_hash",
    "chat_template",
    "seed",
)
SAMPLES, PROBLEMS, SUMMARY = "samples.jsonl", "problems.jsonl", "summary.json"
COVERAGE = "coverage.jsonl"


def claim_folder(folder: Path, model: str, *, write: bool = True) -> None:
    """Make a folder the evaluation of this model, or raise if it is something else. Without `write`, only look."""
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"output {folder} is a file: choose another.")
    manifest = read_manifest(folder)
    if not manifest and folder.exists() and any(path.suffix not in (".lock", ".part") for path in folder.iterdir()):
        raise RunFolderError(f"output {folder} is not empty and holds no evaluation: choose another.")
    if manifest and manifest.get("command") != "evaluate":
        raise RunFolderError(f"output {folder} belongs to `trl-math {manifest.get('command')}`: choose another.")
    if manifest.get("model", model) != model:
        raise RunFolderError(
            f"output {folder} holds an evaluation of another model ({manifest['model']} there, {model} here): choose "
            "another."
        )
    if not manifest and write:
        write_json(folder / MANIFEST, {"command": "evaluate", "model": model})


def draw(
    folder: Path,
    units: Sequence[Unit],
    arguments: EvaluateArguments,
    engine_arguments: EngineArguments,
    say: Say,
    shard: Shard | None = None,
) -> None:
    """Draw the samples that are missing, of all benchmarks with one engine; for coverage, ask for probabilities."""
    if arguments.mode == "coverage":
        _force(folder, units, engine_arguments, say)
        return
    with Engine(engine_arguments, units[0].plan.checkpoint) as engine:
        for unit in units:
            number = arguments.num_samples
            fill_folder(folder / unit.folder, unit.plan, number, engine, say, shard=shard, name=unit.folder)


def conclude(
    folder: Path, model: str, units: Sequence[Unit], arguments: EvaluateArguments, say: Say
) -> dict[str, Any]:
    """Grade what was drawn, write samples, problems and summary, and return the summary."""
    if arguments.mode == "coverage":
        return _conclude_coverage(folder, model, units, arguments)
    with Grader(arguments.grading_workers, arguments.grading_deadline) as grader:
        _grade(folder, units, arguments, grader, say)
        _write_problems(folder, units)
        rows = _rows_asked(read_samples(folder / SAMPLES), units)
        if arguments.mode == FALLBACK:
            rows |= {
                (name, FALLBACK): with_fallback(rows[name, "program"], rows[name, "cot"])
                for name in dict.fromkeys(unit.benchmark for unit in units)
            }
        problems = {unit.benchmark: by_id(unit.problems) for unit in units}
        results = [
            {
                "benchmark": key[0],
                "mode": key[1],
                **_facts(
                    folder, [unit for unit in units if unit.benchmark == key[0] and key[1] in (unit.mode, FALLBACK)]
                ),
                **numbers(rows[key], problems[key[0]], arguments.all_ks, arguments.confidence, grader),
            }
            for key in rows
        ]
    return _write_summary(folder, model, results, arguments.confidence)


def _force(folder: Path, units: Sequence[Unit], engine: EngineArguments, say: Say) -> None:
    """Write the probabilities of the answers, and keep those of other benchmarks."""
    checkpoint = units[0].plan.checkpoint
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in read_lines(folder / COVERAGE):
        rows.setdefault(row["benchmark"], []).append(row)
    with teacher_forced.opened(engine, checkpoint) as model:
        for unit in units:
            found = teacher_forced.answer_rows(unit.problems, unit.style, model, checkpoint)
            rows[unit.benchmark] = [{**row, "benchmark": unit.benchmark} for row in found]
            say(f"{unit.folder}: the answers of {len(found):,} problems have their probabilities.")
    write_whole(folder / COVERAGE, "".join(json_line(row).decode() for some in rows.values() for row in some))


def _conclude_coverage(
    folder: Path, model: str, units: Sequence[Unit], arguments: EvaluateArguments
) -> dict[str, Any]:
    _write_problems(folder, units)
    rows = list(read_lines(folder / COVERAGE))
    results = []
    for unit in units:
        own = [row for row in rows if row["benchmark"] == unit.benchmark]
        told = teacher_forced.coverage_numbers(own, by_id(unit.problems), arguments.all_ks, arguments.confidence)
        facts = {
            "source": unit.plan.data,
            "sampler": sampler_hash(unit.plan.settings),
            "settings": {name: unit.plan.settings[name] for name in SETTINGS_OF_COVERAGE},
            "engine": "transformers",
            "versions": versions(),
        }
        results.append({**unit.key, **facts, **told})
    return _write_summary(folder, model, results, arguments.confidence)


def _grade(folder: Path, units: Sequence[Unit], arguments: EvaluateArguments, grader: Grader, say: Say) -> None:
    limits = Limits(seconds=arguments.program_seconds)
    made_with: dict[str, Any] = {"grader": {**grader_facts(), "deadline": arguments.grading_deadline}}
    made_with |= {f"answers of {unit.benchmark}": answers_digest(unit.problems) for unit in units}
    if any(unit.mode == "program" for unit in units):
        made_with["programs"] = {"seconds": limits.seconds}
    key = ("benchmark", "mode", "problem_id", "sample_index")
    with GradedFile(folder / SAMPLES, key, made_with) as graded:
        if graded.is_renewed and (folder / SUMMARY).exists():
            say("What grades depend on has changed since (versions, answers or limits): all are made anew.")
        for unit in units:
            samples = (row for _, _, row in unique_rows(folder / unit.folder))
            problems = by_id(unit.problems)
            if unit.mode == "program":
                with Sandbox(limits=limits, workers=arguments.grading_workers) as sandbox:
                    number = grade_new(samples, problems, graded, grader, sandbox, unit.key)
            else:
                number = grade_new(samples, problems, graded, grader, None, unit.key)
            say(f"{unit.folder}: {number:,} samples graded.")


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSONL file that is written whole; none if it is not there."""
    if path.exists():
        with path.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def _rows_asked(rows: Mapping[Key, Rows], units: Sequence[Unit]) -> dict[Key, Rows]:
    """Return the rows of these units, in their order."""
    return {(unit.benchmark, unit.mode): rows.get((unit.benchmark, unit.mode), []) for unit in units}


def _facts(folder: Path, units: Sequence[Unit]) -> dict[str, Any]:
    """Return what the numbers of a benchmark depend on, read from where its samples are."""
    manifests = [read_manifest(folder / unit.folder) for unit in units]
    sessions = manifests[0].get("sessions") or [{}]
    last = sessions[-1]
    engine = {name: last[name] for name in ("engine", "dtype") if name in last}
    engine_version = {last["engine"]: last["version"]} if "version" in last else {}
    return {
        "source": units[0].plan.data,
        "sampler": "|".join(str(manifest.get("sampler")) for manifest in manifests),
        "settings": _together([manifest.get("settings", {}) for manifest in manifests]),
        **engine,
        "num_sessions": sum(len(manifest.get("sessions") or ()) for manifest in manifests),
        "versions": {**last.get("versions", {}), **engine_version, **grader_facts()},
    }


def _together(settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the settings of several samplers as one: a list where they are not the same."""
    first, *others = settings
    return {
        name: value if all(other.get(name) == value for other in others) else [one.get(name) for one in settings]
        for name, value in first.items()
    }


def _write_problems(folder: Path, units: Sequence[Unit]) -> None:
    """Write the problems of these benchmarks, and keep those of others that were asked before."""
    path = folder / PROBLEMS
    rows = {(row["benchmark"], row["problem_id"]): row for row in read_lines(path)}
    for unit in units:
        for problem in unit.problems:
            rows[unit.benchmark, problem["problem_id"]] = {**problem, "benchmark": unit.benchmark}
    write_whole(path, "".join(json_line(row).decode() for row in rows.values()))


def _write_summary(
    folder: Path, model: str, results: Sequence[Mapping[str, Any]], confidence: float
) -> dict[str, Any]:
    """Write the summary, and keep the results of other benchmarks and modes that are in it."""
    path = folder / SUMMARY
    kept = json.loads(path.read_text(encoding="utf-8"))["results"] if path.exists() else []
    new = {(result["benchmark"], result["mode"]): result for result in results}
    merged = {(result["benchmark"], result["mode"]): result for result in kept} | new
    summary = {
        "command": "evaluate",
        "model": model,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "confidence": confidence,
        "versions": {**versions(), **grader_facts()},
        "results": list(merged.values()),
    }
    write_json(path, summary)
    return {**summary, "results": list(new.values())}
