"""The files of the code that was published with Fine-tune-CoT: data sets of problems, and of completions.

    problems      {"metadata": {"dataset_key"}, "data": [{sample_index, question, answer, rationale?}, ...]}
    completions   {"metadata": {base_model, dataset_key, ...}, "data": {"<sample_index>": [{sample_index,
                  completion_index, question, answer, prompt, completion, finish_reason, reasoning_prompt?,
                  reasoning_completion?, reasoning_finish_reason?}, ...]}}

There `sample_index` is the problem and `completion_index` the sample. A teacher is asked in two stages: the reasoning
first, then, with that in the prompt, the answer. A record that has a `reasoning_completion` is of two stages. Files of
completions are read a record at a time; a record that cannot be used is named by its problem and its place.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trl_math.data.json_stream import JsonStream
from trl_math.data.made_file import MadeFile
from trl_math.data.prompt_styles import PROMPT_STYLES, THEREFORE
from trl_math.errors import DataError


Record = dict[str, Any]

RECORD = "record"
# Not `.json` alone: that may be the file that was read.
MADE_SUFFIX = ".convert.json"
IDENTITY = ("sample_index", "completion_index")
TEXTS = ("question", "prompt", "completion")
# What the published templates are called here, and what announces the answer in their completions.
TEMPLATES = {
    "zs": ("zero_shot", ""),
    "zs_cot": ("zero_shot_cot", THEREFORE),
    "fs_cot": ("few_shot_cot", PROMPT_STYLES["few_shot_cot"].answer_prefix),
    "ft_token": ("ft_token", ""),
    "ft_cot_token": ("ft_cot_token", PROMPT_STYLES["ft_cot_token"].answer_prefix),
    # Its labels have no comma, and its students therefore write none.
    "ft_cot_natural": ("ft_cot_natural", "Therefore the answer is"),
}


class Sampled(NamedTuple):
    """What a model was given and what it said, the two stages joined; `finish_reason` is length if one was cut."""

    prompt: str
    completion: str
    finish_reason: str | None


class Contents(NamedTuple):
    """A file of completions without them."""

    head: dict[str, Any]  # everything but `data`
    problems: list[dict[str, Any]]  # problem_id, question, answer
    num_completions: int
    num_missing: int  # records whose completion has not been drawn
    unlike: list[str]  # of two stages, and their prompt is not what the first stage's prompt and reasoning make


def kind_of(path: Path) -> str | None:
    """Return `dataset` or `completion_dataset` for a file that is one, by what its `data` begin with; else None."""
    with JsonStream(path, is_strict=False) as stream:
        try:
            if not stream.starts("{"):
                return None
            for name in stream.members("the file"):
                if name == "data":
                    return "dataset" if stream.starts("[") else "completion_dataset" if stream.starts("{") else None
                stream.value(name)
        except DataError:
            pass  # whoever reads it as what it is will say what is wrong
    return None


def read_problems(path: Path, kind: str) -> list[dict[str, Any]]:
    """Return the problems of a file of either kind."""
    if kind == "completion_dataset":
        return read_contents(path).problems
    head, records = read_dataset(path)
    return dataset_rows(head, records, path)


def read_dataset(path: Path) -> tuple[dict[str, Any], list[Record]]:
    """Return a data set of problems: everything but `data`, and the records."""
    with JsonStream(path) as stream:
        value = stream.value("the file")
        stream.end()
    if not isinstance(value, dict) or not isinstance(value.get("data"), list):
        raise DataError(f"{path} is no data set: expected an object with metadata, and data, a list of records.")
    return {name: part for name, part in value.items() if name != "data"}, value["data"]


def dataset_rows(head: Mapping[str, Any], records: list[Record], path: Path) -> list[dict[str, Any]]:
    """Return the problems of a data set, each with an id of its own; what else a record has stays."""
    key = dataset_key(head.get("metadata"), path)
    rows: list[dict[str, Any]] = []
    for place, record in enumerate(records):
        if not isinstance(record, dict):
            raise DataError(f"{path}: problem {place} is {type(record).__name__}, and no object.")
        if missing := [name for name in ("question", "answer") if name not in record]:
            raise DataError(f"{path}: problem {place} has no {' and no '.join(missing)}.")
        if broken := _half_pair(record):
            raise DataError(f"{path}: problem {place}: {broken}.")
        rows.append({"problem_id": f"{key}/{record.get('sample_index', place)}", **record})
    return rows


def problem_rows(head: Mapping[str, Any], records: list[Record], path: Path) -> list[dict[str, Any]]:
    """Return the problems of a data set in our columns, each with the record that it is made of."""
    return [
        {
            "problem_id": row["problem_id"],
            "problem": record["question"],
            "answer": record["answer"],
            **({"solution": record["rationale"]} if record.get("rationale") else {}),
            RECORD: json.dumps(record),  # as a text: whatever it has is no matter of columns
        }
        for row, record in zip(dataset_rows(head, records, path), records, strict=True)
    ]


def dataset_file(output: Path) -> MadeFile:
    """Return the file of a data set's problems, with what else it said beside it."""
    return MadeFile(output, output.with_name(output.stem + MADE_SUFFIX), "convert")


def kept_dataset(path: Path) -> tuple[dict[str, Any], list[Record]] | None:
    """Return the data set that a file of problems was made of, None if it was made of none."""
    file = dataset_file(path)
    if path.suffix != ".jsonl" or not path.is_file() or not file.manifest.is_file():
        return None
    head = file.read_manifest().get("head")
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return (
        (head, [json.loads(row[RECORD]) for row in rows])
        if head is not None and all(RECORD in row for row in rows)
        else None
    )


def export_dataset(problems: Iterable[Mapping[str, Any]], stem: str) -> tuple[dict[str, Any], list[Record]]:
    """Return problems as a data set."""
    rows = list(problems)
    numbers = sample_numbers([row["problem_id"] for row in rows])
    records = [
        {
            "sample_index": numbers[row["problem_id"]],
            "question": row["problem"],
            "answer": row["answer"],
            **({"rationale": row["solution"]} if row.get("solution") else {}),
        }
        for row in rows
    ]
    return {"metadata": {"dataset_key": stem}}, records


def sample_numbers(ids: Sequence[str]) -> dict[str, int]:
    """Return a whole number for each problem: the one that ends its id, or its place where that does not tell them."""
    ends = [re.search(r"(?:^|/)(\d+)$", name) for name in ids]
    numbers = [int(end[1]) for end in ends if end]
    return dict(zip(ids, numbers if len(set(numbers)) == len(ids) else range(len(ids)), strict=True))


def dataset_key(metadata: Any, path: Path) -> str:
    """Return the name of the problems, with which their ids begin."""
    key = metadata.get("dataset_key") if isinstance(metadata, dict) else None
    return str(key) if key else path.stem


def read_completions(path: Path, head: dict[str, Any]) -> Iterator[tuple[str, list[Record]]]:
    """Yield the records of each problem, by its key; put everything else of the file into `head` as it comes."""
    with JsonStream(path) as stream:
        has_data = False
        for name in stream.members("the file"):
            if name in head or (name == "data" and has_data):
                raise DataError(f"{path}: {name!r} is there twice.")
            if name == "data":
                has_data = True
                yield from _groups(stream)
            else:
                head[name] = stream.value(repr(name))
        stream.end()
    if not has_data:
        raise DataError(f"{path} has no completions: expected data, an object of lists of records.")
    if not isinstance(head.get("metadata", {}), dict):
        raise DataError(f"{path}: metadata is no object.")


def read_contents(path: Path) -> Contents:
    """Read a file of completions to its end, check every record, and return what it is about."""
    head: dict[str, Any] = {}
    found: dict[str, tuple[Any, Any]] = {}
    num_completions = num_missing = 0
    unlike: list[str] = []
    for key, records in read_completions(path, head):
        for place, record in enumerate(records):
            if record.get("reasoning_completion") is not None and not _is_joined(record):
                unlike.append(f"completion {place} of problem {key!r}")
            is_missing = record.get("completion") is None
            num_missing += is_missing
            num_completions += not is_missing
        if records:
            found[key] = records[0]["question"], records[0]["answer"]
    stem = dataset_key(head.get("metadata"), path)
    problems = [
        {"problem_id": f"{stem}/{key}", "question": question, "answer": answer}
        for key, (question, answer) in found.items()
    ]
    return Contents(head, problems, num_completions, num_missing, unlike)


def template_of(metadata: Mapping[str, Any]) -> tuple[str | None, str]:
    """Return the prompt style of completions, by its name here if it has one, and what announces their answers."""
    asked = metadata.get("prediction_template") or metadata.get("completion_key")
    names = [name for name in TEMPLATES if asked == name or str(asked).startswith(f"{name}_")]
    return TEMPLATES[max(names, key=len)] if names else (str(asked) if asked else None, "")


def sampled(record: Record) -> Sampled:
    """Return a record as one sample: of two stages, the reasoning, what asked for the answer, and the answer.

    Where the prompt does not say what asked for the answer, it is taken to be the published phrase.
    """
    answer, reasoning = record["completion"], record.get("reasoning_completion")
    if reasoning is None:
        return Sampled(record["prompt"], answer, record.get("finish_reason"))
    asked = _first_prompt(record)
    joined = record["prompt"].removeprefix(asked)
    text = joined if _is_joined(record) else f"{reasoning.rstrip()}\n{THEREFORE}"
    reasons = record.get("reasoning_finish_reason"), record.get("finish_reason")
    reason = "length" if "length" in reasons else reasons[1]
    return Sampled(asked, _spaced(asked, text) + _spaced(text, answer), reason)


def _is_joined(record: Record) -> bool:
    """Whether the prompt of a record of two stages is the first one's prompt and reasoning, and what follows these."""
    asked, prompt = _first_prompt(record), record["prompt"]
    rest = prompt[len(asked) :].lstrip()
    return prompt.startswith(asked) and rest.startswith(record["reasoning_completion"].strip())


def _first_prompt(record: Record) -> str:
    """Return the prompt of the first stage; where none is told, what stands before the reasoning."""
    prompt, reasoning = str(record["prompt"]), record["reasoning_completion"].strip()
    if told := record.get("reasoning_prompt"):
        return str(told if prompt.startswith(told) else told.rstrip())  # published prompts were stripped
    return prompt.partition(reasoning)[0].rstrip() if reasoning else prompt


def _half_pair(record: Record) -> str | None:
    """Return what is wrong if a problem has half of a surrogate pair, which is no text and cannot be written."""
    for name in ("question", "answer", "rationale"):
        try:
            str(record.get(name)).encode()
        except UnicodeEncodeError:
            return f"{name} has half of a surrogate pair (\\ud800 to \\udfff), no text"
    return None


def _spaced(before: str, text: str) -> str:
    """Return a text as it follows another: what was stripped of its space gets one."""
    is_apart = not before or not text or before[-1].isspace() or text[0].isspace()
    return text if is_apart else f" {text}"


def _groups(stream: JsonStream) -> Iterator[tuple[str, list[Record]]]:
    seen: set[str] = set()
    for key in stream.members("data"):
        if key in seen:
            raise DataError(f"{stream.path}: problem {key!r} is there twice.")
        seen.add(key)
        records: list[Record] = []
        indices: set[int] = set()
        for place in stream.items(f"problem {key!r}"):
            where = f"completion {place} of problem {key!r}"
            record = stream.value(where)
            if wrong := _what_is_wrong(record, key, indices):
                raise DataError(f"{stream.path}: {where}: {wrong}.")
            indices.add(record["completion_index"])
            records.append(record)
        yield key, records


def _what_is_wrong(record: Any, key: str, indices: set[int]) -> str | None:
    """Return what keeps a record from being used, or None. A completion that has not been drawn yet may be null."""
    if not isinstance(record, dict):
        return f"it is {type(record).__name__}, and no object"
    needed = (*IDENTITY, "question", "answer", "prompt")
    if missing := [name for name in needed if name not in record]:
        return f"it has no {' and no '.join(missing)}"
    for name in IDENTITY:
        if type(record[name]) is not int or record[name] < 0:
            return f"{name} is {record[name]!r}, and no whole number"
    if str(record["sample_index"]) != key:
        return f"sample_index is {record['sample_index']}, and it stands under {key!r}"
    if record["completion_index"] in indices:
        return f"completion_index {record['completion_index']} is there twice"
    texts = [*TEXTS, *(name for name in ("reasoning_prompt", "reasoning_completion") if name in record)]
    for name in texts:
        value = record.get(name)
        if not isinstance(value, str) and (value is not None or name in ("question", "prompt")):
            return f"{name} is {type(value).__name__}, and no text"
    return _half_pair(record)
