"""From a recipe to its stages in order, each with the folder it writes and a key that says what its result depends on.

A stage's key is the hash of its command, its settings as far as they change the result, and what it reads: stages by
their keys, everything else by content. Its folder carries the key's beginning. So a changed setting makes new folders
for that stage and for those that depend on it, and finds the others where they are.

What connects stages is filled in as placeholders where it is not given, and then resolved twice: to folders for the
command line, to keys for the key.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from trl_math.errors import TrlMathError, UsageError
from trl_math.pipeline.commands import COMMANDS, DATA, MODEL, SIDES, SOLUTIONS, Command, Place
from trl_math.pipeline.outside import OF_STAGE, Outside
from trl_math.pipeline.over_arms import over_arms
from trl_math.pipeline.placeholders import REFERENCE, as_written, resolved
from trl_math.pipeline.recipe import AFTER, BEFORE, FINALLY, ROUND, Experiment
from trl_math.pipeline.stage import Stage
from trl_math.pipeline.study import Study
from trl_math.recipes import convert
from trl_math.run_folder import IMMATERIAL


KEY_LENGTH = 8
# Where every command's own output setting goes; it is the stage's folder, and no setting of the result.
OUTPUTS = {"output", "output_dir"}


@dataclass(frozen=True)
class PlannedStage:
    """A stage that is ready to run once those before it have."""

    section: str  # before, round-1, ..., after, finally
    name: str
    command: str
    settings: dict[str, Any]  # everything that is given to the command
    given: dict[str, Any]  # the same as the command reads it, without defaults
    sources: dict[str, list[str]]  # setting -> labels of the stages that it comes from
    key: str
    stem: Path  # of the files that tell of the stage
    output: Path
    variant: str = ""  # of a study: the arm and seed that it is of
    passed_on: tuple[str, ...] = ()  # what it makes of another stage's, beside what its command makes

    @property
    def label(self) -> str:
        return "/".join(filter(None, (self.variant, self.section, self.name)))

    @property
    def words(self) -> list[str]:
        """The command line."""
        return [self.command, *bare_words(COMMANDS[self.command], self.settings), *flags_of(self)]


def makes(stage: PlannedStage, *kinds: str) -> bool:
    """Whether what a stage leaves is of one of these kinds."""
    return not {*kinds}.isdisjoint((*COMMANDS[stage.command].makes, *stage.passed_on))


@dataclass(frozen=True)
class Plan:
    """All stages of an experiment, in order."""

    folder: Path
    stages: list[PlannedStage]
    outside: Outside


def make_plan(experiment: Experiment, outside: Outside | None = None) -> Plan:
    """Return the stages of an experiment, or raise what is wrong with one of them."""
    assert experiment.arguments.output is not None
    plan = Plan(Path(experiment.arguments.output), [], outside or Outside())
    if experiment.study is None:
        _extend(plan, Point(experiment, plan.stages), (BEFORE, ROUND, AFTER))
    else:
        _plan_study(plan, experiment, experiment.study)
    return plan


class Point(NamedTuple):
    """Where in an experiment a stage stands: what it is of, and the stages before it."""

    experiment: Experiment
    before: list[PlannedStage]
    variant: str = ""

    @property
    def own(self) -> list[PlannedStage]:
        """The stages before it, without those of other arms and seeds."""
        return [stage for stage in self.before if stage.variant in ("", self.variant)]


def _extend(
    plan: Plan, point: Point, sections: Sequence[str], known: Mapping[str, PlannedStage] | None = None
) -> None:
    """Plan sections at a point, which they move; `known` are stages by key that need not be run again."""
    for section, number, stage in _in_order(point.experiment, sections):
        try:
            planned = _planned(plan, point, section, number, stage)
        except TrlMathError as error:
            label = "/".join(filter(None, (point.variant, section, stage.name)))
            raise UsageError(f"{label}: {error}") from error
        same = (known or {}).get(planned.key)
        if same is not None:
            planned = replace(planned, settings=same.settings, stem=same.stem, output=same.output)
        if planned.stem not in [other.stem for other in plan.stages]:
            plan.stages.append(planned)
        if point.before is not plan.stages:
            point.before.append(planned)


def _plan_study(plan: Plan, experiment: Experiment, study: Study) -> None:
    """Plan what all arms share, each arm with each seed, and what comes after all.

    Stages of two arms with the same key are one stage: what a control samples, say, is what its arm samples.
    """
    shared: list[PlannedStage] = []
    _extend(plan, Point(experiment, shared), (BEFORE,))
    every = [*shared]
    for variant in study.variants:
        arguments = replace(experiment.arguments, seed=variant.seed)
        own = experiment._replace(arguments=arguments, sections=variant.arm.sections)
        known = {stage.key: stage for stage in plan.stages}
        _extend(plan, Point(own, scope := [*shared], variant.folder), (ROUND, AFTER), known)
        if all(stage.key in known for stage in scope[len(shared) :]):
            others = dict.fromkeys(known[stage.key].variant or BEFORE for stage in scope[len(shared) :])
            raise UsageError(
                f"{variant.folder} is the same as {' and '.join(others)}: no stage of it takes the seed or what the "
                "arm changes. Leave it out, or take settings such as seed out of the stages."
            )
        every += scope[len(shared) :]
    _extend(plan, Point(experiment, every), (FINALLY,))


def _in_order(experiment: Experiment, sections: Sequence[str]) -> Iterator[tuple[str, int | None, Stage]]:
    """Yield (section, number of the round, stage)."""
    for section in sections:
        if section != ROUND:
            yield from ((section, None, stage) for stage in experiment.sections[section])
            continue
        for number in range(1, experiment.arguments.rounds + 1):
            yield from ((f"{ROUND}-{number}", number, stage) for stage in experiment.sections[ROUND])


def _planned(plan: Plan, point: Point, section: str, number: int | None, stage: Stage) -> PlannedStage:
    command, experiment = COMMANDS[stage.command], point.experiment
    settings = _with_window(stage.settings, command, number, experiment.arguments.seed)
    if section == FINALLY and command.compares_arms and experiment.study is not None:
        settings = over_arms(settings, point.before, experiment.study)
    settings = _filled(settings, command, point)
    sources = {name: _stages_in(value, point) for name, value in settings.items()}
    _check_whole(command, sources, point.before)
    places = _places(point, number)
    settings = {name: resolved(value, places) for name, value in settings.items()}
    if command.revision is not None and settings[command.model or ""] == experiment.arguments.model:
        settings = {**_given(command.revision, experiment.arguments.revision), **settings}
    folder = plan.folder / point.variant / section
    somewhere = command.place(Place(folder / stage.name, "", settings))  # its name needs the key
    given = command.read(_flags(command, {**settings, command.output: str(somewhere)}))
    _check_samplers(given, sources, point.before)
    _check_style(given, sources, point.before)
    key = _key(stage.command, settings, given, plan)
    stem = folder / f"{stage.name}-{key[:KEY_LENGTH]}"
    output = command.place(Place(stem, key[:KEY_LENGTH], settings))
    return PlannedStage(
        section=section,
        name=stage.name,
        command=stage.command,
        settings={**settings, command.output: str(output)},
        given=given,
        sources={name: labels for name, labels in sources.items() if labels},
        key=key,
        stem=stem,
        output=output,
        variant=point.variant,
        passed_on=_passed_on(stage, sources, point.before),
    )


def _passed_on(stage: Stage, sources: Mapping[str, list[str]], before: Sequence[PlannedStage]) -> tuple[str, ...]:
    """Return what a stage makes of what it takes: collected solutions stay that, and problems the ones that train."""
    setting = COMMANDS[stage.command].passes_on
    if setting is None:
        return ()
    labels = sources.get(setting, [])
    if not labels:  # those of the experiment, unless it names others
        return () if setting in stage.settings else (SIDES,)
    taken = [stage for stage in before if stage.label in labels]
    return tuple(kind for kind in (SIDES, SOLUTIONS) if any(makes(stage, kind) for stage in taken))


def _check_whole(command: Command, sources: Mapping[str, list[str]], before: Sequence[PlannedStage]) -> None:
    """Raise if a stage would train on top of an adapter, which the next adapter could not be told apart from."""
    labels = sources.get(command.model or "", []) if command.trains_whole else []
    adapters = [stage.label for stage in before if stage.label in labels and stage.given.get("use_peft")]
    if adapters:
        raise UsageError(
            f"it would train on top of the LoRA adapter of {adapters[0]}: put a merge stage behind that one, which "
            "makes a whole model of it."
        )


def _check_samplers(
    given: Mapping[str, Any], sources: Mapping[str, list[str]], before: Sequence[PlannedStage]
) -> None:
    """Raise if pairs of several ways of asking meet training that refuses them, which it would say hours later."""
    labels = sources.get("dataset_name", [])
    mixed = [
        stage.label
        for stage in before
        if stage.label in labels and {"mixed_templates", "mismatch_prompts"} & {*stage.given}
    ]
    if mixed and not given.get("mixed_samplers"):
        raise UsageError(f"the pairs of {mixed[0]} are of several ways of asking: set mixed_samplers: true.")


def _check_style(given: Mapping[str, Any], sources: Mapping[str, list[str]], before: Sequence[PlannedStage]) -> None:
    """Raise if training would put collected answers into a style, which it refuses once they are there."""
    from trl_math.data.load import refused_style  # noqa: PLC0415 - heavy

    labels = sources.get("dataset_name", [])
    collected = [stage.label for stage in before if stage.label in labels and makes(stage, SOLUTIONS)]
    if collected and given.get("prompt_style") is not None:
        raise refused_style(collected[0], given["prompt_style"])


# ---- What is not given is filled in ----


def _with_window(settings: Mapping[str, Any], command: Command, number: int | None, seed: int) -> dict[str, Any]:
    """Return the settings with `problems: K` as the window of this round: K problems behind those of rounds before."""
    settings = dict(settings)
    if not command.has_window or "problems" not in settings:
        return settings
    if number is None or "max_problems" in settings or "skip_problems" in settings:
        raise UsageError(
            "problems takes other problems in each round: it is for stages of round, without max_problems and "
            "skip_problems."
        )
    size = convert("problems", settings.pop("problems"), int)
    if size < 1:
        raise UsageError(f"problems must be at least 1, got {size}.")
    window = {"max_problems": size, "skip_problems": (number - 1) * size, "shuffle_seed": seed}
    return {**window, **settings}


def _filled(settings: Mapping[str, Any], command: Command, point: Point) -> dict[str, Any]:
    """Return the settings with what connects the stage to others and to the experiment, as placeholders."""
    filled: dict[str, Any] = {}
    arguments = point.experiment.arguments
    for name, take in command.takes.items():
        if name in settings or settings.get(take.unless or "") is not None:
            continue
        before = _once(point.before) if take.is_list else point.own
        if take.in_study:
            before = [stage for stage in before if "arms" in stage.settings]
        chosen = take.choose([stage.label for stage in before if makes(stage, *take.kinds)])
        if not chosen and (take.in_study or take.or_data):
            continue
        if not chosen:
            kinds = " or ".join(take.kinds)
            makers = ", ".join(other for other, one in COMMANDS.items() if {*take.kinds} & {*one.makes})
            raise UsageError(
                f"it needs {kinds}, and the stages before it make {'too few' if take.is_list else 'none'}: "
                f"put one before it ({makers or 'no command of this version makes them'}), or set {name}."
            )
        filled[name] = [f"{{{label}}}" for label in chosen] if take.is_list else f"{{{chosen[0]}}}"
    if command.model is not None:
        filled[command.model] = "{model}"
    if "seed" in command.shared:
        filled["seed"] = arguments.seed
    filled |= settings
    if "data" in command.shared and "data" not in filled:
        filled = _data_of(filled, command, point) | filled
    return filled


def _once(stages: Sequence[PlannedStage]) -> list[PlannedStage]:
    """Return the stages without those that are one that came before."""
    return [*{stage.output: stage for stage in reversed(stages)}.values()][::-1]


def _data_of(settings: Mapping[str, Any], command: Command, point: Point) -> dict[str, Any]:
    """Return the problems of the stage that this one takes its input from; without one, those of the experiment.

    Behind a split, those of the experiment are the ones that train. What is divided is all there is, unless the recipe
    says which split.
    """
    labels = {label for name in command.takes for label in _stages_in(settings.get(name), point)}
    taken = [stage.settings for stage in point.before if stage.label in labels and "data" in stage.settings]
    sides = [stage.label for stage in point.own if makes(stage, SIDES)]
    if sides and not taken and SIDES not in command.makes:
        return {"data": f"{{{sides[-1]}}}", "split": "train"}
    source = taken[-1] if taken else dict(vars(point.experiment.arguments))
    if SIDES in command.makes and source["split"] == "train":
        del source["split"]
    outputs = {stage.label: str(stage.output) for stage in point.before}
    return {name: as_written(source[name], outputs) for name in DATA if source.get(name) is not None}


def _given(name: str, value: Any) -> dict[str, Any]:
    return {} if value is None else {name: value}


# ---- Placeholders ----


def _places(point: Point, number: int | None) -> dict[str, str | None]:
    """Return what placeholders stand for here; None if they stand for nothing."""
    models = [str(stage.output) for stage in point.own if makes(stage, MODEL)]
    start = point.experiment.arguments.model
    places: dict[str, str | None] = {
        "start": start,
        "model": models[-1] if models else start,
        "round": None if number is None else str(number),
    }
    # The nearest stage of a name comes last, and stays.
    places |= {stage.name: str(stage.output) for stage in point.own}
    places |= {f"{stage.section}/{stage.name}": str(stage.output) for stage in point.own}
    return places | {stage.label: str(stage.output) for stage in point.before}


def _stages_in(value: Any, point: Point) -> list[str]:
    """Return the labels of the stages that a setting refers to."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    labels = []
    for match in REFERENCE.finditer(text):
        own = [
            stage.label
            for stage in point.own
            if match[2] in (stage.name, f"{stage.section}/{stage.name}")
            or (match[2] == "model" and makes(stage, MODEL))
        ]
        labels += own[-1:] or [stage.label for stage in point.before if match[2] == stage.label]
    return labels


# ---- Keys and command lines ----


def _key(name: str, settings: Mapping[str, Any], given: Mapping[str, Any], plan: Plan) -> str:
    """Return the hash of what a stage's result depends on."""
    command = COMMANDS[name]
    ours = [command.words] if command.words and command.words in settings else []
    known = {**{word: settings[word] for word in ours}, **given}
    material = {
        setting: _by_key(value, plan.stages)
        for setting, value in known.items()
        if setting not in IMMATERIAL | OUTPUTS | command.immaterial
    }
    text = json.dumps([name, material | plan.outside.identities(material)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _by_key(value: Any, stages: Sequence[PlannedStage]) -> Any:
    """Return a setting with the outputs of stages replaced by the keys of the stages."""
    if isinstance(value, list):
        return [_by_key(part, stages) for part in value]
    if isinstance(value, dict):
        return {name: _by_key(part, stages) for name, part in value.items()}
    if isinstance(value, str):
        # An output may lie inside of another.
        for stage in sorted(stages, key=lambda stage: -len(str(stage.output))):
            value = value.replace(str(stage.output), f"{OF_STAGE}{stage.key}")
    return value


def flags_of(stage: PlannedStage) -> list[str]:
    """Return a stage's settings as its command takes them."""
    return _flags(COMMANDS[stage.command], stage.settings)


def bare_words(command: Command, settings: Mapping[str, Any]) -> list[str]:
    """Return what stands before the flags."""
    value = settings.get(command.words, []) if command.words else []
    return [str(part) for part in (value if isinstance(value, list) else [value])]


def _flags(command: Command, settings: Mapping[str, Any]) -> list[str]:
    return [f"--{name}={_text(value)}" for name, value in settings.items() if name != command.words]


def _text(value: Any) -> str:
    """Return a value as a flag gives it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
