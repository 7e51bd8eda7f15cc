"""Many images, methods and measures: records, summary and report."""

from captum_scorecam.evaluation.api import evaluate
from captum_scorecam.evaluation.measure import Case, Curve, Measure, Measured
from captum_scorecam.evaluation.measures import MEASURES, register_measure
from captum_scorecam.evaluation.methods import METHODS, Method, MethodOptions, register_method
from captum_scorecam.evaluation.question import MethodRun, Question
from captum_scorecam.evaluation.records import read_records

__all__ = [
    "MEASURES",
    "METHODS",
    "Case",
    "Curve",
    "Measure",
    "Measured",
    "Method",
    "MethodOptions",
    "MethodRun",
    "Question",
    "evaluate",
    "read_records",
    "register_measure",
    "register_method",
]
