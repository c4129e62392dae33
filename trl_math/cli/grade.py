"""`trl-math grade`: the samples of a folder or a file, each with its verdict."""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from trl_math.cli.request import quiet_bars, say, settings_help, split_words
from trl_math.errors import DataError, RunFolderError, UsageError, pick
from trl_math.recipes import canonical, parse_flags, split_values
from trl_math.wording import counted


HELP = """\
usage: trl-math grade SAMPLES --data PROBLEMS [--setting value ...]

Grade samples against the answers of the problems they were made of. SAMPLES is a folder of `trl-math generate`, or a
JSONL file with problem_id and completion. The graded samples (the same rows with correct, extracted, reason and place)
go to graded.jsonl in the folder, or to --output. The same command goes on where it stopped.

settings (with their defaults):
{settings}
"""


@dataclasses.dataclass
class GradeArguments:
    """What is graded, and against what."""

    data: str | None = dataclasses.field(
        default=None, metadata={"help": "The problems: a hub name, a JSONL or Parquet file, a benchmark's name, ..."}
    )
    data_config: str | None = dataclasses.field(default=None, metadata={"help": "Configuration name on the hub."})
    split: str = dataclasses.field(default="train", metadata={"help": "Split of data."})
    prompt_style: str | None = dataclasses.field(
        default=None,
        metadata={
            "help": "How samples in a file were asked, if answers stand behind a prefix. Folders say it themselves."
        },
    )
    programs: bool = dataclasses.field(
        default=False, metadata={"help": "Completions are Python programs: run them; what they print is the answer."}
    )
    program_seconds: float = dataclasses.field(default=10.0, metadata={"help": "Seconds that a program may run."})
    workers: int | None = dataclasses.field(
        default=None, metadata={"help": "Processes that compare answers. Unset: one for each core."}
    )
    deadline: float = dataclasses.field(
        default=5.0, metadata={"help": "Seconds after which a comparison is killed and counts as wrong."}
    )
    output: str | None = dataclasses.field(
        default=None, metadata={"help": "The .jsonl file to write. Of a folder, unset: graded.jsonl in it."}
    )

    def __post_init__(self) -> None:
        if not self.data:
            raise UsageError("Which problems were these samples made of? Set data.")
        if self.prompt_style is not None:
            from trl_math.data.prompts import PROMPT_STYLES

            pick("prompt style", self.prompt_style, PROMPT_STYLES)
        if self.program_seconds != GradeArguments.program_seconds and not self.programs:
            raise UsageError("program_seconds is for completions that are programs: add programs true.")


def run(argv: list[str]) -> int:
    """Run the command; return the exit status."""
    if {"-h", "--help"} & set(argv):
        print(HELP.format(settings=settings_help(GradeArguments)).rstrip())
        return 0
    words, flags = split_words(argv)
    if len(words) != 1:
        raise UsageError("Which samples? trl-math grade SAMPLES --data PROBLEMS, SAMPLES being one folder or file.")
    values = canonical(parse_flags(flags), {"dataset_name": "data", "dataset_split": "split"})
    arguments = GradeArguments(**split_values(values, {"grade": GradeArguments})["grade"])
    quiet_bars()
    return grade(Path(words[0]), arguments)


def grade(source: Path, arguments: GradeArguments) -> int:
    """Grade what is not graded yet, and say what came of all."""
    from trl_math.evaluation.grade_samples import Judge, by_id, check_overlap, grade_new, grading_health
    from trl_math.evaluation.graded_file import GradedFile, read_graded
    from trl_math.evaluation.results import COLUMNS
    from trl_math.grading import Grader
    from trl_math.grading.sandbox import Limits, Sandbox

    if not source.exists():
        raise UsageError(f"There is no {source}: give a folder of `trl-math generate`, or a JSONL file of samples.")
    target = Path(arguments.output) if arguments.output else source / "graded.jsonl" if source.is_dir() else None
    if target is None:
        raise UsageError("Where do the graded samples go? Set output to a file that ends in .jsonl.")
    if target.suffix != ".jsonl":
        raise UsageError(f"output {target} does not end in .jsonl: graded samples are one file, a JSON object a line.")
    if target.resolve() == source.resolve():
        raise UsageError(f"output {target} is the file of the samples: choose another.")
    problems = by_id(_problems(arguments))
    check_overlap(_samples(source), problems, str(source))
    if target.exists():
        _check_same_samples(source, target)
    prefix = _answer_prefix(source, arguments.prompt_style)
    limits = Limits(seconds=arguments.program_seconds)
    with (
        GradedFile(target, ("problem_id", "sample_index")) as graded,
        Grader(arguments.workers, arguments.deadline) as grader,
        Sandbox(limits=limits, workers=arguments.workers) if arguments.programs else nullcontext() as sandbox,
    ):
        judge = Judge(problems.values(), grader, sandbox, prefix)
        number, dropped = grade_new(lambda: _samples(source), judge, graded)
    others = sum(row["problem_id"] not in problems for row in _samples(source))
    rows = [{name: row[name] for name in COLUMNS if name in row} for row in read_graded(target)]
    if dropped:
        held = "no longer held (another answer or grader), and"
        say(f"{counted(dropped, f'grade {held} is', f'grades {held} are')} made anew.")
    say(f"{target} holds {counted(len(rows), 'graded sample')}, {number:,} of them new.")
    if others:
        is_of = counted(others, "sample is of a problem that is", "samples are of problems that are")
        say(f"{is_of} not in {arguments.data}, and left out.")
    for line in describe(rows, grading_health(rows)):
        say(line)
    return 0


def _check_same_samples(source: Path, target: Path) -> None:
    """Raise if a file has grades of samples that are not these."""
    from trl_math.evaluation.graded_file import read_graded

    texts = {(row["problem_id"], row["sample_index"]): hash(row["completion"]) for row in _samples(source)}
    for row in read_graded(target, ("completion",)):
        key = row["problem_id"], row["sample_index"]
        if texts.get(key) != hash(row["completion"]):
            raise RunFolderError(
                f"{target} has grades of other samples than {source} (sample {key[1]} of {key[0]} for one): choose "
                "another output, or remove it."
            )


def _answer_prefix(source: Path, style: str | None) -> str:
    """Return what announces the answers of samples: by their manifest, or of a file's by the style that is named."""
    from trl_math.data.prompts import PROMPT_STYLES
    from trl_math.generation.store import read_manifest

    named = PROMPT_STYLES[style].answer_prefix if style is not None else ""
    settings = read_manifest(source).get("settings") if source.is_dir() else None
    if settings is None:
        return named
    told = str(settings.get("answer_prefix", ""))
    if style is not None and told != named:
        raise UsageError(
            f"prompt_style {style} reads answers behind {named!r}, and the samples in {source} were asked for them "
            f"behind {told!r} (prompt_style {settings.get('prompt_style')}): leave prompt_style out."
        )
    return told


def describe(rows: list[dict[str, Any]], health: dict[str, Any]) -> list[str]:
    """Return what came of the samples."""
    from trl_math.evaluation.summary import format_rates

    correct = sum(row["correct"] is True for row in rows)
    unreadable = sum(row["correct"] is None for row in rows)
    judged = len(rows) - unreadable
    lines = [f"{correct:,} of {judged:,} are right ({correct / judged:.1%})." if judged else "None can be judged."]
    if unreadable:
        judged_not = counted(unreadable, "sample has", "samples have")
        lines.append(f"{judged_not} no verdict: the gold answers of their problems cannot be read.")
    lines.append("why: " + ", ".join(f"{reason} {count:,}" for reason, count in health["reasons"].items()))
    if "outcomes" in health:
        lines.append("programs: " + ", ".join(f"{name} {count:,}" for name, count in health["outcomes"].items()))
    for name, rate in (format_rates(rows) if rows else {}).items():
        lines.append(f"{name}: {rate.value:.1%} ({rate.low:.1%} to {rate.high:.1%})")
    unmarked = counted(health["num_unmarked"], "answer is", "answers are")
    lines.append(f"{unmarked} not marked by a box, #### or a phrase.")
    return lines


def _problems(arguments: GradeArguments) -> Any:
    from trl_math.evaluation.benchmarks import BENCHMARKS, find_benchmark, load

    assert arguments.data is not None
    if arguments.data.partition("=")[0] in BENCHMARKS:
        if arguments.split != GradeArguments.split or arguments.data_config is not None:
            raise UsageError(
                f"{arguments.data} is a benchmark, whose split is known: leave split and data_config out."
            )
        return load(*find_benchmark(arguments.data))
    from trl_math.data.load import read_for_style

    return read_for_style(arguments.data, arguments.split, arguments.data_config, "plain")


def _samples(source: Path) -> Iterator[dict[str, Any]]:
    """Yield the samples of a folder or a file."""
    from trl_math.generation.sample_files import completion_files, unique_rows

    if source.is_dir():
        if not completion_files(source):
            below = sorted(str(path.parent) for path in source.glob("*/completions*.jsonl"))
            hint = f" There are some in {', '.join(dict.fromkeys(below))}." if below else ""
            raise DataError(
                f"There are no samples in {source}: expected completions*.jsonl of `trl-math generate`.{hint}"
            )
        yield from (row for _, _, row in unique_rows(source))
        return
    seen: dict[str, set[int]] = {}
    with source.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            row = _sample(line, f"{source}:{number}")
            there = seen.setdefault(row["problem_id"], set())
            index = row.setdefault("sample_index", len(there))
            if index in there:
                raise DataError(f"{source}:{number}: sample {index} of {row['problem_id']!r} is there twice.")
            there.add(index)
            yield row


def _sample(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: not a line of JSON: {error}.") from None
    if not isinstance(row, dict) or not {"problem_id", "completion"} <= row.keys():
        found = ", ".join(row) if isinstance(row, dict) else type(row).__name__
        raise DataError(
            f"{where}: not a sample. Found: {found}. Expected problem_id and completion, and optionally sample_index."
        )
    if not isinstance(row["problem_id"], str | int) or not isinstance(row["completion"], str | None):
        raise DataError(f"{where}: problem_id and completion must be texts.")
    return {**row, "problem_id": str(row["problem_id"]), "completion": row["completion"] or ""}
