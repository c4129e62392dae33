"""Runs the stages of a plan that are not finished, one after the other, each in a process of its own.

The runner is a process that has imported neither torch nor what it needs: it holds no memory and no GPU that a stage
could want, for however many days. The planner, which has, writes the plan down and becomes the runner.
"""

import os
import shutil
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from trl_math.errors import RunFolderError, StoreError
from trl_math.files import write_json
from trl_math.generation.progress import duration
from trl_math.pipeline import records
from trl_math.pipeline.process import ToldToEnd, hear_signals, run_stage
from trl_math.pipeline.records import Job


# The first word of the command line by which the planner becomes the runner.
BECOME = "--run-plan"
# How long a stage whose runner was killed may take to end, before a new runner gives up.
PATIENCE_SECONDS = 90
NUM_LAST_LINES = 8


def become_runner(folder: Path, recipe: Mapping[str, Any], jobs: list[Job]) -> NoReturn:
    """Write a plan down, under the folder's lock, and go on as its runner."""
    with _writing(folder):
        records.check_folder(folder)
        lock = records.take_lock(folder / records.RUN_LOCK)
        if lock is None:
            raise RunFolderError(f"Another process is running {folder}: wait for it, or choose another output.")
        records.write_plan(folder, recipe, jobs)
    os.set_inheritable(lock, True)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "trl_math.cli.main", "run", BECOME, str(folder), str(lock)])


def run_plan(folder: Path, lock: int, say: Callable[[str], None]) -> int:
    """Run what is not finished of the plan in a folder; return the exit status."""
    hear_signals()
    os.set_inheritable(lock, False)  # it is the runner's alone
    jobs = records.read_plan(folder)
    start = time.monotonic()
    try:
        with _writing(folder):
            stage_lock = _stage_lock(folder, say)
            for number, job in enumerate(jobs, start=1):
                if records.is_finished(job):
                    continue
                say(f"[{number}/{len(jobs)}] {job.label}: trl-math {job.words[0]}, to {job.output}")
                status = _run(folder, job, stage_lock, say)
                if status:
                    return status
    except ToldToEnd as told:
        name = signal.Signals(told.number).name
        how = "interrupted" if told.number == signal.SIGINT else f"ended by {name}"
        sys.stderr.write(f"trl-math: {how}. The same command goes on where it stopped.\n")
        return 128 + told.number
    say(f"All {len(jobs)} stages of {folder} are finished; this session took {duration(time.monotonic() - start)}.")
    say(f"The last of them wrote {jobs[-1].output}.")
    return 0


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Say in one line what keeps an experiment from being written down."""
    try:
        yield
    except BrokenPipeError:  # nobody listens any more
        raise
    except OSError as error:
        raise StoreError(
            f"Cannot write to {folder}: {error.strerror or error}. The same command goes on where it stopped."
        ) from error


def _stage_lock(folder: Path, say: Callable[[str], None]) -> int:
    """Return the lock that this runner and its stages hold, once no stage of a runner that was killed does."""
    deadline = None
    while (lock := records.take_lock(folder / records.STAGE_LOCK)) is None:
        if deadline is None:
            say("A stage of a run that was killed is still ending: waiting for it.")
            deadline = time.monotonic() + PATIENCE_SECONDS
        if time.monotonic() > deadline:
            raise RunFolderError(f"A stage of a run that was killed is still at work in {folder}: wait, or end it.")
        time.sleep(0.2)
    return lock


def _run(folder: Path, job: Job, lock: int, say: Callable[[str], None]) -> int:
    """Run one stage; write down when and how it ended; return its exit status."""
    record = records.read_record(job)
    run: dict[str, Any] = {"started": _now(), "command": ["trl-math", *job.words], "status": None}
    record["runs"].append(run)
    write_json(job.record, record)
    records.write_state(folder, job, "running")
    if not job.is_resumable and Path(job.stem).exists():
        shutil.rmtree(job.stem)  # what it left when it was interrupted
    last: deque[str] = deque(maxlen=NUM_LAST_LINES)

    def hear(line: str) -> None:
        last.append(line)
        say(f"    {line}")

    start = time.monotonic()
    state = "stopped"
    try:
        _head(job, run)
        run["status"] = run_stage(job.words, job.log, hear, lock)
        state = "failed" if run["status"] else "finished"
    finally:
        run["seconds"] = round(time.monotonic() - start, 1)
        write_json(job.record, record)
        records.write_state(folder, job, state)
    if run["status"] == 0:
        say(f"    ({duration(run['seconds'])})")
        return 0
    return _failed(job, run["status"], last)


def _failed(job: Job, status: int, last: deque[str]) -> int:
    """Say that a stage failed, and return the exit status that follows."""
    how = f"ended by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    lines = "".join(f"    {line}\n" for line in last) or "    nothing\n"
    sys.stderr.write(
        f"trl-math: {job.label} failed ({how}), and the stages behind it were not run. {job.log} ends with\n{lines}"
        "The same command goes on with this stage.\n"
    )
    return status if status > 0 else 128 - status


def _head(job: Job, run: Mapping[str, Any]) -> None:
    """Begin a stage's log with what is run, and when."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("a", encoding="utf-8") as log:
        log.write(f"--- {run['started']} {' '.join(run['command'])}\n")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
