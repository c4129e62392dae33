"""The two sides of a comparison: what is read of rows, ids that are made, what is dropped; and the normal form."""

import json

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_math.contamination.agreement import agreement
from trl_math.contamination.normalise import BOUNDARY, normalise, normalised_words, numbers, plain_words
from trl_math.contamination.texts import read_texts, row_ids
from trl_math.data.sources import load_source
from trl_math.errors import DataError, UsageError


CHAT = [
    {"role": "system", "content": "Think."},
    {"role": "user", "content": "What is 2+2?"},
    {"role": "assistant", "content": "It is 4."},
]


@pytest.mark.parametrize(
    ("row", "problem", "everything"),
    [
        ({"problem": "P", "solution": "S", "answer": "4"}, "P", "P\nS"),
        ({"question": "Q", "answer": 4}, "Q", "Q"),
        ({"Body": "B", "Question": "Q", "Answer": 4}, "B\nQ", "B\nQ"),
        ({"question": "Q", "choices": ["a", "b"], "answer": "A"}, "Q\na\nb", "Q\na\nb"),
        ({"prompt": "P", "completion": "C"}, "P", "P\nC"),
        ({"prompt": CHAT[:2], "completion": CHAT[2:]}, "Think.\nWhat is 2+2?", "Think.\nWhat is 2+2?\nIt is 4."),
        ({"messages": CHAT}, "What is 2+2?", "Think.\nWhat is 2+2?\nIt is 4."),
        ({"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}, "Q", "Q\nA"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Q"}]}]}, "Q", "Q"),
        ({"instruction": "I", "input": "N", "output": "O"}, "I\nN", "I\nN\nO"),
        ({"prompt": "def f():", "canonical_solution": "    return 1"}, "def f():", "def f():\n    return 1"),
        ({"text": "T"}, "T", "T"),
        ({"content": "T"}, "T", "T"),
    ],
)
def test_what_is_read_of_a_row(row, problem, everything):
    for rows in ([row], Dataset.from_list([row])):
        assert read_texts(rows).texts == [problem]
        assert read_texts(rows, "all").texts == [everything]


def test_ids_answers_and_facts():
    rows = [
        {"id": "a", "problem": "x", "answer": "4"},
        {"id": None, "problem": "y", "answer": None},
        {"id": "c", "problem": " ", "answer": "5"},
        {"id": "", "problem": "z", "answer": "6"},
    ]
    found = read_texts(rows, source="s")
    assert found.ids == ["a", "row-1", "row-3"]
    assert found.texts == ["x", "y", "z"]
    assert found.answers == ["4", None, "6"]
    assert found.facts == {
        "source": "s",
        "part": "problem",
        "num_rows": 4,
        "num_texts": 3,
        "num_empty": 1,
        "empty_ids": ["c"],
        "num_ids_made": 2,
        "num_ids_repeated": 0,
    }
    assert read_texts([{"question": "q", "answer": 72}]).answers == ["72"]


def test_samples_of_one_problem_have_ids_of_their_own():
    rows = [{"problem_id": "p", "sample_index": i, "prompt": "P", "completion": str(i)} for i in range(3)]
    assert read_texts(rows).ids == ["p#0", "p#1", "p#2"]


def test_sources_of_every_kind(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps({"text": text}) for text in ("a b", "", "c")))
    found = read_texts(load_source(str(file)), source="rows")
    assert (found.ids, found.facts["num_ids_made"], found.facts["empty_ids"]) == (["row-0", "row-2"], 3, ["row-1"])
    assert len(read_texts(load_source("embedded:times_tables")).texts) > 10


def test_rows_of_one_id_are_told_apart():
    rows = [{"id": "a", "text": "1"}, {"id": "b", "text": "2"}, {"id": "a", "text": "3"}]
    found = read_texts(rows)
    assert (found.ids, found.facts["num_ids_repeated"]) == (["a", "b", "a, row-2"], 1)
    assert row_ids(Dataset.from_list(rows)) == found.ids


def test_bad_rows_are_refused():
    with pytest.raises(DataError, match=r"No text in 's'. Found: label, url"):
        read_texts([{"label": 1, "url": "u"}], source="s")
    with pytest.raises(DataError, match=r"messages of row 1 of 's'"):
        read_texts([{"messages": CHAT}, {"messages": "What?"}], source="s")
    with pytest.raises(UsageError, match="Unknown part 'problems'"):
        read_texts([{"text": "1"}], part="problems")
    assert read_texts([]).texts == []


# ---- the normal form ----


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (r"What is $1{,}000 \times \left( x^{2} - \frac12 \right)$?", r"what is \(1000 \cdot (x² − \tfrac{1}{2})\)"),
        ("1,000 and 12,345,678.5", "1000 and 12345678.5"),
        ("1{,}234 5,\\!678", "1234 5678"),
        (r"$60^\circ$ or $60^{\circ}$", "60° or 60°"),
        (r"$x \le 3$, $y\geq 4$, $z \ne 5$", "x ≤ 3, y ≥ 4, z ≠ 5"),
        (r"\text{if } x>2, \\ \quad y", "if x > 2 y"),
        (r"\begin{align*} x&=1 \end{align*}", "x = 1"),
        ("Two-digit numbers; the x-axis", "two digit numbers the x axis"),
        ("2x", "2 x"),
        ("\uff12\uff18 \ufb01sh", "28 fish"),  # full-width digits, a ligature
        ("caf\u00e9", "cafe\u0301"),
        (r"50\% of \$3.50", "50% of 3.50"),
        (r"$\dfrac{a}{b}$", r"\frac ab"[:-1] + " b"),
        ("“Don’t!”", '"Don\'t!"'),
    ],
)
def test_what_is_the_same(first, second):
    assert normalise(first) == normalise(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("x+1", "x-1"),
        ("-3", "3"),
        (r"-\sin x", r"\sin x"),
        ("n!", "n"),
        ("1½", "11/2"),
        ("x²3", "x 23"),
        ("x < 3", "x > 3"),
        ("3.5", "35"),
        ("(0,100)", "(0100)"),
        ("12", "1 2"),
        ("|x|", "x"),
    ],
)
def test_what_is_not_the_same(first, second):
    assert normalise(first) != normalise(second)


def test_words():
    assert normalise("東京は3月、café!") == "東 京 は 3 月 café"
    assert numbers(normalise("From 1,000 to 2.5 or 7 x").split()) == ["1000", "2.5", "7"]
    assert plain_words(["It's $x_1+2y$", "東京 a"]) == ["it", "s", "x", "1", "2y", BOUNDARY, "東", "京", "a", BOUNDARY]


letters = st.text(
    st.sampled_from("aZ é²½0019,.-!$\\{}_^°東はกñ한\u0301\0\n") | st.characters(codec="utf-8"), max_size=25
)


@given(st.lists(letters, max_size=6))
@settings(max_examples=300, deadline=None)
def test_texts_read_together_are_texts_read_alone(texts):
    for reader in (normalised_words, plain_words):
        assert reader(texts) == [word for text in texts for word in reader([text])]
        assert reader(texts).count(BOUNDARY) == len(texts)


# ---- what must agree ----

ITEM = "how many integers from 3 to 20 that 7 divides"


@pytest.mark.parametrize(
    ("row", "agrees"),
    [
        ("how many integers are there from 3 to 20 that 7 divides", True),
        ("solve this how many integers from 3 to 20 that 7 divides are there a 1 b 2", True),
        ("exercise number twelve for you how many integers from 3 to 20 that 7 divides a 1 b 2 c 3 d 4", True),
        ("how many integers from 3 to 21 that 7 divides", False),
        ("how many integers from 20 to 3 that 7 divides", False),
        ("how many primes from 3 to 20 that 7 divides", False),
        ("", False),
    ],
)
def test_agreement(row, agrees):
    assert agreement(ITEM.split(), row.split(), 0.0).agrees is agrees


def test_a_heading_of_boilerplate_does_not_mislead():
    """The part of the row is found by where most n-grams lie, not by the first."""
    item, other = (
        f"let us find the value of x if {equation} and x is real".split()
        for equation in ("3 x + 4 = 10", "9 x + 1 = 28")
    )
    filler = [f"word{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    assert agreement(item, [*other, *filler, *item, *filler, *other]).agrees
    assert not agreement(item, [*other, *filler, *other]).agrees
