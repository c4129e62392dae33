"""SIGKILL at random moments, and the same command again: every sample exactly once."""

import itertools
import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from helpers import quiet_environment
from test_cli import wait_for

from trl_math.cli.main import main


SCRIPT = Path(__file__).parent / "engine" / "kill_generate.py"
NUM_KILLS, NUM_SAMPLES = 50, 12 * 600


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What fifty kills left behind."""
    folder = tmp_path_factory.mktemp("kill")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "0"],
        cwd=folder,
        env=quiet_environment(),
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "found.json").read_text())


@pytest.mark.slow
def test_every_sample_is_there_once(found):
    assert found["num_rows"] == NUM_SAMPLES
    assert found["is_each_once"]


@pytest.mark.slow
def test_no_line_is_torn(found):
    assert found["ends_whole"]


@pytest.mark.slow
def test_all_samples_have_the_same_settings(found):
    assert found["samplers"] == [found["sampler"]]


@pytest.mark.slow
def test_no_kill_loses_what_was_there(found):
    counts = [0, *found["after_kills"], found["num_rows"]]
    assert all(before <= after for before, after in itertools.pairwise(counts))


@pytest.mark.slow
def test_work_was_really_interrupted(found):
    """Many kills came in the middle of sampling, and none after its end."""
    counts = found["after_kills"]
    assert len(counts) == NUM_KILLS
    assert counts[-1] < NUM_SAMPLES, "the last kill left nothing to do: the run is too short for fifty"
    assert len(set(counts)) >= 10, "hardly a session wrote anything before it was killed"


def test_a_real_model_that_is_killed(tmp_path):
    """Sampling with transformers, killed after its first rows; then the same command to its end."""
    rows = [{"problem": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(6)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        *("generate", "--model", "embedded:tiny", "--data", "problems.jsonl", "--backend", "transformers"),
        *("--batch-size", "8", "--max-tokens", "24", "--num-samples", "100", "--output", "run"),
    ]
    file = tmp_path / "run" / "completions.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "trl_math.cli.main", *words],
        env=quiet_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: file.exists() and file.read_bytes().count(b"\n") > 20, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = file.read_bytes()
    assert 20 < before.count(b"\n") < 600
    # As if it had been killed within a line.
    file.write_bytes(before[: before.rfind(b"\n") + 1] + b'{"problem_id": "problems/0", "sample_in')
    assert main(words) == 0
    assert file.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    keys = Counter((row["problem_id"], row["sample_index"]) for row in map(json.loads, file.open()))
    assert set(keys.values()) == {1} and len(keys) == 600
    assert len(json.loads((tmp_path / "run" / "run.json").read_text())["sessions"]) == 2
