"""`trl-math evaluate --dry-run`: what would be asked of the model, benchmark by benchmark, and who would draw it."""

from pathlib import Path
from typing import Any

from trl_math.errors import NotCachedError
from trl_math.evaluation.arguments import RUNS_PROGRAMS
from trl_math.evaluation.benchmarks import find_benchmark
from trl_math.evaluation.run import COVERAGE, PROBLEMS, SAMPLES, SUMMARY, check_folder
from trl_math.evaluation.units import Unit, check_names, make_units
from trl_math.generate_plan import (
    amount,
    engine_lines,
    missing_lines,
    model_lines,
    program_lines,
    prompt_lines,
    sections,
    settings_lines,
)
from trl_math.generation.sample_files import completion_files
from trl_math.recipes import EvaluateRequest
from trl_math.share import Part


def report(arguments: EvaluateRequest, part: Part) -> str:
    """Return the text of a dry run; raise what would stop the run on any machine."""
    engine = arguments.engine
    checkpoint, lines = model_lines(engine)
    return sections(
        {
            "settings (others are at their defaults)": settings_lines(arguments.given),
            "model": lines,
            **_benchmarks(arguments, checkpoint),
            "engines": engine_lines(engine, part),
            "files": _files(arguments, checkpoint),
            **_programs(arguments),
            "missing on this machine": missing_lines(engine, runs_programs=arguments.evaluate.mode in RUNS_PROGRAMS),
        }
    )


def _programs(arguments: EvaluateRequest) -> dict[str, list[str]]:
    """Return a section on programs that run while samples are drawn."""
    style = "tool" if arguments.evaluate.mode == "tool" else "plain"
    interpreter = arguments.evaluate.generate_arguments(style).interpreter_settings()
    return {} if interpreter is None else {"programs": program_lines(interpreter)}


def _benchmarks(arguments: EvaluateRequest, checkpoint: Any) -> dict[str, list[str]]:
    """Return a section for each benchmark and mode."""
    if checkpoint is None:
        return {"benchmarks": [f"{', '.join(arguments.evaluate.benchmarks)}: not read, since the model is not here"]}
    found: dict[str, list[str]] = {}
    check_names([find_benchmark(text)[0].name for text in arguments.evaluate.benchmarks])
    for text in arguments.evaluate.benchmarks:
        try:
            units = make_units([text], arguments.evaluate, arguments.engine, checkpoint)
        except NotCachedError as error:
            found[text] = ["not in the local cache, so it is not checked", f"({error})"]
            continue
        found |= {f"{unit.benchmark} ({unit.mode})": _unit(arguments, unit) for unit in units}
    return found


def _unit(arguments: EvaluateRequest, unit: Unit) -> list[str]:
    settings = arguments.evaluate
    style = f"prompt style {unit.plan.settings['prompt_style']}"
    what = amount(len(unit.problems), settings)
    if unit.mode == "coverage":
        what = f"{len(unit.problems):,} problems, one forward pass each"
    lines = [style, what]
    present = completion_files(Path(settings.output) / unit.folder)
    if present:
        lines.append(f"{len(present)} files of samples are there: it goes on")
    if unit.plan.checkpoint.tokenizer is None:
        return lines
    max_tokens = 0 if unit.mode == "coverage" else settings.max_tokens
    return [*lines, *prompt_lines(unit.plan.prompts, max_tokens, unit.plan.checkpoint, arguments.engine)]


def _files(arguments: EvaluateRequest, checkpoint: Any) -> list[str]:
    folder = Path(arguments.evaluate.output)
    if checkpoint is not None:
        check_folder(folder, checkpoint.identity)
    if arguments.evaluate.mode == "coverage":
        return [f"{folder}: {SUMMARY}, {COVERAGE}, {PROBLEMS}"]
    return [f"{folder}: {SUMMARY}, {SAMPLES}, {PROBLEMS}, and a folder of samples for each benchmark and mode"]
