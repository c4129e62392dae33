"""maj@k: how often the most frequent of k sampled answers is right, over all k-subsets of the samples.

    maj@k = E[ (correct classes with the largest count) / (classes with the largest count) ]

The answers of a problem vote by equivalence class (1/2 and 0.5 are one class), so that a vote is not split between
spellings. The conventions, each of which moves the number:

1. The expectation is over all C(n, k) subsets of the n samples, not over one subset or the n/k disjoint ones that the
   order of the samples happens to give. maj@1 is the mean accuracy, maj@n the vote of all samples.
2. A tie is split evenly between the classes that share the largest count.
3. A sample without an answer is drawn but does not vote. If none of the k samples has an answer the problem counts as
   wrong.

Exact by generating functions (`majority_exact`); where that is too much work, sampled, with its standard error.

Paper: Wang et al., "Self-Consistency Improves Chain of Thought Reasoning in Language Models"
(https://huggingface.co/papers/2203.11171).
"""

import math
from collections import Counter
from collections.abc import Collection, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from trl_math.errors import UsageError
from trl_math.evaluation.majority_exact import Plan, expected_share, plan
from trl_math.evaluation.pass_at_k import check_k, refuse_large_k


MAX_WORK = 10_000_000  # complex multiplications for a problem and a k: tenths of a second, and memory of that size
NUM_DRAWS = 10_000
DRAWS_AT_ONCE = 4_000_000  # counts held at a time

Votes = Sequence[Hashable | None]  # the class of each sample's answer, None where there is none


class Ballot(NamedTuple):
    """How the samples of one problem voted. Sizes are sorted, so that like problems are computed once."""

    correct: tuple[int, ...]  # votes for each class of correct answers
    wrong: tuple[int, ...]  # votes for each other class
    num_samples: int  # with those that have no answer


class MajorityAtK(NamedTuple):
    """maj@k of each problem, with the error of its computation: not of the benchmark, for that see `intervals`."""

    values: np.ndarray  # (P,) or (P, K)
    standard_errors: np.ndarray  # 0 where the value is exact

    @property
    def is_exact(self) -> bool:
        return not self.standard_errors.any()


def count_votes(votes: Votes, correct_classes: Collection[Hashable]) -> Ballot:
    """Return the ballot of one problem.

    Args:
        votes: The class of each sample's answer, None for a sample without one.
        correct_classes: The classes that are right. Usually one; none if no sample was right.
    """
    if isinstance(correct_classes, str) or not isinstance(correct_classes, Collection):
        raise UsageError(f"correct_classes must be a set of classes for each problem, got {correct_classes!r}.")
    counts = Counter(votes)
    counts.pop(None, None)
    right = set(correct_classes)
    correct = sorted(count for label, count in counts.items() if label in right)
    wrong = sorted(count for label, count in counts.items() if label not in right)
    return Ballot(tuple(correct), tuple(wrong), len(votes))


def winning_share(ballot: Ballot) -> float:
    """Return the share of correct classes among those with the most votes of all samples: maj@n."""
    most = max(ballot.correct + ballot.wrong, default=0)
    first = ballot.correct.count(most), ballot.wrong.count(most)
    return first[0] / sum(first) if most else 0.0


def _sampled(ballot: Ballot, k: int, num_draws: int, rng: np.random.Generator) -> tuple[float, float]:
    sizes = np.array(ballot.correct + ballot.wrong)
    colours = np.append(sizes, ballot.num_samples - sizes.sum())
    shares = []
    left = num_draws
    while left:
        draws = min(left, max(1, DRAWS_AT_ONCE // len(colours)))
        counts = rng.multivariate_hypergeometric(colours, k, size=draws, method="marginals")[:, :-1]  # (D, C)
        first = (counts == counts.max(axis=1, keepdims=True)) & (counts > 0)
        shares.append(first[:, : len(ballot.correct)].sum(axis=1) / np.maximum(first.sum(axis=1), 1))
        left -= draws
    share = np.concatenate(shares)
    # 1 / draws: that all draws agree does not prove that all subsets do.
    return float(share.mean()), math.sqrt((float(share.var()) + 1 / num_draws) / num_draws)


def _plans(ballot: Ballot, k: int) -> list[tuple[int, list[int], int, Plan]]:
    """Return for each different size of a correct class: size, the other classes, how many have it, the plan."""
    everyone = list(ballot.correct + ballot.wrong)
    parts = []
    for size, copies in Counter(ballot.correct).items():
        others = everyone.copy()
        others.remove(size)
        parts.append((size, others, copies, plan(size, others, ballot.num_samples, k)))
    return parts


def ballot_majority(
    ballot: Ballot, k: int, *, max_work: int = MAX_WORK, num_draws: int = NUM_DRAWS, seed: int = 0
) -> tuple[float, float]:
    """Return maj@k of one problem and its standard error, which is 0 where the value is exact. k is at most n."""
    if not ballot.correct:
        return 0.0, 0.0
    if k == 1:
        return sum(ballot.correct) / ballot.num_samples, 0.0
    if k == ballot.num_samples:
        return winning_share(ballot), 0.0
    parts = _plans(ballot, k)
    if sum(steps.work for *_, steps in parts) > max_work:
        # The generator depends on the problem, not on the order in which problems are computed.
        return _sampled(ballot, k, num_draws, np.random.default_rng([seed, k, *ballot.correct, *ballot.wrong]))
    shares = [
        copies * expected_share(size, others, ballot.num_samples, k, steps) for size, others, copies, steps in parts
    ]
    return min(math.fsum(shares), 1.0), 0.0


def majority_at_k(
    votes: Sequence[Votes],
    correct_classes: Sequence[Collection[Hashable]],
    k: ArrayLike,
    names: Sequence[str] | None = None,
    *,
    max_work: int = MAX_WORK,
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
) -> MajorityAtK:
    """Return maj@k of each problem.

    Args:
        votes: For each problem the class of each sample's answer, None for a sample without one.
        correct_classes: For each problem the classes that are right.
        k: One k or several, (K,). k larger than the number of samples of a problem is refused.
        names: What to call each problem in a message.
        max_work: A problem and a k that need more complex multiplications are sampled instead; 0 samples all.
        num_draws: Subsets drawn where the value is sampled.
        seed: Of these draws.

    Returns values of shape (P,), or (P, K) if several k were asked for, and their standard errors.
    """
    if len(votes) != len(correct_classes):
        raise UsageError(f"There are votes for {len(votes)} problems, but correct classes for {len(correct_classes)}.")
    ks = check_k(k)
    refuse_large_k(np.array([len(row) for row in votes], dtype=int), ks, names, "maj")
    ballots = [count_votes(row, right) for row, right in zip(votes, correct_classes, strict=True)]
    options = {"max_work": max_work, "num_draws": num_draws, "seed": seed}
    done = {
        ballot: [ballot_majority(ballot, int(one), **options) for one in np.atleast_1d(ks)] for ballot in set(ballots)
    }
    results = np.array([done[ballot] for ballot in ballots], dtype=float).reshape(len(votes), *ks.shape, 2)
    return MajorityAtK(results[..., 0], results[..., 1])
