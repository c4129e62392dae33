"""A file of rows that a command makes, with a manifest beside it: written whole, or not at all.

The manifest says what the rows are made of, and has their hash. The same problems, samples and settings give the same
bytes, and a file that is made of them is left as it is; one that is made of something else is refused.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trl_math.errors import RunFolderError, StoreError
from trl_math.files import json_line, write_json
from trl_math.run_folder import differences, hold_lock


SAMPLES = "samples"


@dataclass(frozen=True)
class MadeFile:
    """Where the rows are, where their manifest is, and which command makes both."""

    path: Path
    manifest: Path
    command: str

    @property
    def samples(self) -> Path:
        """The folder of the samples, if they are drawn for it."""
        return self.path.parent / SAMPLES

    def hold(self) -> AbstractContextManager[None]:
        """Keep other processes out while the file is made."""
        return hold_lock(self.path.with_name(f".{self.path.name}.lock"), f"making {self.path}", self.path)

    def is_finished(self, made_of: Mapping[str, Any]) -> bool:
        """Whether the file is made of this already; raise if it is something else."""
        path, manifest = self.path, self.manifest
        if not manifest.exists():
            if path.exists():
                raise RunFolderError(f"{path} exists, and no {manifest.name} says what it is: choose another output.")
            return False
        before = self.read_manifest()
        wanted = json.loads(json.dumps(made_of))  # as it looks after a trip through the file
        for part in wanted:
            if found := differences(_flat(before.get(part)), _flat(wanted[part])):
                raise RunFolderError(
                    f"{path} is of other {part} ({found}): choose another output, or remove {manifest.name} and "
                    f"{path.name} (samples stay, and serve again)."
                )
        if not path.exists():
            return False  # its process was killed behind the manifest
        if before.get("sha256") != _sha256(path):
            raise RunFolderError(
                f"{path} is not as it was written: choose another output, or remove {manifest.name} too."
            )
        return True

    def read_manifest(self) -> dict[str, Any]:
        """Return what lies beside the rows, or raise if it is not ours."""
        try:
            manifest = json.loads(self.manifest.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            manifest = None
        if not isinstance(manifest, dict) or manifest.get("command") != self.command:
            raise RunFolderError(
                f"{self.manifest} is no manifest of `trl-math {self.command}`: choose another output."
            )
        return manifest

    def write(
        self,
        rows: Iterable[Mapping[str, Any]],
        facts: Callable[[], Mapping[str, Any]],
        draw: Callable[[Path], Any] | None = None,
    ) -> None:
        """Write the rows as they come, then the figure that `draw` draws and the manifest; the rows are there last.

        `facts` are asked for when all rows have come, and so may count them.
        """
        part = self.path.with_name(f".{self.path.name}.part")
        sha = hashlib.sha256()
        try:
            with part.open("wb") as lines:
                for line in map(json_line, rows):
                    sha.update(line)
                    lines.write(line)
            if draw is not None:
                draw(self.path.with_suffix(".svg"))
            write_json(self.manifest, {"command": self.command, **facts(), "sha256": sha.hexdigest()})
            part.replace(self.path)
        except OSError as error:
            raise StoreError(f"Cannot write {self.path}: {error.strerror or error}.") from error
        finally:
            part.unlink(missing_ok=True)


def named_file(output: str, name: str) -> Path:
    """Return the file that an output names: the one of that name in a folder, or a .jsonl file itself."""
    path = Path(output)
    if path.suffix == ".jsonl":
        if path.is_dir():
            raise RunFolderError(f"output {path} is a folder with the name of a file: choose another.")
        return path
    if path.exists() and not path.is_dir():
        raise RunFolderError(f"output {path} is a file that does not end in .jsonl: choose another, or a folder.")
    return path / name


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flat(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {"it": value}
