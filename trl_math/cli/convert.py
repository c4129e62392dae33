"""`trl-math convert`: published data in other formats become ours, and ours become theirs."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from trl_math.cli.request import quiet_bars, say, settings_help, split_words
from trl_math.errors import DataError, UsageError, pick
from trl_math.files import nearest_path
from trl_math.recipes import canonical, parse_flags, split_values
from trl_math.wording import counted


HELP = """\
usage: trl-math convert INPUT --to FORMAT --output OUTPUT [--from FORMAT] [--setting value ...]

Read data in one format and write them in another; nothing is written if a record is broken. INPUT is a file or folder,
or of problems any source (a hub name, embedded:..., ...).

formats:
{formats}

conversions:
{conversions}

settings (with their defaults):
{settings}
"""

FORMATS = {
    "completion_dataset": "completions of Fine-tune-CoT's published code (JSON; data is an object of lists)",
    "samples": "a folder as `trl-math generate` leaves it; `trl-math grade` reads it",
    "dataset": "problems of Fine-tune-CoT's published code (JSON; data is a list)",
    "problems": "problems, one JSON object a line; as INPUT any source",
    "rows": "training rows: prompt and completion, texts or messages (JSONL); as INPUT any source",
    "openai_chat": "conversations for OpenAI's fine-tuning (JSONL)",
    "openai_completion": "prompts and completions with an end mark, for OpenAI's older fine-tuning (JSONL)",
}


@dataclasses.dataclass
class ConvertArguments:
    """What becomes what."""

    source_format: str | None = dataclasses.field(
        default=None, metadata={"help": "The format of INPUT. Unset: by what is in it."}
    )
    target_format: str | None = dataclasses.field(default=None, metadata={"help": "The format of the output."})
    output: str | None = dataclasses.field(default=None, metadata={"help": "The file, or of samples the folder."})
    data: str | None = dataclasses.field(
        default=None, metadata={"help": "Of samples that were drawn here: the problems that they are of."}
    )
    split: str = dataclasses.field(default="train", metadata={"help": "Split of data, or of problems or rows."})
    data_config: str | None = dataclasses.field(default=None, metadata={"help": "Configuration name on the hub."})
    prompt_style: str | None = dataclasses.field(
        default=None, metadata={"help": "How problems become rows, where they do (chat_cot, ft_cot_token, ...)."}
    )
    end: str | None = dataclasses.field(
        default=None, metadata={"help": "Of openai_completion: what ends a completion. Unset: ' END', as published."}
    )

    def __post_init__(self) -> None:
        if self.target_format is None or not self.output:
            raise UsageError("What shall it become, and where? Set --to and --output.")
        pick("format", self.target_format, FORMATS)
        if self.source_format is not None:
            pick("format", self.source_format, FORMATS)
        if self.prompt_style is not None:
            from trl_math.data.prompts import PROMPT_STYLES

            pick("prompt style", self.prompt_style, PROMPT_STYLES)


def run(argv: list[str]) -> int:
    """Run the command; return the exit status."""
    if {"-h", "--help"} & set(argv):
        print(_help())
        return 0
    words, flags = split_words(argv)
    if len(words) != 1:
        raise UsageError("What is to be converted? trl-math convert INPUT --to FORMAT --output OUTPUT.")
    values = canonical(parse_flags(flags), {"from": "source_format", "to": "target_format"})
    arguments = ConvertArguments(**split_values(values, {"convert": ConvertArguments})["convert"])
    quiet_bars()
    convert(words[0], arguments)
    return 0


def convert(name: str, arguments: ConvertArguments) -> None:
    """Convert, and say what came of it."""
    source = arguments.source_format or guess_format(name, arguments.end)
    target = str(arguments.target_format)
    if (source, target) not in CONVERSIONS:
        if ":" not in name and not Path(name).exists():
            raise UsageError(f"No file or folder {name!r}.{nearest_path(Path(name))}")
        known = ", ".join(other for one, other in CONVERSIONS if one == source)
        raise UsageError(
            f"{name} is taken for {source}: {FORMATS[source]}. {source} cannot become {target}; it can become {known}."
        )
    function, taken = CONVERSIONS[source, target]
    for setting in ("data", "split", "data_config", "prompt_style", "end"):
        default = next(field.default for field in dataclasses.fields(arguments) if field.name == setting)
        if setting not in taken and getattr(arguments, setting) != default:
            raise UsageError(f"{setting} says nothing about how {source} becomes {target}: leave it out.")
    output = Path(str(arguments.output))
    if output.is_file() or (output.exists() and target != "samples"):
        raise UsageError(f"output {output} exists: choose another, or remove it.")
    function(name, output, arguments)


def guess_format(name: str, end: str | None = None) -> str:
    """Return the format that a file or folder is in, by what is in it; `end`: what ends a completion for OpenAI."""
    from trl_math.data.openai_jsonl import END
    from trl_math.data.reasoning_teacher import kind_of
    from trl_math.generation.sample_files import completion_files

    path = Path(name)
    if path.is_dir() and completion_files(path):
        return "samples"
    if (path / "rows.jsonl").is_file():
        return "rows"
    if path.is_file() and path.suffix == ".json" and (kind := kind_of(path)):
        return kind
    if path.is_file() and path.suffix == ".jsonl":
        row = _first_row(path)
        if "messages" in row:
            return "openai_chat"
        if row.keys() == {"prompt", "completion"} and isinstance(row["completion"], str):
            if row["completion"].endswith(end or END):
                return "openai_completion"
            raise UsageError(
                f"{name} has prompts and completions and nothing else, without {end or END!r} at their end: set from "
                "to rows (to train on as they are), or to openai_completion (and end to their mark, if they have one)."
            )
        if {"prompt", "completion"} <= row.keys():
            return "rows"
    return "problems"


def _first_row(path: Path) -> dict[str, Any]:
    """Return the first row of a file, nothing if it cannot be read: who reads it all says why."""
    with path.open("rb") as lines:
        first = next((line for line in lines if line.strip()), b"")
    try:
        row = json.loads(first)
    except ValueError:
        row = None
    return row if isinstance(row, dict) else {}


# ---- Completions ----


def _import_completions(name: str, output: Path, arguments: ConvertArguments) -> None:
    from trl_math.data.prompt_styles import THEREFORE
    from trl_math.generation.completion_dataset import PROBLEMS, import_completions

    found = import_completions(_file(name), output)
    contents, settings = found.contents, found.settings
    already = "" if found.is_new else " already: nothing to do"
    samples = counted(contents.num_completions, "sample")
    say(f"{output} holds {samples} of {counted(len(contents.problems), 'problem')}{already}.")
    if contents.num_missing:
        say(f"{counted(contents.num_missing, 'record has', 'records have')} no completion yet: no sample.")
    if contents.unlike:
        unlike = counted(len(contents.unlike), "record of two stages has", "records of two stages have")
        say(
            f"{unlike} a prompt that is not reasoning_prompt and reasoning_completion ({contents.unlike[0]} for one): "
            f"{THEREFORE!r} is taken to have asked for the answer."
        )
    prefix = settings.get("answer_prefix")
    read = f"behind {prefix!r}" if prefix else "wherever they stand: the template is not known to announce them"
    say(f"prompt_style {settings['prompt_style']}: answers are read {read}.")
    say(f"trl-math grade {output} --data {output / PROBLEMS}")


def _export_completions(name: str, output: Path, arguments: ConvertArguments) -> None:
    from trl_math.generation.completion_dataset import export_completions

    problems = None
    if arguments.data is not None:
        from trl_math.data.load import read_for_style

        problems = list(read_for_style(arguments.data, arguments.split, arguments.data_config, "plain"))
    number = export_completions(Path(name), output, problems)
    say(f"{output} holds {counted(number, 'completion')}.")


# ---- Problems ----


def _import_dataset(name: str, output: Path, arguments: ConvertArguments) -> None:
    from trl_math.data.reasoning_teacher import dataset_file, problem_rows, read_dataset

    path = _file(name)
    head, records = read_dataset(path)
    rows = problem_rows(head, records, path)
    dataset_file(output).write(rows, lambda: {"head": head, "num_rows": len(rows)})
    say(f"{output} holds {counted(len(rows), 'problem')}.")


def _export_dataset(name: str, output: Path, arguments: ConvertArguments) -> None:
    from trl_math.data.reasoning_teacher import export_dataset, kept_dataset
    from trl_math.data.sources import source_stem
    from trl_math.files import write_whole

    head, records = kept_dataset(Path(name)) or export_dataset(_problems(name, arguments), source_stem(name))
    write_whole(output, _document(head, records))
    say(f"{output} holds {counted(len(records), 'problem')}.")


def _problems_of_completions(name: str, output: Path, arguments: ConvertArguments) -> None:
    from trl_math.data.reasoning_teacher import read_contents

    contents = read_contents(_file(name))
    _write_lines(output, contents.problems, "problem")


# ---- Training rows ----


def _rows_to(format_: str) -> Callable[[str, Path, ConvertArguments], None]:
    def write(name: str, output: Path, arguments: ConvertArguments) -> None:
        _write_lines(output, _in_format(_rows(name, arguments), format_, arguments), "row")

    return write


def _problems_to(format_: str) -> Callable[[str, Path, ConvertArguments], None]:
    def write(name: str, output: Path, arguments: ConvertArguments) -> None:
        if arguments.prompt_style is None:
            raise UsageError("How do problems become rows? Set prompt_style (chat_cot, ft_cot_token, ...).")
        from trl_math.data.prompts import to_sft

        rows = to_sft(_problems(name, arguments), arguments.prompt_style)
        _write_lines(output, _in_format(rows, format_, arguments), "row")

    return write


def _rows_from(format_: str) -> Callable[[str, Path, ConvertArguments], None]:
    def write(name: str, output: Path, arguments: ConvertArguments) -> None:
        from trl_math.data.openai_jsonl import rows_of_chats, rows_of_completions

        path = _file(name)
        rows = rows_of_chats(path) if format_ == "openai_chat" else rows_of_completions(path, **_end(arguments))
        _write_lines(output, rows, "row")

    return write


def _in_format(
    rows: Iterable[Mapping[str, Any]], format_: str, arguments: ConvertArguments
) -> Iterator[dict[str, Any]]:
    from trl_math.data.openai_jsonl import chats_of_rows, completions_of_rows

    if format_ == "openai_chat":
        return chats_of_rows(rows)
    return completions_of_rows(rows, **_end(arguments)) if format_ == "openai_completion" else map(dict, rows)


def _end(arguments: ConvertArguments) -> dict[str, str]:
    return {} if arguments.end is None else {"end": arguments.end}


def _problems(name: str, arguments: ConvertArguments) -> Any:
    from trl_math.data.load import read_for_style

    return read_for_style(name, arguments.split, arguments.data_config, arguments.prompt_style or "plain")


def _rows(name: str, arguments: ConvertArguments) -> Any:
    from trl_math.data.sources import load_source

    return load_source(name, arguments.split, arguments.data_config)


def _file(name: str) -> Path:
    path = Path(name)
    if not path.is_file():
        raise UsageError(f"There is no file {name}.")
    return path


def _document(head: Mapping[str, Any], records: list[dict[str, Any]]) -> str:
    return json.dumps({**head, "data": records}, indent=1) + "\n"


def _write_lines(output: Path, rows: Iterable[Mapping[str, Any]], what: str) -> None:
    """Write rows whole or not at all: a broken one raises while they come."""
    from trl_math.errors import StoreError
    from trl_math.files import json_line

    part = output.with_name(f".{output.name}.part")
    number = 0
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as lines:
            for row in rows:
                lines.write(json_line(row))
                number += 1
        if number == 0:
            raise DataError(f"There are no {what}s to write.")
        part.replace(output)
    except OSError as error:
        raise StoreError(f"Cannot write {output}: {error.strerror or error}.") from error
    finally:
        part.unlink(missing_ok=True)
    say(f"{output} holds {counted(number, what)}.")


Conversion = Callable[[str, Path, ConvertArguments], None]
WHERE = ("split", "data_config")
# From, to -> what does it, and the settings that it takes.
CONVERSIONS: dict[tuple[str, str], tuple[Conversion, tuple[str, ...]]] = {
    ("completion_dataset", "samples"): (_import_completions, ()),
    ("completion_dataset", "problems"): (_problems_of_completions, ()),
    ("samples", "completion_dataset"): (_export_completions, ("data", *WHERE)),
    ("dataset", "problems"): (_import_dataset, ()),
    ("problems", "dataset"): (_export_dataset, WHERE),
    ("problems", "rows"): (_problems_to("rows"), ("prompt_style", *WHERE)),
    ("problems", "openai_chat"): (_problems_to("openai_chat"), ("prompt_style", *WHERE)),
    ("problems", "openai_completion"): (_problems_to("openai_completion"), ("prompt_style", "end", *WHERE)),
    ("dataset", "rows"): (_problems_to("rows"), ("prompt_style",)),
    ("dataset", "openai_chat"): (_problems_to("openai_chat"), ("prompt_style",)),
    ("dataset", "openai_completion"): (_problems_to("openai_completion"), ("prompt_style", "end")),
    ("rows", "openai_chat"): (_rows_to("openai_chat"), WHERE),
    ("rows", "openai_completion"): (_rows_to("openai_completion"), ("end", *WHERE)),
    ("openai_chat", "rows"): (_rows_from("openai_chat"), ()),
    ("openai_completion", "rows"): (_rows_from("openai_completion"), ("end",)),
}


def _help() -> str:
    width = max(map(len, FORMATS))
    formats = "\n".join(f"  {name:{width}}  {text}" for name, text in FORMATS.items())
    targets: dict[str, list[str]] = {}
    for source, target in CONVERSIONS:
        targets.setdefault(source, []).append(target)
    conversions = "\n".join(f"  {source:{width}}  -> {', '.join(others)}" for source, others in targets.items())
    settings = settings_help(ConvertArguments)
    for field, flag in (("source_format", "from"), ("target_format", "to")):
        settings = settings.replace(f"--{field}:", f"--{flag}:")
    return HELP.format(formats=formats, conversions=conversions, settings=settings).rstrip()
