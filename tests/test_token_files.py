"""Token files: nothing lost on the way, files of the original read and written, broken ones refused by name."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trl_math.data.npy import NpyFile, NpyWriter
from trl_math.data.token_blocks import Block, Counts
from trl_math.data.token_files import MadeTokens, Shape, TokenFile
from trl_math.data.token_format import choose_dtype, prefix_of
from trl_math.data.token_rows import content_digest, is_within, load_token_rows, origin_of, with_all_labels
from trl_math.errors import DataError, RunFolderError, StoreError, UsageError


PARTS = (".tok", ".msk", ".idx")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def block(*rows):
    """Rows of (id, is excluded)."""
    ids = [[token for token, _ in row] for row in rows]
    return Block.of_labels(ids, [[-100 if out else token for token, out in row] for row in rows])


def made(name, blocks, layout="ragged", dtype="uint16", length=None, pad=0, **facts):
    shape = Shape(layout, np.dtype(dtype), length, pad)
    return MadeTokens(prefix_of(name)).write(blocks, shape, lambda: {"tokenizer": None, "made_of": facts})


def all_rows(file):
    return [(ids.tolist(), mask.tolist()) for ids, mask in map(file.row, range(len(file)))]


def original(name, rows, length=8, pad=0, *, dtype=np.uint16):
    """Write files as rephrase_tokenize.py of llm-decontaminator does: through mapped arrays."""
    tok = np.lib.format.open_memmap(f"{name}.tok", mode="w+", dtype=dtype, shape=(len(rows), length))
    msk = np.lib.format.open_memmap(f"{name}.msk", mode="w+", dtype=np.int8, shape=(len(rows), length))
    idx = np.lib.format.open_memmap(f"{name}.idx", mode="w+", dtype=np.int64, shape=(len(rows) + 1,))
    tok[:], msk[:], idx[:] = pad, 2, np.arange(len(rows) + 1)
    for number, row in enumerate(rows):
        tok[number, : len(row)] = [token for token, _ in row]
        msk[number, : len(row)] = [1 + 2 * out for _, out in row]


ROW = [(5, True), (6, True), (7, False), (2, False)]
SHORT = [(9, False), (2, False)]


# ---- Nothing is lost ----


tokens = st.lists(st.tuples(st.integers(0, 150_000), st.booleans()), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(tokens, min_size=1, max_size=12),
    layout=st.sampled_from(["ragged", "padded"]),
    per_block=st.integers(1, 5),
    num_tokens=st.integers(1, 40),
)
def test_rows_come_back(tmp_path, rows, layout, per_block, num_tokens):
    """Ids, masks and lengths are the same, however rows are cut up when they are written and read."""
    blocks = [block(*rows[first : first + per_block]) for first in range(0, len(rows), per_block)]
    length = max(map(len, rows)) + 2 if layout == "padded" else None
    manifest = made(tmp_path / "x.tok", blocks, layout, "uint32", length, pad=rows[0][0][0])
    file = TokenFile.open(tmp_path / "x.tok")
    expected = [([token for token, _ in row], [1 + 2 * out for _, out in row]) for row in rows]
    assert all_rows(file) == expected
    again = made(tmp_path / "y.tok", file.blocks(num_tokens), layout, "uint32", length, pad=file.pad_id)
    assert again == manifest
    for suffix in PARTS:
        assert (tmp_path / f"x{suffix}").read_bytes() == (tmp_path / f"y{suffix}").read_bytes()
    counts = Counts()
    assert sum(len(one.lengths) for one in counts.over(file.blocks(num_tokens))) == len(rows)
    assert counts.as_facts() == file.facts
    made_rows = load_token_rows(tmp_path / "x.tok")
    assert list(made_rows["input_ids"]) == [ids for ids, _ in expected]
    assert list(made_rows["labels"]) == [[-100 if out else token for token, out in row] for row in rows]
    assert list(with_all_labels(made_rows)["labels"]) == [ids for ids, _ in expected]


def test_numpy_reads_the_parts():
    made("x.tok", [block(ROW, SHORT)])
    assert np.load("x.tok").tolist() == [5, 6, 7, 2, 9, 2]
    assert np.load("x.msk").tolist() == [3, 3, 1, 1, 1, 1] and np.load("x.msk").dtype == np.int8
    assert np.load("x.idx").tolist() == [0, 4, 6] and np.load("x.idx").dtype == np.int64


def test_what_is_written_is_what_numpy_writes(tmp_path):
    for array in (np.arange(7, dtype=np.uint16), np.zeros((3, 5), np.int8), np.arange(70_000, dtype=np.int64)):
        np.save(tmp_path / "theirs.npy", array)
        writer = NpyWriter(tmp_path / "ours.npy", array.dtype, array.shape[1:])
        for part in np.array_split(array, 3):
            writer.append(part)
        writer.finish()
        assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "theirs.npy").read_bytes()


@pytest.mark.parametrize("vocabulary", [100, 65_535, 65_536, 150_000])
def test_ids_are_as_wide_as_the_vocabulary_needs(vocabulary):
    fits = vocabulary <= 65_535
    assert choose_dtype(None, vocabulary) == (np.uint16 if fits else np.uint32)
    assert choose_dtype("uint32", vocabulary) == np.uint32
    if fits:
        assert choose_dtype("uint16", vocabulary) == np.uint16
    else:
        with pytest.raises(UsageError, match="wrap around"):
            choose_dtype("uint16", vocabulary)


@pytest.mark.parametrize("token", [65_536, 128_000, -1])
def test_an_id_that_does_not_fit_is_never_wrapped(token):
    with pytest.raises(DataError, match=f"The id {token} does not fit uint16"):
        made("x.tok", [block(SHORT), block([(token, False)])])
    assert os.listdir() == []


def test_no_id_is_taken_for_padding():
    """The id that stands in the padding, and the sentinel of the original, are ids like others."""
    rows = [[(0, False), (0, False)], [(65_535, False), (0, True), (0, False)]]
    made("x.tok", [block(*rows)], "padded", "uint32", 5, pad=0)
    assert [ids for ids, _ in all_rows(TokenFile.open("x.tok"))] == [[0, 0], [65_535, 0, 0]]


# ---- The original's files ----


def test_files_of_the_original_are_read():
    original("x", [ROW, SHORT])
    file = TokenFile.open("x.tok")
    assert all_rows(file) == [([5, 6, 7, 2], [3, 3, 1, 1]), ([9, 2], [1, 1])]
    assert (file.layout, file.max_length, file.pad_id, file.manifest) == ("padded", 8, 0, None)
    assert file.facts["num_trained"] == 4 and file.facts["largest_id"] == 9
    rows = load_token_rows("x.tok")
    assert list(rows["labels"]) == [[-100, -100, 7, 2], [9, 2]]
    assert origin_of(rows).tokenizer is None


def test_without_masks_all_is_real_and_trained():
    original("x", [ROW, SHORT], length=4, pad=3)
    Path("x.msk").unlink()
    Path("x.idx").unlink()
    rows = load_token_rows("x")
    assert list(rows["input_ids"]) == list(rows["labels"]) == [[5, 6, 7, 2], [9, 2, 3, 3]]


def test_the_original_comes_back_bit_for_bit():
    original("x", [ROW, SHORT], pad=3)
    file = TokenFile.open("x.tok")
    made("ragged.tok", file.blocks(), pad=file.pad_id)
    ragged = TokenFile.open("ragged")
    made("y.tok", ragged.blocks(), "padded", "uint16", file.max_length, ragged.pad_id)
    for suffix in PARTS:
        assert Path(f"x{suffix}").read_bytes() == Path(f"y{suffix}").read_bytes()


def test_a_name_with_dots_keeps_its_parts():
    """The original replaces `.tok` wherever it stands in a path."""
    Path("my.tokens").mkdir()
    made("my.tokens/a.tok.b.tok", [block(ROW)])
    assert sorted(os.listdir("my.tokens")) == ["a.tok.b.idx", "a.tok.b.msk", "a.tok.b.tok", "a.tok.b.tok.json"]
    assert len(load_token_rows("my.tokens/a.tok.b.tok")) == 1


# ---- What is broken ----


def shorten(name, by=1):
    os.truncate(name, Path(name).stat().st_size - by)


def lengthen(name):
    with open(name, "ab") as file:
        file.write(b"\0\0")


def save(name, array):
    with open(name, "wb") as file:
        np.save(file, array, allow_pickle=array.dtype == object)


def manifest(**changes):
    found = json.loads(Path("x.tok.json").read_text())
    Path("x.tok.json").write_text(json.dumps({**found, **changes}))


DAMAGES = {
    "cut ids": (lambda: shorten("x.tok"), "x.tok is not whole"),
    "cut masks": (lambda: shorten("x.msk"), "x.msk is not whole"),
    "cut offsets": (lambda: shorten("x.idx", 8), "x.idx is not whole"),
    "cut header": (lambda: os.truncate("x.tok", 20), "x.tok is no NPY file"),
    "empty": (lambda: os.truncate("x.tok", 0), "x.tok is no NPY file"),
    "too long": (lambda: lengthen("x.tok"), "x.tok is not whole"),
    "text": (lambda: Path("x.tok").write_text("1 2 3"), "x.tok is no NPY file"),
    "objects": (lambda: save("x.tok", np.array([{}, None])), "x.tok holds object"),
    "floats": (lambda: save("x.tok", np.zeros(6, np.float32)), "x.tok holds float32"),
    "other byte order": (lambda: save("x.tok", np.zeros(6, ">u2")), "x.tok holds >u2"),
    "column by column": (lambda: save("x.tok", np.asfortranarray(np.zeros((2, 3), np.uint16))), "column by column"),
    "other shape of masks": (lambda: save("x.msk", np.ones(5, np.int8)), "x.msk has the shape"),
    "padding in ragged rows": (lambda: save("x.msk", np.zeros(6, np.int8)), "x.msk has padding"),
    "no offsets": (lambda: Path("x.idx").unlink(), "x.idx: No such file"),
    "offsets beyond the end": (lambda: save("x.idx", np.array([0, 4, 7])), "x.idx does not fit"),
    "offsets that end early": (lambda: save("x.idx", np.array([0, 4, 5])), "x.idx does not fit"),
    "offsets that begin late": (lambda: save("x.idx", np.array([1, 4, 6])), "x.idx does not fit"),
    "offsets that go back": (lambda: save("x.idx", np.array([0, 7, 6])), "x.idx does not fit"),
    "no offset": (lambda: save("x.idx", np.array([], np.int64)), "x.idx does not fit"),
    "another manifest": (lambda: manifest(num_rows=9), "num_rows 9 there, 2 here"),
    "a manifest of the future": (lambda: manifest(format=2), "has format 2"),
    "half a manifest": (lambda: Path("x.tok.json").write_text("{"), "x.tok.json cannot be read"),
    "no manifest of ours": (lambda: Path("x.tok.json").write_text("[]"), "x.tok.json is no manifest"),
    "a manifest without sizes": (
        lambda: Path("x.tok.json").write_text('{"command": "tokenize", "format": 1}'),
        "layout",
    ),
    "no file": (lambda: Path("x.tok").unlink(), "No token file"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES.keys())
def test_broken_files_are_refused_by_name(damage, message):
    made("x.tok", [block(ROW, SHORT)])
    damage()
    with pytest.raises(DataError, match=message):
        all_rows(TokenFile.open("x.tok"))


def test_padding_in_the_middle_is_refused():
    original("x", [ROW, SHORT])
    save("x.msk", np.array([[3, 3, 1, 1, 2, 2, 2, 2], [2, 2, 1, 1, 2, 2, 2, 2]], np.int8))
    with pytest.raises(DataError, match=r"x\.msk, rows 0 to 1, has real tokens behind padding"):
        load_token_rows("x.tok")


def test_files_without_rows_are_refused():
    original("x", [])
    with pytest.raises(DataError, match=r"x\.tok has no rows"):
        load_token_rows("x.tok")


def test_changed_content_is_found_where_it_counts():
    made("x.tok", [block(ROW, SHORT)])
    before = content_digest(load_token_rows("x.tok"))
    with open("x.tok", "r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(b"\7\0")
    with pytest.raises(DataError, match=r"x\.tok is not as it was written"):
        content_digest(load_token_rows("x.tok"))
    Path("x.tok.json").unlink()
    assert before not in (None, content_digest(load_token_rows("x.tok")))


def test_a_selection_is_no_whole_file():
    made("x.tok", [block(ROW, *[SHORT] * 9)])
    rows = load_token_rows("x.tok")
    assert content_digest(rows.select([1])) is None and content_digest(rows.shuffle(seed=0)) is None
    assert origin_of(rows.select([1])) == origin_of(rows)
    assert is_within(rows, 4) and not is_within(rows, 3)


# ---- Whole or not at all ----


def test_nothing_is_left_of_an_error():
    def blocks():
        yield block(ROW)
        raise DataError("no more")

    with pytest.raises(DataError, match="no more"):
        made("out/x.tok", blocks())
    assert os.listdir("out") == []


def test_files_of_others_are_left_alone():
    """Other tools call their files .idx, too."""
    Path("x.idx").write_text("of somebody else")
    with pytest.raises(RunFolderError, match=r"x\.idx exists"):
        MadeTokens(prefix_of("x.tok")).is_finished({})
    assert Path("x.idx").read_text() == "of somebody else"


def test_a_killed_process_is_made_good():
    made("x.tok", [block(ROW)], rows=1)
    file = MadeTokens(prefix_of("x.tok"))
    assert file.is_finished({"rows": 1})
    Path("x.tok").unlink()
    assert not file.is_finished({"rows": 1})
    made("x.tok", [block(SHORT)], rows=2)
    assert all_rows(TokenFile.open("x")) == [([9, 2], [1, 1])]
    with pytest.raises(RunFolderError, match="rows 2 there, 1 here"):
        file.is_finished({"rows": 1})


def child(code, *words):
    """Run code in a process of its own; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, words)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_full_disk_is_an_error_of_one_line():
    said = child(
        """
        import os, resource
        import numpy as np
        from trl_math.data.token_blocks import Block
        from trl_math.data.token_files import MadeTokens, Shape
        from trl_math.data.token_format import prefix_of
        from trl_math.errors import StoreError

        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        blocks = (Block.of_labels([[1] * 1000], [[1] * 1000]) for _ in range(1000))
        try:
            MadeTokens(prefix_of("x.tok")).write(blocks, Shape("ragged", np.dtype("uint16")), dict)
        except StoreError as error:
            print(error, os.listdir())
        """
    )
    assert said == "Cannot write x.tok: File too large. Nothing of it is left. []\n"


def test_a_gigabyte_is_opened_without_loading_it():
    """A sparse file of 1 GiB: opened, read at places, selected from, in memory far below its size."""
    num_rows, length = 2**19, 2**10
    np.lib.format.open_memmap("x.tok", mode="w+", dtype=np.uint16, shape=(num_rows * length,))
    save("x.idx", np.arange(num_rows + 1) * length)
    facts = {"num_rows": num_rows, "num_tokens": num_rows * length, "num_trained": num_rows * length, "largest_id": 0}
    shape = {"layout": "ragged", "dtype": "uint16", "max_length": None, "pad_id": 0, "lengths": {}}
    Path("x.tok.json").write_text(
        json.dumps({"command": "tokenize", "format": 1, **facts, **shape, "tokenizer": None, "sha256": {}})
    )
    code = """
        import sys
        from trl_math.data.token_files import TokenFile
        from trl_math.data.token_rows import load_token_rows, with_all_labels

        def megabytes():
            return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")) / 1024

        before = megabytes()
        file = TokenFile.open("x.tok")
        assert len(file.row(300_000)[0]) == 1024
        rows = with_all_labels(load_token_rows("x.tok")).shuffle(seed=0)
        assert len(rows) == 2**19 and rows[5]["labels"] == [0] * 1024
        print(megabytes() - before)
        """
    assert Path("x.tok").stat().st_size > 2**30
    assert float(child(code)) < 128


def test_mapped_files_cannot_be_written_to():
    made("x.tok", [block(ROW)])
    array = NpyFile.open(Path("x.tok"), (np.uint16,), (1,)).mapped()
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_a_place_that_cannot_be_written_is_an_error_of_one_line():
    Path("out").write_text("a file")
    with pytest.raises(StoreError, match=r"Cannot write out/x\.tok"):
        made("out/x.tok", [block(ROW)])


def test_processes_of_one_training_make_the_cache_once():
    """All of them open the same file at the same moment; none is sent away."""
    original("x", [ROW, SHORT] * 500)
    code = """
        import sys
        import datasets
        datasets.config.HF_DATASETS_CACHE = "cache"
        from trl_math.data.token_rows import load_token_rows
        print(len(load_token_rows("x.tok")), sum(map(len, load_token_rows("x.tok")["input_ids"])))
        """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    ranks = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [rank.communicate(timeout=120)[0] for rank in ranks] == ["1000 3000\n"] * 3
    assert len(list(Path("cache/trl_math_tokens").glob("*.labels.npy"))) == 1
