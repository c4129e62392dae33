"""`trl-math rephrase`: a set of problems or programs in other words, another language, or with other numbers."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trl_math.cli.request import quiet_bars, read_request, say, set_environment, settings_help
from trl_math.errors import BudgetError, DataError, UsageError
from trl_math.recipes import GENERATE_ALIASES
from trl_math.wording import counted


if TYPE_CHECKING:
    from trl_math.cli.rephrase_desk import Desk
    from trl_math.cli.rephrase_settings import Asked
    from trl_math.contamination.rephrase import Made
    from trl_math.contamination.rephrase_samples import Purse
    from trl_math.contamination.rephrase_ways import Variant
    from trl_math.data.made_file import MadeFile
    from trl_math.generation.session import Plan


HELP = """\
usage: trl-math rephrase --data DATA --ways WAY ... --model MODEL --output FOLDER [--setting value ...]
       trl-math rephrase --data DATA --ways by_rule renumber --output FOLDER
       trl-math rephrase --config RECIPE.yaml [--setting value ...] [--dry-run] [--smoke]

Make a rephrased set of a test set, to see what training on it does and which detector sees it. Problems are reworded,
translated, renumbered; programs with tests (as HumanEval has them) are renamed or restructured. A draft is kept if it
is unlike its original by word n-grams and still right: a solver gives the original's answer, a program passes the
original's tests. FOLDER gets rows.jsonl with where each row comes from, pairs.jsonl for `trl-math detectors`, a
manifest that counts what was rejected and why, and the samples. The same command goes on where it stopped.

what is rephrased:
{originals}

how (with defaults):
{wanted}

whether it is still right:
{checking}

how drafts are sampled:
{drafting}

what that costs:
{prices}

by which model, on which engine:
{engine}
"""
SHOWN_CHARS = 300
NUM_SHOWN = 5


class Task(NamedTuple):
    """What is to be done, before an engine is started."""

    rows: list[dict[str, Any]]  # the originals
    made_of: dict[str, Any]
    drafts: "dict[Variant, Plan]"  # of those that a model may write
    solver: "Plan | None"
    fresh: list[dict[str, Any]] | None = None  # of a generator


def run(argv: list[str]) -> int:
    """Run the command; return the exit status."""
    if {"-h", "--help"} & set(argv):
        print(_help())
        return 0
    request = read_request(argv, "rephrase", _smoke, "output", GENERATE_ALIASES)
    set_environment(request)
    quiet_bars()
    from trl_math.cli.rephrase_settings import build

    asked = build(request.values)
    if request.is_dry_run:
        from trl_math.cli.rephrase_plan import report

        print(report(asked))
        return 0
    return make(asked)


def make(asked: "Asked") -> int:
    """Make the rows that are not there yet, and say what they are like."""
    file = rephrase_file(str(asked.originals.output))
    with file.hold():
        task = prepare(asked)
        if file.is_finished(task.made_of):
            say(f"{file.path} is made of this already: nothing to do.")
            return 0
        try:
            made, facts = _make(asked, file, task)
        except BudgetError as error:
            said = str(error).partition(" What has been drawn")[0]
            raise BudgetError(
                f"{said} What was drawn is kept: raise max_cost, and the same command goes on."
            ) from error
        num_rows = sum(len(one.rows) for one in made.values())
        _tell(made, len(task.rows))
        if not num_rows:
            raise DataError(
                f"Nothing was rephrased: no draft of {counted(len(task.rows), 'original')} passes the checks. Above "
                f"are some of them, all are in {file.samples}: is the model able to, and are the checks right for it?"
            )
        variants = list(made)
        rows = list(_rows(task, made))
        file.write(rows, lambda: {**task.made_of, **facts}, partial(_write_pairs, task=task, made=made))
    name = "--dataset_name" if asked.wanted.is_code else "--data"
    say(f"{file.path} holds {counted(num_rows, 'row')} in {counted(len(variants), 'way')}: {name} {file.path.parent}")
    return 0


def rephrase_file(output: str) -> "MadeFile":
    """Return the file that an output names: a folder's, or the file itself."""
    from trl_math.data.made_file import MadeFile, named_file

    path = named_file(output, "rows.jsonl")
    manifest = path.with_name("rephrase.json") if path.name == "rows.jsonl" else path.with_suffix(".json")
    return MadeFile(path, manifest, "rephrase")


def prepare(asked: "Asked") -> Task:
    """Return what is to be done; raise what is wrong with it before an engine is started."""
    from trl_math.cli.rephrase_desk import draft_plan, solver_plan
    from trl_math.cli.rephrase_originals import load_originals
    from trl_math.data.load import digest

    originals = load_originals(asked)
    rows = [dict(row) for row in originals]
    settings = dataclasses.asdict(asked.wanted) | {"seed": asked.drafting.seed}
    made_of: dict[str, Any] = {"settings": settings, "problems": digest(originals)}
    fresh = _fresh(asked, rows)
    if not asked.asks_model:
        return Task(rows, made_of, {}, None, fresh)
    asked.engine.check_here()
    drafts = {one: draft_plan(asked, rows, one) for one in asked.variants if _may_ask(asked, one, fresh)}
    if not drafts:
        raise UsageError(f"{asked.originals.data} makes further problems itself: leave model out.")
    made_of["sampling"] = next(iter(drafts.values())).settings
    solver = None
    if asked.checks_answers:
        solver = solver_plan(asked, rows)
        kept = ("num_checks", "min_agreement")
        made_of["check"] = {**solver.settings, **{name: getattr(asked.checking, name) for name in kept}}
    else:
        made_of["check"] = {"check": "tests" if asked.wanted.is_code else asked.checking.check}
    if asked.wanted.is_code:
        from trl_math.grading.sandbox import usable_mode

        usable_mode()  # raises where programs cannot be confined
    return Task(rows, made_of, drafts, solver, fresh)


def _fresh(asked: "Asked", rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]] | None:
    """Return further problems of the generator that made these, if one did and they are to be renumbered."""
    from trl_math.contamination.renumber_generated import fresh_problems, is_generated

    source, wanted = str(asked.originals.data), asked.wanted
    if "renumber" not in (wanted.ways or ()) or wanted.renumber_by == "model" or not is_generated(source):
        return None
    return fresh_problems(source, asked.originals.split, rows, asked.drafting.seed)


def _may_ask(asked: "Asked", variant: "Variant", fresh: Any) -> bool:
    """Whether a model may be asked for this."""
    is_auto = variant.way == "renumber" and asked.wanted.renumber_by == "auto" and fresh is None
    return asked.wanted.needs_model(variant) or is_auto


def _make(asked: "Asked", file: "MadeFile", task: Task) -> "tuple[dict[Variant, Made], dict[str, Any]]":
    """Rephrase in all ways; return what became of it, and what to write down."""
    from trl_math.cli.rephrase_desk import Desk
    from trl_math.contamination.rephrase_samples import Purse

    purse = Purse(asked.prices.price, asked.prices.max_cost, say)
    made: dict[Variant, Made] = {}
    with ExitStack() as stack:
        desk = Desk(asked, file, task, purse, stack)
        for variant in asked.variants:
            made[variant] = _make_variant(asked, task, variant, desk)
    return made, _facts(asked, made, purse)


def _make_variant(asked: "Asked", task: Task, variant: "Variant", desk: "Desk") -> "Made":
    from trl_math.contamination import rephrase

    limits, seed = asked.wanted.limits(), asked.drafting.seed
    rows: Sequence[Mapping[str, Any]] = task.rows
    if variant.way == "by_rule":
        return rephrase.by_rule(rows, variant, limits=limits, attempts=asked.wanted.attempts, seed=seed)
    made = rephrase.Made()
    if variant.way == "renumber" and asked.wanted.renumber_by != "model":
        if task.fresh is not None:
            return rephrase.freshly_generated(rows, task.fresh, variant, limits=limits)
        made = rephrase.renumbered_by_rule(rows, variant, limits=limits, seed=seed)
        rows = [row for row in rows if row["problem_id"] in made.without]
        if variant not in task.drafts or not rows:
            return made
        say(f"{counted(len(made.rows), 'problem')} renumbered by rule; the model is asked for {len(rows):,} others.")
    drawn = rephrase.by_model(
        rows,
        variant,
        desk.drafts(variant),
        desk.prompts,
        desk.judge(variant),
        limits=limits,
        attempts=asked.wanted.attempts,
        model=asked.engine.label,
    )
    drawn.rows |= made.rows
    drawn.rejected += made.rejected
    drawn.shown = [*drawn.shown, *made.shown]
    return drawn


def _facts(asked: "Asked", made: "Mapping[Variant, Made]", purse: "Purse") -> dict[str, Any]:
    from importlib.metadata import version

    facts: dict[str, Any] = {
        "data": asked.originals.data,
        "model": asked.engine.label if asked.asks_model else None,
        "solver": asked.solver_engine().label if asked.asks_model and asked.checks_answers else None,
        "num_rows": sum(len(one.rows) for one in made.values()),
        "made": {
            variant.name: {
                "num_rows": len(one.rows),
                "by": dict(Counter(row["rephrased_by"] for row in one.rows.values())),
                "num_without": len(one.without),
                "rejected": dict(one.rejected.most_common()),
                "shown": [rejected._asdict() for rejected in one.shown],
                "without": one.without,
            }
            for variant, one in made.items()
        },
        "num_prompt_tokens": purse.spent.num_prompt_tokens,
        "num_tokens": purse.spent.num_tokens,
        "versions": {"trl-math": version("trl-math")},
    }
    if purse.price:
        facts["cost"] = purse.price.of(purse.spent)
    return facts


def _rows(task: Task, made: "Mapping[Variant, Made]") -> Iterator[dict[str, Any]]:
    """Yield the rows: originals in their order, of each the ways in theirs."""
    for row in task.rows:
        yield from (one.rows[row["problem_id"]] for one in made.values() if row["problem_id"] in one.rows)


def _write_pairs(path: Path, task: Task, made: "Mapping[Variant, Made]") -> None:
    """Write originals with what they became, as labelled pairs."""
    from trl_math.contamination.rephrase import labelled_pair
    from trl_math.files import json_line, write_whole

    name = "pairs.jsonl" if path.stem == "rows" else f"{path.stem}-pairs.jsonl"
    lines = [
        json_line(labelled_pair(one.rows[row["problem_id"]], row, variant))
        for row in task.rows
        for variant, one in made.items()
        if row["problem_id"] in one.rows
    ]
    write_whole(path.with_name(name), b"".join(lines).decode())


def _tell(made: "Mapping[Variant, Made]", num_originals: int) -> None:
    """Say what became of the originals; of a way in which nothing passed, some drafts."""
    from trl_math.contamination.rephrase import REASONS

    for variant, one in made.items():
        ways = ", ".join(f"{number:,} by {by}" for by, number in _by(one).items())
        say(f"{variant.name}: {len(one.rows):,} of {counted(num_originals, 'original')}{f' ({ways})' if ways else ''}")
        for reason, number in one.rejected.most_common():
            say(f"  rejected: {number:,} {reason} ({REASONS[reason]})")
        if not one.rows:
            for rejected in one.shown[:NUM_SHOWN]:
                text = " ".join(rejected.text.split())
                say(
                    f"  {rejected.item_id}, attempt {rejected.attempt + 1}, {rejected.reason} {rejected.said}".rstrip()
                )
                say(f"    | {text if len(text) <= SHOWN_CHARS else f'{text[:SHOWN_CHARS]} ...'}")


def _by(one: "Made") -> Counter[str]:
    return Counter(row["rephrased_by"] for row in one.rows.values())


def _smoke(values: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a recipe's settings with model, data and machines replaced."""
    from trl_math.cli.rephrase_settings import build
    from trl_math.pipeline.smoke import small_rephrase, write_products
    from trl_math.smoke import smoke_folder

    if build(values).wanted.is_code:
        raise UsageError("rephrase has no smoke form for programs: leave smoke out, or look with --dry-run.")
    folder = smoke_folder(name)
    products = write_products(folder.parent / "products.jsonl")
    return {**small_rephrase(values, str(products)), "output": str(folder)}


def _help() -> str:
    from trl_math.cli.rephrase_settings import KINDS

    parts = {name: settings_help(kind) for name, kind in KINDS.items()}
    return HELP.format(**parts).rstrip()
