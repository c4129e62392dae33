"""`trl-math evaluate`: benchmarks are asked, graded and counted."""

import dataclasses
from pathlib import Path
from typing import Any

from trl_math.cli.request import quiet_bars, read_request, say, set_environment, settings_help
from trl_math.errors import UsageError
from trl_math.recipes import EVALUATE_ALIASES, EvaluateRequest, build_evaluate
from trl_math.share import Part, own_part, run_parts, take_own_devices
from trl_math.smoke import evaluate_smoke_values


HELP = """\
usage: trl-math evaluate --model MODEL --benchmarks NAME [NAME ...] --output FOLDER [--setting value ...]
       trl-math evaluate --config RECIPE.yaml [--setting value ...] [--dry-run] [--smoke] [--debug]

Ask benchmarks, grade the answers, and tell accuracy, pass@k and maj@k with intervals. MODEL is a name on the hub, a
checkpoint of any kind (of ZeRO-3 or LoRA too) or embedded:smollm2-135m-instruct. The same command on the same output
goes on where it stopped, after a crash too. Without --output the folder is runs/ and the recipe's name, or
runs/evaluation.

which benchmarks, and how they are asked (with their defaults):
{evaluate}

which model, on which engine:
{engine}

benchmarks: {benchmarks}
"""


ONE_PASS = ("auto", "transformers")  # backends that a mode without samples may be given


def run(argv: list[str]) -> int:
    """Run the command; return the exit status."""
    if {"-h", "--help"} & set(argv):
        print(_help())
        return 0
    part = own_part()
    take_own_devices(part)
    request = read_request(argv, "evaluate", evaluate_smoke_values, "output", EVALUATE_ALIASES)
    set_environment(request)
    quiet_bars()
    arguments = build_evaluate(request.values)
    check(arguments, part)
    if arguments.evaluate.mode == "coverage":
        arguments = arguments._replace(engine=dataclasses.replace(arguments.engine, backend="transformers"))
    if request.is_dry_run:
        from trl_math.evaluate_plan import report

        print(report(arguments, part))
        return 0
    arguments.engine.check_here()
    return evaluate(arguments, part, argv)


def check(arguments: EvaluateRequest, part: Part) -> None:
    """Raise for settings that do not go together; needs neither model nor data."""
    if not arguments.engine.model:
        raise UsageError("Which model? Set model (a hub name, a folder, or embedded:smollm2-135m-instruct).")
    if not arguments.evaluate.benchmarks:
        raise UsageError("Which benchmarks? Set benchmarks: gsm8k, math500, or a file of problems of your own.")
    if part.number > 1 and not part.is_child:
        raise UsageError(
            "trl-math evaluate starts its own processes: start it without a launcher, and set data_parallel_size to "
            "the number of engines."
        )
    engine = arguments.engine
    if arguments.evaluate.mode == "coverage" and (engine.data_parallel_size > 1 or engine.backend not in ONE_PASS):
        raise UsageError(
            "mode coverage makes one forward pass with transformers: leave backend and data_parallel_size out."
        )
    from trl_math.evaluation.arguments import RUNS_PROGRAMS

    if arguments.evaluate.mode in RUNS_PROGRAMS:
        from trl_math.grading.sandbox import usable_mode

        usable_mode()  # says why, if programs cannot be run here


def evaluate(arguments: EvaluateRequest, part: Part, argv: list[str]) -> int:
    """Draw this process's samples; the process that was started by the user then grades and counts."""
    from trl_math.evaluation import run
    from trl_math.evaluation.table import results_table
    from trl_math.evaluation.units import make_units
    from trl_math.generation.engines import find_checkpoint
    from trl_math.generation.store import Shard

    settings, engine = arguments.evaluate, arguments.engine
    folder = Path(settings.output)
    checkpoint = find_checkpoint(engine)
    units = make_units(settings.benchmarks, settings, engine, checkpoint)
    if part.is_child:
        run.draw(folder, units, settings, engine, say, Shard(part.index, part.number))
        return 0
    with run.hold_folder(folder, checkpoint.identity):
        run.check_sources(folder, units)
        if engine.data_parallel_size > 1:
            status = run_parts(["evaluate", *argv], engine.data_parallel_size, engine.tensor_parallel_size)
            if status:
                return status
        else:
            run.draw(folder, units, settings, engine, say)
        summary = run.conclude(folder, engine.label, units, settings, say)
    print(f"\n{results_table(summary['results'])}\n")
    for line in closing(summary, folder):
        say(line)
    return 0


def closing(summary: dict[str, Any], folder: Path) -> list[str]:
    """Return what should be known of the numbers, and where they are."""
    lines = [
        f"Percent of problems; in brackets the {summary['confidence']:.0%} interval, clustered by problem. "
        f"Every k, level and subject: {folder / 'summary.json'}."
    ]
    for result in summary["results"]:
        name = f"{result['benchmark']} ({result['mode']})"
        if result["num_unreadable"]:
            lines.append(
                f"{name}: {result['num_unreadable']} problems were left out: their gold answers are unreadable."
            )
        if result["grading"]["num_timeouts"]:
            lines.append(f"{name}: {result['grading']['num_timeouts']} comparisons took too long and count as wrong.")
        error = max(result["majority_error"].values(), default=0.0)
        if error:
            lines.append(
                f"{name}: maj@k is computed from random subsets, to within {100 * error:.2f} points a problem."
            )
    lines.append(f"Look at it: trl-math report {folder} --output report.html")
    return lines


def _help() -> str:
    from trl_math.evaluation.arguments import EvaluateArguments
    from trl_math.evaluation.benchmarks import BENCHMARKS
    from trl_math.generation.engines import EngineArguments

    return HELP.format(
        evaluate=settings_help(EvaluateArguments),
        engine=settings_help(EngineArguments),
        benchmarks=", ".join(BENCHMARKS),
    ).rstrip()
