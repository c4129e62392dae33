"""One thing that a check has found."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trl_math.optional import EXTRAS


Recipe = Mapping[str, Any]
Findings = Iterator["Finding"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `status` is ok, info (a remark), warn (it may go wrong) or fail (it will)."""

    name: str
    status: str
    detail: str
    fix: str = ""


def missing(package: str, is_needed: bool, detail: str, instead: str = "") -> Finding:
    """Return the finding for an optional package that is absent, with the extra that installs it."""
    fix = f"pip install 'trl-math[{EXTRAS[package]}]'{f', or {instead}' if instead else ''}"
    return Finding(package, "fail" if is_needed else "info", detail, fix)
