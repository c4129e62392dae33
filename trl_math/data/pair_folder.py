"""A folder of preference pairs: written beside its place and moved there whole, or not at all.

    pairs.jsonl     the rows to train on
    eval.jsonl      those of the problems that are held out, if any are
    pairs.json      what they are made of, how, and how they are made up
    pairs.svg, pairs.png

The same samples, settings and seed give the same bytes, and a folder that has them is left as it is.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from trl_math.data.pairs import PairPlan, ProblemSamples, pair_rows
from trl_math.errors import RunFolderError, StoreError
from trl_math.files import json_line, write_json
from trl_math.run_folder import differences, hold_lock, lock_beside


PAIRS_FILE, EVAL_FILE, MANIFEST, FIGURE = "pairs.jsonl", "eval.jsonl", "pairs.json", "pairs.svg"


def hold_pair_folder(folder: Path) -> AbstractContextManager[None]:
    """Keep other processes out while a folder is made."""
    return hold_lock(lock_beside(folder), f"making pairs in {folder}", folder)


def is_finished(folder: Path, made_of: Mapping[str, Any]) -> bool:
    """Whether a folder has these pairs already; raise if it is something else. `made_of`: settings and samples."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not folder.is_dir():
        raise RunFolderError(f"output {folder} is a file: choose another.")
    before = read_pairs_manifest(folder)
    wanted = json.loads(json.dumps(made_of))  # as it looks after a trip through the file
    if found := differences({key: before.get(key) for key in wanted}, wanted):
        changed = {key for key in wanted if before.get(key) != wanted[key]}
        if changed == {"settings"}:
            found = differences(before["settings"] or {}, wanted["settings"])
        what = "pairs of other samples" if changed == {"samples"} else f"other pairs ({found})"
        raise RunFolderError(f"{folder} holds {what}: choose another output, or remove it.")
    for name in (PAIRS_FILE, EVAL_FILE):
        digest = before.get("sha256", {}).get(name)
        if digest is not None and digest != _sha256(folder / name):
            raise RunFolderError(f"{folder / name} is not as it was written: remove {folder}, or choose another.")
    return True


def read_pairs_manifest(folder: Path) -> dict[str, Any]:
    """Return what `pairs.json` says, or raise if the folder is no finished folder of pairs."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(manifest, dict) or not isinstance(manifest.get("settings"), dict):
            raise ValueError("not one of ours")
    except FileNotFoundError:
        raise RunFolderError(
            f"output {folder} is not empty and holds no {MANIFEST} of `trl-math pairs`: choose another."
        ) from None
    except ValueError:
        raise RunFolderError(f"{folder / MANIFEST} cannot be read as ours: choose another output.") from None
    return manifest


def write_pair_folder(
    folder: Path,
    problems: Iterable[ProblemSamples],
    plan: PairPlan,
    facts: Mapping[str, Any],
    draw: Callable[[Path], Any],
) -> dict[str, Any]:
    """Write the pairs of problems, their manifest with these facts, and what `draw` draws; return the manifest."""
    part = lock_beside(folder).with_suffix(".part")
    try:
        shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
        part.mkdir(parents=True)
        digests = _write_rows(part, problems, plan)
        manifest = {
            **facts,
            "num_pairs": plan.statistics.num_pairs - digests["num_held_out"],
            "num_problems": len(plan.num_pairs) - len(plan.held_out),
            "num_eval_pairs": digests["num_held_out"],
            "num_eval_problems": len(plan.held_out),
            "statistics": plan.statistics.as_dict(),
            "warnings": plan.statistics.warnings,
            "sha256": digests["sha256"],
        }
        draw(part / FIGURE)
        write_json(part / MANIFEST, manifest)
        part.replace(folder)
    except OSError as error:
        raise StoreError(f"Cannot write {folder}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return manifest


def _write_rows(part: Path, problems: Iterable[ProblemSamples], plan: PairPlan) -> dict[str, Any]:
    """Write the rows, and return the hash of each file and how many rows are held out."""
    names = {False: PAIRS_FILE, **({True: EVAL_FILE} if plan.held_out else {})}
    hashes = {is_held_out: hashlib.sha256() for is_held_out in names}
    files = {is_held_out: (part / name).open("wb") for is_held_out, name in names.items()}
    num_held_out = 0
    try:
        for is_held_out, row in pair_rows(problems, plan):
            line = json_line(row)
            files[is_held_out].write(line)
            hashes[is_held_out].update(line)
            num_held_out += is_held_out
    finally:
        for file in files.values():
            file.close()
    sha256 = {name: hashes[is_held_out].hexdigest() for is_held_out, name in names.items()}
    return {"sha256": sha256, "num_held_out": num_held_out}


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
