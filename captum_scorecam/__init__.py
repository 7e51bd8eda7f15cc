"""Score-CAM for Captum: class activation maps without gradients (arXiv 1910.01279)."""

from captum_scorecam.attr import (
    RISE,
    InputSpaceAttribution,
    LayerGradCamPlusPlus,
    MeaningfulPerturbation,
    RunStatistics,
    ScoreCAM,
)
from captum_scorecam.masking.activation_maps import swin_activation_maps, vit_activation_maps

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
