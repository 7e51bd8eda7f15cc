"""Score-CAM for Captum: class activation maps without gradients (arXiv 1910.01279)."""

from captum_scorecam._captum import BaselineType, ForwardFunction, TargetType
from captum_scorecam.attr import (
    RISE,
    InputSpaceAttribution,
    LayerGradCamPlusPlus,
    MeaningfulPerturbation,
    RunStatistics,
    ScoreCAM,
)
from captum_scorecam.attr.deletion_game import PerturbationKind
from captum_scorecam.budget.channel_scores import ChannelScores
from captum_scorecam.layers.activation_tap import ActivationTap
from captum_scorecam.masking.activation_maps import swin_activation_maps, vit_activation_maps
from captum_scorecam.masking.baselines import BaselineFunction
from captum_scorecam.overlay import overlay
from captum_scorecam.scoring.class_scores import Score
from captum_scorecam.scoring.detection_scores import box_scores, with_all_detections
from captum_scorecam.scoring.freed_memory import freed_memory_kept
from captum_scorecam.scoring.region_scores import region_scores
from captum_scorecam.weighting import ChannelWeighting

__all__ = [
    "RISE",
    "ActivationTap",
    "BaselineFunction",
    "BaselineType",
    "ChannelScores",
    "ChannelWeighting",
    "ForwardFunction",
    "InputSpaceAttribution",
    "LayerGradCamPlusPlus",
    "MeaningfulPerturbation",
    "PerturbationKind",
    "RunStatistics",
    "Score",
    "ScoreCAM",
    "TargetType",
    "__version__",
    "box_scores",
    "freed_memory_kept",
    "overlay",
    "region_scores",
    "swin_activation_maps",
    "vit_activation_maps",
    "with_all_detections",
]

__version__ = "0.1.0"
