"""The report of damaged folders: a page, or one line that says what is wrong. Never a traceback."""

import copy
import json
import re
import shutil

import pytest
from report_runs import SHAPES, write_coverage, write_modes, write_training

from trl_math.errors import DataError, TrlMathError
from trl_math.reporting.page import Options, write_report


VALUES = ("missing", None, "x", -1, 2.5, 10**400, float("nan"), [], [1], {}, {"a": 1}, True, "\ud800\n")


@pytest.fixture(autouse=True)
def _no_png(monkeypatch):
    """Leave PNG files out, which are half of the work and are tested elsewhere."""
    for module in ("drawing", "report"):
        monkeypatch.setattr(f"trl_math.reporting.page.{module}.is_installed", lambda name: name != "matplotlib")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with everything that a folder can have."""
    root = tmp_path_factory.mktemp("whole")
    folder = write_modes(root / "run", 3, 2)
    direct = write_coverage(root / "direct", num_problems=3, benchmark="gsm8k", ks=(1, 16))
    summary, other = (json.loads((one / "summary.json").read_text()) for one in (folder, direct))
    for name in ("levels", "subjects"):
        summary["results"][0][name] = {"1": summary["results"][0]["metrics"]}
    summary["results"] += other["results"]
    (folder / "summary.json").write_text(json.dumps(summary))
    shutil.copy(direct / "coverage.jsonl", folder / "coverage.jsonl")
    return write_training(folder, SHAPES["coverage-n4"], 50)


def places(value, prefix=()):
    """Every place in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*prefix, key)
        yield from places(one, (*prefix, key))


def put(value, place, new):
    changed = copy.deepcopy(value)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    if isinstance(new, str) and new == "missing":
        del inner[place[-1]]
    else:
        inner[place[-1]] = new
    return changed


def survives(folder, output):
    """Whether there is a page; if not, there is an error of one line. Anything else fails the test."""
    try:
        write_report([folder], output, Options(overwrite=True))
    except TrlMathError as error:
        assert "\n" not in str(error)
        return False
    return True


@pytest.mark.parametrize("name", ["summary.json", "trainer_state.json"])
def test_a_value_that_is_something_else(whole, tmp_path, name):
    """A part of all places and values, so chosen that each kind of place meets several values."""
    original = json.loads((whole / name).read_text())
    changes = [(place, value) for place in places(original) for value in VALUES][:: 23 if name[0] == "s" else 11]
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    found = []
    for place, value in changes:
        (folder / name).write_text(json.dumps(put(original, place, value)))
        found.append(survives(folder, tmp_path / "r.html"))
    assert len(changes) > 40 and 0 < sum(found) < len(found)


@pytest.mark.parametrize("name", ["samples.jsonl", "problems.jsonl", "coverage.jsonl"])
def test_a_row_that_is_something_else(whole, tmp_path, name):
    rows = [json.loads(line) for line in (whole / name).open()]
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    keys = [key for key in rows[0] if key not in ("source", "prompt", "completion_ids", "logprob", "place")]
    changes = [(key, value) for key in keys for value in VALUES][::3]
    found = []
    for key, value in changes:
        lines = [json.dumps(put(row, (key,), value)) + "\n" for row in rows[:1]] + [
            json.dumps(row) + "\n" for row in rows[1:]
        ]
        (folder / name).write_text("".join(lines))
        found.append(survives(folder, tmp_path / "r.html"))
    assert 0 < sum(found) < len(found)
    data = (whole / name).read_bytes()
    parts = [data[:end] for end in (0, 1, len(data) // 2, len(data) - 1)]
    for part in [*parts, data + b"\xff\n" + data, data + b"null\n", data + b"[" * 100_000, data + b"\n\n"]:
        (folder / name).write_bytes(part)
        survives(folder, tmp_path / "r.html")


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("metrics", "accuracy"), 0.5, r"result 1 \(gsm8k, program\), metrics, accuracy, must be an object, got 0.5"),
        (("metrics", "accuracy", "value"), 1.5, r"accuracy, value, must be a number from 0 to 1, got 1.5"),
        (("metrics", "accuracy", "n"), None, r"accuracy, n, must be a whole number, 0 or above, got None"),
        (("metrics", "accuracy", "confidence"), 1, r"confidence, must be above 0 and below 1"),
        (("levels", "1"), [], r"levels, 1, must be an object, got \[\]"),
        (("calibration", "bins"), None, r"calibration, bins, must be a list, got None"),
        (("grading", "reasons", "exact"), "many", r"reasons, exact, must be a whole number"),
        (("num_samples",), -1, r"num_samples, must be a whole number, 0 or above, got -1"),
        (("benchmark",), None, r"result 1, benchmark, must be a text, got None"),
    ],
)
def test_what_is_wrong_with_a_summary_is_said(whole, tmp_path, place, value, message):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    summary = put(json.loads((whole / "summary.json").read_text()), ("results", 0, *place), value)
    (folder / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(DataError, match=message) as caught:
        write_report([folder], tmp_path / "r.html")
    assert str(folder / "summary.json") in str(caught.value)


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("samples.jsonl", "correct", "yes", "line 1: correct must be true, false or null, got 'yes'"),
        ("samples.jsonl", "sample_index", 1.5, "line 1: sample_index must be a whole number"),
        ("samples.jsonl", "problem_id", None, "line 1: problem_id must be a text or a number, got None"),
        ("samples.jsonl", "extracted", ["5"], "line 1: extracted must be a text, a number or null"),
        ("samples.jsonl", "mode", "coverage", "line 1: is a sample of mode coverage, which draws none"),
        ("problems.jsonl", "choices", "ABC", "line 1: choices must be a list or null, got 'ABC'"),
        ("problems.jsonl", "answer_kind", "essay", "line 1: answer_kind must be one of math, number, choice, text"),
        ("coverage.jsonl", "logp", 0.7, "line 1: logp must be a number of at most 0, got 0.7"),
        ("coverage.jsonl", "problem_id", "gsm8k/1", "line 2: problem gsm8k/1 is there twice"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(whole, tmp_path, name, key, value, message):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    first, *rest = (json.loads(line) for line in (whole / name).open())
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in [first | {key: value}, *rest]))
    with pytest.raises(DataError, match=re.escape(f"{folder / name}, {message}")):
        write_report([folder], tmp_path / "r.html")


def test_nothing_is_written_before_everything_was_read(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "coverage.jsonl").write_text("{}\n[]\n")
    with pytest.raises(DataError):
        write_report([folder], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists() and not (tmp_path / "r_files").exists()
