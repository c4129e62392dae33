"""No test reaches the network or reports telemetry, and none depends on the number of threads."""

import os


os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_DATASETS_DISABLE_PROGRESS_BARS="1",
    WANDB_MODE="offline",
    TOKENIZERS_PARALLELISM="false",
)
if "PYTEST_XDIST_WORKER" in os.environ:  # test files side by side: the processes that tests start share the cores, too
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch


torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _working_folder(tmp_path, monkeypatch):
    """Run every test in its own folder, where a stray `runs/` or `wandb/` does no harm."""
    monkeypatch.chdir(tmp_path)
