"""An image classifier with its preprocessing and class names, and its predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from captum_scorecam.scoring.class_scores import NamedScore, are_probabilities

Preprocess = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Prediction:
    """The scores of one image.

    Attributes:
        scores (Tensor): The model's output per class, float32, on the CPU.
    """

    scores: Tensor

    @property
    def score(self) -> NamedScore:
        """The `score` with which an attribution explains probabilities: ``output`` if the model returns them."""
        return "output" if are_probabilities(self.scores) else "probability"

    @property
    def probabilities(self) -> Tensor:
        """The softmax of the scores, or the scores themselves if they are probabilities."""
        return self.scores if self.score == "output" else self.scores.softmax(0)


@dataclass(frozen=True)
class Classifier:
    """An image classifier with its preprocessing and class names.

    Attributes:
        name (str): The name under which it was loaded.
        model (nn.Module): The model, in evaluation mode; takes N×C×H×W inputs and returns N×classes scores.
        preprocess (callable): Converts an RGB image to a C×H×W input.
        class_names (sequence of str, optional): One name per class. Default: None, classes have indices only.
        layer (str, optional): The layer that ``auto`` selects, as accepted by `find_layer`. Default: "auto".
    """

    name: str
    model: nn.Module
    preprocess: Preprocess
    class_names: Sequence[str] | None = None
    layer: str = "auto"

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
            ValueError: If the model does not return 1×classes scores for at least two classes, or the number of classes
                differs from the number of class names.
        """
        with torch.no_grad():
            scores = self.model(inputs)
        if not isinstance(scores, Tensor) or scores.dim() != 2 or scores.shape[1] < 2:
            got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ValueError(f"Expected a model that returns N×classes scores of two or more classes, but got {got}.")
        if self.class_names is not None and len(self.class_names) != scores.shape[1]:
            raise ValueError(f"Expected {scores.shape[1]} class names, but got {len(self.class_names)}.")
        return Prediction(scores[0].float().cpu())
