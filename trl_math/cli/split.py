"""`trl-math split`: problems divided into those that train and those that test, as files."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trl_math.cli.request import quiet_bars, read_request, say, set_environment, settings_help
from trl_math.errors import UsageError
from trl_math.recipes import GENERATE_ALIASES, Header, split_values
from trl_math.wording import counted


if TYPE_CHECKING:
    import datasets

    from trl_math.data.made_folder import MadeFolder
    from trl_math.data.split_problems import Sides
    from trl_math.data.split_settings import SplitSettings


HELP = """\
usage: trl-math split --data DATA --output FOLDER [--by random|template|official] [--setting value ...]
       trl-math split --config RECIPE.yaml [--setting value ...] [--dry-run]

Divide problems into those that train and those that test. DATA is a source of problems: a task (task:multiarith), a
hub name, a JSONL or Parquet file. FOLDER gets train.jsonl, test.jsonl, validation.jsonl if some validate, and
split.json, which says how they were drawn. It is then a data set with these splits, for every command.

which problems:
{source}

which of them train and test (with defaults):
{split}
"""


@dataclasses.dataclass(frozen=True)
class SplitSource:
    """Which problems are divided, and where the sides go."""

    data: str | None = dataclasses.field(
        default=None, metadata={"help": "A task, a hub name, a JSONL or Parquet file, a generator."}
    )
    data_config: str | None = dataclasses.field(default=None, metadata={"help": "Configuration name on the hub."})
    split: str | None = dataclasses.field(
        default=None,
        metadata={"help": "What of it is divided; several joined by + [all of a task, train of another source]."},
    )
    output: str | None = dataclasses.field(default=None, metadata={"help": "Folder of the sides."})


class Work(NamedTuple):
    """What a folder will be made of, and the sides."""

    made_of: dict[str, Any]
    sides: "Sides"


def run(argv: list[str]) -> int:
    """Run the command; return the exit status."""
    if {"-h", "--help"} & set(argv):
        from trl_math.data.split_settings import SplitSettings

        print(HELP.format(source=settings_help(SplitSource), split=settings_help(SplitSettings)).rstrip())
        return 0
    request = read_request(argv, "split", _no_smoke, "output", GENERATE_ALIASES)
    set_environment(request)
    quiet_bars()
    return make(*arguments(request.values), is_dry_run=request.is_dry_run)


def arguments(values: Mapping[str, Any]) -> tuple[SplitSource, "SplitSettings"]:
    """Return the settings in typed form; raise for what has no place."""
    from trl_math.data.split_settings import SplitSettings

    parts = split_values(values, {"header": Header, "source": SplitSource, "settings": SplitSettings})
    source, settings = SplitSource(**parts["source"]), SplitSettings(**parts["settings"])
    if not source.data:
        raise UsageError("Which problems? Set data (task:multiarith, a hub name, or a JSONL or Parquet file).")
    if settings.by == "official" and source.split is not None:
        raise UsageError("An official split says itself what is divided: set train_split and test_split, not split.")
    return source, settings


def make(source: SplitSource, settings: "SplitSettings", *, is_dry_run: bool = False) -> int:
    """Write the sides that are not there yet, and say how large they are."""
    file = split_folder(str(source.output))
    work = divide(source, settings)
    if is_dry_run:
        _tell(work.sides)
        is_there = file.is_finished(work.made_of)
        say(f"{file.path} {'holds these sides already' if is_there else 'would be written'}.")
        return 0
    with file.hold():
        if file.is_finished(work.made_of):
            say(f"{file.path} holds these sides already: nothing to do.")
            return 0
        file.write(_files(work.sides), {**work.made_of, "data": source.data, **work.sides.facts, **_versions()})
    _tell(work.sides)
    say(f"{file.path} is a data set with these splits: --data {file.path} --split train.")
    return 0


def split_folder(output: str) -> "MadeFolder":
    """Return the folder that an output names."""
    from trl_math.data.files import SPLIT_MANIFEST
    from trl_math.data.made_folder import MadeFolder

    return MadeFolder(Path(output), SPLIT_MANIFEST, "split")


def divide(source: SplitSource, settings: "SplitSettings") -> Work:
    """Return the sides of a split, or raise why there is none."""
    from trl_math.data.load import digest
    from trl_math.data.split_problems import check_problems, official_sides, split_problems

    shown = _read(settings.exemplars, None, None) if settings.exemplars else None
    texts = list(shown["problem"]) if shown is not None else []
    made_of: dict[str, Any] = {"settings": dataclasses.asdict(settings)}
    if shown is not None:
        made_of["exemplars"] = digest(shown.select_columns("problem"))
    if settings.by == "official":
        names = {
            "train": settings.train_split or "train",
            "validation": settings.validation_split,
            "test": settings.test_split or "test",
        }
        _check_official(source, names)
        rows = {side: _read(source.data, name, source.data_config) for side, name in names.items() if name}
        problems = {side: list(some) for side, some in rows.items()}
        made_of["problems"] = {side: digest(some) for side, some in rows.items()}
        return Work(made_of, official_sides(problems, settings, texts))
    rows = _read(source.data, source.split, source.data_config)
    check_problems(rows, str(source.data))
    made_of["problems"] = digest(rows)
    return Work(made_of, split_problems(list(rows), settings, texts))


def _read(name: str | None, split: str | None, config: str | None) -> "datasets.Dataset":
    """Return problems of one split, or of several joined by +."""
    import datasets

    from trl_math.data.columns import COLLECTED_MARK
    from trl_math.data.load import in_style, load_split
    from trl_math.data.sources import TASK

    name = str(name)
    if split is None:
        split = "all" if name.startswith(TASK) else "train"
    loaded = [load_split(name, each.strip(), config) for each in split.split("+")]
    if any({*COLLECTED_MARK} <= {*rows.column_names} for rows in loaded):
        raise UsageError(f"{name} has rows to train on, and not problems: split the problems before they are asked.")
    parts = [in_style(rows, name, "plain") for rows in loaded]
    return datasets.concatenate_datasets(parts) if len(parts) > 1 else parts[0]


def _check_official(source: SplitSource, names: Mapping[str, str | None]) -> None:
    """Raise if the data have no official split, or if two sides of it are the same."""
    from trl_math.data.sources import TASK, source_stem

    data = str(source.data)
    if data.startswith(TASK):
        from trl_math.data.tasks import TASKS

        task = TASKS.get(source_stem(data))
        if task is not None and not task.is_official:
            official = ", ".join(one.name for one in TASKS.values() if one.is_official)
            raise UsageError(
                f"{task.name} has no official split (of the tasks {official} have): by: random with seed 0 is the "
                "published one."
            )
    elif Path(data).expanduser().is_file():
        raise UsageError(f"{data} is one file, without an official split: split it by random or template.")
    given = [name for name in names.values() if name is not None]
    if twice := next((name for name in given if given.count(name) > 1), None):
        raise UsageError(f"The split {twice!r} is on two sides: train_split, validation_split and test_split differ.")


def _files(sides: "Sides") -> dict[str, Sequence[Mapping[str, Any]]]:
    from trl_math.data.split_problems import SIDES

    return {f"{name}.jsonl": rows for name in SIDES if (rows := getattr(sides, name))}


def _tell(sides: "Sides") -> None:
    """Say how large the sides are, and what else there is to know."""
    facts = sides.facts
    sizes = [(name, len(getattr(sides, name))) for name in ("train", "validation", "test")]
    total = sum(number for _, number in sizes)
    say(", ".join(f"{name} {number:,} ({number / total:.0%})" for name, number in sizes if number))
    if "num_templates" in facts:
        of_sides = ", ".join(f"{name} {number:,}" for name, number in facts["num_templates_of"].items() if number)
        say(f"{counted(facts['num_templates'], 'template')}, none on two sides: {of_sides}. The largest:")
        for one in facts["largest"]:
            template = one["template"]
            shown = template if len(template) <= 100 else f"{template[:96]} ..."
            say(f"  {counted(one['num_problems'], 'problem')}: {shown}")
    for note in sides.notes:
        say(note)


def _versions() -> dict[str, Any]:
    from importlib.metadata import version

    return {"versions": {"trl-math": version("trl-math")}}


def _no_smoke(values: dict[str, Any], name: str) -> dict[str, Any]:
    raise UsageError("split has no smoke form, since it runs no model: leave smoke out, or look with --dry-run.")
