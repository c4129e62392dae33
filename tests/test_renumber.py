"""Other numbers by rule: the answer follows, what surrounds the numbers stays, and what is a guess is refused."""

import json
import re
from fractions import Fraction
from pathlib import Path

import pytest

from trl_math.contamination.calculation import CannotRead, read_annotations, read_equation, read_program
from trl_math.contamination.question_numbers import find_mentions, implied_numbers, replace_mentions, word_value
from trl_math.contamination.renumber import REASONS, CannotRenumber, renumber
from trl_math.contamination.renumber_generated import fresh_problems, is_generated
from trl_math.data.load import read_for_style


DATA = Path(__file__).parents[2] / "shared" / "data"
DUCKS = {
    "problem": "Ada's ducks lay 16 eggs per day. She eats three for breakfast every morning and bakes muffins with "
    "six. She sells the remainder at the market for $2 per egg. How much does she make every day?",
    "solution": "She sells 16 - 3 - 6 = <<16-3-6=7>>7 eggs.\nShe makes 7 * 2 = $<<7*2=14>>14.\n#### 14",
    "answer": "14",
}


def row(problem, solution, answer):
    return {"problem": problem, "solution": solution, "answer": answer}


def numbers(text):
    found = re.findall(r"\d+|[a-z]+(?:-[a-z]+)?", text)
    values = [int(one) if one.isdecimal() else word_value(one) for one in found]
    return [value for value in values if value is not None]


# ---- new numbers, new answer ----


@pytest.mark.parametrize("seed", range(25))
def test_the_answer_is_that_of_the_new_numbers(seed):
    found = renumber(DUCKS, seed)
    lay, eaten, baked, price = numbers(found.problem)
    assert found.answer == str((lay - eaten - baked) * price)
    assert lay > baked > eaten, "the order stays"
    assert found.results == [str(lay - eaten - baked), found.answer]
    assert not {lay, eaten, baked, price} & {1}


def test_only_numbers_change_and_words_stay_words():
    found = renumber(DUCKS, 3)
    masked, new = DUCKS["problem"], found.problem
    for old, written in found.changed:
        masked = re.sub(rf"\b{old}\b", "#", masked, count=1)
        new = re.sub(rf"\b{written}\b", "#", new, count=1)
    assert new == masked
    assert [old.isdecimal() for old, _ in found.changed] == [written.isdecimal() for _, written in found.changed]


def test_a_seed_is_a_problem():
    assert renumber(DUCKS, 1) == renumber(DUCKS, 1)
    assert len({renumber(DUCKS, seed).problem for seed in range(12)}) > 8


def test_equal_numbers_stay_equal_and_commas_and_decimals_stay():
    problem = "A house costs $80,000 and a car costs $80,000. A lamp costs $2.50. What do all three cost in dollars?"
    found = renumber(row(problem, "<<80000+80000+2.50=160002.5>>160002.5\n#### 160002.5", "160002.5"), 5)
    house, car = re.findall(r"\$(\d+,\d{3})\b", found.problem)
    lamp = re.search(r"lamp costs \$(\d+\.\d\d)\b", found.problem)[1]
    assert house == car
    assert Fraction(found.answer) == 2 * int(house.replace(",", "")) + Fraction(lamp)


@pytest.mark.parametrize("written", ["30/100*40", "30%*40", "0.3*40", ".30*40", "40*30*.01"])
def test_percents_in_every_writing(written):
    problem = "Of 40 children, 30% wear a hat. How many children wear a hat?"
    found = renumber(row(problem, f"<<{written}=12>>12\n#### 12", "12"), 2)
    children, percent = map(int, re.findall(r"\d+", found.problem))
    assert Fraction(found.answer) == Fraction(children * percent, 100)
    assert percent < 100


@pytest.mark.parametrize(("written", "share"), [("40*.7", lambda p: 100 - p), ("40*1.3", lambda p: 100 + p)])
def test_what_is_left_or_added_by_a_percent(written, share):
    value = {"40*.7": "28", "40*1.3": "52"}[written]
    problem = "A coat cost $40. Its price changed by 30%. What does it cost?"
    found = renumber(row(problem, f"<<{written}={value}>>\n#### {value}", value), 4)
    price, percent = map(int, re.findall(r"\d+", found.problem))
    assert Fraction(found.answer) == Fraction(price * share(percent), 100)


def test_an_article_goes_with_its_number():
    assert replace_mentions("is a 6-foot and an 11 inch", {5: "8", 19: "12"}) == "is an 8-foot and a 12 inch"


def test_an_equation_and_a_program_serve_as_well():
    problem = "Jack received 8 emails in the morning and 5 in the afternoon. How many more came in the morning?"
    for how in ({"equation": "( 8.0 - 5.0 )"}, {"program": "a = 8\nb = 5\nprint(a - b)"}, {"equation": "x = 8 - 5"}):
        found = renumber({"problem": problem, "answer": "3.0", **how}, 1)
        morning, afternoon = numbers(found.problem)
        assert found.answer == str(morning - afternoon)


# ---- what stays ----


@pytest.mark.parametrize(
    ("text", "fixed"),
    [
        ("He scored 100 on his first 3 tests and 80 on his 4th", {"3", "4th"}),
        ("The second and the third day, 2 birds, 3 cats and 9 dogs", {"2", "3"}),
        ("How much is it on the two days with 7 cats", {"two"}),
        ("It opens at 10:30 and closes at 5 pm with 7 guests", {"10:30", "5 pm"}),
        ("On July 4, in 1998, a team of 11 met", {"July 4", "1998"}),
        ("1/2 of the 20 and two thirds of the others, 3 quarters", {"1/2", "two thirds", "3 quarters"}),
        ("There are 31 days in March and 12 rows", {"31"}),
        ("1 apple and one pear and 3 figs", {"1", "one"}),
        ("3 hundred people, 4 dozen eggs, 7 hens", {"3", "4"}),
        ("a B52 and room #12 and 5x speed and 7km", {"B52", "#12", "5x"}),
    ],
)
def test_what_no_other_number_can_stand_for(text, fixed):
    mentions = find_mentions(text)
    assert {one.text for one in mentions if one.is_fixed} == fixed
    assert [one for one in mentions if not one.is_fixed], "the others may change"


def test_a_week_stays_a_week():
    problem = "Tom runs 4 miles a day, 3 days a week. How many miles does he run in 2 weeks?"
    for seed in range(20):
        days = int(re.search(r"(\d+) days a week", renumber(row(problem, "<<4*3*2=24>>", "24"), seed).problem)[1])
        assert days <= 7


def test_what_fixed_numbers_and_words_imply():
    text = "Half of 3/5 of a dozen eggs a week"
    assert {Fraction(1, 2), Fraction(2), Fraction(3, 5), Fraction(2, 5), Fraction(12), Fraction(7)} <= implied_numbers(
        text, find_mentions(text)
    )


def test_parts_of_a_whole_stay_parts_of_it():
    problem = "30% of the 200 guests are men, 70% are women. Each man pays $4, each woman $9. What do they pay?"
    solution = "<<200*30/100=60>> <<200*70/100=140>> <<60*4=240>> <<140*9=1260>> <<240+1260=1500>>"
    for seed in range(10):
        men, women = map(int, re.findall(r"(\d+)%", renumber(row(problem, solution, "1500"), seed).problem))
        assert men + women == 100


# ---- what is refused ----


REFUSED = [
    ("no_calculation", row("Ann has 3 figs.", "She has 3.", "3")),
    ("unreadable_step", row("Ann has 3 figs and 4 pears.", "<<3 figs+4=7>>7", "7")),
    ("wrong_or_rounded", row("3 boys share 10 figs.", "<<10/3=3.33>>3.33", "3.33")),
    ("answer_not_computed", row("Ann has 3 figs and 4 pears.", "<<3+4=7>>7, all but 2: 5", "5")),
    ("unexplained_number", row("Ann has 33 figs. How many with Bo's?", "<<33+17=50>>50", "50")),
    # A family of parents and a child: 12 * 2 are the parents', the 2 of the question are popcorns.
    (
        "ambiguous",
        row(
            "A family of parents and a child go out. Adults pay $12, a child $8. They buy 2 popcorns for $3 each. "
            "How much do they pay?",
            "<<12*2=24>> <<2*3=6>> <<24+8+6=38>>",
            "38",
        ),
    ),
    # The 80 that is left, in a step that is not annotated, or the 80 of the question.
    (
        "ambiguous",
        row("Of 200 toys 40 go to Al, 80 to Bo, 30 to Cy.", "<<200-40=160>> 160-80 = 80 are left. <<80-30=50>>", "50"),
    ),
    # The chance that it rains, or that it does not.
    ("ambiguous", row("It rains at 50% of 40 days. How many are dry?", "100%-50% = 50% <<40*.5=20>>20", "20")),
    ("no_number", row("A week of days has how many hours?", "<<7*24=168>>168", "168")),
    ("has_options", {**DUCKS, "choices": ["14", "15"]}),
]


@pytest.mark.parametrize(("reason", "refused"), REFUSED)
def test_a_guess_is_refused_by_name(reason, refused):
    with pytest.raises(CannotRenumber) as error:
        renumber(refused)
    assert error.value.reason == reason and REASONS[reason] in str(error.value)


def test_hostile_steps_end_quickly():
    for step in ("9**9**9", "2**100000", "((((1", "__import__('os')", "1e999+1", "x" * 10_000, "10/0"):
        with pytest.raises((CannotRead, CannotRenumber)):
            renumber(row("9 and 2 and 10", f"<<{step}=5>>5", "5"))


@pytest.mark.parametrize(
    "program",
    ["import os\nprint(3)", "for i in range(9): pass", "a = b\nprint(a)", "def f(: pass", "print(max(3, 4))"],
)
def test_a_program_that_is_more_than_arithmetic_is_refused(program):
    with pytest.raises(CannotRead):
        read_program(program, Fraction(3))


def test_reading_is_strict():
    assert read_annotations("<<16-3-4=9>> <<9*2=18.00>>", Fraction(18)).results == (9, 18)
    assert read_equation("x = (8.0 - 5.0)", Fraction(3)).results == (3,)
    assert read_program("eggs = 16 - 3\nanswer = eggs * 2\nprint(answer)", Fraction(26)).results == (13, 26)
    with pytest.raises(CannotRead, match="3=4"):
        read_annotations("<<3=4>>", Fraction(4))


# ---- real problems ----


@pytest.mark.skipif(not (DATA / "gsm8k").is_dir(), reason="the real problems are not here")
def test_more_than_half_of_gsm8k_and_each_makes_sense():
    problems = read_for_style(str(DATA / "gsm8k" / "test.jsonl"), "train", None, "plain").select(range(60))
    num_made = 0
    for problem in problems:
        try:
            found = renumber(problem, 0)
        except CannotRenumber as error:
            assert error.reason in REASONS
            continue
        num_made += 1
        assert found.answer != problem["answer"] and Fraction(found.answer) > 0
        assert found.problem != problem["problem"] and found.changed
        old, new = find_mentions(problem["problem"]), find_mentions(found.problem)
        assert len(old) == len(new), "a number is written as one"
    assert num_made >= 20


@pytest.mark.skipif(not (DATA / "svamp").is_dir(), reason="the real problems are not here")
def test_svamp_by_its_equations():
    made = 0
    for one in json.loads((DATA / "svamp" / "SVAMP.json").read_text())[:24]:
        problem = {"problem": f"{one['Body']} {one['Question']}", "answer": one["Answer"], "equation": one["Equation"]}
        try:
            found = renumber(problem)
        except CannotRenumber:
            continue
        made += 1
        assert Fraction(found.answer) > 0
    assert made >= 10


# ---- generators ----


@pytest.mark.parametrize("source", ["task:coin_flip?size=20", "embedded:word_problems", "task:dates?size=15&seed=3"])
def test_a_generator_gives_further_problems(source):
    assert is_generated(source)
    originals = [dict(one) for one in read_for_style(source, "test", None, "plain")][:10]
    fresh = fresh_problems(source, "test", originals, 0)
    assert len(fresh) == len(originals)
    assert not {one["problem"] for one in fresh} & {one["problem"] for one in originals}
    assert len({one["problem"] for one in fresh}) == len(fresh)


def test_files_are_no_generators():
    assert not any(map(is_generated, ["openai/gsm8k", "data.jsonl", "task:gsm8k", "task:coin_flip?file=x.jsonl"]))
