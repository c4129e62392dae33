"""Chains of thought: what a gate on pass rates, or weights F(N, p) of them, keep of pass@64, on a CPU.

    python benchmarks/cot_effect.py --seeds 4 --output runs/cot_effect

The task is a sum of two products with a written step (`7*8+6*9=`, and `56+54=110` or `54+56=110`), one token a
character. A small Llama learns it on other problems until it solves new ones now and then; from there every arm takes
20 rounds of one epoch on the same 300 new problems, in equally many optimiser steps: cross-entropy, the gate (problems
with a pass rate of 0.1 or more are left out of the round), and weights F(64, p). Before every round the pass rates are
measured anew by sampling on current weights, with the sequential rule `agreement` (0.98) for 64 samples. See
`trl_math/demo/chains.py`. Goes on where it was interrupted, and writes to the output folder `runs/*.json`,
`results.json`, `table.md`, `figure.png` and `figure.svg`. The claim is about pass@64 after the last epoch: above
cross-entropy's, with an interval over problems and seeds.

What was tried before the sizes were fixed, with one seed: training from scratch on 500 products of two-digit numbers,
and on 400 to 1,200 sums of products. Cross-entropy lost 20 to 30 points of pass@64 there too, but models had learnt so
little of the task (pass@1 of 3 %) that the gate could not keep it: it trained on what could only be memorised.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from trl_math.demo.chains_task import ARMS, CROSS_ENTROPY, GATED, ONE_WALK, WEIGHTED, ChainSettings
from trl_math.demo.workers import run_arms
from trl_math.errors import TrlMathError
from trl_math.evaluation.compare_arms import plain
from trl_math.files import write_json
from trl_math.reporting.chain_figure import draw_chains
from trl_math.reporting.chain_runs import MAIN_ATTEMPTS, TABLE_ATTEMPTS, ChainRun, gain, table
from trl_math.reporting.graded_runs import signed


NAMES = {
    CROSS_ENTROPY: "cross-entropy",
    GATED: "gate",
    ONE_WALK: "gate, one walk",
    WEIGHTED: "weights F(64, p)",
}
QUICK = ChainSettings(
    num_layers=1,
    hidden_size=16,
    num_train=32,
    num_held_out=16,
    num_orders=1,
    base_steps=2,
    rounds=2,
    evaluate_every=1,
    screening_samples=16,
    evaluation_samples=64,
)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4, help="number of seeds, from 1: sizes were chosen with 0")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time, one thread each")
    parser.add_argument("--output", type=Path, default=Path("runs/cot_effect"))
    parser.add_argument("--settings", type=json.loads, default={}, help="fields of ChainSettings to change, as JSON")
    parser.add_argument("--quick", action="store_true", help="only show that it runs: a tiny model, no effect")
    arguments = parser.parse_args(argv)
    started = time.monotonic()
    settings = QUICK if arguments.quick else ChainSettings(**arguments.settings)
    folder, seeds = arguments.output, range(1, arguments.seeds + 1)
    is_resumed = any((folder / "runs").glob("*.json"))
    module = "trl_math.demo.chains"
    try:
        bases, runs = run_arms(module, ARMS, seeds, folder / "runs", settings, ChainRun.load, arguments.workers, say)
    except KeyboardInterrupt:
        return 130
    except TrlMathError as error:
        print(error, file=sys.stderr)
        return 2
    seconds = None if is_resumed else time.monotonic() - started
    text = table(bases, runs, CROSS_ENTROPY)
    (folder / "table.md").write_text(text + "\n")
    write_json(folder / "results.json", results(bases, runs, seconds))
    files = draw_chains(bases, runs, CROSS_ENTROPY, folder / "figure", NAMES)
    say(f"\n{text}\n")
    say(f"Wrote {', '.join(str(path) for path in [folder / 'table.md', folder / 'results.json', *files])}.")
    say(last_line(runs, [*bases, *runs], seconds))
    return 0


def say(line: str) -> None:
    print(line, flush=True)


def results(bases: list[ChainRun], runs: list[ChainRun], seconds: float | None) -> dict:
    """Return every number of the table with its intervals and seeds, and what made them."""
    return {
        "gains": {
            arm: {f"pass@{k}": plain(gain(runs, arm, CROSS_ENTROPY, k)) for k in TABLE_ATTEMPTS}
            for arm in ARMS
            if arm != CROSS_ENTROPY
        },
        "runs": [
            {
                "arm": run.arm,
                "seed": run.seed,
                "epochs": run.epochs,
                "pass_at": {k: (100 * run.pass_at(k).mean(axis=1)).round(2).tolist() for k in TABLE_ATTEMPTS},
                "rounds": run.rounds,
                "facts": run.facts,
            }
            for run in [*bases, *runs]
        ],
        "settings": runs[0].settings,
        "seconds": seconds and round(seconds, 1),  # null: resumed
    }


def last_line(runs: list[ChainRun], everything: list[ChainRun], seconds: float | None) -> str:
    """Say the promised numbers. A table that was resumed has no time of its own, only that of its runs."""
    training = sum(run.facts["seconds"] for run in everything)
    taken = (
        f"resumed, its {len(everything)} runs took {training:.0f} s" if seconds is None else f"took {seconds:.0f} s"
    )
    gains = {arm: gain(runs, arm, CROSS_ENTROPY, MAIN_ATTEMPTS) for arm in ARMS if arm != CROSS_ENTROPY}
    said = "; ".join(f"{NAMES[arm]}: {signed(one)} points" for arm, one in gains.items())
    num_seeds = len({run.seed for run in runs})
    seeds = "1 seed" if num_seeds == 1 else f"{num_seeds} seeds"
    epochs = runs[0].epochs[-1]
    return (
        f"chain-of-thought effect: pass@{MAIN_ATTEMPTS} minus cross-entropy's after {epochs} epochs ({seeds}): "
        f"{said}; {taken}"
    )


if __name__ == "__main__":
    sys.exit(main())
