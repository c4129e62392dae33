"""From the name of a benchmark, or of any source, to the problems that are asked.

    benchmark, path = find_benchmark("gsm8k")                        # from the hub
    benchmark, path = find_benchmark("gsm8k=data/gsm8k/test.jsonl")  # the same set, from a local file
    benchmark, path = find_benchmark("my/problems.jsonl")            # any source of the data room, named by its stem
    problems = load(benchmark, path, max_problems=100)

How rows are read, and what a problem's id is, stands in `data.benchmark_problems`.
"""

import logging
import re
from pathlib import Path

import datasets

from trl_math.data.answers import LETTERS
from trl_math.data.benchmark_problems import digest_of, read_benchmark
from trl_math.data.benchmark_table import BENCHMARKS, Benchmark
from trl_math.data.columns import listing
from trl_math.data.files import SUFFIXES
from trl_math.data.generators import PREFIX
from trl_math.data.sources import PREFIXES, source_stem
from trl_math.errors import UsageError, nearest


logger = logging.getLogger(__name__)


def find_benchmark(text: str) -> tuple[Benchmark, str | None]:
    """Return the benchmark that a text names, and the local file to read it from, if it names one.

    A benchmark's name comes first: for a folder that has the same, write `./math`. The hub name of a benchmark's
    source is that benchmark; every other source is an ad-hoc benchmark, whose rows say how they are graded.
    """
    text = text.strip()
    name, equals, path = text.partition("=")
    if equals and re.fullmatch(r"[\w-]*", name):
        if not path:
            raise UsageError(f"{text!r} names no file: write {name}=path/to/file.jsonl, or {name} for the hub.")
        if name not in BENCHMARKS:
            raise UsageError(
                f"Unknown benchmark {name!r}.{nearest(name.lower(), BENCHMARKS)} Only known ones are read as "
                f"name=file; problems of your own are named by their file alone: {_file_of(path)}"
            )
        return BENCHMARKS[name], path
    if _is_local(text):
        return _ad_hoc(text, None), text
    if "/" in text or ":" in text:
        return _of_source(text) or _ad_hoc(text, text), None
    return _known(text), None


def load(
    benchmark: Benchmark, path: str | None = None, max_problems: int | None = None, seed: int | None = None
) -> datasets.Dataset:
    """Return the problems of a benchmark, in the columns of `columns.PROBLEMS`.

    `path`: a file or folder to read instead of the hub, as the hub or the set's own repository has it, or in our
    columns. `max_problems` takes the first ones; with `seed`, as many drawn at random, in the order of the set. A
    number of problems that is not the published one is a warning.
    """
    if max_problems is not None and max_problems < 1:
        raise UsageError(f"max_problems must be at least 1, got {max_problems}; leave it out for all problems.")
    if seed is not None and max_problems is None:
        raise UsageError(f"seed={seed} draws problems for max_problems, which is not set: set it, or leave out seed.")
    problems = read_benchmark(benchmark, path)
    _check(benchmark, problems, path)
    return problems if max_problems is None else _take(problems, max_problems, seed)


def load_shots(benchmark: Benchmark, path: str | None = None) -> datasets.Dataset:
    """Return solved problems that prompts may begin with, for `data.shots.choose_shots`: never the test set.

    `path`: a file of training problems. Give `choose_shots` all test problems to leave out, also those that
    `max_problems` cuts off: MATH's training set has four of its test problems, spaced otherwise.
    """
    if path is None and benchmark.train_split is None:
        if benchmark.shots_from is None:
            raise UsageError(
                f"{benchmark.name} has no training problems: name a source of solved problems with shots_data."
            )
        return load_shots(BENCHMARKS[benchmark.shots_from])
    return read_benchmark(benchmark, path, is_training=True)


# ---- Names ----


def _known(name: str) -> Benchmark:
    if name not in BENCHMARKS:
        raise UsageError(
            f"Unknown benchmark {name!r}.{nearest(name.lower(), BENCHMARKS)} Known: {listing(BENCHMARKS)}; or give "
            f"a {listing(SUFFIXES)} file, a folder of them, a hub name (owner/name) or {PREFIX}<generator>."
        )
    return BENCHMARKS[name]


def _of_source(source: str) -> Benchmark | None:
    named = [benchmark for benchmark in BENCHMARKS.values() if benchmark.source == source]
    if len(named) > 1:
        names = listing(benchmark.name for benchmark in named)
        raise UsageError(f"{source!r} is the source of several benchmarks: name one of {names}.")
    return named[0] if named else None


def _file_of(path: str) -> str:
    """Return the file that is meant by a path: of a folder with sides, its test problems."""
    file = Path(path, "test.jsonl")
    return str(file) if file.expanduser().is_file() else path


def _is_local(text: str) -> bool:
    if not text or text in BENCHMARKS or text.startswith(PREFIXES):
        return False
    path = Path(text).expanduser()
    return path.suffix in SUFFIXES or text.startswith((".", "/", "~")) or path.exists()


def _ad_hoc(text: str, source: str | None) -> Benchmark:
    stem = source_stem(text).replace("/", "-")
    # Not under the name of a set that is graded in its own way.
    name = f"other-{stem}" if stem in BENCHMARKS else stem
    return Benchmark(name, f"The problems of {text}", "row", source, is_ad_hoc=True)


# ---- What is asked ----


def _check(benchmark: Benchmark, problems: datasets.Dataset, path: str | None) -> None:
    """Warn of what makes a number of this set another one than published."""
    where = path or benchmark.source or "the embedded set"
    if benchmark.num_problems not in (None, len(problems)):
        logger.warning(
            "%s has %d problems as published, and %d in %s.",
            benchmark.name,
            benchmark.num_problems,
            len(problems),
            where,
        )
    choices = problems["choices"] if "choices" in problems.column_names else [None] * len(problems)
    answers = zip(problems["answer"], problems["answer_kind"], choices, strict=True)
    if num_bad := sum(not _is_answer(*each) for each in answers):
        logger.warning(
            "%d of %d problems of %s have no answer that can be read in %s; nothing is graded as correct for them.",
            num_bad,
            len(problems),
            benchmark.name,
            where,
        )


def _is_answer(answer: str | None, kind: str, choices: list[str] | None) -> bool:
    if answer is None or kind != "choice" or not choices:
        return answer is not None
    return answer in LETTERS[: len(choices)] or answer in choices


def _take(problems: datasets.Dataset, max_problems: int, seed: int | None) -> datasets.Dataset:
    """Return the first problems, or those whose hash with the seed is lowest: more of them include these."""
    if seed is None:
        return problems.select(range(min(max_problems, len(problems))))
    ids = problems["problem_id"]
    ranked = sorted(range(len(problems)), key=lambda index: digest_of([seed, ids[index]]))
    return problems.select(sorted(ranked[:max_problems]))
