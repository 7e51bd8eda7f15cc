"""Score-CAM for Captum: class activation maps without gradients (arXiv 1910.01279)."""

from captum_scorecam.activation_maps import swin_activation_maps, vit_activation_maps
from captum_scorecam.attr.grad_cam_plus_plus import LayerGradCamPlusPlus
from captum_scorecam.attr.meaningful_perturbation import MeaningfulPerturbation
from captum_scorecam.attr.rise import RISE
from captum_scorecam.attr.run_statistics import RunStatistics
from captum_scorecam.attr.score_cam import ScoreCAM
from captum_scorecam.input_space import InputSpaceAttribution

__all__ = [
    "RISE",
    "InputSpaceAttribution",
    "LayerGradCamPlusPlus",
    "MeaningfulPerturbation",
    "RunStatistics",
    "ScoreCAM",
    "__version__",
    "swin_activation_maps",
    "vit_activation_maps",
]

__version__ = "0.1.0"
