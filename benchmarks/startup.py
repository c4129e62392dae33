"""How long the command line takes to answer: `python benchmarks/startup.py`. Medians over whole processes."""

import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path


TRL_MATH = shutil.which("trl-math", path=str(Path(sys.executable).parent)) or "trl-math"
COMMANDS = {
    "import trl_math": [sys.executable, "-c", "import trl_math"],
    "trl-math --help": [TRL_MATH, "--help"],
    "trl-math recipes": [TRL_MATH, "recipes"],
    "dry run, embedded data": [
        *(TRL_MATH, "sft", "--dry-run", "--model_name_or_path", "embedded:tiny", "--prompt_style", "plain"),
        *("--dataset_name", "reasoning_gym:products?size=50", "--output_dir", "runs/startup"),
    ],
    "dry run of a recipe": [TRL_MATH, "sft", "--config", "dco/llama3-8b-math-direct-n64", "--dry-run"],
}


def seconds(command: list[str], repetitions: int) -> float:
    """Return the median wall time of a command that must succeed."""
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    repetitions = 3 if "--quick" in sys.argv else 7
    medians = {name: seconds(command, repetitions) for name, command in COMMANDS.items()}
    for name, value in medians.items():
        print(f"{name:24} {value:6.2f} s")
    print("startup: " + ", ".join(f"{name} {value:.2f} s" for name, value in medians.items()))


if __name__ == "__main__":
    main()
