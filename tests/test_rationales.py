"""Which samples become rationales: prefixes of one another, right, ended, each said once."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_math.data.rationales import REASONS, Rules, choose, inverse_counts, pieces
from trl_math.errors import UsageError


TEXTS = [
    "Tom has 3 bags of 4 apples, so 3 * 4 = 12.",
    "Tom has 3 bags of 4 apples, so  3 * 4 = 12!",
    "tom has 3 bags of 4 apples, so 3 * 4 = 12",
    "Four apples in each of three bags make 4 + 4 + 4 = 12 apples.",
    "We multiply the number of bags by the number in each: 12.",
    "12",
    "",
]


def sample(index, text="a", correct=True, **changes):
    told = {"finish_reason": "stop", "num_tokens": 10 + len(text)}
    return {"problem_id": "p", "sample_index": index, "completion": text, "correct": correct, **told, **changes}


def text_of(row):
    return row["completion"].strip()


@st.composite
def samples_of_a_problem(draw):
    number = draw(st.integers(0, 14))
    return [
        sample(
            index,
            draw(st.sampled_from(TEXTS)),
            draw(st.booleans()),
            finish_reason=draw(st.sampled_from(["stop", "stop", "stop", "length", "refused", None])),
            num_tokens=draw(st.integers(1, 40)),
        )
        for index in range(number)
    ]


@st.composite
def rules(draw):
    least, most = sorted((draw(st.integers(1, 40)), draw(st.integers(1, 40))))
    return {
        "keep_wrong": draw(st.booleans()),
        "keep_unfinished": draw(st.booleans()),
        "duplicates": draw(st.sampled_from(["near", "exact", "keep"])),
        "near_threshold": draw(st.sampled_from([0.3, 0.6, 0.8, 1.0])),
        "min_tokens": draw(st.sampled_from([None, least])),
        "max_tokens": draw(st.sampled_from([None, most])),
        "max_per_problem": draw(st.sampled_from([None, 1, 2, 3])),
    }


@given(samples_of_a_problem(), rules(), st.integers(0, 10**6), st.integers(1, 14), st.integers(1, 14))
@settings(max_examples=400, deadline=None)
def test_fewer_samples_give_the_first_of_what_more_give(samples, given_rules, seed, one, other):
    """D = 4 is contained in D = 8, as its beginning, whatever the settings and in whatever order samples arrived."""
    fewer, more = sorted((one, other))
    arrived = random.Random(seed).sample(samples, len(samples))
    small = choose(samples, Rules(fewer, **given_rules), text_of)
    large = choose(arrived, Rules(more, **given_rules), text_of)
    assert large.kept[: len(small.kept)] == small.kept
    if given_rules["max_per_problem"] is None:
        assert small.kept == [index for index in large.kept if index < fewer]
    assert small.right == [index for index in large.right if index < fewer]
    # And each sample is kept, or has a reason.
    for found in (small, large):
        assert found.num_samples == len(found.kept) + found.dropped.total()
        assert set(found.dropped) <= set(REASONS)


@given(samples_of_a_problem(), rules())
@settings(max_examples=200, deadline=None)
def test_what_is_kept_serves(samples, given_rules):
    chosen = choose(samples, Rules(14, **given_rules), text_of)
    kept = [row for row in samples if row["sample_index"] in chosen.kept]
    assert all(row["correct"] or given_rules["keep_wrong"] for row in kept)
    assert all(text_of(row) and row["finish_reason"] != "refused" for row in kept)
    if not given_rules["keep_unfinished"]:
        assert all(row["finish_reason"] in ("stop", None) for row in kept)
    if given_rules["duplicates"] != "keep":
        assert max(Counter(map(text_of, kept)).values(), default=0) <= 1
    if given_rules["duplicates"] == "near":
        found = [pieces(text_of(row)) for row in kept]
        for place, own in enumerate(found):
            shares = [len(own & other) / len(own | other) for other in found[:place]]
            assert all(share < given_rules["near_threshold"] for share in shares)
    if (cap := given_rules["max_per_problem"]) is not None:
        assert len(kept) <= cap


def test_near_duplicates_by_hand():
    """Case, spaces and punctuation are no difference; another number, another sign or another way are."""
    said = [*TEXTS[:5], "Tom has 3 bags of 5 apples, so 3 * 5 = 15."]
    samples = [sample(index, text) for index, text in enumerate(said)]
    near = choose(samples, Rules(6), text_of)
    assert near.kept == [0, 3, 4, 5] and near.dropped == {"duplicate": 2}
    assert choose(samples, Rules(6, duplicates="exact"), text_of).kept == [0, 1, 2, 3, 4, 5]
    assert choose([sample(0), sample(1)], Rules(2, duplicates="keep"), text_of).kept == [0, 1]
    assert choose([sample(0), sample(1)], Rules(2, duplicates="exact"), text_of).kept == [0]
    assert pieces("3 + 4") != pieces("3 * 4") and pieces("1,200.50 x") == frozenset(["1,200.50 x"])


def test_the_reasons_in_their_order():
    samples = [
        sample(0, "wrong and cut", False, finish_reason="length"),
        sample(1, "cut", finish_reason="length"),
        sample(2, "", finish_reason="stop"),
        sample(3, "short", num_tokens=2),
        sample(4, "long", num_tokens=99),
        sample(5, "fine", num_tokens=20),
        sample(6, "fine", num_tokens=20),
        sample(7, "also fine", num_tokens=20),
        sample(8, "no", finish_reason="refused"),
    ]
    chosen = choose(samples, Rules(9, min_tokens=3, max_tokens=50, max_per_problem=1), text_of)
    assert chosen.kept == [5]
    assert chosen.dropped == dict.fromkeys(REASONS, 1)
    kept = choose(samples, Rules(9, keep_wrong=True, keep_unfinished=True), text_of).kept
    assert kept == [0, 1, 3, 4, 5, 7]


def test_of_two_stages_both_must_end_unless_only_the_reasoning_is_used():
    from trl_math.data.rationales import has_ended, reasoning_has_ended

    ends = [("stop", "stop"), ("stop", "length"), ("length", "stop")]
    samples = [
        sample(index, f"text {index}", reasoning_finish_reason=first, finish_reason=second)
        for index, (first, second) in enumerate(ends)
    ]
    assert choose(samples, Rules(3, duplicates="keep"), text_of, has_ended).kept == [0]
    assert choose(samples, Rules(3, duplicates="keep"), text_of, reasoning_has_ended).kept == [0, 1]


@given(st.dictionaries(st.text("ab", max_size=4), st.integers(0, 9), min_size=1))
def test_inverse_counts_have_mean_one_and_problems_weigh_the_same(numbers):
    weights = inverse_counts(numbers)
    assert set(weights) == {name for name, number in numbers.items() if number}
    if weights:
        total = sum(numbers.values())
        assert sum(weights[name] * numbers[name] for name in weights) == pytest.approx(total)
        assert len({round(weights[name] * numbers[name], 9) for name in weights}) == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_rationales": 0}, "num_rationales must be at least 1, got 0"),
        ({"duplicates": "nearly"}, "Unknown duplicates 'nearly'. Did you mean 'near'"),
        ({"near_threshold": 0.0}, "near_threshold must be above 0 and at most 1, got 0"),
        ({"min_tokens": 9, "max_tokens": 8}, "min_tokens 9 is above max_tokens 8"),
        ({"max_per_problem": 0}, "max_per_problem must be at least 1"),
    ],
)
def test_rules_that_cannot_be(changes, says):
    with pytest.raises(UsageError, match=says):
        Rules(**changes)


# ---- the figure of the yield ----


@pytest.mark.parametrize("kept", [[0], [0, 1], [1, 1, 2], [0, 3, 4], list(range(8)), [0, *range(1, 65)]])
def test_the_spread_ends_where_its_bars_end(kept):
    """Within a bar's width on both sides, whatever the largest number is; and a few bars are no blocks."""
    figure_module = pytest.importorskip("matplotlib.figure")
    from trl_math.reporting.yield_figure import _spread

    axis = figure_module.Figure().subplots()
    _spread(axis, kept)
    low, high = axis.get_xlim()
    ends = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in axis.patches]
    assert low < min(ends)[0] and max(end for _, end in ends) < high
    assert high - max(kept) < 0.2 + max(1.0, 0.05 * max(kept))
    assert all(end - start <= (high - low) / 6 for start, end in ends)
    assert sum(bar.get_height() for bar in axis.patches) == len(kept)
