"""`trl-math compare`: two evaluations, paired by problem."""

import dataclasses
from pathlib import Path

from trl_math.cli.request import say, settings_help
from trl_math.errors import UsageError
from trl_math.recipes import parse_flags, split_values


HELP = """\
usage: trl-math compare FIRST SECOND [--setting value ...]

What SECOND gains over FIRST, both folders of `trl-math evaluate` over the same problems: for each metric the
difference with its interval, paired by problem, and how likely so large a difference is by chance (McNemar's exact
test for single samples, else a sign-flip test).

settings (with their defaults):
{settings}
"""


@dataclasses.dataclass
class CompareArguments:
    """What is compared."""

    metrics: list[str] | None = dataclasses.field(
        default=None, metadata={"help": "Which: accuracy, pass@8, maj@8, ... Unset: all that both runs have."}
    )
    intersect: bool = dataclasses.field(
        default=False, metadata={"help": "If the runs asked different problems, compare those that both asked."}
    )
    confidence: float = dataclasses.field(default=0.95, metadata={"help": "Of the intervals."})
    output: str | None = dataclasses.field(
        default=None, metadata={"help": "Also write everything to this .json file, which must not exist."}
    )


def run(argv: list[str]) -> int:
    """Run the command; return the exit status."""
    if {"-h", "--help"} & set(argv):
        print(HELP.format(settings=settings_help(CompareArguments)).rstrip())
        return 0
    words = argv[: next((index for index, word in enumerate(argv) if word.startswith("-")), len(argv))]
    if len(words) != 2:
        raise UsageError(f"Which two runs? trl-math compare FIRST SECOND [--setting value ...]; got {len(words)}.")
    values = split_values(parse_flags(argv[2:]), {"compare": CompareArguments})["compare"]
    return compare(words[0], words[1], CompareArguments(**values))


def compare(first: str, second: str, arguments: CompareArguments) -> int:
    """Compare and print."""
    from trl_math.evaluation.compare_runs import compare_runs, read_run
    from trl_math.evaluation.table import comparison_table
    from trl_math.files import write_json

    output = Path(arguments.output) if arguments.output else None
    if output is not None and (output.exists() or output.suffix != ".json"):
        raise UsageError(f"output must be a .json file that does not exist yet, got {output}.")
    found = compare_runs(
        read_run(first),
        read_run(second),
        intersect=arguments.intersect,
        confidence=arguments.confidence,
        metrics=arguments.metrics,
    )
    print(f"first:  {first}\nsecond: {second}\n")
    print(f"{comparison_table(found)}\n")
    say(
        f"Points of percent, second minus first; in brackets the {arguments.confidence:.0%} interval, paired by "
        "problem. p: how likely a difference at least as large would be if the runs were exchangeable."
    )
    for one in found:
        name = f"{one.benchmark} ({one.mode})"
        for setting, (a, b) in one.differing.items():
            say(f"{name}: not the same settings: {setting} is {a!r} in the first run, {b!r} in the second.")
        any_metric = next(iter(one.metrics.values()))
        if any_metric.num_only_first or any_metric.num_only_second:
            say(
                f"{name}: left out are {any_metric.num_only_first} problems that only the first run asked, and "
                f"{any_metric.num_only_second} that only the second did."
            )
    if output is not None:
        write_json(output, {"first": first, "second": second, "compared": [one.as_dict() for one in found]})
        say(f"Wrote {output}.")
    return 0
