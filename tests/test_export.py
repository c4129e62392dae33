"""Samples as one table: order, formats, and that what is exported is what was drawn."""

import json

import datasets
import pytest

from trl_math.data import load_source
from trl_math.data.columns import COMPLETIONS
from trl_math.errors import DataError, RunFolderError, UsageError
from trl_math.generation import export as export_module
from trl_math.generation.export import export, to_dataset
from trl_math.generation.store import CompletionStore, Shard


def row(problem, index=0, **changes):
    return {
        "problem_id": problem,
        "sample_index": index,
        "prompt": f"What is {problem}?",
        "completion": f"It is \\boxed{{{index}}}.",
        "completion_ids": [index, 2, 3],
        "num_tokens": 3,
        "logprob": None,
        "finish_reason": "stop",
        "sampler": "0123456789ab",
    } | changes


def filled(folder, rows, shard=None):
    with CompletionStore(folder, {"model": "m"}, sampler="0123456789ab", shard=shard) as store:
        for sample in rows:
            store.append(sample)
    return folder


LOGPROBS = {"logprob": -1.5, "token_logprobs": [-0.5, None, -1.0]}
MESSAGES = [
    {"role": "user", "content": "2+2?"},
    {"role": "assistant", "content": "4"},
    {"role": "user", "content": "é"},
]
KINDS = {
    "text": row("p/0"),
    "messages": row("p/0", prompt=MESSAGES),
    "log-probabilities": row("p/0", **LOGPROBS),
    "too long": row("p/0", completion="", completion_ids=[], num_tokens=0, finish_reason="prompt_too_long"),
    "a server without token ids": row("p/0", completion_ids=None),
    "unicode": row("p/0", completion="a\u2028b\x00c\r\n😀"),
}


def test_rows_are_in_the_order_of_problems(tmp_path):
    """Numbers in ids count as numbers, and samples of a problem are together, however they came."""
    ids = ["gsm8k/10", "gsm8k/9", "gsm8k/1", "aime/2024-II-3", "aime/2024-I-15", "aime/2024-I-2", "x", "7"]
    filled(tmp_path / "run", [row(problem, index) for index in (1, 0) for problem in ids[::2]], Shard(0, 2))
    filled(tmp_path / "run", [row(problem, index) for index in (0, 1) for problem in ids[1::2]], Shard(1, 2))
    found = to_dataset(tmp_path / "run")
    expected = ["7", "aime/2024-I-2", "aime/2024-I-15", "aime/2024-II-3", "gsm8k/1", "gsm8k/9", "gsm8k/10", "x"]
    keys = list(zip(found["problem_id"], found["sample_index"], strict=True))
    assert keys == [(problem, index) for problem in expected for index in (0, 1)]


def test_ids_that_count_alike_are_different_problems(tmp_path):
    """`a1` and `a01`, digits of other alphabets, powers: all of them are ids."""
    ids = ["a1", "a01", "a001", "x²", "²", "٣", "3"]
    filled(tmp_path / "run", [row(problem) for problem in ids])
    assert sorted(to_dataset(tmp_path / "run")["problem_id"]) == sorted(ids)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_export_is_what_was_drawn(tmp_path, kind, suffix):
    rows = [KINDS[kind], {**KINDS[kind], "sample_index": 1}]
    file = tmp_path / "deep" / f"samples{suffix}"
    assert export(filled(tmp_path / "run", rows), file) == 2
    assert load_source(str(file)).to_list() == rows
    assert to_dataset(tmp_path / "run").to_list() == rows
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_json_lines_are_one_object_each(tmp_path):
    rows = [row("p/0"), row("p/1", completion="two\nlines")]
    export(filled(tmp_path / "run", rows), tmp_path / "samples.jsonl")
    assert [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().split("\n")[:-1]] == rows


@pytest.mark.parametrize("kind", KINDS)
def test_columns_have_the_same_types_whatever_is_in_them(tmp_path, kind):
    """Folders can be put together: a column that is empty in one has the type that it has in others."""
    features = to_dataset(filled(tmp_path / "run", [KINDS[kind]])).features
    text, number, real = (datasets.Value(name) for name in ("string", "int64", "float64"))
    expected = dict.fromkeys(COMPLETIONS.required, text) | {
        "sample_index": number,
        "num_tokens": number,
        "logprob": real,
        "completion_ids": datasets.List(number),
    }
    if kind == "messages":
        expected["prompt"] = datasets.List({"role": text, "content": text})
    if kind == "log-probabilities":
        expected["token_logprobs"] = datasets.List(real)
    assert dict(features) == expected
    assert list(features) == [column for column in COMPLETIONS.columns if column in expected]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_half_a_surrogate_pair_becomes_a_replacement_character(tmp_path, suffix):
    """The store keeps what a server sent; tables are UTF-8."""
    filled(tmp_path / "run", [row("p/0", completion="a \ud83d b", prompt=[{"role": "user", "content": "\udc00"}])])
    export(tmp_path / "run", tmp_path / f"samples{suffix}")
    [found] = load_source(str(tmp_path / f"samples{suffix}")).to_list()
    assert found["completion"] == "a \ufffd b" and found["prompt"][0]["content"] == "\ufffd"


def test_many_rows_are_read_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "CHUNK", 7)
    filled(tmp_path / "run", [row(f"p/{number}", index) for index in range(3) for number in range(19)])
    found = to_dataset(tmp_path / "run")
    assert found["problem_id"] == [f"p/{number}" for number in range(19) for _ in range(3)]
    assert found["sample_index"] == [0, 1, 2] * 19


def test_a_line_that_is_being_written_is_left_out(tmp_path):
    file = filled(tmp_path / "run", [row("p/0"), row("p/1")]) / "completions.jsonl"
    file.write_bytes(file.read_bytes()[:-1])
    assert to_dataset(tmp_path / "run")["problem_id"] == ["p/0"]


@pytest.mark.parametrize("rows", [None, []])
def test_a_folder_without_samples_is_refused(tmp_path, rows):
    if rows is not None:
        filled(tmp_path / "run", rows)
    with pytest.raises(DataError, match="There are no samples in"):
        export(tmp_path / "run", tmp_path / "samples.parquet")
    assert not (tmp_path / "samples.parquet").exists()


def test_files_that_cannot_be_written(tmp_path):
    filled(tmp_path / "run", [row("p/0")])
    with pytest.raises(UsageError, match=r"export must end in \.parquet or \.jsonl, got .*samples\.csv"):
        export(tmp_path / "run", tmp_path / "samples.csv")


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_an_export_of_the_folder_is_written_again(tmp_path, suffix):
    """Also inside the folder."""
    for file in (tmp_path / f"samples{suffix}", tmp_path / "run" / f"completions-all{suffix}"):
        number = len(to_dataset(filled(tmp_path / "run", [row("p/0", 5)]))) if not (tmp_path / "run").exists() else 2
        assert export(tmp_path / "run", file) == number
        if number == 1:
            filled(tmp_path / "run", [row("p/0", 1)])
        assert export(tmp_path / "run", file) == len(load_source(str(file))) == 2
        assert not list(file.parent.glob("*.part"))


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_a_file_of_others_is_left_alone(tmp_path, suffix):
    """Whatever it is: text, nothing, a table without samplers, samples of other settings or of other problems."""
    filled(tmp_path / "run", [row("p/0")])
    file = tmp_path / f"samples{suffix}"
    makers = [
        lambda: file.write_text("mine"),
        lambda: file.write_text(""),
        lambda: file.write_text("[1]\n"),
        lambda: datasets.Dataset.from_list([{"a": 1}]).to_parquet(file),
        lambda: datasets.Dataset.from_list([row("p/0")]).select([]).to_parquet(file),
        lambda: datasets.Dataset.from_list([row("p/0", sampler="feedfeedfeed")]).to_parquet(file),
        lambda: file.write_text(json.dumps(row("p/0", sampler="feedfeedfeed")) + "\n"),
        lambda: (file.unlink(), export(filled(tmp_path / "other", [row("q/0")]), file)),
        lambda: (file.unlink(), file.mkdir()),
    ]
    for make in makers:
        make()
        before = file.is_file() and file.read_bytes()
        with pytest.raises(RunFolderError, match=rf"samples\{suffix} exists and is no export of .*: choose another"):
            export(tmp_path / "run", file)
        assert (file.is_file() and file.read_bytes()) == before


@pytest.mark.parametrize("name", ["completions.jsonl", "completions-00001-of-00002.jsonl"])
def test_an_export_is_no_file_of_samples(tmp_path, name, monkeypatch):
    filled(tmp_path / "run", [row("p/0")])
    before = (tmp_path / "run" / "completions.jsonl").read_bytes()
    monkeypatch.chdir(tmp_path)
    for file in (tmp_path / "run" / name, f"run/../run/{name}"):
        with pytest.raises(UsageError, match="is the name of a file of samples"):
            export(tmp_path / "run", file)
    assert (tmp_path / "run" / "completions.jsonl").read_bytes() == before
    assert export(tmp_path / "run", tmp_path / "elsewhere" / name) == 1
