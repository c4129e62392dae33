"""The report of every kind of folder that `trl-math evaluate` writes: of every mode and any size."""

import json
import re

import numpy as np
import pytest
from report_runs import (
    SHAPES,
    answer_logps,
    write_coverage,
    write_evaluation,
    write_modes,
)
from test_evaluate import has_sandbox
from test_report import Tags, blocks, words

from trl_math.cli.main import main
from trl_math.errors import DataError
from trl_math.evaluation import compare, coverage_at_k, coverage_estimates
from trl_math.generation import engines
from trl_math.generation.scripted import ScriptedBackend
from trl_math.reporting.page import Options, write_report


@pytest.fixture
def _no_png(monkeypatch):
    """Leave PNG files out, which are half of the work and are tested elsewhere."""
    for module in ("drawing", "report"):
        monkeypatch.setattr(f"trl_math.reporting.page.{module}.is_installed", lambda name: name != "matplotlib")


def sections(html):
    return [attributes["id"] for tag, attributes in Tags(html).found if tag == "section" and "id" in attributes]


def number(one):
    """An estimate as tables say it."""
    return " ".join([f"{100 * one['value']:.1f}", f"{100 * one['low']:.1f} – {100 * one['high']:.1f}"])


# coverage


@pytest.fixture(scope="module")
def coverage(tmp_path_factory):
    root = tmp_path_factory.mktemp("coverage")
    return [write_coverage(root / f"p-{name}", shape) for name, shape in SHAPES.items()]


@pytest.fixture(scope="module")
def coverage_html(coverage, tmp_path_factory):
    return write_report(coverage, tmp_path_factory.mktemp("page") / "r.html").page.read_text()


def test_coverage_has_every_section_but_those_of_samples(coverage, coverage_html):
    assert sections(coverage_html) == ["runs", "numbers", "curves", "frontier", "compare", "groups", "confidence"]
    said = words(coverage_html)
    assert "math500 (coverage)" in said
    assert "accuracy" not in said and "samples each" not in said
    for run in coverage:
        [result] = json.loads((run / "summary.json").read_text())["results"]
        for one in result["metrics"].values():
            assert number(one) in said
        for one in [*result["levels"].values(), *result["subjects"].values()]:
            assert number(one["coverage@1"]) in said and number(one["coverage@1024"]) in said


def test_coverage_curve_goes_to_4096_and_agrees_with_the_summary(coverage, coverage_html):
    logps = answer_logps(40, SHAPES["coverage-n64"])
    for k in (1, 256, 1024, 4096):
        one = coverage_estimates(logps, k)[0]
        assert f"p-coverage-n64: coverage@{k} {100 * one.value:.1f} % ({100 * one.low:.1f} to" in coverage_html
    assert "<figcaption>coverage@k, math500</figcaption>" in coverage_html
    far = coverage_estimates(answer_logps(40, SHAPES["cross-entropy"]), 4096)[0].value
    assert f"p-cross-entropy: coverage@4096 {100 * far:.1f} %" in coverage_html


def test_coverage_is_compared_problem_by_problem(coverage_html):
    sides = [dict(enumerate(answer_logps(40, SHAPES[name]))) for name in ("cross-entropy", "coverage-n64")]
    for k in (1, 1024):
        values = [{id: float(coverage_at_k(logp, k)) for id, logp in side.items()} for side in sides]
        one = compare(*values)
        value, low, high = (f"{100 * end:+.1f}".replace("-", "−") for end in one.difference[:3])
        assert f"p-coverage-n64 − p-cross-entropy coverage@{k} {value} {low} to {high}" in words(coverage_html)


def test_histogram_counts_every_problem(coverage_html):
    counts = re.findall(r"<title>probability [^<]*: (\d+) problems?</title>", coverage_html)
    assert sum(map(int, counts)) == 3 * 40
    median = np.median(np.exp(answer_logps(40, SHAPES["coverage-n4"])))
    assert f"Median {100 * median:.1f} %; half of the 40 problems" in words(coverage_html)


@pytest.mark.usefixtures("_no_png")
def test_coverage_and_samples_of_one_benchmark_are_different_curves(tmp_path):
    sampled = write_evaluation(tmp_path / "sampled", SHAPES["coverage-n4"], {"math500": 40}, 4)
    direct = write_coverage(tmp_path / "direct")
    html = write_report([sampled, direct], tmp_path / "r.html").page.read_text()
    captions = re.findall(r"<figcaption>([^<]*)</figcaption>", html)
    assert {"pass@k, math500", "coverage@k, math500"} <= set(captions)
    assert "sampled: pass@4" in html and "direct: coverage@4096" in html
    assert "frontier" not in sections(html)  # no k of one is a k of the other
    assert "direct − sampled" not in words(html) and "sampled − direct" not in words(html)
    assert "<h3>math500, coverage</h3>" in html and "<h3>math500</h3>" in html


@pytest.mark.usefixtures("_no_png")
def test_probabilities_near_zero_are_numbers_and_not_zeros(tmp_path):
    logps = np.linspace(-20, -16, 30)
    first = write_coverage(tmp_path / "first", num_problems=30, logps=logps)
    second = write_coverage(tmp_path / "second", num_problems=30, logps=logps)
    html = write_report([first, second], tmp_path / "r.html").page.read_text()
    value = 100 * np.exp(logps).mean()
    mantissa, exponent = f"{value:.2g}".split("e-0")
    assert f"{mantissa}e−{exponent}" in words(html)
    assert "first and second (equal) for k = 1 to 4096" in html
    nowhere = write_coverage(tmp_path / "never", num_problems=5, logps=np.full(5, -1e5))
    assert "10⁻¹²" in write_report([nowhere], tmp_path / "n.html").page.read_text()


@pytest.mark.usefixtures("_no_png")
def test_coverage_of_few_problems_and_without_a_summary(tmp_path):
    one = write_coverage(tmp_path / "one", num_problems=1, logps=[0.0])  # certain
    html = write_report([one], tmp_path / "one.html").page.read_text()
    assert "one: coverage@4096 100.0 %" in html
    stopped = write_coverage(tmp_path / "stopped", num_problems=8)
    expected = json.loads((stopped / "summary.json").read_text())["results"][0]["metrics"]
    (stopped / "summary.json").unlink()
    written = write_report([stopped], tmp_path / "stopped.html")
    said = words(written.page.read_text())
    assert all(number(one) in said for one in expected.values())
    assert "No summary.json yet" in written.notes[0]
    gone = write_coverage(tmp_path / "gone", num_problems=8)
    (gone / "coverage.jsonl").unlink()
    written = write_report([gone], tmp_path / "gone.html")
    assert "is of 8 problems, but coverage.jsonl has none. There are numbers, but no figures." in written.notes[0]
    assert sections(written.page.read_text()) == ["runs", "numbers", "groups"]


@pytest.mark.usefixtures("_no_png")
def test_curves_have_the_confidence_of_their_run_and_the_k_of_its_summary(tmp_path):
    run = write_coverage(tmp_path / "run", num_problems=20, confidence=0.8, ks=(2, 16384))
    logps = answer_logps(20, SHAPES["coverage-n4"])
    html = write_report([run], tmp_path / "r.html").page.read_text()
    for k in (2, 16384):
        one = coverage_estimates(logps, k, 0.8)[0]
        assert f"coverage@{k} {100 * one.value:.1f} % ({100 * one.low:.1f} to {100 * one.high:.1f})" in html
    assert "their 80 % intervals" in html


# programs, texts, and one where the other fails


@pytest.fixture(scope="module")
def modes(tmp_path_factory):
    folder = write_modes(tmp_path_factory.mktemp("modes") / "run")
    return folder, write_report([folder], tmp_path_factory.mktemp("page") / "r.html").page.read_text()


def test_fallback_is_derived_from_the_rows_of_two_modes(modes):
    folder, html = modes
    results = {one["mode"]: one for one in json.loads((folder / "summary.json").read_text())["results"]}
    for mode, title in (("program", "gsm8k, program"), ("cot", "gsm8k"), ("fallback", "gsm8k, fallback")):
        assert f"<figcaption>pass@k, {title}</figcaption>" in html
        one = results[mode]["metrics"]["pass@4"]
        curve = html.partition(f"<figcaption>pass@k, {title}</figcaption>")[2].partition("</figure>")[0]
        assert f"run: pass@4 {100 * one['value']:.1f} %" in curve
    assert results["fallback"]["metrics"]["accuracy"] != results["program"]["metrics"]["accuracy"]
    assert "gsm8k (program, cot, fallback)" in words(html)
    listing, _ = blocks(html)
    titles = [one["title"] for one in listing["problems"]]
    assert titles == ["gsm8k, program"] * 12 + ["gsm8k"] * 12 + ["gsm8k, fallback"] * 12


def test_outcomes_of_programs_are_told(modes):
    folder, html = modes
    results = {one["mode"]: one for one in json.loads((folder / "summary.json").read_text())["results"]}
    said = words(html)
    for outcome, count in results["program"]["grading"]["outcomes"].items():
        assert re.search(rf"\b{outcome} : [\w ,]+ {count} {100 * count / 48:.1f} %", said), outcome
    by_program = results["fallback"]["grading"]["outcomes"]["ok"]
    assert f"program : its answer counts {by_program} {100 * by_program / 48:.1f} %" in said
    _, problems = blocks(html)
    cards = " ".join(problems)
    for told in ("program failed", "program took too long", "program ran", "answered by its program"):
        assert told in cards
    assert "answered by its text" in cards
    assert "<pre><code>paid = 0" in cards  # a program in a fence


@pytest.mark.usefixtures("_no_png")
def test_fallback_without_its_programs_has_numbers_only(tmp_path):
    folder = write_modes(tmp_path / "run", 4)
    kept = [line for line in (folder / "samples.jsonl").open() if json.loads(line)["mode"] == "cot"]
    (folder / "samples.jsonl").write_text("".join(kept))
    written = write_report([folder], tmp_path / "r.html")
    html = written.page.read_text()
    assert "<h3>gsm8k, fallback</h3>" in html and "pass@k, gsm8k, fallback" not in html
    assert [note.partition(":")[0] for note in written.notes] == ["run", "run"]
    assert all("samples.jsonl has none" in note for note in written.notes)


@pytest.mark.usefixtures("_no_png")
def test_endings_of_samples_with_tools(tmp_path):
    folder = write_evaluation(tmp_path / "run", SHAPES["coverage-n4"], {"gsm8k": 3}, 3)
    rows = [
        json.loads(line) | {"mode": "tool", "finish_reason": "max_errors"}
        for line in (folder / "samples.jsonl").open()
    ]
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = json.loads((folder / "summary.json").read_text())
    summary["results"][0]["mode"] = "tool"
    (folder / "summary.json").write_text(json.dumps(summary))
    html = write_report([folder], tmp_path / "r.html").page.read_text()
    cards = " ".join(blocks(html)[1])
    assert "gsm8k, tool" in cards and "too many programs failed" in cards
    assert "<pre>" not in cards  # the reasoning is text, though it may have programs in it


@pytest.mark.skipif(not has_sandbox(), reason="no layer of the sandbox works here")
def test_what_the_commands_write(tmp_path, monkeypatch, capsys):
    """`evaluate` three times into one folder, then `report` of it: every mode, programs run for real."""

    def script(request):
        if "Python program" in str(request.prompt):
            return ["```python\nprint(2 + 3)\n```", "```python\nprint(1 / 0)\n```"][request.seed % 2]
        return f"The answer is \\boxed{{{4 + request.seed % 2}}}."

    maker = lambda arguments, checkpoint, seed: ScriptedBackend(checkpoint.tokenizer, script)  # noqa: E731
    monkeypatch.setitem(engines._MAKERS, "scripted", maker)
    rows = [{"problem_id": f"p{i}", "problem": f"What is 2 + 3, number {i}?", "answer": "5"} for i in range(4)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ["evaluate", "--model", "embedded:tiny", "--benchmarks", str(tmp_path / "sums.jsonl")]
    asked += ["--output", str(tmp_path / "run")]
    for mode in ("fallback", "tool"):
        assert main([*asked, "--mode", mode, "--backend", "scripted", "--num-samples", "4"]) == 0
    assert main([*asked, "--mode", "coverage", "--backend", "transformers"]) == 0
    assert main(["report", str(tmp_path / "run"), "--output", str(tmp_path / "r.html")]) == 0
    assert "Note:" not in capsys.readouterr().out
    html = (tmp_path / "r.html").read_text()
    titles = ("program", "fallback", "tool", "coverage")
    assert all(f"<h3>sums, {mode}</h3>" in html for mode in titles) and "<h3>sums</h3>" in html
    said = words(html)
    for result in json.loads((tmp_path / "run" / "summary.json").read_text())["results"]:
        if result["mode"] != "coverage":
            assert all(number(one) in said for one in result["metrics"].values()), result["mode"]
    assert "sums (program, cot, fallback, tool, coverage)" in said
    assert re.search(r"error : it raised, or ended with a status other than 0 \d+ ", said)


# many and few, long and strange


@pytest.mark.usefixtures("_no_png")
def test_long_and_foreign_names_choices_and_no_level(tmp_path):
    name = "модель-" + "x" * 190
    long = write_evaluation(tmp_path / name, SHAPES["coverage-n4"], {"math500": 8}, 2)
    short = write_evaluation(tmp_path / "b", SHAPES["coverage-n64"], {"math500": 4}, 2)
    for folder in (long, short):
        rows = [json.loads(line) for line in (folder / "problems.jsonl").open()]
        rows = [row | {"choices": ["$\\frac12$", 3, None], "level": None, "subject": ""} for row in rows]
        (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    written = write_report([long, short], tmp_path / "r.html")
    html = written.page.read_text()
    assert name in html
    assert all(len(path.name) < 150 for path in written.folder.iterdir())
    for svg in written.folder.glob("*.svg"):  # what stands beside or below a figure is cut to its width
        assert all(len(label) < 80 for label in re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text()))
    _, problems = blocks(html)
    assert all('<ol type="A"><li><math' in one for one in problems)


@pytest.mark.usefixtures("_no_png")
def test_letters_and_texts_of_options_are_one_answer(tmp_path):
    """Of 4 samples the letter and its option's text make a majority of 3, as in the evaluator's numbers."""
    folder = write_evaluation(tmp_path / "run", SHAPES["coverage-n4"], {"gsm8k": 2}, 4)
    (folder / "summary.json").unlink()
    choices = {"choices": ["a square", "a circle"], "answer_kind": "choice", "answer": "B"}
    problems = [json.loads(line) | choices for line in (folder / "problems.jsonl").open()]
    rows = [json.loads(line) for line in (folder / "samples.jsonl").open()]
    said = ["B", "A", "a circle", "B"]
    rows = [
        row | {"extracted": said[i % 4], "correct": i % 4 != 1, "finish_reason": "stop"} for i, row in enumerate(rows)
    ]
    for name, some in (("problems.jsonl", problems), ("samples.jsonl", rows)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in some))
    html = write_report([folder], tmp_path / "r.html").page.read_text()
    assert "75 % say this" in " ".join(blocks(html)[1])


@pytest.mark.usefixtures("_no_png")
def test_a_benchmark_without_a_readable_answer_beside_one_with(tmp_path):
    folder = write_evaluation(tmp_path / "run", SHAPES["coverage-n4"], {"gsm8k": 4}, 2)
    summary = json.loads((folder / "summary.json").read_text())
    nothing = {"benchmark": "odd", "mode": "cot", "num_problems": 0, "num_samples": 0, "samples_per_problem": [0, 0]}
    empty = {"metrics": {}, "levels": {}, "subjects": {}, "calibration": None, "num_unreadable": 3}
    summary["results"].append(nothing | empty)
    (folder / "summary.json").write_text(json.dumps(summary))
    written = write_report([folder], tmp_path / "r.html")
    assert written.notes == ["run: odd: there is no number, as no gold answer of its problems could be read."]
    html = written.page.read_text()
    assert html.count("<h3>odd</h3>") == 1  # in grading, where the unreadable ones are counted
    summary["results"] = summary["results"][1:]
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "samples.jsonl").unlink()
    alone = write_report([folder], tmp_path / "alone.html").page.read_text()
    assert sections(alone) == ["runs", "grading"]


@pytest.mark.usefixtures("_no_png")
@pytest.mark.parametrize("num_runs", [1, 6])
def test_one_problem_with_one_sample(tmp_path, num_runs):
    runs = [write_evaluation(tmp_path / f"run{i}", SHAPES["coverage-n4"], {"gsm8k": 1}, 1) for i in range(num_runs)]
    html = write_report(runs, tmp_path / "r.html", Options(majority=True)).page.read_text()
    assert ("compare" in sections(html)) == (num_runs > 1)
    assert "1 of 1 problems" in html


def test_no_problem_at_all_is_one_line(tmp_path):
    folder = write_evaluation(tmp_path / "run", SHAPES["coverage-n4"], {"gsm8k": 2}, 2)
    rows = [json.loads(line) | {"correct": None} for line in (folder / "samples.jsonl").open()]
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "summary.json").unlink()
    with pytest.raises(DataError, match=r"is an empty run: .* No gold answer of gsm8k can be read"):
        write_report([folder], tmp_path / "r.html")
