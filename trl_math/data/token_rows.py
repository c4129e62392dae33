"""A token file as a data set to train on: columns `input_ids` and `labels` that lie on the files and not in memory.

The ids of a ragged file are the values of the column as they are. The labels are the same values where nothing is
excluded from the loss; else they are written once to the cache of `datasets`, four bytes a token, and mapped from
there. A padded file is written there once without its padding.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import pyarrow as pa
from filelock import FileLock

from trl_math.data.npy import NpyFile, NpyWriter
from trl_math.data.token_files import MadeTokens, Shape, TokenFile
from trl_math.data.token_format import MANIFEST, MASK, OFFSETS, TOKENS, part_of
from trl_math.errors import StoreError


# A column is in pieces whose offsets fit 32 bits, since `datasets` and TRL read lists of that kind everywhere.
MAX_TOKENS_IN_PIECE = 2**30
_MARK = "trl-math token file: "


class Origin(NamedTuple):
    """Which token file the rows of a data set lie on."""

    path: str
    num_rows: int
    num_tokens: int
    num_trained: int
    largest_id: int
    dtype: str
    tokenizer: dict[str, Any] | None  # a TokenizerName, where it is known

    def __str__(self) -> str:
        by = f"{self.tokenizer['name']} ({self.tokenizer['sha256']})" if self.tokenizer else "an unknown tokenizer"
        return f"{self.num_tokens:,} tokens of {by}, {self.num_trained:,} of them in the loss"


def origin_of(rows: Any) -> Origin | None:
    """Return which token file the rows are of, also after some of them were selected; None for other rows."""
    description = getattr(getattr(rows, "info", None), "description", None) or ""
    return Origin(**json.loads(description.removeprefix(_MARK))) if description.startswith(_MARK) else None


def load_token_rows(path: str | Path) -> datasets.Dataset:
    """Return the rows of a token file, with the labels that its mask says."""
    file = TokenFile.open(path)
    origin = _origin(file)
    file = _without_padding(file)
    offsets = file.offsets
    ids = _on_file(file.tokens)
    labels = ids if origin.num_trained == origin.num_tokens else _on_file(_label_file(file))
    table = pa.table({"input_ids": _lists(ids, offsets), "labels": _lists(labels, offsets)})
    info = datasets.DatasetInfo(description=_MARK + json.dumps(origin._asdict()))
    # With a fingerprint of its own the table is not read to make one.
    return datasets.Dataset(datasets.table.InMemoryTable(table), info=info, fingerprint=_key(file))


def with_all_labels(rows: datasets.Dataset) -> datasets.Dataset:
    """Return rows of a token file with a loss on every token, whatever its mask says."""
    table = rows.data.table
    labels = table.schema.get_field_index("labels")
    table = table.set_column(labels, "labels", table.column("input_ids"))
    return datasets.Dataset(
        datasets.table.InMemoryTable(table),
        info=datasets.DatasetInfo(description=rows.info.description),
        indices_table=rows._indices,
        fingerprint=_short(f"{rows._fingerprint} with all labels"),
    )


def is_within(rows: datasets.Dataset, length: int) -> bool:
    """Whether no row of a token file is longer; rows that were left out of a selection count."""
    return all(
        int(np.diff(piece.offsets.to_numpy()).max(initial=0)) <= length
        for piece in rows.data.column("input_ids").chunks
    )


def content_digest(rows: datasets.Dataset) -> str | None:
    """Return a hash of a token file that is a data set as a whole, read from the disk; None for other rows."""
    origin = origin_of(rows)
    if origin is None or rows._indices is not None or len(rows) != origin.num_rows:
        return None
    hashes = TokenFile.open(origin.path).sha256()
    return _short(json.dumps(sorted(hashes.items())))


def cache_folder() -> Path:
    """Return where what is made of token files is kept."""
    return Path(datasets.config.HF_DATASETS_CACHE) / "trl_math_tokens"


def _origin(file: TokenFile) -> Origin:
    facts, name = file.facts, file.tokenizer
    return Origin(
        path=str(part_of(file.prefix, TOKENS).resolve()),
        num_rows=len(file),
        num_tokens=facts["num_tokens"],
        num_trained=facts["num_trained"],
        largest_id=facts["largest_id"],
        dtype=file.tokens.dtype.name,
        tokenizer=name._asdict() if name else None,
    )


def _on_file(file: NpyFile) -> pa.Array:
    """Return the numbers of a file as one flat array that is mapped, not read."""
    with pa.memory_map(str(file.path), "r") as mapped:
        mapped.seek(file.offset)
        buffer = mapped.read_buffer(file.size * file.dtype.itemsize)
    return pa.Array.from_buffers(pa.from_numpy_dtype(file.dtype), file.size, [None, buffer])


def _lists(values: pa.Array, offsets: np.ndarray) -> pa.ChunkedArray:
    """Return rows as lists over the values, in pieces that begin at a row."""
    pieces, first, num_rows = [], 0, len(offsets) - 1
    while first < num_rows:
        start = int(offsets[first])
        last = int(np.searchsorted(offsets, start + MAX_TOKENS_IN_PIECE, side="right")) - 1
        last = min(max(last, first + 1), num_rows)
        ends = pa.array((offsets[first : last + 1] - start).astype(np.int32))
        pieces.append(pa.ListArray.from_arrays(ends, values.slice(start, int(offsets[last]) - start)))
        first = last
    return pa.chunked_array(pieces)


def _without_padding(file: TokenFile) -> TokenFile:
    """Return a file whose rows follow each other without padding: itself, or a copy in the cache."""
    if file.facts["num_tokens"] == file.tokens.size:
        return file
    made = MadeTokens(cache_folder() / _key(file))
    with _one_at_a_time(made.path):
        if not made.is_finished({"file": _key(file)}):
            shape = Shape("ragged", file.tokens.dtype, None, file.pad_id)
            made.write(file.blocks(), shape, lambda: {"tokenizer": None, "made_of": {"file": _key(file)}})
    return TokenFile.open(made.path)


def _label_file(file: TokenFile) -> NpyFile:
    """Return the labels of a file's tokens, written to the cache if they are not there."""
    path = cache_folder() / f"{_key(file)}.labels.npy"
    with _one_at_a_time(path):
        if not path.exists():
            part = path.with_suffix(".part")
            try:
                writer = NpyWriter(part, np.int32)
                for block in file.blocks():
                    writer.append(block.labels())
                writer.finish()
                part.replace(path)
            except OSError as error:
                raise StoreError(f"Cannot write {path}: {error.strerror or error}.") from error
            finally:
                part.unlink(missing_ok=True)
    return NpyFile.open(path, (np.int32,), (1,))


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Let the processes of one training, which all come here, make a file of the cache one after the other."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        lock.acquire()
    except OSError as error:
        raise StoreError(f"Cannot write {path}: {error.strerror or error}.") from error
    try:
        yield
    finally:
        lock.release()


def _key(file: TokenFile) -> str:
    """Return a short name of a file as it is now, for what is made of it in the cache."""
    states: list[Any] = [(file.manifest or {}).get("sha256")]
    for suffix in (TOKENS, MASK, OFFSETS, MANIFEST):
        path = part_of(file.prefix, suffix).resolve()
        if path.exists():
            states.append((str(path), path.stat().st_size, path.stat().st_mtime_ns))
    return _short(repr(states))


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
