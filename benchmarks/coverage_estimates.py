"""How good are estimates of F(N, p) from k right samples of n? Bias and spread against truth, exactly.

    python benchmarks/coverage_estimates.py [--num-samples 64] [--num-attempts 4 16 64] [--quick]

F(N, p) = N p (1-p)^(N-1) / (1 - (1-p)^N) is what a problem weighs that N attempts solve with probability
1 - (1-p)^N. Of p only k of n is known, and k is binomial: so the mean of an estimate, and how far it lies from truth,
are sums over k from 0 to n, and nothing is simulated. `pass@N` and `slope`, its derivative with respect to log p, are
the two parts of F that have unbiased estimates; F itself, a ratio, has none. Those need N <= n.

The table is markdown. The last lines are each estimator's root mean square error over pass rates that are even in
log p, between 1/(4 n) and 1.
"""

import argparse
import math
from collections.abc import Sequence

import numpy as np

from trl_math.losses.coverage_estimates import COVERAGE_ESTIMATORS, estimate, pass_at_n, pass_at_n_slope


RATES = (0.002, 0.01, 0.05, 0.1, 0.3, 0.8)
NUM_SAMPLES, NUM_ATTEMPTS = 64, (4, 16, 64)


def true_weight(rate: float, num_attempts: int) -> float:
    """Return F(N, p)."""
    return true_slope(rate, num_attempts) / true_coverage(rate, num_attempts)


def true_coverage(rate: float, num_attempts: int) -> float:
    """Return pass@N."""
    return -math.expm1(num_attempts * math.log1p(-rate))


def true_slope(rate: float, num_attempts: int) -> float:
    """Return the derivative of pass@N with respect to log p."""
    return num_attempts * rate * (1 - rate) ** (num_attempts - 1)


def binomial(rate: float, num_samples: int) -> np.ndarray:
    """Return the probability of each k from 0 to n."""
    right = range(num_samples + 1)
    return np.array([math.comb(num_samples, k) * rate**k * (1 - rate) ** (num_samples - k) for k in right])


def weights(name: str, num_samples: int, num_attempts: int) -> np.ndarray | None:
    """Return the estimate for each k from 0 to n; None if there is none for so few samples."""
    if name == "u_statistic" and num_attempts > num_samples:
        return None
    return estimate(name, np.arange(num_samples + 1), num_samples, num_attempts).numpy()


def parts(num_samples: int, num_attempts: int) -> dict[str, np.ndarray]:
    """Return the estimates of the two parts of F for each k."""
    import torch

    right = torch.arange(num_samples + 1, dtype=torch.float64)
    total = torch.full_like(right, num_samples)
    return {
        "pass@N": pass_at_n(right, total, num_attempts).numpy(),
        "slope": pass_at_n_slope(right, total, num_attempts).numpy(),
    }


def bias_and_spread(estimates: np.ndarray, rate: float, truth: float) -> tuple[float, float]:
    """Return how far the mean of the estimates is from truth, and their standard deviation."""
    chance = binomial(rate, len(estimates) - 1)
    mean = float(chance @ estimates)
    return mean - truth, math.sqrt(max(float(chance @ (estimates - mean) ** 2), 0.0))


def table(num_samples: int, num_attempts: int, rates: tuple[float, ...] = RATES) -> list[str]:
    """Return the lines of one table: for each pass rate the truth, and bias ± standard deviation of each estimator."""
    found = {name: weights(name, num_samples, num_attempts) for name in COVERAGE_ESTIMATORS}
    unbiased = parts(num_samples, num_attempts) if num_attempts <= num_samples else {}
    truths = {"pass@N": true_coverage, "slope": true_slope}
    head = ["p", "F", *found, *(f"{name} (true)" for name in unbiased)]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for rate in rates:
        truth = true_weight(rate, num_attempts)
        cells = [f"{rate:g}", f"{truth:.3f}"]
        for estimates in found.values():
            cells.append("-" if estimates is None else _cell(*bias_and_spread(estimates, rate, truth)))
        for name, estimates in unbiased.items():
            part = truths[name](rate, num_attempts)
            cells.append(f"{_cell(*bias_and_spread(estimates, rate, part))} ({part:.3f})")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def root_mean_square(name: str, num_samples: int, num_attempts: int) -> float | None:
    """Return the error of an estimator over pass rates that are even in log p."""
    estimates = weights(name, num_samples, num_attempts)
    if estimates is None:
        return None
    squares = []
    for rate in np.exp(np.linspace(math.log(1 / (4 * num_samples)), math.log(0.999), 60)):
        bias, spread = bias_and_spread(estimates, float(rate), true_weight(float(rate), num_attempts))
        squares.append(bias**2 + spread**2)
    return math.sqrt(sum(squares) / len(squares))


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--num-samples", type=int, default=NUM_SAMPLES)
    parser.add_argument("--num-attempts", type=int, nargs="+", default=list(NUM_ATTEMPTS))
    parser.add_argument("--quick", action="store_true", help="one small table, to see that it runs")
    asked = parser.parse_args(words)
    num_samples, all_attempts = (8, [4]) if asked.quick else (asked.num_samples, asked.num_attempts)
    for num_attempts in all_attempts:
        print(f"\nN = {num_attempts}, n = {num_samples}: bias ± standard deviation\n")
        print("\n".join(table(num_samples, num_attempts)))
    print()
    for num_attempts in all_attempts:
        errors = {name: root_mean_square(name, num_samples, num_attempts) for name in COVERAGE_ESTIMATORS}
        said = ", ".join(f"{name} {'-' if error is None else f'{error:.3f}'}" for name, error in errors.items())
        print(f"root mean square error of F, N = {num_attempts}, n = {num_samples}: {said}")


def _cell(bias: float, spread: float) -> str:
    return f"{bias + 0.0:+.3f} ± {spread:.3f}"


if __name__ == "__main__":
    main()
