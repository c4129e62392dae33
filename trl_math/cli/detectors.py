"""`trl-math detectors`: how much of what is contaminated do detectors find, and how much of what they find is?"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trl_math.cli.request import quiet_bars, read_request, say, set_environment, settings_help
from trl_math.errors import UsageError, pick
from trl_math.recipes import GENERATE_ALIASES, Header, split_values


if TYPE_CHECKING:
    from trl_math.contamination.judge import Judge
    from trl_math.contamination.labelled import LabelledPairs
    from trl_math.contamination.matches import Detector
    from trl_math.data.made_file import MadeFile


HELP = """\
usage: trl-math detectors --pairs LABELLED --detectors NAME ... --output FOLDER [--setting value ...]
       trl-math detectors --config FILE.yaml [--setting value ...] [--dry-run]

Measure detectors of contamination on pairs of which it is known: precision, recall and F1 with intervals, for each
kind of pair, over thresholds, and with a threshold that one half of the test items calibrates and the other measures.
LABELLED has rows with test, train, is_contaminated (true or false) and, if pairs are of several kinds, kind. FOLDER
gets detectors.json, scores.jsonl, the curves as PNG and SVG, and a judge's answers. Pairs with an empty text are left
out and counted.

what is measured, and how:
{wanted}

the judge, if it is one of the detectors (its model is set below):
{judge}

what its answers cost:
{prices}

its model:
{engine}
"""
JUDGE = "judge"


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Which detectors are measured, on what."""

    pairs: str | None = dataclasses.field(default=None, metadata={"help": "The labelled pairs: JSONL, Parquet, hub."})
    split: str = dataclasses.field(default="train", metadata={"help": "Split of a data set of pairs."})
    detectors: list[str] | None = dataclasses.field(
        default=None, metadata={"help": "Names, as for decontaminate, and judge."}
    )
    score_columns: list[str] | None = dataclasses.field(
        default=None, metadata={"help": "Scores that the pairs bring, as COLUMN:THRESHOLD, measured likewise."}
    )
    embedder: str | None = dataclasses.field(
        default=None, metadata={"help": "The model of detectors that embed texts, if not their own."}
    )
    prevalence: float | None = dataclasses.field(
        default=None,
        metadata={"help": "Clean rows to one contaminated, as real data have them, such as 25. Unset: as labelled."},
    )
    curve_from: float = dataclasses.field(default=0.1, metadata={"help": "Lowest score that curves show."})
    num_bootstrap: int = dataclasses.field(default=1000, metadata={"help": "Draws for the intervals of F1."})
    seed: int = dataclasses.field(default=0, metadata={"help": "Of these draws, and of the halves."})
    output: str | None = dataclasses.field(default=None, metadata={"help": "Folder of what is found."})

    def __post_init__(self) -> None:
        if self.prevalence is not None and self.prevalence <= 0:
            raise UsageError(f"prevalence is clean rows to one contaminated, above 0; got {self.prevalence:g}.")
        if not 0 < self.curve_from <= 1:
            raise UsageError(f"curve_from must be above 0 and at most 1, got {self.curve_from:g}.")
        if self.num_bootstrap < 1:
            raise UsageError(f"num_bootstrap must be at least 1, got {self.num_bootstrap}.")

    def thresholds(self) -> dict[str, float]:
        """Return the threshold of each column of scores."""
        found = {}
        for said in self.score_columns or ():
            name, _, threshold = said.rpartition(":")
            try:
                found[name] = float(threshold)
            except ValueError:
                name = ""
            if not name:
                raise UsageError(f"score_columns are COLUMN:THRESHOLD, such as cosine:0.85; got {said!r}.")
        return found


@dataclasses.dataclass(frozen=True)
class JudgeSettings:
    """How a judge is asked, and what its answers mean; for every command that has one."""

    judge_kind: str = dataclasses.field(
        default="math", metadata={"help": "What texts are: code, number_substitution, math or knowledge."}
    )
    judge_threshold: float = dataclasses.field(
        default=0.5, metadata={"help": "Probability from which on its answer is yes."}
    )
    judge_margin: float = dataclasses.field(
        default=0.25,
        metadata={"help": "If yes in one order and no in the other, and further apart than this: unknown."},
    )
    judge_logprobs: bool = dataclasses.field(
        default=True, metadata={"help": "Ask for log-probabilities; false for a server that tells none."}
    )
    judge_folder: str | None = dataclasses.field(
        default=None, metadata={"help": "Where its answers are kept, to be used again [judge in output]."}
    )


class Asked(NamedTuple):
    """The settings of one command."""

    wanted: Wanted
    judge: JudgeSettings
    prices: Any  # Prices
    engine: Any  # EngineArguments


def run(argv: list[str]) -> int:
    """Run the command; return the exit status."""
    if {"-h", "--help"} & set(argv):
        print(
            HELP.format(**{name: settings_help(kind) for name, kind in _kinds().items() if name != "header"}).rstrip()
        )
        return 0
    request = read_request(argv, "detectors", _no_smoke, "output", GENERATE_ALIASES)
    set_environment(request)
    quiet_bars()
    return make(arguments(request.values), is_dry_run=request.is_dry_run)


def arguments(values: Mapping[str, Any]) -> Asked:
    """Return the settings in typed form; raise for what has no place, and for what does not go together."""
    from trl_math.cli.difficulty_settings import given_of

    kinds = _kinds()
    parts = split_values(values, kinds)
    wanted = Wanted(**parts["wanted"])
    if not wanted.pairs:
        raise UsageError("Which pairs? Set pairs: JSONL with test, train and is_contaminated.")
    if not wanted.detectors and not wanted.score_columns:
        raise UsageError(f"Which detectors? Set detectors, some of: {', '.join(_known())}.")
    for name in wanted.detectors or ():
        pick("detector", name, _known())
    both = {*(wanted.detectors or ())} & {*wanted.thresholds()}
    if both:
        raise UsageError(f"{min(both)} is a detector and a column of scores: rename the column.")
    if JUDGE not in (wanted.detectors or ()):
        given = given_of(parts, kinds)
        unused = [name for part in ("judge", "prices", "engine") for name in parts[part] if name in given]
        if unused:
            raise UsageError(f"{' and '.join(unused)} is for the judge: add judge to detectors, or leave it out.")
    elif not parts["engine"].get("model"):
        raise UsageError("Which model judges? Set model, such as embedded:smollm2-135m-instruct.")
    return Asked(wanted, *(kinds[name](**parts[name]) for name in ("judge", "prices", "engine")))


def make(asked: Asked, *, is_dry_run: bool = False) -> int:
    """Measure what is not measured yet, and show it."""
    from trl_math.contamination.harness import Settings, evaluate, given_scores, run_detectors, score_rows
    from trl_math.data.made_file import MadeFile

    wanted = asked.wanted
    folder = Path(str(wanted.output))
    file = MadeFile(folder / "scores.jsonl", folder / "detectors.json", "detectors")
    pairs, made_of = _read(wanted)
    judge = _judge(asked, folder) if JUDGE in (wanted.detectors or ()) else None
    made_of |= {} if judge is None else {"judge": judge.facts()}
    for line in _outlook(pairs, judge):
        say(line)
    if is_dry_run:
        is_there = file.is_finished(made_of)
        say(f"{folder} {'holds this already' if is_there else 'would be written'}.")
        return 0
    with file.hold():
        if file.is_finished(made_of):
            say(f"{folder} holds this already: nothing to do.")
        else:
            measured, absent = run_detectors(_makers(wanted, judge), pairs, say, wanted.curve_from)
            measured += given_scores(pairs, wanted.thresholds())
            settings = Settings(wanted.prevalence, wanted.num_bootstrap, wanted.seed)
            results = {one.name: evaluate(one, pairs, settings) for one in measured}
            facts = {**made_of, "labelled": pairs.facts, "absent": absent, "detectors": results, **_versions()}
            file.write(score_rows(measured, pairs), lambda: facts, partial(_draw, facts))
    _show(file)
    return 0


def _read(wanted: Wanted) -> tuple["LabelledPairs", dict[str, Any]]:
    """Return the pairs, and what the results are made of."""
    from trl_math.contamination.labelled import read_pairs
    from trl_math.data.load import digest, load_split

    rows = load_split(str(wanted.pairs), wanted.split, None)
    pairs = read_pairs(rows, list(wanted.thresholds()), f"{wanted.pairs!r}")
    settings = {name: value for name, value in dataclasses.asdict(wanted).items() if name not in ("pairs", "output")}
    return pairs, {"settings": settings, "pairs": digest(rows)}


def _judge(asked: Asked, folder: Path) -> "Judge":
    from trl_math.contamination.judge import Budget, Judge
    from trl_math.contamination.outcomes import Rules

    own = asked.judge
    return Judge(
        asked.engine,
        own.judge_folder or folder / "judge",
        own.judge_kind,
        rules=Rules(own.judge_threshold, own.judge_margin),
        budget=Budget(asked.prices.price, asked.prices.max_cost),
        logprobs=own.judge_logprobs,
        say=say,
    )


def _makers(wanted: Wanted, judge: "Judge | None") -> dict[str, Callable[..., "Detector"]]:
    """Return what makes each detector, the embedder put in where it takes one."""
    import inspect

    from trl_math.contamination.detectors import DETECTORS
    from trl_math.contamination.judge import JudgeDetector

    makers: dict[str, Callable[..., Detector]] = {}
    for name in wanted.detectors or ():
        if name == JUDGE:
            assert judge is not None
            makers[name] = partial(JudgeDetector, judge)
        elif wanted.embedder is not None and "embedder" in inspect.signature(DETECTORS[name]).parameters:
            makers[name] = partial(DETECTORS[name], embedder=wanted.embedder)
        else:
            makers[name] = DETECTORS[name]
    if wanted.embedder is not None and not any(
        "embedder" in inspect.signature(make).parameters for make in makers.values()
    ):
        raise UsageError("embedder is for detectors that embed texts, and none of these does: leave it out.")
    return makers


def _outlook(pairs: "LabelledPairs", judge: "Judge | None") -> list[str]:
    facts = pairs.facts
    lines = [
        f"{facts['num_pairs']:,} pairs of {facts['num_test_items']:,} test items: {facts['num_contaminated']:,} "
        f"contaminated, {facts['num_pairs'] - facts['num_contaminated']:,} clean."
    ]
    if facts["num_blank"]:
        said = ", ".join(f"{number:,} {kind}" for kind, number in facts["blank_of_kind"].items())
        lines.append(f"{facts['num_blank']:,} rows have an empty text and were left out: {said}.")
    if judge is not None:
        lines += judge.outlook(list(zip(pairs.test, pairs.train, strict=True)))
    return lines


def _draw(facts: Mapping[str, Any], path: Path) -> None:
    from trl_math.optional import is_installed

    if is_installed("matplotlib"):
        from trl_math.reporting.detectors_figure import draw_detectors

        draw_detectors(facts, path.with_name("detectors.svg"))
    else:
        say("There is no figure, since matplotlib is not installed: pip install 'trl-math[report]'.")


def _show(file: "MadeFile") -> None:
    from trl_math.contamination.detector_table import detectors_table, kinds_table

    found = file.read_manifest()
    prevalence = found["settings"]["prevalence"]
    print()
    for table in (detectors_table, kinds_table):
        print("\n".join(table(found["detectors"])), end="\n\n")
    if prevalence is not None:
        say(f"precision and F1 are those at {prevalence:g} clean rows to one contaminated.")
    say(f"{file.manifest} has all numbers and curves, {file.path} the score of each pair.")


def _known() -> Sequence[str]:
    from trl_math.contamination.detectors import DETECTORS

    return [*(name for name in DETECTORS if name != JUDGE), JUDGE]


def _kinds() -> dict[str, type]:
    from trl_math.cli.rationales_settings import Prices
    from trl_math.generation.engines import EngineArguments

    return {
        "header": Header,
        "wanted": Wanted,
        "judge": JudgeSettings,
        "prices": Prices,
        "engine": EngineArguments,
    }


def _versions() -> dict[str, Any]:
    from importlib.metadata import version

    return {"versions": {"trl-math": version("trl-math")}}


def _no_smoke(values: dict[str, Any], name: str) -> dict[str, Any]:
    raise UsageError("detectors has no smoke form: leave smoke out, or look with --dry-run.")
