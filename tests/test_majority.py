"""maj@k against all subsets, its invariances, and its sampled form against the exact one."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_math.errors import UsageError
from trl_math.evaluation import majority_at_k, majority_confidence, pass_at_k
from trl_math.evaluation.majority import Ballot, ballot_majority, count_votes, winning_share


VOTES = st.lists(st.sampled_from([None, 0, 1, 2, 3, 4]), min_size=1, max_size=10)
RIGHT = st.frozensets(st.sampled_from([0, 1, 9]), max_size=3)


def share(drawn: tuple, right: frozenset) -> float:
    counts = Counter(vote for vote in drawn if vote is not None)
    first = [label for label, count in counts.items() if count == max(counts.values())]
    return sum(label in right for label in first) / len(first) if first else 0.0


def brute_force(votes: list, right: frozenset, k: int) -> float:
    return float(np.mean([share(drawn, right) for drawn in itertools.combinations(votes, k)]))


@settings(max_examples=200, deadline=None)
@given(VOTES, RIGHT, st.data())
def test_equals_the_mean_over_all_subsets(votes: list, right: frozenset, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(votes)))
    result = majority_at_k([votes], [right], k)
    assert result.is_exact
    assert result.values[0] == pytest.approx(brute_force(votes, right, k), abs=1e-13)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(0, 30), st.data())
def test_the_shares_of_all_classes_sum_to_the_chance_of_an_answer(
    sizes: list[int], unanswered: int, data: st.DataObject
) -> None:
    n = sum(sizes) + unanswered
    k = data.draw(st.integers(1, n))
    won = [ballot_majority(Ballot((m,), (*sizes[:i], *sizes[i + 1 :]), n), k)[0] for i, m in enumerate(sizes)]
    assert all(0 <= value <= 1 for value in won)
    assert sum(won) == pytest.approx(float(pass_at_k(n, sum(sizes), k)), abs=1e-11)
    assert all(won[i] >= won[j] - 1e-11 for i in range(len(won)) for j in range(len(won)) if sizes[i] >= sizes[j])
    # Several right classes win what they win one by one.
    both = ballot_majority(Ballot(tuple(sizes[:2]), tuple(sizes[2:]), n), k)[0]
    assert both == pytest.approx(sum(won[:2]), abs=1e-11)


@settings(max_examples=50, deadline=None)
@given(VOTES, st.randoms(use_true_random=False))
def test_order_and_labels_do_not_matter(votes: list, random) -> None:
    ks = range(1, len(votes) + 1)
    shuffled, names = list(votes), {None: None, 0: "1/2", 1: "x", 2: "y", 3: "z", 4: ("a", 1)}
    random.shuffle(shuffled)
    first = majority_at_k([votes], [{0}], list(ks)).values
    second = majority_at_k([[names[vote] for vote in shuffled]], [["1/2"]], list(ks)).values
    np.testing.assert_array_equal(first, second)


def test_conventions() -> None:
    votes = [[0, 0, 1, 1, None], [None] * 5, [0, 1, 2, None, None], [1] * 5, [0] * 5]
    result = majority_at_k(votes, [{0}] * 5, [1, 5])
    # maj@1 is the mean, of all samples; at k = n: a tie is split, no answer is wrong.
    np.testing.assert_allclose(result.values, [[0.4, 0.5], [0, 0], [0.2, 1 / 3], [0, 0], [1, 1]], atol=1e-15)
    assert majority_at_k([[0, 1]], [set()], 2).values[0] == 0
    assert majority_at_k(votes, [{0}] * 5, 3).values.shape == (5,)
    assert majority_at_k([], [], 3).values.shape == (0,)


@pytest.mark.parametrize("k", [2, 16, 64, 255, 256, 1000, 1023])
@pytest.mark.parametrize("sizes", [(400, 300, 100), (1,) * 1000, (50,) * 20, tuple(range(1, 45)), (3, *([2] * 300))])
def test_a_thousand_samples(sizes: tuple[int, ...], k: int) -> None:
    """The classes share what is to be won; too many for subsets, and for floats that are not probabilities."""
    kinds = Counter(sizes)
    total = 0.0
    for size, copies in kinds.items():
        others = list(sizes)
        others.remove(size)
        total += copies * ballot_majority(Ballot((size,), tuple(sorted(others)), 1024), k)[0]
    assert total == pytest.approx(float(pass_at_k(1024, sum(sizes), k)), abs=1e-10)


@pytest.mark.parametrize("k", [4, 64, 300])
def test_sampled_agrees_with_exact_within_its_error(k: int) -> None:
    ballots = [Ballot((200,), (180, 100, *[1] * 20), 512), Ballot((30, 10), (40, 35), 400), Ballot((5,), (2,), 512)]
    for ballot in ballots:
        exact, none = ballot_majority(ballot, k)
        value, error = ballot_majority(ballot, k, max_work=0, num_draws=4000, seed=1)
        assert none == 0 < error < 0.02
        assert abs(value - exact) < 4 * error
        assert (value, error) == ballot_majority(ballot, k, max_work=0, num_draws=4000, seed=1)
    result = majority_at_k([[0] * 30 + [1] * 20], [{0}], [1, 7], max_work=0)
    assert not result.is_exact
    assert result.standard_errors[0, 0] == 0  # k = 1 needs no work


def test_a_hundred_thousand_samples() -> None:
    """What is too much work is sampled, and says so; what is not has lost no digits."""
    ballot = Ballot((20_000,), tuple(range(1, 30)), 100_000)
    value, error = ballot_majority(ballot, 500, max_work=10_000, num_draws=50)
    assert value == 1
    assert error > 0
    assert ballot_majority(ballot, 500) == (pytest.approx(1, abs=1e-11), 0)


@pytest.mark.parametrize("k", [1, 3, 10])
def test_two_classes_are_a_hypergeometric_tail(k: int) -> None:
    n, m = 20, 12
    votes = [0] * m + [1] * (n - m)
    chance = [math.comb(m, j) * math.comb(n - m, k - j) / math.comb(n, k) for j in range(k + 1)]
    expected = sum(p * (1.0 if 2 * j > k else 0.5 if 2 * j == k else 0.0) for j, p in enumerate(chance))
    assert majority_at_k([votes], [{0}], k).values[0] == pytest.approx(expected, abs=1e-13)


def test_confidence_of_the_majority_answer() -> None:
    votes = [["a", "a", "b", None], ["a", "b", None, None], [None, None]]
    confidence, correct = majority_confidence(votes, [{"a"}, {"b"}, {"a"}])
    np.testing.assert_array_equal(confidence, [0.5, 0.25, 0])
    np.testing.assert_array_equal(correct, [1, 0.5, 0])
    assert winning_share(count_votes(["a", "b", "c"], {"a", "b"})) == pytest.approx(2 / 3)


def test_nonsense_is_refused() -> None:
    with pytest.raises(UsageError, match=r"maj@3 needs at least 3 samples .*problem 1 \(p1\) has 2"):
        majority_at_k([[0, 0, 1], [0, 0]], [{0}, {0}], 3, names=["p0", "p1"])
    with pytest.raises(UsageError, match="votes for 1 problems, but correct classes for 2"):
        majority_at_k([[0]], [{0}, {0}], 1)
    with pytest.raises(UsageError, match="correct_classes must be a set"):
        majority_at_k([["ab"]], ["ab"], 1)
    with pytest.raises(UsageError, match="k must be"):
        majority_at_k([[0]], [{0}], 0)
