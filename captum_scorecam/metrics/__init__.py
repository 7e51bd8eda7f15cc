"""Metrics as ``torchmetrics.Metric`` classes; ``captum_scorecam.metrics.functional`` has the functional versions."""

from captum_scorecam.metrics.average_drop import AverageDrop, AverageGain, AverageIncrease
from captum_scorecam.metrics.energy_pointing_game import EnergyPointingGame, PointingGame
from captum_scorecam.metrics.insertion_deletion import DeletionAUC, InsertionAUC
from captum_scorecam.metrics.plot import CurvePoints, plot_curves

__all__ = [
    "AverageDrop",
    "AverageGain",
    "AverageIncrease",
    "CurvePoints",
    "DeletionAUC",
    "EnergyPointingGame",
    "InsertionAUC",
    "PointingGame",
    "plot_curves",
]
