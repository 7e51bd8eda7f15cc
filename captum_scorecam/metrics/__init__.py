"""Metrics as ``torchmetrics.Metric`` classes; ``captum_scorecam.metrics.functional`` has the functional versions."""

from captum_scorecam.metrics.adcc import ADCC, Coherency, L1Complexity
from captum_scorecam.metrics.average_drop import AverageDrop, AverageGain, AverageIncrease
from captum_scorecam.metrics.concentration import Complexity, Sparseness
from captum_scorecam.metrics.energy_pointing_game import EnergyPointingGame, PointingGame
from captum_scorecam.metrics.insertion_deletion import DeletionAUC, InsertionAUC
from captum_scorecam.metrics.localization import IoU, MaxBoxAcc, RelevanceMass, RelevanceRank
from captum_scorecam.metrics.pixel_flipping import SRG, LeRFAUC, MoRFAUC
from captum_scorecam.metrics.plot import CurvePoints, plot_curves
from captum_scorecam.metrics.random_logit import RandomLogit
from captum_scorecam.metrics.road import ROAD

__all__ = [
    "ADCC",
    "ROAD",
    "SRG",
    "AverageDrop",
    "AverageGain",
    "AverageIncrease",
    "Coherency",
    "Complexity",
    "CurvePoints",
    "DeletionAUC",
    "EnergyPointingGame",
    "InsertionAUC",
    "IoU",
    "L1Complexity",
    "LeRFAUC",
    "MaxBoxAcc",
    "MoRFAUC",
    "PointingGame",
    "RandomLogit",
    "RelevanceMass",
    "RelevanceRank",
    "Sparseness",
    "plot_curves",
]
