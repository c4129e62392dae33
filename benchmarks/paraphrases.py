"""How well paraphrases are found: `python benchmarks/paraphrases.py [--vectors FOLDER] [--write]`.

Paraphrases that were written by hand, and some by rule, are hidden among training problems of ../shared/data, with
renumbered problems beside them, which are none. One half of the test items, and of the clean rows, calibrates the
detector `paraphrase` and the cosine of MiniLM alone; the other half measures; and the other way round. Counted is
a *row*: whether it is flagged against any test item. Clean rows are weighted to be 25 to one paraphrase. Those
that repeat a test item nearly word for word are left out: they are what a detector shall find. `rule` and `retold`
(other people, other things) are measured apart: the figures are of the other styles.

Then the detector that is in the package looks for paraphrases that nothing was fitted to (`gsm8k-second`), 150 hidden
among the 7,473 training problems of GSM8K. The last line is that figure.

`--write` fits with all labelled rows and writes `paraphrase.json` and `rarity.json` into the package. `--pairs FILE`
writes the labelled pairs for `trl-math detectors`. `--vectors` keeps vectors: 23,000 texts take minutes.
`--quick`: few rows and nothing unseen, to see that it runs.
"""

import argparse
import hashlib
import json
import math
import random
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from paraphrase_rows import SHARED, Source, hidden, lines, problems, sources

from trl_math.contamination.calibrate import CLEAN_PER_PARAPHRASE, Candidates, best_threshold, calibrate
from trl_math.contamination.embedding import MINILM, load_embedder, near_windows
from trl_math.contamination.evidence import LEAST_COUNT, Rarity, read
from trl_math.contamination.paraphrase import (
    KINDS,
    Model,
    ParaphraseDetector,
    as_json,
    compare,
    shipped_model,
    shipped_rarity,
)
from trl_math.evaluation.intervals import wilson


PACKAGE = Path(__file__).parents[1] / "trl_math" / "contamination"
FLOOR, TOP_K = 0.4, 20
# What counts as ordinary paraphrases; the others are shown apart.
MEASURED = ("light", "heavy", "condensed")
WEIGHTS = {"retold": 0.3, "rule": 0.1, "renumbered": 0.15, "renumbered_paraphrase": 0.15}
# Which source fits the regression of which kind of pairs.
FITTED_ON = {"plain": ("gsm8k",), "formula": ("math",)}
NGRAMS = (8, 10, 13)


class KeptVectors:
    """An embedder that keeps the vector of every text in a file."""

    def __init__(self, folder: Path | None):
        self._model = load_embedder(MINILM)
        self.name, self.window = self._model.name, self._model.window
        self._file = folder / "vectors.npz" if folder else None
        self._known: dict[str, np.ndarray] = {}
        if self._file and self._file.exists():
            kept = np.load(self._file)
            self._known = dict(zip(kept["keys"].tolist(), kept["vectors"], strict=True))

    def encode(self, texts):
        keys = [hashlib.sha256(text.encode()).hexdigest()[:24] for text in texts]
        new = [place for place, key in enumerate(keys) if key not in self._known]
        if new:
            vectors = self._model.encode([texts[place] for place in new])
            self._known.update(zip([keys[place] for place in new], vectors, strict=True))
            if self._file:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                np.savez(self._file, keys=np.array(list(self._known)), vectors=np.stack(list(self._known.values())))
        return np.stack([self._known[key] for key in keys])


class Table(NamedTuple):
    """All pairs of one source that a detector may read, and what is known of their rows."""

    source: Source
    rows: np.ndarray
    items: np.ndarray
    cosine: np.ndarray
    kind: np.ndarray
    features: np.ndarray
    own: np.ndarray  # whether the item is the one that the row paraphrases
    kinds_of_rows: np.ndarray
    half: np.ndarray  # of rows

    def scores(self, regressions) -> np.ndarray:
        """Return logits."""
        scores = np.empty(len(self.rows))
        for kind, (weights, intercept) in regressions.items():
            mine = self.kind == kind
            scores[mine] = self.features[mine] @ np.array(weights) + intercept
        return scores

    def of_rows(self, scores: np.ndarray) -> np.ndarray:
        best = np.full(len(self.source.rows), -50.0)
        np.maximum.at(best, self.rows, scores)
        return best


def table(source: Source, embedder, rarity: Rarity) -> Table:
    texts = [row.text for row in source.rows]
    near = near_windows(embedder, source.tests, texts, top_k=TOP_K, floor=FLOOR)
    tests = [read(text, rarity) for text in near.test.texts]
    trains = [read(text, rarity) for text in near.train.texts]
    found = []
    for test, train, cosine in near.pairs():
        pair = compare(tests[test], trains[train], cosine, rarity)
        is_repeat = cosine >= 0.9 and pair.words_in_common >= 0.75 and pair.features[4] == 0
        found += [(row, item, cosine, pair, is_repeat) for item, row in near.texts_of(test, train)]
    rows, items, cosine, pairs, repeats = zip(*found, strict=True)
    rows, items = np.array(rows), np.array(items)
    kinds = np.array([row.kind for row in source.rows], dtype="U24")
    repeating = np.unique(rows[np.array(repeats)])
    kinds[[row for row in repeating if kinds[row] == "clean"]] = "repeat"
    own = np.array([row.item if row.is_paraphrase else -1 for row in source.rows])
    rng = random.Random(f"half {source.name}")
    half_of_items = [rng.random() < 0.5 for _ in source.tests]
    half = np.array([rng.random() < 0.5 if row.item is None else half_of_items[row.item] for row in source.rows])
    kind = np.array([pair.kind for pair in pairs])
    features = np.array([pair.features for pair in pairs])
    return Table(source, rows, items, np.array(cosine), kind, features, own[rows] == items, kinds, half)


def fitted(tables: dict[str, Table], chosen: dict[str, np.ndarray], fitted_on=FITTED_ON):
    """Return the regressions of the chosen rows."""
    regressions = {}
    for kind in KINDS:
        parts, first = [], 0
        for name in fitted_on[kind]:
            data = tables[name]
            mine = (data.kind == kind) & chosen[name][data.rows] & (data.kinds_of_rows[data.rows] != "repeat")
            kinds = data.kinds_of_rows[data.rows[mine]]
            weights = np.array([WEIGHTS.get(str(kind_of_row), 1.0) for kind_of_row in kinds])
            rows = data.rows[mine] + first
            first += len(data.source.rows)
            parts.append(Candidates(data.features[mine], rows, data.own[mine], weights, kinds == "clean"))
        pairs = Candidates(*(np.concatenate(column) for column in zip(*parts, strict=True)))
        regressions[kind] = calibrate(pairs)
    return regressions


class Count(NamedTuple):
    """Flagged and all rows, paraphrases and clean ones."""

    found: int
    paraphrases: int
    wrong: int
    clean: int

    def __add__(self, other):
        return Count(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    def __str__(self) -> str:
        wrong = self.wrong / max(self.clean, 1) * CLEAN_PER_PARAPHRASE * self.paraphrases
        precision = self.found / (self.found + wrong) if self.found else math.nan
        low, high = (
            wilson(self.found / self.paraphrases, self.paraphrases) if self.paraphrases else (math.nan, math.nan)
        )
        # The precision of the bounds of the share of clean rows that are flagged.
        bounds = [
            p * CLEAN_PER_PARAPHRASE * self.paraphrases
            for p in wilson(self.wrong / max(self.clean, 1), max(self.clean, 1))
        ]
        precisions = [self.found / (self.found + bound) if self.found else math.nan for bound in reversed(bounds)]
        return (
            f"recall {self.found / max(self.paraphrases, 1):.3f} [{low:.3f}, {high:.3f}]"
            f"  precision {precision:.3f} [{precisions[0]:.3f}, {precisions[1]:.3f}]"
            f"  ({self.found} of {self.paraphrases} found, {self.wrong} of {self.clean} clean rows flagged)"
        )


def count(data: Table, flagged: np.ndarray, measured: np.ndarray, kinds=MEASURED) -> Count:
    wanted = np.isin(data.kinds_of_rows, kinds) & measured
    clean = (data.kinds_of_rows == "clean") & measured
    return Count(int((flagged & wanted).sum()), int(wanted.sum()), int((flagged & clean).sum()), int(clean.sum()))


def ngrams(text: str, n: int) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    return set(zip(*(words[place:] for place in range(n)), strict=False))


def measure(tables: dict[str, Table]) -> None:
    """Print what each half finds with what the other fitted, the two together."""
    none = Count(0, 0, 0, 0)
    for name, data in tables.items():
        detectors: dict[str, Count] = {}
        styles: Counter = Counter()
        for half in (True, False):
            chosen = {other: tables[other].half == half for other in tables}
            measured = data.half != half
            flagged = data.of_rows(data.scores(fitted(tables, chosen))) >= 0
            cosine = data.of_rows(data.cosine)
            use = chosen["gsm8k"] & np.isin(tables["gsm8k"].kinds_of_rows, (*MEASURED, "clean"))
            labels = np.isin(tables["gsm8k"].kinds_of_rows[use], MEASURED)
            weights = np.where(labels, 1.0, CLEAN_PER_PARAPHRASE * labels.sum() / max((~labels).sum(), 1))
            cut = best_threshold(tables["gsm8k"].of_rows(tables["gsm8k"].cosine)[use], labels, weights)
            ways = {"paraphrase": flagged, "cosine, calibrated": cosine >= cut}
            ways |= {f"cosine {fixed}": cosine >= fixed for fixed in (0.8, 0.83, 0.85)}
            for way, found in ways.items():
                detectors[way] = detectors.get(way, none) + count(data, found, measured)
            for kind in sorted(set(data.kinds_of_rows)):
                of_kind = (data.kinds_of_rows == kind) & measured
                styles[kind, "found"] += int((flagged & of_kind).sum())
                styles[kind, "all"] += int(of_kind.sum())
        everything = np.ones(len(data.source.rows), bool)
        for n in NGRAMS:
            known = set().union(*(ngrams(text, n) for text in data.source.tests))
            found = np.array([not known.isdisjoint(ngrams(row.text, n)) for row in data.source.rows])
            detectors[f"{n}-gram"] = count(data, found, everything)
        print(f"{name}: {len(data.source.tests)} test items")
        for way, counted in detectors.items():
            print(f"  {way:20s} {counted}")
        for kind in dict.fromkeys(kind for kind, _ in styles):
            found, total = styles[kind, "found"], styles[kind, "all"]
            low, high = wilson(found / total, total)
            print(f"    flagged of {kind:22s} {found:5d} of {total:5d}  {found / total:.3f} [{low:.3f}, {high:.3f}]")


def across(tables: dict[str, Table]) -> None:
    """Print what is found in one source with what the other fitted."""
    everything = {name: np.ones(len(data.source.rows), bool) for name, data in tables.items()}
    for name, others in {"gsm8k": ("math", "svamp"), "math": ("gsm8k", "svamp"), "svamp": ("gsm8k", "math")}.items():
        if name in tables:
            try:
                regressions = fitted(tables, everything, dict.fromkeys(KINDS, others))
            except ValueError as error:
                print(f"fitted on {' and '.join(others)}, measured on {name}: {error}")
                continue
            data = tables[name]
            flagged = data.of_rows(data.scores(regressions)) >= 0
            print(f"fitted on {' and '.join(others)}, measured on {name}: {count(data, flagged, everything[name])}")


def write_rarity() -> None:
    """Count words and numbers of the training problems of GSM8K and MATH."""
    words, numbers = Counter(), Counter()
    nothing = Rarity({}, {}, 1)
    texts = problems("gsm8k/train.jsonl") + problems("math/train.jsonl")
    for text in texts:
        reading = read(text, nothing)
        words.update(reading.words.keys())
        numbers.update({meaning for number in reading.named for meaning in number})
    kept = [{key: num for key, num in sorted(c.items()) if num >= LEAST_COUNT} for c in (words, numbers)]
    known = {"num_texts": len(texts), "words": kept[0], "numbers": kept[1]}
    (PACKAGE / "rarity.json").write_text(json.dumps(known, ensure_ascii=False, separators=(",", ":")) + "\n")
    shipped_rarity.cache_clear()


def write_model(tables: dict[str, Table]) -> None:
    everything = {name: np.ones(len(data.source.rows), bool) for name, data in tables.items()}
    regressions = fitted(tables, everything)
    about = {
        kind: {name: dict(sorted(Counter(tables[name].kinds_of_rows.tolist()).items())) for name in names}
        for kind, names in FITTED_ON.items()
    }
    model = Model(regressions, 0.5, FLOOR, TOP_K, MINILM, about)
    (PACKAGE / "paraphrase.json").write_text(json.dumps(as_json(model), indent=2) + "\n")
    shipped_model.cache_clear()


def write_pairs(tables: dict[str, Table], path: Path) -> None:
    """Write labelled pairs: rows with the item that they were made from, clean rows with their nearest, and random."""
    with path.open("w") as file:
        for name, data in tables.items():
            rng = random.Random(f"pairs {name}")
            cosine, best = data.of_rows(data.cosine), {}
            for row, item, near in zip(data.rows.tolist(), data.items.tolist(), data.cosine.tolist(), strict=True):
                if near == cosine[row]:
                    best[row] = item
            clean = [number for number, row in enumerate(data.source.rows) if data.kinds_of_rows[number] == "clean"]
            nearest = sorted(clean, key=lambda number: -cosine[number])[:300]
            chosen = [(n, row.item, row.kind) for n, row in enumerate(data.source.rows) if row.item is not None]
            chosen += [(number, best[number], "nearest") for number in nearest if number in best]
            items = range(len(data.source.tests))
            chosen += [(n, rng.choice(items), "random") for n in rng.sample(clean, min(300, len(clean)))]
            for number, item, kind in chosen:
                row = data.source.rows[number]
                pair = {"pair_id": f"{name}-{number}-{kind}", "test": data.source.tests[item], "train": row.text}
                pair |= {"is_contaminated": row.is_paraphrase, "kind": kind, "source": name}
                file.write(json.dumps(pair, ensure_ascii=False) + "\n")


def unseen(embedder) -> str:
    """Return what the package's detector finds of paraphrases that nothing was fitted to."""
    source = hidden()
    matches = ParaphraseDetector(embedder).find(source.tests, [row.text for row in source.rows])
    flagged = {match.train for match in matches}
    counted = Count(0, 0, 0, 0)
    for kinds in (("light",), ("heavy",), ("condensed",), ("retold",)):
        mine = [number for number, row in enumerate(source.rows) if row.kind in kinds]
        found = sum(number in flagged for number in mine)
        print(f"  unseen, {kinds[0]}: {found} of {len(mine)}")
        counted += Count(found if kinds != ("retold",) else 0, len(mine) if kinds != ("retold",) else 0, 0, 0)
    clean = [number for number, row in enumerate(source.rows) if row.kind == "clean"]
    wrong = [number for number in clean if number in flagged]
    for number in wrong:
        print("  flagged:", source.rows[number].text[:150].replace("\n", " "))
    return str(counted + Count(0, 0, len(wrong), len(clean)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--quick", action="store_true")
    request = parser.parse_args()
    if not SHARED.exists():
        print("../shared/data, from which clean rows are taken, is not here: nothing is measured.")
        return
    embedder = KeptVectors(request.vectors)
    if request.write:
        write_rarity()
    tables = {source.name: table(source, embedder, shipped_rarity()) for source in sources(request.quick)}
    measure(tables)
    across(tables)
    if request.write:
        write_model(tables)
    if request.pairs:
        write_pairs(tables, request.pairs)
    if request.quick:
        print("quick: nothing unseen was looked for")
        return
    print(
        f"gsm8k, {len(lines(Path(__file__).parent / 'data' / 'paraphrases-gsm8k-second.jsonl'))} unseen paraphrases:"
    )
    print(f"unseen, as shipped: {unseen(embedder)}")


if __name__ == "__main__":
    main()
