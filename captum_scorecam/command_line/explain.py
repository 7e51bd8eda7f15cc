"""The command ``explain``."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from captum_scorecam._messages import warn_caller
from captum_scorecam.command_line.explanation import PREDICTED, ImageExplanation, check_target, explain_image
from captum_scorecam.command_line.explanation_table import print_explanations
from captum_scorecam.command_line.messages import plain_messages
from captum_scorecam.command_line.options import (
    DEFAULT_MODEL,
    ChosenDevice,
    ChosenEngine,
    LayerName,
    MaskIterations,
    MaxError,
    MaxForwards,
    MethodNames,
    ModelName,
    NMasks,
    PerturbationsPerEval,
    PictureOutput,
    ScoreName,
    Seed,
    WeightsName,
    check_writable,
    load_on_device,
)
from captum_scorecam.command_line.panels import draw_explanations, write_png
from captum_scorecam.command_line.saved_maps import Explained, check_maps_folder, write_maps
from captum_scorecam.command_line.tables import printable
from captum_scorecam.datasets import read_image
from captum_scorecam.engines.by_name import EngineName, check_engine, twin_by_name
from captum_scorecam.evaluation import MethodOptions, layer_to_explain
from captum_scorecam.evaluation.captum_methods import CaptumMethod
from captum_scorecam.evaluation.method_choice import (
    check_methods_run,
    check_options_of_run,
    chosen_methods,
    warn_of_unused_options,
)
from captum_scorecam.evaluation.methods import DEFAULT_METHODS
from captum_scorecam.evaluation.request import DEFAULT_OPTIONS
from captum_scorecam.evaluation.settings import digest_of_weights
from captum_scorecam.models import Classifier, ExplainedLayer, check_model_name

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
    save_maps: Annotated[
        Path | None,
        typer.Option(
            "--save-maps",
            help="A folder for the maps as arrays: a .npy file each, and manifest.json. Default: none.",
            metavar="FOLDER",
            show_default=False,
        ),
    ] = None,
    method: MethodNames = list(DEFAULT_METHODS),  # noqa: B006 (Typer needs a list, and copies it)
    n_masks: NMasks = DEFAULT_OPTIONS.n_masks,
    mask_iterations: MaskIterations = DEFAULT_OPTIONS.mask_iterations,
    max_forwards: MaxForwards = None,
    error: MaxError = None,
    perturbations_per_eval: PerturbationsPerEval = None,
    seed: Seed = DEFAULT_OPTIONS.seed,
    model: ModelName = DEFAULT_MODEL,
    weights: WeightsName = "DEFAULT",
    score: ScoreName = None,
    layer: LayerName = "auto",
    device: ChosenDevice = "auto",
    engine: ChosenEngine = "eager",
) -> None:
    """Show which parts of an image drive a class score.

    Draws each image and the map of each method side by side, one row for the
    explained class and one for the most probable other class, and prints a
    table of the classes, their scores and the cost of each map. With
    --max-forwards or --error, white lines on score_cam's map show how well its
    upper half is known.
    """
    with plain_messages(context):
        methods = chosen_methods(method)
        options = MethodOptions(
            n_masks=n_masks,
            seed=seed,
            mask_iterations=mask_iterations,
            perturbations_per_eval=perturbations_per_eval,
            max_forwards=max_forwards,
            error=error,
            with_errors=True,
            show_progress=sys.stderr.isatty(),
        )
        check_options_of_run(methods, options)
        warn_of_unused_options(methods, options)
        masks = any(each.method.in_chunks for each in methods.values())
        takes_rows = masks or any(isinstance(each.method.explain, CaptumMethod) for each in methods.values())
        if engine != "eager" and not masks:
            warn_caller("`engine` has no effect: none of `methods` runs masked inputs.")
        if perturbations_per_eval is not None and not takes_rows:
            warn_caller("`perturbations_per_eval` has no effect: none of `methods` runs masked inputs.")
        check_writable(output, ".png")
        if save_maps is not None:
            check_maps_folder(save_maps)
        _check_images(images, output)
        check_model_name(model)
        check_engine(engine)
        classifier = load_on_device(model, weights, device, score=score, seed=seed)
        inputs = [classifier.inputs(read_image(path)) for path in images]
        explained_layer = layer_to_explain(methods, classifier, inputs[0], layer)
        check_methods_run(methods, classifier.model, explained_layer, inputs[0])
        check_target(classifier, inputs[0], target)
        explain_one = partial(
            explain_image,
            classifier,
            explained_layer,
            target=target,
            compare=compare,
            methods=methods,
            options=options,
            twin=twin_by_name(engine, classifier.model, inputs[0]),
        )
        names = (printable(image.name) for image in images)
        explanations = [explain_one(inputs_of_image, name) for inputs_of_image, name in zip(inputs, names, strict=True)]
        if save_maps is not None:
            digest = digest_of_weights(classifier.model)
            explained = Explained(classifier.name, weights, digest, explained_layer.name, methods, options, engine)
            write_maps(save_maps, images, explanations, explained)
        show_explanations(explanations, heading_of(classifier, weights, explained_layer, engine), output)
        if save_maps is not None:
            typer.echo(f"Maps: {save_maps}")


def heading_of(classifier: Classifier, weights: str, layer: ExplainedLayer, engine: EngineName) -> str:
    """Returns the line above a table and a picture: what was explained, and the engine if it is not PyTorch's own."""
    parts = [classifier.name, f"weights {Path(weights).name}", f"layer {layer.name}"]
    return ", ".join(parts if engine == "eager" else [*parts, f"engine {engine}"])


def show_explanations(explanations: Sequence[ImageExplanation], heading: str, output: Path) -> None:
    """Writes the picture, then prints the table of explanations.

    Args:
        explanations (sequence of ImageExplanation): One per image.
        heading (str): The line above the table and the picture.
        output (Path): Path of the picture.

    Raises:
        OSError: If the picture can't be written.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of names of images and classes; the table has them
        write_png(draw_explanations(explanations, heading), output)
    print_explanations(explanations, heading)
    typer.echo(f"Picture: {output}")


def _check_images(paths: Sequence[Path], output: Path) -> None:
    """Checks up front that all images can be read. They are read again later instead of being kept in memory."""
    if output.resolve() in [path.resolve() for path in paths]:
        raise ValueError(f"Expected `output` to be another file than the images, but got {str(output)!r}.")
    if len(paths) > MOST_IMAGES:
        raise ValueError(f"Expected at most {MOST_IMAGES} images for one picture, but got {len(paths)}.")
    for path in paths:
        if path.is_dir():
            raise ValueError(f"Expected `images` to be image files, but {str(path)!r} is a folder: name its files.")
        read_image(path)
