"""The report as a whole: what it says of runs, what it refuses, and that it is one safe, reproducible file."""

import base64
import hashlib
import json
import re
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from report_runs import SHAPES, make_problems, sample_rows, write_evaluation, write_training

from trl_math.cli import report as cli
from trl_math.errors import DataError, UsageError
from trl_math.reporting.page import Options, write_report


SIZES = {"math500": 40, "gsm8k": 12}
ATTACK = "</script><img src=x onerror=alert(1)>$\\text{<b onclick=x>}$ **<i>** ```\n</code><svg onload=x>\n```"


def blocks(html):
    """Return what the sample browser holds: its list, and its blocks of rendered problems."""
    packed = re.findall(r'<script type="text/plain" id="(?:index|block-\d+)">([^<]*)</script>', html)
    listing, *rest = (json.loads(zlib.decompress(base64.b64decode(text))) for text in packed)
    return listing, [problem for block in rest for problem in block]


class Tags(HTMLParser):
    """Collects what a browser would take for elements, attributes and text."""

    def __init__(self, html):
        super().__init__()
        self.found, self.words = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


def words(html):
    return " ".join(" ".join(Tags(html).words).split())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    folders = [write_evaluation(root / name, shape, SIZES, num_samples=8) for name, shape in SHAPES.items()]
    return [*folders, write_training(root / "train", SHAPES["coverage-n4"])]


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    return write_report(runs, tmp_path_factory.mktemp("report") / "report.html", Options(majority=True))


@pytest.fixture(scope="module")
def html(page):
    return page.page.read_text()


def test_every_number_of_the_summaries_is_there(runs, html):
    said = words(html)
    for run in runs[:3]:
        for result in json.loads((run / "summary.json").read_text())["results"]:
            for name, one in result["metrics"].items():
                value, low, high = (f"{100 * one[key]:.1f}" for key in ("value", "low", "high"))
                assert f"{value} {low} – {high}" in said, (run.name, name)
            ece = result["calibration"]["error"]
            assert f"ECE {100 * ece['value']:.1f} ({100 * ece['low']:.1f} to {100 * ece['high']:.1f})" in said


def test_sections(html):
    found = [attributes["id"] for tag, attributes in Tags(html).found if tag == "section" and "id" in attributes]
    expected = ["runs", "numbers", "curves", "frontier", "compare", "groups", "confidence", "grading"]
    expected += ["training", "samples"]
    assert found == expected
    links = [attributes["href"] for tag, attributes in Tags(html).found if tag == "a"]
    assert {f"#{name}" for name in expected} <= set(links)


def test_curve_is_pass_at_k_of_the_samples(runs, html):
    """The number at k = 8 of 8 samples is the share of problems that any sample solves."""
    rows = [json.loads(line) for line in (runs[0] / "samples.jsonl").read_text().splitlines()]
    solved = {row["problem_id"] for row in rows if row["benchmark"] == "math500" and row["correct"]}
    assert f"cross-entropy: pass@8 {100 * len(solved) / 40:.1f} %" in html
    assert "maj@8" in html


def test_compared_pairs_are_those_of_the_evaluation_room(runs, html):
    from trl_math.evaluation import compare, tally

    rates = []
    for run in runs[:2]:
        rows = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
        tallies, _ = tally(row for row in rows if row["benchmark"] == "math500")
        rates.append({one.problem_id: one.num_correct / one.num_samples for one in tallies})
    one = compare(*rates).difference
    value, low, high = (f"{100 * end:+.1f}".replace("-", "−") for end in (one.value, one.low, one.high))
    assert f"{value} {low} to {high}" in words(html)


def test_settings_that_differ_are_marked(runs, tmp_path):
    other = write_evaluation(tmp_path / "warm", SHAPES["coverage-n4"], {"gsm8k": 8}, 4, temperature=0.6)
    same = write_evaluation(tmp_path / "plain", SHAPES["coverage-n4"], {"gsm8k": 8}, 4)
    html = write_report([same, other], tmp_path / "r.html").page.read_text()
    marked = re.findall(r"<mark>([^<]*)</mark>", html)
    assert {"1.0", "0.6", "models/plain", "models/warm"} == set(marked)


def test_page_is_closed(html):
    """Nothing is fetched, and the policy allows just the style and the script that are there."""
    for tag, attributes in Tags(html).found:
        assert not {"src", "srcset", "style", "data", "action"} & attributes.keys(), tag
        assert not any(name.startswith("on") for name in attributes)
        if "href" in attributes:
            assert attributes["href"].startswith("#") or attributes["href"] == "data:,"
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|WebSocket", html)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)[1].replace("&#x27;", "'")
    assert policy.startswith("default-src 'none'; ")
    for name in ("script", "style"):
        inside = re.search(rf"<{name}>(.*?)</{name}>", html, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy


def test_same_runs_same_bytes(runs, page, html, tmp_path):
    again = write_report(runs, tmp_path / "report.html", Options(majority=True))
    assert again.page.read_text() == html
    names = sorted(path.name for path in page.folder.iterdir())
    assert names == sorted(path.name for path in again.folder.iterdir())
    for name in names:
        assert (page.folder / name).read_bytes() == (again.folder / name).read_bytes(), name


def test_figures_are_files_too(page, html):
    listed = [line.split("\t")[0] for line in (page.folder / "figures.txt").read_text().splitlines()]
    assert page.num_figures == html.count('class="chart"') == len({name.rpartition(".")[0] for name in listed})
    for name in listed:
        data = (page.folder / name).read_bytes()
        assert data.startswith(b"\x89PNG" if name.endswith(".png") else b"<svg")
    assert page.has_png
    assert sum(name.endswith(".png") for name in listed) == page.num_figures
    assert f"in {page.folder.name}/ beside" in html


def test_samples_are_right_and_wrong_with_formulas_drawn(runs, html):
    listing, problems = blocks(html)
    assert len(listing["problems"]) == len(problems) == 52
    assert {"mixed", "solved", "unsolved"} >= {one["state"] for one in listing["problems"]}
    for one in listing["problems"]:
        block, place = one["at"]
        rendered = problems[24 * block + place]
        assert f"<h3>{one['id']}</h3>" in rendered
        for run, score in zip(listing["runs"], one["scores"], strict=True):
            if score:
                assert f"{run}</span>" in rendered
                assert f"{score[0]} of {score[1]} right" in rendered
        assert ('class="badge right"' in rendered) == any(score and score[0] for score in one["scores"])
        assert ('class="badge wrong"' in rendered) == any(score and score[0] < score[1] for score in one["scores"])
        assert rendered.count("<article") <= 3 * 4
    assert sum(rendered.count("<math") for rendered in problems) > 52
    assert "52 of 52 problems" in html


def test_what_models_wrote_stays_text(tmp_path):
    problems = make_problems("gsm8k", 3)
    rows = sample_rows(problems, SHAPES["cross-entropy"], 3)
    for row in rows:
        row |= {"completion": ATTACK, "extracted": ATTACK, "prompt": ATTACK}
    name = "<img src=x onerror=1>"
    folder = write_evaluation(tmp_path / name, SHAPES["cross-entropy"], {"gsm8k": 3}, 3, model=ATTACK)
    asked = [json.loads(line) | {"problem": ATTACK, "subject": ATTACK} for line in (folder / "problems.jsonl").open()]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    written = write_report([folder], tmp_path / "r.html", Options(title=ATTACK))
    html = written.page.read_text()
    _, problems = blocks(html)
    for part in (html, *problems):
        for tag, attributes in Tags(part).found:
            assert tag not in ("img", "b") or not attributes
            assert not any(key.startswith("on") for key in attributes)
    assert all("alert(1)" in words(problem) for problem in problems)
    assert html.count("</script>") == 2 + len(problems) // 24 + 1
    for svg in written.folder.glob("*.svg"):
        assert "<img" not in svg.read_text()


def test_budget_keeps_what_tells_most_and_says_what_is_left_out(runs, tmp_path, html):
    whole = html
    options = Options(browser_mb=0.02)
    html = write_report(runs[:3], tmp_path / "r.html", options).page.read_text()
    listing, _ = blocks(html)
    shown = listing["problems"]
    assert 0 < len(shown) < 52
    assert f"{len(shown)} of 52 problems" in html
    assert f"{52 - len(shown)} problems are left out" in html
    every = blocks(whole)[0]["problems"]
    assert sum(one["differs"] for one in shown) == min(len(shown), sum(one["differs"] for one in every))
    packed = re.findall(r'<script type="text/plain" id="(?:index|block-\d+)">([^<]*)</script>', html)
    assert sum(map(len, packed)) <= 20_000
    assert 'id="samples"' not in write_report(runs[:1], tmp_path / "none.html", Options(samples=0)).page.read_text()


def test_runs_over_other_problems_stand_apart(tmp_path):
    """Same ids and other problems are other problems; a part of the problems is compared on that part."""
    first = write_evaluation(tmp_path / "first", SHAPES["cross-entropy"], {"math500": 24}, 4)
    part = write_evaluation(tmp_path / "part", SHAPES["coverage-n4"], {"math500": 16}, 4)
    other = write_evaluation(tmp_path / "other", SHAPES["coverage-n64"], {"math500": 24}, 4)
    text = (other / "problems.jsonl").read_text()
    (other / "problems.jsonl").write_text(re.sub(r'"problem": "', '"problem": "Now: ', text))
    html = write_report([first, part, other], tmp_path / "r.html").page.read_text()
    said = words(html)
    assert "No problem in common, so not compared: first and other on math500; part and other on math500." in said
    assert "16 8 in one run only" in said
    titles = re.findall(r"<figcaption>(pass@k, [^<]*)</figcaption>", html)
    assert titles == [f"pass@k, math500 ({name})" for name in ("first", "part", "other")]
    assert "Coverage frontier" not in html


def test_single_samples_and_different_numbers_of_samples(tmp_path):
    single = write_evaluation(tmp_path / "greedy", SHAPES["cross-entropy"], {"gsm8k": 12}, num_samples=1)
    many = write_evaluation(tmp_path / "many", SHAPES["coverage-n4"], {"gsm8k": 12}, num_samples=8)
    four = write_evaluation(tmp_path / "four", SHAPES["coverage-n64"], {"gsm8k": 12}, num_samples=4)
    html = write_report([single, many, four], tmp_path / "r.html").page.read_text()
    assert "there is one sample a problem: greedy on gsm8k" in html
    assert "many: pass@8" in html and "four: pass@4" in html and "four: pass@8" not in html
    assert (
        "for k = 1 to 4" in html or "at k = 4" in html or "to 4." in html
    )  # the frontier ends where the shorter does
    alone = write_report([single], tmp_path / "alone.html").page.read_text()
    assert 'id="curves"' not in alone and 'id="confidence"' not in alone and 'id="numbers"' in alone


def test_a_run_that_is_still_being_written(tmp_path):
    folder = write_evaluation(tmp_path / "run", SHAPES["cross-entropy"], {"gsm8k": 12}, num_samples=4)
    (folder / "summary.json").unlink()
    text = (folder / "samples.jsonl").read_text()
    (folder / "samples.jsonl").write_text(text[:-30])
    written = write_report([folder], tmp_path / "r.html")
    assert len(written.notes) == 2
    html = written.page.read_text()
    assert "ends in the middle of a line" in html and "No summary.json yet" in html
    assert "pass@2" in html


def test_summary_of_other_samples_is_noted(tmp_path):
    folder = write_evaluation(tmp_path / "run", SHAPES["cross-entropy"], {"gsm8k": 12}, num_samples=4)
    lines = (folder / "samples.jsonl").read_text().splitlines(keepends=True)
    (folder / "samples.jsonl").write_text("".join(lines[:-4]))
    assert "is of 48 samples, but samples.jsonl has 44" in write_report([folder], tmp_path / "r.html").notes[0]


def test_graded_folder_without_its_problems(tmp_path):
    folder = tmp_path / "graded"
    folder.mkdir()
    rows = sample_rows(make_problems("math500", 8), SHAPES["coverage-n4"], 4)
    kept = [{key: value for key, value in row.items() if key not in ("benchmark", "mode")} for row in rows]
    (folder / "graded.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    html = write_report([folder], tmp_path / "r.html").page.read_text()
    listing, problems = blocks(html)
    assert len(listing["problems"]) == 8
    assert "What is the sum of the squares" in problems[0] or "divided by" in "".join(problems)
    assert "pass@4" in html


def test_training_from_a_checkpoint(tmp_path):
    folder = write_training(tmp_path / "run", SHAPES["coverage-n4"])
    checkpoint = folder / "checkpoint-400"
    checkpoint.mkdir()
    (folder / "trainer_state.json").rename(checkpoint / "trainer_state.json")
    html = write_report([folder], tmp_path / "r.html").page.read_text()
    assert "training, 400 steps, from its newest checkpoint" in html
    for name in ("loss", "eval_loss", "eval_pass@1", "coverage/probability"):
        assert f"<figcaption>{name}</figcaption>" in html
    assert "eval_runtime" not in html
    assert 'id="samples"' not in html


def test_existing_output_is_kept(tmp_path):
    folder = write_evaluation(tmp_path / "run", SHAPES["cross-entropy"], {"gsm8k": 6}, num_samples=2)
    output = tmp_path / "r.html"
    output.write_text("mine")
    with pytest.raises(UsageError, match=r"r\.html exists already: give --overwrite"):
        write_report([folder], output)
    assert output.read_text() == "mine"
    write_report([folder], output, Options(overwrite=True))
    training = write_training(tmp_path / "train", SHAPES["coverage-n4"])
    (tmp_path / "r_files" / "mine.svg").write_text("<svg/>")
    write_report([training], output, Options(overwrite=True))
    left = {path.name for path in (tmp_path / "r_files").iterdir()}
    assert "mine.svg" in left and not any(name.startswith("pass-at-k") for name in left)


def _broken(tmp_path, name):
    folder = write_evaluation(tmp_path / name, SHAPES["cross-entropy"], {"gsm8k": 4}, num_samples=2)
    samples, summary = folder / "samples.jsonl", folder / "summary.json"
    if name == "empty":
        samples.write_text("")
        summary.unlink()
    elif name == "other-summary":
        summary.write_text('{"accuracy": 0.5, "model": "m"}')
    elif name == "list-summary":
        summary.write_text("[]")
    elif name == "damaged":
        lines = samples.read_text().splitlines(keepends=True)
        samples.write_text("".join([*lines[:2], "{oops\n", *lines[2:]]))
    elif name == "ungraded":
        rows = [json.loads(line) for line in samples.open()]
        samples.write_text("".join(json.dumps({"problem_id": row["problem_id"]}) + "\n" for row in rows))
    elif name == "twice":
        samples.write_text(samples.read_text() * 2)
    return folder


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty", "is an empty run"),
        ("other-summary", r"is not one that `trl-math evaluate` writes \(it has accuracy, model\)"),
        ("list-summary", "must hold a JSON object, but holds a list"),
        ("damaged", "line 3, is not JSON"),
        ("ungraded", "has a row without 'sample_index'"),
        ("twice", "two samples with index 0"),
    ],
)
def test_bad_runs_are_refused_in_one_line(tmp_path, name, message):
    with pytest.raises(UsageError, match=message) as caught:
        write_report([_broken(tmp_path, name)], tmp_path / "r.html")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "r.html").exists()


def test_folders_that_are_no_runs(tmp_path):
    run = write_evaluation(tmp_path / "all" / "run", SHAPES["cross-entropy"], {"gsm8k": 4}, num_samples=2)
    with pytest.raises(DataError, match=r"is no run: a run has samples\.jsonl .* Its folders run are runs"):
        write_report([tmp_path / "all"], tmp_path / "r.html")
    with pytest.raises(DataError, match="There is no folder"):
        write_report([tmp_path / "nothing"], tmp_path / "r.html")
    with pytest.raises(DataError, match="is a file"):
        write_report([run / "summary.json"], tmp_path / "r.html")
    with pytest.raises(DataError, match="is given twice"):
        write_report([run, run], tmp_path / "r.html")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["run", "--ouput", "r.html"], "Unknown key 'ouput'. Did you mean 'output'"),
        (["--output", "r.html"], "needs at least one run folder"),
        (["run"], "needs --output"),
        (["--output", "r.html", "run", "other"], "give the runs before the flags"),
        (["run", "--output", "r.txt"], "must be an .html file"),
        (["run", "--output", "r.html", "--samples", "-1"], "samples must be 0"),
        (["run", "--output", "r.html", "--samples", "few"], "samples must be int"),
        (["run", "--output", "r.html", "--browser_mb", "nan"], "browser_mb must be from 0"),
    ],
)
def test_command_line_refuses(argv, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        cli.run(argv)


def test_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_evaluation(tmp_path / "a" / "run", SHAPES["cross-entropy"], {"gsm8k": 6}, num_samples=2)
    write_evaluation(tmp_path / "b" / "run", SHAPES["coverage-n4"], {"gsm8k": 6}, num_samples=2)
    assert cli.run(["a/run", "b/run", "--output", "r.html", "--title", "Two runs", "--browser-mb", "1"]) == 0
    out = capsys.readouterr().out
    assert "r.html: 0.1 MB, 2 runs." in out
    html = (tmp_path / "r.html").read_text()
    assert "<title>Two runs</title>" in html
    assert "a/run" in html and "b/run" in html  # names that tell them apart
    assert cli.run(["--help"]) == 0


def test_no_torch_is_imported(tmp_path):
    write_training(tmp_path / "train", SHAPES["coverage-n4"])
    code = (
        "import sys; from trl_math.cli.report import run; run(['train', '--output', 'r.html']);"
        "assert not {'torch', 'transformers', 'trl', 'datasets', 'sympy', 'math_verify'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_without_matplotlib_and_converter(tmp_path, monkeypatch):
    """The page needs neither: figures are SVG, and formulas are shown as they are written."""
    for module in ("drawing", "latex", "report"):
        monkeypatch.setattr(f"trl_math.reporting.page.{module}.is_installed", lambda package: False)
    from trl_math.reporting.page.latex import to_mathml

    to_mathml.cache_clear()
    folder = write_evaluation(tmp_path / "run", SHAPES["cross-entropy"], {"math500": 6}, num_samples=2)
    written = write_report([folder], tmp_path / "r.html")
    to_mathml.cache_clear()
    assert not written.has_png and not list(written.folder.glob("*.png"))
    html = written.page.read_text()
    assert "Formulas are shown as LaTeX" in html
    _, problems = blocks(html)
    assert "<math" not in "".join(problems) and "\\begin{pmatrix}" in "".join(problems)


def test_modes_stand_apart(tmp_path):
    folder = write_evaluation(tmp_path / "run", SHAPES["coverage-n4"], {"gsm8k": 8}, num_samples=4)
    rows = [json.loads(line) for line in (folder / "samples.jsonl").open()]
    program = {"mode": "program", "completion": "x = 3 < 4\nprint('$x$')", "outcome": "timeout"}
    with open(folder / "samples.jsonl", "a") as file:
        file.writelines(json.dumps(row | program) + "\n" for row in rows)
    summary = json.loads((folder / "summary.json").read_text())
    entry = summary["results"][0]
    grading = entry["grading"] | {"outcomes": {"timeout": len(rows)}}
    fallback = {"mode": "fallback", "calibration": None, "grading": None, "levels": {}, "subjects": {}}
    summary["results"] += [entry | {"mode": "program", "grading": grading}, entry | fallback]
    (folder / "summary.json").write_text(json.dumps(summary))
    html = write_report([folder], tmp_path / "r.html").page.read_text()
    for title in ("gsm8k", "gsm8k, program", "gsm8k, fallback"):
        assert f"<h3>{title}</h3>" in html
    assert "pass@k, gsm8k, program" in html and "pass@k, gsm8k, fallback" in html
    assert "<b>timeout</b>" in html
    listing, problems = blocks(html)
    titles = ["gsm8k"] * 8 + ["gsm8k, program"] * 8 + ["gsm8k, fallback"] * 8
    assert [one["title"] for one in listing["problems"]] == titles
    assert any("<pre><code>x = 3 &lt; 4\nprint(&#x27;$x$&#x27;)</code></pre>" in one for one in problems)


def test_any_characters_and_numbers_for_names(tmp_path):
    """Half characters, control characters, letters that no font has, and ids that are numbers."""
    folder = write_evaluation(tmp_path / "模型 <b>", SHAPES["coverage-n4"], {"math500": 8}, 4, note="\ud800\x00")
    for name, column in (("problems.jsonl", "problem"), ("samples.jsonl", "completion")):
        rows = [json.loads(line) for line in (folder / name).open()]
        rows = [row | {"problem_id": int(row["problem_id"].rpartition("/")[2])} for row in rows]
        lines = [json.dumps(row | {column: "\ud800\x00" + row[column], "level": 3, "subject": "数论"}) for row in rows]
        (folder / name).write_text("\n".join(lines) + "\n")
    written = write_report([folder], tmp_path / "r.html")
    html = written.page.read_bytes().decode()
    assert "\x00" not in html and "模型 &lt;b&gt;" in html
    listing, _ = blocks(html)
    assert [one["id"] for one in listing["problems"]] == [str(number) for number in range(8)]
    for svg in written.folder.glob("*.svg"):
        ElementTree.parse(svg)


def test_many_runs_are_told_apart(tmp_path):
    folders = [write_evaluation(tmp_path / f"run{i}", SHAPES["coverage-n4"], {"gsm8k": 6}, 2) for i in range(10)]
    html = write_report(folders, tmp_path / "r.html").page.read_text()
    keys = re.findall(r'class="run"><svg[^>]*class="key"[^>]*>(.*?)</svg>run(\d)</span>', html)
    assert len({key for key, _ in keys}) == len({run for _, run in keys}) == 10
    assert "With 10 runs, each is compared with the first." in html


def _luminance(colour):
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1])
def test_contrast(theme):
    """WCAG 2: 4.5 to 1 for text, 3 to 1 for what figures show; grid lines and the frontier are only background."""
    from trl_math.reporting.page.drawing import COLOURS

    paper = _luminance(COLOURS["paper"][theme])
    for role, colours in COLOURS.items():
        least = {"ink": 4.5, "muted": 4.5, "paper": 1, "grid": 1, "frontier": 1, "axis": 2}.get(role, 3)
        low, high = sorted((paper, _luminance(colours[theme])))
        assert (high + 0.05) / (low + 0.05) >= least, role
