"""`trl-math rationales`: a teacher's reasoning, those parts of it that reach the right answer, as rows to train on."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trl_math.cli.request import run_made, say
from trl_math.errors import DataError
from trl_math.wording import counted


if TYPE_CHECKING:
    from trl_math.cli.rationales_settings import Asked
    from trl_math.data.graded_samples import GradedSamples
    from trl_math.data.made_file import MadeFile
    from trl_math.data.rationale_rows import RationaleRows, Styles
    from trl_math.evaluation.rationale_yield import Point
    from trl_math.generation.session import Plan


HELP = """\
usage: trl-math rationales --model TEACHER --data DATA --output FOLDER [--setting value ...]
       trl-math rationales SAMPLES --data DATA --output FOLDER [--setting value ...]
       trl-math rationales --config RECIPE.yaml [--setting value ...] [--dry-run] [--smoke]

Turn a teacher's reasoning into rows to train a student on: D samples of each problem are drawn and graded, and those
that reach the right answer are kept, each said once. SAMPLES, a folder that `trl-math grade` graded, serves instead of
a teacher; its first D samples are what a run with D would have drawn. FOLDER gets rows.jsonl (`trl-math sft
--dataset_name FOLDER`), a manifest, the yield as table and figure, and the samples. The same command goes on where it
stopped. Defaults are those of Fine-tune-CoT where it says.

where samples come from, if no teacher draws them:
{places}

which rationales (with defaults):
{wanted}

how a teacher is asked:
{stages}

what that costs:
{prices}

how samples are judged:
{grading}

which problems, and how they are sampled:
{generate}

on which engine:
{engine}
"""
NUM_SHOWN = 5
SHOWN_CHARS = 300


class Task(NamedTuple):
    """What is to be done, before an engine is started."""

    problems: Sequence[Mapping[str, Any]]
    made_of: dict[str, Any]
    notes: list[str]
    styles: "Styles"
    plan: "Plan | None" = None  # of a teacher
    samples: "GradedSamples | None" = None  # that are there already
    facts: Mapping[str, Any] = {}  # what these were drawn with


def run(argv: list[str]) -> int:
    """Run the command; return the exit status."""
    return run_made(argv, "rationales", HELP, _smoke, make, takes_words=True)


def make(asked: "Asked") -> int:
    """Make the rows that are not there yet, and say what they are like."""
    from trl_math.data.rationale_rows import rationales_file

    file = rationales_file(str(asked.generate.output))
    with file.hold():
        task = prepare(asked)
        if file.is_finished(task.made_of):
            say(f"{file.path} is made of this already: nothing to do.")
            return 0
        rows, points, lines = _make(asked, file, task)
    for line in [*task.notes, *lines]:
        say(line)
    from trl_math.evaluation.rationale_yield import yield_table

    print(f"\n{yield_table(points)}\n")
    say(f"{file.path} holds {counted(rows.num_rows, 'rationale')}: trl-math sft --dataset_name {file.path}")
    return 0


def prepare(asked: "Asked") -> Task:
    """Return what is to be done; raise what is wrong with it before an engine is started."""
    from trl_math.cli import rationales_samples, rationales_teacher

    settings = dataclasses.asdict(asked.wanted)
    if asked.places.samples:
        return rationales_samples.prepare(asked, settings)
    asked.engine.check_here()
    return rationales_teacher.prepare(asked, settings)


def _make(asked: "Asked", file: "MadeFile", task: Task) -> tuple["RationaleRows", list["Point"], list[str]]:
    """Draw what is missing, and write the rows; return them, the yield, and what to say."""
    from trl_math.cli import rationales_teacher
    from trl_math.data.rationale_rows import RationaleRows

    samples, facts = task.samples, dict(task.facts)
    lines: list[str] = []
    if samples is None:
        samples, drawn, lines = rationales_teacher.draw(asked, file, task)
        facts |= drawn
    rows = RationaleRows(task.problems, samples, asked.wanted.rules(), task.styles, asked.wanted.problem_weights)
    _check_found(rows, len(task.problems), file.samples if task.plan else Path(str(asked.places.samples)))
    points = yield_of(rows)
    amounts = _amounts(asked, rows)
    file.write(
        rows.rows(), lambda: {**task.made_of, **facts, **amounts}, partial(_write_yield, rows=rows, points=points)
    )
    return rows, points, [*lines, *_notes(asked, rows, len(task.problems))]


def yield_of(rows: "RationaleRows") -> list["Point"]:
    """Return what the first 1, 2, 4, ... samples of each problem come to, up to as many as were drawn."""
    from trl_math.evaluation.rationale_yield import Counts, find_yield

    return find_yield([Counts(one.right, one.kept) for one in rows.chosen.values()], rows.num_drawn)


def short_lines(rows: "RationaleRows", num_asked: int) -> list[str]:
    """Return what to say where there are fewer samples than were asked for."""
    lines = []
    if rows.num_drawn < num_asked:
        lines.append(
            f"No problem has more than {rows.num_drawn} samples, and {num_asked} were asked for: the yield ends there."
        )
    short = [one.num_samples for one in rows.chosen.values() if one.num_samples < rows.num_drawn]
    if short:
        fewer = counted(len(short), "problem has", "problems have")
        lines.append(
            f"{fewer} fewer than {rows.num_drawn} samples ({min(short)} at least): their yield is lower than it "
            "would be."
        )
    return lines


def _check_found(rows: "RationaleRows", num_problems: int, where: Path) -> None:
    """Raise if there is nothing to train on, after showing what the teacher said."""
    if not rows.chosen:
        raise DataError(
            f"None of the gold answers of {counted(num_problems, 'problem')} can be read: samples cannot be judged."
        )
    if rows.num_rows:
        return
    num_samples = sum(one.num_samples for one in rows.chosen.values())
    samples = f"{counted(num_samples, 'sample')} of {counted(len(rows.chosen), 'problem')}"
    if any(one.right for one in rows.chosen.values()):
        why = ", ".join(f"{number:,} {name}" for name, number in _dropped(rows).items())
        raise DataError(f"None of {samples} serves ({why}).")
    for line in _shown(rows):
        say(line)
    raise DataError(
        f"The teacher is never right: none of {samples} reaches the answer. Above are {len(rows.wrong)} of them, all "
        f"are in {where}: is the prompt style right for this model, and max_tokens enough?"
    )


def _shown(rows: "RationaleRows") -> list[str]:
    """Return some wrong samples as people read them."""
    lines = []
    for row in rows.wrong[:NUM_SHOWN]:
        text = " ".join(row["completion"].split())
        said = text if len(text) <= SHOWN_CHARS else f"... {text[-SHOWN_CHARS:]}"
        found = row.get("extracted")
        lines += [
            f"{row['problem_id']}, sample {row['sample_index']}: the answer is {row['answer']!r}, read was {found!r} "
            f"({row.get('reason')}, ended by {row.get('finish_reason')})",
            f"    | {said}",
        ]
    return lines


def _amounts(asked: "Asked", rows: "RationaleRows") -> dict[str, Any]:
    from importlib.metadata import version

    chosen = rows.chosen.values()
    return {
        "num_problems": len(rows.chosen),
        "num_with_rationale": sum(bool(one.kept) for one in chosen),
        "num_samples": sum(one.num_samples for one in chosen),
        "num_right": sum(len(one.right) for one in chosen),
        "num_rows": rows.num_rows,
        "num_refused": rows.num_refused,
        "num_unjudged": len(rows.unjudged),
        "num_short_of_samples": sum(one.num_samples < asked.wanted.num_rationales for one in chosen),
        "dropped": _dropped(rows),
        "verdicts": dict(rows.reasons.most_common()),
        "versions": {"trl-math": version("trl-math")},
    }


def _dropped(rows: "RationaleRows") -> dict[str, int]:
    from trl_math.data.rationales import REASONS

    return {name: rows.dropped[name] for name in REASONS if rows.dropped[name]}


def _notes(asked: "Asked", rows: "RationaleRows", num_problems: int) -> list[str]:
    """Return what came of the samples, and what should make one think."""
    from trl_math.data.rationales import REASONS
    from trl_math.grading import REASONS as VERDICTS

    dropped = _dropped(rows)
    lines = (
        [f"left out: {', '.join(f'{number:,} {REASONS[name]}' for name, number in dropped.items())}"]
        if dropped
        else []
    )
    wrong = {why: number for why, number in rows.reasons.items() if why in WRONG}
    if wrong:
        said = ", ".join(
            f"{number:,} {why} ({VERDICTS[why]})" for why, number in sorted(wrong.items(), key=_by_number)
        )
        lines.append(f"of the wrong ones: {said}")
    if rows.num_refused:
        refused = counted(rows.num_refused, "sample was", "samples were")
        lines.append(f"{refused} refused by the server or its model.")
    if rows.unjudged:
        unreadable = counted(
            len(rows.unjudged),
            "problem has a gold answer that cannot be read, and was left out",
            "problems have gold answers that cannot be read, and were left out",
        )
        lines.append(f"{unreadable} ({rows.unjudged[0]!r} for one).")
    without = num_problems - len(rows.chosen) - len(rows.unjudged)
    if without:
        none = counted(without, "problem has no samples, and was", "problems have no samples, and were")
        lines.append(f"{none} left out.")
    lines += short_lines(rows, asked.wanted.num_rationales)
    return lines


# Verdicts that say more than that the answer is another one.
WRONG = ("no_answer", "unfinished", "too_complex", "unparsed", "timeout", "memory", "worker_died")


def _by_number(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def _write_yield(path: Path, rows: "RationaleRows", points: Sequence["Point"]) -> None:
    """Write the yield beside the rows, and its figure where there is what draws."""
    from trl_math.files import write_json
    from trl_math.optional import is_installed

    target = path.with_name("yield.json") if path.stem == "rows" else path.with_name(f"{path.stem}-yield.json")
    kept = {name: len(one.kept) for name, one in rows.chosen.items()}
    found = {"points": [point.as_dict() for point in points], "kept_of_problems": sorted(kept.values())}
    write_json(target, {**found, "problems": kept})
    if is_installed("matplotlib"):
        from trl_math.reporting.yield_figure import draw_yield

        draw_yield(found, target)
    else:
        say("There is no figure, since matplotlib is not installed: pip install 'trl-math[report]'.")


def _smoke(values: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a recipe's settings with model, data and machines replaced."""
    from trl_math.cli.rationales_settings import build
    from trl_math.errors import UsageError
    from trl_math.pipeline.smoke import MODEL, STYLES, small_rationales, write_products
    from trl_math.smoke import smoke_folder

    if build(values).places.samples:  # a key that nobody has is an error here too
        raise UsageError("rationales of samples run no model: leave smoke out, or look with --dry-run.")
    folder = smoke_folder(name)
    products = write_products(folder.parent / "products.jsonl")
    own = {"model": MODEL, "prompt_style": STYLES[0], "output": str(folder)}
    return {**small_rationales(values, str(products)), **own}
