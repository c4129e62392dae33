"""`trl-math difficulty`: how often the model solves each problem, from samples that are there or drawn as it goes."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trl_math.cli.request import run_made, say
from trl_math.errors import DataError, UsageError


if TYPE_CHECKING:
    from trl_math.cli.difficulty_settings import Asked
    from trl_math.data.difficulty import Row
    from trl_math.data.made_file import MadeFile


HELP = """\
usage: trl-math difficulty SAMPLES [SAMPLES ...] --data DATA --output FOLDER [--setting value ...]
       trl-math difficulty --model MODEL --data DATA --output FOLDER [--setting value ...]
       trl-math difficulty --data DATA --rates --output FOLDER [--setting value ...]
       trl-math difficulty --config RECIPE.yaml [--setting value ...] [--dry-run] [--smoke]

How often is each problem solved? SAMPLES are folders of `trl-math generate` that were graded, folders of `trl-math
evaluate` (which need no --data) or JSONL files of graded samples. With --model, samples are drawn in rounds and
graded, and a problem gets no more when what is asked of it is settled; the same command goes on where it stopped. With
--rates the rows of DATA have pass_rate or err_rate already. FOLDER gets difficulty.jsonl, a manifest and a figure.

where pass rates come from, if they are not sampled for:
{places}

what is told of each problem (with defaults):
{told}

with --model, when a problem has samples enough:
{rule}

with --model, how samples are judged:
{grading}

which problems, and with --model how they are sampled:
{generate}

with --model, on which engine:
{engine}
"""


class Result(NamedTuple):
    """What a difficulty file is written of."""

    rows: list["Row"]  # of all problems that were measured
    facts: dict[str, Any]
    notes: list[str]


def run(argv: list[str]) -> int:
    """Run the command; return the exit status."""
    return run_made(argv, "difficulty", HELP, _smoke, make, takes_words=True)


def make(asked: "Asked") -> int:
    """Make the difficulty file that is not there yet, and say what it is like."""
    from trl_math.data.difficulty_file import difficulty_file

    file = difficulty_file(str(asked.generate.output))
    with file.hold():
        made_of, measure = prepare(asked, file)
        if file.is_finished(made_of):
            say(f"{file.path} is made of this already: nothing to do.")
            return 0
        result = measure()
        kept, notes = keep(asked, result.rows)
        manifest = {**made_of, **result.facts, **_amounts(result.rows, kept)}
        file.write(kept, lambda: manifest, partial(_draw, result.rows))
    for line in [*result.notes, *notes]:
        say(line)
    print(f"\n{table(result.rows)}\n")
    say(f"{file.path} holds {len(kept):,} problems.")
    return 0


def prepare(asked: "Asked", file: "MadeFile") -> tuple[dict[str, Any], Any]:
    """Return what the file will be made of, and what measures it."""
    from trl_math.data.load import digest

    told = dataclasses.asdict(asked.told) | {"seed": asked.generate.seed}
    generate = asked.generate
    if asked.way == "samples":
        from trl_math.cli.difficulty_sources import count_graded

        graded = count_graded(asked.places.samples or [], generate.data, generate.split, generate.data_config)
        made_of = {"settings": told, "samples": graded.samples, "problems": digest(graded.problems)}
        return made_of, partial(_from_graded, asked, graded)
    if asked.way == "rates":
        from trl_math.data.sources import load_source

        assert generate.data is not None
        rows = list(load_source(generate.data, generate.split, generate.data_config))
        made_of = {"settings": told, "rows": digest(rows)}
        return made_of, partial(_from_rates, asked, rows)
    from trl_math.cli.difficulty_sampling import prepare_sampling

    return prepare_sampling(asked, file, told)


def measured_rows(
    asked: "Asked",
    problems: Sequence[Mapping[str, Any]],
    counts: Sequence[tuple[int, int]],
    more: Sequence[Mapping[str, Any]] | None = None,
) -> tuple[list["Row"], dict[str, Any]]:
    """Return the rows of problems with these counts (samples, right ones), and the prior of their intervals."""
    import numpy as np

    from trl_math.data.difficulty import Measured, difficulty_level, difficulty_row
    from trl_math.evaluation.posterior import FITTED, find_prior, fit_prior, pass_rates, posterior_interval

    told = asked.told
    samples, right = np.array(counts, dtype=int).T
    prior = fit_prior(right, samples) if told.prior == FITTED else find_prior(told.prior)
    rates = pass_rates(right, samples, told.estimator, prior)
    low, high = posterior_interval(right, samples, told.confidence, prior)
    rows = []
    for index, problem in enumerate(problems):
        own = dict(more[index]) if more is not None else {}
        if told.levels is not None:
            own["difficulty_level"] = difficulty_level(float(rates[index]), told.levels, told.level_rule)
        numbers = (int(samples[index]), int(right[index]), float(rates[index]), float(low[index]), float(high[index]))
        rows.append(difficulty_row(problem, Measured(*numbers), own))
    return rows, {"prior_of_intervals": prior._asdict()}


def keep(asked: "Asked", rows: Sequence["Row"]) -> tuple[list["Row"], list[str]]:
    """Return the rows that go into the file, and what to say of the others."""
    from trl_math.data.difficulty import ALWAYS, NEVER, left_out

    told, seed = asked.told, asked.generate.seed
    gone: set[int] = set()
    notes = []
    for status, handling, cap in ((NEVER, told.never, told.never_cap), (ALWAYS, told.always, told.always_cap)):
        places = left_out(rows, status, handling, cap, seed)
        if places:
            notes.append(f"{len(places):,} problems that were {status} solved were left out ({status}: {handling}).")
        gone |= places
    kept = [row for place, row in enumerate(rows) if place not in gone]
    if not kept:
        raise DataError(f"No problem is left of {len(rows):,}. {' '.join(notes)}")
    return kept, notes


def table(rows: Sequence["Row"]) -> str:
    """Return a line for each source, and one for all of them."""
    from trl_math.data.difficulty import by_source, summary_of
    from trl_math.evaluation.table import aligned

    sources = by_source(rows)
    lines = [*sources, summary_of("all", rows)] if len(sources) > 1 else sources
    head = ["source", "problems", "never", "always", "mean pass rate", "samples", "a problem"]
    cells = [
        [
            one.source,
            f"{one.num_problems:,}",
            f"{one.num_never:,} ({one.num_never / one.num_problems:.0%})",
            f"{one.num_always:,} ({one.num_always / one.num_problems:.0%})",
            f"{one.mean_pass_rate:.3f}",
            "-" if one.num_samples is None else f"{one.num_samples:,}",
            "-" if one.num_samples is None else f"{one.num_samples / one.num_problems:.1f}",
        ]
        for one in lines
    ]
    return aligned([head, *cells])


def _from_graded(asked: "Asked", graded: Any) -> Result:
    counts = [tuple(graded.tallies[problem["problem_id"]]) for problem in graded.problems]
    rows, facts = measured_rows(asked, graded.problems, counts)
    return Result(rows, {**graded.facts, **facts}, graded.notes)


def _from_rates(asked: "Asked", rows: Sequence[Mapping[str, Any]]) -> Result:
    from trl_math.data.difficulty import difficulty_level, rated_rows

    told = asked.told
    rated = rated_rows(rows, str(asked.generate.data), told.levels or 5, told.level_rule)
    if told.levels is not None:
        rated = [
            {**row, "difficulty_level": difficulty_level(row["pass_rate"], told.levels, told.level_rule)}
            for row in rated
        ]
    return Result(rated, {}, [])


def _amounts(rows: Sequence["Row"], kept: Sequence["Row"]) -> dict[str, Any]:
    from importlib.metadata import version

    from trl_math.data.difficulty import by_source

    return {
        "num_problems": len(rows),
        "num_kept": len(kept),
        "sources": [one._asdict() for one in by_source(rows)],
        "versions": {"trl-math": version("trl-math")},
    }


def _draw(rows: Sequence["Row"], path: Path) -> None:
    """Draw the figure, where there is what draws."""
    from trl_math.optional import is_installed

    if is_installed("matplotlib"):
        from trl_math.reporting.difficulty_figure import draw

        draw(rows, path)
    else:
        say("There is no figure, since matplotlib is not installed: pip install 'trl-math[report]'.")


def _smoke(values: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a recipe's settings with model, data and machines replaced."""
    from trl_math.cli.difficulty_settings import build
    from trl_math.pipeline.smoke import DIFFICULTY_KEPT, UNSURE
    from trl_math.smoke import GENERATE_REPLACED, KEPT_OF_ALL, smoke_folder, write_rows

    asked = build(values)  # a key that nobody has is an error here too
    if asked.way != "model":
        raise UsageError(f"difficulty of {asked.way} runs no model: leave smoke out, or look with --dry-run.")
    folder = smoke_folder(name)
    kept = {key: value for key, value in values.items() if key in (*KEPT_OF_ALL, *DIFFICULTY_KEPT)}
    rule = {"rule_confidence": 0.9} if asked.rule.rule not in UNSURE else {}
    rows = write_rows(folder.parent / "rows.jsonl")
    return {**kept, **GENERATE_REPLACED, **rule, "num_samples": 16, "data": str(rows), "output": str(folder)}
