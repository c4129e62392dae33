"""The store: every sample once, through torn lines, second writers, other settings and full disks."""

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest
from filelock import FileLock
from helpers import quiet_environment
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_math.cli.main import main
from trl_math.errors import DataError, RunFolderError, StoreError, TrlMathError, UsageError
from trl_math.generation import store as store_module
from trl_math.generation.export import to_dataset
from trl_math.generation.store import CompletionStore, Shard, completion_files, read_rows


SETTINGS = {"model": "m@1", "temperature": 1.0, "stop": ["\n"], "seed": 0}
SAMPLER = "0123456789ab"
TEXTS = ["plain", "", "two\nlines\r\n", "\u2028 \u2029 \x85 \x0b \x1c", "nul \x00 end", "∑ é 数学 😀", '"\\']


def row(problem="p/0", index=0, text="It is \\boxed{1}.", **changes):
    return {
        "problem_id": problem,
        "sample_index": index,
        "prompt": f"What is {problem}?",
        "completion": text,
        "completion_ids": [1, 2, 3],
        "num_tokens": 3,
        "logprob": None,
        "finish_reason": "stop",
        "sampler": SAMPLER,
    } | changes


def opened(folder, shard=None, **changes):
    return CompletionStore(folder, {**SETTINGS, **changes}, sampler=SAMPLER, shard=shard)


def rows_of(folder):
    return [found for _, _, found in read_rows(folder)]


def keys_of(folder):
    return [(found["problem_id"], found["sample_index"]) for found in rows_of(folder)]


def write(folder, keys, shard=None):
    with opened(folder, shard) as store:
        for problem, index in keys:
            store.append(row(problem, index))
        return store


def is_whole(file):
    """Whether every line is a JSON object, the last one too."""
    data = file.read_bytes()
    return (not data or data.endswith(b"\n")) and all(json.loads(line) for line in data.split(b"\n")[:-1])


HEAD = """
import json, resource, sys, time
from trl_math.errors import StoreError
from trl_math.generation.store import CompletionStore, read_rows
folder, told = sys.argv[1:]
settings, sampler, row = json.loads(told)
with CompletionStore(folder, settings, sampler=sampler) as store:
"""


@pytest.fixture
def run_store(tmp_path):
    """Runs lines of Python with a store that is open in a process of its own."""

    def start(code):
        return subprocess.Popen(
            [
                *(sys.executable, "-c", HEAD + textwrap.indent(code, "    ")),
                *(str(tmp_path / "run"), json.dumps([SETTINGS, SAMPLER, row()])),
            ],
            env=quiet_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


# What is written, and what is there


def test_a_new_store_is_empty(tmp_path):
    with opened(tmp_path / "deep" / "run") as store:
        assert len(store) == 0 and store.problem_ids == [] and ("p/0", 0) not in store and store.session == 0
    assert completion_files(tmp_path / "deep" / "run") == [tmp_path / "deep" / "run" / "completions.jsonl"]


def test_what_was_appended_is_there_when_it_is_opened_again(tmp_path):
    write(tmp_path / "run", [("p/0", 0), ("p/0", 2), ("p/1", 0)])
    with opened(tmp_path / "run") as store:
        assert len(store) == 3 and store.problem_ids == ["p/0", "p/1"] and store.session == 1
        assert ("p/0", 2) in store and ("p/0", 1) not in store and ("p/2", 0) not in store
        store.append(row("p/0", 1))
        assert ("p/0", 1) in store
    assert sorted(keys_of(tmp_path / "run")) == [("p/0", 0), ("p/0", 1), ("p/0", 2), ("p/1", 0)]


def test_a_sample_is_readable_as_soon_as_it_is_appended(tmp_path):
    with opened(tmp_path / "run") as store:
        for index in range(3):
            store.append(row(index=index))
            assert keys_of(tmp_path / "run") == [("p/0", i) for i in range(index + 1)]


def test_a_sample_is_written_once(tmp_path):
    write(tmp_path / "run", [("p/0", 0)])
    with opened(tmp_path / "run") as store:
        with pytest.raises(StoreError, match=r"Sample 0 of 'p/0' is in .* already"):
            store.append(row())
        store.append(row(index=1))
        with pytest.raises(StoreError, match="Sample 1 of 'p/0'"):
            store.append(row(index=1))
    assert keys_of(tmp_path / "run") == [("p/0", 0), ("p/0", 1)]


def test_a_sample_that_was_written_is_known_even_if_the_disk_then_fails(tmp_path, monkeypatch):
    """A failing fsync leaves the line in the file: appending it again must not double it."""

    def failing(file):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(store_module, "SYNC_SECONDS", -1.0)
    with opened(tmp_path / "run") as store:
        monkeypatch.setattr(os, "fsync", failing)
        with pytest.raises(StoreError, match="Input/output error"):
            store.append(row())
        with pytest.raises(StoreError, match="already"):
            store.append(row())
    assert keys_of(tmp_path / "run") == [("p/0", 0)]


@pytest.mark.parametrize("text", [*TEXTS, "half \ud83d of a pair", "\udc00"], ids=ascii)
def test_any_text_comes_back_as_it_was(tmp_path, text):
    with opened(tmp_path / "run") as store:
        store.append(row(text=text, prompt=[{"role": "user", "content": text}]))
        store.append(row(index=1))
    assert is_whole(tmp_path / "run" / "completions.jsonl")
    first, second = rows_of(tmp_path / "run")
    assert first["completion"] == text and first["prompt"] == [{"role": "user", "content": text}]
    assert second["sample_index"] == 1
    with opened(tmp_path / "run") as store:
        store.check_prompt("p/0", [{"role": "user", "content": text}])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_log_probability_that_is_no_number_is_null(tmp_path, value):
    """JSON has no NaN: the sample is kept, and so is every other log-probability."""
    with opened(tmp_path / "run") as store:
        store.append(row(logprob=value, token_logprobs=[-0.5, value, -1.0]))
    [found] = rows_of(tmp_path / "run")
    assert found["logprob"] is None and found["token_logprobs"] == [-0.5, None, -1.0]
    assert to_dataset(tmp_path / "run")[0]["token_logprobs"] == [-0.5, None, -1.0]


def test_the_manifest_says_what_and_who(tmp_path):
    for session in range(2):
        with opened(tmp_path / "run") as store:
            store.record_session({"engine": "scripted", "version": session})
            store.append(row(index=session))
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (manifest["command"], manifest["sampler"], manifest["settings"]) == ("generate", SAMPLER, SETTINGS)
    told = [(said["shard"], said["version"], said["num_present"]) for said in manifest["sessions"]]
    assert told == [("0/1", 0, 0), ("0/1", 1, 1)]


# Torn lines


def test_a_line_torn_at_any_byte_is_drawn_again(tmp_path):
    """Whatever a killed process left of a line, the sample is missing, and the file is whole when it is back."""
    write(tmp_path / "run", [("p/0", 0), ("p/1", 0)])
    file = tmp_path / "run" / "completions.jsonl"
    whole = file.read_bytes()
    start = whole.index(b"\n") + 1
    for end in range(start, len(whole)):
        file.write_bytes(whole[:end])
        assert keys_of(tmp_path / "run") == [("p/0", 0)], "a reader sees whole lines only"
        with opened(tmp_path / "run") as store:
            assert store.num_repaired == end - start
            assert ("p/0", 0) in store and ("p/1", 0) not in store
            assert file.read_bytes() == whole[:start]
            store.append(row("p/1", 0))
        assert file.read_bytes() == whole


@pytest.mark.parametrize("length", [1, 65_535, 65_536, 65_537, 200_000])
@pytest.mark.parametrize("before", [[], [("p/0", 0)]])
def test_a_torn_line_of_any_length_is_cut_off(tmp_path, before, length):
    """Also the only line of a file, also one with zeros, as a crash of the machine leaves them."""
    write(tmp_path / "run", before)
    file = tmp_path / "run" / "completions.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + b"{" + b"\0" * (length - 1))
    with opened(tmp_path / "run") as store:
        assert store.num_repaired == length and len(store) == len(before)
    assert file.read_bytes() == whole


def test_a_torn_line_in_another_shard_s_file_is_no_sample(tmp_path):
    """Only its own writer cuts it; until then nobody counts it, and what another shard drew instead is not doubled."""
    write(tmp_path / "run", [("p/0", 0), ("p/2", 0)], Shard(0, 2))
    file = tmp_path / "run" / Shard(0, 2).file_name
    file.write_bytes(file.read_bytes()[:-7])
    with opened(tmp_path / "run") as store:
        assert ("p/2", 0) not in store
        store.append(row("p/2", 0))
    with opened(tmp_path / "run", Shard(0, 2)) as store:
        assert store.num_repaired > 0 and ("p/2", 0) in store
    assert sorted(keys_of(tmp_path / "run")) == [("p/0", 0), ("p/2", 0)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{\x00\xff", "not a line of JSON"),
        (b'{"problem_id": "p/9", "sample_ind', "not a line of JSON"),
        (b"", "not a line of JSON"),
        (b"3", "not a sample"),
        (b'{"problem_id": "p/9"}', "not a sample: there is no sample_index, prompt"),
    ],
)
def test_a_broken_line_in_the_middle_is_an_error_that_names_it(tmp_path, line, message):
    write(tmp_path / "run", [("p/0", 0), ("p/1", 0)])
    file = tmp_path / "run" / "completions.jsonl"
    first, second = file.read_bytes().splitlines()
    broken = b"\n".join([first, line, second, b""])
    file.write_bytes(broken)
    with pytest.raises(DataError, match=rf"completions\.jsonl:2: {message}"), opened(tmp_path / "run"):
        pass
    assert file.read_bytes() == broken
    file.write_bytes(first + b"\n" + second + b"\n")
    with opened(tmp_path / "run") as store:  # the failure left no lock behind
        assert len(store) == 2


# Any interleaving


PROBLEMS, SAMPLES = 5, 2
WANTED = {(f"p/{problem}", index) for problem in range(PROBLEMS) for index in range(SAMPLES)}
SESSION = st.tuples(
    st.sampled_from([1, 2, 3]),  # shards
    st.integers(0, 2),  # which of them, modulo their number
    st.integers(0, 6),  # how many samples until it is killed
    st.integers(0, 60),  # bytes of the next line that it left
    st.booleans(),  # backwards
)


def missing_keys(store, shard):
    problems = range(shard.index, PROBLEMS, shard.number)
    keys = [(f"p/{problem}", index) for problem in problems for index in range(SAMPLES)]
    return [key for key in keys if key not in store]


@given(st.lists(SESSION, max_size=12))
@settings(max_examples=80, deadline=None)
def test_no_interleaving_loses_or_doubles_a_sample(sessions):
    """Sessions of any shards of any division, one after the other, each ended at any byte of a line."""
    with tempfile.TemporaryDirectory() as folder:
        written = set()
        for number, index, count, torn, is_backwards in sessions:
            shard = Shard(index % number, number)
            with opened(folder, shard) as store:
                assert {key for key in WANTED if key in store} == written
                missing = missing_keys(store, shard)[:: -1 if is_backwards else 1]
                for problem, sample in missing[:count]:
                    store.append(row(problem, sample))
                    written.add((problem, sample))
            if missing[count:]:
                line = json.dumps(row(*missing[count])).encode()
                with (Path(folder) / shard.file_name).open("ab") as file:
                    file.write(line[:torn])
            assert sorted(keys_of(folder)) == sorted(written)
        with opened(folder) as store:
            for problem, sample in missing_keys(store, Shard()):
                store.append(row(problem, sample))
        assert sorted(keys_of(folder)) == sorted(WANTED)


@given(st.lists(st.integers(0, 2), max_size=40))
@settings(max_examples=30, deadline=None)
def test_shards_that_write_at_once_do_not_meet(order):
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        shards = [Shard(index, 3) for index in range(3)]
        stores = [stack.enter_context(opened(folder, shard)) for shard in shards]
        for index in [*order, *(index for index in range(3) for _ in WANTED)]:
            for problem, sample in missing_keys(stores[index], shards[index])[:1]:
                stores[index].append(row(problem, sample))
        assert sorted(keys_of(folder)) == sorted(WANTED)


# Second writers


@pytest.mark.parametrize(
    ("first", "second", "is_allowed"),
    [
        (Shard(), Shard(), False),
        (Shard(0, 2), Shard(0, 2), False),
        (Shard(0, 2), Shard(1, 2), True),
        (Shard(0, 2), Shard(), False),
        (Shard(), Shard(1, 2), False),
        (Shard(0, 3), Shard(1, 2), False),
        (Shard(1, 100_002), Shard(1, 2), False),
        (Shard(0, 2), Shard(1, 4), True),
        (Shard(0, 2), Shard(2, 4), False),
        (Shard(3, 4), Shard(4, 6), True),
        (Shard(3, 4), Shard(5, 6), False),
    ],
    ids=str,
)
def test_a_second_writer_is_refused_unless_it_has_another_part(tmp_path, first, second, is_allowed):
    with opened(tmp_path / "run", first) as store:
        if is_allowed:
            with opened(tmp_path / "run", second) as other:
                other.append(row("p/1"))
        else:
            with (
                pytest.raises(RunFolderError, match=r"Another process is writing .*completions.*jsonl"),
                opened(tmp_path / "run", second),
            ):
                pass
        store.append(row("p/0"))
    with opened(tmp_path / "run", second):  # free again
        pass
    assert sorted(keys_of(tmp_path / "run")) == [("p/0", 0), *([("p/1", 0)] if is_allowed else [])]


@given(st.integers(1, 30), st.integers(1, 30), st.data())
def test_shards_overlap_if_some_problem_is_in_both(n, m, data):
    first, second = (Shard(data.draw(st.integers(0, number - 1)), number) for number in (n, m))
    problems = range(n * m)
    both = set(problems[first.index :: n]) & set(problems[second.index :: m])
    assert first.overlaps(second) is second.overlaps(first) is bool(both)


def test_others_open_the_folder_while_samples_are_read(tmp_path, monkeypatch):
    """The lock of the folder is free meanwhile, but settings stay those of the one that reads."""
    read = store_module.unique_rows

    def reading(folder):
        monkeypatch.setattr(store_module, "unique_rows", read)
        with FileLock(tmp_path / "run" / ".open.lock", timeout=0):
            pass
        write(tmp_path / "run", [], Shard(1, 2))
        with (
            pytest.raises(RunFolderError, match="temperature"),
            opened(tmp_path / "run", Shard(1, 2), temperature=0.5),
        ):
            pass
        with pytest.raises(RunFolderError, match="Another process is writing"), opened(tmp_path / "run"):
            pass
        write(tmp_path / "run", [("p/1", 0)], Shard(1, 2))
        yield from read(folder)

    monkeypatch.setattr(store_module, "unique_rows", reading)
    with opened(tmp_path / "run", Shard(0, 2)) as store:
        assert ("p/1", 0) in store
    assert store_module.unique_rows is read


def test_a_line_that_is_finished_while_it_is_read_is_no_line(tmp_path):
    """Its end, which comes after its beginning was read, is not taken for a line of its own."""
    write(tmp_path / "run", [("p/0", 0)])
    file = tmp_path / "run" / "completions.jsonl"
    line = json.dumps(row("p/1")) + "\n"
    long = json.dumps(row("p/2", text="x" * 300_000)) + "\n"
    with file.open("a") as growing:
        growing.write(line[:20])
        growing.flush()
        found = read_rows(tmp_path / "run")
        assert next(found)[2]["problem_id"] == "p/0"
        growing.write(line[20:] + long)
        growing.flush()
        assert [each["problem_id"] for _, _, each in found] in ([], ["p/1", "p/2"])
    assert len(rows_of(tmp_path / "run")) == 3


@pytest.mark.parametrize("kind", ["deleted", "folder deleted", "folder moved", "replaced"])
def test_a_file_that_is_no_longer_there_is_noticed(tmp_path, monkeypatch, kind):
    """At the next sync, and at the end."""

    def change():
        if kind == "deleted":
            (tmp_path / "run" / "completions.jsonl").unlink()
        elif kind == "replaced":
            shutil.copy(tmp_path / "run" / "completions.jsonl", tmp_path / "copy")
            (tmp_path / "copy").replace(tmp_path / "run" / "completions.jsonl")
        elif kind == "folder moved":
            (tmp_path / "run").rename(tmp_path / "moved")
        else:
            shutil.rmtree(tmp_path / "run")

    message = "completions.jsonl was deleted, moved or replaced while it was being written"
    with pytest.raises(StoreError, match=message), opened(tmp_path / "run") as store:
        store.append(row())
        change()
        store.append(row(index=1))  # not yet time to look
    for name in ("run", "moved"):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
    monkeypatch.setattr(store_module, "SYNC_SECONDS", -1.0)
    with opened(tmp_path / "run") as store:
        store.append(row())
        store.append(row(index=1))  # it is in its place
    with pytest.raises(StoreError, match=message), opened(tmp_path / "run") as store:
        change()
        store.append(row(index=2))
        raise AssertionError("it was not noticed at the sync")


def test_a_writer_in_another_process_is_refused_until_it_is_killed(tmp_path, run_store):
    process = run_store("store.append(row)\nprint('open', flush=True)\ntime.sleep(600)")
    try:
        assert process.stdout.readline() == "open\n"
        with pytest.raises(RunFolderError, match="Another process is writing"), opened(tmp_path / "run"):
            pass
        with pytest.raises(RunFolderError, match="Another process is writing"), opened(tmp_path / "run", Shard(1, 2)):
            pass
        assert keys_of(tmp_path / "run") == [("p/0", 0)], "reading is always allowed"
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    with opened(tmp_path / "run") as store:
        assert ("p/0", 0) in store
        store.append(row(index=1))


def test_of_many_that_open_at_once_one_writes(tmp_path):
    """Processes that start together on a new folder: one has it, the others are told so."""
    folder, go = tmp_path / "run", tmp_path / "go"
    children = []
    for _ in range(6):
        pid = os.fork()
        if pid == 0:
            status = 3
            with contextlib.suppress(BaseException):
                while not go.exists():
                    time.sleep(0.001)
                try:
                    with opened(folder) as store:
                        store.append(row())
                        while not (tmp_path / "done").exists():
                            time.sleep(0.001)
                        status = 0
                except RunFolderError:
                    status = 2
            os._exit(status)
        children.append(pid)
    go.touch()
    ended = [os.waitstatus_to_exitcode(os.waitpid(-1, 0)[1]) for _ in children[1:]]
    (tmp_path / "done").touch()
    ended.append(os.waitstatus_to_exitcode(os.waitpid(-1, 0)[1]))
    assert ended == [2] * 5 + [0]
    assert keys_of(folder) == [("p/0", 0)]


# Other settings, other samples


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.7}, "temperature 1.0 there, 0.7 here"),
        ({"model": "m@2", "seed": 1}, "model 'm@1' there, 'm@2' here, seed 0 there, 1 here"),
        ({"stop": []}, r"stop \['\\n'\] there, \[\] here"),
        ({"min_p": 0.1}, "min_p None there, 0.1 here"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path, changes, message):
    write(tmp_path / "run", [("p/0", 0)])
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with (
        pytest.raises(RunFolderError, match=f"holds samples of other settings .{message}"),
        opened(tmp_path / "run", **changes),
    ):
        pass
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    write(tmp_path / "run", [("p/0", 1)])


def test_settings_may_change_until_there_is_a_sample(tmp_path):
    """Unless another writer, which has not written yet, holds to them."""
    with opened(tmp_path / "run", Shard(0, 2)):
        with (
            pytest.raises(RunFolderError, match=r"temperature 1\.0 there, 0\.5 here"),
            opened(tmp_path / "run", Shard(1, 2), temperature=0.5),
        ):
            pass
        write(tmp_path / "run", [], Shard(1, 2))
    with opened(tmp_path / "run", temperature=0.5) as store:
        store.append(row())
    with pytest.raises(RunFolderError, match=r"temperature 0\.5 there, 1\.0 here"), opened(tmp_path / "run"):
        pass


def test_a_row_of_another_sampler_is_refused_by_its_line(tmp_path):
    write(tmp_path / "run", [("p/0", 0)])
    file = tmp_path / "run" / "completions.jsonl"
    file.write_text(file.read_text() + json.dumps(row("p/1", sampler="feedfeedfeed")) + "\n")
    with (
        pytest.raises(RunFolderError, match=r"completions\.jsonl:2: sampler 'feedfeedfeed'"),
        opened(tmp_path / "run"),
    ):
        pass


def test_a_sample_that_is_twice_in_a_file_is_an_error(tmp_path):
    write(tmp_path / "run", [("p/0", 0)])
    with (tmp_path / "run" / "completions.jsonl").open("a") as file:
        file.write(json.dumps(row()) + "\n")
    with pytest.raises(DataError, match=r"jsonl:2: sample 0 of 'p/0' is there twice"), opened(tmp_path / "run"):
        pass
    with pytest.raises(DataError, match=r"jsonl:2: sample 0 of 'p/0' is there twice"):
        to_dataset(tmp_path / "run")


def test_of_a_sample_in_two_files_the_first_counts(tmp_path, caplog):
    """Two shards that had other data at the same time may both have drawn it: neither is lost over that."""
    with opened(tmp_path / "run", Shard(0, 2)) as first, opened(tmp_path / "run", Shard(1, 2)) as second:
        for store, text in ((first, "first"), (second, "second")):
            for index in range(3):
                store.append(row(index=index, text=text))
        second.append(row("p/1"))
    for read in (lambda: opened(tmp_path / "run").__enter__(), lambda: to_dataset(tmp_path / "run")):
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="trl_math"):
            found = read()
        [said] = [record.getMessage() for record in caplog.records]
        assert said.startswith("3 samples in") and len(found) == 4
        if isinstance(found, CompletionStore):
            found.__exit__(None, None, None)
    assert found["completion"] == ["first"] * 3 + [row()["completion"]]


@pytest.mark.parametrize("name", ["completions-all.jsonl", "completions-1-of-2.jsonl", "completions.all.jsonl"])
def test_other_files_are_no_samples(tmp_path, name):
    write(tmp_path / "run", [("p/0", 0)])
    (tmp_path / "run" / name).write_text("mine\n")
    with opened(tmp_path / "run") as store:
        assert len(store) == 1 and len(to_dataset(tmp_path / "run")) == 1
    assert [path.name for path in completion_files(tmp_path / "run")] == ["completions.jsonl"]


def test_samples_of_another_prompt_are_refused(tmp_path):
    with opened(tmp_path / "run") as store:
        store.append(row("p/0"))
        store.append(row("p/1", prompt=[{"role": "user", "content": "?"}]))
    with opened(tmp_path / "run") as store:
        store.check_prompt("p/0", "What is p/0?")
        store.check_prompt("p/1", [{"content": "?", "role": "user"}])
        store.check_prompt("p/2", "anything")
        for problem, prompt in (("p/0", "What was p/0?"), ("p/1", "?"), ("p/0", [])):
            with pytest.raises(RunFolderError, match=f"samples of '{problem}' for another prompt: the data changed"):
                store.check_prompt(problem, prompt)


# Folders of others


def foreign(folder, kind):
    """Make an output folder that is not ours; return what it holds."""
    folder = folder / "run"
    if kind == "a file":
        folder.write_text("text")
    elif kind == "below a file":
        folder.write_text("text")
        return folder / "deeper", {folder: b"text"}
    else:
        folder.mkdir()
        name, text = {
            "files of someone": ("notes.txt", "text"),
            "samples without a manifest": ("completions.jsonl", json.dumps(row()) + "\n"),
            "a training run": ("run.json", json.dumps({"is_finished": True, "settings": {}})),
            "a broken manifest": ("run.json", '{"command": "gen'),
            "a manifest that is a list": ("run.json", "[]"),
            "a manifest without settings": ("run.json", '{"command": "generate"}'),
        }[kind]
        (folder / name).write_text(text)
    files = folder.iterdir() if folder.is_dir() else [folder]
    return folder, {path: path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("a file", "is a file: choose another"),
        ("below a file", "Cannot put samples into .*deeper: Not a directory"),
        ("files of someone", "is not empty and holds no run.json of `trl-math generate`"),
        ("samples without a manifest", "is not empty and holds no run.json"),
        ("a training run", "belongs to another run of trl-math"),
        ("a broken manifest", "cannot be read as ours"),
        ("a manifest that is a list", "cannot be read as ours"),
        ("a manifest without settings", "cannot be read as ours"),
    ],
)
def test_a_folder_of_others_is_refused_and_left_alone(tmp_path, kind, message):
    folder, before = foreign(tmp_path, kind)
    with pytest.raises(TrlMathError, match=message), opened(folder):
        pass
    assert {path: path.read_bytes() for path in before} == before
    assert {path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"} == set(before)


def test_what_an_interrupted_start_leaves_is_ours(tmp_path):
    """A process killed before its first sample leaves locks and half a manifest at most."""
    (tmp_path / "run").mkdir()
    for name in (".open.lock", ".completions.jsonl.lock", "run.json.123.part"):
        (tmp_path / "run" / name).write_text('{"comm')
    write(tmp_path / "run", [("p/0", 0)])
    assert keys_of(tmp_path / "run") == [("p/0", 0)]


@pytest.mark.parametrize("text", ["2/2", "x", "", "1", "-1/2", "0/0", "1/2/3", "0.5/2", "a/b"])
def test_shards_that_are_none(text):
    with pytest.raises(UsageError, match="shard must be INDEX/NUMBER with the index counted from 0"):
        Shard.parse(text)


def test_shards_as_they_are_written():
    assert [Shard.parse(text) for text in ("0/1", " 2/8 ", "07/12")] == [Shard(), Shard(2, 8), Shard(7, 12)]
    assert str(Shard(2, 8)) == "2/8"
    assert Shard(2, 8).file_name == "completions-00002-of-00008.jsonl"


# Full disks


FILL = """
file = store.folder / "completions.jsonl"
no_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
messages = []
for index in range(40):
    if index % 10 == 5:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 100, no_limit[1]))
        try:
            store.append({**row, "sample_index": index})
        except StoreError as error:
            messages.append(str(error))
        assert ("p/0", index) not in store and len(store) == index == len(list(read_rows(folder)))
        assert file.read_bytes().endswith(b"}\\n")
        resource.setrlimit(resource.RLIMIT_FSIZE, no_limit)
    store.append({**row, "sample_index": index})
print(json.dumps(messages))
"""


def test_a_full_disk_is_an_error_and_tears_no_line(tmp_path, run_store):
    """Writes that end in the middle of a line: nothing of it stays, and with room the same store goes on."""
    process = run_store(FILL)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    messages = json.loads(output)
    assert len(messages) == 4
    assert "completions.jsonl: File too large. Its 5 samples are whole and readable; make room" in messages[0]
    assert keys_of(tmp_path / "run") == [("p/0", index) for index in range(40)]


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a file system of a given size on a folder; skips where that is not permitted."""
    mounted = []

    def mount(**options):
        folder = tmp_path / "disk"
        folder.mkdir()
        words = ",".join(f"{name}={value}" for name, value in options.items())
        try:
            done = subprocess.run(["mount", "-t", "tmpfs", "-o", words, "tmpfs", folder], capture_output=True)
        except FileNotFoundError:
            pytest.skip("there is no mount here")
        if done.returncode:
            pytest.skip("file systems may not be mounted here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], check=True)


WORDS = (
    *("generate", "--model", "embedded:tiny", "--data", "problems.jsonl", "--backend", "scripted"),
    *("--num-samples", "100", "--output"),
)


@pytest.fixture
def problems(tmp_path):
    rows = [{"problem": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(20)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def is_one_line(errors, message):
    said = errors.strip().splitlines()
    assert [line for line in said if line.startswith("trl-math: ")] == said[-1:]
    assert message in said[-1]
    assert "Traceback" not in errors


def test_generate_on_a_full_disk(problems, small_disk):
    """The command, a disk that fills up, and room on it: one line, samples that can be read, and then all of them."""
    disk = small_disk(size="160k")
    words = [sys.executable, "-m", "trl_math.cli.main", *WORDS, str(disk / "run")]
    first = subprocess.run(words, env=quiet_environment(), capture_output=True, text=True, timeout=120)
    assert first.returncode == 2
    is_one_line(first.stderr, "completions.jsonl: No space left on device. Its ")
    present = keys_of(disk / "run")
    assert 50 < len(present) == len(set(present)) < 2000
    assert main([*WORDS, str(disk / "run")]) == 2
    assert set(keys_of(disk / "run")) >= set(present)
    subprocess.run(["mount", "-o", "remount,size=16m", disk], check=True)
    assert main([*WORDS, str(disk / "run")]) == 0
    found = keys_of(disk / "run")
    assert len(found) == len(set(found)) == 2000 and set(found) >= set(present)
    assert is_whole(disk / "run" / "completions.jsonl")


@pytest.mark.parametrize("num_inodes", [2, 3, 4, 5, 6])
def test_generate_on_a_disk_without_room_for_its_files(problems, small_disk, capsys, num_inodes):
    """The folder, a lock, the manifest or the samples' file cannot be made."""
    disk = small_disk(size="1m", nr_inodes=num_inodes)
    (disk / "taken").touch()
    assert main([*WORDS, str(disk / "run")]) == 2
    is_one_line(capsys.readouterr().err, "No space left on device")
    subprocess.run(["mount", "-o", "remount,nr_inodes=100", disk], check=True)
    assert main([*WORDS, str(disk / "run")]) == 0
    assert len(keys_of(disk / "run")) == 2000


@pytest.mark.parametrize("name", ["all.jsonl", "all.parquet"])
def test_export_to_a_full_disk_leaves_nothing_half_written(problems, small_disk, tmp_path, capsys, name):
    disk = small_disk(size="4k")
    assert main([*WORDS, str(tmp_path / "run"), "--export", str(disk / name)]) == 2
    is_one_line(capsys.readouterr().err, f"{name}: No space left on device. The samples are in ")
    assert list(disk.iterdir()) == []
    assert len(keys_of(tmp_path / "run")) == 2000
    assert main([*WORDS, str(tmp_path / "run"), "--export", str(tmp_path / name)]) == 0
