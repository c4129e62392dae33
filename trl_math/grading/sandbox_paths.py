"""What a program may read: Python's library, the shared objects that it loads, the chosen packages."""

import functools
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path

from trl_math.errors import UsageError


# Folders of shared objects; those in which other things lie too are opened object by object.
LIBRARY_FOLDERS = ("/lib64", "/usr/lib64")
MIXED_FOLDERS = ("/lib", "/usr/lib", "/usr/local/lib")
FILES = ("/etc/ld.so.cache",)
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
INSTALLED = ("site-packages", "dist-packages")  # inside Python's library, and no part of it


@functools.cache
def library_paths() -> tuple[str, ...]:
    """Return what Python itself needs, and the shared objects of the system."""
    # Of the installation itself: a virtual environment has a folder of that name for its packages alone.
    bases = {"platbase": sys.base_exec_prefix, "base": sys.base_prefix}
    library = {sysconfig.get_path("stdlib", vars=bases), sysconfig.get_path("platstdlib", vars=bases)}
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    folders = [*LIBRARY_FOLDERS, *(f"{folder}/{multiarch}" for folder in MIXED_FOLDERS if multiarch)]
    mixed = [*MIXED_FOLDERS, f"{sys.base_prefix}/lib"]
    objects = [str(file) for folder in mixed for file in Path(folder).glob("*.so*") if file.is_file()]
    return tuple(_with_targets([*library, *folders, *FILES, *objects]))


def hidden_paths() -> list[str]:
    """Return the folders inside Python's library whose contents are not to be seen."""
    return [f"{path}/{name}" for path in library_paths() for name in INSTALLED if os.path.isdir(f"{path}/{name}")]


def devices() -> list[str]:
    """Return the devices that harm nobody."""
    return [path for path in DEVICES if os.path.exists(path)]


def package_places(names: Sequence[str]) -> dict[str, str]:
    """Return where these packages are, those that are installed: a folder, or the file of a module."""
    places = {}
    for name in names:
        if not name.isidentifier():
            raise UsageError(f"packages are top-level names such as 'sympy', got {name!r}.")
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin and spec.origin.endswith(".py"):
            places[name] = spec.origin.removesuffix("/__init__.py")
    return places


def package_paths(places: dict[str, str]) -> list[str]:
    """Return the files of packages: their folders, and those beside them that hold their shared objects."""
    beside = [f"{place}.libs" for place in places.values()]
    return list(_with_targets([*places.values(), *beside]))


def _with_targets(paths: Iterable[str]) -> Iterable[str]:
    """Return the paths that exist and, for links, what they point to. What lies in another is left out."""
    existing = {path for path in paths if os.path.exists(path)}
    existing |= {os.path.realpath(path) for path in existing}
    return sorted(path for path in existing if not any(path.startswith(f"{other}/") for other in existing))
