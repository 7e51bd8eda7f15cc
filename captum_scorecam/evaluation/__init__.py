"""Evaluation of methods on many images: plan, run, records, summary and report."""

from importlib.util import find_spec

if _missing := [n for n in ("filelock", "jinja2", "markupsafe", "matplotlib", "scipy") if find_spec(n) is None]:
    raise ModuleNotFoundError(
        f'captum_scorecam.evaluation needs {_missing[0]}: pip install "captum-scorecam[cli]".', name=_missing[0]
    )

from captum_scorecam.evaluation.captum_methods import register_captum
from captum_scorecam.evaluation.forwards import measure_forwards
from captum_scorecam.evaluation.method import ChosenMethod, Method
from captum_scorecam.evaluation.method_choice import chosen_methods, layer_to_explain
from captum_scorecam.evaluation.methods import METHODS, register_method, run_method
from captum_scorecam.evaluation.metrics.metric import Metric, MetricInput, MetricResult
from captum_scorecam.evaluation.metrics.registry import METRICS, register_metric
from captum_scorecam.evaluation.plan import Plan, Provenance
from captum_scorecam.evaluation.planning import plan_evaluation
from captum_scorecam.evaluation.record_files import read_records
from captum_scorecam.evaluation.records import Curve, Failure, Record, RunSettings
from captum_scorecam.evaluation.report.exports import export_run
from captum_scorecam.evaluation.report.page import write_report
from captum_scorecam.evaluation.request import ExplanationRequest, MethodOptions, MethodRun
from captum_scorecam.evaluation.run import run_evaluation
from captum_scorecam.evaluation.settings import read_settings
from captum_scorecam.evaluation.statistics import Difference, Estimate
from captum_scorecam.evaluation.summary import Cost, Group, Summary, summarize

__all__ = [
    "METHODS",
    "METRICS",
    "ChosenMethod",
    "Cost",
    "Curve",
    "Difference",
    "Estimate",
    "ExplanationRequest",
    "Failure",
    "Group",
    "Method",
    "MethodOptions",
    "MethodRun",
    "Metric",
    "MetricInput",
    "MetricResult",
    "Plan",
    "Provenance",
    "Record",
    "RunSettings",
    "Summary",
    "chosen_methods",
    "export_run",
    "layer_to_explain",
    "measure_forwards",
    "plan_evaluation",
    "read_records",
    "read_settings",
    "register_captum",
    "register_method",
    "register_metric",
    "run_evaluation",
    "run_method",
    "summarize",
    "write_report",
]
