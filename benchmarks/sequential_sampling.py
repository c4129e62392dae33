"""What does stopping early cost and save? Agreement with a fixed number of samples, on pass rates like published ones.

    python benchmarks/sequential_sampling.py [--num-samples 64] [--threshold 0.1] [--confidence 0.98] [--quick]

For seven distributions of pass rates (spikes at 0 and at 1, and what lies between), the rules `agreement`, with a
prior that is fitted to 4 samples of each problem, and `threshold`: the share of the fixed number of samples that they
draw, and of problems with the decision that all samples would have given. Both are sums over all places where sampling
may stop, and exact but for the draw of the pass rates (3,000 of each, seed 0), rounded to 0.01, and for the 4 samples.

The last line is the worst agreement and the largest share of samples of rule `agreement`.
"""

import argparse
from collections.abc import Sequence
from math import comb

import numpy as np

from trl_math.evaluation.allocation import MOST_WEIGHT
from trl_math.evaluation.posterior import fit_prior
from trl_math.evaluation.sequential import AgreementRule, Rule, ThresholdRule
from trl_math.evaluation.sequential_exact import stops


FIRST = 4  # samples that the prior is fitted to


def mixtures(number: int = 3000) -> dict[str, np.ndarray]:
    """Return pass rates by the name of their distribution.

    `math` has the shape of Figure 1 of sample-difficulty-adaptive tuning for MATH: two thirds never solved.
    """
    generator = np.random.default_rng(0)

    def mix(*parts: tuple[float, tuple[float, float] | float]) -> np.ndarray:
        rates = []
        for share, shape in parts:
            size = round(share * number)
            rates.append(generator.beta(*shape, size) if isinstance(shape, tuple) else np.full(size, float(shape)))
        return np.concatenate(rates)

    return {
        "spikes at 0 and 1": mix((0.7, 0), (0.15, (0.3, 0.6)), (0.15, 1)),
        "math": mix((2 / 3, 0), (0.25, (0.5, 0.9)), (1 / 12, (6, 0.4))),
        "two humps": mix((0.45, (0.1, 6)), (0.55, (3, 0.3))),
        "strong model": mix((0.1, 0), (0.5, (4, 0.4)), (0.4, (0.6, 0.8))),
        "beta": mix((1, (0.25, 0.9))),
        "even": mix((1, (1, 1))),
        "around the threshold": mix((0.3, 0), (0.7, (0.8, 5))),
    }


def agreement(rule: Rule, rate: float, num_fixed: int, threshold: float) -> tuple[float, float]:
    """Return the expected samples at a pass rate, and how probably the decision is that of `num_fixed` samples."""
    found = stops(rule.table, rate)
    needed = int(np.argmax(np.arange(num_fixed + 1) / num_fixed >= threshold))
    agrees = 0.0
    for samples, right in np.argwhere(found.probability > 0):
        left = int(num_fixed - samples)
        above = sum(
            comb(left, more) * rate**more * (1 - rate) ** (left - more)
            for more in range(max(needed - right, 0), left + 1)
        )
        says_above = rule.best(int(right), int(samples)) == "at_least"
        agrees += float(found.probability[samples, right]) * (above if says_above else 1 - above)
    return found.expected_samples, agrees


def over(rates: np.ndarray, rule: Rule, num_fixed: int, threshold: float) -> tuple[float, float]:
    """Return the share of the fixed samples that are drawn, and of problems that are decided alike."""
    grid, counts = np.unique(np.round(rates, 2), return_counts=True)
    found = np.array([agreement(rule, float(rate), num_fixed, threshold) for rate in grid])
    samples, agrees = counts @ found / counts.sum()
    return samples / num_fixed, agrees


def fitted_rule(rates: np.ndarray, num_fixed: int, threshold: float, confidence: float) -> AgreementRule:
    """Return rule `agreement` as `trl-math difficulty` makes it of the first samples."""
    first = np.random.default_rng(1).binomial(FIRST, rates)
    return AgreementRule(threshold, num_fixed, confidence, fit_prior(first, np.full(len(rates), FIRST), MOST_WEIGHT))


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--num-samples", type=int, default=64)
    parser.add_argument("--threshold", type=float, default=0.1)
    parser.add_argument("--confidence", type=float, default=0.98)
    parser.add_argument("--quick", action="store_true", help="few samples and problems, to see that it runs")
    asked = parser.parse_args(words)
    num_fixed, number = (16, 200) if asked.quick else (asked.num_samples, 3000)
    by_threshold = ThresholdRule(asked.threshold, 0.9 if asked.quick else asked.confidence, num_fixed)
    low, high = by_threshold.zone
    print(f"rule threshold promises {asked.confidence:g} up to {low:.3f} and from {high:.3f}\n")
    print("| pass rates | prior | agreement: samples | same decision | threshold: samples | same decision |")
    print("|---|---|---|---|---|---|")
    worst = []
    for name, rates in mixtures(number).items():
        rule = fitted_rule(rates, num_fixed, asked.threshold, asked.confidence)
        share, agrees = over(rates, rule, num_fixed, asked.threshold)
        other_share, other_agrees = over(rates, by_threshold, num_fixed, asked.threshold)
        worst.append((agrees, share))
        prior = f"{rule.prior.a:.2f}, {rule.prior.b:.2f}"
        print(f"| {name} | {prior} | {share:.1%} | {agrees:.2%} | {other_share:.1%} | {other_agrees:.2%} |")
    agrees, share = min(agrees for agrees, _ in worst), max(share for _, share in worst)
    said = f"the decision of {num_fixed} samples for {agrees:.1%} of problems, with {share:.1%} of the samples"
    print(f"\nsequential sampling: {said}, at worst")


if __name__ == "__main__":
    main()
