"""`trl-math collect`: new samples until each problem has its target number of right answers, as rows to train on."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from trl_math.cli.request import run_made, say
from trl_math.errors import DataError


if TYPE_CHECKING:
    from trl_math.cli.collect_settings import Asked
    from trl_math.data.collected import SourceAmounts
    from trl_math.data.made_file import MadeFile
    from trl_math.evaluation.targets import Collected, TargetRounds
    from trl_math.generation.session import Plan


HELP = """\
usage: trl-math collect --model MODEL --data DATA --output FOLDER [--setting value ...]
       trl-math collect --config RECIPE.yaml [--setting value ...] [--dry-run] [--smoke]

Draw new samples of each problem until it has its target number of right answers, and write these as rows to train on:
FOLDER gets rows.jsonl (`trl-math sft --dataset_name FOLDER`), a manifest and the samples. Samples are drawn in rounds
and graded; killed at any moment, the same command goes on where it stopped. Defaults are those of DART where it says.

how many right answers of which problems (with defaults):
{wanted}

how samples are judged:
{grading}

which problems, and how they are sampled:
{generate}

on which engine:
{engine}
"""


class Task(NamedTuple):
    """What is to be done, before an engine is started."""

    problems: Sequence[Mapping[str, Any]]
    targets: dict[str, int]
    plan: "Plan"
    made_of: dict[str, Any]
    notes: list[str]


def run(argv: list[str]) -> int:
    """Run the command; return the exit status."""
    return run_made(argv, "collect", HELP, _smoke, make)


def make(asked: "Asked") -> int:
    """Make the rows that are not there yet, and say what they are like."""
    from trl_math.data.collected import collected_file

    file = collected_file(str(asked.generate.output))
    with file.hold():
        task = prepare(asked)
        if file.is_finished(task.made_of):
            say(f"{file.path} is made of this already: nothing to do.")
            return 0
        amounts, lines = _collect(asked, file, task)
    for line in lines:
        say(line)
    print(f"\n{table(amounts)}\n")
    say(f"{file.path} holds {sum(one.num_rows for one in amounts):,} rows: trl-math sft --dataset_name {file.path}")
    return 0


def prepare(asked: "Asked") -> Task:
    """Return what is to be done; raise what is wrong with it before an engine is started."""
    from trl_math.cli.drawing import plan_of

    loaded, problems, targets, notes = load_asked(asked)
    asked.engine.check_here()
    plan, digest = plan_of(loaded, problems, asked)
    settings = dataclasses.asdict(asked.wanted) | {"programs": asked.grading.programs}
    del settings["pass_rates"]  # what follows from them is in `targets`, wherever they stand
    made_of = {"settings": settings, "sampling": plan.settings, "problems": digest, "targets": targets_digest(targets)}
    return Task(problems, targets, plan, made_of, notes)


def load_asked(asked: "Asked") -> tuple[Any, list[Mapping[str, Any]], dict[str, int], list[str]]:
    """Return problems as loaded, those that samples can be judged of, their targets, and what to say of the others."""
    from trl_math.cli.drawing import load_judgeable
    from trl_math.evaluation.targets import find_targets

    loaded, problems, notes = load_judgeable(asked.generate)
    ids = [problem["problem_id"] for problem in problems]
    targets = find_targets(asked.wanted.targets, asked.wanted.num_correct, ids, pass_rates_of(asked, problems))
    return loaded, problems, targets, notes


def pass_rates_of(asked: "Asked", problems: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """Return the pass rates that targets follow from; None if these need none."""
    from trl_math.data.difficulty import rates_by_problem
    from trl_math.data.sources import load_source
    from trl_math.evaluation.targets import NEED_PASS_RATES

    if asked.wanted.targets not in NEED_PASS_RATES:
        return None
    where, data = asked.wanted.pass_rates, str(asked.generate.data)
    ids = [problem["problem_id"] for problem in problems]
    if where is not None:
        return rates_by_problem(list(load_source(where)), where, ids)
    if not {"pass_rate", "err_rate"} & set(problems[0]):
        raise DataError(
            f"targets {asked.wanted.targets} needs pass rates, and {data} has neither pass_rate nor err_rate: set "
            "pass_rates (`trl-math difficulty` makes a file of them)."
        )
    return rates_by_problem(problems, data, ids)


def targets_digest(targets: Mapping[str, int]) -> str:
    """Return a short hash of the targets."""
    from trl_math.generation.arguments import short_hash

    return f"{sum(targets.values())} right answers, {short_hash(repr(sorted(targets.items())))}"


def table(amounts: Sequence["SourceAmounts"]) -> str:
    """Return a line for each source, and one for all of them."""
    from trl_math.data.collected import in_all
    from trl_math.evaluation.table import aligned

    lines = [*amounts, in_all(amounts)] if len(amounts) > 1 else amounts
    head = ["source", "problems", "target", "samples", "right", "rows", "short", "tokens of rows"]
    cells = [
        [
            one.source,
            f"{one.num_problems:,}",
            f"{one.target:,}",
            f"{one.num_samples:,}",
            f"{one.num_right:,} ({one.num_right / one.num_samples:.0%})",
            f"{one.num_rows:,}",
            f"{one.num_short:,}",
            f"{one.num_tokens:,}",
        ]
        for one in lines
    ]
    return aligned([head, *cells])


def _collect(asked: "Asked", file: "MadeFile", task: Task) -> tuple[list["SourceAmounts"], list[str]]:
    """Draw, and write the rows; return what they come to by source, and what to say."""
    from trl_math.cli.drawing import draw
    from trl_math.data.collected import Quota, Writing, counts_as
    from trl_math.data.prompts import PROMPT_STYLES
    from trl_math.evaluation.adaptive_sampling import GRADED
    from trl_math.evaluation.targets import TargetRounds

    wanted = asked.wanted
    rounds = TargetRounds(task.targets, wanted.max_trials, wanted.round_samples)
    counts = counts_as(wanted.duplicates)
    found, judged_with = draw(asked, file, task.plan, task.problems, rounds, counts=counts)
    _check_found(found, rounds, file, len(task.problems))
    quotas = {one.problem_id: Quota(one.num_samples, one.target) for one in found}
    style, row_style = PROMPT_STYLES[asked.generate.prompt_style], wanted.row_style
    writing = Writing(task.problems, quotas, counts, style, PROMPT_STYLES[row_style] if row_style else None)
    file.write(
        writing.rows(file.samples / GRADED),
        lambda: {**task.made_of, **_facts(asked, task, rounds, judged_with), **writing.facts()},
    )
    return writing.amounts(), [*task.notes, *_notes(asked, rounds, writing.facts())]


def _check_found(found: Sequence["Collected"], rounds: "TargetRounds", file: "MadeFile", num_problems: int) -> None:
    if not found:
        raise DataError(
            f"None of the gold answers of {num_problems:,} problems can be read: samples cannot be judged."
        )
    if not any(one.num_correct for one in found):
        raise DataError(
            f"None of {rounds.num_asked:,} samples of {len(found):,} problems is right and ended by itself: there is "
            f"nothing to train on. They are in {file.samples}: is the prompt style right, and max_tokens enough?"
        )


def _facts(asked: "Asked", task: Task, rounds: "TargetRounds", judged_with: Mapping[str, Any]) -> dict[str, Any]:
    from importlib.metadata import version

    from trl_math.generation.arguments import sampler_hash

    return {
        "model": asked.engine.label,
        "data": task.plan.data,
        "pass_rates": asked.wanted.pass_rates,
        "sampler": sampler_hash(task.plan.settings),
        "graded_with": dict(judged_with),
        "rounds": rounds.facts,
        "num_unjudged": len(rounds.unjudged),
        "versions": {"trl-math": version("trl-math")},
    }


def _notes(asked: "Asked", rounds: "TargetRounds", facts: Mapping[str, Any]) -> list[str]:
    lines = []
    if number := len(rounds.unjudged):
        lines.append(
            f"{number:,} problems have gold answers that cannot be read, and were left out "
            f"({rounds.unjudged[0]!r} for one)."
        )
    if number := facts["num_unfinished"]:
        lines.append(f"{number:,} right answers did not end by themselves, and do not count.")
    if number := facts["num_duplicates"]:
        lines.append(f"{number:,} right answers have the text of another of their problem, and do not count.")
    if number := facts["num_short"]:
        some = ", ".join(f"{one['problem_id']} {one['num_rows']} of {one['target']}" for one in facts["short"][:3])
        lines.append(
            f"{number:,} problems are short of their target after {asked.wanted.max_trials:,} samples ({some}"
            f"{', ...' if number > 3 else ''}); the manifest lists them."
        )
    return lines


def _smoke(values: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a recipe's settings with model, data and machines replaced."""
    from trl_math.cli.collect_settings import build
    from trl_math.pipeline.smoke import MODEL, STYLES, small_collect, write_products
    from trl_math.smoke import smoke_folder

    build(values)  # a key that nobody has is an error here too
    folder = smoke_folder(name)
    products = write_products(folder.parent / "products.jsonl")
    own = {"model": MODEL, "prompt_style": STYLES[0], "output": str(folder)}
    return {**small_collect(values, str(products)), **own}
