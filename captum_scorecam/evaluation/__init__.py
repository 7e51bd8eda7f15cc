"""Many images, methods and measures: records, summary and report."""

from captum_scorecam.evaluation.api import evaluate
from captum_scorecam.evaluation.methods import METHODS, Method, MethodOptions, register_method
from captum_scorecam.evaluation.metrics.metric import Case, Curve, Measure, Measured
from captum_scorecam.evaluation.metrics.registered import MEASURES, register_measure
from captum_scorecam.evaluation.records import read_records
from captum_scorecam.evaluation.request import MethodRun, Question

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
