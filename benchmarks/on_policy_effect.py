"""The effect of on-policy rounds, and of the mistake that must not be made, on one small model.

    python benchmarks/on_policy_effect.py                  # some forty minutes on two CPU cores, in three experiments
    python benchmarks/on_policy_effect.py --only times-tables    # the first alone, under twenty

Runs the recipes `on-policy-dpo/times-tables` (two rounds of on-policy DPO), `times-tables-three-prompts` (the same,
asked in three ways) and `times-tables-mismatched` (the same samples, but the prompt of a pair is drawn whichever its
answers were given to), or what is left of them, and writes the table and the figure of the recipes' README.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from trl_math.evaluation.compare_runs import compare_runs, read_run
from trl_math.reporting.rounds import Evaluation, Rounds, read_rounds
from trl_math.reporting.rounds_figure import draw_rounds


RECIPES = {
    "times-tables": "on-policy DPO",
    "times-tables-three-prompts": "asked in three ways",
    "times-tables-mismatched": "prompts drawn independently of answers",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/on-policy-dpo"), help="where the experiments go")
    parser.add_argument("--figure", type=Path, default=Path("recipes/on-policy-dpo/times-tables.png"))
    parser.add_argument("--only", choices=list(RECIPES), help="one of the experiments")
    arguments = parser.parse_args()
    experiments = []
    for recipe, name in RECIPES.items():
        if arguments.only not in (None, recipe):
            continue
        folder = arguments.folder / recipe
        start = time.monotonic()
        words = ["run", "--config", f"on-policy-dpo/{recipe}", "--output", str(folder)]
        subprocess.run([sys.executable, "-m", "trl_math.cli.main", *words], check=True)
        print(f"{recipe}: {time.monotonic() - start:.0f} s")
        experiments.append(read_rounds(folder, name))
    print(f"\n{table(experiments)}\n")
    print("The figure:", *draw_rounds(experiments, arguments.figure))


def table(experiments: list[Rounds]) -> str:
    """Return the README's table."""
    lines = ["| experiment | | pairs | pass@1 | pass@16 | pass@1, gain over untrained |", "|---|---|---|---|---|---|"]
    for one in experiments:
        for number, evaluation in enumerate(one.evaluations):
            stage = f"round {number}" if number else "untrained"
            pairs = str(one.num_pairs[number - 1]) if number else ""
            name = "" if number else one.name
            gain = _gain(one.evaluations[0], evaluation) if number else ""
            shown = " | ".join(_shown(evaluation.pass_at()[k]) for k in (1, 16))
            lines.append(f"| {name} | {stage} | {pairs} | {shown} | {gain} |")
    return "\n".join(lines)


def _shown(point: Any) -> str:
    return f"{100 * point.value:.1f} ({100 * point.low:.1f}..{100 * point.high:.1f})"


def _gain(first: Evaluation, second: Evaluation) -> str:
    """Return the paired difference in points, with its interval."""
    [found] = compare_runs(read_run(first.folder), read_run(second.folder), metrics=["accuracy"])
    return _shown(found.metrics["accuracy"].difference)


if __name__ == "__main__":
    main()
