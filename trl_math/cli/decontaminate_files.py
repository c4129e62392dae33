"""What a folder of `trl-math decontaminate` holds: clean rows, matches, what is known of items and rows, a page."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets

from trl_math.cli.decontaminate_detectors import Looking
from trl_math.contamination.leak_counts import CLEAN, LEAKED, UNKNOWN, States, agreements, bounds, states, together
from trl_math.contamination.leak_rows import Side, item_rows, match_rows, removed_rows
from trl_math.contamination.leaks import Ran
from trl_math.contamination.outcomes import is_unknown
from trl_math.contamination.sources import Source
from trl_math.data.benchmark_table import BENCHMARKS
from trl_math.data.files import MADE_FILES, SUFFIXES, json_rows
from trl_math.data.sources import PREFIXES
from trl_math.errors import DataError
from trl_math.files import write_json


if TYPE_CHECKING:
    from trl_math.cli.decontaminate_settings import Asked
    from trl_math.data.made_folder import Content


# What `datasets` writes beside the columns that it saves.
STATE_FILES = ("state", "dataset_info", "dataset_dict")


def files_of(
    asked: "Asked", looking: Looking, ran: Sequence[Ran], tests: Side, trains: Side
) -> tuple[dict[str, "Content"], dict[str, Any], Callable[[Path], None]]:
    """Return the files of rows, what the manifest says, and what writes the rest of the folder."""
    counted = [one for one in ran if one.name in looking.counted]
    items = together([states(one.matches, "test", len(tests.texts)) for one in counted], len(tests.texts))
    rows = together([states(one.matches, "train", len(trains.texts)) for one in counted], len(trains.texts))
    summary = summary_of(looking, ran, tests, trains, items, rows)
    matches = list(match_rows(counted, tests, trains))
    name, clean = clean_file(trains, rows, asked.sides.split)
    files: dict[str, Content] = {
        name: clean,
        "matches.jsonl": matches,
        "test_items.jsonl": item_rows(counted, tests, trains, items),
        "train_rows.jsonl": removed_rows(counted, tests, trains),
    }
    facts = {
        "clean": name,
        "num_rows": summary["train_rows"]["num_kept"],
        "num_removed": summary["train_rows"]["num_removed"],
        "num_not_answered": sum(
            match.evidence.get("reason") == "not_answered" for one in counted for match in one.matches
        ),
    }
    return files, facts, partial(_draw, summary, matches, asked.gate.examples)


def _draw(summary: Mapping[str, Any], matches: Sequence[Mapping[str, Any]], num_examples: int, folder: Path) -> None:
    from trl_math.reporting.contamination_page import write_page

    write_json(folder / "summary.json", summary)
    write_page(summary, matches, folder / "report.html", num_examples)


def summary_of(
    looking: Looking, ran: Sequence[Ran], tests: Side, trains: Side, items: States, rows: States
) -> dict[str, Any]:
    """Return everything that is counted, as `summary.json` has it."""
    by_item = {one.name: states(one.matches, "test", len(tests.texts)) for one in ran}
    by_row = {one.name: states(one.matches, "train", len(trains.texts)) for one in ran}
    num_removed, num_rows = int((rows != CLEAN).sum()), sum(len(source.rows) for source in trains.sources)
    return {
        "benchmarks": {
            source.name: _benchmark(number, tests, items, by_item) for number, source in enumerate(tests.sources)
        },
        "train_rows": {
            "num": num_rows,
            "num_removed": num_removed,
            "num_unknown": int((rows == UNKNOWN).sum()),
            "num_kept": num_rows - num_removed,
            "removed": bounds(rows),
        },
        "detectors": {
            one.name: {
                "counts": one.name in looking.counted,
                "threshold": one.threshold,
                "num_pairs": len(one.matches),
                "num_unknown_pairs": sum(map(is_unknown, one.matches)),
                "num_test_items": int((by_item[one.name] == LEAKED).sum()),
                "num_alone": _num_alone(one.name, looking, by_item),
                "num_train_rows": int((by_row[one.name] == LEAKED).sum()),
                "seconds": one.seconds,
            }
            for one in ran
        },
        "left_out": looking.absent,
        "agreement": agreements(by_item),
        "sources": {
            "data": [_facts(source) for source in trains.sources],
            "against": [_facts(source) for source in tests.sources],
        },
    }


def _num_alone(name: str, looking: Looking, by_item: Mapping[str, States]) -> int:
    """Return how many items no other detector that counts has found."""
    others = [found for other, found in by_item.items() if other != name and other in looking.counted]
    return int(((by_item[name] == LEAKED) & (together(others, len(by_item[name])) != LEAKED)).sum())


def _benchmark(number: int, tests: Side, items: States, by_item: Mapping[str, States]) -> dict[str, Any]:
    mine = [place for place, (source, _) in enumerate(tests.places) if source == number]
    return {
        "num": len(mine),
        "contaminated": bounds(items[mine]),
        "by_detector": {name: bounds(found[mine]) for name, found in by_item.items()},
    }


def _facts(source: Source) -> dict[str, Any]:
    return {"name": source.name, **source.texts.facts}


# ---- The clean rows ----


def clean_file(trains: Side, rows: States, split: str) -> tuple[str, "Content"]:
    """Return the name of the file of clean rows, and what is in it: what was Parquet, or on the hub, is Parquet."""
    removed: dict[int, set[int]] = {number: set() for number in range(len(trains.sources))}
    for place in (rows != CLEAN).nonzero()[0].tolist():
        removed[trains.places[place][0]].add(trains.row(place))
    is_alike = all(source.rows.features == trains.sources[0].rows.features for source in trains.sources)
    if is_alike and any(is_columnar(source.name) for source in trains.sources):
        kept = [
            source.rows.select([row for row in range(len(source.rows)) if row not in removed[number]])
            for number, source in enumerate(trains.sources)
        ]
        return "clean.parquet", datasets.concatenate_datasets(kept).to_parquet
    return "clean.jsonl", _kept_rows(trains.sources, removed, split)


def _kept_rows(sources: Sequence[Source], removed: Mapping[int, set[int]], split: str) -> Iterator[Mapping[str, Any]]:
    """Yield the clean rows of all sources: those of JSON files as these have them, each with its own columns."""
    for number, source in enumerate(sources):
        path = Path(source.name).expanduser()
        own = json_rows(path, split) if path.exists() and not is_columnar(source.name) else None
        if own is not None and len(own) != len(source.rows):
            raise DataError(f"{source.name} was changed while it was read: give the same command again.")
        if own is None:
            _check_json(source)
        for row, content in enumerate(source.rows if own is None else own):
            if row not in removed[number]:
                yield content


def _check_json(source: Source) -> None:
    """Raise if rows of typed columns cannot stand beside those of other sources."""
    try:
        json.dumps(source.rows[0])
    except (TypeError, ValueError) as error:
        raise DataError(
            f"The rows of {source.name} cannot be written as JSON ({error}), which rows of several kinds of sources "
            "are: give it alone, and its clean rows are Parquet again."
        ) from error


def is_columnar(name: str) -> bool:
    """Whether a source has typed columns: Parquet, what `datasets` saved, and the hub."""
    path = Path(name).expanduser()
    if path.is_dir():
        made = next((path / rows for manifest, rows in MADE_FILES.items() if (path / manifest).exists()), None)
        if made is not None:
            return made.with_suffix(".parquet").exists()
        return not any(file.suffix in (".jsonl", ".json") and file.stem not in STATE_FILES for file in path.rglob("*"))
    if path.suffix in SUFFIXES:
        return path.suffix == ".parquet"
    return not name.startswith(PREFIXES) and name.partition("=")[0] not in BENCHMARKS
