"""The report in a real browser: nothing is fetched, nothing complained of, and it works by hand and by keyboard."""

import json

import pytest
from chromium import Chromium, find
from report_runs import SHAPES, make_problems, sample_rows, write_evaluation, write_training

from trl_math.reporting.page import write_report


ATTACK = (
    "</script><script>window.hit=1</script><img src=http://127.0.0.1:9/x onerror='window.hit=1'> $\\text{<img src=x>}$"
)
# Until the browser has filled the list of problems and shown one.
READY = """new Promise((done) => { const wait = () =>
  document.querySelector('#problem article') ? done(true) : setTimeout(wait, 20); wait(); })"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    find()
    chromium = Chromium(tmp_path_factory.mktemp("profile"))
    yield chromium
    chromium.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    sizes = {"math500": 80, "gsm8k": 12}
    folders = [write_evaluation(root / name, shape, sizes, num_samples=8) for name, shape in SHAPES.items()]
    folders.append(write_training(root / "train", SHAPES["coverage-n4"]))
    return write_report(folders, root / "report.html").page


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_quiet_closed_and_as_wide_as_the_window(browser, report, width, theme):
    browser.open(report, width, theme)
    assert browser.value(READY)
    assert browser.complaints == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [report.as_uri()]
    wide, shown = browser.value("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide == shown <= width
    dark = browser.value("getComputedStyle(document.documentElement).backgroundColor") == "rgb(21, 24, 28)"
    assert dark == (theme == "dark")


def test_formulas_and_figures_are_drawn(browser, report):
    browser.open(report)
    browser.value(READY)
    heights = browser.value(
        "[...document.querySelectorAll('#problem math')].map((m) => m.getBoundingClientRect().height)"
    )
    assert heights and min(heights) > 5
    lines = "[...document.querySelectorAll('#curves .l.run1')].map((l) => getComputedStyle(l).stroke)"
    assert set(browser.value(lines)) == {"rgb(198, 74, 0)"}


def test_theme_button(browser, report):
    browser.open(report, theme="light")
    colour = "getComputedStyle(document.body.querySelector('h1')).color"
    light = browser.value(colour)
    button = "document.getElementById('theme')"
    browser.value(f"{button}.click(), {button}.click()")
    assert browser.value(f"{button}.textContent") == "Theme: dark"
    assert browser.value(colour) != light
    browser.open(report, theme="light")  # it is remembered
    assert browser.value(f"{button}.textContent") == "Theme: dark"
    browser.value(f"{button}.click()")


def _filter(browser, name, value):
    browser.value(
        f"{{ const f = document.getElementById('filters'); f.elements.{name}.value = '{value}';"
        "f.dispatchEvent(new Event('input')); }"
    )
    return int(browser.value("document.getElementById('count').textContent").split()[0])


def test_filters(browser, report):
    browser.open(report)
    browser.value(READY)
    assert _filter(browser, "search", "") == 92
    assert _filter(browser, "title", "gsm8k") == 12
    assert _filter(browser, "title", "") == 92
    assert _filter(browser, "level", "2") == 16
    assert _filter(browser, "subject", "Precalculus") == 4
    assert _filter(browser, "search", "no such words") == 0
    assert browser.value("document.getElementById('problem').textContent") == "No problem matches."
    for name in ("level", "subject"):
        _filter(browser, name, "")
    assert _filter(browser, "search", "math500/7") in range(1, 12)
    _filter(browser, "search", "")
    counts = {state: _filter(browser, "state", state) for state in ("mixed", "solved", "unsolved", "differs")}
    assert counts["mixed"] + counts["solved"] + counts["unsolved"] == 92
    assert 0 < counts["differs"] <= counts["mixed"]
    assert browser.complaints == []


def test_keyboard(browser, report):
    browser.open(report)
    browser.value(READY)
    browser.value("document.querySelector('#list button').focus()")
    browser.press("ArrowDown")
    assert browser.value("document.activeElement === document.querySelectorAll('#list button')[1]")
    browser.value("document.activeElement.click()")
    second = "document.querySelector('#problem h3').textContent"
    shown = browser.value(f"new Promise((done) => setTimeout(() => done({second}), 300))")
    assert shown == "math500/1"
    assert browser.value("document.querySelectorAll('[aria-current]').length") == 1
    browser.value("document.getElementById('more').click()")
    assert browser.value("document.querySelectorAll('#list button').length") == 92


def test_what_models_wrote_does_nothing(browser, tmp_path):
    problems = make_problems("gsm8k", 3)
    rows = sample_rows(problems, SHAPES["cross-entropy"], 3)
    rows = [
        row | {"completion": ATTACK, "extracted": ATTACK, "mode": mode} for row in rows for mode in ("cot", "program")
    ]
    folder = write_evaluation(tmp_path / "run", SHAPES["cross-entropy"], {"gsm8k": 3}, 3, model=ATTACK)
    asked = [json.loads(line) | {"problem": ATTACK, "subject": ATTACK} for line in (folder / "problems.jsonl").open()]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = write_report([folder], tmp_path / "r.html").page
    browser.open(page)
    browser.value(READY)
    browser.value("new Promise((done) => setTimeout(done, 300))")
    assert browser.value("window.hit") is None
    assert browser.value("document.images.length") == 0
    assert "<img src=http" in browser.value("document.getElementById('problem').textContent")
    assert browser.complaints == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [page.as_uri()]
