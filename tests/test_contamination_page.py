"""The page of a decontamination: texts side by side, which pairs are shown, and all of it in a real browser."""

import json
from pathlib import Path

import pytest
from chromium import Chromium, find
from test_decontaminate import CLEAN, STRINGS, TESTS, decontaminate, lines_of, write

from trl_math.reporting.contamination_evidence import evidence_line
from trl_math.reporting.contamination_figures import agreement_figure, rates_figures, short_name
from trl_math.reporting.contamination_page import pairs_of, write_page
from trl_math.reporting.page.markup import join
from trl_math.reporting.side_by_side import LONGEST, OTHER, SAME, side_by_side


ATTACK = "</script><script>window.hit=1</script><img src=http://127.0.0.1:9/x onerror='window.hit=1'>"


def said(spans, kind):
    return [span.text for span in spans if span.kind == kind]


# ---- side by side ----


def test_runs_words_and_numbers_that_both_have_are_marked():
    first, second = side_by_side(
        "Tom has 48 red apples and gives 12 to Ann.", "Of 48 apples in a basket, Tom has 48 red ones; 13 are bad."
    )
    assert "Tom has 48 red" in said(first, SAME) and "apples" in said(first, SAME)
    assert said(first, OTHER) == ["12"] and said(second, OTHER) == ["13"]
    assert "".join(span.text for span in first) == "Tom has 48 red apples and gives 12 to Ann."
    assert side_by_side("", "word") == side_by_side("", "word") and side_by_side("", "")[0] == []
    same, _ = side_by_side("The very same text.", "The very same text.")
    assert same[0].kind == SAME and same[0].text == "The very same text"


def test_of_long_texts_the_part_that_is_the_same_is_shown():
    words = " ".join(f"filler{n}" for n in range(1000))
    first, second = side_by_side(TESTS[0], f"{words} {TESTS[0]} {words}")
    shown = "".join(span.text for span in second)
    assert TESTS[0] in shown and shown.startswith("… ") and shown.endswith(" …") and len(shown) <= LONGEST + 4
    assert "".join(span.text for span in first) == TESTS[0]


# ---- evidence and figures ----


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        ({"same": "a text"}, "the same text"),
        ({"n": 8, "num_shared": 9, "num_ngrams": 12, "shared": "a <b> c", "only_test": []}, "9 of 12 8-grams"),
        ({"n": 8, "num_shared": 9, "num_ngrams": 12, "shared": "a <b> c"}, "<q>a &lt;b&gt; c</q>"),
        ({"num_shared": 2, "num_substrings": 3}, "2 of 3 substrings"),
        ({"cosine": 0.912, "numbers_only_test": ["3", "4"]}, "numbers of the test item only: 3, 4"),
        ({"outcome": "yes", "yes": [0.9, 0.8], "candidate": {"detector": "minhash", "score": 0.7}}, "90 % and 80 %"),
        ({"outcome": "unknown", "reason": "orders_disagree", "yes": [0.9, None]}, "unknown: yes in one order"),
        ({}, "the same text"),
    ],
)
def test_evidence_is_said_in_words(evidence, words):
    assert words in join(evidence_line(evidence))


def summary_with(benchmarks, **detectors):
    rate = {
        "low": {"value": 0.0, "low": 0.0, "high": 0.1},
        "high": {"value": 0.0, "low": 0.0, "high": 0.1},
        "num_yes": 0,
        "num_unknown": 0,
        "num": 9,
    }
    counts = {"counts": True, "num_test_items": 3}
    names = list(detectors)
    one = {"num": 9, "contaminated": rate, "by_detector": {name: {**rate} for name in names}}
    return {
        "detectors": {name: {**counts} for name in names},
        "benchmarks": {name: {**one} for name in benchmarks},
        "agreement": [
            {"first": one, "second": other, "kappa": detectors[other]}
            for place, one in enumerate(names)
            for other in names[place + 1 :]
        ],
    }


def test_a_matrix_shows_kappas_and_where_there_is_none():
    figure = agreement_figure(summary_with(["a"], exact=None, ngram_8=0.456, minhash=-0.2, paraphrase=None))
    words = [mark.words for mark in figure.marks if mark.kind == "text"]
    assert ".46" in words and "\N{MINUS SIGN}.20" in words and words.count("\N{EN DASH}") == 3
    assert agreement_figure(summary_with(["a"], exact=None)) is None
    wide = agreement_figure(summary_with(["a"], **{f"detector_{n}": 0.5 for n in range(13)}))
    assert max(x for mark in wide.marks for x, _ in mark.points) <= wide.width


def test_each_benchmark_has_a_panel_over_one_scale():
    figures = rates_figures(summary_with(["gsm8k", "data/my set/test.jsonl"], exact=None, minhash=0.1))
    assert [figure.title for figure in figures] == ["gsm8k, 9 items", "my set/test.jsonl, 9 items"]
    assert [figure.name for figure in figures] == ["found--gsm8k", "found--my-set-test.jsonl"]
    ticks = [[mark.words for mark in figure.marks if "%" in mark.words] for figure in figures]
    assert ticks[0] == ticks[1]
    assert short_name("singleeq=/a/b/c.jsonl") == "singleeq" and short_name("openai/gsm8k") == "openai/gsm8k"


# ---- the page ----


@pytest.fixture
def folder():
    tests = [*TESTS, f"{ATTACK} {CLEAN[0]}"]
    write("tests.jsonl", [{"id": f"t{n}", "problem": text} for n, text in enumerate(tests)])
    write("train.jsonl", [{"id": f"p{n} {ATTACK}", "problem": text} for n, text in enumerate([*tests, *CLEAN] * 30)])
    rows = lines_of("train.jsonl")
    write("train.jsonl", [row | {"id": f"{row['id']}{n}"} for n, row in enumerate(rows)])
    words = ("--data", "train.jsonl", "--against", "tests.jsonl", *STRINGS, "--compare", "ngram_8_plain")
    assert decontaminate(*words, "--examples", 20, "--output", "out") == 0
    return Path("out").resolve()


def test_as_many_pairs_as_were_asked_for_of_every_kind(folder):
    page = (folder / "report.html").read_text()
    assert page.count('class="card pair"') == 20
    summary, matches = json.loads((folder / "summary.json").read_text()), lines_of(folder / "matches.jsonl")
    kinds = {tuple(sorted(pair.scores)) for pair in pairs_of(matches)}
    assert page.count("<h3>Found by") == len(kinds)
    before = page
    write_page(summary, matches, folder / "report.html", 20)
    assert (folder / "report.html").read_text() == before, "the page is made of the files beside it"
    write_page(summary, matches, folder / "none.html", 0)
    assert "card pair" not in (folder / "none.html").read_text()
    assert {path.name for path in (folder / "figures").iterdir()} >= {"agreement.svg", "found--tests.jsonl.svg"}


def test_the_page_in_a_browser(folder, tmp_path):
    find()
    browser = Chromium(tmp_path / "profile")
    try:
        for width, theme in ((390, "light"), (1440, "dark")):
            browser.open(folder / "report.html", width, theme)
            assert browser.complaints == []
            assert [url for url in browser.requests if not url.startswith("data:")] == [
                (folder / "report.html").as_uri()
            ]
            wide, shown = browser.value("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
            assert wide == shown <= width
            assert browser.value("typeof window.hit") == "undefined"
            sides = browser.value(
                "[...document.querySelectorAll('.two > div')].slice(0, 2).map((d) => d.getBoundingClientRect().left)"
            )
            assert (sides[0] == sides[1]) == (width == 390), "one below the other on a phone"
    finally:
        browser.close()
