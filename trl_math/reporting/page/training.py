"""Training runs: every number that was logged, over the steps."""

from collections.abc import Sequence

from trl_math.reporting.page.drawing import Figure
from trl_math.reporting.page.figures import training_figure
from trl_math.reporting.page.markup import Child, tag
from trl_math.reporting.page.runs import Run, slug_of
from trl_math.reporting.page.tables import Section, panel, panels, run_legend


# What most readers look for first; everything else that was logged is folded away below.
FIRST = ("loss", "eval_loss", "eval_pass@", "eval_maj@", "coverage/", "rewards/", "eval_rewards/")


def training(runs: Sequence[Run]) -> Section | None:
    """Return a panel for each logged number."""
    trained = [run for run in runs if run.training is not None and run.training.series]
    if not trained:
        return None
    names = sorted({name for run in trained for name in run.training.series}, key=_order)  # type: ignore[union-attr]
    figures = {name: _figure(trained, name) for name in names}
    first = [panel(figures[name], title=name) for name in names if name.startswith(FIRST)]
    rest = [panel(figures[name], title=name) for name in names if not name.startswith(FIRST)]
    body: list[Child] = [
        tag("p", "As logged by the trainer, over optimiser steps."),
        run_legend(trained),
        panels(first),
    ]
    if rest:
        body.append(tag("details", tag("summary", f"{len(rest)} more"), panels(rest)))
    return Section("training", "Training", body, list(figures.values()))


def _order(name: str) -> tuple[int, str]:
    return next((place for place, start in enumerate(FIRST) if name.startswith(start)), len(FIRST)), name


def _figure(runs: Sequence[Run], name: str) -> Figure:
    lines = [(run, run.training.series[name]) for run in runs if run.training and name in run.training.series]
    return training_figure(name, lines, slug_of(name))
