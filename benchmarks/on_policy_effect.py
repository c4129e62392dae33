"""The effect of on-policy rounds, and of the mistake that must not be made, on one small model.

    python benchmarks/on_policy_effect.py                  # on two CPU cores, both of the following
    python benchmarks/on_policy_effect.py --only rounds    # some twenty minutes
    python benchmarks/on_policy_effect.py --only control   # some forty minutes

`rounds` runs the recipe `on-policy-dpo/times-tables`: two rounds of on-policy DPO. `control` runs
`times-tables-two-prompts` and `times-tables-mismatched`: answers in words and programs, behind their own prompts or
behind prompts that are drawn whichever the answers were given to. Each does what is left of it, and writes the tables
and figures of the recipes' README.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trl_math.evaluation.compare_runs import compare_runs, read_run
from trl_math.reporting.groups_figure import draw_groups
from trl_math.reporting.rounds import Evaluation, Rounds, read_rounds
from trl_math.reporting.rounds_figure import draw_rounds


# Recipe -> what it is called in the control's table; both write into the folder of the first, and share its samples.
CONTROL = {
    "times-tables-two-prompts": "answers behind their own prompts",
    "times-tables-mismatched": "prompts drawn independently of answers",
}
# The stages that evaluate -> how they ask.
ASKED = {"words": "asked for words", "program": "asked for a program"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/on-policy-dpo"), help="where the experiments go")
    parser.add_argument("--figures", type=Path, default=Path("recipes/on-policy-dpo"), help="where figures go")
    parser.add_argument("--only", choices=["rounds", "control"])
    arguments = parser.parse_args()
    if arguments.only != "control":
        rounds = run("times-tables", arguments.folder / "times-tables", "on-policy DPO")
        print(f"\n{rounds_table(rounds)}\n")
        print("The figure:", *draw_rounds([rounds], arguments.figures / "times-tables.png"))
    if arguments.only != "rounds":
        folder = arguments.folder / "times-tables-two-prompts"
        experiments = [run(recipe, folder, name) for recipe, name in CONTROL.items()]
        print(f"\n{control_table(experiments)}\n")
        print("The figure:", *draw_control(experiments, arguments.figures / "negative-control.png"))


def run(recipe: str, folder: Path, name: str) -> Rounds:
    """Run what is left of a recipe, and return what it has come to."""
    start = time.monotonic()
    words = ["run", "--config", f"on-policy-dpo/{recipe}", "--output", str(folder)]
    subprocess.run([sys.executable, "-m", "trl_math.cli.main", *words], check=True)
    print(f"{recipe}: {time.monotonic() - start:.0f} s")
    return read_rounds(folder, name)


def rounds_table(rounds: Rounds) -> str:
    """Return the README's table of rounds."""
    lines = ["| | pairs | pass@1 | pass@16 | pass@1, gain over untrained |", "|---|---|---|---|---|"]
    for number, evaluation in enumerate(rounds.evaluations):
        stage = f"round {number}" if number else "untrained"
        pairs = str(rounds.num_pairs[number - 1]) if number else ""
        gain = gain_over(rounds.evaluations[0], evaluation) if number else ""
        values = " | ".join(shown(evaluation.pass_at()[k]) for k in (1, 16))
        lines.append(f"| {stage} | {pairs} | {values} | {gain} |")
    return "\n".join(lines)


def control_table(experiments: Sequence[Rounds]) -> str:
    """Return the README's table of the negative control, by how the trained model is asked."""
    head = " | ".join(f"pass@1, {how}" for how in ASKED.values())
    lines = [f"| | pairs | {head} |", f"|---|---|{'---|' * len(ASKED)}"]
    untrained = [evaluation_of(experiments[0], f"untrained-{stage}") for stage in ASKED]
    lines.append(f"| untrained | | {' | '.join(shown(one.metrics['accuracy']) for one in untrained)} |")
    for one in experiments:
        values = [shown(evaluation_of(one, stage).metrics["accuracy"]) for stage in ASKED]
        lines.append(f"| {one.name} | {one.num_pairs[0]} | {' | '.join(values)} |")
    own, drawn = ([evaluation_of(one, stage) for stage in ASKED] for one in experiments)
    differences = [gain_over(first, second) for first, second in zip(own, drawn, strict=True)]
    lines.append(f"| the second less the first | | {' | '.join(differences)} |")
    return "\n".join(lines)


def draw_control(experiments: Sequence[Rounds], path: Path) -> list[Path]:
    """Draw pass@1 before and after, by how the model is asked."""
    points = {"untrained": [evaluation_of(experiments[0], f"untrained-{stage}") for stage in ASKED]}
    points |= {one.name: [evaluation_of(one, stage) for stage in ASKED] for one in experiments}
    first = points["untrained"][0]
    caption = f"{first.num_problems} held-out problems, {first.num_samples} samples of each; bars: 95 % intervals"
    accuracies = {name: [one.metrics["accuracy"] for one in each] for name, each in points.items()}
    return draw_groups("pass@1 on held-out problems", list(ASKED.values()), accuracies, path, caption)


def evaluation_of(rounds: Rounds, stage: str) -> Evaluation:
    """Return the evaluation that a stage of this name made."""
    return next(one for one in rounds.evaluations if one.label.rpartition("/")[2] == stage)


def shown(point: Any) -> str:
    return f"{100 * point.value:.1f} ({100 * point.low:.1f}..{100 * point.high:.1f})"


def gain_over(first: Evaluation, second: Evaluation) -> str:
    """Return the paired difference in points, with its interval."""
    [found] = compare_runs(read_run(first.folder), read_run(second.folder), metrics=["accuracy"])
    return shown(found.metrics["accuracy"].difference)


if __name__ == "__main__":
    main()
