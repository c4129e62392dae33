"""Rows whose test item is known, for `paraphrases.py`: paraphrases, renumbered problems, clean rows."""

import json
import random
import re
from pathlib import Path
from typing import NamedTuple


DATA = Path(__file__).parent / "data"
SHARED = Path(__file__).parents[2] / "shared" / "data"
UNSEEN = "gsm8k-second"
NUM_RENUMBERED = 300
NUM_BY_RULE = 100

SPELLED = "two three four five six seven eight nine ten eleven twelve"
_SPELLED = {word: number for number, word in enumerate(SPELLED.split(), start=2)}
_NUMBER = re.compile(r"(?<![\w.,/\\{}^_])\d[\d,]*(?:\.\d+)?(?![\w/]|[,.]\d)|\b(?:" + "|".join(_SPELLED) + r")\b")
_SYNONYMS = {
    "buys": "purchases",
    "bought": "purchased",
    "gives": "hands",
    "gave": "handed",
    "twice": "two times",
    "how many": "what number of",
    "altogether": "in total",
    "in total": "altogether",
    "each": "every",
    "children": "kids",
    "makes": "produces",
    "gets": "receives",
    "needs": "requires",
    "starts": "begins",
    "left": "remaining",
    "more than": "above",
    "find": "determine",
    "compute": "calculate",
    "evaluate": "work out",
    "what is": "find",
}


class Row(NamedTuple):
    """A row that might stand in training data. `item`: the number of its test item, of the one it was made from."""

    text: str
    item: int | None
    kind: str  # light, heavy, retold, condensed, rule, renumbered, renumbered_paraphrase, clean
    is_paraphrase: bool


class Source(NamedTuple):
    """Test items, the rows that were made from them, and clean rows."""

    name: str
    tests: list[str]
    rows: list[Row]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def problems(name: str) -> list[str]:
    """Return the texts of a file of ../shared/data."""
    path = SHARED / name
    rows = json.loads(path.read_text()) if path.suffix == ".json" else lines(path)
    return [
        row.get("question") or row.get("problem") or row.get("input") or f"{row['Body'].strip()} {row['Question']}"
        for row in rows
    ]


def sources(quick: bool = False) -> list[Source]:
    """Return GSM8K, MATH and SVAMP with their paraphrases; `quick`: few rows, and test items with paraphrases."""
    by_hand = lines(DATA / "paraphrases-gsm8k.jsonl") + lines(DATA / "paraphrases-math.jsonl")
    mawps = [f"mawps/{name}.jsonl" for name in ("multiarith", "addsub", "singleeq")]
    files = {
        "gsm8k": (["gsm8k/test.jsonl"], ["gsm8k/train.jsonl"]),
        "math": (["math/test.jsonl"], ["math/train.jsonl"]),
        "svamp": (["svamp/SVAMP.json"], mawps),
    }
    made = []
    for name, (test_files, clean_files) in files.items():
        mine = [row for row in by_hand if row["source"] == name]
        tests = [text for file in test_files for text in problems(file)]
        clean = [text for file in clean_files for text in problems(file)]
        if quick:
            mine = mine[:20]
            tests, clean = [row["original"] for row in mine], clean[:200]
        made.append(_source(name, tests, mine, list(dict.fromkeys(clean)), random.Random(f"0 {name}")))
    return made


def hidden(name: str = UNSEEN) -> Source:
    """Return paraphrases of test items of GSM8K hidden among its training problems; nothing else."""
    tests = problems("gsm8k/test.jsonl")
    number = {text: place for place, text in enumerate(tests)}
    rows = [
        Row(row["paraphrase"], number[row["original"]], row["style"], True)
        for row in lines(DATA / f"paraphrases-{name}.jsonl")
    ]
    return Source(name, tests, rows + [Row(text, None, "clean", False) for text in problems("gsm8k/train.jsonl")])


def _source(name: str, tests: list[str], by_hand: list[dict], clean: list[str], rng: random.Random) -> Source:
    number = {text: place for place, text in enumerate(tests)}
    rows = [Row(row["paraphrase"], number[row["original"]], row["style"], True) for row in by_hand]
    for item in rng.sample(range(len(tests)), min(NUM_BY_RULE, len(tests))):
        text = by_rule(tests[item])
        if text != tests[item]:
            rows.append(Row(text, item, "rule", True))
    for item in rng.sample(range(len(tests)), min(NUM_RENUMBERED, len(tests))):
        if changed := renumbered(tests[item], rng):
            rows.append(Row(changed, item, "renumbered", False))
    for row in by_hand:
        if changed := renumbered(row["paraphrase"], rng):
            rows.append(Row(changed, number[row["original"]], "renumbered_paraphrase", False))
    return Source(name, tests, rows + [Row(text, None, "clean", False) for text in clean])


def by_rule(text: str) -> str:
    """Return a text with synonyms, and its last sentence first if it is a question of its own."""
    for word, other in _SYNONYMS.items():
        text = re.sub(rf"\b{word}\b", lambda match, other=other: _cased(match[0], other), text, flags=re.IGNORECASE)
    *told, asked = re.split(r"(?<=[.?!])\s+", text.strip())
    return f"{asked} This is what is known: {' '.join(told)}" if told and asked.endswith("?") else text


def renumbered(text: str, rng: random.Random) -> str | None:
    """Return a text with one, or most, of its numbers changed, or None if there is nothing to change."""
    values = sorted({match[0] for match in _NUMBER.finditer(text)})
    if not values:
        return None
    num_changed = 1 if rng.random() < 0.5 else max(1, round(len(values) * 0.7))
    taken = set(values)
    changes = {}
    for value in rng.sample(values, num_changed):
        changes[value] = _another(value, taken, rng)
        taken.add(changes[value])
    return _NUMBER.sub(lambda match: changes.get(match[0], match[0]), text)


def _another(value: str, taken: set[str], rng: random.Random) -> str:
    if value in _SPELLED:
        return rng.choice([word for word in _SPELLED if word not in taken] or ["thirteen"])
    old = float(value.replace(",", ""))
    decimals = len(value.partition(".")[2])
    spread = 2
    while True:
        new = max(old * rng.uniform(0.5, 2) + rng.randint(-spread, spread), 2)
        text = f"{new:,.{decimals}f}" if "," in value else f"{new:.{decimals}f}"
        if text not in taken:
            return text
        spread += 1


def _cased(found: str, other: str) -> str:
    return other.capitalize() if found[0].isupper() else other
