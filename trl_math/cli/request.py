"""What a command line asks for: a recipe's settings, overridden by flags, and how to run it."""

import dataclasses
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from trl_math.errors import UsageError
from trl_math.recipes import canonical, convert, parse_flags, read_recipe, recipe_name


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
