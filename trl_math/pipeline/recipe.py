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
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from trl_math.errors import UsageError, nearest, pick
from trl_math.pipeline import smoke
from trl_math.pipeline.commands import COMMANDS
from trl_math.pipeline.stage import Stage, allowed, override
from trl_math.pipeline.study import Study, check_seed, check_seeds, make_study, small_study
from trl_math.recipes import GENERATE_ALIASES, Header, canonical, convert, split_values
from trl_math.smoke import smoke_folder


BEFORE, ROUND, AFTER, FINALLY = SECTIONS = ("before", "round", "after", "finally")
# What `{...}` in a setting may say besides the name of a stage.
PLACEHOLDERS = ("model", "start", "round")
NAME = re.compile(r"[A-Za-z][\w-]*")


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
    seeds: list[int] | None = dataclasses.field(
        default=None, metadata={"help": "Several of them: the stages of round and after run once with each."}
    )
    arms: dict[str, Any] | None = dataclasses.field(
        default=None,
        metadata={"help": "The same for each arm: its name, and what it changes as {STAGE.SETTING: value, ...}."},
    )
    matched_control: bool = dataclasses.field(
        default=False,
        metadata={
            "help": "Beside each arm with a difficulty schedule run its control: as many rows, drawn uniformly."
        },
    )
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
        check_seed(self.seed)
        check_seeds(self.seeds)

    @property
    def is_study(self) -> bool:
        """Whether the recipe's rounds are run more than once."""
        return self.seeds is not None or self.arms is not None or self.matched_control


class Experiment(NamedTuple):
    """A recipe in typed form."""

    arguments: RunArguments
    header: Header
    sections: dict[str, list[Stage]]
    study: Study | None = None


def read_experiment(values: Mapping[str, Any]) -> Experiment:
    """Return what a recipe and its flags ask for; raise a `UsageError` for what has no place."""
    values = canonical(values, GENERATE_ALIASES)
    of_stages = {key: value for key, value in values.items() if "." in key}
    of_commands = {key: _settings(key, value) for key, value in values.items() if key in COMMANDS}
    rest = {key: value for key, value in values.items() if key not in {*of_stages, *of_commands, FINALLY}}
    if unknown := next((key for key in rest if key not in _known()), None):
        raise UsageError(f"Unknown key {unknown!r}.{nearest(unknown, [*_known(), *COMMANDS])}")
    parts = split_values(rest, {"header": Header, "run": RunArguments})
    arguments = RunArguments(**parts["run"])
    last = convert(FINALLY, values.get(FINALLY), list | None)  # a word of Python's own, which no field can be called
    written = {BEFORE: arguments.before, ROUND: arguments.round, AFTER: arguments.after, FINALLY: last}
    sections = {name: _stages(name, stages or [], of_commands) for name, stages in written.items()}
    if not any(sections.values()):
        raise UsageError(f"There is no stage: a recipe for `trl-math run` has {', '.join(SECTIONS)}, lists of stages.")
    if arguments.rounds > 1 and not sections[ROUND]:
        raise UsageError(f"rounds: {arguments.rounds} repeats the stages of round, and there are none.")
    used = {stage.command for stages in sections.values() for stage in stages}
    if unused := next((command for command in of_commands if command not in used), None):
        raise UsageError(f"There are settings for {unused}, and no stage of that command.")
    override(sections, of_stages)
    return Experiment(arguments, Header(**parts["header"]), sections, _study(arguments, sections, of_stages))


def run_smoke_values(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a recipe with model, data and machines replaced, and every stage made small; writes its problems."""
    experiment = read_experiment(values)  # a key that nobody has is an error here too
    folder = smoke_folder(name)
    data = str(smoke.write_products(folder.parent / "products.jsonl"))
    styles = smoke.small_styles(stage.settings for stages in experiment.sections.values() for stage in stages)

    def small(stage: Stage) -> dict[str, Any]:
        return COMMANDS[stage.command].smoke(_restyled(stage, styles), data)

    sections = {
        section: [{stage.command: {"name": stage.name, **small(stage)}} for stage in stages]
        for section, stages in experiment.sections.items()
        if stages or section != FINALLY
    }
    return {
        **{key: values[key] for key in ("command", "description", "seed") if key in values},
        "model": smoke.MODEL,
        "data": data,
        "rounds": min(experiment.arguments.rounds, smoke.NUM_ROUNDS),
        "output": str(folder),
        **(small_study(experiment.study, experiment.sections, small) if experiment.study else {}),
        **sections,
    }


def _restyled(stage: Stage, styles: Mapping[str, str]) -> dict[str, Any]:
    """Return a stage's settings with its way of asking as a smoke run has it."""
    style = str(stage.settings.get("prompt_style"))
    return {**stage.settings, **({"prompt_style": styles[style]} if style in styles else {})}


def _known() -> list[str]:
    return [FINALLY, *(field.name for kind in (RunArguments, Header) for field in dataclasses.fields(kind))]


def _study(arguments: RunArguments, sections: Mapping[str, list[Stage]], flags: Iterable[str]) -> Study | None:
    """Return the arms and seeds; None for a recipe that runs once."""
    if not arguments.is_study:
        if sections[FINALLY]:
            raise UsageError("finally runs once after all arms and seeds, and there are none: write it as after.")
        return None
    repeated = {name: sections[name] for name in (ROUND, AFTER)}
    shared = {name: sections[name] for name in (BEFORE, FINALLY)}
    seeds = arguments.seeds or [arguments.seed]
    return make_study(arguments.arms, seeds, arguments.matched_control, repeated, shared, flags)


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
        stages.append(Stage(name, command, allowed(f"{section}/{name}", {**shared, **settings})))
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
