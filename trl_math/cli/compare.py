"""`trl-math compare`: two evaluations, paired by problem; or arms of several seeds each (`compare_arms`)."""

import dataclasses
from pathlib import Path

from trl_math.cli import compare_arms
from trl_math.cli.compare_arms import ArmsArguments
from trl_math.cli.request import say, settings_help, split_words
from trl_math.errors import UsageError
from trl_math.recipes import parse_flags, split_values


HELP = """\
usage: trl-math compare FIRST SECOND [--setting value ...]
       trl-math compare --first RUN [RUN ...] --second RUN [RUN ...] [--setting value ...]

What SECOND gains over FIRST, both folders of `trl-math evaluate` over the same problems: for each metric the
difference with its interval, paired by problem, and how likely so large a difference is by chance (McNemar's exact
test for single samples, else a sign-flip test).

The second form is for arms that were trained with several seeds, one evaluation for each: means over the seeds, and
gains with intervals for other problems, for other seeds, and for both; by level, and on hard and easy problems.

settings (with their defaults):
{settings}

settings of arms:
{arms}
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

    def __post_init__(self) -> None:
        from trl_math.evaluation.intervals import quantile
        from trl_math.evaluation.summary import check_metric

        quantile(self.confidence)  # raises unless it is between 0 and 1
        if self.metrics is not None and not self.metrics:
            raise UsageError("metrics is empty: name some, such as accuracy, or leave it out for all.")
        for name in self.metrics or ():
            check_metric(name)

    def check_output(self) -> None:
        """Raise unless the output may be written."""
        path = Path(self.output) if self.output else None
        if path is not None and (path.exists() or path.suffix != ".json"):
            raise UsageError(f"output must be a .json file that does not exist yet, got {path}.")


def run(argv: list[str]) -> int:
    """Run the command; return the exit status."""
    if {"-h", "--help"} & set(argv):
        print(HELP.format(settings=settings_help(CompareArguments), arms=settings_help(ArmsArguments)).rstrip())
        return 0
    words, flags = split_words(argv)
    parts = split_values(parse_flags(flags), {"compare": CompareArguments, "arms": ArmsArguments})
    if parts["arms"] and words:
        raise UsageError(f"Arms are given as settings, and two runs as words: leave {' '.join(words)} out.")
    arguments, arms = CompareArguments(**parts["compare"]), ArmsArguments(**parts["arms"])
    arguments.check_output()
    if arms.is_given:
        return compare_arms.compare(arms, arguments)
    if len(words) != 2:
        raise UsageError(f"Which two runs? trl-math compare FIRST SECOND [--setting value ...]; got {len(words)}.")
    return compare(words[0], words[1], arguments)


def compare(first: str, second: str, arguments: CompareArguments) -> int:
    """Compare and print."""
    from trl_math.evaluation.compare_runs import compare_runs, read_run
    from trl_math.evaluation.table import comparison_table
    from trl_math.files import write_json

    output = Path(arguments.output) if arguments.output else None
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
