"""An image classifier with its preprocessing and class names, and its predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from captum_scorecam._messages import check_choice, warn_caller
from captum_scorecam.models.class_names import listed_class_names
from captum_scorecam.scoring.class_scores import NamedScore, are_probabilities, output_score, score_function

Preprocess = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Prediction:
    """The scores of one image.

    Attributes:
        scores (Tensor): The model's output per class, float32, on the CPU.
        score (str): The `score` with which an attribution explains probabilities: ``"probability"`` (softmax),
            ``"sigmoid"``, or ``"output"`` if the outputs are explained as they are.
    """

    scores: Tensor
    score: NamedScore

    @property
    def probabilities(self) -> Tensor:
        """The softmax or sigmoid of the outputs, or with the score ``"output"`` the outputs themselves.

        These are probabilities only if the model returns probabilities, as `has_probabilities` says.
        """
        return score_function(self.score)(self.scores.unsqueeze(0))[0]

    @property
    def has_probabilities(self) -> bool:
        """Whether all `probabilities` are in [0, 1]."""
        return bool(((self.probabilities >= 0) & (self.probabilities <= 1)).all())


@dataclass(frozen=True)
class Classifier:
    """An image classifier with its preprocessing and class names.

    Attributes:
        name (str): The name under which it was loaded.
        model (nn.Module): The model, in evaluation mode; takes N×C×H×W inputs and returns N×classes scores, or an
            object that has them as ``logits``.
        preprocess (callable): Converts an RGB image to a C×H×W input.
        class_names (sequence of str, optional): One name per class, or a dict of class index to name. Default: None,
            classes have indices only.
        layer (str, optional): The layer that ``auto`` selects, as accepted by `find_layer`. Default: "auto".
        score (str, optional): How outputs become probabilities: ``"probability"`` (softmax: one class per image),
            ``"sigmoid"`` (several labels per image, or one logit), or ``"output"`` (they are probabilities, or have
            none). Default: None, ``"output"`` if they are non-negative and sum to 1, else ``"probability"``.

    Raises:
        TypeError: If `class_names` is of another type.
        ValueError: If `class_names` lacks an index, or `score` is none of these.
    """

    name: str
    model: nn.Module
    preprocess: Preprocess
    class_names: Sequence[str] | None = None
    layer: str = "auto"
    score: NamedScore | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", listed_class_names(self.class_names))
        if self.score is not None:
            check_choice("score", self.score, NamedScore)

    def inputs(self, image: Image.Image) -> Tensor:
        """Preprocesses an image to a batch of one, on the model's device and in its dtype.

        Raises:
            ValueError: If the preprocessing does not return a C×H×W tensor.
        """
        return self.batch(self.preprocess(image))

    def batch(self, values: Tensor) -> Tensor:
        """Converts a preprocessed image to a batch of one, on the model's device and in its dtype.

        Raises:
            ValueError: If `values` is not a C×H×W tensor.
        """
        if not isinstance(values, Tensor) or values.dim() != 3:
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(f"Expected the preprocessing to return a C×H×W tensor, but got {got}.")
        like = next((p for p in self.model.parameters() if p.is_floating_point()), values)
        return values.unsqueeze(0).to(like.device, like.dtype)

    def predict(self, inputs: Tensor) -> Prediction:
        """Classifies a batch of one.

        Raises:
            TypeError: If the model returns neither a tensor nor an object with ``logits``.
            ValueError: If the model does not return 1×classes scores, the number of classes differs from the number of
                class names, or `score` does not fit a model with one output.
        """
        with torch.no_grad():
            scores = output_score(self.model(inputs))
        if scores.dim() != 2 or scores.shape[1] < 1:
            raise ValueError(f"Expected a model that returns N×classes scores, but got {tuple(scores.shape)}.")
        if self.class_names is not None and len(self.class_names) != scores.shape[1]:
            raise ValueError(f"Expected {scores.shape[1]} class names, but got {len(self.class_names)}.")
        scores = scores[0].float().cpu()
        return Prediction(scores, _fitting_score(scores, self.score))


def _fitting_score(scores: Tensor, chosen: NamedScore | None) -> NamedScore:
    """Returns how to read a model's outputs: the choice, or what the outputs suggest."""
    if len(scores) == 1 and chosen in (None, "probability"):
        raise ValueError(
            "Expected `score` to be 'sigmoid' or 'output' for a model with one output: 'sigmoid' if it is a logit, "
            "'output' if it is a probability or another quantity."
        )
    if chosen is not None:
        return chosen
    if are_probabilities(scores):
        return "output"
    if ((scores >= 0) & (scores <= 1)).all() and scores.max() - scores.min() > 0.5:  # not just small logits
        warn_caller(
            "The model's outputs are all in [0, 1] but do not sum to 1, and their softmax is used. If the model ends "
            "in a sigmoid, set `score` to 'output'."
        )
    return "probability"
