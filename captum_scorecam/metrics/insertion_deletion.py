"""The mean areas under insertion and deletion curves as ``torchmetrics.Metric`` classes."""

from __future__ import annotations

from torch import Tensor

from captum_scorecam.metrics.example_mean import ExampleMean
from captum_scorecam.metrics.functional.insertion_deletion import _auc_update


class InsertionAUC(ExampleMean):
    """The mean area under insertion curves: see :func:`~captum_scorecam.metrics.functional.insertion`.

    Args:
        **kwargs: Arguments of ``torchmetrics.Metric``.

    Example:
        >>> import torch
        >>> from captum_scorecam.metrics import InsertionAUC
        >>> metric = InsertionAUC()
        >>> metric.update(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([[0.0, 0.8, 1.0]]))
        >>> metric.compute()
        tensor(0.6500)
    """

    higher_is_better = True
    state_name = "insertion"

    def update(self, fractions: Tensor, scores: Tensor) -> None:
        """Adds a batch of curves, the fields of a :class:`~captum_scorecam.metrics.functional.PerturbationCurve`.

        Args:
            fractions (Tensor): Shape S, the fraction of pixels inserted or deleted, from 0 to 1.
            scores (Tensor): N×S, the class scores at each fraction.
        """
        self._add(_auc_update(fractions, scores))


class DeletionAUC(ExampleMean):
    """The mean area under deletion curves: see :func:`~captum_scorecam.metrics.functional.deletion`.

    Args:
        **kwargs: Arguments of ``torchmetrics.Metric``.
    """

    higher_is_better = False
    state_name = "deletion"

    def update(self, fractions: Tensor, scores: Tensor) -> None:
        """Adds a batch of curves, as :meth:`~captum_scorecam.metrics.InsertionAUC.update` does."""
        self._add(_auc_update(fractions, scores))
