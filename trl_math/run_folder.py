"""A run's output folder: whose it is, whether the run is finished, and what can be resumed.

`run.json` in the folder holds the settings that made it. The same command on the same folder goes on where it stopped;
another configuration is refused, so that nothing is overwritten or mixed.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from trl_math.errors import RunFolderError, StoreError
from trl_math.files import write_json


MANIFEST = "run.json"

# Settings that change neither the weights nor what is written of them. How the effective batch comes about is one of
# them (a run may go on with other GPUs); the batch itself is not, and is compared as `effective_batch`.
IMMATERIAL = {
    "accelerate_config",
    "dataloader_num_workers",
    "dataset_num_proc",
    "description",
    "disable_tqdm",
    "eval_generation_batch_size",
    "eval_generation_gpu_memory_utilization",
    "eval_generation_tensor_parallel_size",
    "gradient_accumulation_steps",
    "live_batch_size",
    "live_gpu_memory_utilization",
    "live_num_engines",
    "live_save_pairs",
    "live_tensor_parallel_size",
    "logging_first_step",
    "logging_steps",
    "num_processes",
    "output_dir",
    "per_device_train_batch_size",
    "precompute_ref_batch_size",
    "precompute_ref_log_probs",
    "project",
    "push_to_hub",
    "reference_file",
    "report_to",
    "resume_from_checkpoint",
    "run_name",
    "save_total_limit",
    "screening_batch_size",
    "screening_gpu_memory_utilization",
    "screening_num_engines",
    "screening_tensor_parallel_size",
    "trackio_space_id",
}


def without_secrets(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that may be written and printed: no access tokens, no environment variables."""
    tokens = {key for key in settings if key.endswith("_token") and key not in ("eos_token", "pad_token")}
    return {key: value for key, value in settings.items() if key not in tokens | {"env"}}


def open_run_folder(folder: Path, values: dict[str, Any]) -> bool:
    """Check that `folder` may hold the run that `values` describes; return whether that run is already finished."""
    manifest = folder / MANIFEST
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"output_dir {folder} is a file: choose another.")
    if not folder.exists() or all(path.suffix == ".part" for path in folder.iterdir()):
        return False
    if not manifest.exists():
        raise RunFolderError(
            f"output_dir {folder} is not empty and holds no {MANIFEST}, so it is not a run of trl-math: choose "
            "another."
        )
    try:
        run = json.loads(manifest.read_text())
        if not isinstance(run, dict) or not isinstance(run.get("settings"), dict):
            raise ValueError("not one of ours")
    except ValueError:
        raise RunFolderError(f"{manifest} cannot be read as ours; choose another output_dir.") from None
    before, now = _material(run["settings"]), _material(values)
    if before != now:
        raise RunFolderError(
            f"output_dir {folder} belongs to another configuration ({differences(before, now)}): choose another "
            "output_dir."
        )
    return bool(run.get("is_finished"))


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say which settings differ, and how."""
    keys = sorted(key for key in {**before, **now} if before.get(key) != now.get(key))
    return ", ".join(f"{key} {before.get(key)!r} there, {now.get(key)!r} here" for key in keys)


@contextmanager
def hold_lock(path: Path, doing: str, output: Path) -> Iterator[None]:
    """Keep other processes out as long as this one holds a lock file; the system lets go when the process ends.

    If another process has it, what that one is `doing` is said at once; if it cannot be made, that `output` cannot.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise RunFolderError(f"Another process is {doing}: wait for it, or choose another output.") from None
    except OSError as error:
        raise StoreError(f"Cannot write to {output}: {error.strerror or error}.") from error
    try:
        yield
    finally:
        lock.release()


def lock_beside(folder: Path) -> Path:
    """Return the lock file of a folder that is not there yet, or is replaced as a whole."""
    folder = folder.resolve()
    return folder.with_name(f".{folder.name}.lock")


@contextmanager
def hold_run_folder(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run's folder while it is open."""
    with hold_lock(lock_beside(folder), f"training in {folder.resolve()}", folder):
        yield


def write_manifest(folder: Path, values: dict[str, Any], *, is_finished: bool, **facts: Any) -> None:
    """Write `run.json`, whole or not at all."""
    write_json(folder / MANIFEST, {"is_finished": is_finished, "settings": without_secrets(values), **facts})


def _material(values: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in without_secrets(values).items() if key not in IMMATERIAL}
    return json.loads(json.dumps(kept, default=str))  # as it looks after a trip through the file
