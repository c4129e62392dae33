"""String detectors: every planted copy is found, problems of one template are not, and no order or chunk matters."""

import json
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_math.contamination import Detector
from trl_math.contamination.agreement import agreement
from trl_math.contamination.detectors import DETECTORS, PLAIN_DETECTORS, STRING_DETECTORS, make_detector
from trl_math.contamination.exact import SameText, normal_forms
from trl_math.contamination.minhash import MinHashDetector
from trl_math.contamination.ngrams import NgramDetector
from trl_math.contamination.normalise import normalised_words, words_of
from trl_math.contamination.shares import shares
from trl_math.contamination.substrings import SubstringDetector, squeezed
from trl_math.contamination.windows import Hits, WindowIndex
from trl_math.errors import MissingPackageError, UsageError


APPLES = (
    "Natalia sold 48 apples to her friends in April, and then she sold half as many apples in May. How many apples "
    "did Natalia sell altogether in April and May?"
)
CIRCLE = r"Find the area of the circle that is given by $x^{2} + y^2 - 6x + 8y = 1{,}200$, in square units."
CLEAN = "A train leaves the old station at noon and travels north along the river until it comes to the next town."
OURS = tuple(name for name in STRING_DETECTORS if name not in PLAIN_DETECTORS)
SIGNS = tuple(name for name in OURS if name != "substring_50")
LONG = ("ngram_8", "ngram_10", "ngram_13", "substring_50")
WORDS = [
    f"{a}{b}" for a in ("ba", "ko", "lu", "mi", "ne", "ro", "su", "ta") for b in ("bel", "dor", "fin", "gam", "lok")
]

problem = st.lists(st.sampled_from([*WORDS, "17", "256", "x", "+", "="]), min_size=1, max_size=60).map(" ".join)
texts = st.lists(problem, min_size=1, max_size=8)


def pairs(name, test, train, **settings):
    return [(match.test, match.train) for match in make_detector(name, **settings).find(test, train)]


def random_texts(number, seed=0, length=40):
    draw = random.Random(seed)
    return [
        " ".join(draw.choices(WORDS, k=draw.randint(3, length))) + f" {draw.randint(2, 999)}" for _ in range(number)
    ]


# ---- what is found ----


@pytest.mark.parametrize("name", STRING_DETECTORS)
def test_a_copy_is_found_and_a_clean_row_is_not(name):
    found = make_detector(name).find([CIRCLE, APPLES], [CLEAN, APPLES, CIRCLE])
    assert [(match.test, match.train) for match in found] == [(0, 2), (1, 1)]
    assert all(match.score == pytest.approx(1) for match in found)
    assert all(match.evidence for match in found)
    json.dumps([match.evidence for match in found])  # it is written to files
    assert isinstance(make_detector(name), Detector)
    assert make_detector(name).name == name


@given(texts, st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
@pytest.mark.parametrize("name", STRING_DETECTORS)
def test_every_planted_copy_is_found(name, test, seed):
    train = [*random_texts(5, seed), *test]
    found = pairs(name, test, train)
    # Operators alone are nothing where only letters and digits count.
    readable = {item for item, text in enumerate(test) if name in SIGNS or any(map(str.isalnum, text))}
    assert {(item, 5 + item) for item in readable} <= {*found}


@pytest.mark.parametrize("name", [name for name in OURS if name != "exact"])
def test_a_copy_in_other_markup_is_found(name):
    copy = r"find the area of the circle that is given by \(x^2+y²−6x+8y=1,200\) in square units"
    assert pairs(name, [CIRCLE], [CLEAN, copy]) == [(0, 1)]


@pytest.mark.parametrize("name", LONG)
def test_a_copy_inside_of_a_long_text_is_found(name):
    row = f"{CLEAN} Question 7 of 12: {APPLES.upper()} (A) 60 (B) 72 (C) 96. Answer: B, since 48 + 24 = 72. {CLEAN}"
    assert pairs(name, [APPLES], [CLEAN, row]) == [(0, 1)]


@pytest.mark.parametrize("name", [*LONG, "minhash"])
def test_a_copy_with_a_word_changed_is_found(name):
    row = APPLES.replace("to her friends", "to her neighbours")
    (match,) = make_detector(name).find([APPLES], [row])
    assert match.evidence["only_test"] == ["friends"]
    assert match.evidence["only_train"] == ["neighbours"]
    assert match.score < 1


@pytest.mark.parametrize(
    "row",
    [
        APPLES.replace("48", "84"),
        APPLES.replace("half", "twice"),
        CIRCLE.replace("area", "circumference"),
        CIRCLE.replace("- 6x", "+ 6x"),
        CIRCLE.replace("6x + 8y", "8x + 6y"),
        CIRCLE.replace("200", "201"),
    ],
)
def test_problems_of_one_template_are_no_copies(row):
    assert {name: pairs(name, [APPLES, CIRCLE], [row, CLEAN]) for name in OURS} == {name: [] for name in OURS}
    assert pairs("ngram_8_plain", [APPLES, CIRCLE], [row, CLEAN]) != []  # as published they are


def test_boilerplate_says_nothing():
    ending = "Express your answer as a common fraction in lowest terms and give it without any units."
    test = [f"{text} {ending}" for text in random_texts(60, seed=1, length=5)]
    train = [f"{text} {ending}" for text in random_texts(60, seed=2, length=5)]
    assert len(pairs("ngram_8_plain", test, train)) == 3600
    assert pairs("ngram_8", test, train) == []
    assert pairs("ngram_8", test, [*train, test[3]]) == [(3, 60)]


def test_the_score_is_the_weighted_share():
    """Two of three 2-grams are shared; the one that both texts have counts less than what one has."""
    (match,) = NgramDetector(2, threshold=0.1, max_changed=1.0).find(["ka ro lu mi"], ["ka ro lu ne"])
    shared, own = np.log(1002 / 2), np.log(1002 / 1)
    assert match.score == pytest.approx(2 * shared / (2 * shared + own))
    (plain,) = NgramDetector(2, plain=True).find(["ka ro lu mi"], ["ka ro lu ne"])
    assert plain.score == pytest.approx(2 / 3)


def test_minhash_scores_by_the_exact_similarity():
    first = " ".join(WORDS[:30])
    (match,) = MinHashDetector(0.5).find([first], [f"{first} {WORDS[35]}"])
    assert match.score == 28 / 29


# ---- short, empty, one-sided, long, foreign ----


@pytest.mark.parametrize("name", STRING_DETECTORS)
def test_short_texts_are_compared_whole(name):
    test = ["Compute 2 + 3.", "hi", "!!!"]
    assert pairs(name, test, ["Compute 2 + 3.", "Compute 2 + 3 + 5.", "hi", "him"]) == [(0, 0), (1, 2)]


def test_short_items_inside_of_rows_have_no_formula_beside_them():
    rows = ["Question: Compute 2 + 3. Answer: five", "Compute 2 + 3 * 4", "First, compute 2 + 3", "Compute 2 + 31"]
    assert pairs("ngram_8", ["Compute 2 + 3."], rows) == [(0, 0), (0, 2)]


@pytest.mark.parametrize("name", STRING_DETECTORS)
def test_empty_and_one_sided_data(name):
    detector = make_detector(name)
    assert detector.find([], []) == detector.find([APPLES], []) == detector.find([], [APPLES]) == []
    assert detector.find(["", " "], ["", "\0", APPLES]) == []
    assert [match[:2] for match in detector.find(["", APPLES, " "], ["", APPLES])] == [(1, 1)]


@pytest.mark.parametrize("name", ["exact", "normalised", "ngram_8", "substring_50", "minhash", "ngram_8_plain"])
def test_a_megabyte(name):
    noise = " ".join(random.Random(0).choices(WORDS, k=160_000))
    assert len(noise) > 800_000
    found = pairs(name, [APPLES, noise], [CLEAN, noise, f"{noise} {APPLES}", "ba " * 300_000])
    assert {(1, 1)} <= {*found}
    if name in LONG:
        assert (0, 2) in found
    assert not {(0, 0), (0, 1), (0, 3), (1, 0), (1, 3)} & {*found}


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        (
            "小明有48个苹果,他给了小红一半,然后又买了12个梨。请问小明现在一共有多少个水果?请写出你的计算过程和最后的答案。",
            ("48", "36"),
        ),
        (
            "太郎くんはりんごを48個持っています。花子さんに半分あげて、それから12個の梨を買いました。果物は全部でいくつありますか。",
            ("12", "15"),
        ),
        (
            "Наталья продала 48 яблок своим друзьям в апреле, а в мае вдвое меньше. Сколько всего яблок она продала?",
            ("48", "58"),
        ),
        (
            "나탈리아는 4월에 사과 48개를 팔았고 5월에는 그 절반을 팔았습니다. 나탈리아가 판 사과는 모두 몇 개?",
            ("48", "58"),
        ),
        ("नतालिया ने अप्रैल में अपने दोस्तों को 48 सेब बेचे और मई में उसके आधे सेब बेचे। उसने कुल मिलाकर कितने सेब बेचे बताओ?", ("48", "58")),
    ],
)
def test_languages(text, changed):
    for name in OURS:
        rows = [text.replace(*changed), f"{text} ", CLEAN]
        assert pairs(name, [APPLES, text], rows) == [(1, 1)], name


# ---- order, chunks, processes, supersets ----


def corpus():
    test = [*random_texts(40, seed=3), APPLES, CIRCLE, "hi"]
    draw = random.Random(4)
    edited = [text.replace(" ba", " ko", 1) for text in test]
    train = [*random_texts(200, seed=5), *test, *edited, *(f"{CLEAN} {text}" for text in test)]
    draw.shuffle(train)
    return test, train


@pytest.mark.parametrize("name", STRING_DETECTORS)
def test_the_order_of_texts_changes_numbers_only(name):
    test, train = corpus()
    found = make_detector(name).find(test, train)
    assert found == sorted(found, key=lambda match: (match.test, -match.score, match.train))
    order, items = list(range(len(train))), list(range(len(test)))
    random.Random(6).shuffle(order)
    random.Random(7).shuffle(items)
    shuffled = make_detector(name).find([test[i] for i in items], [train[i] for i in order])
    again = {(items[match.test], order[match.train]): match.score for match in shuffled}
    assert again == pytest.approx({(match.test, match.train): match.score for match in found})


@pytest.mark.parametrize("name", STRING_DETECTORS)
@pytest.mark.parametrize("chunk", [1, 500, 7000])
def test_the_size_of_chunks_changes_nothing(name, chunk):
    test, train = corpus()
    assert make_detector(name, chunk=chunk).find(test, train) == make_detector(name).find(test, train)


def test_the_number_of_processes_changes_nothing(monkeypatch):
    from trl_math.contamination import reading

    test, train = corpus()
    for name in ("ngram_8", "minhash"):
        alone = make_detector(name, chunk=4000).find(test, train)
        with monkeypatch.context() as patch:
            patch.setattr(reading, "MIN_CHARACTERS", 0)
            assert make_detector(name, chunk=4000, processes=2).find(test, train) == alone
        assert alone


@pytest.mark.parametrize(
    "name", [name for name in STRING_DETECTORS if "plain" in name or name in ("exact", "minhash")]
)
def test_more_rows_keep_all_matches(name):
    """Where document frequencies do not count."""
    test, train = corpus()
    found = make_detector(name).find(test, train)
    more = make_detector(name).find(test, [*train, *random_texts(100, seed=9), APPLES])
    assert {*map(str, found)} <= {*map(str, more)}


@given(texts, texts, st.sampled_from([2, 3, 8]))
@settings(max_examples=60, deadline=None)
def test_plain_ngrams_are_those_of_a_plain_loop(test, train, n):
    def grams(text):
        words = text.replace("+", " ").replace("=", " ").split()
        return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}

    expected = {
        (i, j): len(grams(own) & grams(row)) / len(grams(own))
        for i, own in enumerate(test)
        for j, row in enumerate(train)
        if grams(own) & grams(row)
    }
    found = {match[:2]: match.score for match in NgramDetector(n, plain=True).find(test, train)}
    assert {pair: score for pair, score in found.items() if grams(test[pair[0]])} == pytest.approx(expected)


@given(texts, texts)
@settings(max_examples=60, deadline=None)
def test_minhash_finds_what_all_pairs_would(test, train):
    def runs(text):
        words = words_of(normalised_words, text)
        return {tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))} if words else set()

    expected = {
        (i, j)
        for i, own in enumerate(test)
        for j, row in enumerate(train)
        if runs(own)
        and runs(row)
        and len(runs(own) & runs(row)) >= 0.7 * len(runs(own) | runs(row))
        and agreement(words_of(normalised_words, own), words_of(normalised_words, row)).agrees
    }
    assert {*pairs("minhash", test, train)} == expected


# ---- hashes, draws, settings ----


def test_many_rows_and_items_are_told_apart():
    """Numbers of pairs go beyond 32 bits."""
    symbols = np.array([1, 2, 3, 0] + [4, 5, 6, 0] * 4999, dtype=np.int32)
    index = WindowIndex(symbols, 3)
    run = int(index.places(np.array([1, 2, 3, 0]))[1][0])
    hits = Hits(np.array([7, 999_999, 2_000_000_000], dtype=np.int32), np.array([run] * 3, dtype=np.int32))
    found = shares(index, hits, np.ones(index.num_runs), 5000, 0.5)
    assert found.rows.tolist() == [7, 999_999, 2_000_000_000]
    assert found.tests.tolist() == [0, 0, 0]


def test_no_collision_of_hashes_is_taken_for_a_run(monkeypatch):
    """With a hash that says little, all is still found, and nothing else."""
    from trl_math.contamination import windows

    rng = np.random.default_rng(0)
    symbols = np.append(rng.integers(1, 4, 50), 0).astype(np.int32)
    others = np.append(rng.integers(1, 6, 3000), 0).astype(np.int32)
    index = WindowIndex(symbols, 3)
    full = windows.all_windows

    def weak(*arguments, **keywords):
        found = full(*arguments, **keywords)
        return windows.Windows(found.starts, index._hashes[found.hashes % np.uint64(len(index._hashes))])

    expected = {i for i in range(2998) if bytes(others[i : i + 3]) in {bytes(symbols[j : j + 3]) for j in range(48)}}
    assert {*index.places(others)[0].tolist()} == expected
    monkeypatch.setattr(windows, "all_windows", weak)
    assert {*index.places(others)[0].tolist()} <= expected
    with pytest.raises(AssertionError, match="share a hash"):
        WindowIndex(symbols, 3)


def test_samples_of_characters_follow_from_seed_and_text():
    noise = "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=400))
    row = noise[:120] + "0" + noise[121:]
    assert squeezed(["A b-c_9!", ""]).tolist() == [*b"abc9", 0, 0]
    scores = [
        [match.score for match in SubstringDetector(seed=seed, plain=True).find([noise], [row])] for seed in range(40)
    ]
    assert scores == [
        [match.score for match in SubstringDetector(seed=seed, plain=True).find(["-", noise], [row])]
        for seed in range(40)
    ]
    assert len({*map(str, scores)}) > 1
    (match,) = SubstringDetector(num_samples=None, plain=True).find([noise], [row])
    assert match.score == pytest.approx((351 - 50) / 351)


@pytest.mark.parametrize("name", ["ngram_8", "substring_50", "minhash"])
@pytest.mark.parametrize("threshold", [0, 1.5, -1])
def test_a_threshold_outside_is_refused(name, threshold):
    with pytest.raises(UsageError, match="threshold"):
        make_detector(name, threshold=threshold)


def test_unknown_names_and_missing_packages(monkeypatch):
    with pytest.raises(UsageError, match=r"Unknown detector 'ngram_9'. Did you mean 'ngram_8'"):
        make_detector("ngram_9")
    monkeypatch.setattr("trl_math.optional.is_installed", lambda package: False)
    with pytest.raises(MissingPackageError, match=r"trl-math\[contamination\]"):
        make_detector("minhash")
    assert pairs("ngram_8", [APPLES], [APPLES]) == [(0, 0)]


def test_normal_forms_are_one_a_text():
    assert normal_forms(["A b", "", "cd!"]) == ["a b", "", "cd"]
    assert SameText("normalised", normal_forms).find(["", "?"], ["", "!"]) == []


def test_the_room_loads_no_torch():
    code = (
        "import sys, trl_math.contamination.detectors as d; assert set(d.DETECTORS);"
        "assert not {'torch', 'transformers', 'datasketch', 'sentence_transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert {*STRING_DETECTORS} <= {*DETECTORS}
