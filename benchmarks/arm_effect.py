"""What the experiments with arms share as commands: their options, the table of runs, the files, the last line."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trl_math.demo.task import Training
from trl_math.demo.workers import run_arms
from trl_math.errors import TrlMathError
from trl_math.files import write_json
from trl_math.reporting.arm_runs import ArmRun, RunFile, num_seeds


Runs = Sequence[Any]


@dataclass(frozen=True)
class Experiment:
    """An experiment from scratch: what is trained, and what is made of the runs.

    Args:
        name: Of the output folder.
        about: What `--help` says.
        module: What a worker runs.
        arms: Their names; `base` is none of them.
        settings: The sizes of the experiment.
        quick: Sizes that only show that it runs.
        run_type: What a worker leaves.
        seeds: How many, from 1: sizes are tried with 0, and `about` says which others had been seen by then.
        table: Of the base's runs and the arms': Markdown.
        results: Of both: what `results.json` has besides settings and time.
        draw: Of both and a path: the figure's files.
        claim: Of the arms' runs and what is said of their seeds: the promised numbers in a line.
    """

    name: str
    about: str
    module: str
    arms: Iterable[str]
    settings: type[Training]
    quick: Training
    run_type: type[RunFile]
    seeds: int
    table: Callable[[Runs, Runs], str]
    results: Callable[[Runs, Runs], dict[str, Any]]
    draw: Callable[[Runs, Runs, Path], list[Path]]
    claim: Callable[[Runs, str], str]


def main(experiment: Experiment, argv: list[str] | None = None) -> int:
    """Run the table, or what is left of it, and write what it comes to; return the exit status."""
    given = _parser(experiment).parse_args(argv)
    started = time.monotonic()
    settings = experiment.quick if given.quick else experiment.settings(**given.settings)
    folder, seeds, arms = given.output, range(1, given.seeds + 1), list(experiment.arms)
    is_resumed = any((folder / "runs").glob("*.json"))
    load = experiment.run_type.load
    try:
        bases, runs = run_arms(experiment.module, arms, seeds, folder / "runs", settings, load, given.workers, say)
    except KeyboardInterrupt:
        return 130
    except TrlMathError as error:
        print(error, file=sys.stderr)
        return 2
    seconds = None if is_resumed else time.monotonic() - started
    text = experiment.table(bases, runs)
    (folder / "table.md").write_text(text + "\n")
    common = {"settings": runs[0].settings, "seconds": seconds and round(seconds, 1)}  # null: resumed
    write_json(folder / "results.json", {**experiment.results(bases, runs), **common})
    files = [folder / "table.md", folder / "results.json", *experiment.draw(bases, runs, folder / "figure")]
    say(f"\n{text}\n")
    say(f"Wrote {', '.join(map(str, files))}.")
    say(f"{experiment.claim(runs, seeds_said(num_seeds(runs)))}; {time_said([*bases, *runs], seconds)}")
    return 0


def say(line: str) -> None:
    print(line, flush=True)


def seeds_said(number: int) -> str:
    return "1 seed" if number == 1 else f"{number} seeds"


def time_said(everything: Sequence[ArmRun], seconds: float | None) -> str:
    """Say how long a table took. One that was resumed has no time of its own, only that of its runs."""
    if seconds is not None:
        return f"took {seconds:.0f} s"
    return f"resumed, its {len(everything)} runs took {sum(run.facts['seconds'] for run in everything):.0f} s"


def _parser(experiment: Experiment) -> argparse.ArgumentParser:
    about = {"description": experiment.about, "formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(**about)
    seeds_help = (
        "number of seeds, from 1: sizes are tried with 0, and which others had been seen by then is said above"
    )
    parser.add_argument("--seeds", type=int, default=experiment.seeds, help=seeds_help)
    parser.add_argument("--workers", type=int, default=2, help="processes at a time, one thread each")
    parser.add_argument("--output", type=Path, default=Path("runs") / experiment.name)
    settings_help = f"fields of {experiment.settings.__name__} to change, as JSON"
    parser.add_argument("--settings", type=json.loads, default={}, help=settings_help)
    parser.add_argument("--quick", action="store_true", help="only show that it runs: a tiny model, no effect")
    return parser
