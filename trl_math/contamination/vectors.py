"""Vectors that are kept: a text that was embedded once, by this model, is not embedded again.

    vectors/<embedder>/embedder.json      which model, and how much of a text it reads at once
    vectors/<embedder>/<hash>.npy         some texts' hashes with their vectors, written whole or not at all

A run that was killed goes on with the texts that are missing, and the model is not even loaded where none is.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trl_math.errors import StoreError
from trl_math.files import write_json
from trl_math.models import resolve_embedder
from trl_math.optional import check_installed


if TYPE_CHECKING:
    from trl_math.contamination.embedding import SentenceEmbedder


DIGEST_BYTES = 16
PART = 1024  # texts that are embedded, and kept, at a time
SAID_FROM = 1024  # texts: fewer are done before a line about them is read
Say = Callable[[str], None]


class KeptEmbedder:
    """An embedder that looks into a folder before it embeds."""

    def __init__(self, name: str, folder: Path, say: Say = print) -> None:
        check_installed("sentence_transformers", f"The embedder {name!r}")
        self.name = name
        self._say = say
        identity = identity_of(name)
        self._folder = folder / identity
        self._facts = self._folder / "embedder.json"
        self._model: SentenceEmbedder | None = None
        self._known: dict[bytes, NDArray[np.float32]] | None = None

    @property
    def window(self) -> int:
        """How many characters it reads of a text."""
        try:
            return int(json.loads(self._facts.read_text(encoding="utf-8"))["window"])
        except (OSError, ValueError, KeyError, TypeError):
            window = self._loaded().window
            self._write(lambda: write_json(self._facts, {"embedder": self.name, "window": window}))
            return window

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one vector of length 1 a text."""
        if self._known is None:
            self._known = dict(self._read())
        known = self._known
        keys = [_key(text) for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if len(missing) >= SAID_FROM:
            self._say(f"{self.name}: {len(missing):,} texts to embed, {len(keys) - len(missing):,} are there")
        # Of like lengths together: little is read that only fills up.
        ordered = sorted(missing.items(), key=lambda pair: -len(pair[1]))
        for start in range(0, len(ordered), PART):
            part = dict(ordered[start : start + PART])
            vectors = self._loaded().encode(list(part.values()))
            self._keep(list(part), vectors)
            known.update(zip(part, vectors, strict=True))
        return np.stack([known[key] for key in keys]) if keys else np.zeros((0, 1), np.float32)

    def _loaded(self) -> "SentenceEmbedder":
        if self._model is None:
            from trl_math.contamination.embedding import load_embedder  # noqa: PLC0415 - torch, if it is needed

            self._model = load_embedder(self.name)
        return self._model

    def _read(self) -> Iterator[tuple[bytes, NDArray[np.float32]]]:
        for path in sorted(self._folder.glob("*.npy")):
            try:
                rows = np.load(path)
            except (OSError, ValueError):  # damaged: its texts are embedded again
                continue
            yield from zip(map(bytes, rows["key"]), rows["vector"], strict=True)

    def _keep(self, keys: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        kinds = [("key", np.uint8, (DIGEST_BYTES,)), ("vector", np.float32, vectors.shape[1:])]
        rows = np.zeros(len(keys), dtype=kinds)
        rows["key"] = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, DIGEST_BYTES)
        rows["vector"] = vectors
        # The same texts have the same name: two runs at a time do no harm.
        path = self._folder / f"{hashlib.sha256(b''.join(keys)).hexdigest()[:16]}.npy"
        self._write(lambda: _write_array(path, rows))

    def _write(self, write: Callable[[], None]) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write()
        except OSError as error:
            raise StoreError(f"Cannot keep vectors in {self._folder}: {error.strerror or error}.") from error


def identity_of(name: str) -> str:
    """Return a name for an embedder's vectors: of a local model by its files, of one on the hub by its name."""
    folder = Path(resolve_embedder(name)).expanduser()
    sha = hashlib.sha256()
    if folder.is_dir():
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            with file.open("rb") as stream:
                sha.update(
                    f"{file.relative_to(folder)} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode()
                )
    else:
        sha.update(name.encode())
    return sha.hexdigest()[:12]


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:DIGEST_BYTES]


def _write_array(path: Path, rows: NDArray[np.void]) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            np.save(stream, rows)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
