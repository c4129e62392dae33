"""Texts as vectors of meaning (sentence-transformers), and which of them lie near one another.

An embedder reads a few hundred tokens and forgets the rest without a word. So long texts are cut into *windows* that
overlap by half, and two texts are as near as their two nearest windows: a problem in a long document is found.

The neighbours of training rows are looked up a chunk at a time; no matrix of all rows by all items is made. The
cosine that is reported is computed for its own pair alone, in float64: no chunk size changes it. Where faiss is
installed it does the looking up, by exact search.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from trl_math.contamination.matches import Match, in_order
from trl_math.contamination.number_words import without_drawings
from trl_math.errors import UsageError
from trl_math.models import resolve_embedder
from trl_math.optional import is_installed, require


Vectors = NDArray[np.float32]

MINILM = "embedded:minilm"
# Vectors of so many sets of texts are kept: detectors that follow one another ask for the same test and train sets.
NUM_KEPT = 2
CHARACTERS_PER_TOKEN = 4
ROWS_PER_CHUNK = 1024
# Neighbours that are as near as the last one within rounding are all taken: which of them come first is no accident.
ROUNDING = 1e-5


class Embedder(Protocol):
    """What makes vectors of length 1 from texts. `window`: how many characters it reads of a text."""

    name: str
    window: int

    def encode(self, texts: Sequence[str]) -> Vectors: ...


class Neighbours(NamedTuple):
    """Pairs of rows, with their cosines."""

    test: NDArray[np.int64]
    train: NDArray[np.int64]
    cosine: NDArray[np.float64]


class SentenceEmbedder:
    """A model of sentence-transformers: a folder, a name on the hub, or `embedded:minilm`."""

    def __init__(self, name: str = MINILM, device: str | None = None, batch_size: int = 64):
        folder = resolve_embedder(name)
        library = require("sentence_transformers", f"The embedder {name!r}")
        self.name = name
        try:
            self._model = library.SentenceTransformer(folder, device=device)
        except (OSError, ValueError) as error:
            reason = str(error).strip().split("\n")[0].rstrip(".")
            raise UsageError(
                f"Cannot load the embedder {name!r}: {reason}. Give the folder of a sentence-transformers model, its "
                f"name on the hub, or {MINILM!r}, which needs no hub."
            ) from error
        self._batch_size = batch_size
        self.window = CHARACTERS_PER_TOKEN * int(self._model.max_seq_length or 512)
        self._kept: dict[str, Vectors] = {}

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return one vector of length 1 a text."""
        key = hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()
        if key not in self._kept:
            while len(self._kept) >= NUM_KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[key] = np.asarray(
                self._model.encode(
                    [text.encode("utf-8", "replace").decode("utf-8") for text in texts],
                    batch_size=self._batch_size,
                    normalize_embeddings=True,
                    convert_to_numpy=True,
                    show_progress_bar=False,
                ),
                dtype=np.float32,
            )
        return self._kept[key]


@lru_cache(maxsize=2)
def load_embedder(name: str = MINILM, device: str | None = None) -> SentenceEmbedder:
    """Return an embedder, loaded once: detectors that use the same one share the vectors that it keeps."""
    return SentenceEmbedder(name, device)


class Windows(NamedTuple):
    """The different windows of some texts, and which text has which."""

    texts: list[str]
    owners: list[list[int]]  # of each window: the numbers of the texts that have it


def windows_of(texts: Sequence[str], size: int) -> Windows:
    """Cut texts into windows of at most `size` characters; equal windows are one."""
    owners: dict[str, list[int]] = {}
    for number, text in enumerate(texts):
        for window in dict.fromkeys(cut(text, size)):
            owners.setdefault(window, []).append(number)
    return Windows(list(owners), list(owners.values()))


def cut(text: str, size: int) -> Iterator[str]:
    """Yield pieces of at most `size` characters that begin at words and overlap by half; a short text is one piece."""
    text = text.strip()
    start = 0
    while text:
        end = start + size
        if end >= len(text):
            yield text[start:]
            return
        # At the last space of the second half, if it has one.
        space = text.rfind(" ", start + size // 2, end)
        yield text[start : space if space > 0 else end]
        middle = text.find(" ", start + size // 2, end)
        start = middle + 1 if middle > 0 else start + max(size // 2, 1)


def neighbours(test: Vectors, train: Vectors, *, top_k: int, floor: float) -> Neighbours:
    """Return the nearest test items of every training row: `top_k`, more where they tie, none below `floor`."""
    if not len(test) or not len(train):
        return Neighbours(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    parts = []
    num_asked = min(top_k, len(test))
    find = _faiss_search(test, num_asked) if is_installed("faiss") else _search(test, num_asked)
    for start in range(0, len(train), ROWS_PER_CHUNK):
        chunk = train[start : start + ROWS_PER_CHUNK]
        rows, items = find(chunk, floor - ROUNDING)
        cosine = np.einsum("ij,ij->i", chunk[rows].astype(np.float64), test[items].astype(np.float64))
        near = cosine >= floor
        parts.append((items[near], rows[near] + start, cosine[near]))
    return Neighbours(*(np.concatenate(column) for column in zip(*parts, strict=True)))


class EmbeddingDetector:
    """Pairs whose meaning is near: what a paraphrase keeps, and a problem with other numbers too."""

    name = "embedding"

    def __init__(self, embedder: str | Embedder = MINILM, threshold: float = 0.85, top_k: int = 20):
        self.threshold = threshold
        self._embedder = embedder
        self._top_k = top_k

    def find(self, test: Sequence[str], train: Sequence[str]) -> list[Match]:
        """Return pairs with a cosine of at least `threshold`: of every row, its `top_k` nearest test items."""
        near = near_windows(self._embedder, test, train, top_k=self._top_k, floor=self.threshold)
        best: dict[tuple[int, int], float] = {}
        for test_window, train_window, cosine in near.pairs():
            for pair in near.texts_of(test_window, train_window):
                best[pair] = max(best.get(pair, -1.0), cosine)
        return in_order(
            Match(item, row, min(cosine, 1.0), {"cosine": round(cosine, 4), "embedder": near.embedder})
            for (item, row), cosine in best.items()
        )


class NearWindows(NamedTuple):
    """Windows of both sides, and which lie near one another."""

    test: Windows
    train: Windows
    neighbours: Neighbours
    embedder: str

    def pairs(self) -> Iterator[tuple[int, int, float]]:
        """Yield (test window, train window, cosine)."""
        yield from zip(*(column.tolist() for column in self.neighbours), strict=True)

    def texts_of(self, test_window: int, train_window: int) -> Iterator[tuple[int, int]]:
        """Yield (test item, training row) of all texts that have these windows."""
        for item in self.test.owners[test_window]:
            for row in self.train.owners[train_window]:
                yield item, row


def near_windows(
    embedder: str | Embedder, test: Sequence[str], train: Sequence[str], *, top_k: int, floor: float
) -> NearWindows:
    """Cut both sides into windows, embed them, and look up the neighbours of the training rows' windows."""
    model = load_embedder(embedder) if isinstance(embedder, str) else embedder
    tests, trains = (windows_of([without_drawings(text) for text in texts], model.window) for texts in (test, train))
    vectors = [model.encode(side.texts) if side.texts else np.zeros((0, 1), np.float32) for side in (tests, trains)]
    return NearWindows(tests, trains, neighbours(*vectors, top_k=top_k, floor=floor), model.name)


Search = Callable[[Vectors, float], tuple[NDArray[np.int64], NDArray[np.int64]]]


def _search(test: Vectors, num_asked: int) -> Search:
    def find(chunk: Vectors, floor: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        cosines = chunk @ test.T
        last = np.partition(cosines, -num_asked, axis=1)[:, -num_asked, None]
        rows, items = np.nonzero((cosines >= floor) & (cosines >= last - ROUNDING))
        return rows.astype(np.int64), items.astype(np.int64)

    return find


def _faiss_search(test: Vectors, num_asked: int) -> Search:
    """faiss tells the last of the neighbours; who ties with it is asked of it again, for as many as there are."""
    index = require("faiss", "Looking up neighbours").IndexFlatIP(test.shape[1])
    index.add(test)

    def find(chunk: Vectors, floor: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        num = num_asked
        while True:
            cosines, items = index.search(chunk, num)
            last = cosines[:, num_asked - 1, None] - ROUNDING
            is_near = (cosines >= floor) & (cosines >= last)
            if num >= len(test) or (num > num_asked and not is_near[:, -1].any()):
                break
            num = min(2 * num, len(test))
        rows, places = np.nonzero(is_near)
        found = items[rows, places].astype(np.int64)
        order = np.lexsort((found, rows))
        return rows[order], found[order]

    return find
