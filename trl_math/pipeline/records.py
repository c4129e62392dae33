"""What an experiment's folder tells of its stages: the plan and states of all, a record of each, and who is at work.

run.json                            the recipe and the plan, with the state of every stage
round-1/pairs-3f9c21ab/             what the stage wrote
round-1/pairs-3f9c21ab.log          what its command said
round-1/pairs-3f9c21ab.stage.json   its key, its command line, and when it ran and how it ended, each time
"""

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from trl_math.errors import RunFolderError
from trl_math.files import write_json
from trl_math.run_folder import MANIFEST


# Held by the runner, and by the stage that is running: this may outlive a runner that was killed.
RUN_LOCK, STAGE_LOCK = ".run.lock", ".stage.lock"


class Job(NamedTuple):
    """A stage as the runner needs it."""

    label: str
    key: str
    stem: str
    output: str
    words: list[str]
    is_resumable: bool

    @property
    def log(self) -> Path:
        return Path(f"{self.stem}.log")

    @property
    def record(self) -> Path:
        return Path(f"{self.stem}.stage.json")


def read_record(job: Job) -> dict[str, Any]:
    """Return what is known of a stage; nothing if it has never been started."""
    record = read_object(job.record) or {"label": job.label, "key": job.key, "runs": []}
    if record.get("key") != job.key or not isinstance(record.get("runs"), list):
        raise RunFolderError(f"{job.record} cannot be read as ours: remove it, or choose another output.")
    return record


def is_finished(job: Job) -> bool:
    """Whether the stage has run to its end, and what it wrote is still there."""
    runs = read_record(job)["runs"]
    return bool(runs) and runs[-1].get("status") == 0 and Path(job.output).exists()


def read_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one if there is no file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RunFolderError(f"{path} cannot be read as ours: choose another output.")
    return found


def check_folder(folder: Path) -> None:
    """Raise if a folder is something else than an experiment of ours."""
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"output {folder} is a file: choose another.")
    if not folder.exists() or all(path.suffix in (".lock", ".part") for path in folder.iterdir()):
        return
    if read_object(folder / MANIFEST).get("command") != "run":
        raise RunFolderError(f"output {folder} is not empty and holds no run of stages: choose another.")


def write_plan(folder: Path, recipe: Mapping[str, Any], jobs: list[Job]) -> None:
    """Write down what is going to run, for the runner and for whoever looks."""
    stages = [{**job._asdict(), "state": "finished" if is_finished(job) else "to do"} for job in jobs]
    write_json(folder / MANIFEST, {"command": "run", "recipe": recipe, "stages": stages})


def read_plan(folder: Path) -> list[Job]:
    """Return the stages of a plan."""
    return [Job(**{name: stage[name] for name in Job._fields}) for stage in read_object(folder / MANIFEST)["stages"]]


def write_state(folder: Path, job: Job, state: str) -> None:
    """Write down in the plan how far a stage is."""
    manifest = read_object(folder / MANIFEST)
    for stage in manifest["stages"]:
        if stage["label"] == job.label:
            stage["state"] = state
    write_json(folder / MANIFEST, manifest)


def take_lock(path: Path) -> int | None:
    """Return an open file that holds a lock as long as a process has it open; None if another process does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file
