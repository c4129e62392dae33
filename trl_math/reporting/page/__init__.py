"""One self-contained HTML page of any run folders: tables, figures and samples, readable without a network."""

from trl_math.reporting.page.report import Options as Options
from trl_math.reporting.page.report import Written as Written
from trl_math.reporting.page.report import write_report as write_report


__all__ = ["Options", "Written", "write_report"]
