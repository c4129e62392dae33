"""A stage as it is written: a command, a name and settings; and how settings are changed from outside of it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from trl_math.errors import UsageError, nearest
from trl_math.pipeline.commands import COMMANDS
from trl_math.recipes import canonical


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


class Stage(NamedTuple):
    """A stage as it is written, the settings of its command included."""

    name: str
    command: str
    settings: dict[str, Any]


Sections = Mapping[str, Sequence[Stage]]


def allowed(label: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a stage, or raise for one that is not the stage's to set."""
    for key in settings:
        if key in NOT_OF_A_STAGE:
            raise UsageError(f"{label} may not set {key}: {NOT_OF_A_STAGE[key]}.")
        if key.endswith("_token") and key not in ("eos_token", "pad_token"):
            raise UsageError(f"{label} may not set {key}: it would be written down. Log in, or set HF_TOKEN.")
    return settings


def override(sections: Sections, given: Mapping[str, Any], said: str = "--") -> None:
    """Take `STAGE.SETTING: value` into every stage of that name. `said` goes before a key in messages."""
    for key, value in given.items():
        name, setting = target(key)
        stages = [stage for stage in _all(sections) if target(stage.name)[0] == name]
        if not stages:
            names = list(dict.fromkeys(stage.name for stage in _all(sections)))
            name = key.partition(".")[0]
            raise UsageError(
                f"{said}{key}: there is no stage {name!r}.{nearest(name, names)} Stages: {', '.join(names)}."
            )
        for stage in stages:
            [(own, _)] = canonical({setting: value}, COMMANDS[stage.command].aliases).items()
            stage.settings.update(allowed(f"stage {stage.name}", {own: value}))


def target(key: str) -> tuple[str, str]:
    """Return the stage and the setting of `STAGE.SETTING`; of flags, - and _ are the same."""
    name, _, setting = key.partition(".")
    return name.replace("-", "_"), setting.replace("-", "_")


def copied(stages: Iterable[Stage]) -> list[Stage]:
    """Return stages whose settings may be changed without changing these."""
    return [stage._replace(settings=dict(stage.settings)) for stage in stages]


def _all(sections: Sections) -> list[Stage]:
    return [stage for stages in sections.values() for stage in stages]
