"""What a command line asks for: a recipe's settings, overridden by flags, and how to run it."""

import dataclasses
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from trl_math.errors import UsageError
from trl_math.recipes import GENERATE_ALIASES, canonical, convert, parse_flags, read_recipe, recipe_name


# Where a command without a recipe writes, under runs/; runs/generate is where its recipes write.
DEFAULT_OUTPUTS = {"generate": "samples", "evaluate": "evaluation"}


class Request(NamedTuple):
    """A command's settings, and whether to look only."""

    values: dict[str, Any]
    is_dry_run: bool
    name: str  # of the recipe, or of the command if there is none


def read_request(
    argv: list[str],
    command: str,
    smoke: Callable[[dict[str, Any], str], dict[str, Any]],
    output_key: str,
    aliases: Mapping[str, str] | None = None,
) -> Request:
    """Merge the recipe file, the smoke settings and the flags, whichever of its names a setting is given by.

    The output folder, if it is not given, is named after the recipe.
    """
    flags = canonical(parse_flags(argv), aliases or {})
    options = {name: convert(name, flags.pop(name, False), bool) for name in ("dry_run", "smoke")}
    file = convert("config", flags.pop("config", None), str | None)
    values = canonical(read_recipe(file), aliases or {}) if file is not None else {}
    if values.get("command", command) != command:
        raise UsageError(f"{file} is a recipe for `trl-math {values['command']}`, not for {command}.")
    name = Path(recipe_name(Path(file))).name if file is not None else command
    if options["smoke"]:
        # The number of samples follows from the temperature, so a flag for that counts here too.
        said = {key: convert(key, flags[key], float) for key in ("temperature",) if key in flags}
        values = smoke({**values, **said}, name)
    given = {**values, **flags}
    folder = name if file is not None else DEFAULT_OUTPUTS.get(command, command)
    given.setdefault(output_key, f"runs/{folder}")
    return Request(given, options["dry_run"], name)


def run_made(
    argv: list[str],
    command: str,
    text: str,
    smoke: Callable[[dict[str, Any], str], dict[str, Any]],
    make: Callable[[Any], int],
    *,
    takes_words: bool = False,
) -> int:
    """Run a command that draws samples and makes a file of them: help, a dry run, or the work; return the status.

    Its settings are those of `cli/COMMAND_settings` (`KINDS`, for which the help's `text` has places, and `build`),
    its dry run is `report` of `cli/COMMAND_plan`: imported when they are needed, since what they import reads the
    environment. `takes_words`: something may stand in front of the flags.
    """
    if {"-h", "--help"} & set(argv):
        kinds = importlib.import_module(f"trl_math.cli.{command}_settings").KINDS
        print(text.format(**{name: settings_help(kind) for name, kind in kinds.items()}).rstrip())
        return 0
    words, flags = split_words(argv) if takes_words else ([], argv)
    request = read_request(flags, command, smoke, "output", GENERATE_ALIASES)
    set_environment(request)
    quiet_bars()
    settings = importlib.import_module(f"trl_math.cli.{command}_settings")
    asked = settings.build(request.values, words) if takes_words else settings.build(request.values)
    if request.is_dry_run:
        print(importlib.import_module(f"trl_math.cli.{command}_plan").report(asked))
        return 0
    return make(asked)


def split_words(argv: list[str]) -> tuple[list[str], list[str]]:
    """Return what stands in front of the flags, and the flags."""
    number = next((place for place, word in enumerate(argv) if word.startswith("-")), len(argv))
    return argv[:number], argv[number:]


def set_environment(request: Request) -> None:
    """Set the recipe's environment variables, unless they are set already; a dry run reads caches only."""
    variables = convert("env", request.values.get("env"), dict | None) or {}
    for name, value in variables.items():
        os.environ.setdefault(name, str(value))
    if request.is_dry_run:
        os.environ["HF_HUB_OFFLINE"] = "1"


def quiet_bars() -> None:
    """Show the progress bars of `datasets` on a terminal only."""
    if not sys.stderr.isatty():
        import datasets

        datasets.disable_progress_bars()


def say(text: str) -> None:
    """Print a line at once, also into a file."""
    print(text, flush=True)


def settings_help(kind: type) -> str:
    """Return a line for each setting of a dataclass, its own before those that it shares with other commands."""
    fields = sorted(dataclasses.fields(kind), key=lambda field: field.name not in vars(kind)["__annotations__"])
    lines = []
    for field in filter(lambda field: field.init, fields):
        default = "" if field.default is None else f" [{field.default}]"
        lines.append(f"  --{field.name}{default}: {field.metadata['help']}")
    return "\n".join(lines)
