"""`trl-math report`: one self-contained HTML page of any run folders."""

from pathlib import Path
from typing import Any

from trl_math.cli.request import split_words
from trl_math.errors import UsageError, nearest
from trl_math.recipes import convert, parse_flags


HELP = """\
usage: trl-math report RUN [RUN ...] --output report.html [--title T] [--any-setting value ...]

Writes one HTML page, readable without a network, of run folders of any kind: evaluations (samples.jsonl and
summary.json), graded samples (graded.jsonl) and training runs (trainer_state.json). Runs are shown in the order given;
those over the same problems are drawn together and compared. Figures also go to a folder beside the page, as SVG and,
where matplotlib is installed, as PNG.

  --output: The page, an .html file. Needed.
  --title: Its title. [made from the runs]
  --majority [false]: Draw maj@k over k, too. It may take minutes for many samples with many different answers.
  --samples [4]: The most samples of a problem and a run that the page shows; 0 shows none.
  --browser_mb [6]: How many megabytes of the page samples may take; problems beyond are left out and counted.
  --study: What `trl-math compare` wrote of arms with several seeds, a .json file; its figure is shown, too.
  --overwrite [false]: Replace the page and its figures if they exist.
"""
KINDS: dict[str, Any] = {
    "output": str,
    "title": str | None,
    "majority": bool,
    "samples": int,
    "browser_mb": float,
    "overwrite": bool,
    "study": str | None,
}


def run(argv: list[str]) -> int:
    """Run the command; return the exit status."""
    if {"-h", "--help"} & set(argv):
        print(HELP.rstrip())
        return 0
    folders, values = read_request(argv)
    output = Path(values.pop("output"))

    from trl_math.reporting.page import Options, write_report

    written = write_report(folders, output, Options(**values))
    for note in written.notes:
        print(f"Note: {note}")
    kinds = "SVG and PNG" if written.has_png else "SVG (PNG needs matplotlib: pip install 'trl-math[report]')"
    print(f"{written.page}: {written.size / 1e6:.1f} MB, {len(folders)} run{'s' * (len(folders) > 1)}.")
    print(f"{written.folder}/: {written.num_figures} figures as {kinds}.")
    return 0


def read_request(argv: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Return the run folders, which stand before the flags, and the settings."""
    folders, words = split_words(argv)
    flags = parse_flags(words)
    unknown = next((name for name in flags if name not in KINDS), None)
    if unknown is not None:
        raise UsageError(f"Unknown key {unknown!r}.{nearest(unknown, KINDS)} Known: {', '.join(KINDS)}.")
    several = next((name for name, value in flags.items() if isinstance(value, list)), None)
    if several is not None:
        raise UsageError(
            f"--{several} takes one value, got {' '.join(flags[several])}: give the runs before the flags."
        )
    if not folders:
        raise UsageError(
            "trl-math report needs at least one run folder: trl-math report RUN [RUN ...] --output x.html."
        )
    if "output" not in flags:
        raise UsageError("trl-math report needs --output, the .html file to write.")
    return folders, {name: convert(name, value, KINDS[name]) for name, value in flags.items()}
