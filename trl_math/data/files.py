"""Local files as data sets: JSON lines, JSON lists, Parquet, and folders of them.

JSON is read by Python, not by Arrow, so that a value stays what the file says (no guessed dates), one column may mix
numbers and texts, and a broken line is named. It is held in memory; Parquet is memory-mapped, for what is larger.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from trl_math.data.columns import FROM_0
from trl_math.data.reasoning_teacher import MADE_SUFFIX, kind_of, read_problems
from trl_math.data.token_format import MANIFEST as TOKEN_MANIFEST
from trl_math.data.token_format import TOKENS
from trl_math.data.token_rows import load_token_rows
from trl_math.errors import DataError, UsageError, nearest
from trl_math.files import nearest_path
from trl_math.run_folder import MANIFEST


SUFFIXES = (".jsonl", ".json", ".parquet")
# Of a folder of `trl-math pairs`: what it is known by, and its file of each split.
PAIRS_MANIFEST, PAIR_FILES = "pairs.json", {"train": "pairs.jsonl", "test": "eval.jsonl"}
# Of a folder of `trl-math split`: what says how it was drawn.
SPLIT_MANIFEST = "split.json"
# Of folders with rows and what they were made of: what they are known by, and the file of the rows (or the same as
# Parquet).
MADE_FILES = {
    "collect.json": "rows.jsonl",
    "decontaminate.json": "clean.jsonl",
    "difficulty.json": "difficulty.jsonl",
    "rationales.json": "rows.jsonl",
    "rephrase.json": "rows.jsonl",
}


def load_path(path: Path, split: str) -> datasets.Dataset:
    """Return the rows of a file, or of one split of a folder."""
    if not path.exists():
        raise UsageError(f"No file or folder {str(path)!r}.{nearest_path(path)}")
    if path.is_dir():
        return _load_folder(path, split)
    if path.suffix == TOKENS:
        check_is_split(path, split, "split")
        return load_token_rows(path)
    if path.suffix not in SUFFIXES:
        raise UsageError(
            f"Cannot read {str(path)!r}: give a {', '.join(SUFFIXES)} file or a folder of them, or a {TOKENS} file."
        )
    check_is_split(path, split, "split")
    return _load_files([path], None)


def check_is_split(name: str | Path, split: str, setting: str, *, others: Sequence[str] = ()) -> None:
    """Raise if `name` is one file and `split` is no name for it: `train`, its own stem, or one of `others`."""
    path = Path(name)
    if path.is_file() and split not in ("train", path.stem, *others):
        raise UsageError(f"{name} is one file, without a split {split!r}: leave {setting} out.")


def json_rows(path: Path, split: str) -> list[dict[str, Any]] | None:
    """Return the rows of `load_path` as their files have them, each with its own columns; None if they are no JSON."""
    if path.is_dir() and _is_saved(path):
        return None
    files, _ = _files_of(path, split) if path.is_dir() else ([path], None)
    return (
        None
        if any(file.suffix == ".parquet" for file in files)
        else [row for file in files for row in read_rows(file)]
    )


def _load_folder(folder: Path, split: str) -> datasets.Dataset:
    return _load_saved(folder, split) if _is_saved(folder) else _load_files(*_files_of(folder, split))


def _is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote it."""
    return (folder / "dataset_dict.json").exists() or (folder / "state.json").exists()


def _files_of(folder: Path, split: str) -> tuple[list[Path], str | None]:
    """Return the files of a split of a folder, and the split, if they are of one."""
    if (folder / PAIRS_MANIFEST).exists():
        return _pair_files(folder, split)
    for manifest, name in MADE_FILES.items():
        if (folder / manifest).exists():
            columnar = (folder / name).with_suffix(".parquet")
            file = columnar if columnar.exists() else folder / name
            if not file.exists():
                raise UsageError(f"No file or folder {str(file)!r}.{nearest_path(file)}")
            check_is_split(file, split, "split")
            return [file], None
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.suffix in SUFFIXES
        and file.name not in (MANIFEST, SPLIT_MANIFEST)
        and not file.name.endswith((MADE_SUFFIX, TOKEN_MANIFEST))
    )
    # `train.jsonl`, or the hub's `train-00000-of-00002.parquet`.
    of_split = {file: file.stem.split("-")[0] for file in files}
    chosen = [file for file in files if of_split[file] == split]
    has_splits = {"train", "validation", "test"} & set(of_split.values())
    if not chosen and not has_splits and split == "train":
        return (files, None) if files else _fail(folder, split, [])
    return (chosen, split) if chosen else _fail(folder, split, sorted(set(of_split.values())))


def _load_saved(folder: Path, split: str) -> datasets.Dataset:
    """Read what `save_to_disk` wrote."""
    saved = datasets.load_from_disk(str(folder))
    if isinstance(saved, datasets.Dataset):
        return saved if split == "train" else _fail(folder, split, [])
    return saved[split] if split in saved else _fail(folder, split, list(saved))


def _pair_files(folder: Path, split: str) -> tuple[list[Path], str]:
    """Return the file of a folder of `trl-math pairs`, in which problems that are held out are the split `test`."""
    found = [name for name, file in PAIR_FILES.items() if (folder / file).exists()]
    if split == "test" and split not in found:
        raise DataError(
            f"The pairs in {str(folder)!r} hold no problems out to evaluate on: make them with --eval-fraction or "
            "--eval-problems, or give an eval_dataset_name."
        )
    return ([folder / PAIR_FILES[split]], split) if split in found else _fail(folder, split, found)


def _fail(folder: Path, split: str, found: list[str]) -> Any:
    raise DataError(
        f"No split {split!r} in the folder {str(folder)!r}.{nearest(split, found)} "
        f"Found: {', '.join(found) or 'no ' + ', '.join(SUFFIXES) + ' file'}."
    )


def _load_files(files: list[Path], split: str | None) -> datasets.Dataset:
    named_split = datasets.NamedSplit(split) if split else None
    if all(file.suffix == ".parquet" for file in files):
        if not any(pq.read_metadata(file).num_rows for file in files):  # which `datasets` cannot read
            raise DataError(f"{files[0]} has no rows.")
        loaded = datasets.Dataset.from_parquet([str(file) for file in files])
        return datasets.Dataset(loaded.data, info=loaded.info, split=named_split)  # not its default, "train"
    if any(file.suffix == ".parquet" for file in files):
        raise UsageError(f"Both JSON and Parquet files in {str(files[0].parent)!r}: name the file.")
    rows = [row for file in files for row in read_rows(file)]
    return datasets.Dataset(_table(rows), split=named_split)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON-lines file, or of a file that is one JSON list."""
    # Of Fine-tune-CoT's published files, by what is in them: they may be large.
    if path.suffix == ".json" and (kind := kind_of(path)) is not None:
        return read_problems(path, kind)
    text = path.read_text(encoding="utf-8-sig")
    is_list = text.lstrip().startswith("[")
    rows = _parse(text, path, 1) if is_list else _parse_lines(text, path)
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"{path}: row {number} is {type(row).__name__}, not an object with columns. {FROM_0}")
    if not rows:
        raise DataError(f"{path} has no rows.")
    return rows


def _parse_lines(text: str, path: Path) -> list[Any]:
    # Not splitlines(): it also cuts at separators that JSON texts may contain.
    lines = enumerate(text.split("\n"), start=1)
    return [_parse(line, path, number) for number, line in lines if line.strip()]


def _parse(text: str, path: Path, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {line + error.lineno - 1}: not valid JSON ({error.msg}). "
            "Expected one object on each line, or one list of objects."
        ) from None


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: _column(name, [row.get(name) for row in rows]) for name in names})


def _column(name: str, values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except UnicodeEncodeError:
        number = next(
            i for i, value in enumerate(values) if re.search("[\ud800-\udfff]", json.dumps(value, ensure_ascii=False))
        )
        raise DataError(
            f"{name!r} of row {number} has half of a surrogate pair (\\ud800 to \\udfff), no text. {FROM_0}"
        ) from None
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        # Mixed types, such as the answers 1536 and "B": texts as they are, the rest as JSON.
        return pa.array([value if value is None or isinstance(value, str) else json.dumps(value) for value in values])
