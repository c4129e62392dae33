"""summary.json as the report can rely on it: each number checked once, here, so that no section needs to.

What is missing or null is absent. What is there and is something else, a text for a number or a share above 1, makes
the file one that cannot be believed, and is refused with its place.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trl_math.errors import DataError
from trl_math.evaluation.intervals import METHOD
from trl_math.reporting.page.read_json import is_count, read_object, refuse
from trl_math.reporting.page.runs import LEVEL


NEEDED = {"benchmark", "mode", "metrics"}
COUNTS = ("num_problems", "num_samples", "num_unreadable")
ROUNDING = 1e-6  # how far outside of its range a share may be


def read_summary(path: Path) -> dict[str, Any]:
    """Return a summary, its results checked; an empty one if there is no such file."""
    summary = read_object(path)
    if not summary:
        return {}
    results = summary.get("results")
    if not isinstance(results, list) or not all(isinstance(one, dict) and one.keys() >= NEEDED for one in results):
        raise DataError(
            f"{path} is not one that `trl-math evaluate` writes (it has {', '.join(list(summary)[:5])}): leave that "
            "folder out, or evaluate again."
        )
    header = {name: value for name, value in summary.items() if name != "results"}
    header["versions"] = _object(header.get("versions"), f"{path}: versions")
    checked = [_result(one, f"{path}: result {place}") for place, one in enumerate(results, 1)]
    return {**header, "results": checked}


def _result(one: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a benchmark's numbers in the form of `evaluation.results`, with nothing missing."""
    for name in ("benchmark", "mode"):
        if not isinstance(one[name], str):
            refuse(f"{where}, {name},", "a text", one[name])
    where = f"{where} ({one['benchmark']}, {one['mode']})"
    groups = {name: _object(one.get(name), f"{where}, {name},", _metrics) for name in ("levels", "subjects")}
    objects = {name: _object(one.get(name), f"{where}, {name},") for name in ("settings", "versions")}
    counts = {name: _count(one.get(name), f"{where}, {name},") for name in COUNTS}
    return {
        **one,
        **groups,
        **objects,
        **counts,
        "metrics": _metrics(one["metrics"], f"{where}, metrics,"),
        "samples_per_problem": _span(one.get("samples_per_problem"), f"{where}, samples_per_problem,"),
        "calibration": _calibration(one.get("calibration"), f"{where}, calibration,"),
        "grading": _grading(one.get("grading"), f"{where}, grading,"),
    }


def _object(value: Any, where: str, read: Callable[[Any, str], Any] | None = None) -> dict[str, Any]:
    """Return an object, an empty one for None, its values read by `read`."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        refuse(where, "an object", value)
    return value if read is None else {name: read(inner, f"{where} {name},") for name, inner in value.items()}


def _count(value: Any, where: str) -> int | None:
    if value is not None and not is_count(value):
        refuse(where, "a whole number, 0 or above", value)
    return value


def _share(value: Any, where: str, lowest: float = 0.0) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and lowest - ROUNDING <= value <= 1 + ROUNDING):  # so that NaN is refused
        refuse(where, f"a number from {lowest:g} to 1", value)
    return min(max(float(value), lowest), 1.0)


def _span(value: Any, where: str) -> tuple[int, int] | None:
    if value is None:
        return None
    if not (isinstance(value, list) and len(value) == 2 and all(map(is_count, value))):
        refuse(where, "the fewest and the most, two whole numbers", value)
    return value[0], value[1]


def _estimate(value: Any, where: str, lowest: float = 0.0) -> dict[str, Any]:
    """Return a number with its interval, as `Estimate` has it."""
    found = _object(value, where)
    ends = {name: _share(found.get(name), f"{where} {name},", lowest) for name in ("value", "low", "high")}
    n = found.get("n")
    if not is_count(n):
        refuse(f"{where} n,", "a whole number, 0 or above", n)
    level = found.get("confidence")
    level = LEVEL if level is None else _share(level, f"{where} confidence,")
    if not 0 < level < 1:
        refuse(f"{where} confidence,", "above 0 and below 1", level)
    return {**ends, "n": n, "method": str(found.get("method") or METHOD), "confidence": level}


def _metrics(value: Any, where: str) -> dict[str, dict[str, Any]]:
    found = _object(value, where)
    return {name: _estimate(one, f"{where} {name},") for name, one in found.items() if one is not None}


def _calibration(value: Any, where: str) -> dict[str, Any] | None:
    found = _object(value, where)
    if not found:
        return None
    bins = found.get("bins")
    if not isinstance(bins, list):
        refuse(f"{where} bins,", "a list", bins)
    shares = {name: _share(found.get(name), f"{where} {name},") for name in ("plug_in", "plug_in_if_calibrated")}
    return {
        **shares,
        "error": _estimate(found.get("error"), f"{where} error,"),
        "overconfidence": _estimate(found.get("overconfidence"), f"{where} overconfidence,", lowest=-1.0),
        "binning": str(found.get("binning") or ""),
        "bins": [_bin(one, f"{where} bin {place},") for place, one in enumerate(bins, 1)],
    }


def _bin(value: Any, where: str) -> dict[str, Any]:
    found = _object(value, where)
    ends = {name: _share(found.get(name), f"{where} {name},") for name in ("low", "high", "confidence")}
    return {**ends, "accuracy": _estimate(found.get("accuracy"), f"{where} accuracy,")}


def _grading(value: Any, where: str) -> dict[str, Any]:
    """Return what grading met: counts by name, and counts that are None where they are not told."""
    found = _object(value, where)
    tables = {}
    for name in ("reasons", "places", "outcomes"):
        counts = _object(found.get(name), f"{where} {name},", _count)
        tables[name] = {key: count for key, count in counts.items() if count}
    numbers = {name: _count(found.get(name), f"{where} {name},") for name in ("num_unmarked", "num_timeouts")}
    return tables | numbers
