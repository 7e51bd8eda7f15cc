"""An image classifier with its preprocessing and class names, and its predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor, nn

from captum_scorecam._messages import check_choice, warn_caller
from captum_scorecam.model_state import gradients_disabled
from captum_scorecam.models.class_names import listed_class_names
from captum_scorecam.models.output_range import LastOperation, last_operation
from captum_scorecam.scoring.class_scores import NamedScore, are_probabilities, output_score, score_function
from captum_scorecam.scoring.output_parts import output_type, parts_of_output

Preprocess = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Prediction:
    """The scores of one image.

    Attributes:
        scores (Tensor): The model's output per class, float32, on the CPU.
        score (str): The `score` with which an attribution explains probabilities: ``"probability"`` (softmax),
            ``"sigmoid"``, or ``"output"`` if the outputs are explained as they are.
        unbounded (bool): Whether the outputs are known to be unbounded, as those of a linear layer, whatever the values
            of this image are. Default: False.
    """

    scores: Tensor
    score: NamedScore
    unbounded: bool = False

    @property
    def probabilities(self) -> Tensor:
        """The softmax or sigmoid of the outputs, or with the score ``"output"`` the outputs themselves.

        These are probabilities only if the model returns probabilities, as `has_probabilities` says.
        """
        return score_function(self.score)(self.scores.unsqueeze(0))[0]

    @property
    def has_probabilities(self) -> bool:
        """Whether all `probabilities` are in [0, 1], and not by chance."""
        if self.score == "output" and self.unbounded:
            return False
        return are_probabilities(self.scores) or _all_in_unit_range(self.probabilities)


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
            none). Default: None, ``"output"`` if they come from a sigmoid or a softmax, or are non-negative and sum to
            1, else ``"probability"``.

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
            TypeError: If the model returns neither a tensor nor an object with ``logits``. The message lists what it
                returns.
            ValueError: If the model does not return 1×classes scores, the number of classes differs from the number of
                class names, or `score` does not fit a model with one output.
        """
        with gradients_disabled():
            scores = self._scores(self.model(inputs.clone()))  # which the model may modify
        if scores.dim() != 2 or scores.shape[1] < 1:
            raise ValueError(f"Expected a model that returns N×classes scores, but got {tuple(scores.shape)}.")
        if self.class_names is not None and len(self.class_names) != scores.shape[1]:
            raise ValueError(f"Expected {scores.shape[1]} class names, but got {len(self.class_names)}.")
        scores = scores[0].float().cpu()
        if len(scores) == 1 and self.score in (None, "probability"):
            raise ValueError(
                "Expected `score` to be 'sigmoid' or 'output' for a model with one output: 'sigmoid' if it is a logit, "
                "'output' if it is a probability or another quantity."
            )
        ambiguous = self.score in (None, "output") and _all_in_unit_range(scores) and not are_probabilities(scores)
        origin = last_operation(self.model, inputs) if ambiguous else None
        if ambiguous and origin is None and self.score is None:
            warn_caller(
                "The model's outputs are all in [0, 1] but do not sum to 1, and their softmax is used. If the model "
                "ends in a sigmoid, set `score` to 'output'."
            )
        return Prediction(scores, self.score or _fitting_score(scores, origin), unbounded=origin == "linear")

    def _scores(self, output: object) -> Tensor:
        try:
            return output_score(output)
        except TypeError as error:
            parts = "; ".join(part for part, _ in parts_of_output(output))
            contents = f" ({parts})" if parts else ""
            raise TypeError(
                f"Expected a model that returns N×classes scores or an object with `logits`, but {self.name} returns "
                f"{output_type(output)}{contents}. Wrap it in a module that returns the scores; "
                "package.module:factory loads that."
            ) from error


def _fitting_score(scores: Tensor, origin: LastOperation | None) -> NamedScore:
    """Returns how to read a model's outputs, if the user does not say it."""
    return "output" if are_probabilities(scores) or origin in ("sigmoid", "softmax") else "probability"


def _all_in_unit_range(values: Tensor) -> bool:
    return bool(((values >= 0) & (values <= 1)).all())
