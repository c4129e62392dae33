"""Other words by rule keep numbers, formulas and answers; and the checks that every rephrased text must pass."""

import json
import re
from pathlib import Path

import pytest

from trl_math.contamination.rephrase_checks import (
    COMMON,
    LANGUAGES,
    SCRIPTS,
    has_same_numbers,
    is_language,
    lost_digits,
    lost_numbers,
    overlap,
    words_of,
)
from trl_math.contamination.rephrase_rules import RULES, rephrase_by_rule, sentences, with_names
from trl_math.contamination.rephrase_words import FEMALE, MALE
from trl_math.errors import UsageError


DATA = Path(__file__).parents[2] / "shared" / "data"
TEXT = "Janet buys 16 eggs per day for $2 each. She wants to bake 3 cakes. How many eggs does she need in total?"


def only(rule, text, seed=0):
    return rephrase_by_rule(text, seed, [rule]).problem


@pytest.mark.parametrize(
    ("rule", "text", "expected"),
    [
        ("numerals", "She has 16 figs, three pears and $40.", "She has sixteen figs, 3 pears and forty dollars."),
        ("numerals", "20% of 5,000 and 1234", "Twenty percent of five thousand and 1,234"),
        (
            "numerals",
            "7 cats. 1 dog. 2.5 kg, 5km, 2 x 4, 4 quarters",
            "Seven cats. 1 dog. 2.5 kg, 5km, 2 x 4, 4 quarters",
        ),
        (
            "question",
            "He has 3. How many figs will he eat?",
            r"He has 3. (?:Work out|Find out|Tell) how many figs he will eat.",
        ),
        ("question", "How much money does Ann spend?", r"(?:Work out|Find out|Tell) how much money Ann spends."),
        ("question", "What is the area of the yard?", "Determine the area of the yard."),
        ("question", "Why does it rain?", r"Why does it rain\?"),
        ("phrases", "Tom needs to run twice as far", "Tom has to run two times as far"),
        ("phrases", "Every year they bought a car", "Each year they purchased a car"),
    ],
)
def test_what_a_rule_does(rule, text, expected):
    assert re.fullmatch(expected.replace("$", r"\$"), only(rule, text))


def test_people_get_names_of_their_gender():
    found = rephrase_by_rule("Mary gives Tom 3 figs. Mary's figs are Tom's.", 4, ["names"])
    (mary, tom) = (found.names["Mary"], found.names["Tom"])
    assert mary in FEMALE and tom in MALE and not {mary, tom} & {"Mary", "Tom"}
    assert found.problem == f"{mary} gives {tom} 3 figs. {mary}'s figs are {tom}'s."
    assert with_names("Mary has 3.", found.names) == f"{mary} has 3."


def test_no_name_is_of_both_lists_or_another_word():
    assert not {*FEMALE} & {*MALE}
    assert not {*FEMALE, *MALE} & {"Grace", "Mark", "Rose", "Will", "May", "Hope", "Faith", "Joy", "Bill"}


def test_formulas_are_left_alone():
    text = r"Find the value of $2x + 3 = \frac{16}{5}$ if $x$ is 3 and $y_2$ costs $40.$"
    for seed in range(10):
        found = rephrase_by_rule(text, seed).problem
        assert all(formula in found for formula in (r"$2x + 3 = \frac{16}{5}$", "$x$", "$y_2$"))


def test_a_seed_is_a_text():
    assert rephrase_by_rule(TEXT, 1) == rephrase_by_rule(TEXT, 1)
    assert len({rephrase_by_rule(TEXT, seed).problem for seed in range(10)}) > 3
    assert rephrase_by_rule("", 1).problem == "" and not rephrase_by_rule("", 1).rules
    with pytest.raises(UsageError, match="Did you mean 'names'"):
        rephrase_by_rule(TEXT, 1, ["name"])
    assert set(RULES) == {"question", "order", "phrases", "numerals", "names"}


def test_sentences_know_abbreviations():
    assert sentences("Mr. Tan met Dr. Lee at 3 p.m. They ate 2.5 figs. Why?") == [
        "Mr. Tan met Dr. Lee at 3 p.m. They ate 2.5 figs.",
        "Why?",
    ]


@pytest.mark.skipif(not (DATA / "gsm8k").is_dir(), reason="the real problems are not here")
def test_numbers_of_real_problems_are_kept():
    rows = [json.loads(line)["question"] for line in (DATA / "gsm8k" / "test.jsonl").open()][:120]
    found = [rephrase_by_rule(text, seed).problem for text in rows for seed in (0, 1)]
    lost = [lost_numbers(text, new) for text, new in zip([text for text in rows for _ in (0, 1)], found, strict=True)]
    assert sum(map(bool, lost)) <= 3, "these few are rejected where sets are made"
    shares = [overlap(text, new) for text, new in zip([text for text in rows for _ in (0, 1)], found, strict=True)]
    assert sum(share == 0 for share in shares) > 0.2 * len(shares)
    assert sum(shares) / len(shares) < 0.3


# ---- checks ----


def test_overlap_is_a_share_of_the_originals_ngrams():
    words = [f"w{number}" for number in range(20)]
    text = " ".join(words)
    assert overlap(text, text) == 1 and overlap(text, text.upper() + "!") == 1
    assert overlap(text, " ".join(words[:12])) == pytest.approx(3 / 11)
    assert overlap(text, " ".join(words[:9])) == 0 and overlap(text, " ".join(words[:9]), 9) == pytest.approx(1 / 12)
    assert overlap("three short words", "Three short words?") == 1, "a short original is one n-gram"
    assert overlap("three short words", "three long words") == 0
    assert overlap("", "any") == 0
    assert words_of("\u4e09\u53ea\u732b has 1,000.5 cats") == ["\u4e09", "\u53ea", "\u732b", "has", "1,000.5", "cats"]


@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        ("16 eggs and three cakes", "three cakes of sixteen eggs", []),
        ("16 eggs and three cakes", "3 cakes of 61 eggs", ["16"]),
        ("80,000 people", "eighty thousand people and 80000 dogs", []),
        ("five hundred", "500", []),
        ("half of 12, 2 times as many", "twice as many as half a 12", []),
        ("one of them", "of them", []),
    ],
)
def test_numbers_that_are_lost(before, after, lost):
    assert lost_numbers(before, after) == lost


def test_numbers_that_are_the_same():
    assert has_same_numbers("3 cats, 5 dogs", "five dogs and 3 cats")
    assert not has_same_numbers("3 cats, 5 dogs", "3 cats, 6 dogs")
    assert lost_digits("It costs 1,250.50 for 3", "Das kostet 1.250,50 f\u00fcr 3") == []
    assert lost_digits("It costs 17 for 3", "Das kostet 71 f\u00fcr 3") == ["17"]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Wie viele Eier verkauft Janet jeden Tag, wenn sie 3 isst?", "de"),
        ("Combien d'oeufs vend-elle chaque jour si elle en mange 3 ?", "fr"),
        ("\u00bfCu\u00e1ntos huevos vende Janet cada d\u00eda si ella come 3?", "es"),
        ("\u5982\u679c Janet \u6bcf\u5929\u5403 3 \u4e2a\u9e21\u86cb\uff0c\u5979\u5356\u591a\u5c11\u4e2a\uff1f", "zh"),
        (
            "\u0421\u043a\u043e\u043b\u044c\u043a\u043e \u044f\u0438\u0446 \u0435\u0441\u0442 Janet?",
            "ru",
        ),
    ],
)
def test_a_language_is_known_by_its_letters_or_commonest_words(text, language):
    assert is_language(text, language)
    assert not is_language("How many eggs does she sell each day if she eats 3?", language)
    assert not is_language(text, "ko")


def test_every_language_can_be_told():
    assert {*LANGUAGES} == {*SCRIPTS} | {*COMMON}
