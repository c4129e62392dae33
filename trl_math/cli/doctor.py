"""`trl-math doctor`: check this machine, or this machine for one recipe, and say how to mend what is wrong."""

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from trl_math.errors import UsageError


# Status -> mark, and the mark where the terminal's encoding lacks it.
MARKS = {"ok": ("✓", "ok"), "info": ("·", "--"), "warn": ("!", "!!"), "fail": ("✗", "XX")}


def run(argv: list[str]) -> int:
    """Run the command; return 1 if something fails, else 0."""
    parser = argparse.ArgumentParser(
        prog="trl-math doctor",
        description="Check this machine and say how to mend what is wrong. Nothing is downloaded.",
        epilog="Further settings (--num_processes 2, --attn_implementation sdpa, ...) override those of the recipe. "
        "Exit status: 0, or 1 if a check failed.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="RECIPE.yaml", help="check what this recipe needs (a file, or a name)")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    options, flags = parser.parse_known_args(argv)

    from trl_math.doctor import examine, worst_of
    from trl_math.recipes import parse_flags, read_recipe

    # What is imported to read settings speaks, too; standard output is for the findings.
    with contextlib.redirect_stdout(sys.stderr):
        needs = _needs(read_recipe(options.config) if options.config else {}, parse_flags(flags))
    findings = worst_of([examine(need) for need in needs])
    if options.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1))
    else:
        _print(findings)
    return int(any(finding.status == "fail" for finding in findings))


def _needs(values: dict[str, Any], given: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what is to be run, typed: one recipe's settings, or those of each stage of an experiment."""
    from trl_math.recipes import (
        EVALUATE_ALIASES,
        GENERATE_ALIASES,
        build_evaluate,
        build_generate,
        canonical,
        look_at_dpo,
        look_at_sft,
    )

    command = values.get("command", "sft")
    # Other names of the settings, and what reads them.
    readers: dict[str, tuple[Mapping[str, str], Callable[[dict[str, Any]], list[dict[str, Any]]]]] = {
        "sft": ({}, lambda settings: [look_at_sft(settings).given]),
        "dpo": ({}, lambda settings: [look_at_dpo(settings).given]),
        "generate": (GENERATE_ALIASES, lambda settings: [build_generate(settings).given]),
        "evaluate": (EVALUATE_ALIASES, lambda settings: [build_evaluate(settings).given]),
        "difficulty": (GENERATE_ALIASES, _difficulty),
        "run": (GENERATE_ALIASES, _stages),
    }
    if command not in readers:
        raise UsageError(f"doctor looks at recipes of {', '.join(readers)}; this one is of {command}.")
    aliases, read = readers[command]
    values = canonical(values, aliases) | canonical(given, aliases)
    return [{"command": command, **need} for need in read(values)] or [{}] if values else [{}]


def _difficulty(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the engine's settings, if samples are drawn."""
    from trl_math.cli.difficulty_settings import build

    arguments = build(values)
    engine = {field.name for field in dataclasses.fields(arguments.engine)}
    given = {name: value for name, value in arguments.given.items() if name in engine}
    return [{**given, "command": "generate", "data": values.get("data")}] if arguments.way == "model" else []


def _stages(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what each stage that needs a model is given; rounds are alike."""
    from trl_math.pipeline.commands import COMMANDS
    from trl_math.pipeline.plan import make_plan
    from trl_math.pipeline.recipe import read_experiment

    experiment = read_experiment(values)
    needs = []
    for stage in {stage.name: stage for stage in make_plan(experiment).stages}.values():
        model = COMMANDS[stage.command].model
        if model is None:
            continue
        # The effective batch is what settings come to, and none of them.
        need = {name: value for name, value in stage.given.items() if name != "effective_batch"}
        if model in stage.sources:
            need[model] = experiment.arguments.model  # which a stage before it trains
        needs.append({**need, "command": stage.command})
    return needs or [{}]


def _print(findings: list) -> None:
    speaks_unicode = _can_encode("".join(mark for mark, _ in MARKS.values()))
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        mark = MARKS[finding.status][0 if speaks_unicode else 1]
        print(f"{mark} {finding.name:{width}}  {finding.detail}")
        if finding.fix:
            print(f"{' ' * len(mark)} {'':{width}}  -> {finding.fix}")
    count = {status: sum(finding.status == status for finding in findings) for status in MARKS}
    print(f"\n{count['ok']} fine, {count['info']} remarks, {count['warn']} warnings, {count['fail']} failures")


def _can_encode(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
