"""Token files: read without loading them, written whole or not at all. `token_format` says what they are."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from trl_math.data.npy import NpyFile, NpyWriter
from trl_math.data.token_blocks import NUM_TOKENS, Block, Counts
from trl_math.data.token_format import (
    ARRAYS,
    FORMAT,
    MANIFEST,
    MASK,
    MASK_MEANING,
    OFFSETS,
    REAL,
    TOKENS,
    TokenizerName,
    part_of,
    prefix_of,
    read_manifest,
    tokenizer_in,
)
from trl_math.errors import DataError, RunFolderError, StoreError
from trl_math.files import nearest_path, write_json
from trl_math.run_folder import differences, hold_lock


@dataclass(frozen=True)
class TokenFile:
    """A token file that was found to be whole. Nothing of it is in memory but what is asked for."""

    prefix: Path
    tokens: NpyFile
    mask: NpyFile | None  # without one, as the original reads it, all tokens are real and none is excluded
    offsets: np.ndarray  # (N + 1,), of ragged rows or of rows that are all of one length
    manifest: dict[str, Any] | None  # files of the original have none

    @classmethod
    def open(cls, path: str | Path) -> "TokenFile":
        """Open `X.tok` (or `X`) and what lies beside it; raise a `DataError` that names what is broken."""
        prefix = prefix_of(path)
        file = part_of(prefix, TOKENS)
        if not file.is_file():
            raise DataError(f"No token file {str(file)!r}.{nearest_path(file)}")
        tokens = NpyFile.open(file, (np.uint16, np.uint32), (1, 2))
        mask = None
        if part_of(prefix, MASK).exists():
            mask = NpyFile.open(part_of(prefix, MASK), (np.int8, np.uint8), (len(tokens.shape),))
            if mask.shape != tokens.shape:
                raise DataError(f"{mask.path} has the shape {mask.shape} and {file} {tokens.shape}: they do not fit.")
        manifest = read_manifest(prefix)
        found = cls(prefix, tokens, mask, _offsets(prefix, tokens), manifest)
        if len(found) == 0:
            raise DataError(f"{file} has no rows.")
        found._check_manifest()
        return found

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def layout(self) -> str:
        return "padded" if len(self.tokens.shape) == 2 else "ragged"

    @property
    def max_length(self) -> int | None:
        """The length of padded rows."""
        return self.tokens.shape[1] if self.layout == "padded" else None

    @property
    def tokenizer(self) -> TokenizerName | None:
        """Whose ids these are, if that is known."""
        return tokenizer_in(self.manifest)

    def row(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the real tokens of a row, and their masks."""
        start, stop = (int(place) for place in self.offsets[range(len(self))[index] :][:2])
        block = self._block(index % len(self), 1, start, stop)
        return block.ids, block.mask

    def blocks(self, num_tokens: int = NUM_TOKENS) -> Iterator[Block]:
        """Yield all rows, about so many tokens at a time, without their padding."""
        first = 0
        while first < len(self):
            start = int(self.offsets[first])
            last = int(np.searchsorted(self.offsets, start + num_tokens, side="right")) - 1
            last = min(max(last, first + 1), len(self))
            yield self._block(first, last - first, start, int(self.offsets[last]))
            first = last

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Sizes and the largest id: as the manifest says, or as counted over all rows."""
        if self.manifest is not None:
            return {name: self.manifest[name] for name in Counts().as_facts()}
        counts = Counts()
        for _ in counts.over(self.blocks()):
            pass
        return counts.as_facts()

    @cached_property
    def pad_id(self) -> int | None:
        """The id that stands in the padding, where it is known: of the first padded row."""
        if self.manifest is not None:
            return self.manifest["pad_id"]
        if self.layout == "ragged" or self.mask is None:
            return None
        mask = self.mask.mapped()
        row = next((row for row in range(len(self)) if not mask[row, -1] & REAL), None)
        return None if row is None else int(self.tokens.mapped()[row, -1])

    def sha256(self) -> dict[str, str]:
        """Return the hashes of the arrays, read from beginning to end; raise if the manifest has others."""
        found = {suffix: sha256(part_of(self.prefix, suffix)) for suffix in ARRAYS}
        present = {suffix: digest for suffix, digest in found.items() if digest is not None}
        if self.manifest is not None and present != self.manifest["sha256"]:
            wrong = next(name for name in ARRAYS if found[name] != self.manifest["sha256"].get(name))
            raise DataError(f"{part_of(self.prefix, wrong)} is not as it was written: make the token file again.")
        return present

    def _block(self, first: int, num_rows: int, start: int, stop: int) -> Block:
        ids = self.tokens.read(start, stop)
        mask = np.full(len(ids), REAL, np.int8) if self.mask is None else self.mask.read(start, stop).view(np.int8)
        if self.layout == "padded":
            shape = (num_rows, self.tokens.shape[1])
            where = f"{part_of(self.prefix, MASK)}, rows {first} to {first + num_rows - 1},"
            return Block.of_padded(ids.reshape(shape), mask.reshape(shape), where)
        if not (mask & REAL).all():
            raise DataError(f"{part_of(self.prefix, MASK)} has padding, and ragged rows have none.")
        return Block(ids, mask, np.diff(self.offsets[first : first + num_rows + 1]))

    def _check_manifest(self) -> None:
        if self.manifest is None:
            return
        found = {"layout": self.layout, "dtype": self.tokens.dtype.name, "num_rows": len(self)}
        said = {name: self.manifest[name] for name in found}
        if said != found:
            raise DataError(
                f"{part_of(self.prefix, MANIFEST)} is of another file ({differences(said, found)}): make it again."
            )


def _offsets(prefix: Path, tokens: NpyFile) -> np.ndarray:
    """Return where rows begin and end among all tokens, padding included."""
    path = part_of(prefix, OFFSETS)
    is_padded = len(tokens.shape) == 2
    expected = np.arange(tokens.shape[0] + 1, dtype=np.int64) if is_padded else None
    if expected is None or path.exists():
        index = NpyFile.open(path, (np.int64,), (1,)).mapped()
        fits = np.array_equal(index, expected) if expected is not None else _are_offsets(index, tokens.size)
        if not fits:
            raise DataError(
                f"{path} does not fit {part_of(prefix, TOKENS).name}, which has {tokens.size:,} ids"
                f"{f' in {tokens.shape[0]:,} rows' if is_padded else ''}: make the token file again."
            )
        if expected is None:
            return index
    assert expected is not None
    return expected * tokens.shape[1]


def _are_offsets(index: np.ndarray, size: int) -> bool:
    """Whether these begin at 0, end at `size`, and never go back."""
    return bool(len(index) and index[0] == 0 and index[-1] == size and (index[1:] >= index[:-1]).all())


@dataclass(frozen=True)
class Shape:
    """How rows are to be written."""

    layout: str
    dtype: np.dtype
    max_length: int | None = None  # of padded rows
    pad_id: int | None = None  # where rows are ragged, what their padding would be


@dataclass(frozen=True)
class MadeTokens:
    """A token file that a command makes: written beside its place and moved there whole, or not at all."""

    prefix: Path

    @property
    def path(self) -> Path:
        """The file that the whole is named by."""
        return part_of(self.prefix, TOKENS)

    def hold(self) -> AbstractContextManager[None]:
        """Keep other processes out while the file is made."""
        return hold_lock(self.path.with_name(f".{self.path.name}.lock"), f"making {self.path}", self.path)

    def is_finished(self, made_of: Mapping[str, Any]) -> bool:
        """Whether the file is made of this already; raise if it is something else."""
        manifest = read_manifest(self.prefix)
        if manifest is None:
            there = [path for suffix in ARRAYS if (path := part_of(self.prefix, suffix)).exists()]
            if there:
                name = part_of(self.prefix, MANIFEST).name
                raise RunFolderError(f"{there[-1]} exists, and no {name} says what it is: choose another output.")
            return False
        if not self.path.exists():
            return False  # its process was killed behind the manifest
        before, wanted = manifest.get("made_of") or {}, json.loads(json.dumps(made_of))
        if found := differences(before, wanted):
            raise RunFolderError(
                f"{self.path} is made of something else ({found}): choose another output, or remove it."
            )
        TokenFile.open(self.path).sha256()
        return True

    def write(self, blocks: Iterable[Block], shape: Shape, facts: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Write rows as they come, and return the manifest. `facts` are asked for when all rows have come."""
        part = self.path.with_name(f".{self.path.name}.part")
        counts = Counts()
        try:
            shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
            part.mkdir(parents=True)
            _write_arrays(counts.over(blocks), shape, part / self.prefix.name)
            manifest = {
                "command": "tokenize",
                "format": FORMAT,
                "layout": shape.layout,
                "dtype": shape.dtype.name,
                "max_length": shape.max_length,
                "pad_id": shape.pad_id,
                **counts.as_facts(),
                "mask": MASK_MEANING,
                **facts(),
                "sha256": {suffix: sha256(part_of(part / self.prefix.name, suffix)) for suffix in ARRAYS},
            }
            write_json(part_of(part / self.prefix.name, MANIFEST), manifest)
            # Old ids go first and new ones come last, so that what is there in between is no token file.
            for suffix in reversed(ARRAYS):
                part_of(self.prefix, suffix).unlink(missing_ok=True)
            for suffix in (MANIFEST, *ARRAYS):
                part_of(part / self.prefix.name, suffix).replace(part_of(self.prefix, suffix))
        except OSError as error:
            raise StoreError(f"Cannot write {self.path}: {error.strerror or error}. Nothing of it is left.") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return manifest


def _write_arrays(blocks: Iterable[Block], shape: Shape, prefix: Path) -> None:
    length, pad_id = shape.max_length or 0, shape.pad_id or 0
    row_shape = (length,) if shape.layout == "padded" else ()
    writers = [
        NpyWriter(part_of(prefix, TOKENS), shape.dtype, row_shape),
        NpyWriter(part_of(prefix, MASK), np.int8, row_shape),
        NpyWriter(part_of(prefix, OFFSETS), np.int64),
    ]
    tokens, mask, offsets = writers
    try:
        end = np.zeros(1, np.int64)
        offsets.append(end)
        for block in blocks:
            _check_ids(block, shape)
            if shape.layout == "padded":
                ids, bits = block.padded(length, pad_id, shape.dtype)
                ends = end[-1] + 1 + np.arange(len(block.lengths))
            else:
                ids, bits, ends = block.ids, block.mask, end[-1] + np.cumsum(block.lengths)
            tokens.append(ids)
            mask.append(bits)
            offsets.append(ends)
            end = ends
        for writer in writers:
            writer.finish()
    finally:
        for writer in writers:
            writer.close()


def _check_ids(block: Block, shape: Shape) -> None:
    """Raise for ids that the type of the file does not hold: they would wrap around."""
    largest, smallest = int(block.ids.max(initial=0)), int(block.ids.min(initial=0))
    limit = int(np.iinfo(shape.dtype).max)
    if smallest < 0 or largest > limit:
        raise DataError(
            f"The id {smallest if smallest < 0 else largest} does not fit {shape.dtype.name} (0 to {limit:,})."
        )
    longest = int(block.lengths.max(initial=0))
    if shape.max_length is not None and longest > shape.max_length:
        raise DataError(
            f"A row has {longest} tokens, and rows are to be padded to {shape.max_length}: raise max_length."
        )


def sha256(path: Path) -> str | None:
    """Return a file's hash, or None if there is no such file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
