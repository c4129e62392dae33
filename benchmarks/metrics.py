"""The numbers of an evaluation: how fast they are computed, and how often their intervals contain the truth.

    python benchmarks/metrics.py [--quick]

Two tables. Times are medians of processor seconds on one core. Coverage is simulated: a population of problems, each
with its own probability of a right sample, of which benchmarks of n problems are drawn again and again; the share of
95 % intervals that contain the population's mean is to be 93 to 97 %. Populations are Beta(m c, m (1-c)) with mean m:
c near 0 is problems that are always or never solved, c = "inf" is problems that are all alike. Where every value is a
multiple of 1/n, as for one sample a problem, coverage jumps with the mean, and it is the average over means within
20 % of the one that is stated that is measured. The last line is the figure.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from trl_math.evaluation import calibration, difference_estimate, majority_at_k, mean_estimates, pass_at_k
from trl_math.evaluation.intervals import mean_interval


NUM_PROBLEMS = (30, 100, 300, 1000)
MEANS = (0.03, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97)
CONCENTRATIONS = (0.1, 0.5, 2.0, 10.0, np.inf)
# Samples of a problem and the metric: one sample, mean accuracy, pass@k.
SETTINGS = ((1, 1), (4, 1), (16, 1), (64, 1), (8, 4), (64, 16))
ANY = 0.0  # with one sample a problem only the mean matters
POPULATION = 400_000
TRUTHS = (0.02, 0.98)  # pass@k of an easy population may be above; not what is promised
Z = 1.959964


class Case(NamedTuple):
    """One population, one size of benchmark, one metric."""

    num_problems: int
    concentration: float
    num_samples: int
    k: int
    mean: float

    def __str__(self) -> str:
        metric = f"pass@{self.k}" if self.k > 1 else "accuracy"
        return (
            f"{self.num_problems:5} problems, {self.num_samples:2} samples, {metric:8} c = {self.concentration:4} "
            f"mean {self.mean}"
        )


def rates(rng: np.random.Generator, concentration: float, mean: float, shape: tuple[int, ...]) -> np.ndarray:
    """Return the probability of a right sample for problems, (n, R), of a population."""
    if concentration == ANY:
        rare = min(mean, 1 - mean) * rng.uniform(0.8, 1.2, shape[1:])  # one population a column
        return np.broadcast_to(rare if mean <= 0.5 else 1 - rare, shape)
    if np.isinf(concentration):
        return np.full(shape, mean)
    return rng.beta(mean * concentration, (1 - mean) * concentration, shape)


def metric(rng: np.random.Generator, p: np.ndarray, num_samples: int, k: int) -> np.ndarray:
    """Return what is measured of each problem, from samples."""
    return pass_at_k(num_samples, rng.binomial(num_samples, p), k)


def cases(sizes: tuple[int, ...]) -> Iterator[Case]:
    for num_problems in sizes:
        for num_samples, k in SETTINGS:
            for concentration in (ANY,) if num_samples == 1 else CONCENTRATIONS:
                for mean in MEANS:
                    yield Case(num_problems, concentration, num_samples, k, mean)


def coverage(case: Case, repetitions: int, rng: np.random.Generator) -> tuple[float, float, float] | None:
    """Return the percentage of intervals that contain the truth, ours and the t interval's, and the truth."""
    p = rates(rng, case.concentration, case.mean, (case.num_problems, repetitions))
    values = metric(rng, p, case.num_samples, case.k)  # (n, R)
    truth: np.ndarray | float = p[0] if case.concentration == ANY else case.mean
    if case.k > 1:
        truth = float(
            metric(rng, rates(rng, case.concentration, case.mean, (POPULATION, 1)), case.num_samples, case.k).mean()
        )
    if not TRUTHS[0] <= np.mean(truth) <= TRUTHS[1]:
        return None
    means, low, high = mean_interval(values)
    half = Z * values.std(axis=0, ddof=1) / np.sqrt(case.num_problems)
    plain = np.abs(means - truth) <= half
    return 100 * float(((low <= truth) & (truth <= high)).mean()), 100 * float(plain.mean()), float(np.mean(truth))


def difference_coverage(
    num_problems: int, num_samples: int, mean: float, shift: float, repetitions: int, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Return ours and the normal interval's coverage of a paired difference, and how many problems carry it."""

    def pair(shape: tuple[int, ...]) -> np.ndarray:
        p = np.clip(rng.beta(mean, 1 - mean, shape), 1e-12, 1 - 1e-12)
        moved = 1 / (1 + np.exp(-(np.log(p / (1 - p)) + shift + 0.5 * rng.normal(size=shape))))
        return (rng.binomial(num_samples, moved) - rng.binomial(num_samples, p)) / num_samples

    truth = float(pair((POPULATION,)).mean())
    d = pair((repetitions, num_problems))
    ours = [difference_estimate(row) for row in d]
    half = Z * d.std(axis=1, ddof=1) / np.sqrt(num_problems)
    carried = np.median(np.abs(d).sum(axis=1) ** 2 / np.maximum((d * d).sum(axis=1), 1e-12))
    inside = np.mean([one.low <= truth <= one.high for one in ours])
    return 100 * float(inside), 100 * float((np.abs(d.mean(axis=1) - truth) <= half).mean()), float(carried)


def calibration_coverage(num_problems: int, exponent: float, repetitions: int, rng: np.random.Generator) -> float:
    """Return how often the interval of ECE has the truth in it, for accuracy = confidence ** exponent."""

    def confidences(n: int) -> np.ndarray:
        return np.ceil(64 * rng.beta(1.2, 0.8, n)) / 64

    population = confidences(POPULATION)
    gap = population**exponent - population
    inside = 0
    for seed in range(repetitions):
        confidence = confidences(num_problems)
        correct = rng.random(num_problems) < confidence**exponent
        result = calibration(confidence, correct, num_resamples=200, seed=seed)
        edges = [one.low for one in result.bins[1:]]
        members = np.searchsorted(edges, population, side="right")
        truth = float(np.abs(np.bincount(members, gap)).sum() / POPULATION)
        inside += result.error.low <= truth <= result.error.high
    return 100 * inside / repetitions


def votes(rng: np.random.Generator, num_samples: int) -> list[int | None]:
    """Return votes for class 0, the right one, for common mistakes, for hundreds of rare ones, and none."""
    share = rng.beta(0.5, 0.5)
    wrong = rng.choice(60, num_samples, p=rng.dirichlet(np.full(60, 0.2))) if rng.random() < 0.7 else None
    classes = 1 + (rng.integers(0, 600, num_samples) if wrong is None else wrong)
    chosen = np.where(rng.random(num_samples) < share, 0, classes).tolist()
    return [None if missing else int(one) for one, missing in zip(chosen, rng.random(num_samples) < 0.05, strict=True)]


def seconds(work: Callable[[], object], repetitions: int) -> float:
    times = []
    for _ in range(repetitions):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


def measure_times(quick: bool) -> dict[str, float]:
    rng = np.random.default_rng(0)
    problems, samples, voters = (200, 256, 10) if quick else (5000, 1024, 500)
    correct = rng.integers(0, samples + 1, problems)
    ks = np.arange(1, samples + 1)
    values = pass_at_k(samples, correct, ks)
    sampled = [votes(rng, samples) for _ in range(voters)]
    majority_ks = (1, 4, 16, 64, 256)
    return {
        f"pass@k, {problems:,} problems x {samples:,} samples, all k": seconds(
            lambda: pass_at_k(samples, correct, ks), 7
        ),
        "  the same, every problem another number of samples": seconds(
            lambda: pass_at_k(samples + np.arange(problems), correct, ks), 3
        ),
        f"intervals of {samples:,} curves' points": seconds(lambda: mean_estimates(values), 3),
        f"maj@k, {voters} problems x {samples:,} samples, k = 1 to 256": seconds(
            lambda: majority_at_k(sampled, [{0}] * voters, majority_ks), 1
        ),
    }


def measure_means(quick: bool) -> list[str]:
    rng = np.random.default_rng(1)
    figures = []
    for size in (30,) if quick else NUM_PROBLEMS:
        found = [(case, coverage(case, 100 if quick else 4000, rng)) for case in cases((size,))]
        rows = [(case, result) for case, result in found if result is not None]
        ours, plain = (np.array([result[which] for _, result in rows]) for which in (0, 1))
        inside, inside_plain = ((x >= 93) & (x <= 97) for x in (ours, plain))
        figures.append(f"{size}: {ours.min():.1f}..{ours.max():.1f}")
        print(
            f"{size:5} problems: {ours.min():5.1f} to {ours.max():5.1f} %, mean {ours.mean():.1f}, "
            f"{inside.sum()} of {len(rows)} within 2 points, {(ours < 93).sum()} below "
            f"(normal interval: {plain.min():.1f} to {plain.max():.1f}, {inside_plain.sum()} within)"
        )
        for case, (our, other, truth) in rows:
            if not 93 <= our <= 97 and not quick:
                print(f"      {case!s:70} truth {truth:.3f}: {our:.1f} (normal {other:.1f})")
    return figures


def main(arguments: list[str] | None = None) -> None:
    quick = "--quick" in (sys.argv[1:] if arguments is None else arguments)
    times = measure_times(quick)
    for name, value in times.items():
        print(f"{name:70} {value:7.3f} s")
    print("\nCoverage of 95 % intervals of means over problems")
    figures = measure_means(quick)
    print("\nCoverage of 95 % intervals of paired differences")
    rng = np.random.default_rng(2)
    for size in (30,) if quick else NUM_PROBLEMS[:3]:
        for samples in (1, 16):
            for mean in (0.1, 0.5, 0.9):
                for shift in (0.0, 0.5):
                    our, plain, carried = difference_coverage(size, samples, mean, shift, 50 if quick else 2000, rng)
                    print(
                        f"{size:5} problems, {samples:2} samples, mean {mean}, shift {shift}: {our:5.1f} % "
                        f"(normal {plain:.1f}); {carried:.0f} problems carry it"
                    )
    print("\nCoverage of 95 % intervals of the calibration error")
    for size in (50,) if quick else NUM_PROBLEMS:
        for exponent in (1.0, 1.2, 2.0, 4.0):
            share = calibration_coverage(size, exponent, 5 if quick else 300, rng)
            print(f"{size:5} problems, accuracy = confidence^{exponent}: {share:.1f} %")
    print(f"metrics: all pass@k in {next(iter(times.values())):.3f} s; coverage of means {', '.join(figures)} %")


if __name__ == "__main__":
    main()
