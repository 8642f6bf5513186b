"""The report: one self-contained HTML page that gives the answer first."""

from raysplit.report.data import Fidelity, Performance, PolicyResult, ReportData, TrainingCost
from raysplit.report.render import write_report

__all__ = ["Fidelity", "Performance", "PolicyResult", "ReportData", "TrainingCost", "write_report"]
