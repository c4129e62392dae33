"""What is wrong with this machine for fine-tuning, and the command or setting that mends it.

    for finding in examine(read_recipe("dco/llama3-8b-math-direct-n256")):
        print(finding.status, finding.name, finding.detail, finding.fix)

With a recipe, what it needs and this machine lacks is a failure; without one it is a remark. Nothing is downloaded.
Each check imports what it looks at itself, and its exceptions become findings: a broken package hides nothing else.
"""

import contextlib
import sys
from collections.abc import Sequence

from trl_math.doctor import engines, hardware, programs, software
from trl_math.doctor.finding import Finding as Finding
from trl_math.doctor.finding import Recipe
from trl_math.errors import UsageError
from trl_math.launch import launch_plan


__all__ = ["CHECKS", "Finding", "examine", "worst_of"]

CHECKS = (
    software.check_python,
    software.check_packages,
    software.check_vllm,
    software.check_deepspeed,
    software.check_nccl,
    software.check_tokenizers,
    software.check_wandb,
    hardware.check_hub,
    hardware.check_gpus,
    hardware.check_attention,
    hardware.check_recipe,
    hardware.check_memory,
    hardware.check_disk,
    programs.check_sandbox,
)

# For recipes that train nothing.
GENERATE_CHECKS = (
    software.check_python,
    software.check_packages,
    software.check_vllm,
    software.check_nccl,
    software.check_tokenizers,
    hardware.check_hub,
    engines.check_engines,
    programs.check_sandbox,
)


def examine(recipe: Recipe | None = None) -> list[Finding]:
    """Look at everything that a recipe (or, without one, any run) needs, and say what is missing."""
    recipe = recipe or {}
    findings, launch = [], None
    try:
        launch = launch_plan(recipe.get("accelerate_config"), recipe.get("num_processes"))
    except UsageError as error:
        findings.append(Finding("launch", "fail", str(error), "--accelerate_config NAME"))
    for check in GENERATE_CHECKS if recipe.get("command") in ("generate", "evaluate") else CHECKS:
        try:
            # DeepSpeed and bitsandbytes speak on import; standard output is for the findings.
            with contextlib.redirect_stdout(sys.stderr):
                for finding in check(recipe, launch):
                    findings.append(finding)
        except Exception as error:
            name = check.__name__.removeprefix("check_")
            detail = f"could not be examined: {type(error).__name__}: {' '.join(str(error).split())}"
            findings.append(Finding(name, "warn", detail, "mend what the message says; other checks are not affected"))
    return findings


def worst_of(examined: Sequence[Sequence[Finding]]) -> list[Finding]:
    """Return what several recipes need as one list: of findings of one name the worst, all that differ."""
    grades = ("ok", "info", "warn", "fail")
    together = list(dict.fromkeys(finding for findings in examined for finding in findings))
    worst: dict[str, int] = {}
    for finding in together:
        worst[finding.name] = max(worst.get(finding.name, 0), grades.index(finding.status))
    return [finding for finding in together if grades.index(finding.status) == worst[finding.name]]
