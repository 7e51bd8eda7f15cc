"""The random-logit test as a ``torchmetrics.Metric`` class."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from captum_scorecam._messages import check_choice
from captum_scorecam.metrics.example_mean import ExampleMean
from captum_scorecam.metrics.functional.random_logit import Similarity, _random_logit_update


class RandomLogit(ExampleMean):
    """Similarity of two classes' maps: see :func:`~captum_scorecam.metrics.functional.random_logit`.

    Args:
        similarity (str): ``"ssim"`` (default), ``"spearman"`` or ``"cosine"``.
        **kwargs: Arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If `similarity` is unknown.
    """

    higher_is_better = False

    def __init__(self, similarity: Similarity = "ssim", **kwargs: Any) -> None:
        check_choice("similarity", similarity, Similarity)
        self.state_name = f"random_logit_{similarity}"
        super().__init__(**kwargs)
        self.similarity = similarity

    def update(self, attributions: Tensor, other_attributions: Tensor) -> None:
        """Adds a batch of attributions.

        Args:
            attributions (Tensor): The maps of the explained class, N×C×spatial, summed over the channels.
            other_attributions (Tensor): The maps of a random other class.
        """
        self._add(_random_logit_update(attributions, other_attributions, self.similarity))
