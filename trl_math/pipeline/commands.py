"""How commands serve as stages: what each takes of the stages before it, what it makes, and how it is checked.

A command becomes a stage by its entry in `COMMANDS`; planner and runner know no command by name.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trl_math.pipeline import checks, smoke
from trl_math.recipes import EVALUATE_ALIASES, GENERATE_ALIASES, TOKENIZE_ALIASES


# What stages make. The names are those of messages.
MODEL, SAMPLES, GRADES, PAIRS, ROWS = "a model", "samples", "graded samples", "preference pairs", "training rows"
SOLUTIONS = "collected solutions"  # training rows that are in a prompt style already
SIDES = "the sides of a split"  # problems that train, and others that test
TRAINING, EVALUATION, COMPARISON, REPORT = "a training run", "evaluations", "a comparison", "a report"

# The settings that say which problems; they go together.
DATA = ("data", "data_config", "split")

# Of engines: how fast samples come, and not which they are. The same settings may differ in a store of samples, too.
OF_ENGINES = {
    "batch_size",
    "concurrency",
    "data_parallel_size",
    "enforce_eager",
    "gpu_memory_utilization",
    "max_num_seqs",
    "patience",
    "request_seeds",
    "server_urls",
    "tensor_parallel_size",
    "timeout",
}


class Take(NamedTuple):
    """What fills a setting that is not given: stages before that made one of these kinds."""

    kinds: tuple[str, ...]
    choose: Callable[[Sequence[str]], Sequence[str]]  # of all of them, in order
    is_list: bool = False
    unless: str | None = None  # another setting, with which the stage needs none
    in_study: bool = False  # it is filled in a study's `finally` only, and may be missing
    or_data: bool = False  # without such a stage, the problems of the experiment


def latest(stages: Sequence[str]) -> Sequence[str]:
    """Return the last one."""
    return stages[-1:]


def first_and_last(stages: Sequence[str]) -> Sequence[str]:
    """Return two of them, or none if there are fewer."""
    return [stages[0], stages[-1]] if len(stages) > 1 else []


def every(stages: Sequence[str]) -> Sequence[str]:
    """Return all of them."""
    return stages


class Place(NamedTuple):
    """What a stage's output may be named after."""

    stem: Path  # the stage's own: the folder of its section, its name and its key
    key: str
    settings: Mapping[str, Any]


def in_its_folder(place: Place) -> Path:
    """Return the folder of the stage."""
    return place.stem


def beside_samples(place: Place) -> Path:
    """Return a file beside the samples that it is about: what these were drawn with is told there."""
    samples = place.settings["samples"]
    if isinstance(samples, list) or Path(samples).is_file():
        return place.stem / "graded.jsonl"
    return Path(samples) / f"graded-{place.key}.jsonl"


@dataclasses.dataclass(frozen=True)
class Command:
    """One command as a stage.

    `read` turns the flags that the command will be given into its settings other than defaults, typed, or raises;
    `check` gets the same flags and raises for what would stop the command on this machine; `smoke` makes settings
    small, for problems in a file of its own.
    """

    makes: tuple[str, ...]
    read: Callable[[Sequence[str]], dict[str, Any]]
    check: Callable[[checks.Asked], None]
    smoke: Callable[[Mapping[str, Any], str], dict[str, Any]]
    takes: Mapping[str, Take] = dataclasses.field(default_factory=dict)
    model: str | None = None  # the setting for the model at this point of the experiment
    revision: str | None = None  # and for its revision on the hub
    trains_whole: bool = False  # the model must be a whole one, and not an adapter
    shared: tuple[str, ...] = ("seed",)  # settings of the whole experiment that are this command's, too
    has_window: bool = False  # `problems: K` takes K problems, other ones in each round
    compares_arms: bool = False  # in a study's `finally` it takes the evaluations of all arms
    words: str | None = None  # the setting that stands before the flags, without a name
    passes_on: str | None = None  # the setting whose stage this one makes the same of
    output: str = "output"  # the setting that says where the result goes
    place: Callable[[Place], Path] = in_its_folder  # and where that is
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)
    immaterial: frozenset[str] = frozenset()  # settings that do not change the result
    is_resumable: bool = True  # or begins again


COMMANDS: dict[str, Command] = {
    "split": Command(
        makes=(SIDES, ROWS),
        read=checks.read_split,
        check=checks.check_split,
        smoke=smoke.small_split,
        shared=(*DATA, "seed"),
        aliases=GENERATE_ALIASES,
    ),
    "decontaminate": Command(
        makes=(ROWS,),
        read=checks.read_decontaminate,
        check=checks.check_decontaminate,
        smoke=smoke.small_decontaminate,
        takes={"data": Take((ROWS,), latest, or_data=True)},
        shared=DATA,
        passes_on="data",
        aliases=GENERATE_ALIASES,
        immaterial=frozenset(
            {*OF_ENGINES, "cache", "judge_folder", "max_cost", "price_input", "price_output", "processes"}
        ),
    ),
    "generate": Command(
        makes=(SAMPLES,),
        read=checks.read_generate,
        check=checks.check_generate,
        smoke=smoke.small_generate,
        model="model",
        revision="revision",
        shared=(*DATA, "seed"),
        has_window=True,
        aliases=GENERATE_ALIASES,
        immaterial=frozenset(OF_ENGINES),
    ),
    "grade": Command(
        makes=(GRADES,),
        read=checks.read_grade,
        check=checks.check_grade,
        smoke=smoke.connections,
        takes={"samples": Take((SAMPLES,), latest)},
        shared=DATA,
        words="samples",
        place=beside_samples,
        aliases={"dataset_name": "data", "dataset_config": "data_config", "dataset_split": "split"},
        immaterial=frozenset({"workers"}),
    ),
    "difficulty": Command(
        makes=(ROWS,),
        read=checks.read_difficulty,
        check=checks.check_difficulty,
        smoke=smoke.small_difficulty,
        takes={"samples": Take((GRADES,), latest, unless="model")},  # `model: "{model}"` draws samples of its own
        shared=(*DATA, "seed"),
        place=lambda place: place.stem / "difficulty.jsonl",
        aliases=GENERATE_ALIASES,
        immaterial=frozenset({*OF_ENGINES, "grading_workers"}),
    ),
    "collect": Command(
        makes=(ROWS, SOLUTIONS),
        read=checks.read_collect,
        check=checks.check_collect,
        smoke=smoke.small_collect,
        model="model",
        revision="revision",
        shared=(*DATA, "seed"),
        has_window=True,
        place=lambda place: place.stem / "rows.jsonl",
        aliases=GENERATE_ALIASES,
        immaterial=frozenset({*OF_ENGINES, "grading_workers"}),
    ),
    "rationales": Command(
        makes=(ROWS, SOLUTIONS),
        read=checks.read_rationales,
        check=checks.check_rationales,
        smoke=smoke.small_rationales,
        takes={"samples": Take((GRADES,), latest, unless="model")},  # `model: TEACHER` draws samples of its own
        shared=(*DATA, "seed"),
        place=lambda place: place.stem / "rows.jsonl",
        aliases=GENERATE_ALIASES,
        immaterial=frozenset({*OF_ENGINES, "grading_workers", "max_cost", "price_input", "price_output"}),
    ),
    "tokenize": Command(
        makes=(ROWS, SOLUTIONS),
        read=checks.read_tokenize,
        check=checks.check_tokenize,
        smoke=smoke.small_tokenize,
        takes={"data": Take((ROWS,), latest)},
        model="model",
        revision="revision",
        shared=(),
        place=lambda place: place.stem / "rows.tok",
        aliases=TOKENIZE_ALIASES,
        is_resumable=False,
    ),
    "rephrase": Command(
        makes=(ROWS,),
        read=checks.read_rephrase,
        check=checks.check_rephrase,
        smoke=smoke.small_rephrase,
        shared=(*DATA, "seed"),
        place=lambda place: place.stem / "rows.jsonl",
        aliases=GENERATE_ALIASES,
        immaterial=frozenset({*OF_ENGINES, "grading_workers", "max_cost", "price_input", "price_output"}),
    ),
    "pairs": Command(
        makes=(PAIRS,),
        read=checks.read_pairs,
        check=checks.check_nothing,
        smoke=smoke.small_pairs,
        takes={"samples": Take((GRADES,), latest)},
        words="samples",
    ),
    "dpo": Command(
        makes=(MODEL, TRAINING),
        read=checks.read_dpo,
        check=checks.check_dpo,
        smoke=smoke.small_dpo,
        takes={"dataset_name": Take((PAIRS,), latest, unless="live_data")},
        trains_whole=True,
        model="model_name_or_path",
        revision="model_revision",
        output="output_dir",
    ),
    "sft": Command(
        makes=(MODEL, TRAINING),
        read=checks.read_sft,
        check=checks.check_sft,
        smoke=smoke.small_sft,
        takes={"dataset_name": Take((ROWS,), latest)},
        trains_whole=True,
        model="model_name_or_path",
        revision="model_revision",
        output="output_dir",
    ),
    "merge": Command(
        makes=(MODEL,),
        read=checks.read_merge,
        check=checks.check_nothing,
        smoke=smoke.as_it_is,
        takes={"adapter": Take((MODEL,), latest)},
        shared=(),
        words="adapter",
    ),
    "evaluate": Command(
        makes=(EVALUATION,),
        read=checks.read_evaluate,
        check=checks.check_evaluate,
        smoke=smoke.small_evaluate,
        model="model",
        revision="revision",
        aliases=EVALUATE_ALIASES,
        immaterial=frozenset({*OF_ENGINES, "grading_workers"}),
    ),
    "compare": Command(
        makes=(COMPARISON,),
        read=checks.read_compare,
        check=checks.check_nothing,
        smoke=smoke.small_compare,
        takes={"runs": Take((EVALUATION,), first_and_last, is_list=True, unless="arms")},
        shared=(),
        compares_arms=True,
        words="runs",
        place=lambda place: place.stem / ("study.json" if "arms" in place.settings else "comparison.json"),
        is_resumable=False,
    ),
    "report": Command(
        makes=(REPORT,),
        read=checks.read_report,
        check=checks.check_nothing,
        smoke=smoke.as_it_is,
        takes={
            "runs": Take((EVALUATION, TRAINING), every, is_list=True),
            "study": Take((COMPARISON,), latest, in_study=True),
        },
        shared=(),
        words="runs",
        place=lambda place: place.stem / "report.html",
        is_resumable=False,
    ),
}
