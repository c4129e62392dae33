"""`trl-math decontaminate`: training rows that have test items in them, found, shown and taken out."""

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trl_math.cli.request import quiet_bars, read_request, say, set_environment, settings_help
from trl_math.errors import UsageError
from trl_math.recipes import GENERATE_ALIASES
from trl_math.wording import counted


if TYPE_CHECKING:
    from trl_math.cli.decontaminate_detectors import Looking
    from trl_math.cli.decontaminate_settings import Asked
    from trl_math.contamination.sources import Source
    from trl_math.data.made_folder import MadeFolder


HELP = """\
usage: trl-math decontaminate --data TRAIN --against BENCHMARK ... --output FOLDER [--setting value ...]
       trl-math decontaminate --config FILE.yaml [--setting value ...] [--dry-run]

Find the test items that are in what is trained on, as copies, near copies or in other words, and take these rows
out. FOLDER gets clean.jsonl (or clean.parquet), the rows as they came without those, for `trl-math sft --dataset_name
FOLDER`; matches.jsonl, each pair with its evidence; test_items.jsonl and train_rows.jsonl, what is known of each test
item, and which rows go and why; summary.json; and report.html with both texts side by side. A run that was killed goes
on where it stopped.

the two sides:
{sides}

which detectors look (docs/contamination.md says what each of them sees):
{look}

what follows:
{gate}

the judge, if it is one of the detectors (its model is set below):
{judge}

what its answers cost:
{prices}

its model:
{engine}
"""
MANIFEST = "decontaminate.json"
CACHE = "cache"


class Task(NamedTuple):
    """Both sides and the detectors, before anything is looked for."""

    trains: "list[Source]"
    tests: "list[Source]"
    looking: "Looking"
    made_of: dict[str, Any]


def run(argv: list[str]) -> int:
    """Run the command; return the exit status."""
    if {"-h", "--help"} & set(argv):
        from trl_math.cli.decontaminate_settings import KINDS

        print(HELP.format(**{name: settings_help(kind) for name, kind in KINDS.items()}).rstrip())
        return 0
    request = read_request(argv, "decontaminate", _no_smoke, "output", GENERATE_ALIASES)
    set_environment(request)
    quiet_bars()
    from trl_math.cli.decontaminate_settings import build

    return make(build(request.values), is_dry_run=request.is_dry_run)


def make(asked: "Asked", *, is_dry_run: bool = False) -> int:
    """Write the folder that is not there yet, and say what was found; return 1 if that is more than may be."""
    from trl_math.data.made_folder import MadeFolder

    file = MadeFolder(Path(str(asked.sides.output)), MANIFEST, "decontaminate")
    task = prepare(asked, work_folder(asked, file.path))
    for line in outlook(task):
        say(line)
    if is_dry_run:
        say(f"{file.path} {'holds this already' if file.is_finished(task.made_of) else 'would be written'}.")
        return 0
    with file.hold():
        if file.is_finished(task.made_of) and not _is_open(file):
            say(f"{file.path} holds this already: nothing to do.")
        else:
            _reopen(file, asked)
            _make(asked, file, task)
        _settle(asked, file.path)
    return _tell(asked, file.path)


def prepare(asked: "Asked", work: Path) -> Task:
    """Return both sides and the detectors; raise what is wrong with them before anything is looked for."""
    from trl_math.cli.decontaminate_detectors import detectors_of
    from trl_math.contamination.sources import read_tests, read_training

    sides = asked.sides
    tests = read_tests(sides.against or [], sides.against_split, sides.part)
    trains = read_training(sides.data or [], sides.split, sides.data_config, sides.part)
    looking = detectors_of(asked, sum(len(source.texts.ids) for source in trains), work, say)
    made_of = {
        "settings": {"part": sides.part, "examples": asked.gate.examples},
        "detectors": looking.facts,
        "data": [source.digest for source in trains],
        "against": [source.digest for source in tests],
    }
    return Task(trains, tests, looking, made_of)


def outlook(task: Task) -> list[str]:
    """Return what is compared by whom, and what is odd about it."""
    lines = []
    for side, sources in (("trained on", task.trains), ("tested", task.tests)):
        lines += [f"{side}: {source.name}, {counted(len(source.texts.ids), 'text')}" for source in sources]
        for source in sources:
            facts = source.texts.facts
            if facts["num_empty"]:
                lines.append(f"{source.name}: {counted(facts['num_empty'], 'row')} without a text cannot be compared.")
            if facts["num_ids_made"]:
                made = counted(facts["num_ids_made"], "row has no id of its own and is", "rows have no ids and are")
                lines.append(f"{source.name}: {made} called row-N, by the number from 0.")
            if facts["num_ids_repeated"]:
                again = counted(facts["num_ids_repeated"], "row has", "rows have")
                lines.append(f"{source.name}: {again} the id of a row before, and the number of the row behind it.")
    lines.append(f"detectors: {', '.join([*task.looking.counted, *task.looking.compared])}")
    return [*lines, *(f"{name} is left out: {reason}" for name, reason in task.looking.absent.items())]


def work_folder(asked: "Asked", output: Path) -> Path:
    """Return where vectors and answers are kept: beside the folder until that is there, and then in it."""
    if asked.sides.cache is not None:
        return Path(asked.sides.cache)
    output = output.resolve()
    return output.with_name(f".{output.name}.{CACHE}")


def _make(asked: "Asked", file: "MadeFolder", task: Task) -> None:
    """Look for leaks, and write the folder."""
    from trl_math.cli.decontaminate_files import files_of
    from trl_math.contamination.leak_rows import side_of
    from trl_math.contamination.leaks import find_leaks

    tests, trains = side_of(task.tests), side_of(task.trains)
    looking = task.looking
    ran = find_leaks({**looking.counted, **looking.compared}, tests.texts, trains.texts, say)
    files, facts, draw = files_of(asked, looking, ran, tests, trains)
    file.write(files, {**task.made_of, **facts, **_versions()}, draw)


def _is_open(file: "MadeFolder") -> bool:
    """Whether a judge has not answered all that it was asked: the same command asks again."""
    return bool(file.read_manifest().get("num_not_answered"))


def _reopen(file: "MadeFolder", asked: "Asked") -> None:
    """Take away a folder that is to be made again; what was kept in it stays."""
    if not file.path.exists():
        return
    kept, work = file.path / CACHE, work_folder(asked, file.path)
    if kept.exists() and not work.exists():
        kept.replace(work)
    shutil.rmtree(file.path)


def _settle(asked: "Asked", output: Path) -> None:
    """Move what was kept beside the folder into it."""
    work = work_folder(asked, output)
    if asked.sides.cache is None and work.exists() and not (output / CACHE).exists():
        work.replace(output / CACHE)


def _tell(asked: "Asked", output: Path) -> int:
    """Say what was found; return the exit status."""
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    for name, found in summary["benchmarks"].items():
        say(f"{name}: {_share(found['contaminated'])} are in what is trained on.")
    rows = summary["train_rows"]
    say(
        f"taken out: {rows['num_removed']:,} of {counted(rows['num'], 'row')}; {rows['num_kept']:,} are kept: "
        f"trl-math sft --dataset_name {output}"
    )
    say(f"{output / 'report.html'} shows pairs side by side.")
    if not rows["num_kept"]:
        say("No row is left to train on.")
    line = too_much(asked, rows)
    if line is None:
        return 0
    sys.stdout.flush()
    print(f"trl-math: {line}", file=sys.stderr)
    return 1


def too_much(asked: "Asked", rows: Mapping[str, Any]) -> str | None:
    """Return what to say where more rows have a leak than may have one."""
    gate, removed, num = asked.gate, rows["num_removed"], rows["num"]
    limit = gate.max_contaminated
    if gate.on_contaminated != "stop" or removed <= (limit * num if limit < 1 else limit):
        return None
    most = "none may" if not limit else f"at most {limit:.2%} may" if limit < 1 else f"at most {limit:,.0f} may"
    unknown = f" ({rows['num_unknown']:,} of them: the judge does not know)" if rows["num_unknown"] else ""
    return (
        f"{removed:,} of {num:,} training rows have test items in them{unknown}, and {most}: train on the clean rows "
        "(on_contaminated: remove), or raise max_contaminated."
    )


def _share(found: Mapping[str, Any]) -> str:
    """Return a rate with its interval; where something is unknown, both ends."""
    low, high = found["low"], found["high"]
    ends = f"[{low['low']:.1%}, {high['high']:.1%}]"
    if not found["num_unknown"]:
        return f"{found['num_yes']:,} of {counted(found['num'], 'item')} ({low['value']:.1%} {ends})"
    most = found["num_yes"] + found["num_unknown"]
    share = f"{low['value']:.1%} to {high['value']:.1%} {ends}; the rest is unknown"
    return f"{found['num_yes']:,} to {most:,} of {counted(found['num'], 'item')} ({share})"


def _versions() -> dict[str, Any]:
    from importlib.metadata import version

    return {"versions": {"trl-math": version("trl-math")}}


def _no_smoke(values: dict[str, Any], name: str) -> dict[str, Any]:
    raise UsageError("decontaminate has no smoke form: leave smoke out, or look with --dry-run.")
