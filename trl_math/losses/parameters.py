"""Parameters of named functions: what a setting like `objective_params` may hold is read off the function itself.

A function's keyword-only arguments are its parameters; one without a default must be given. They are numbers, except
where the annotation is a `Literal`: then one of its words.
"""

import inspect
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin

from trl_math.errors import UsageError, nearest, pick


def keyword_parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return a function's parameters: its keyword-only arguments."""
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name: parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def as_mapping(setting: str, given: Any) -> dict[str, Any] | None:
    """Return parameters that came as a mapping, as JSON, or not at all."""
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            raise UsageError(f"{setting} must be a mapping, got {given!r}.") from None
    if given is not None and not isinstance(given, Mapping):
        raise UsageError(f"{setting} must be a mapping, got {given!r}.")
    return None if given is None else dict(given)


def check_parameters(owner: str, setting: str, function: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Raise a `UsageError` for parameters that the function does not have, or has and was not given.

    `owner` is what the message calls the function, such as `objective: focal`.
    """
    known = keyword_parameters(function)
    for key, value in given.items():
        if key not in known:
            allowed = ", ".join(known) or "none"
            raise UsageError(f"{owner} has no parameter {key!r}.{nearest(key, known)} It has: {allowed}.")
        if get_origin(known[key].annotation) is Literal:
            pick(f"{setting}: {key}", str(value), get_args(known[key].annotation))
        else:
            _check_number(setting, key, value)
    for key, parameter in known.items():
        if parameter.default is parameter.empty and key not in given:
            raise UsageError(f"{owner} needs {setting}: {{{key}: ...}}.")
    if given.get("min_pass_rate", 0.0) > given.get("max_pass_rate", 1.0):
        raise UsageError(f"{setting}: min_pass_rate is above max_pass_rate: {dict(given)}.")


def _check_number(setting: str, key: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{setting}: {key} must be a number, got {value!r}.")
    if key.endswith("_probability") and not 0 < value < 1:
        raise UsageError(f"{setting}: {key} is a probability between 0 and 1, got {value}.")
    if key.endswith("_pass_rate") and not 0 <= value <= 1:
        raise UsageError(f"{setting}: {key} is a pass rate from 0 to 1, got {value}.")
    if key in ("temperature", "gamma", "num_attempts") and not (value > 0 and math.isfinite(value)):
        raise UsageError(f"{setting}: {key} must be above 0, got {value}.")
    if not math.isfinite(value):
        raise UsageError(f"{setting}: {key} must be a finite number, got {value}.")
    if key == "num_levels" and not (value >= 1 and value == int(value)):
        raise UsageError(f"{setting}: {key} must be a whole number from 1, got {value}.")
