"""Rounds of samples: which are asked for, that nothing but verdicts decides on it, and what a budget does."""

import numpy as np
import pytest

from trl_math.evaluation.allocation import FEWEST_FITTED, MOST_WEIGHT, Allocation, Amounts
from trl_math.evaluation.posterior import JEFFREYS, fit_prior
from trl_math.evaluation.sequential import AgreementRule, FixedRule, ThresholdRule
from trl_math.evaluation.sequential_exact import GO_ON


def verdicts_of(rates, number=64, seed=0):
    """Samples of problems with these pass rates."""
    generator = np.random.default_rng(seed)
    return {f"p/{place}": (generator.random(number) < rate).tolist() for place, rate in enumerate(rates)}


def rounds(allocation, verdicts):
    """Play all rounds; return what each asked for."""
    asked = []
    while wanted := allocation.next_round(verdicts):
        asked.append(wanted)
    return asked


def agreement(most=64, confidence=0.98):
    return lambda prior: AgreementRule(0.1, most, confidence, prior or JEFFREYS)


MIXTURE = np.concatenate([np.zeros(240), np.random.default_rng(5).beta(0.6, 0.7, 360)])


def test_the_decision_of_64_samples_at_a_fraction_of_them():
    """Played as it is drawn, with the rounds' own overshoot: 97 % of decisions with at most 0.4 of the samples."""
    verdicts = verdicts_of(MIXTURE)
    allocation = Allocation(list(verdicts), Amounts(4, 4, 64), agreement(), is_fitted=True)
    rounds(allocation, verdicts)
    counts = allocation.counts(verdicts)
    same = [one.decision == ("at_least" if sum(verdicts[one.problem_id]) / 64 >= 0.1 else "below") for one in counts]
    assert np.mean(same) >= 0.97
    assert sum(one.num_samples for one in counts) == allocation.num_asked <= 0.4 * 64 * len(counts)
    assert all(one.is_settled for one in counts), "64 samples settle everything"
    assert all(one.num_correct == sum(verdicts[one.problem_id][: one.num_samples]) for one in counts)
    first = {name: sum(found[:4]) for name, found in verdicts.items()}
    assert allocation.rule.prior == fit_prior(list(first.values()), [4] * len(first), MOST_WEIGHT)


@pytest.mark.parametrize(("number", "earlier"), [(1, 0), (4, 27), (31, 0), (4, 28), (32, 0)])
def test_a_prior_is_fitted_to_enough_problems_only(number, earlier):
    """Those asked now and those known from before; with fewer the rule expects what Jeffreys' prior does."""
    verdicts, known = verdicts_of([0.15] * number), [(0, 8)] * (earlier - earlier // 3) + [(4, 4)] * (earlier // 3)
    allocation = Allocation(list(verdicts), Amounts(4, 4, 64), agreement(), is_fitted=True, earlier=known)
    rounds(allocation, verdicts)
    right, asked = zip(*[(sum(found[:4]), 4) for found in verdicts.values()], *known, strict=True)
    is_enough = number + earlier >= FEWEST_FITTED
    assert allocation.has_fitted == is_enough
    assert allocation.rule.prior == (fit_prior(right, asked, MOST_WEIGHT) if is_enough else JEFFREYS)
    assert len(allocation.counts(verdicts)) == number, "the others are not asked"


@pytest.mark.parametrize(("number", "calls"), [(1, 400), (8, 100), (32, 60)])
@pytest.mark.parametrize("rates", [(0.15,), (0.2,), (0.0, 0.0, 0.15, 0.6), (0,) * 5 + (0.2, 0.6, 0.9)])
def test_few_problems_are_decided_as_well_as_many(rates, number, calls):
    """Also all alike, at 0.15 near the threshold: more go wrong there, as the promise is for problems on average."""
    generator, wrong = np.random.default_rng(3), []
    for call in range(calls):
        verdicts = verdicts_of(generator.choice(rates, number), seed=1000 + call)
        allocation = Allocation(list(verdicts), Amounts(4, 4, 64), agreement(), is_fitted=True)
        rounds(allocation, verdicts)
        counts = allocation.counts(verdicts)
        wrong += [(one.decision == "at_least") != (sum(verdicts[one.problem_id]) >= 7) for one in counts]
    assert np.mean(wrong) <= (0.08 if rates == (0.15,) else 0.03)


def test_a_rule_looks_at_every_sample_and_stops_at_the_first_that_settles():
    verdicts = verdicts_of([0.3] * 40)
    allocation = Allocation(list(verdicts), Amounts(5, 7, 64), agreement(), is_fitted=False)
    rounds(allocation, verdicts)
    for one in allocation.counts(verdicts):
        found = verdicts[one.problem_id]
        settled = next(
            (number, allocation.rule.settled(sum(found[:number]), number))
            for number in range(1, 65)
            if allocation.rule.settled(sum(found[:number]), number) is not None
        )
        assert one.decision == settled[1]
        assert settled[0] <= one.num_samples < settled[0] + 7


def test_only_the_verdicts_asked_for_matter():
    """A replay with more samples there than were asked for asks for the same ones."""
    verdicts = verdicts_of(MIXTURE)
    names = list(verdicts)
    whole = Allocation(names, Amounts(4, 4, 64), agreement(), is_fitted=True)
    asked = rounds(whole, verdicts)
    replay = Allocation(names, Amounts(4, 4, 64), agreement(), is_fitted=True)
    known = {name: [] for name in names}
    seen = []
    while wanted := replay.next_round(known):
        seen.append(wanted)
        known |= {name: verdicts[name][:number] for name, number in wanted.items()}
    assert seen == asked
    assert replay.counts(known) == whole.counts(verdicts)


def test_a_budget_goes_where_it_settles_most():
    verdicts = verdicts_of(MIXTURE)
    names, full = list(verdicts), None
    settled, spent = [], []
    for budget in (4 * len(names), 3000, 4500, None):
        allocation = Allocation(names, Amounts(4, 4, 64, budget), agreement(), is_fitted=True)
        rounds(allocation, verdicts)
        counts = allocation.counts(verdicts)
        assert budget is None or allocation.num_asked <= budget
        assert allocation.is_short == (budget is not None and budget < (full or 10**9))
        settled.append(sum(one.is_settled for one in counts))
        spent.append(allocation.num_asked)
    assert settled == sorted(settled) and settled[-1] == len(names)
    assert spent[:3] == [4 * len(names), 3000, 4500], "all of a budget that is short"
    # In equal shares, the same budget settles fewer.
    rule = allocation.rule
    even = sum(
        any(rule.settled(sum(found[:number]), number) is not None for number in range(1, 1 + 3000 // len(names)))
        for found in verdicts.values()
    )
    assert settled[1] > even


def test_the_problem_that_needs_the_fewest_comes_first():
    """Two are open, one nearly settled: the last samples of a budget are its own."""
    none = [False] * 60
    verdicts = {"far": [False, False, False, True, *none], "near": [False, False, True, True, *none]}
    rule = ThresholdRule(0.1, 0.9, 64)
    assert rule.table[4, 1] == rule.table[4, 2] == GO_ON and rule.expected[4, 2] < rule.expected[4, 1]
    allocation = Allocation(list(verdicts), Amounts(4, 1, 64, 8 + 5), lambda prior: rule, is_fitted=False)
    asked = rounds(allocation, verdicts)
    assert list(asked[1]) == ["near", "far"] and allocation.num_asked == 13


def test_problems_that_cannot_be_judged_are_left_out():
    verdicts = {"good": [True] * 64, "bad": [None] * 64}
    allocation = Allocation(list(verdicts), Amounts(4, 4, 64), agreement(), is_fitted=True)
    rounds(allocation, verdicts)
    assert allocation.unjudged == ["bad"]
    assert [one.problem_id for one in allocation.counts(verdicts)] == ["good"]
    assert allocation.num_asked == 8, "their samples were drawn all the same"


@pytest.mark.parametrize(
    ("resampled", "again"), [(("never",), {"p/0"}), (("always",), {"p/1"}), (("never", "always"), {"p/0", "p/1"})]
)
def test_never_and_always_are_sampled_again_once(resampled, again):
    verdicts = verdicts_of([0.0, 1.0, 0.5, 0.6], number=32)
    amounts = Amounts(8, 4, 8, None, 32, resampled)
    allocation = Allocation(list(verdicts), amounts, lambda prior: FixedRule(8), is_fitted=False)
    asked = rounds(allocation, verdicts)
    assert asked == [dict.fromkeys(verdicts, 8), dict.fromkeys(sorted(again), 32)]
    counts = {one.problem_id: one for one in allocation.counts(verdicts)}
    assert {name for name, one in counts.items() if one.num_samples == 32} == again
    assert allocation.num_resampled == len(again)
