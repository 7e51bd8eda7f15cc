"""The command ``explain``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from captum_scorecam.command_line.explanation import PREDICTED, ImageExplanation, display_name, explain_image
from captum_scorecam.command_line.explanation_table import print_explanations
from captum_scorecam.command_line.messages import plain_messages
from captum_scorecam.command_line.options import (
    DEFAULT_MODEL,
    OF_METHODS,
    ChosenDevice,
    LayerName,
    ModelName,
    NMasks,
    PictureOutput,
    WeightsName,
    load_on_device,
)
from captum_scorecam.command_line.panels import check_output, draw_explanations, write_png
from captum_scorecam.datasets import read_image
from captum_scorecam.evaluation import METHODS, MethodOptions, layer_to_explain
from captum_scorecam.evaluation.methods import DEFAULT_METHODS, check_methods
from captum_scorecam.evaluation.request import DEFAULT_OPTIONS
from captum_scorecam.models import check_model_name

MOST_IMAGES = 50  # in one picture


def explain(
    context: typer.Context,
    images: Annotated[list[Path], typer.Argument(help="Image files.", metavar="IMAGE", show_default=False)],
    target: Annotated[
        str,
        typer.Option(
            help="The class to explain: its index, its name or part of its name, or predicted.", metavar="CLASS"
        ),
    ] = PREDICTED,
    compare: Annotated[bool, typer.Option(help="Also explain the most probable other class.")] = True,
    output: PictureOutput = Path("scorecam.png"),
    method: Annotated[
        list[str],
        typer.Option(
            help=f"One of {', '.join(METHODS)}. Repeat it for several, drawn from left to right.",
            metavar="NAME",
            rich_help_panel=OF_METHODS,
        ),
    ] = list(DEFAULT_METHODS),  # noqa: B006 (Typer needs a list, and copies it)
    n_masks: NMasks = DEFAULT_OPTIONS.n_masks,
    seed: Annotated[
        int,
        typer.Option(
            help="Random seed of rise, mask and random weights.", min=0, metavar="N", rich_help_panel=OF_METHODS
        ),
    ] = DEFAULT_OPTIONS.seed,
    perturbations_per_eval: Annotated[
        int | None,
        typer.Option(
            help="Masked images per forward pass. Default: tuned while running.",
            min=1,
            metavar="N",
            show_default=False,
            rich_help_panel=OF_METHODS,
        ),
    ] = None,
    model: ModelName = DEFAULT_MODEL,
    weights: WeightsName = "DEFAULT",
    layer: LayerName = "auto",
    device: ChosenDevice = "auto",
) -> None:
    """Show which parts of an image drive a class score.

    Draws each image and the map of each method side by side, one row for the
    explained class and one for the most probable other class, and prints a
    table of the classes, their probabilities and the cost of each map.
    """
    with plain_messages(context):
        methods = check_methods(method)
        check_output(output, images)
        _check_images(images)
        check_model_name(model)
        classifier = load_on_device(model, weights, device, seed=seed)
        inputs = [classifier.inputs(read_image(path)) for path in images]
        explained_layer = layer_to_explain(methods, classifier, inputs[0], layer)
        options = MethodOptions(
            n_masks=n_masks,
            seed=seed,
            perturbations_per_eval=perturbations_per_eval,
            show_progress=sys.stderr.isatty(),
        )
        explain_one = partial(
            explain_image, classifier, explained_layer, target=target, compare=compare, methods=methods, options=options
        )
        names = map(display_name, images)
        explanations = [explain_one(inputs_of_image, name) for inputs_of_image, name in zip(inputs, names, strict=True)]
        heading = f"{classifier.name}, weights {Path(weights).name}, layer {explained_layer.name}"
        show_explanations(explanations, heading, output)


def show_explanations(explanations: Sequence[ImageExplanation], heading: str, output: Path) -> None:
    """Prints the table of explanations and writes the picture.

    Args:
        explanations (sequence of ImageExplanation): One per image.
        heading (str): The line above the table and the picture.
        output (Path): Path of the picture.

    Raises:
        OSError: If the picture can't be written.
    """
    print_explanations(explanations, heading)
    write_png(draw_explanations(explanations, heading), output)
    typer.echo(f"Picture: {output}")


def _check_images(paths: Sequence[Path]) -> None:
    """Checks up front that all images can be read. They are read again later instead of being kept in memory."""
    if len(paths) > MOST_IMAGES:
        raise ValueError(f"Expected at most {MOST_IMAGES} images for one picture, but got {len(paths)}.")
    for path in paths:
        read_image(path)
