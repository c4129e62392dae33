"""What is known of a stage before it runs: its settings, typed, and what would stop it on this machine.

Each function reads the very flags that the command will be given, with the command's own code. Importing this costs
nothing; calling it imports what the command needs.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trl_math.errors import DataError
from trl_math.recipes import (
    build_dpo,
    build_evaluate,
    build_generate,
    build_sft,
    look_at_dpo,
    look_at_sft,
    parse_flags,
    split_values,
)


class Asked(NamedTuple):
    """A stage, as a check sees it."""

    flags: Sequence[str]
    is_model_there: bool  # or made by a stage before it
    is_data_there: bool
    awaited: frozenset[str] = frozenset()  # settings that stages before it make


def check_nothing(asked: Asked) -> None:
    """Nothing but its settings can stop this command before its input is there."""


# ---- split ----


def read_split(flags: Sequence[str]) -> dict[str, Any]:
    from trl_math.cli.split import SplitSource  # noqa: PLC0415
    from trl_math.data.split_settings import SplitSettings  # noqa: PLC0415

    return _read(parse_flags(flags), SplitSource, SplitSettings)


def check_split(asked: Asked) -> None:
    from trl_math.cli.split import arguments, divide  # noqa: PLC0415 - heavy

    source, settings = arguments(parse_flags(asked.flags))
    if asked.is_data_there and "exemplars" not in asked.awaited:
        divide(source, settings)


# ---- decontaminate ----


def read_decontaminate(flags: Sequence[str]) -> dict[str, Any]:
    from trl_math.cli.decontaminate_settings import build  # noqa: PLC0415 - heavy

    return build(parse_flags(flags)).given


def check_decontaminate(asked: Asked) -> None:
    from trl_math.cli.decontaminate_detectors import detectors_of  # noqa: PLC0415 - heavy
    from trl_math.cli.decontaminate_settings import build  # noqa: PLC0415 - heavy
    from trl_math.contamination.sources import read_tests, read_training  # noqa: PLC0415 - heavy

    arguments = build(parse_flags(asked.flags))
    sides = arguments.sides
    if asked.is_model_there and "model" not in asked.awaited:
        detectors_of(arguments, 0, Path(str(sides.output)), print)
    if "against" not in asked.awaited:
        read_tests(sides.against or [], sides.against_split, sides.part)
    if asked.is_data_there:
        read_training(sides.data or [], sides.split, sides.data_config, sides.part)


# ---- generate ----


def read_generate(flags: Sequence[str]) -> dict[str, Any]:
    return build_generate(parse_flags(flags)).given


def check_generate(asked: Asked) -> None:
    from trl_math.cli import generate  # noqa: PLC0415 - heavy
    from trl_math.generation.arguments import load_problems  # noqa: PLC0415 - heavy
    from trl_math.share import Part  # noqa: PLC0415

    arguments = build_generate(parse_flags(asked.flags))
    generate.check(arguments, Part())
    _check_engine(arguments.engine)
    if not asked.is_data_there:
        return
    if asked.is_model_there:
        generate.prepare(arguments)
    else:
        load_problems(arguments.generate)


def _check_engine(engine: Any) -> None:
    from trl_math.share import devices_of  # noqa: PLC0415

    engine.check_here()
    if engine.engine == "vllm":
        devices_of(0, engine.data_parallel_size, engine.tensor_parallel_size)  # raises if there are fewer


# ---- grade ----


def read_grade(flags: Sequence[str]) -> dict[str, Any]:
    from trl_math.cli.grade import GradeArguments  # noqa: PLC0415

    return _read(parse_flags(flags), GradeArguments)


def check_grade(asked: Asked) -> None:
    from trl_math.cli.grade import GradeArguments  # noqa: PLC0415
    from trl_math.grading.sandbox import usable_mode  # noqa: PLC0415

    arguments = GradeArguments(**split_values(parse_flags(asked.flags), {"grade": GradeArguments})["grade"])
    if arguments.programs:
        usable_mode()  # says why, if programs cannot be run here
    if asked.is_data_there and arguments.data is not None:
        check_gold(arguments.data, arguments.split, arguments.data_config)


def check_gold(data: str, split: str, config: str | None) -> None:
    """Raise unless there are answers to grade against."""
    from trl_math.data.benchmark_table import BENCHMARKS  # noqa: PLC0415 - heavy
    from trl_math.data.load import read_for_style  # noqa: PLC0415 - heavy
    from trl_math.evaluation.benchmarks import find_benchmark, load  # noqa: PLC0415 - heavy

    is_benchmark = data.partition("=")[0] in BENCHMARKS
    problems = load(*find_benchmark(data)) if is_benchmark else read_for_style(data, split, config, "plain")
    if all(answer is None for answer in problems["answer"]):
        raise DataError(f"No problem of {data} has a gold answer, and samples are graded against those.")


# ---- difficulty ----


def read_difficulty(flags: Sequence[str]) -> dict[str, Any]:
    from trl_math.cli.difficulty_settings import build  # noqa: PLC0415 - heavy

    return build(parse_flags(flags)).given


def check_difficulty(asked: Asked) -> None:
    from trl_math.cli.difficulty_sampling import load_asked  # noqa: PLC0415 - heavy
    from trl_math.cli.difficulty_settings import build  # noqa: PLC0415 - heavy
    from trl_math.grading.sandbox import usable_mode  # noqa: PLC0415

    arguments = build(parse_flags(asked.flags))
    if arguments.way != "model":
        return
    _check_engine(arguments.engine)
    if arguments.grading.programs:
        usable_mode()  # says why, if programs cannot be run here
    if asked.is_data_there:
        load_asked(arguments)


# ---- collect ----


def read_collect(flags: Sequence[str]) -> dict[str, Any]:
    from trl_math.cli.collect_settings import build  # noqa: PLC0415 - heavy

    return build(parse_flags(flags)).given


def check_collect(asked: Asked) -> None:
    from trl_math.cli.collect import load_asked  # noqa: PLC0415 - heavy
    from trl_math.cli.collect_settings import build  # noqa: PLC0415 - heavy
    from trl_math.cli.drawing import load_judgeable  # noqa: PLC0415 - heavy
    from trl_math.grading.sandbox import usable_mode  # noqa: PLC0415

    arguments = build(parse_flags(asked.flags))
    _check_engine(arguments.engine)
    if arguments.grading.programs:
        usable_mode()  # says why, if programs cannot be run here
    if asked.is_data_there:
        if "pass_rates" in asked.awaited:
            load_judgeable(arguments.generate)
        else:
            load_asked(arguments)


# ---- rationales ----


def read_rationales(flags: Sequence[str]) -> dict[str, Any]:
    from trl_math.cli.rationales_settings import build  # noqa: PLC0415 - heavy

    return build(parse_flags(flags)).given


def check_rationales(asked: Asked) -> None:
    from trl_math.cli import rationales_teacher  # noqa: PLC0415 - heavy
    from trl_math.cli.drawing import load_judgeable  # noqa: PLC0415 - heavy
    from trl_math.cli.rationales_settings import build  # noqa: PLC0415 - heavy

    arguments = build(parse_flags(asked.flags))
    if arguments.places.samples:
        if asked.is_data_there:
            check_gold(str(arguments.generate.data), arguments.generate.split, arguments.generate.data_config)
        return
    _check_engine(arguments.engine)
    if not asked.is_data_there:
        return
    if asked.is_model_there:
        rationales_teacher.prepare(arguments, {})
    else:
        load_judgeable(arguments.generate)


# ---- tokenize ----


def read_tokenize(flags: Sequence[str]) -> dict[str, Any]:
    from trl_math.cli.tokenize_settings import TokenizeSettings  # noqa: PLC0415

    return _read(parse_flags(flags), TokenizeSettings)


def check_tokenize(asked: Asked) -> None:
    from trl_math.cli.tokenize import load_tokenizer, prepare  # noqa: PLC0415 - heavy
    from trl_math.cli.tokenize_settings import arguments  # noqa: PLC0415

    settings = arguments(parse_flags(asked.flags))
    if asked.is_model_there and asked.is_data_there:
        prepare(settings)
    elif asked.is_model_there:
        load_tokenizer(settings)


# ---- rephrase ----


def read_rephrase(flags: Sequence[str]) -> dict[str, Any]:
    from trl_math.cli.rephrase_settings import build  # noqa: PLC0415 - heavy

    return build(parse_flags(flags)).given


def check_rephrase(asked: Asked) -> None:
    from trl_math.cli import rephrase  # noqa: PLC0415 - heavy
    from trl_math.cli.rephrase_originals import load_originals  # noqa: PLC0415 - heavy
    from trl_math.cli.rephrase_settings import build  # noqa: PLC0415 - heavy

    arguments = build(parse_flags(asked.flags))
    if arguments.asks_model:
        _check_engine(arguments.engine)
    if not asked.is_data_there:
        return
    if asked.is_model_there:
        rephrase.prepare(arguments)
    else:
        load_originals(arguments)


# ---- pairs ----


def read_pairs(flags: Sequence[str]) -> dict[str, Any]:
    from trl_math.cli.pairs import SourceArguments  # noqa: PLC0415
    from trl_math.data.pair_settings import PairSettings  # noqa: PLC0415

    return _read(parse_flags(flags), SourceArguments, PairSettings)


# ---- dpo, sft ----


def read_dpo(flags: Sequence[str]) -> dict[str, Any]:
    return _with_batch(look_at_dpo(parse_flags(flags)))


def check_dpo(asked: Asked) -> None:
    from trl_math.preflight import check_before_model  # noqa: PLC0415 - heavy

    arguments = build_dpo(parse_flags(asked.flags))
    check_before_model(arguments, _launch(arguments))


def read_sft(flags: Sequence[str]) -> dict[str, Any]:
    return _with_batch(look_at_sft(parse_flags(flags)))


def check_sft(asked: Asked) -> None:
    from trl_math.data.load import load_rows  # noqa: PLC0415 - heavy
    from trl_math.preflight import check_before_model  # noqa: PLC0415 - heavy

    arguments = build_sft(parse_flags(asked.flags))
    check_before_model(arguments, _launch(arguments))
    if asked.is_data_there:
        load_rows(arguments.data, arguments.training.seed, evaluates=arguments.evaluates)


def _launch(arguments: Any) -> Any:
    from trl_math.launch import launch_plan  # noqa: PLC0415

    return launch_plan(arguments.header.accelerate_config, arguments.header.num_processes)


def _with_batch(arguments: Any) -> dict[str, Any]:
    """Return the settings with the effective batch, which counts, while how it comes about does not."""
    from trl_math.preflight import effective_batch  # noqa: PLC0415 - heavy

    return {**arguments.given, "effective_batch": effective_batch(arguments, _launch(arguments))}


# ---- merge, evaluate, compare, report ----


def read_merge(flags: Sequence[str]) -> dict[str, Any]:
    from trl_math.cli.merge import MergeArguments  # noqa: PLC0415

    return _read(parse_flags(flags), MergeArguments)


def read_evaluate(flags: Sequence[str]) -> dict[str, Any]:
    return build_evaluate(parse_flags(flags)).given


def check_evaluate(asked: Asked) -> None:
    from trl_math.cli import evaluate  # noqa: PLC0415 - heavy
    from trl_math.evaluation.benchmarks import find_benchmark, load  # noqa: PLC0415 - heavy
    from trl_math.evaluation.units import check_names, make_units  # noqa: PLC0415 - heavy
    from trl_math.generation.engines import find_checkpoint  # noqa: PLC0415 - heavy
    from trl_math.share import Part  # noqa: PLC0415

    arguments = build_evaluate(parse_flags(asked.flags))
    evaluate.check(arguments, Part())
    settings, engine = arguments.evaluate, arguments.engine
    if settings.mode != "coverage":
        _check_engine(engine)
    if "benchmarks" in asked.awaited:
        return
    if asked.is_model_there:
        make_units(settings.benchmarks, settings, engine, find_checkpoint(engine))
        return
    found = [find_benchmark(text) for text in settings.benchmarks]
    check_names([benchmark.name for benchmark, _ in found])
    for benchmark, path in found:
        load(benchmark, path)


def read_compare(flags: Sequence[str]) -> dict[str, Any]:
    from trl_math.cli.compare import CompareArguments  # noqa: PLC0415
    from trl_math.cli.compare_arms import ArmsArguments  # noqa: PLC0415

    return _read(parse_flags(flags), CompareArguments, ArmsArguments)


def read_report(flags: Sequence[str]) -> dict[str, Any]:
    from trl_math.cli.report import read_request  # noqa: PLC0415

    _, values = read_request(["runs", *flags])
    return values


def _read(values: Mapping[str, Any], *kinds: type) -> dict[str, Any]:
    """Return the settings of dataclasses that are not their defaults, typed."""
    given: dict[str, Any] = {}
    for kind, typed in zip(kinds, split_values(values, {kind.__name__: kind for kind in kinds}).values(), strict=True):
        kind(**typed)  # refuses what makes no sense
        defaults = {field.name: field.default for field in dataclasses.fields(kind)}
        given |= {name: value for name, value in typed.items() if value != defaults[name]}
    return given
