"""The two sides by their names: what is trained on, row by row, and what tests.

What tests is a benchmark by its name, or a file of it (`gsm8k=FILE`), or any other source, whose rows are read as they
are. What is trained on is any source; a benchmark by its name serves as well, so that benchmarks are compared with
each other.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import datasets

from trl_math.contamination.texts import Texts, read_texts, row_ids
from trl_math.data.benchmark_table import BENCHMARKS
from trl_math.data.files import SUFFIXES
from trl_math.data.load import digest, load_split
from trl_math.data.sources import PREFIXES
from trl_math.errors import DataError, UsageError
from trl_math.evaluation.benchmarks import find_benchmark, load


class Source(NamedTuple):
    """One source of a side."""

    name: str
    rows: datasets.Dataset
    texts: Texts
    numbers: Sequence[int]  # of each text: the number of its row
    digest: str


def read_training(names: Sequence[str], split: str, config: str | None, part: str) -> list[Source]:
    """Return what is trained on."""
    return [
        _source(name, _benchmark(name) if _is_benchmark(name) else load_split(name, split, config), part)
        for name in _once(names, "data")
    ]


def read_tests(names: Sequence[str], split: str, part: str) -> list[Source]:
    """Return what tests. Of a source that has no split of this name, the rows that are not divided."""
    sources = [_source(name, _tests(name, split), part) for name in _once(names, "against")]
    titles = title_of([source.name for source in sources])
    return [source._replace(name=title) for source, title in zip(sources, titles, strict=True)]


def title_of(names: Sequence[str]) -> list[str]:
    """Return short names of sources, as long as they differ: a benchmark's name, or the source itself."""
    short = [name.partition("=")[0] if _is_benchmark(name) else name for name in names]
    return [one if short.count(one) == 1 else name for one, name in zip(short, names, strict=True)]


def _once(names: Sequence[str], setting: str) -> Sequence[str]:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"{setting} has {twice!r} twice: name each source once.")
    return names


def _source(name: str, rows: datasets.Dataset, part: str) -> Source:
    if not len(rows):
        raise DataError(f"{name!r} has no rows: there is nothing to compare.")
    texts = read_texts(rows, part, name)
    if not texts.ids:
        raise DataError(f"All {len(rows):,} rows of {name!r} have an empty text: there is nothing to compare.")
    numbers: Sequence[int] = range(len(rows))
    if texts.facts["num_empty"]:
        places = {row_id: number for number, row_id in enumerate(row_ids(rows))}
        numbers = [places[row_id] for row_id in texts.ids]
    return Source(name, rows, texts, numbers, digest(rows))


def _is_benchmark(name: str) -> bool:
    return name.partition("=")[0] in BENCHMARKS


def _benchmark(name: str) -> datasets.Dataset:
    return load(*find_benchmark(name))


def _tests(name: str, split: str) -> datasets.Dataset:
    if _is_benchmark(name):
        return _benchmark(name)
    path = Path(name).expanduser()
    if path.exists() or path.suffix in SUFFIXES or name.startswith((*PREFIXES, ".", "/", "~")):
        return load_split(name, _split_of(path, split), None)
    benchmark, file = find_benchmark(name)  # raises for a name that is none, and says which is near
    return load_split(name, split, None) if benchmark.is_ad_hoc else load(benchmark, file)


def _split_of(path: Path, split: str) -> str:
    """Return the split to read of a local source; a folder without that split may be one set as a whole."""
    if not path.is_dir() or (path / "dataset_dict.json").exists():
        return split
    stems = {file.stem.split("-")[0] for file in path.rglob("*") if file.suffix in SUFFIXES}
    return split if split in stems else "train"
