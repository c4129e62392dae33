"""Reads what runs wrote, and draws it. Nothing here trains, and nothing heavy is imported before it is needed."""

from trl_math.reporting.coverage_figure import draw as draw
from trl_math.reporting.coverage_runs import CoverageRun as CoverageRun
from trl_math.reporting.coverage_runs import coverage_effect as coverage_effect
from trl_math.reporting.coverage_runs import loss_name as loss_name
from trl_math.reporting.coverage_runs import table as table


__all__ = ["CoverageRun", "coverage_effect", "draw", "loss_name", "table"]
