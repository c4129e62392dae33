"""The reference's log-probabilities, computed once and kept in a file beside the pairs.

    {"format": "trl_math references", "model": "sha256:..."}
    {"pair": "9f2c...", "chosen": -71.52, "rejected": -90.64}

A line is found by a hash of what was scored: the token ids of prompt and answers, cut to `max_length`, their loss
masks, and the precision. So rows may be reordered, left out or added; what is not there is computed and added, and a
row that changed is not found. The header says which model spoke: a file of another is refused, since no later check
could tell. The reference is the model that training starts from, also in a run that goes on from a checkpoint.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, tqdm
from datasets import Dataset
from filelock import FileLock
from torch.utils.data import DataLoader
from trl.models import prepare_deepspeed

from trl_math.data.pair_check import TOKENS
from trl_math.errors import DataError, UsageError
from trl_math.files import write_whole
from trl_math.generation.together import everyone_or_nobody
from trl_math.trainers.pair_collator import MASKS


FORMAT = "trl_math references"
REFERENCES = ("ref_chosen_logps", "ref_rejected_logps")
NO_REFERENCES = "is no file of reference log-probabilities: give another."
Known = dict[str, tuple[float, float]]


class Reference(NamedTuple):
    """Who speaks: which model, at which precision."""

    model: str
    precision: str


def pair_key(
    row: Mapping[str, Any], max_length: int | None, truncation_mode: str = "keep_start", precision: str = "float32"
) -> str:
    """Return the hash of what a forward pass sees of a pair."""
    sha = hashlib.blake2b(precision.encode(), digest_size=16)
    for answer, mask in zip(TOKENS[1:], MASKS, strict=True):
        ids = [*row["prompt_ids"], *row[answer]]
        trained = [0] * len(row["prompt_ids"]) + list(row.get(mask) or [1] * len(row[answer]))
        for values in (ids, trained):
            kept = values
            if max_length is not None:
                kept = values[:max_length] if truncation_mode == "keep_start" else values[-max_length:]
            sha.update(len(kept).to_bytes(8, "little") + np.asarray(kept, dtype="<i8").tobytes())
    return sha.hexdigest()


def reference_name(identity: str) -> str:
    """Return the name of the file that `reference_file: auto` keeps beside the pairs."""
    # Lines of JSON, but no name of a data file, so that nobody takes it for rows.
    return f"references-{hashlib.sha256(identity.encode()).hexdigest()[:12]}.logps"


def check_references(path: Path, model: str) -> None:
    """Raise if there is a file and it is not of this model, as far as its header tells."""
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as file:
            _check_header(path, file.readline(), model)


def read_references(path: Path, model: str) -> Known:
    """Return what a file knows, nothing if there is none; raise if it is not of this model."""
    if not path.exists():
        return {}
    try:
        first, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
        _check_header(path, first, model)
        rows = map(json.loads, lines)
        return {row["pair"]: (float(row["chosen"]), float(row["rejected"])) for row in rows}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError):
        raise DataError(f"reference_file {path} {NO_REFERENCES}") from None


def _check_header(path: Path, line: str, model: str) -> None:
    try:
        found = json.loads(line)
    except json.JSONDecodeError:
        found = None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise DataError(f"reference_file {path} {NO_REFERENCES}")
    if found.get("model") != model:
        raise DataError(
            f"reference_file {path} is of another model ({found.get('model')} there, {model} here): give another "
            "file, or reference_file: auto."
        )


def write_references(path: Path, model: str, known: Known) -> None:
    """Write the file whole or not at all; what another run on the same pairs has added to it stays."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            known = read_references(path, model) | known
            lines: list[dict[str, Any]] = [{"format": FORMAT, "model": model}]
            lines += [{"pair": key, "chosen": one, "rejected": other} for key, (one, other) in known.items()]
            write_whole(path, "".join(json.dumps(line) + "\n" for line in lines))
    except OSError as error:
        raise UsageError(
            f"Cannot write reference_file {path} ({error.strerror or error}): give one that can be written, or null."
        ) from error


def with_references(
    dataset: Dataset, trainer: Any, reference: Reference, compute: Callable[[Dataset], list[tuple[float, float]]]
) -> Dataset:
    """Return the rows with the reference's log-probabilities, from the configured file as far as it has them.

    Rank 0 reads and writes; all processes know the same, and so agree on what to compute.
    """
    args = trainer.args
    path = Path(args.reference_file) if args.reference_file is not None else None
    writes = path is not None and trainer.accelerator.is_main_process
    shared: list[Known] = [{}]
    with everyone_or_nobody("Reading the reference log-probabilities"):
        if writes:
            shared = [read_references(path, reference.model)]
    broadcast_object_list(shared, from_process=0)
    known = shared[0]
    keys = [pair_key(row, args.max_length, args.truncation_mode, reference.precision) for row in dataset]
    missing = [index for index, key in enumerate(keys) if key not in known]
    if missing:
        values = compute(dataset.select(missing))
        known |= {keys[index]: value for index, value in zip(missing, values, strict=True)}
        with everyone_or_nobody("Writing the reference log-probabilities"):
            if writes:
                write_references(path, reference.model, known)
    for number, column in enumerate(REFERENCES):
        dataset = dataset.add_column(column, np.asarray([known[key][number] for key in keys], dtype=np.float32))
    return dataset


def reference_pass(dataset: Dataset, trainer: Any, name: str, batch_size: int) -> list[tuple[float, float]]:
    """Return the reference's log-probabilities of (chosen, rejected) of every row: TRL's pass, without its cache.

    TRL keeps the numbers in an Arrow file whose name is random, and another one on each process, for rows in memory.
    """
    columns = [column for column in (*TOKENS, *MASKS) if column in dataset.column_names]
    loader = trainer.accelerator.prepare(
        DataLoader(
            dataset.select_columns(columns),
            batch_size=batch_size,
            collate_fn=trainer.data_collator,
            num_workers=trainer.args.dataloader_num_workers,
            pin_memory=trainer.args.dataloader_pin_memory,
            shuffle=False,
        )
    )
    model = trainer.ref_model or trainer.model
    if trainer.ref_model is None and trainer.is_deepspeed_enabled:
        # The policy is not placed and gathered yet, as in TRL, whose attribute keeps the one engine for all passes.
        if trainer._precompute_engine is None:
            trainer._precompute_engine = prepare_deepspeed(trainer.model, trainer.accelerator)
        model = trainer._precompute_engine
    parts = []
    is_quiet = trainer.args.disable_tqdm
    for batch in tqdm(loader, desc=f"Computing reference log probs for {name} dataset", disable=is_quiet):
        logps = trainer.accelerator.gather_for_metrics(trainer.compute_ref_log_probs(model, batch))
        parts.append(torch.stack(logps, dim=1).double().cpu())
    return [tuple(pair) for pair in torch.cat(parts).tolist()]


def check_hashable(model: Any) -> None:
    """Raise if a model in memory cannot be told from others, since its weights lie elsewhere."""
    if any(parameter.numel() == 0 for parameter in model.parameters()):
        raise UsageError(
            "reference_file must know the model, whose weights are in pieces: give the model by its name."
        )
