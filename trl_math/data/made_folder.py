"""A folder of files of rows that a command makes: written beside its place and moved there whole, or not at all.

A manifest in it says what the rows are made of, and has their hashes. The same rows and settings give the same bytes,
and a folder that is made of them is left as it is; one that is made of something else is refused.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trl_math.errors import RunFolderError, StoreError
from trl_math.files import json_line, write_json
from trl_math.run_folder import differences, hold_lock, lock_beside


# Rows, which become lines of JSON, or what writes a file of another kind.
Content = Iterable[Mapping[str, Any]] | Callable[[Path], Any]


@dataclass(frozen=True)
class MadeFolder:
    """Where the files are, what their manifest is called, and which command makes them."""

    path: Path
    manifest: str
    command: str

    def hold(self) -> AbstractContextManager[None]:
        """Keep other processes out while the folder is made."""
        return hold_lock(lock_beside(self.path), f"making {self.path}", self.path)

    def is_finished(self, made_of: Mapping[str, Any]) -> bool:
        """Whether the folder is made of this already; raise if it is something else."""
        path = self.path
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return False
        before = self.read_manifest()
        wanted = json.loads(json.dumps(made_of))  # as it looks after a trip through the file
        for part, value in wanted.items():
            found = before.get(part)
            both = (
                (found, value)
                if isinstance(found, dict) and isinstance(value, dict)
                else ({"it": found}, {"it": value})
            )
            if difference := differences(*both):
                raise RunFolderError(f"{path} is of other {part} ({difference}): choose another output, or remove it.")
        for name, digest in before.get("sha256", {}).items():
            if digest != _sha256(path / name):
                raise RunFolderError(
                    f"{path / name} is not as it was written: remove {path}, or choose another output."
                )
        return True

    def read_manifest(self) -> dict[str, Any]:
        """Return what the manifest says, or raise if the folder is not ours."""
        try:
            manifest = json.loads((self.path / self.manifest).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            manifest = None
        if not isinstance(manifest, dict) or manifest.get("command") != self.command:
            raise RunFolderError(
                f"{self.path} is there, and its {self.manifest} is missing or not one of `trl-math {self.command}`: "
                "choose another output."
            )
        return manifest

    def write(
        self,
        files: Mapping[str, Content],
        facts: Mapping[str, Any],
        draw: Callable[[Path], Any] | None = None,
    ) -> None:
        """Write files by their names, what `draw` draws into the folder, and the manifest with these facts."""
        part = lock_beside(self.path).with_suffix(".part")
        try:
            shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
            part.mkdir(parents=True)
            digests = {}
            for name, content in files.items():
                if callable(content):
                    content(part / name)
                else:
                    with (part / name).open("wb") as lines:
                        lines.writelines(map(json_line, content))
                digests[name] = _sha256(part / name)
            if draw is not None:
                draw(part)
            write_json(part / self.manifest, {"command": self.command, **facts, "sha256": digests})
            part.replace(self.path)
        except OSError as error:
            raise StoreError(f"Cannot write {self.path}: {error.strerror or error}.") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
