"""Recipes of `trl-math run`: what an experiment starts from, and its stages before, in and after its rounds.

model: Qwen/Qwen2.5-Math-1.5B
data: nlile/hendrycks-MATH-benchmark
rounds: 3
generate: {backend: vllm, num_samples: 8}        # settings of every stage of this command
round:
  - generate: {problems: 2000}                   # a stage: a command and its settings
  - grade
  - pairs: {rule: balanced, max_pairs_per_problem: 4}
  - dpo: {learning_rate: 5.0e-7, accelerate_config: zero3}
after:
  - evaluate: {name: trained, benchmarks: [math500]}
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from trl_math.errors import UsageError, nearest, pick
from trl_math.pipeline import smoke
from trl_math.pipeline.commands import COMMANDS
from trl_math.recipes import GENERATE_ALIASES, Header, canonical, split_values
from trl_math.smoke import smoke_folder


BEFORE, ROUND, AFTER = SECTIONS = ("before", "round", "after")
# What `{...}` in a setting may say besides the name of a stage.
PLACEHOLDERS = ("model", "start", "round")
NAME = re.compile(r"[A-Za-z][\w-]*")
# What a stage may not set, and why.
NOT_OF_A_STAGE = {
    "command": "a stage is a command, and its settings below it",
    "config": "write its settings here",
    "description": "that is for the recipe",
    "dry_run": "give it to trl-math run",
    "env": "set it at the top of the recipe, for all stages",
    "export": "the next stages read the samples where they are",
    "output": "each stage has a folder of its own",
    "output_dir": "each stage has a folder of its own",
    "shard": "a stage draws all its samples; data_parallel_size divides them",
    "smoke": "give it to trl-math run",
}


@dataclasses.dataclass
class RunArguments:
    """What an experiment starts from, and how often its round is repeated."""

    output: str | None = dataclasses.field(default=None, metadata={"help": "Folder of the experiment."})
    model: str | None = dataclasses.field(
        default=None, metadata={"help": "The model that it starts from: a hub name, a folder, or embedded:..."}
    )
    revision: str | None = dataclasses.field(
        default=None, metadata={"help": "Branch, tag or commit of that model on the hub."}
    )
    data: str | None = dataclasses.field(
        default=None, metadata={"help": "The problems, with gold answers, for stages that name no others."}
    )
    data_config: str | None = dataclasses.field(default=None, metadata={"help": "Configuration name on the hub."})
    split: str = dataclasses.field(default="train", metadata={"help": "Split of data."})
    rounds: int = dataclasses.field(default=1, metadata={"help": "How often the stages of round are repeated."})
    seed: int = dataclasses.field(default=0, metadata={"help": "Random state of every stage that names no other."})
    before: list[Any] | None = dataclasses.field(
        default=None, metadata={"help": "Stages that run once, on the start model."}
    )
    round: list[Any] | None = dataclasses.field(
        default=None,
        metadata={"help": "Stages that are repeated, each round with the model of the one before."},
    )
    after: list[Any] | None = dataclasses.field(
        default=None, metadata={"help": "Stages that run once, on the last model."}
    )

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise UsageError(f"rounds must be at least 1, got {self.rounds}.")


class Stage(NamedTuple):
    """A stage as it is written, the settings of its command included."""

    name: str
    command: str
    settings: dict[str, Any]


class Experiment(NamedTuple):
    """A recipe in typed form."""

    arguments: RunArguments
    header: Header
    sections: dict[str, list[Stage]]


def read_experiment(values: Mapping[str, Any]) -> Experiment:
    """Return what a recipe and its flags ask for; raise a `UsageError` for what has no place."""
    values = canonical(values, GENERATE_ALIASES)
    of_stages = {key: value for key, value in values.items() if "." in key}
    of_commands = {key: _settings(key, value) for key, value in values.items() if key in COMMANDS}
    rest = {key: value for key, value in values.items() if key not in {*of_stages, *of_commands}}
    if unknown := next((key for key in rest if key not in _known()), None):
        raise UsageError(f"Unknown key {unknown!r}.{nearest(unknown, [*_known(), *COMMANDS])}")
    parts = split_values(rest, {"header": Header, "run": RunArguments})
    arguments = RunArguments(**parts["run"])
    sections = {name: _stages(name, getattr(arguments, name) or [], of_commands) for name in SECTIONS}
    if not any(sections.values()):
        raise UsageError(f"There is no stage: a recipe for `trl-math run` has {', '.join(SECTIONS)}, lists of stages.")
    if arguments.rounds > 1 and not sections[ROUND]:
        raise UsageError(f"rounds: {arguments.rounds} repeats the stages of round, and there are none.")
    used = {stage.command for stages in sections.values() for stage in stages}
    if unused := next((command for command in of_commands if command not in used), None):
        raise UsageError(f"There are settings for {unused}, and no stage of that command.")
    _override(sections, of_stages)
    return Experiment(arguments, Header(**parts["header"]), sections)


def run_smoke_values(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a recipe with model, data and machines replaced, and every stage made small; writes its problems."""
    experiment = read_experiment(values)  # a key that nobody has is an error here too
    folder = smoke_folder(name)
    data = str(smoke.write_products(folder.parent / "products.jsonl"))
    styles = smoke.small_styles(stage.settings for stages in experiment.sections.values() for stage in stages)
    sections = {
        section: [
            {stage.command: {"name": stage.name, **COMMANDS[stage.command].smoke(_restyled(stage, styles), data)}}
            for stage in stages
        ]
        for section, stages in experiment.sections.items()
    }
    return {
        **{key: values[key] for key in ("command", "description", "seed") if key in values},
        "model": smoke.MODEL,
        "data": data,
        "rounds": min(experiment.arguments.rounds, smoke.NUM_ROUNDS),
        "output": str(folder),
        **sections,
    }


def _restyled(stage: Stage, styles: Mapping[str, str]) -> dict[str, Any]:
    """Return a stage's settings with its way of asking as a smoke run has it."""
    style = str(stage.settings.get("prompt_style"))
    return {**stage.settings, **({"prompt_style": styles[style]} if style in styles else {})}


def _known() -> list[str]:
    return [field.name for kind in (RunArguments, Header) for field in dataclasses.fields(kind)]


def _stages(section: str, written: Sequence[Any], of_commands: Mapping[str, dict[str, Any]]) -> list[Stage]:
    stages: list[Stage] = []
    for number, one in enumerate(written, start=1):
        where = f"stage {number} of {section}"
        command, given = _command(where, one)
        settings = canonical(_settings(where, given), COMMANDS[command].aliases)
        name = str(settings.pop("name", command))
        if not NAME.fullmatch(name) or name in PLACEHOLDERS:
            raise UsageError(
                f"The name of {where} must be letters, digits, - and _, and none of {', '.join(PLACEHOLDERS)}, got "
                f"{name!r}."
            )
        if name in [stage.name for stage in stages]:
            raise UsageError(f"Two stages of {section} are called {name}: give one of them another name.")
        shared = canonical(of_commands.get(command, {}), COMMANDS[command].aliases)
        stages.append(Stage(name, command, _allowed(f"{section}/{name}", {**shared, **settings})))
    return stages


def _command(where: str, one: Any) -> tuple[str, Any]:
    """Return the command of a stage and what is written below it."""
    if isinstance(one, str):
        one = {one: None}
    if not isinstance(one, dict) or len(one) != 1:
        keys = f"the keys {', '.join(map(str, one))}" if isinstance(one, dict) else repr(one)
        raise UsageError(
            f"The {where} must be one command with its settings indented below it, as in `- generate: "
            f"{{num_samples: 8}}`; got {keys}."
        )
    [(command, given)] = one.items()
    return pick(f"command in {where}", str(command), COMMANDS), given


def _settings(where: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, dict | None):
        raise UsageError(f"{where} needs its settings as `key: value`, got {given!r}.")
    return dict(given or {})


def _allowed(label: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a stage, or raise for one that is not the stage's to set."""
    for key in settings:
        if key in NOT_OF_A_STAGE:
            raise UsageError(f"{label} may not set {key}: {NOT_OF_A_STAGE[key]}.")
        if key.endswith("_token") and key not in ("eos_token", "pad_token"):
            raise UsageError(f"{label} may not set {key}: it would be written down. Log in, or set HF_TOKEN.")
    return settings


def _override(sections: Mapping[str, list[Stage]], given: Mapping[str, Any]) -> None:
    """Take `--STAGE.SETTING value` into every stage of that name."""
    for key, value in given.items():
        name, _, setting = key.partition(".")
        # Of flags, - and _ are the same.
        stages = [s for some in sections.values() for s in some if name in (s.name, s.name.replace("-", "_"))]
        if not stages:
            names = list(dict.fromkeys(stage.name for some in sections.values() for stage in some))
            raise UsageError(f"--{key}: there is no stage {name!r}.{nearest(name, names)} Stages: {', '.join(names)}.")
        for stage in stages:
            [(own, _)] = canonical({setting: value}, COMMANDS[stage.command].aliases).items()
            stage.settings.update(_allowed(f"stage {name}", {own: value}))
