"""A table of runs by worker processes: one thread each, resumable, and quiet when interrupted.

A run is written whole when it is finished, so an interrupted table goes on with the same command: finished runs are
read, a half one is repeated.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from trl_math.demo.task import Settings
from trl_math.errors import RunFolderError
from trl_math.reporting.coverage_runs import CoverageRun, loss_name
from trl_math.run_folder import differences


# A second thread would only slow such a small model down; a worker needs neither the network nor a GPU.
ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
ERROR_LINES = 20
PROGRESS = "epoch"  # how a worker's lines of progress begin


def run_path(folder: Path, num_attempts: int, seed: int) -> Path:
    """Return where the run of a loss and a seed is kept."""
    return folder / f"attempts-{num_attempts}-seed-{seed}.json"


def run_table(
    losses: Sequence[int],
    seeds: Sequence[int],
    folder: Path,
    settings: Settings | None = None,
    workers: int = 2,
    report: Callable[[str], None] = print,
) -> list[CoverageRun]:
    """Return the runs of every loss with every seed, training those that `folder` does not hold yet.

    Args:
        losses: N of each loss; 1 is cross-entropy.
        seeds: The same for every loss.
        folder: Where runs are kept. A run there with other settings is an error.
        settings: Everything else that matters.
        workers: Processes at a time, one thread each.
        report: Takes lines of progress, from several threads but one at a time.
    """
    settings = settings or Settings()
    table = {(loss, seed): run_path(folder, loss, seed) for seed in seeds for loss in losses}
    missing = {key: path for key, path in table.items() if not _is_finished(path, settings)}
    report(f"{len(table)} runs: {len(table) - len(missing)} finished, {len(missing)} to train, {workers} at a time")
    try:
        _Workers(settings, report).train(missing, workers)
    except KeyboardInterrupt:
        done = sum(path.exists() for path in table.values())
        report(f"Interrupted: {done} of {len(table)} runs are finished; the same command goes on from there.")
        raise
    return [CoverageRun.load(path) for path in table.values()]


def _is_finished(path: Path, settings: Settings) -> bool:
    if not path.exists():
        return False
    before, now = CoverageRun.load(path).settings, asdict(settings)
    if before != now:
        raise RunFolderError(f"{path} is a run of other settings ({differences(before, now)}): choose another folder.")
    return True


class _Workers:
    """Threads that each watch one process; processes are ended together with the threads."""

    def __init__(self, settings: Settings, report: Callable[[str], None]) -> None:
        self._settings, self._report = settings, report
        self._processes: set[subprocess.Popen] = set()
        self._is_stopped = threading.Event()
        self._lock = threading.Lock()

    def train(self, paths: dict[tuple[int, int], Path], workers: int) -> None:
        """Train all runs; on the first failure, or an interruption, end the others."""
        with ThreadPoolExecutor(workers) as pool:
            tasks = [pool.submit(self._train_one, *key, path) for key, path in paths.items()]
            try:
                for task in as_completed(tasks):
                    task.result()
            except BaseException:
                self._is_stopped.set()
                for task in tasks:
                    task.cancel()
                for process in list(self._processes):
                    process.terminate()
                raise

    def _train_one(self, num_attempts: int, seed: int, path: Path) -> None:
        arguments = {
            "--num-attempts": num_attempts,
            "--seed": seed,
            "--settings": json.dumps(asdict(self._settings)),
            "--output": path,
        }
        words = [str(word) for pair in arguments.items() for word in pair]
        command = [sys.executable, "-m", "trl_math.demo.multiplication", *words]
        environment = {**os.environ, **ENVIRONMENT}
        with (
            tempfile.TemporaryFile("w+") as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment) as process,
        ):
            self._processes.add(process)
            if self._is_stopped.is_set():  # between the start and the line above
                process.terminate()
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(PROGRESS):  # libraries write to stdout too
                    self._say(f"{loss_name(num_attempts):13}  seed {seed}  {line.rstrip()}")
            status = process.wait()
            self._processes.discard(process)
            if status and not self._is_stopped.is_set():
                errors.seek(0)
                tail = "".join(errors.readlines()[-ERROR_LINES:])
                name = f"{loss_name(num_attempts)}, seed {seed}"
                raise RuntimeError(f"The worker of {name} ended with status {status}:\n{tail}")

    def _say(self, line: str) -> None:
        with self._lock:
            self._report(line)
