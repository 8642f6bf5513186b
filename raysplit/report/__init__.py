"""The report: one self-contained HTML page that gives the answer first."""

from raysplit.report.data import (
    BudgetPart,
    BudgetRow,
    MemberRow,
    Performance,
    PolicyResult,
    ReportData,
    SurrogateCheck,
    TrainingCostRow,
)
from raysplit.report.explorer import Explorer, Moving, RadioTable, Start
from raysplit.report.render import write_report

__all__ = [
    "BudgetPart",
    "BudgetRow",
    "Explorer",
    "MemberRow",
    "Moving",
    "Performance",
    "PolicyResult",
    "RadioTable",
    "ReportData",
    "Start",
    "SurrogateCheck",
    "TrainingCostRow",
    "write_report",
]
