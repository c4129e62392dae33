"""What detectors do to labelled pairs, as tables of text: all pairs, and each kind by itself."""

from collections.abc import Mapping, Sequence
from typing import Any


Found = Mapping[str, Any]
HEAD = ("detector", "threshold", "precision", "recall", "F1", "calibrated", "precision", "recall", "F1", "unknown")


def detectors_table(detectors: Mapping[str, Found]) -> list[str]:
    """Return a line for each detector: with its own threshold, and with one that a half of test items calibrated."""
    rows = []
    for name, found in detectors.items():
        own, calibrated = found["as_it_is"], found["calibrated"]
        other = None if calibrated is None else calibrated["measured_on"]
        unknown = sum(own["num_unknown"].values())
        rows.append([name, f"{own['threshold']:.3g}", *_numbers(own)])
        rows[-1] += ["-"] * 4 if other is None else [f"{calibrated['threshold']:.3f}", *_numbers(other)]
        rows[-1].append(f"{unknown:,}" if unknown else "-")
    return aligned([HEAD, *rows])


def kinds_table(detectors: Mapping[str, Found]) -> list[str]:
    """Return the share of each kind of pair that each detector flags with its own threshold."""
    kinds = sorted({kind for found in detectors.values() for kind in found["kinds"]})
    columns = []
    for kind in kinds:
        one = next(iter(detectors.values()))["kinds"][kind]
        if one["num_contaminated"]:
            columns.append((f"{kind} ({one['num_contaminated']:,})", kind, "recall"))
        if one["num_clean"]:
            columns.append((f"{kind}, clean ({one['num_clean']:,})", kind, "false_positive_rate"))
    rows = [
        [name, *(_estimate(found["kinds"][kind].get(measure)) for _, kind, measure in columns)]
        for name, found in detectors.items()
    ]
    return aligned([("flagged of", *(title for title, _, _ in columns)), *rows])


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


def _numbers(found: Found) -> list[str]:
    return [_estimate(found[name]) for name in ("precision", "recall", "f1")]


def _estimate(found: Found | None) -> str:
    return "-" if found is None else f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
