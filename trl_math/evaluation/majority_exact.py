"""maj@k of one problem, exactly: no subset is enumerated.

Draw k of the n samples. Class i, of size m_i, gets X_i votes; the X_i are multivariate hypergeometric, that is,
independent Binomial(m_i, k/n) given that all of them, with the unanswered samples, sum to k. A class c wins a share
1/T of the vote if X_c = t is the largest count and T classes reach it, and 1/T is the integral of s^(T-1) over [0, 1]:

    E[share of c] = sum_t integral_0^1 P(X_c = t, every other class below t, or at t at the price of a factor s) ds

The probability of independent parts and a fixed sum is one coefficient of a product of polynomials, one a class. It is
read off the product's values on the unit circle, a sum of terms of size 1 with a result of at least P(sum = k), so
that nothing cancels; as many points as the sum spreads, about 18 standard deviations, leave an error below rounding.
In s the product is a polynomial of degree T - 1 <= k/t - 1, which Gauss-Legendre quadrature integrates exactly.
Classes of one size have the same factor, which is raised to a power.
"""

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np


NEGLIGIBLE = 1e-18  # of a probability, against the probability that the sum is k
BLOCK = 1 << 18  # complex numbers held at a time


@functools.lru_cache(maxsize=4)
def _log_factorials(size: int) -> np.ndarray:
    # Differences of large logarithms follow: where the platform has longer floats, they keep the digits.
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, size, dtype=np.longdouble)))])


def _binomial(size: int, share: float, num_terms: int) -> np.ndarray:
    """Return P(X = 0), ..., P(X = num_terms - 1) for X of Binomial(size, share)."""
    table = _log_factorials(1 << (size + 1).bit_length())
    j = np.arange(min(num_terms, size + 1))
    p = np.longdouble(share)
    log_p = table[size] - table[j] - table[size - j] + j * np.log(p) + (size - j) * np.log1p(-p)
    return np.concatenate([np.exp(log_p.astype(float)), np.zeros(num_terms - len(j))])


class Circle(NamedTuple):
    """Where polynomials are evaluated, and what reads off the coefficient of x^k."""

    share: float  # k / n
    unbound: np.ndarray  # (L,), q + p x: the factor of a sample whose class does not matter
    x: np.ndarray  # (L,), half of the points; the others are conjugates
    weights: np.ndarray  # (L,), of the real part, P(sum = k) divided out
    certain: float  # P(sum = k)


@functools.lru_cache(maxsize=64)
def circle(num_samples: int, k: int) -> Circle:
    """Return the points for sums of `num_samples` independent votes, k of them expected."""
    share = k / num_samples
    sums = _binomial(num_samples, share, num_samples + 1)
    certain = float(sums[k])
    # With M points the coefficients of k + M, k - M, ... come along: M reaches beyond what has any probability.
    likely = np.flatnonzero(sums > NEGLIGIBLE * certain / num_samples)
    num_points = int(max(likely[-1] - k, k - likely[0])) + 1
    index = np.arange(num_points // 2 + 1)
    x = np.exp(2j * np.pi * index / num_points)
    # The point l and its conjugate M - l give twice the real part, except where they are the same point.
    twice = np.where((index == 0) | (2 * index == num_points), 1.0, 2.0)
    back = np.exp(-2j * np.pi * ((k * index) % num_points) / num_points)
    return Circle(share, 1 - share + share * x, x, twice * back / (num_points * certain), certain)


@functools.lru_cache(maxsize=256)
def _quadrature(num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return Gauss-Legendre nodes on [0, 1], (S, 1), and their weights."""
    nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
    return (1 + nodes)[:, None] / 2, weights / 2


class Plan(NamedTuple):
    """The counts t at which a class may win, with what the others may do then."""

    counts: np.ndarray  # (t,)
    nodes: np.ndarray  # (t,), of the quadrature
    rivals: list[tuple[int, int]]  # sizes of other classes that may share the first place, and how many have each
    work: int  # complex multiplications


def _powers(copies: int) -> int:
    """Return about how many multiplications a power takes."""
    return 2 * copies.bit_length()


def plan(size: int, others: Sequence[int], num_samples: int, k: int) -> Plan:
    """Return how the expected share of a class of `size` among `others` is computed."""
    points = circle(num_samples, k)
    groups = sorted(Counter(others).items())
    top = min(size, k)
    bound = _binomial(size, points.share, top + 1) / points.certain
    for other, copies in groups[-3:]:  # the largest classes rule out most small counts
        bound = bound * np.minimum(np.cumsum(_binomial(other, points.share, top + 1)), 1.0) ** copies
    counts = np.flatnonzero(bound > NEGLIGIBLE)
    counts = counts[counts > 0]
    reaching = np.array([sum(copies for other, copies in groups if other >= t) for t in counts], dtype=int)
    most = np.minimum(reaching, k // np.maximum(counts, 1) - 1) + 1  # classes that can share the first place
    nodes = np.maximum((most + 1) // 2, 1)
    cost = [
        nodes[place] * sum(_powers(copies) for other, copies in groups if other >= t) for place, t in enumerate(counts)
    ]
    if len(counts):
        groups = [group for group in groups if group[0] >= counts[0]]  # smaller ones never reach the first place
    tables = (len(groups) + 1) * (int(counts[-1]) + 1) if len(counts) else 0
    return Plan(counts, nodes, groups, (int(sum(cost)) + tables) * len(points.x))


def _batches(steps: Plan, num_points: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yield counts that have the same number of nodes, as many as fit into memory."""
    for nodes in np.unique(steps.nodes):
        counts = steps.counts[steps.nodes == nodes]
        rows = max(1, BLOCK // (int(nodes) * num_points))
        for start in range(0, len(counts), rows):
            yield counts[start : start + rows], int(nodes)


def expected_share(size: int, others: Sequence[int], num_samples: int, k: int, steps: Plan | None = None) -> float:
    """Return the expected share of the vote that a class of `size` samples wins, over all k-subsets, k < n.

    Args:
        size: Samples of the class.
        others: Samples of each other class. Those of no class are the rest of `num_samples`.
        num_samples: n.
        k: Below n.
        steps: What `plan` says, if it was asked before.
    """
    steps = plan(size, others, num_samples, k) if steps is None else steps
    if not len(steps.counts):
        return 0.0
    points = circle(num_samples, k)
    top = int(steps.counts[-1])
    own = _binomial(size, points.share, top + 1)
    turns = points.x ** np.arange(top + 1)[:, None]  # (t, L), x^t
    exactly = [_binomial(other, points.share, top + 1)[:, None] * turns for other, _ in steps.rivals]  # (t, L) each
    below = [np.cumsum(terms, axis=0) - terms for terms in exactly]
    free = num_samples - size - sum(other * copies for other, copies in steps.rivals)
    total = 0.0
    for counts, nodes in _batches(steps, len(points.x)):
        s, weights = _quadrature(nodes)
        unbound = np.full(len(counts), free)
        product = np.ones((len(counts), nodes, len(points.x)), dtype=complex)
        for (other, copies), under, at in zip(steps.rivals, below, exactly, strict=True):
            unbound += np.where(other < counts, other * copies, 0)
            rows = np.flatnonzero(other >= counts)
            if len(rows):
                factor = under[counts[rows], None] + s * at[counts[rows], None]
                product[rows] *= factor if copies == 1 else factor**copies
        # Classes too small to reach t, like unanswered samples, take any number of votes.
        bound = points.unbound ** unbound[:, None] * turns[counts] * points.weights  # (t, L)
        shares = np.einsum("tsl,tl,s->t", product, bound, weights).real
        total += float(shares @ own[counts])
    return min(max(total, 0.0), 1.0)
