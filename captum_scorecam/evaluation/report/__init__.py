"""The report of a run: one HTML page with tables, curves and pictures."""

from captum_scorecam.evaluation.report.page import write_report

__all__ = ["write_report"]
