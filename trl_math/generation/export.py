"""A folder of samples as one table: a `datasets.Dataset`, Parquet or JSON lines, in the order of problems."""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.fingerprint import generate_random_fingerprint

from trl_math.data.columns import COMPLETIONS
from trl_math.errors import DataError, RunFolderError, StoreError, UsageError
from trl_math.generation.sample_files import FILE_NAME, read_rows, unique_rows
from trl_math.generation.store import read_manifest


# Rows turned into columns at a time: what Python holds of a large folder.
CHUNK = 20_000

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
TYPES = {
    "problem_id": pa.string(),
    "sample_index": pa.int64(),
    "completion": pa.string(),
    "completion_ids": pa.list_(pa.int64()),
    "num_tokens": pa.int64(),
    "logprob": pa.float64(),
    "finish_reason": pa.string(),
    "sampler": pa.string(),
    "token_logprobs": pa.list_(pa.float64()),
    "tool_spans": pa.list_(pa.list_(pa.int64())),
}


def to_dataset(folder: str | Path) -> datasets.Dataset:
    """Return all samples of a folder, sorted by problem (numbers in ids as numbers) and sample."""
    tables: list[pa.Table] = []
    keys: list[tuple[Any, ...]] = []
    for rows in _chunks(row for _, _, row in unique_rows(folder)):
        keys += [(_natural(row["problem_id"]), row["problem_id"], row["sample_index"]) for row in rows]
        tables.append(_table(rows))
    if not tables:
        raise DataError(f"There are no samples in {folder}.")
    # A sample of a prompt that does not fit the context lacks what others may have.
    table = pa.concat_tables(tables, promote_options="default")
    order = sorted(range(len(keys)), key=keys.__getitem__)
    # Arrow's `take`, and the fingerprint that `datasets` would make, put a column into one piece: of 2 GiB at most.
    rows = datasets.Dataset(table, fingerprint=generate_random_fingerprint())
    return rows.select(order)


def export(folder: str | Path, path: str | Path) -> int:
    """Write the samples of a folder to a .parquet or .jsonl file, whole or not at all; return how many.

    A file that is there is replaced if it is an earlier export of the folder.
    """
    target = Path(path)
    check_export(target, folder)
    rows = to_dataset(folder)
    temporary = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _write(rows, temporary, target.suffix)
        temporary.replace(target)
    except OSError as error:
        raise StoreError(f"Cannot write {target}: {error.strerror or error}. The samples are in {folder}.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return len(rows)


def _write(rows: datasets.Dataset, file: Path, suffix: str) -> None:
    if suffix == ".parquet":
        rows.to_parquet(file)
        return
    with file.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def check_export(target: Path, folder: str | Path) -> None:
    """Raise unless the samples of a folder may be written to this file."""
    if target.suffix not in (".parquet", ".jsonl"):
        raise UsageError(f"export must end in .parquet or .jsonl, got {target}.")
    if FILE_NAME.fullmatch(target.name) and target.parent.resolve() == Path(folder).resolve():
        raise UsageError(f"export {target} is the name of a file of samples in that folder: choose another name.")
    if target.exists() and not _is_export_of(target, Path(folder)):
        raise RunFolderError(f"{target} exists and is no export of {folder}: choose another name, or remove it.")


def _is_export_of(file: Path, folder: Path) -> bool:
    """Whether a file's first row is a sample of this folder.

    Its sampler alone does not tell: samples of other problems may be drawn with the same settings.
    """
    try:
        first = _first_row(file)
        key = [first[column] for column in ("sampler", "problem_id", "sample_index", "completion")]
    except (OSError, ValueError, KeyError, TypeError, StopIteration, pa.ArrowException):
        return False  # something else
    if key[0] != read_manifest(folder).get("sampler"):
        return False
    names = ("problem_id", "sample_index", "completion")
    return any([row[name] for name in names] == key[1:] for _, _, row in read_rows(folder))


def _first_row(file: Path) -> Any:
    if file.suffix == ".parquet":
        with pq.ParquetFile(file) as table:
            return next(table.iter_batches(batch_size=1)).to_pylist()[0]
    with file.open(encoding="utf-8") as lines:
        return json.loads(next(lines))


def _chunks(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    chunk: list[dict[str, Any]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    schema = _schema(rows)
    try:
        return pa.Table.from_pylist(rows, schema=schema)
    except UnicodeEncodeError:  # half a surrogate pair, which Arrow's texts cannot hold
        text = re.sub("[\ud800-\udfff]", "\ufffd", json.dumps(rows, ensure_ascii=False))
        return pa.Table.from_pylist(json.loads(text), schema=schema)


def _schema(rows: Sequence[Mapping[str, Any]]) -> pa.Schema:
    prompt = pa.string() if isinstance(rows[0]["prompt"], str) else MESSAGES
    types, found = TYPES | {"prompt": prompt}, set().union(*rows)
    return pa.schema([(column, types[column]) for column in COMPLETIONS.columns if column in found])


def _natural(text: str) -> tuple[Any, ...]:
    """Sort `gsm8k/2` before `gsm8k/10`."""
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text))
