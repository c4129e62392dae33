"""How a recipe is launched: its accelerate settings, and starting this program again under `accelerate launch`."""

import os
import sys
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import yaml

from trl_math.errors import UsageError, nearest
from trl_math.recipes import ROOTS


class LaunchPlan(NamedTuple):
    """What an accelerate config file says that matters here."""

    file: Path
    kind: str  # NO, MULTI_GPU, DEEPSPEED, FSDP, ...
    num_processes: int
    num_machines: int
    zero_stage: int
    uses_cpu: bool
    settings: dict[str, Any]

    @property
    def num_local_processes(self) -> int:
        """Processes on each machine."""
        return max(1, self.num_processes // self.num_machines)


def find_accelerate_config(name: str) -> Path:
    """Return the accelerate config file of a name under `recipes/accelerate`, or of a path."""
    candidates = [Path(name), *(root / "accelerate" / f"{name}.yaml" for root in ROOTS)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    names = sorted({path.stem for root in ROOTS for path in (root / "accelerate").glob("*.yaml")})
    raise UsageError(
        f"accelerate_config {name!r} is neither a file nor one of {', '.join(names)}.{nearest(name, names)}"
    )


def launch_plan(name: str | None, num_processes: int | None = None) -> LaunchPlan | None:
    """Read an accelerate config by name or path; `num_processes` replaces the file's own number. None for no name."""
    if name is None:
        if num_processes is not None:
            raise UsageError(
                "num_processes says how many to launch: it needs accelerate_config (ddp, zero2, zero3, ...)."
            )
        return None
    file = find_accelerate_config(name)
    settings = yaml.safe_load(file.read_text()) or {}
    deepspeed = settings.get("deepspeed_config") or {}
    if num_processes is not None and num_processes < 1:
        raise UsageError(f"num_processes must be at least 1, got {num_processes}.")
    if settings.get("distributed_type", "NO") == "NO" and (num_processes or 1) > 1:
        raise UsageError(
            f"{file.name} is for one process, so num_processes: {num_processes} needs another (ddp, ...)."
        )
    return LaunchPlan(
        file=file,
        kind=str(settings.get("distributed_type", "NO")),
        num_processes=int(num_processes or settings.get("num_processes") or 1),
        num_machines=int(settings.get("num_machines") or 1),
        zero_stage=int(deepspeed.get("zero_stage", 0)),
        uses_cpu=bool(settings.get("use_cpu")),
        settings=settings,
    )


def is_launched() -> bool:
    """Whether accelerate or torchrun started this process."""
    return "ACCELERATE_MIXED_PRECISION" in os.environ or "LOCAL_RANK" in os.environ


def is_main_process() -> bool:
    """Whether this process is the one that writes and speaks."""
    return int(os.environ.get("RANK", "0")) == 0


def launch_command(plan: LaunchPlan, command: str, argv: list[str]) -> list[str]:
    """Return the words that start this program again under accelerate, with the same flags."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(plan.file)]
    return [*launcher, "--num_processes", str(plan.num_processes), "-m", "trl_math.cli.main", command, *argv]


def relaunch(plan: LaunchPlan, command: str, argv: list[str]) -> NoReturn:
    """Become `accelerate launch` of the same command: signals and the exit status are then accelerate's own."""
    words = launch_command(plan, command, argv)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(words[0], words)
