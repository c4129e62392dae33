"""A difficulty file with what lies beside it: written whole, or not at all.

    difficulty.jsonl                   a row for each problem
    difficulty.json                    what it was made of and how, and what it came to
    difficulty.svg, difficulty.png     the histogram of each source
    samples/                           the samples, if they were drawn for it

The same problems, samples and settings give the same bytes, and a file that is made of them is left as it is.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from trl_math.errors import RunFolderError, StoreError
from trl_math.files import json_line, write_json
from trl_math.run_folder import differences


NAME, SAMPLES = "difficulty.jsonl", "samples"


def difficulty_file(output: str) -> Path:
    """Return the file that an output names: a folder's, or the file itself."""
    path = Path(output)
    if path.suffix == ".jsonl":
        if path.is_dir():
            raise RunFolderError(f"output {path} is a folder with the name of a file: choose another.")
        return path
    if path.exists() and not path.is_dir():
        raise RunFolderError(f"output {path} is a file that does not end in .jsonl: choose another, or a folder.")
    return path / NAME


@contextmanager
def hold(file: Path) -> Iterator[None]:
    """Keep other processes out while a file is made."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file.with_name(f".{file.name}.lock"))
        lock.acquire(timeout=0)
    except Timeout:
        raise RunFolderError(f"Another process is making {file}: wait for it, or choose another output.") from None
    except OSError as error:
        raise StoreError(f"Cannot write {file}: {error.strerror or error}.") from error
    try:
        yield
    finally:
        lock.release()


def is_finished(file: Path, made_of: Mapping[str, Any]) -> bool:
    """Whether a file is made of this already; raise if it is something else."""
    manifest = file.with_suffix(".json")
    if not manifest.exists():
        if file.exists():
            raise RunFolderError(f"{file} exists, and no {manifest.name} says what it is: choose another output.")
        return False
    before = read_manifest(file)
    wanted = json.loads(json.dumps(made_of))  # as it looks after a trip through the file
    for part in wanted:
        if found := differences(_flat(before.get(part)), _flat(wanted[part])):
            raise RunFolderError(
                f"{file} is of other {part} ({found}): choose another output, or remove {manifest.name} and "
                f"{file.name} (samples stay, and serve again)."
            )
    if not file.exists():
        return False  # its process was killed behind the manifest
    if before.get("sha256") != hashlib.sha256(file.read_bytes()).hexdigest():
        raise RunFolderError(f"{file} is not as it was written: choose another output, or remove {manifest.name} too.")
    return True


def read_manifest(file: Path) -> dict[str, Any]:
    """Return what lies beside a difficulty file, or raise if it is not ours."""
    path = file.with_suffix(".json")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        manifest = None
    if not isinstance(manifest, dict) or manifest.get("command") != "difficulty":
        raise RunFolderError(f"{path} is no manifest of `trl-math difficulty`: choose another output.")
    return manifest


def write_difficulty(
    file: Path, rows: Iterable[Mapping[str, Any]], manifest: Mapping[str, Any], draw: Callable[[Path], Any]
) -> None:
    """Write the figure that `draw` draws, the manifest and the rows, so that the rows are there last."""
    text = b"".join(map(json_line, rows))
    part = file.with_name(f".{file.name}.part")
    try:
        part.write_bytes(text)
        draw(file.with_suffix(".svg"))
        digest = hashlib.sha256(text).hexdigest()
        write_json(file.with_suffix(".json"), {"command": "difficulty", **manifest, "sha256": digest})
        part.replace(file)
    except OSError as error:
        raise StoreError(f"Cannot write {file}: {error.strerror or error}.") from error
    finally:
        part.unlink(missing_ok=True)


def _flat(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {"it": value}
