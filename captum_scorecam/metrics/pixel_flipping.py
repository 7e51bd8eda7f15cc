"""The mean areas under MoRF and LeRF curves and between them as ``torchmetrics.Metric`` classes."""

from __future__ import annotations

from torch import Tensor

from captum_scorecam.metrics.example_mean import ExampleMean
from captum_scorecam.metrics.functional.insertion_deletion import _auc_update
from captum_scorecam.metrics.functional.pixel_flipping import _gain_update


class MoRFAUC(ExampleMean):
    """The mean area under MoRF curves: see :func:`~captum_scorecam.metrics.functional.morf`.

    Args:
        **kwargs: Arguments of ``torchmetrics.Metric``.
    """

    higher_is_better = False
    state_name = "morf"

    def update(self, fractions: Tensor, scores: Tensor) -> None:
        """Adds a batch of curves, as :meth:`~captum_scorecam.metrics.InsertionAUC.update` does."""
        self._add(_auc_update(fractions, scores))


class LeRFAUC(ExampleMean):
    """The mean area under LeRF curves: see :func:`~captum_scorecam.metrics.functional.lerf`.

    Args:
        **kwargs: Arguments of ``torchmetrics.Metric``.
    """

    higher_is_better = True
    state_name = "lerf"

    def update(self, fractions: Tensor, scores: Tensor) -> None:
        """Adds a batch of curves, as :meth:`~captum_scorecam.metrics.InsertionAUC.update` does."""
        self._add(_auc_update(fractions, scores))


class SRG(ExampleMean):
    """Symmetric relevance gain: see :func:`~captum_scorecam.metrics.functional.srg`.

    Args:
        **kwargs: Arguments of ``torchmetrics.Metric``.

    Example:
        >>> import torch
        >>> from captum_scorecam.metrics import SRG
        >>> metric = SRG()
        >>> morf, lerf = torch.tensor([[1.0, 0.2, 0.0]]), torch.tensor([[1.0, 0.8, 0.0]])
        >>> metric.update(torch.tensor([0.0, 0.5, 1.0]), morf, lerf)
        >>> metric.compute()
        tensor(0.3000)
    """

    higher_is_better = True
    state_name = "relevance_gain"

    def update(self, fractions: Tensor, morf: Tensor, lerf: Tensor) -> None:
        """Adds a batch of curves, fields of a :class:`~captum_scorecam.metrics.functional.RelevanceGain`.

        Args:
            fractions (Tensor): Shape S, the fraction of pixels removed, from 0 to 1.
            morf (Tensor): N×S, the class scores at each fraction, most relevant pixels first.
            lerf (Tensor): N×S, the same, least relevant pixels first.
        """
        self._add(_gain_update(fractions, morf, lerf))
