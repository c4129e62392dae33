"""Whether programs that models write can be run on this machine, and what confines them."""

# ruff: noqa: PLC0415 - a check imports what it looks at, so that a broken package becomes a finding

from trl_math.doctor.finding import Finding, Findings, Recipe
from trl_math.errors import UsageError
from trl_math.launch import LaunchPlan


def check_sandbox(recipe: Recipe, launch: LaunchPlan | None) -> Findings:
    """Attack the sandbox as programs would; a recipe with an interpreter needs one that holds."""
    from trl_math.grading.sandbox import sandbox_layers, usable_mode
    from trl_math.grading.sandbox_probe import MODES

    try:
        mode = usable_mode()
    except UsageError as error:
        yield Finding(
            "sandbox",
            "fail" if recipe.get("interpreter") else "info",
            str(error),
            "a kernel with Landlock (5.13) or user namespaces, and a container whose profile allows one of them",
        )
        return
    weak = [layer.prevents for layer in sandbox_layers(mode) if not layer.is_active]
    detail = f"{mode}: {MODES[mode]}"
    if weak:
        yield Finding("sandbox", "info", f"{detail}; programs can {', '.join(weak)}")
    else:
        yield Finding("sandbox", "ok", f"{detail}; every attack that was tried failed")
