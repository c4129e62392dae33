"""Targets of right answers, exactly, and the rounds that reach them: what they ask for and what they cost."""

import math
from fractions import Fraction

import numpy as np
import pytest

from trl_math.errors import DataError, UsageError
from trl_math.evaluation.posterior import fit_prior
from trl_math.evaluation.targets import TargetRounds, find_targets, prop2diff


IDS = [f"p/{index}" for index in range(5)]


def verdicts_of(rates, number, seed=0):
    """Samples of problems with these pass rates."""
    generator = np.random.default_rng(seed)
    return {f"p/{place}": (generator.random(number) < rate).tolist() for place, rate in enumerate(rates)}


def play(rounds, verdicts):
    """Play all rounds; return what each asked for."""
    asked = []
    while wanted := rounds.next_round(verdicts):
        asked.append(wanted)
    return asked


def trials_one_by_one(found, target, most):
    """How many samples it takes if each is looked at before the next is drawn."""
    right = np.cumsum(found[:most])
    return int(np.searchsorted(right, target) + 1) if right[-1] >= target else most


# ---- targets ----


def test_uniform_needs_no_pass_rates():
    assert find_targets("uniform", 40, IDS, None) == dict.fromkeys(IDS, 40)
    assert find_targets("uniform", 3, IDS, dict.fromkeys(IDS, 1.0)) == dict.fromkeys(IDS, 3)


def test_prop2diff_by_hand():
    rates = dict(zip(IDS, [0.0, 0.7, 0.9, 0.91, 1.0], strict=True))
    assert list(find_targets("prop2diff", 10, IDS, rates).values()) == [10, 3, 1, 1, 1]
    assert list(find_targets("prop2diff", 11, IDS, rates).values()) == [11, 4, 2, 1, 1]
    assert prop2diff(8, [0.5, 0.75, 1.0]) == [8, 4, 1], "the hardest has all of num_correct, whatever its pass rate"
    assert prop2diff(1, [0.2, 0.6]) == [1, 1]


def test_prop2diff_is_exact_for_every_share():
    """k f / max f that is a whole number stays that, though floats are a little off."""
    for total in (4, 7, 10, 16, 64, 1000):
        rates = [right / total for right in range(total + 1)]
        for number in (1, 3, 10, 40, 192):
            exact = [max(1, math.ceil(Fraction(number * (total - right), total))) for right in range(total + 1)]
            assert prop2diff(number, rates) == exact
            hardest = total // 3
            exact = [
                max(1, math.ceil(Fraction(number * (total - right), total - hardest)))
                for right in range(hardest, total + 1)
            ]
            assert prop2diff(number, rates[hardest:]) == exact


def test_targets_that_cannot_be():
    with pytest.raises(UsageError, match=r"Unknown targets 'prop2dif'. Did you mean 'prop2diff'\? Known: uniform"):
        find_targets("prop2dif", 4, IDS, None)
    with pytest.raises(UsageError, match="num_correct must be at least 1, got 0"):
        find_targets("uniform", 0, IDS, None)
    with pytest.raises(UsageError, match="targets prop2diff needs the pass rates"):
        find_targets("prop2diff", 4, IDS, None)
    with pytest.raises(DataError, match="All 5 problems have pass rate 1, so prop2diff has nothing"):
        find_targets("prop2diff", 4, IDS, dict.fromkeys(IDS, 1.0))
    with pytest.raises(UsageError, match=r"max_trials 3 is below the target of 4 right answers \('p/1'\)"):
        TargetRounds({"p/0": 2, "p/1": 4}, 3)


# ---- rounds ----


def test_who_is_always_right_needs_its_target_and_none_to_spare():
    targets = {"p/0": 5, "p/1": 1}
    rounds = TargetRounds(targets, 100)
    verdicts = dict.fromkeys(targets, [True] * 100)
    assert play(rounds, verdicts) == [targets]
    assert [(one.num_samples, one.num_correct, one.is_short) for one in rounds.counts(verdicts)] == [
        (5, 5, False),
        (1, 1, False),
    ]


RATES = np.concatenate([np.zeros(20), np.random.default_rng(3).beta(0.6, 0.7, 150), np.ones(10)])


@pytest.mark.parametrize(("target", "most"), [(1, 20), (4, 256), (40, 2048)])
def test_every_problem_reaches_its_target_or_the_cap(target, most):
    verdicts = verdicts_of(RATES, most)
    targets = {name: target if place % 2 else max(1, target // 2) for place, name in enumerate(verdicts)}
    rounds = TargetRounds(targets, most)
    asked = play(rounds, verdicts)
    counts = rounds.counts(verdicts)
    assert rounds.num_asked == sum(one.num_samples for one in counts) == rounds.facts["num_samples"]
    for one in counts:
        assert one.target == targets[one.problem_id]
        assert one.num_correct == sum(verdicts[one.problem_id][: one.num_samples])
        assert one.num_samples == most if one.is_short else one.target <= one.num_samples <= most
        assert one.is_short == (sum(verdicts[one.problem_id]) < one.target)
    before = dict.fromkeys(targets, 0)
    for number, wanted in enumerate(asked):
        for name, total in wanted.items():
            had, right = before[name], sum(verdicts[name][: before[name]])
            least = max(targets[name] - right, 4)
            assert right < targets[name] and had < total <= most
            assert number == 0 or min(least, most - had) <= total - had <= max(had, least)
        before |= wanted


def test_rounds_cost_little_more_than_one_sample_after_the_other():
    """Few rounds, so that engines are full; at most a tenth more samples than if each had been looked at."""
    verdicts = verdicts_of(RATES, 2048)
    rounds = TargetRounds(dict.fromkeys(verdicts, 40), 2048)
    asked = play(rounds, verdicts)
    least = sum(trials_one_by_one(found, 40, 2048) for found in verdicts.values())
    assert rounds.num_asked <= 1.1 * least
    assert len(asked) <= 20


def test_only_the_verdicts_asked_for_matter():
    """A replay with more samples there than were asked for asks for the same ones."""
    verdicts = verdicts_of(RATES, 300)
    whole = TargetRounds(dict.fromkeys(verdicts, 6), 128)
    asked = play(whole, verdicts)
    replay, seen = TargetRounds(dict.fromkeys(verdicts, 6), 128), []
    known = {name: [] for name in verdicts}
    while wanted := replay.next_round(known):
        seen.append(wanted)
        known |= {name: verdicts[name][:number] for name, number in wanted.items()}
    assert seen == asked and replay.counts(known) == whole.counts(verdicts)
    first = [sum(found[:6]) for found in verdicts.values()]
    assert replay.prior == whole.prior == fit_prior(first, [6] * len(first), 8.0)


def test_problems_that_cannot_be_judged_are_left_out():
    verdicts = {"good": [True] * 9, "bad": [None] * 9}
    rounds = TargetRounds(dict.fromkeys(verdicts, 3), 9)
    assert play(rounds, verdicts) == [{"good": 3, "bad": 3}]
    assert rounds.unjudged == ["bad"] and [one.problem_id for one in rounds.counts(verdicts)] == ["good"]
    none = TargetRounds({"bad": 3}, 9)
    assert play(none, verdicts) == [{"bad": 3}] and none.counts(verdicts) == []
