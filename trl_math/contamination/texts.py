"""The two sides of a comparison: ids, texts and answers of any rows that the package knows.

What of a row is read depends on `part`:

    problem   what is asked: the problem with its choices, a prompt, what the user says in messages
    all       that and what is answered: solution, completion, the other messages

A row that is one text (`text`, `content`, or an instruction with its input) is that text in both. Chat messages give
their contents, so that no markup of a template is compared. Rows are read as they are: a leak is a leak also where the
answer cannot be read.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import datasets

from trl_math.data.columns import FROM_0, listing
from trl_math.data.problems import ALIASES
from trl_math.errors import DataError, pick


PARTS = ("problem", "all")
IDS = ("problem_id", "unique_id", "task_id", "row_id", "pair_id", "id")
# What tells rows of one problem apart.
OF_ONE_ID = ("sample_index", "chosen_index", "rejected_index")
# Of these, the first that rows have is what is asked, and all of the second are what is answered.
ASKED = ("prompt", "problem", "question", "instruction", "input", "query")
ANSWERED = ("completion", "chosen", "rejected", "canonical_solution", "solution", "output", "response", "rationale")
WHOLE = ("text", "content", "code")
CHATS = ("messages", "conversations")
NUM_EXAMPLES = 5


class Texts(NamedTuple):
    """Texts that can be compared. `facts`: how many rows there were, and what happened to them."""

    ids: list[str]
    texts: list[str]
    answers: list[str | None]
    facts: dict[str, Any]


def read_texts(
    dataset: datasets.Dataset | Sequence[Mapping[str, Any]], part: str = "problem", source: str = "the data"
) -> Texts:
    """Return ids, texts and answers of rows. Empty texts are dropped and counted.

    Ids that rows lack are made, `row-<number>` with the number of the row from 0, and counted in `facts`. Samples of
    one problem are told apart by their `sample_index`, pairs by those of their two samples, and other rows of one id,
    as there are where rows stand more often, by their number: `7, row-12`.
    """
    pick("part", part, PARTS)
    names = _names(dataset)
    if len(dataset) and not _has_text(names):
        raise DataError(
            f"No text in {source!r}. Found: {listing(names)}. Expected a problem ({listing(ASKED)}; or body and "
            f"question), messages ({listing(CHATS)}) or one text ({listing(WHOLE)})."
        )
    texts = Texts([], [], [], {})
    num_made = num_repeated = num_empty = 0
    seen: set[str] = set()
    empty: list[str] = []
    for number, row in enumerate(dataset):
        lower = {name.lower(): value for name, value in row.items()}
        own = _own_id(lower)
        row_id = _unique_id(own, number, seen)
        num_made += own is None
        num_repeated += own is not None and row_id != own
        text = _text(lower, part, f"row {number} of {source!r}")
        if not text.strip():
            num_empty += 1
            empty.append(row_id)
            continue
        texts.ids.append(row_id)
        texts.texts.append(text)
        texts.answers.append(_answer(lower))
    texts.facts.update(
        source=source,
        part=part,
        num_rows=len(dataset),
        num_texts=len(texts.ids),
        num_empty=num_empty,
        empty_ids=empty[:NUM_EXAMPLES],
        num_ids_made=num_made,
        num_ids_repeated=num_repeated,
    )
    return texts


def row_ids(dataset: datasets.Dataset) -> list[str]:
    """Return the ids of all rows, as `read_texts` has them; those of the rows that it drops are among them."""
    names = [name for name in dataset.column_names if name.lower() in (*IDS, *OF_ONE_ID)]
    rows = zip(*(dataset[name] for name in names), strict=True) if names else [()] * len(dataset)
    owns = [_own_id({name.lower(): value for name, value in zip(names, row, strict=True)}) for row in rows]
    seen: set[str] = set()
    return [_unique_id(own, number, seen) for number, own in enumerate(owns)]


def _unique_id(own: str | None, number: int, seen: set[str]) -> str:
    """Return the id of a row that no row before it has, and remember it."""
    made = f"row-{number}"
    row_id = made if own is None else own
    while row_id in seen:
        row_id = f"{row_id}, {made}"
    seen.add(row_id)
    return row_id


def _names(dataset: datasets.Dataset | Sequence[Mapping[str, Any]]) -> list[str]:
    if isinstance(dataset, datasets.Dataset):
        return list(dataset.column_names)
    return list(dict.fromkeys(name for row in dataset for name in row))


def _has_text(names: Iterable[str]) -> bool:
    return bool({name.lower() for name in names} & {*ASKED, *WHOLE, *CHATS})


def _own_id(row: Mapping[str, Any]) -> str | None:
    own = next((str(row[name]) for name in IDS if row.get(name) not in (None, "")), None)
    # Several samples of one problem train beside each other, and several pairs of them.
    numbers = [str(row[name]) for name in OF_ONE_ID if row.get(name) is not None]
    return own if own is None or not numbers else f"{own}#{'-'.join(numbers)}"


def _answer(row: Mapping[str, Any]) -> str | None:
    value = next((row[name] for name in ALIASES["answer"] if row.get(name) not in (None, "")), None)
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _text(row: Mapping[str, Any], part: str, where: str) -> str:
    """Return what is compared of a row whose names are in small letters."""
    chat = next((row[name] for name in CHATS if row.get(name)), None)
    if chat is not None:
        return _chat(chat, part, where)
    asked = next((name for name in ASKED if row.get(name) not in (None, "", [])), None)
    if asked is None:
        return next((_plain(row[name], where) for name in WHOLE if row.get(name) not in (None, "")), "")
    pieces = [_plain(row[asked], where)]
    if asked == "question" and row.get("body"):
        pieces.insert(0, _plain(row["body"], where))
    if asked == "instruction" and row.get("input"):
        pieces.append(_plain(row["input"], where))
    choices = row.get("choices") or row.get("options")
    if choices:
        pieces.append(_plain(choices, where))
    if part == "all":
        pieces += [_plain(row[name], where) for name in ANSWERED if row.get(name) not in (None, "")]
    return "\n".join(piece for piece in pieces if piece)


def _chat(messages: Any, part: str, where: str) -> str:
    """Return what messages say; of the problem, what the user says."""
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        raise DataError(f"The messages of {where} are no list of objects with a role and a content. {FROM_0}")
    said = [
        (str(message.get("role", message.get("from", ""))), message.get("content", message.get("value")))
        for message in messages
    ]
    if part == "problem":
        said = [(role, content) for role, content in said if role in ("user", "human")] or said[:1]
    return "\n".join(_plain(content, where) for _, content in said if content)


def _plain(value: Any, where: str) -> str:
    """Return a value as text: texts, lists of texts or of messages, numbers."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        # A prompt that is a conversation, or content in parts: the parts that are text.
        return "\n".join(
            _plain(item.get("content", item.get("text", item.get("value"))) or "", where) for item in value
        )
    if isinstance(value, list):
        return "\n".join(_plain(item, where) for item in value)
    if isinstance(value, Mapping):
        return "\n".join(_plain(item, where) for item in value.values() if item)
    return "" if value is None else str(value)
