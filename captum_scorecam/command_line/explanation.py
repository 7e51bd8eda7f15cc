"""The explanation of one image: maps of several methods for one or two classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias

from torch import Tensor, nn

from captum_scorecam.evaluation import ExplanationRequest, MethodOptions, MethodRun, run_method
from captum_scorecam.evaluation.method import ChosenMethod
from captum_scorecam.evaluation.method_choice import chosen_methods
from captum_scorecam.evaluation.methods import DEFAULT_METHODS
from captum_scorecam.evaluation.request import DEFAULT_OPTIONS
from captum_scorecam.models import Classifier, ExplainedLayer, class_name, find_class, seen_pixels
from captum_scorecam.scoring.class_scores import NamedScore

Role: TypeAlias = Literal["predicted", "chosen", "runner-up"]
PREDICTED: Final = "predicted"


class MapError(NamedTuple):
    """The error of a map of which some scores are predicted.

    Attributes:
        largest (float): The largest standard error as a share of the map's largest value; 0 if the map is exact.
        values (Tensor, optional): The standard error of each value, H×W; None if the map is exact.
    """

    largest: float
    values: Tensor | None


@dataclass(frozen=True)
class ClassExplanation:
    """The maps of one class.

    Attributes:
        index (int): The class index.
        name (str): The class name.
        score (float): The class's probability, or the model's output if the outputs are no probabilities.
        is_probability (bool): Whether `score` is a probability.
        role (str): Why the class is explained: ``predicted``, ``chosen`` or ``runner-up``.
        maps (dict of str to Tensor): The map of each method, H×W, at the input's size, on the CPU.
        errors (dict of str to MapError): How uncertain the maps of methods with predicted scores are. Default: none.
    """

    index: int
    name: str
    score: float
    is_probability: bool
    role: Role
    maps: dict[str, Tensor]
    errors: dict[str, MapError] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """The role and the score as text; only a probability is a percentage."""
        return f"{self.role}, {self.score:.1%}" if self.is_probability else f"{self.role}, {self.score:.4g}"


@dataclass(frozen=True)
class ImageExplanation:
    """The explained classes of one image. Each method explains all of them in one run.

    Attributes:
        image_name (str): The image's name.
        pixels (Tensor): The image as seen by the model, H×W×3 in [0, 1].
        classes (tuple of ClassExplanation): The target, then the other class if there is one.
        runs (dict of str to MethodRun): Statistics of each method's run, by name, in display order.
        score (str): The `score` of the maps, unless their method's options have one, as in `Prediction`.
    """

    image_name: str
    pixels: Tensor
    classes: tuple[ClassExplanation, ...]
    runs: dict[str, MethodRun]
    score: NamedScore


def explain_image(
    classifier: Classifier,
    layer: ExplainedLayer,
    inputs: Tensor,
    image_name: str,
    *,
    target: str = PREDICTED,
    compare: bool = True,
    methods: Mapping[str, ChosenMethod] | None = None,
    options: MethodOptions = DEFAULT_OPTIONS,
    twin: nn.Module | None = None,
) -> ImageExplanation:
    """Explains a classifier's decision on one image.

    Args:
        classifier (Classifier): The model and its class names.
        layer (ExplainedLayer): The layer to explain.
        inputs (Tensor): The preprocessed image, 1×C×H×W.
        image_name (str): The image's name.
        target (str): ``predicted``, or a class as accepted by `find_class`. Default: "predicted".
        compare (bool): Whether to also explain the most probable other class. Default: True.
        methods (mapping of str to ChosenMethod, optional): The methods by name. Default: None, grad_cam and score_cam.
        options (MethodOptions): Options of the methods. Default: those of `MethodOptions`.
        twin (nn.Module, optional): A faster twin of the model, for masked inputs. Default: None.

    Returns:
        ImageExplanation: The maps of one or two classes.

    Raises:
        ValueError: If the model does not have the target class, or the layer has no maps.
    """
    prediction = classifier.predict(inputs)
    scores = prediction.probabilities
    roles = _roles(prediction.scores, classifier.class_names, target, compare)
    unbounded = not prediction.has_probabilities
    layer = layer.for_inputs(classifier.model, inputs)
    request = ExplanationRequest(
        classifier.model, layer, inputs, list(roles), prediction.score, options, unbounded, twin
    )
    chosen = chosen_methods(DEFAULT_METHODS) if methods is None else methods
    results = {name: run_method(method, request) for name, method in chosen.items()}
    classes = tuple(
        ClassExplanation(
            index=index,
            name=class_name(index, classifier.class_names),
            score=float(scores[index]),
            is_probability=prediction.has_probabilities,
            role=role,
            maps={method: maps[position] for method, (maps, _) in results.items()},
            errors={
                method: _error(run, run.channels.errors[position], position)
                for method, (_, run) in results.items()
                if run.channels is not None and run.channels.errors
            },
        )
        for position, (index, role) in enumerate(roles.items())
    )
    runs = {method: run for method, (_, run) in results.items()}
    pixels = seen_pixels(inputs, classifier.preprocess)
    return ImageExplanation(image_name, pixels, classes, runs, prediction.score)


def check_target(classifier: Classifier, inputs: Tensor, target: str) -> None:
    """Checks that the model has a class to explain.

    Raises:
        ValueError: If it doesn't.
    """
    if target != PREDICTED:
        find_class(target, len(classifier.predict(inputs).scores), classifier.class_names)


def _error(run: MethodRun, largest: float, position: int) -> MapError:
    return MapError(largest, None if run.errors is None or largest == 0 else run.errors[position])


def _roles(scores: Tensor, class_names: Sequence[str] | None, target: str, compare: bool) -> dict[int, Role]:
    """Returns the classes to explain, with their roles; the outputs tell apart probabilities that round to the same."""
    ranking = [int(index) for index in scores.argsort(descending=True)]
    predicted, compare = ranking[0], compare and len(ranking) > 1
    chosen = predicted if target == PREDICTED else find_class(target, len(ranking), class_names)
    if chosen != predicted:
        return {chosen: "chosen", predicted: PREDICTED} if compare else {chosen: "chosen"}
    return {predicted: PREDICTED, ranking[1]: "runner-up"} if compare else {predicted: PREDICTED}
