"""Who takes which part of the work, on which devices, and what becomes of one process among several."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from helpers import quiet_environment
from test_cli import wait_for

from trl_math.cli.main import main
from trl_math.errors import UsageError
from trl_math.generation.store import Shard, completion_files, read_rows
from trl_math.share import (
    PARENT_VARIABLE,
    PART_VARIABLE,
    Part,
    _told_to_end,
    _ToldToEnd,
    devices_of,
    own_part,
    run_parts,
    take_own_devices,
    visible_gpus,
)


GPUS = "CUDA_VISIBLE_DEVICES"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch):
    """No test sees the devices or the launcher of another, or leaves its own behind."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", PART_VARIABLE, GPUS):
        monkeypatch.delenv(name, raising=False)
    for name in ("OMP_NUM_THREADS", "VLLM_CPU_OMP_THREADS_BIND"):
        monkeypatch.setenv(name, os.environ.get(name, "1"))


# Devices


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("0,1,2,3", ["0", "1", "2", "3"]),
        (" 3, 1 ,", ["3", "1"]),
        ("GPU-8932f937,MIG-GPU-41a", ["GPU-8932f937", "MIG-GPU-41a"]),
        ("", []),
        ("-1", []),
        ("0,-1,1", ["0"]),
    ],
)
def test_gpus_are_those_that_cuda_would_show(monkeypatch, text, names):
    """By the names in CUDA_VISIBLE_DEVICES, up to the first that is none, as CUDA reads them."""
    monkeypatch.setenv(GPUS, text)
    assert visible_gpus() == names


def test_without_the_variable_all_gpus_are_visible():
    assert visible_gpus() == [str(index) for index in range(torch.cuda.device_count())]


@pytest.mark.parametrize(
    ("gpus_each", "shares"),
    [(1, ["GPU-a", "7", "2", "MIG-b"]), (2, ["GPU-a,7", "2,MIG-b"]), (4, ["GPU-a,7,2,MIG-b"])],
)
def test_gpus_are_dealt_out_without_overlap(monkeypatch, gpus_each, shares):
    monkeypatch.setenv(GPUS, "GPU-a,7,2,MIG-b")
    assert [devices_of(index, len(shares), gpus_each)[GPUS] for index in range(len(shares))] == shares


@pytest.mark.parametrize(("number", "gpus_each"), [(5, 1), (3, 2), (1, 8)])
def test_more_gpus_than_there_are(monkeypatch, number, gpus_each):
    monkeypatch.setenv(GPUS, "0,1,2,3")
    with pytest.raises(UsageError, match=f"{number} engines of {gpus_each} GPUs need {number * gpus_each}; 4 are"):
        devices_of(0, number, gpus_each)


@pytest.mark.parametrize(
    ("cores", "number", "shares"),
    [
        ({0, 1, 2, 3}, 2, ["0,2", "1,3"]),
        ({4, 9, 6}, 1, ["4,6,9"]),
        ({4, 9, 6}, 2, ["4,9", "6"]),
        ({0, 1}, 5, ["0", "1", "0", "1", "0"]),
    ],
)
def test_cores_are_dealt_out(monkeypatch, cores, number, shares):
    """On a CPU each process has cores of its own among those that this one may use; threads as many."""
    monkeypatch.setenv(GPUS, "")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: cores, raising=False)
    given = [devices_of(index, number, 1) for index in range(number)]
    assert [one["VLLM_CPU_OMP_THREADS_BIND"] for one in given] == shares
    assert [one["OMP_NUM_THREADS"] for one in given] == [str(share.count(",") + 1) for share in shares]


def test_cores_where_the_system_does_not_tell_which_are_ours(monkeypatch):
    monkeypatch.setenv(GPUS, "")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert [devices_of(index, 2, 1)["VLLM_CPU_OMP_THREADS_BIND"] for index in range(2)] == ["0,2", "1,3"]


# Parts


@pytest.mark.parametrize(
    ("environment", "part"),
    [
        ({}, Part(0, 1, False)),
        ({"RANK": "3", "WORLD_SIZE": "8"}, Part(3, 8, False)),
        ({PART_VARIABLE: "1/2"}, Part(1, 2, True)),
        ({PART_VARIABLE: "1/2", "RANK": "3", "WORLD_SIZE": "8"}, Part(1, 2, True)),
    ],
)
def test_a_process_knows_its_part(monkeypatch, environment, part):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert own_part() == part


def test_a_rank_takes_the_gpu_of_its_place_on_the_machine(monkeypatch):
    """The second machine's second process of four: rank 5, but GPU number 1."""
    monkeypatch.setenv(GPUS, "a,b,c,d")
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    take_own_devices(own_part())
    assert os.environ[GPUS] == "b"


@pytest.mark.parametrize("part", [Part(), Part(1, 2, is_child=True)])
def test_alone_or_started_from_here_devices_stay_as_they_are(monkeypatch, part):
    monkeypatch.setenv(GPUS, "a,b")
    take_own_devices(part)
    assert os.environ[GPUS] == "a,b"


@pytest.mark.parametrize("asked", ["0/1", "0/3", "2/3"])
@pytest.mark.parametrize("number", [1, 2, 5])
def test_parts_of_a_shard_are_the_shard(asked, number):
    """However many processes share a shard, they ask its problems and no others."""
    from trl_math.cli.generate import own_shard
    from trl_math.recipes import build_generate

    arguments = build_generate({"shard": asked, "backend": "scripted"})
    shards = [own_shard(arguments, Part(index, number)) for index in range(number)]
    problems = list(range(100))
    whole = Shard.parse(asked)
    dealt = [problem for shard in shards for problem in problems[shard.index :: shard.number]]
    assert sorted(dealt) == problems[whole.index :: whole.number]


# Processes


def test_processes_that_all_succeed_are_a_success(capfd, monkeypatch):
    monkeypatch.setenv(GPUS, "")
    assert run_parts(["--version"], 2, 1) == 0
    assert capfd.readouterr().out.count("trl-math ") == 2


def test_a_mistake_is_the_status_of_them_all(capfd, monkeypatch):
    monkeypatch.setenv(GPUS, "")
    assert run_parts(["nonsense"], 2, 1) == 2
    assert "Unknown command 'nonsense'" in capfd.readouterr().err


@pytest.mark.slow
def test_one_that_fails_does_not_stop_the_others_and_the_same_command_does_the_rest(tmp_path, monkeypatch, capfd):
    """Two engines, the file of one of them held by someone else."""
    for name, value in quiet_environment().items():
        monkeypatch.setenv(name, value)
    rows = [{"problem": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(7)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        *("generate", "--model", "embedded:tiny", "--data", "problems.jsonl", "--backend", "scripted"),
        *("--num-samples", "3", "--output", "run", "--data-parallel-size", "2", "--export", "all.jsonl"),
    ]
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / f".{Shard(1, 2).file_name}.lock"):
        assert main(words) == 2
    errors = capfd.readouterr().err
    assert "trl-math: Another process is writing run/completions-00001-of-00002.jsonl" in errors
    assert "Traceback" not in errors
    assert len(list(read_rows(tmp_path / "run"))) == 4 * 3, "the other shard is done"
    assert not (tmp_path / "all.jsonl").exists()
    assert main(words) == 0
    assert [file.name for file in completion_files(tmp_path / "run")] == [Shard(i, 2).file_name for i in range(2)]
    assert len((tmp_path / "all.jsonl").read_text().splitlines()) == 7 * 3
    said = capfd.readouterr().out
    assert "Wrote all 21 samples to all.jsonl" in said
    assert "run holds 21 samples of 7 problems.\n" in said
    fewer = [word if word != "3" else "2" for word in words[:-2]]
    assert main(fewer) == 0
    assert "run holds 14 samples of 7 problems (21 in all).\n" in capfd.readouterr().out


# The end


def is_running(pid):
    """Whether a process is there, and is not only waiting for somebody to take note of its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's end")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_engines_end_with_the_process_that_started_them(tmp_path, number):
    """However it ends, nothing goes on behind it, and the folder is free; also where the shell ignores Ctrl-C."""
    rows = [{"problem": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(4)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        *(sys.executable, "-m", "trl_math.cli.main", "generate", "--model", "embedded:tiny", "--batch-size", "4"),
        *("--data", "problems.jsonl", "--backend", "transformers", "--num-samples", "5000", "--output", "run"),
        *("--data-parallel-size", "2", "--max-tokens", "16"),
    ]
    environment = {**quiet_environment(), GPUS: ""}
    shell = ["bash", "-c", 'trap "" INT; exec "$@"', "bash"]
    process = subprocess.Popen(shell + words, env=environment, stderr=subprocess.PIPE, text=True)
    files = [tmp_path / "run" / Shard(index, 2).file_name for index in range(2)]
    wait_for(lambda: all(file.exists() and file.stat().st_size for file in files), process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2 and all(map(is_running, children))
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    wait_for(lambda: not any(map(is_running, children)), Ended, seconds=30)
    for file in files:
        with FileLock(file.with_name(f".{file.name}.lock"), timeout=0):
            pass
    assert "Traceback" not in errors
    if number == signal.SIGTERM:
        assert process.returncode == 128 + number
        assert errors.splitlines()[-1] == "trl-math: ended by SIGTERM. The same command goes on where it stopped."


class Ended:
    """In the place of a process, where what is waited for comes after its end."""

    @staticmethod
    def poll():
        return None


def test_a_process_whose_parent_is_gone_does_not_begin(tmp_path):
    """The parent that started it was another one, and has ended before it could be asked about."""
    environment = {**quiet_environment(), PART_VARIABLE: "0/2", PARENT_VARIABLE: "1", GPUS: ""}
    words = [sys.executable, "-m", "trl_math.cli.main", "generate", "--model", "embedded:tiny"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (130, "")


def test_signals_are_heard_for_a_while_only():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number in before:
        with pytest.raises(_ToldToEnd) as told, _told_to_end():
            signal.raise_signal(number)
            time.sleep(10)
        assert told.value.number == number
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with _told_to_end():
            signal.raise_signal(signal.SIGHUP)  # as under nohup
    finally:
        signal.signal(signal.SIGHUP, before[signal.SIGHUP])
    assert {number: signal.getsignal(number) for number in before} == before


def test_processes_are_run_from_any_thread(monkeypatch):
    monkeypatch.setenv(GPUS, "")
    statuses = []
    thread = threading.Thread(target=lambda: statuses.append(run_parts(["--version"], 1, 1)))
    thread.start()
    thread.join()
    assert statuses == [0]
