"""What was run: models, benchmarks, dates, versions and settings, with what differs between runs in front."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from trl_math.reporting.page.markup import Child, Markup, tag
from trl_math.reporting.page.runs import UNNAMED_MODES, Run
from trl_math.reporting.page.tables import DASH, Section, name_of, table


LONGEST_SETTING = 90
# What was used, beside what was asked for, and how it is called here.
USED = {"engine": "engine", "dtype": "dtype of the engine", "graded_with": "graded with"}


def overview(runs: Sequence[Run]) -> Section:
    """Return the list of runs and their settings."""
    rows = [
        [name_of(run), _what(run), _model(run), str(run.header.get("created", DASH))[:16].replace("T", " ")]
        for run in runs
    ]
    body: list[Child] = [table(["run", "what", "model", "made"], rows, "Runs", words=4)]
    notes = [tag("li", tag("b", run.name), ": ", note) for run in runs for note in run.notes]
    if notes:
        body.append(tag("ul", *notes, cls="notes"))
    for title, facts in (("evaluation", _evaluation_facts(runs)), ("training", _training_facts(runs))):
        if any(facts.values()):
            body.append(_settings(title, [run for run in runs if facts[run.index]], facts))
    return Section("runs", "Runs", body)


def _what(run: Run) -> str:
    modes: dict[str, list[str]] = {}
    for one in run.results:
        modes.setdefault(one.benchmark, []).append(one.mode)
    parts = [
        name if set(asked) <= set(UNNAMED_MODES) else f"{name} ({', '.join(asked)})" for name, asked in modes.items()
    ]
    if run.training is not None:
        state = "" if run.training.is_finished else ", from its newest checkpoint"
        parts.append(f"training, {run.training.num_steps:,} steps{state}")
    return ", ".join(parts)


def _model(run: Run) -> str:
    settings = run.training.settings if run.training else {}
    return str(run.header.get("model") or settings.get("model_name_or_path") or settings.get("model") or DASH)


def _evaluation_facts(runs: Sequence[Run]) -> dict[int, dict[str, str]]:
    return {run.index: _of_results(run) for run in runs}


def _of_results(run: Run) -> dict[str, str]:
    """Return settings and versions; where benchmarks differ, each benchmark's."""
    found: dict[str, dict[str, str]] = {}
    for one in run.results:
        used = {**(run.header.get("versions") or {}), **(one.stored.get("versions") or {})}
        told = {f"version of {name}": value for name, value in used.items()}
        told |= {words: one.stored[name] for name, words in USED.items() if one.stored.get(name) is not None}
        for name, value in {**(one.stored.get("settings") or {}), **told}.items():
            found.setdefault(name, {})[f"{one.benchmark} {one.mode}"] = _written(value)
    facts = {}
    for name, values in found.items():
        same = len(set(values.values())) == 1
        facts[name] = next(iter(values.values())) if same else "; ".join(f"{k}: {v}" for k, v in values.items())
    return facts


def _training_facts(runs: Sequence[Run]) -> dict[int, dict[str, str]]:
    return {
        run.index: {name: _written(value) for name, value in run.training.settings.items()} if run.training else {}
        for run in runs
    }


def _written(value: Any) -> str:
    words = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return words if len(words) <= LONGEST_SETTING else words[: LONGEST_SETTING - 1] + "…"


def _settings(title: str, runs: Sequence[Run], facts: Mapping[int, Mapping[str, str]]) -> Markup:
    names = sorted({name for run in runs for name in facts[run.index]})
    values = {name: [facts[run.index].get(name, "not set") for run in runs] for name in names}
    different = [name for name in names if len(set(values[name])) > 1]
    same = [name for name in names if name not in different]
    parts: list[Child] = []
    if len(runs) > 1:
        parts.append(tag("h3", f"{title.capitalize()} settings that differ"))
        if different:
            heads = ["setting", *(name_of(run) for run in runs)]
            rows = [[name, *(tag("mark", value) for value in values[name])] for name in different]
            parts.append(table(heads, rows, f"Differing settings of {title}", words=len(heads)))
        else:
            parts.append(tag("p", "None: all settings are the same.", cls="note"))
    if same:
        said = "the same in all runs" if len(runs) > 1 else ""
        summary = " ".join(filter(None, (f"{len(same)} {title} setting{'' if len(same) == 1 else 's'}", said)))
        rows = [[name, values[name][0]] for name in same]
        parts.append(tag("details", tag("summary", summary), table(["setting", "value"], rows, summary, words=2)))
    return tag("div", *parts)
