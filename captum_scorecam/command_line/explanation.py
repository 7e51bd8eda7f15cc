"""One image explained: the maps of some methods for one class or two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from captum_scorecam.evaluation.methods import (
    DEFAULT_METHODS,
    DEFAULT_OPTIONS,
    MethodOptions,
    MethodRun,
    Question,
    run_method,
)
from captum_scorecam.models import Classifier, ExplainedLayer, class_name, find_class, seen_pixels

PREDICTED, CHOSEN, RUNNER_UP = "predicted", "chosen", "runner-up"


@dataclass(frozen=True)
class ClassExplanation:
    """The maps of one class.

    Attributes:
        index (int): The class.
        name (str): Its name.
        probability (float): Its probability.
        role (str): Why it is explained: ``predicted``, ``chosen`` or ``runner-up``.
        maps (dict of str to Tensor): Each method's map, H×W, of the input's size, on the CPU.
    """

    index: int
    name: str
    probability: float
    role: str
    maps: dict[str, Tensor]


@dataclass(frozen=True)
class ImageExplanation:
    """The explained classes of one image; each method explained all of them in one run.

    Attributes:
        image_name (str): What the image is called.
        pixels (Tensor): What the model saw of it, H×W×3 in [0, 1].
        classes (tuple of ClassExplanation): The target, then the other class if it was wanted.
        runs (dict of str to MethodRun): What each method ran, in the order in which they are shown.
    """

    image_name: str
    pixels: Tensor
    classes: tuple[ClassExplanation, ...]
    runs: dict[str, MethodRun]


def explain_image(
    classifier: Classifier,
    layer: ExplainedLayer,
    inputs: Tensor,
    image_name: str,
    *,
    target: str = PREDICTED,
    compare: bool = True,
    methods: Sequence[str] = DEFAULT_METHODS,
    options: MethodOptions = DEFAULT_OPTIONS,
) -> ImageExplanation:
    """Explains what a classifier sees in one image.

    Args:
        classifier (Classifier): The model and its class names.
        layer (ExplainedLayer): The layer to explain.
        inputs (Tensor): The preprocessed image, 1×C×H×W.
        image_name (str): What the image is called.
        target (str): ``predicted``, or a class as `find_class` takes it. Default: "predicted".
        compare (bool): Explain the most probable other class too. Default: True.
        methods (sequence of str): Names in `METHODS`, each once. Default: grad_cam and score_cam.
        options (MethodOptions): What the user chose for the methods. Default: the defaults of its fields.

    Returns:
        ImageExplanation: The maps of one class or two.

    Raises:
        ValueError: If the model has no such class, or the layer has no maps.
    """
    prediction = classifier.predict(inputs)
    probabilities = prediction.probabilities
    roles = _roles(probabilities, classifier.class_names, target, compare)
    question = Question(classifier.model, layer, inputs, list(roles), prediction.score, options)
    answers = {method: run_method(method, question) for method in methods}
    classes = tuple(
        ClassExplanation(
            index=index,
            name=class_name(index, classifier.class_names),
            probability=float(probabilities[index]),
            role=role,
            maps={method: maps[position] for method, (maps, _) in answers.items()},
        )
        for position, (index, role) in enumerate(roles.items())
    )
    runs = {method: run for method, (_, run) in answers.items()}
    return ImageExplanation(image_name, seen_pixels(inputs, classifier.preprocess), classes, runs)


def _roles(probabilities: Tensor, class_names: Sequence[str] | None, target: str, compare: bool) -> dict[int, str]:
    """Returns the classes to explain, and why."""
    ranking = [int(index) for index in probabilities.argsort(descending=True)]
    predicted = ranking[0]
    chosen = predicted if target == PREDICTED else find_class(target, len(ranking), class_names)
    if chosen != predicted:
        return {chosen: CHOSEN, predicted: PREDICTED} if compare else {chosen: CHOSEN}
    return {predicted: PREDICTED, ranking[1]: RUNNER_UP} if compare else {predicted: PREDICTED}


def display_name(path: Path) -> str:
    """Returns a file's name without the characters that no terminal or font can show."""
    return "".join(character if character.isprintable() else "?" for character in path.name)
