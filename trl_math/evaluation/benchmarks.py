"""From the name of a benchmark, or of any source, to the problems that are asked.

    benchmark, path = find_benchmark("gsm8k")                        # from the hub
    benchmark, path = find_benchmark("gsm8k=data/gsm8k/test.jsonl")  # the same set, from a local file
    benchmark, path = find_benchmark("my/problems.jsonl")            # any source of the data room, named by its stem
    problems = load(benchmark, path, max_problems=100)

A problem's id is the name of the benchmark and a hash of the question with its options. So the same problem has the
same id from the hub and from a file, whatever its row and however many are taken, and two runs are never paired by
row numbers that mean different problems. Ad-hoc sources keep the ids that the data room gives them.
"""

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import datasets

from trl_math.data.answers import LETTERS
from trl_math.data.columns import listing
from trl_math.data.files import SUFFIXES, load_path
from trl_math.data.generators import PREFIX
from trl_math.data.problems import ALIASES, to_problems
from trl_math.data.sources import load_source, source_stem
from trl_math.errors import DataError, NotCachedError, UsageError, nearest
from trl_math.evaluation.benchmark_table import BENCHMARKS, Benchmark


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
        return _known(name), path
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
    problems = _to_problems(benchmark, _read(benchmark, path, is_training=False), path)
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
    return _to_problems(benchmark, _read(benchmark, path, is_training=True), path)


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


def _is_local(text: str) -> bool:
    if not text or text in BENCHMARKS or text.startswith(PREFIX):
        return False
    path = Path(text).expanduser()
    return path.suffix in SUFFIXES or text.startswith((".", "/", "~")) or path.exists()


def _ad_hoc(text: str, source: str | None) -> Benchmark:
    stem = source_stem(text).replace("/", "-")
    # Not under the name of a set that is graded in its own way.
    name = f"other-{stem}" if stem in BENCHMARKS else stem
    return Benchmark(name, f"The problems of {text}", "row", source, is_ad_hoc=True)


# ---- Rows ----


def _read(benchmark: Benchmark, path: str | None, *, is_training: bool) -> datasets.Dataset:
    """Return the rows as they are: of the file if there is one, else of the hub or the embedded set."""
    if path is not None:
        return _read_local(Path(path).expanduser(), "train" if is_training else "test")
    split = (benchmark.train_split or "train") if is_training else benchmark.split
    if benchmark.make is not None:
        return datasets.Dataset.from_list(benchmark.make(split))
    if benchmark.source is None:
        raise UsageError(
            f"{benchmark.name} has to be given as a file: {benchmark.name}=path/to/file.jsonl. We know of no data set "
            "on the hub that is the same."
        )
    try:
        parts = [load_source(benchmark.source, split, config, benchmark.files) for config in benchmark.configs]
    except NotCachedError as error:
        if benchmark.is_ad_hoc:
            raise
        raise NotCachedError(f"{error} As a benchmark: {benchmark.name}=path/to/file.jsonl.") from error
    return datasets.concatenate_datasets(parts) if len(parts) > 1 else parts[0]


def _read_local(path: Path, split: str) -> datasets.Dataset:
    """Read a file, or a split of a folder; a folder without splits is read as a whole."""
    stems = {file.stem.split("-")[0] for file in path.iterdir()} if path.is_dir() else set()
    return load_path(path, split if stems & {"train", "validation", "test"} else "train")


def _to_problems(benchmark: Benchmark, rows: datasets.Dataset, path: str | None) -> datasets.Dataset:
    source = path or benchmark.source or benchmark.name
    problems = to_problems(_prepared(benchmark, rows, source), source)
    if benchmark.kind == "choice" and "choices" not in problems.column_names:
        raise DataError(
            f"No options in {source!r}, and {benchmark.name} is multiple choice. Found: {listing(rows.column_names)}. "
            f"Expected a column {' or '.join(ALIASES['choices'])}."
        )
    kinds = [benchmark.kind] * len(problems) if benchmark.kind != "row" else list(problems["answer_kind"])
    columns: dict[str, list[Any]] = {name: list(problems[name]) for name in problems.column_names}
    columns["answer"] = [_plain(answer, kind) for answer, kind in zip(columns["answer"], kinds, strict=True)]
    columns["answer_kind"] = kinds
    if not benchmark.is_ad_hoc:
        choices = columns.get("choices") or [None] * len(problems)
        columns["problem_id"] = _ids(benchmark.name, zip(columns["problem"], choices, strict=True))
    return datasets.Dataset.from_dict(columns, features=problems.features)


def _prepared(benchmark: Benchmark, rows: datasets.Dataset, source: str) -> datasets.Dataset:
    if benchmark.prepare is None or len(rows) == 0:
        return rows
    prepared = [row for each in rows if (row := benchmark.prepare(dict(each))) is not None]
    if not prepared:
        raise DataError(f"No row of {source!r} is a problem of {benchmark.name}: {benchmark.description}.")
    names = dict.fromkeys(name for row in prepared for name in row)
    return datasets.Dataset.from_dict({name: [row.get(name) for row in prepared] for name in names}, split=rows.split)


def _plain(answer: str | None, kind: str) -> str | None:
    """Return a whole number without the `.0` that some sets write."""
    return re.sub(r"(?<=\d)\.0+$", "", answer) if answer and kind == "number" else answer


def _ids(name: str, questions: Iterable[tuple[str, list[str] | None]]) -> list[str]:
    """Return `<name>/<hash>`; a problem that occurs twice has `-2` behind it the second time."""
    seen: Counter[str] = Counter()
    ids = []
    for problem, choices in questions:
        problem_id = f"{name}/{_digest([problem, *(choices or [])])}"
        seen[problem_id] += 1
        ids.append(problem_id if seen[problem_id] == 1 else f"{problem_id}-{seen[problem_id]}")
    return ids


def _digest(texts: list[Any]) -> str:
    """Return a hash of texts that does not depend on how they are spaced."""
    return hashlib.sha256(json.dumps([" ".join(str(text).split()) for text in texts]).encode()).hexdigest()[:12]


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
    ranked = sorted(range(len(problems)), key=lambda index: _digest([seed, ids[index]]))
    return problems.select(sorted(ranked[:max_problems]))
