"""Where pass rates come from: graded samples, rates in a file, or samples that are drawn for it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from trl_math.cli.pair_sources import EVALUATED, Source, find_sources
from trl_math.errors import DataError, UsageError


if TYPE_CHECKING:
    from trl_math.data.graded_samples import GradedSamples


# Settings of a sampler that say nothing about what it samples from.
IMMATERIAL = {"seed", "logprobs"}


class Tally(NamedTuple):
    """The samples of one problem that have a verdict."""

    num_samples: int
    num_correct: int


class Graded(NamedTuple):
    """Graded samples, counted by problem, with their problems."""

    problems: list[Mapping[str, Any]]
    tallies: dict[str, Tally]
    facts: dict[str, Any]
    samples: dict[str, Any]  # what tells these samples from others
    notes: list[str]


def count_graded(names: Sequence[str], data: str | None, split: str, config: str | None) -> Graded:
    """Return what lies in folders and files of graded samples, or raise what is wrong with it."""
    from trl_math.data.graded_samples import GradedSamples

    sources = find_sources(names)
    samples = GradedSamples([source.file for source in sources])
    if not samples.num_samples:
        raise DataError(f"There are no graded samples in {' and '.join(names)}.")
    facts = _sampler_facts(samples, sources)
    problems = {str(row["problem_id"]): row for row in _problems(sources, data, split, config)}
    right, judged = Counter[str](), Counter[str]()
    for problem in samples:
        for row in problem.samples:
            judged[problem.problem_id] += row["correct"] is not None
            right[problem.problem_id] += row["correct"] is True
    strangers = [name for name in judged if name not in problems]
    if len(strangers) == len(judged):
        raise DataError(
            f"No sample answers one of these problems (a sample is of {strangers[0]!r}, a problem is "
            f"{next(iter(problems), None)!r}): are these the data that the samples were made of?"
        )
    unjudged = [name for name, number in judged.items() if number == 0 and name in problems]
    tallies = {name: Tally(judged[name], right[name]) for name in problems if judged[name]}
    if not tallies:
        raise DataError(
            f"None of the {samples.num_samples:,} samples has a verdict, since the gold answers of their problems are "
            "missing or cannot be read: grade with problems that have answers."
        )
    left_out = {
        "problems that have samples are not in the data": len(strangers),
        "problems have no samples": sum(name not in judged for name in problems),
        "problems have no verdict, since their gold answers cannot be read": len(unjudged),
    }
    notes = [f"{count:,} {why}, and were left out." for why, count in left_out.items() if count]
    made_of = {"num": samples.num_samples, "digest": samples.digest}
    return Graded([problems[name] for name in tallies], tallies, facts, made_of, notes)


def problems_of(data: str, split: str, config: str | None) -> Sequence[Mapping[str, Any]]:
    """Return the problems of a source or of a benchmark."""
    from trl_math.data.load import read_for_style
    from trl_math.evaluation.benchmarks import BENCHMARKS, find_benchmark, load

    if data.partition("=")[0] in BENCHMARKS:
        if split != "train" or config is not None:
            raise UsageError(f"{data} is a benchmark, whose split is known: leave split and data_config out.")
        return list(load(*find_benchmark(data)))
    return list(read_for_style(data, split, config, "plain"))


def with_answers(problems: Sequence[Mapping[str, Any]], where: str) -> tuple[list[Mapping[str, Any]], list[str]]:
    """Return the problems that samples can be judged of, and a note on the others.

    Where there is a solution in which no answer could be read (a program, for one), that is how these data are, and is
    said by source. Where there is nothing to read, it should not be so: more than a few such problems are an error.
    """
    from trl_math.data.load import MAX_GAPS

    there = [row for row in problems if row.get("answer") is not None]
    others = [row for row in problems if row.get("answer") is None]
    unread = Counter(str(row["source"]) for row in others if row.get("solution") is not None)
    gaps = [row["problem_id"] for row in others if row.get("solution") is None]
    if len(gaps) > MAX_GAPS * len(problems):
        raise DataError(
            f"{len(gaps):,} of {len(problems):,} problems of {where} have no gold answer ({gaps[0]!r} for one), and "
            "samples are judged by those: leave such problems out of the data."
        )
    by_source = ", ".join(f"{name}: {count:,}" for name, count in sorted(unread.items()))
    if problems and not there:
        raise DataError(
            f"None of the {len(problems):,} problems of {where} has a gold answer that can be read ({by_source}), and "
            "samples are judged by those."
        )
    notes = [f"{len(gaps):,} problems have no gold answer, and were left out."] if gaps else []
    if unread:
        notes.append(
            f"{unread.total():,} problems have a solution in which no answer can be read, and were left out "
            f"({by_source})."
        )
    return there, notes


def _problems(
    sources: Sequence[Source], data: str | None, split: str, config: str | None
) -> Sequence[Mapping[str, Any]]:
    """Return the problems that were named, else those that lie beside the samples of evaluations."""
    if data is not None:
        return problems_of(data, split, config)
    from trl_math.data.files import read_rows

    files = [source.file.parent / "problems.jsonl" for source in sources if source.file.name == EVALUATED]
    if len(files) < len(sources) or not all(file.is_file() for file in files):
        raise UsageError("Which problems were these samples made of? Set data.")
    return [row for file in files for row in read_rows(file)]


def _sampler_facts(samples: "GradedSamples", sources: Sequence[Source]) -> dict[str, Any]:
    """Return what the samples were drawn with; raise if they are of several models or ways of sampling."""
    known = {name: sampler for source in sources for name, sampler in source.samplers.items()}
    names = list(samples.samplers)
    found = [known[str(name)] for name in names if name in known]
    settings = [{key: value for key, value in one.settings.items() if key not in IMMATERIAL} for one in found]
    for other in settings[1:]:
        keys = sorted(key for key in {**settings[0], **other} if settings[0].get(key) != other.get(key))
        if keys:
            said = ", ".join(f"{key} {settings[0].get(key)!r} and {other.get(key)!r}" for key in keys)
            raise DataError(f"A pass rate is of one model, sampled in one way; these samples have {said}.")
    if len(names) > 1 and len(found) < len(names):
        raise DataError(
            f"These samples are of {len(names)} samplers, and not all of their settings are known: a pass rate is of "
            "one model, sampled in one way. Give the folders that they were drawn into."
        )
    seeds = sorted({one.settings["seed"] for one in found if "seed" in one.settings})
    return {
        "sampler": "|".join(sorted(str(name) for name in names if name is not None)) or None,
        "model": found[0].model if found else None,
        "sampling": {**found[0].settings, "seed": seeds[0] if len(seeds) == 1 else seeds} if found else None,
    }
