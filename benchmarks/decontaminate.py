"""How fast leaks are found among strings, how many rows are flagged, and which.

    python benchmarks/decontaminate.py [--quick] [--data ../shared/data/math] [--list FILE] [--processes 2]

Two parts. MATH: its 7,500 training problems against its 5,000 test problems, by every string detector; `--list` writes
every pair that one of those that we would use has found, as JSON lines. Made rows: 1,000,000 against 5,000 test items,
by n-grams and by MinHash. Words of made rows are drawn by Zipf's law, a third of their sentences are boilerplate that
many rows share, and every thousandth row is a leak: a copy, a copy in other markup inside of a longer text, or, to be
left alone, the item with other numbers. `--quick` is for the test that it still runs. Times are of the clock,
with the processors' time of all processes beside them; memory is the largest that the process had, and as much for
each of the processes it started as the largest of them had. The last line is the figure.
"""

import argparse
import json
import os
import random
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trl_math.contamination.detectors import PLAIN_DETECTORS, STRING_DETECTORS, make_detector
from trl_math.contamination.matches import Match
from trl_math.contamination.texts import Texts, read_texts
from trl_math.data.sources import load_source


NUM_WORDS, NUM_PHRASES = 50_000, 300
BLOCK = 20_000
SECONDS_MATH, SECONDS_MADE, GIGABYTES = 10, 120, 4
KINDS = ("copy", "inside", "renumbered")


class Made(NamedTuple):
    """Made texts. `planted`: number of the row -> (number of the test item, how it was planted)."""

    test: list[str]
    train: list[str]
    planted: dict[int, tuple[int, str]]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data" / "math")
    parser.add_argument("--list", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args(arguments)
    limit, (num_rows, num_items) = (300, (5_000, 200)) if given.quick else (None, (1_000_000, 5_000))
    test, train = (sides(given.data / f"{side}.jsonl", limit) for side in ("test", "train"))
    seconds_math, plain, found = on_math(test, train, given.processes)
    if given.list:
        write(given.list, found, test, train)
    seconds_made, gigabytes = on_made_rows(made_texts(num_rows, num_items), given.processes)
    num_found = len({match.train for match in found})
    print(
        f"decontaminate: MATH {len(train.texts):,} x {len(test.texts):,} in {seconds_math:.1f} s (promised "
        f"{SECONDS_MATH}), 8-grams flag {plain:.1%} of its rows as published, {num_found} rows here; "
        f"{num_rows:,} x {num_items:,} in {seconds_made:.1f} s (promised {SECONDS_MADE}), {gigabytes:.2f} GB "
        f"(promised {GIGABYTES})"
    )


def sides(path: Path, limit: int | None) -> Texts:
    rows = load_source(str(path))
    return read_texts(rows if limit is None else rows.select(range(min(limit, len(rows)))), source=path.stem)


def on_math(test: Texts, train: Texts, processes: int) -> tuple[float, float, list[Match]]:
    """Return the seconds of all string detectors, the share of rows that plain 8-grams flag, and what ours find."""
    total, plain, found = 0.0, 0.0, {}
    for name in STRING_DETECTORS:
        seconds, matches = timed(name, test.texts, train.texts, processes)
        total += seconds
        if name == "ngram_8_plain":
            plain = len({match.train for match in matches}) / len(train.texts)
        if name not in PLAIN_DETECTORS:
            found |= {(match.test, match.train): match for match in matches} | found
    return total, plain, [found[pair] for pair in sorted(found)]


def write(path: Path, found: list[Match], test: Texts, train: Texts) -> None:
    """Write pairs with both texts, a line each."""
    with path.open("w", encoding="utf-8") as file:
        for item, row, score, evidence in found:
            line = {"test": test.ids[item], "train": train.ids[row], "score": score, "evidence": evidence}
            line |= {"test_text": test.texts[item], "train_text": train.texts[row]}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    print(f"wrote {len(found)} pairs to {path}")


def on_made_rows(made: Made, processes: int) -> tuple[float, float]:
    """Return the seconds of n-grams and MinHash together, and the memory in gigabytes."""
    total = 0.0
    for name in ("ngram_8", "minhash"):
        seconds, matches = timed(name, made.test, made.train, processes)
        total += seconds
        pairs = {(match.train, match.test) for match in matches}
        found = {
            kind: (sum((row, item) in pairs for row, (item, own) in made.planted.items() if own == kind), num)
            for kind in KINDS
            if (num := sum(own == kind for _, own in made.planted.values()))
        }
        others = len(pairs - {(row, item) for row, (item, _) in made.planted.items()})
        listed = ", ".join(f"{kind} {num} of {of}" for kind, (num, of) in found.items())
        print(f"  found of what was planted: {listed}; others {others}; {peak_gigabytes(processes):.2f} GB so far")
    return total, peak_gigabytes(processes)


def peak_gigabytes(processes: int) -> float:
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    largest_child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return (own + processes * largest_child) / 2**20


def timed(name: str, test: list[str], train: list[str], processes: int) -> tuple[float, list[Match]]:
    """Return the seconds that a detector takes, and what it finds; say both."""
    start, processor = time.perf_counter(), processor_seconds()
    matches = make_detector(name, processes=processes).find(test, train)
    seconds, processor = time.perf_counter() - start, processor_seconds() - processor
    rows = len({match.train for match in matches})
    print(
        f"{name:20} {seconds:6.2f} s ({processor:6.2f} s of processors)  {len(matches):6} pairs  {rows:5} rows "
        f"({rows / len(train):.2%})",
        flush=True,
    )
    return seconds, matches


def processor_seconds() -> float:
    return sum(os.times()[:4])


def made_texts(num_rows: int, num_items: int) -> Made:
    """Return texts of Zipf's words with boilerplate in common, and rows among them that have test items."""
    rng = np.random.default_rng(0)
    letters = random.Random(0)
    words = np.array(["".join(letters.choices("abcdefghijklmnopqrstuvwxyz", k=2 + i % 9)) for i in range(NUM_WORDS)])
    weights = 1 / np.arange(1, NUM_WORDS + 1)
    cumulated = np.cumsum(weights / weights.sum())

    def drawn(number: int) -> list[str]:
        return words[np.minimum(np.searchsorted(cumulated, rng.random(number)), NUM_WORDS - 1)].tolist()

    phrases = [" ".join(drawn(8 + i % 12)) for i in range(NUM_PHRASES)]
    common = 1 / np.arange(1, NUM_PHRASES + 1)

    def texts(number: int) -> list[str]:
        """Three to five sentences each, a third of them boilerplate, and three numbers."""
        num_sentences = rng.integers(3, 6, number)
        total = int(num_sentences.sum())
        lengths = rng.integers(6, 16, total)
        own, ends = drawn(int(lengths.sum())), np.cumsum(lengths).tolist()
        is_phrase = rng.random(total) < 1 / 3
        phrase = rng.choice(NUM_PHRASES, total, p=common / common.sum())
        sentences = [
            phrases[phrase[i]] if is_phrase[i] else " ".join(own[end - length : end])
            for i, (end, length) in enumerate(zip(ends, lengths.tolist(), strict=True))
        ]
        numbers = rng.integers(2, 1000, (number, 3)).tolist()
        starts = np.cumsum(num_sentences) - num_sentences
        return [
            f"{' '.join(sentences[start : start + num])}. With {a} and {b}, what is {c} {words[a + b]}?"
            for start, num, (a, b, c) in zip(starts.tolist(), num_sentences.tolist(), numbers, strict=True)
        ]

    test, train, planted = texts(num_items), [], {}
    while len(train) < num_rows:  # so that drawing takes less memory than what is measured
        train += texts(min(BLOCK, num_rows - len(train)))
    for number, row in enumerate(range(0, num_rows, 1000 if num_rows > 100_000 else 50)):
        item, kind = number % num_items, KINDS[number % 3]
        copies = {
            "copy": test[item],
            "inside": f"Question: ${test[item].upper()}$\n\nAnswer: {train[row]}",
            "renumbered": "".join(chr(ord("0") + (int(c) + 1) % 10) if c.isdigit() else c for c in test[item]),
        }
        train[row], planted[row] = copies[kind], (item, kind)
    return Made(test, train, planted)


if __name__ == "__main__":
    main()
