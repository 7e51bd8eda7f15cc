"""The command ``demo``."""

from __future__ import annotations

import sys
from pathlib import Path

import typer
from PIL import Image

from captum_scorecam.command_line.explain import heading_of, show_explanations
from captum_scorecam.command_line.explanation import explain_image
from captum_scorecam.command_line.messages import plain_messages
from captum_scorecam.command_line.options import (
    DEFAULT_MODEL,
    ChosenEngine,
    MaxError,
    MaxForwards,
    PictureOutput,
    check_writable,
    load_on_device,
)
from captum_scorecam.engines.by_name import check_engine, twin_by_name
from captum_scorecam.evaluation import MethodOptions, layer_to_explain
from captum_scorecam.evaluation.methods import DEFAULT_METHODS


def demo(
    context: typer.Context,
    output: PictureOutput = Path("scorecam.png"),
    max_forwards: MaxForwards = None,
    error: MaxError = None,
    engine: ChosenEngine = "eager",
) -> None:
    """Explain a photograph of a cat.

    The model is EfficientNet-Lite0 with ImageNet weights. Nothing is downloaded.
    """
    with plain_messages(context):
        check_writable(output, ".png")
        check_engine(engine)
        image = demo_image()
        classifier = load_on_device(DEFAULT_MODEL)
        inputs = classifier.inputs(image)
        layer = layer_to_explain(DEFAULT_METHODS, classifier, inputs)
        options = MethodOptions(
            max_forwards=max_forwards,
            error=error,
            with_errors=True,
            show_progress=sys.stderr.isatty(),
        )
        twin = twin_by_name(engine, classifier.model, inputs)
        explanation = explain_image(classifier, layer, inputs, "chelsea", options=options, twin=twin)
        show_explanations([explanation], heading_of(classifier, "DEFAULT", layer, engine), output)


def demo_image() -> Image.Image:
    """Returns the photograph of a cat that ships with scikit-image, 451×300, RGB.

    Raises:
        ModuleNotFoundError: If scikit-image is not installed.
    """
    try:
        import skimage.data
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('The demo needs scikit-image: pip install "captum-scorecam[demo]".') from error
    return Image.fromarray(skimage.data.chelsea())
