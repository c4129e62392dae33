"""The whole loop on a laptop: a real model is evaluated, learns from its own answers, is evaluated again, compared.

It is the recipe `on-policy-dpo/times-tables`, made short: one round, fewer samples. Nothing here is the demo's own
machinery; what runs is what `trl-math run` runs.
"""

import subprocess
import sys
from pathlib import Path


RECIPE = "on-policy-dpo/times-tables"
# The demo's installation has no vLLM; the same samples come from transformers.
SAMPLING = {"backend": "transformers", "batch_size": "128", "dtype": "bfloat16", "num_samples": "12"}
STAGES = ("generate", "evaluate", "untrained")
SHORT = {"rounds": "1", **{f"{stage}.{name}": value for stage in STAGES for name, value in SAMPLING.items()}}


def run_round(folder: Path) -> int:
    """Run the recipe into `folder`, or what is left of it; return the exit status."""
    words = [word for name, value in SHORT.items() for word in (f"--{name}", value)]
    command = [sys.executable, "-m", "trl_math.cli.main", "run", "--config", RECIPE, "--output", str(folder), *words]
    return subprocess.run(command, check=False).returncode


def find_report(folder: Path) -> Path | None:
    """Return the page that the last stage wrote."""
    return next(iter(sorted(folder.glob("after/report-*/report.html"))), None)
