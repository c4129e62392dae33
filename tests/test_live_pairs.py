"""The stream of live pairs: full steps, honest ages, nothing lost or repeated, and a stop that changes nothing."""

import json
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trl_math.errors import DataError, RunFolderError
from trl_math.trainers.live_pairs import SAMPLED_AT, LivePairLoader, LiveState, Sampled
from trl_math.trainers.refill import StepShape


class Scripted:
    """A source whose pairs follow from problem and seed alone: problem p gives `num_pairs(p)` of them."""

    def __init__(self, num_pairs):
        self.num_pairs = num_pairs
        self.asked, self.follows = [], 0

    def follow(self):
        self.follows += 1

    def sample(self, problems, seed):
        self.asked.append((list(problems), seed))
        pairs = [{"id": f"{p}-{seed}-{k}"} for p in problems for k in range(self.num_pairs(p))]
        rates = {str(p): 0.5 if self.num_pairs(p) else 1.0 for p in problems}
        return Sampled(pairs, 2 * len(problems), 0, rates, Counter(all_right=0))

    def schedule(self, pairs):
        return [dict(pair) for pair in pairs]


class Run:
    """A loader with a trainer's clock beside it."""

    def __init__(self, num_problems=12, shape=None, num_pairs=lambda p: 1, every=2, chunk=4, max_staleness=0, seed=0):
        self.step = 0
        self.shape = shape or StepShape(2, 1, 1, 0)
        self.source = Scripted(num_pairs)
        self.refreshes = []
        self.loader = LivePairLoader(
            self.source,
            num_problems,
            self.shape,
            collate=lambda pairs: pairs,
            step=lambda: self.step,
            every=every,
            chunk=chunk,
            max_staleness=max_staleness,
            seed=seed,
            data="some problems",
            on_refresh=self.refreshes.append,
        )
        self.batches = iter(self.loader)

    def train(self, steps):
        """Take steps as Trainer does: fetch a step's micro-batches, then count it. Returns (ids, ages) of each."""
        taken = []
        for _ in range(steps):
            pairs = [pair for _ in range(self.shape.num_accumulation) for pair in next(self.batches)]
            taken.append(([pair["id"] for pair in pairs], [self.step - pair[SAMPLED_AT] for pair in pairs]))
            self.step += 1
        return taken


@given(
    num_problems=st.integers(1, 12),
    micro_batch=st.integers(1, 3),
    accumulation=st.integers(1, 2),
    yields=st.lists(st.integers(0, 3), min_size=1, max_size=4),
    every=st.one_of(st.none(), st.integers(1, 5)),
    chunk=st.integers(1, 9),
    staleness=st.integers(0, 6),
)
@example(2, 1, 1, [0, 1], 1, 1, 0)  # a refresh across the end of a walk meets the barren problem twice
@settings(deadline=None, max_examples=200)
def test_steps_are_full_and_no_pair_is_trained_twice(
    num_problems, micro_batch, accumulation, yields, every, chunk, staleness
):
    """Whatever problems yield: full steps, each pair once, none older than was allowed, and the counts add up."""
    shape = StepShape(micro_batch, accumulation, 1, 0)
    run = Run(num_problems, shape, lambda p: yields[p % len(yields)], every, chunk, staleness)
    if not any(yields[p % len(yields)] for p in range(num_problems)):
        with pytest.raises(DataError, match="No pair can be built"):
            run.train(1)
        return
    taken = run.train(12)
    ids = [one for ids, _ in taken for one in ids]
    assert all(len(ids) == shape.global_batch for ids, _ in taken)
    assert len(set(ids)) == len(ids)
    longest_span = max(refresh.num_steps for refresh in run.refreshes)
    assert max(age for _, ages in taken for age in ages) <= staleness + longest_span - 1
    state = run.loader.state
    assert state.num_pairs == len(ids) + len(state.buffer) + state.num_dropped
    assert state.num_refreshes == run.source.follows == len(run.refreshes)
    assert state.num_problems == sum(len(problems) for problems, _ in run.source.asked)
    if every is not None:
        assert longest_span <= every


@given(num_problems=st.integers(1, 15), chunk=st.integers(1, 6), seed=st.integers(0, 3))
@settings(deadline=None, max_examples=50)
def test_every_problem_is_asked_once_a_walk(num_problems, chunk, seed):
    """The order is a new permutation in each walk, and no two questions are asked with one seed."""
    run = Run(num_problems, chunk=chunk, every=3, seed=seed)
    run.train(30)
    asked = [problem for problems, _ in run.source.asked for problem in problems]
    for start in range(0, len(asked) - num_problems + 1, num_problems):
        assert sorted(asked[start : start + num_problems]) == list(range(num_problems))
    seeds = [seed for _, seed in run.source.asked]
    assert len(set(seeds)) == len(seeds)
    assert all(len(problems) <= chunk for problems, _ in run.source.asked)


def test_a_refresh_comes_every_so_many_steps():
    """With `every` 3 the ages of pairs are 0, 1, 2, and begin again."""
    run = Run(num_problems=50, every=3, chunk=6)
    ages = [max(ages) for _, ages in run.train(9)]
    assert ages == [0, 1, 2] * 3
    assert [refresh.step for refresh in run.refreshes] == [0, 3, 6]


def test_without_a_number_of_steps_a_refresh_is_a_walk_over_all_problems():
    run = Run(num_problems=10, every=None, chunk=3)
    run.train(5)
    assert [(refresh.num_problems, refresh.num_steps) for refresh in run.refreshes] == [(10, 5)]
    assert run.loader.progress == 1.0
    run.train(1)
    assert run.loader.state.passes == 2


def test_left_over_pairs_are_dropped_or_carried():
    """Of 12 pairs 8 are needed: 4 are left, which are 2 steps old when the next span begins."""
    dropped = Run(num_problems=24, every=2, chunk=12, shape=StepShape(4, 1, 1, 0), max_staleness=1)
    dropped.train(3)
    assert [refresh.num_dropped for refresh in dropped.refreshes] == [0, 4]
    carried = Run(num_problems=24, every=2, chunk=12, shape=StepShape(4, 1, 1, 0), max_staleness=2)
    taken = carried.train(4)
    assert [refresh.num_dropped for refresh in carried.refreshes] == [0, 0]
    assert sorted(age >= 2 for _, ages in taken[2:] for age in ages) == [False] * 4 + [True] * 4


def test_too_few_pairs_shorten_the_span(caplog):
    """Ten problems with one pair each are five steps, not eight, and the next refresh comes then."""
    run = Run(num_problems=10, every=8, chunk=4)
    assert [max(ages) for _, ages in run.train(7)] == [0, 1, 2, 3, 4, 0, 1]
    assert "gave pairs for 5 steps instead of live_every: 8" in caplog.text


def test_few_pairs_fill_a_step_in_several_walks():
    """Where one walk does not fill a step the refresh goes on with another."""
    run = Run(num_problems=3, num_pairs=lambda p: int(p == 0), every=2, shape=StepShape(2, 2, 1, 0))
    run.train(1)
    (refresh,) = run.refreshes
    assert (refresh.num_problems, refresh.num_steps) == (12, 1)


def test_no_pair_says_why():
    """The message holds the histogram of pass rates and what was left out."""
    run = Run(num_problems=5, num_pairs=lambda p: 0)
    with pytest.raises(DataError) as error:
        run.train(1)
    assert "No pair can be built of the 5 problems of live_data at step 0" in str(error.value)
    assert "never: 0, always: 5" in str(error.value)


def test_a_stream_that_dries_up_ends(caplog):
    """Once there were pairs, their end is no error: what was trained is kept."""
    run = Run(num_problems=4, num_pairs=lambda p: 1, every=2)
    run.train(2)
    run.source.num_pairs = lambda p: 0
    assert next(run.batches, None) is None
    assert list(run.loader) == []
    assert "Training ends here. No pair can be built" in caplog.text


def test_left_over_pairs_may_suffice():
    """Forty pairs of one question last for several spans, if they may grow that old."""
    run = Run(num_problems=4, num_pairs=lambda p: 40, every=2, chunk=1, max_staleness=100)
    run.train(6)
    assert [refresh.num_problems for refresh in run.refreshes] == [1, 0, 0]


def test_processes_share_one_buffer():
    """Two processes train disjoint halves of every step of the same buffer."""
    alone = Run(shape=StepShape(4, 2, 1, 0), num_problems=40).train(6)
    halves = [Run(shape=StepShape(2, 2, 2, rank), num_problems=40).train(6) for rank in (0, 1)]
    for (whole, _), (first, _), (second, _) in zip(alone, *halves, strict=True):
        assert [*first[:2], *second[:2], *first[2:], *second[2:]] == whole


@pytest.mark.parametrize("every", [3, None])
@pytest.mark.parametrize("stop", range(1, 9))
def test_a_stop_changes_nothing(stop, every):
    """k steps, the state through JSON, the rest: the same pairs, and the same questions with the same seeds."""
    make = {"num_problems": 9, "num_pairs": lambda p: p % 3, "every": every, "chunk": 2, "max_staleness": 4}
    whole = Run(**make)
    expected = whole.train(12)
    first, second = Run(**make), Run(**make)
    taken = first.train(stop)
    second.loader.restore(LiveState(**json.loads(json.dumps(vars(first.loader.state)))), "checkpoint")
    second.step = stop
    taken += second.train(12 - stop)
    assert taken == expected
    assert first.source.asked + second.source.asked == whole.source.asked
    assert second.loader.state == whole.loader.state


def test_another_data_set_is_refused():
    run = Run()
    with pytest.raises(RunFolderError, match="other live_data"):
        run.loader.restore(LiveState(data="other problems"), "checkpoint-3")


def test_token_logps_stay_for_one_step():
    """What is compared in the first step leaves the buffer before a checkpoint could hold it."""
    run = Run(num_problems=12, every=4, chunk=12)
    sample = run.source.sample
    told = {"chosen_token_logps": [0.0], "rejected_token_logps": [0.0]}

    def sample_told(problems, seed):
        sampled = sample(problems, seed)
        return sampled._replace(pairs=[{**pair, **told} for pair in sampled.pairs])

    run.source.sample = sample_told
    first = next(run.batches)
    assert all("chosen_token_logps" in pair for pair in first)
    assert run.loader.state.buffer
    assert not any("token_logps" in name for pair in run.loader.state.buffer for name in pair)
