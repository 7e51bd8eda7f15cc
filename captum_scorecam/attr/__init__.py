"""Attribution methods, one per file."""

from captum_scorecam.attr.grad_cam_plus_plus import LayerGradCamPlusPlus
from captum_scorecam.attr.input_space import InputSpaceAttribution
from captum_scorecam.attr.meaningful_perturbation import MeaningfulPerturbation
from captum_scorecam.attr.rise import RISE
from captum_scorecam.attr.run_statistics import RunStatistics
from captum_scorecam.attr.score_cam import ScoreCAM

__all__ = [
    "RISE",
    "InputSpaceAttribution",
    "LayerGradCamPlusPlus",
    "MeaningfulPerturbation",
    "RunStatistics",
    "ScoreCAM",
]
