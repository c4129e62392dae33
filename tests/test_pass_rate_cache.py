"""The cache of pass rates: what is fresh at which step, and that a checkpoint holds all of it."""

import json

import pytest

from trl_math.trainers.pass_rate_cache import Estimate, PassRateCache


def cache(every=None, **estimated_at):
    found = {name: Estimate(1, 8, step, is_solved=False) for name, step in estimated_at.items()}
    return PassRateCache(every, estimates=found)


@pytest.mark.parametrize("every", [1, 2, 5])
def test_an_estimate_is_fresh_for_so_many_steps(every):
    """The step it was made at is the first of them."""
    known = cache(every, a=3)
    assert [known.is_fresh("a", step) for step in range(3, 3 + every)] == [True] * every
    assert not known.is_fresh("a", 3 + every)
    assert not known.is_fresh("b", 3)
    assert known.age("a", 7) == 4


def test_walks_do_not_age_an_estimate_of_so_many_steps():
    known = cache(4, a=3)
    known.begin_walk(5)
    assert known.is_fresh("a", 6)


def test_without_steps_an_estimate_is_of_its_walk():
    """However long the walk is; in the next one the problem is asked again, unless no step was taken in between."""
    known = cache(None, a=0, b=9, c=10)
    assert known.is_fresh("a", 1000)
    known.begin_walk(10)
    assert [known.is_fresh(name, 10) for name in "abc"] == [False, False, True]
    assert known.is_fresh("c", 1000)


def test_what_is_fresh_tells_what_to_expect():
    known = cache(2, a=3, b=5)
    known.estimates["c"] = Estimate(4, 4, 4, is_solved=True)
    assert known.fresh_counts(4) == [(1, 8), (1, 8), (4, 4)]
    assert known.fresh_counts(5) == [(1, 8), (4, 4)]
    assert known.fresh_counts(7) == []


def test_a_checkpoint_holds_all_of_it():
    known = PassRateCache(
        3,
        walk_began=7,
        num_calls=4,
        estimates={
            "a": Estimate(0, 16, 5, is_solved=False),
            "b": Estimate(2, 4, 7, is_solved=False, chains=[[1, 2], [3]]),
            "c": Estimate(4, 4, 7, is_solved=True),
        },
    )
    again = PassRateCache.from_json(json.loads(json.dumps(known.as_json())), every=3)
    assert again == known
    assert again.estimates["b"].pass_rate == 0.5
    assert all(isinstance(found, Estimate) for found in again.estimates.values())


def test_settings_are_those_of_now():
    """How long an estimate is good for is no part of a checkpoint."""
    again = PassRateCache.from_json(cache(3, a=0).as_json(), every=10)
    assert again.is_fresh("a", 9)


def test_an_estimate_without_chains_shares_none():
    """The empty default is not a list that two estimates write into."""
    first, second = Estimate(0, 4, 0, is_solved=False), Estimate(0, 4, 0, is_solved=False)
    assert first.chains == second.chains == []
    assert first._replace(chains=[[1]]).chains == [[1]]
    assert second.chains == []
