"""What `trl-math decontaminate` is asked, in typed form: which two sides, which detectors, and what follows."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from trl_math.cli.detectors import JUDGE, JudgeSettings
from trl_math.cli.difficulty_settings import given_of
from trl_math.cli.rationales_settings import Prices
from trl_math.contamination.detectors import DETECTORS
from trl_math.contamination.texts import PARTS
from trl_math.errors import UsageError, pick
from trl_math.generation.engines import EngineArguments
from trl_math.recipes import GENERATE_ALIASES, Header, canonical, split_values


REMOVE, STOP = "remove", "stop"
# What looks for leaks unless it is said otherwise.
USUAL = ("exact", "normalised", "ngram_8", "minhash", "paraphrase")
CANDIDATES, CANDIDATES_THRESHOLD = "embedding", 0.75
MINILM = "embedded:minilm"


def _setting(default: Any, text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": text})


@dataclasses.dataclass(frozen=True)
class SideSettings:
    """What is trained on, and what tests."""

    data: list[str] | None = dataclasses.field(
        default=None,
        metadata={
            "help": "What is trained on, one source or several: a hub name, file, folder, or a benchmark by its name."
        },
    )
    data_config: str | None = _setting(None, "Configuration name on the hub.")
    split: str = _setting("train", "Split of data.")
    against: list[str] | None = dataclasses.field(
        default=None,
        metadata={"help": "What tests: benchmarks by their names (gsm8k, or gsm8k=FILE), or any other sources."},
    )
    against_split: str = _setting("test", "Split of sources that are no benchmarks, if they have it.")
    part: str = _setting(
        "problem", "What of rows is compared: problem (what is asked) or all (also what is answered)."
    )
    output: str | None = _setting(None, "Folder of the clean rows, the matches and the report.")
    cache: str | None = _setting(
        None, "Folder of vectors and the judge's answers, for several runs [cache in output]."
    )

    def __post_init__(self) -> None:
        if not self.data:
            raise UsageError("What is trained on? Set data (a hub name, a file or folder, or a benchmark).")
        if not self.against:
            raise UsageError("What tests? Set against (gsm8k math500 ..., gsm8k=FILE, or a file or folder).")
        pick("part", self.part, PARTS)
        if self.data_config is not None and len(self.data) > 1:
            raise UsageError("data_config is for one data set of the hub, and data has several sources: give one.")


@dataclasses.dataclass(frozen=True)
class LookSettings:
    """Which detectors look, and how."""

    detectors: list[str] | None = dataclasses.field(
        default=None, metadata={"help": f"Names, and judge [{' '.join(USUAL)}]. What one of them finds is a leak."}
    )
    compare: list[str] | None = dataclasses.field(
        default=None,
        metadata={"help": "More detectors, such as ngram_13_plain, that are counted beside those and remove nothing."},
    )
    thresholds: dict[str, Any] | None = dataclasses.field(
        default=None,
        metadata={"help": "Scores from which on detectors find, if not their own: {minhash: 0.6, paraphrase: 0.8}."},
    )
    embedder: str = _setting(MINILM, "A sentence-transformers model: a folder or a hub name. MiniLM reads English.")
    processes: int | None = _setting(None, "Processes that read rows [one; all cores from 50,000 rows on].")
    candidates: str = _setting(CANDIDATES, "The detector that proposes pairs to the judge.")
    candidates_threshold: float | None = _setting(
        None, f"Score from which on it proposes [{CANDIDATES_THRESHOLD} for {CANDIDATES}, else its own]."
    )

    def __post_init__(self) -> None:
        for setting in ("detectors", "compare"):
            names = getattr(self, setting) or []
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise UsageError(f"{setting} has {twice!r} twice: name each detector once.")
            for name in names:
                pick("detector", name, known())
        if self.detectors is not None and not self.detectors:
            raise UsageError(f"Which detectors? detectors is empty: name some of {', '.join(known())}.")
        both = sorted({*self.names} & {*(self.compare or ())})
        if both:
            raise UsageError(f"{both[0]} is in detectors and in compare: leave it out of one of them.")
        if JUDGE in (self.compare or ()):
            raise UsageError("The judge is no detector to compare with: name it in detectors.")
        if self.processes is not None and self.processes < 1:
            raise UsageError(f"processes must be at least 1, got {self.processes}.")
        pick("detector of candidates", self.candidates, [name for name in known() if name != JUDGE])
        for name, value in self.limits().items():
            if name == JUDGE:
                raise UsageError("The judge's threshold is judge_threshold: leave it out of thresholds.")
            if name not in (*self.names, *(self.compare or ())):
                raise UsageError(f"thresholds has {name!r}, which is none of the detectors that look.")
            if not 0 < value <= 1:
                raise UsageError(f"The threshold of {name} must be above 0 and at most 1, got {value:g}.")

    @property
    def names(self) -> list[str]:
        """The detectors that look for leaks."""
        return list(USUAL) if self.detectors is None else self.detectors

    def limits(self) -> dict[str, float]:
        """Return the thresholds that are given."""
        numbers = {}
        for name, value in (self.thresholds or {}).items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UsageError(f"The threshold of {name} must be a number, got {value!r}.")
            numbers[str(name)] = float(value)
        return numbers


@dataclasses.dataclass(frozen=True)
class GateSettings:
    """What follows from what is found."""

    on_contaminated: str = _setting(
        REMOVE, f"{REMOVE}: rows with a leak are not among the clean ones. {STOP}: so, and the command fails."
    )
    max_contaminated: float = _setting(
        0.0, f"Of {STOP}: rows that may have a leak all the same; below 1 a share of all rows, from 1 on a number."
    )
    examples: int = _setting(60, "Pairs that the report shows side by side, at most.")

    def __post_init__(self) -> None:
        pick("on_contaminated", self.on_contaminated, (REMOVE, STOP))
        if self.max_contaminated < 0 or (self.max_contaminated > 1 and self.max_contaminated % 1):
            raise UsageError(
                "max_contaminated must be a share from 0 to below 1, or a whole number of rows, got "
                f"{self.max_contaminated:g}."
            )
        if self.max_contaminated and self.on_contaminated != STOP:
            raise UsageError(
                f"max_contaminated is for on_contaminated: {STOP} (with {REMOVE} no row with a leak is kept): set "
                "that too, or leave it out."
            )
        if self.examples < 0:
            raise UsageError(f"examples must be 0 (none) or above, got {self.examples}.")


class Asked(NamedTuple):
    """The settings of one command."""

    header: Header
    sides: SideSettings
    look: LookSettings
    gate: GateSettings
    judge: JudgeSettings
    prices: Prices
    engine: EngineArguments
    given: dict[str, Any]


KINDS = {
    "header": Header,
    "sides": SideSettings,
    "look": LookSettings,
    "gate": GateSettings,
    "judge": JudgeSettings,
    "prices": Prices,
    "engine": EngineArguments,
}
# What only a run with a judge uses.
OF_JUDGE = ("judge", "prices", "engine")
CANDIDATE_SETTINGS = ("candidates", "candidates_threshold")


def known() -> list[str]:
    """Return the names of all detectors."""
    return [*(name for name in DETECTORS if name != JUDGE), JUDGE]


def build(values: Mapping[str, Any]) -> Asked:
    """Return typed settings; raise for what has no place, and for what does not go together."""
    parts = split_values(canonical(values, GENERATE_ALIASES), KINDS)
    given = given_of(parts, KINDS)
    asked = Asked._make([*(kind(**parts[name]) for name, kind in KINDS.items()), given])
    if JUDGE in asked.look.names:
        if not asked.engine.model:
            raise UsageError("Which model judges? Set model, such as embedded:smollm2-135m-instruct.")
    else:
        unused = [name for part in OF_JUDGE for name in parts[part] if name in given]
        unused += [name for name in CANDIDATE_SETTINGS if name in given]
        if unused:
            raise UsageError(f"{' and '.join(unused)} is for the judge: add judge to detectors, or leave it out.")
    return asked
