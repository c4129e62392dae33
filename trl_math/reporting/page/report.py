"""From run folders to a page: reads the runs, builds the sections, and writes one HTML file and its figures.

The page asks nothing of any network: style, script and data are in it, and its content security policy forbids all
else. The same runs give the same bytes; dates in it are those of the runs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from trl_math import __version__
from trl_math.errors import UsageError
from trl_math.files import write_whole
from trl_math.optional import is_installed
from trl_math.reporting.page.breakdown import by_group, comparisons
from trl_math.reporting.page.browser import LONGEST, Packed, pack
from trl_math.reporting.page.frame import LIST, html_page, save_figures
from trl_math.reporting.page.latex import CONVERTER
from trl_math.reporting.page.markup import Child, Markup, tag, writable
from trl_math.reporting.page.numbers import curves, frontier, main_table
from trl_math.reporting.page.overview import overview
from trl_math.reporting.page.quality import confidence, grading
from trl_math.reporting.page.read_runs import read_runs
from trl_math.reporting.page.runs import Run
from trl_math.reporting.page.study import study_section
from trl_math.reporting.page.tables import Section
from trl_math.reporting.page.training import training


MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Options:
    """What a reader may choose."""

    title: str | None = None
    majority: bool = False  # draw maj@k too
    samples: int = 4  # shown of a problem and a run, at most
    browser_mb: float = 6.0  # of the page, for samples
    overwrite: bool = False
    study: str | None = None  # what `trl-math compare` wrote of arms

    def __post_init__(self) -> None:
        if self.samples < 0:
            raise UsageError(f"samples must be 0 (none) or above, got {self.samples}.")
        if not 0 <= self.browser_mb <= 1000:
            raise UsageError(f"browser_mb must be from 0 (no samples) to 1000, got {self.browser_mb}.")
        if self.study is not None and Path(self.study).suffix != ".json":
            raise UsageError(f"study must be the .json file of a comparison of arms, got {self.study}.")


class Written(NamedTuple):
    """What was written."""

    page: Path
    size: int  # bytes
    folder: Path  # of the figures
    num_figures: int
    has_png: bool
    notes: list[str]


def write_report(folders: Sequence[str | Path], output: str | Path, options: Options | None = None) -> Written:
    """Write the report of run folders.

    Args:
        folders: Of evaluations, graded samples and training runs, in the order in which they are shown.
        output: The HTML file; figures go to a folder of its name with `_files`.
        options: What to show.
    """
    options = options or Options()
    page = Path(output)
    folder = page.with_name(f"{page.stem}_files")
    _check_output(page, folder, options.overwrite)
    runs = read_runs(folders, options.samples)
    sections = [section for section in _sections(runs, options) if section is not None]
    has_samples = options.samples and options.browser_mb and any(one.samples for run in runs for one in run.results)
    packed = pack(runs, round(options.browser_mb * MEGABYTE)) if has_samples else None
    html = _page(options.title or _title(runs), sections, packed, folder.name)
    num_figures = save_figures(folder, [figure for section in sections for figure in section.figures])
    write_whole(page, html)
    notes = [writable(f"{run.name}: {note}") for run in runs for note in run.notes]
    return Written(page, page.stat().st_size, folder, num_figures, is_installed("matplotlib"), notes)


def _check_output(page: Path, folder: Path, overwrite: bool) -> None:
    if page.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"output must be an .html file, got {page}.")
    if page.is_dir() or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"output {page}, or {folder.name} beside it, is in the way: choose another name.")
    taken = next((path for path in (page, folder) if path.exists()), None)
    if taken is not None and not overwrite:
        raise UsageError(f"{taken} exists already: give --overwrite to replace it, or another --output.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / LIST).is_file():
        raise UsageError(f"{folder} is not a folder of figures (it has no {LIST}): choose another --output.")


def _sections(runs: Sequence[Run], options: Options) -> Iterable[Section | None]:
    yield overview(runs)
    yield study_section(Path(options.study) if options.study is not None else None)
    yield main_table(runs)
    yield curves(runs, with_majority=options.majority)
    yield frontier(runs)
    yield comparisons(runs)
    yield by_group(runs)
    yield confidence(runs)
    yield grading(runs)
    yield training(runs)


def _title(runs: Sequence[Run]) -> str:
    benchmarks = list(dict.fromkeys(one.benchmark for run in runs for one in run.results))
    names = f"{runs[0].name}" if len(runs) == 1 else f"{len(runs)} runs"
    return f"{names} on {' and '.join(benchmarks)}" if 0 < len(benchmarks) <= 3 else names


def _page(title: str, sections: Sequence[Section], packed: Packed | None, folder: str) -> str:
    footer = f"Made by trl-math {__version__}. Figures as SVG and PNG are in {folder}/ beside this page."
    links = [("samples", "Samples")] if packed else []
    return html_page(title, sections, footer, links=links, last=_browser(packed) if packed else None)


def _browser(packed: Packed) -> Markup:
    said = (
        f"{packed.num_shown:,} of {packed.num_problems:,} problems, with {packed.num_samples:,} of "
        f"{packed.num_all_samples:,} samples: a few of each problem and run, right and wrong, of the most frequent "
        f"answers. Of a longer completion {LONGEST:,} characters are shown."
    )
    if packed.num_shown < packed.num_problems:
        said += (
            f" {packed.num_problems - packed.num_shown:,} problems are left out to keep the page small: kept were "
            "those on which runs differ, then those solved sometimes, never, always."
        )
    source = (
        None if is_installed(CONVERTER) else tag("p", f"Formulas are shown as LaTeX: {CONVERTER} is not installed.")
    )
    data = [tag("script", Markup(packed.listing), type="text/plain", id="index")]
    data += [tag("script", Markup(block), type="text/plain", id=f"block-{i}") for i, block in enumerate(packed.blocks)]
    return tag(
        "section",
        tag("h2", "Samples"),
        tag("p", said),
        source,
        tag("noscript", tag("p", "Reading samples needs JavaScript; the rest of the page does not.")),
        _filters(),
        tag(
            "div",
            tag(
                "div",
                tag("p", id="count", cls="note", role="status"),
                tag("ul", id="list"),
                tag("button", "More", id="more", type="button", hidden=True),
                cls="listing",
            ),
            tag("div", id="problem", tabindex=-1, aria_live="polite"),
            cls="browser",
            hidden=True,
        ),
        *data,
        id="samples",
    )


def _filters() -> Markup:
    states = [
        ("", "all"),
        ("differs", "differs between runs"),
        ("mixed", "solved sometimes"),
        ("unsolved", "never solved"),
        ("solved", "always solved"),
    ]
    options = [tag("option", name, value=value) for value, name in states]
    selects = [
        tag("label", name, tag("select", tag("option", "all", value=""), name=key))
        for key, name in (("title", "Benchmark"), ("level", "Level"), ("subject", "Subject"))
    ]
    search: Child = tag(
        "label", "Search", tag("input", type="search", name="search", placeholder="problem, id or answer")
    )
    return tag(
        "form",
        *selects,
        tag("label", "Solved", tag("select", *options, name="state")),
        search,
        id="filters",
        hidden=True,
    )
