"""The commands of ``captum-scorecam``: demo and explain; evaluate and report have files of their own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from torch import Tensor

from captum_scorecam.command_line.demo import DEMO_IMAGE, DEMO_MODEL, demo_image
from captum_scorecam.command_line.evaluate import evaluate
from captum_scorecam.command_line.explanation import PREDICTED, display_name, explain_image
from captum_scorecam.command_line.explanation_table import print_explanations
from captum_scorecam.command_line.messages import plain_messages
from captum_scorecam.command_line.options import ChosenDevice, Device, Layer, Model, NMasks, Weights, torch_device
from captum_scorecam.command_line.panels import check_output, draw_explanations, write_png
from captum_scorecam.command_line.report import report
from captum_scorecam.datasets import read_image
from captum_scorecam.evaluation.methods import DEFAULT_METHODS, DEFAULT_OPTIONS, METHODS, MethodOptions, check_methods
from captum_scorecam.models import Classifier, ExplainedLayer, check_model_name, find_layer, load_classifier

MOST_IMAGES = 50  # in one picture

commands = typer.Typer(
    name="captum-scorecam",
    help="Score-CAM for image classifiers: which parts of an image made the score of a class?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Output = Annotated[Path, typer.Option(help="The picture to write, a .png file.")]


@commands.command()
def demo(output: Output = Path("scorecam.png")) -> None:
    """Explain a photograph of a cat with EfficientNet-Lite0 and its ImageNet weights; nothing is downloaded."""
    with plain_messages():
        check_output(output)
        classifier = load_classifier(DEMO_MODEL)
        classifier.model.to(torch_device(Device.auto))
        options = MethodOptions(show_progress=sys.stderr.isatty())
        _explain(classifier, [(DEMO_IMAGE, classifier.inputs(demo_image()))], output, options=options)


@commands.command()
def explain(
    images: Annotated[list[Path], typer.Argument(help="Image files.", metavar="IMAGE", show_default=False)],
    model: Model = DEMO_MODEL,
    weights: Weights = "DEFAULT",
    layer: Layer = "auto",
    target: Annotated[
        str,
        typer.Option(help="The class: its index, its name, a part of its name.", metavar="INDEX|NAME|predicted"),
    ] = PREDICTED,
    compare: Annotated[bool, typer.Option(help="Explain the most probable other class too.")] = True,
    method: Annotated[
        list[str],
        typer.Option(help="How to explain; give it again for more, drawn in that order.", metavar="|".join(METHODS)),
    ] = list(DEFAULT_METHODS),  # noqa: B006 (typer wants a list, and copies it)
    n_masks: NMasks = 2000,
    seed: Annotated[int, typer.Option(help="What the masks of rise and the jitter of mask are drawn from.", min=0)] = 0,
    output: Output = Path("scorecam.png"),
    perturbations_per_eval: Annotated[
        int | None,
        typer.Option(help="Masked images per forward; tuned unless given.", min=1, show_default=False),
    ] = None,
    device: ChosenDevice = Device.auto,
) -> None:
    """Explain images: each method's map of the target class and of the runner-up, side by side in one picture."""
    with plain_messages():
        methods = check_methods(method)
        check_output(output, images)
        _check_images(images)
        check_model_name(model)
        chosen_device = torch_device(device)
        classifier = load_classifier(model, weights)
        classifier.model.to(chosen_device)
        batches = [(display_name(path), classifier.inputs(read_image(path))) for path in images]
        options = MethodOptions(
            n_masks, seed, perturbations_per_eval=perturbations_per_eval, show_progress=sys.stderr.isatty()
        )
        _explain(classifier, batches, output, weights, layer, target, compare, methods, options)


commands.command()(evaluate)
commands.command()(report)


def _explain(
    classifier: Classifier,
    batches: Sequence[tuple[str, Tensor]],
    output: Path,
    weights: str = "DEFAULT",
    layer_name: str = "auto",
    target: str = PREDICTED,
    compare: bool = True,
    methods: Sequence[str] = DEFAULT_METHODS,
    options: MethodOptions = DEFAULT_OPTIONS,
) -> None:
    """Explains preprocessed images, prints the table and writes the picture."""
    layer_name = classifier.layer if layer_name == "auto" else layer_name
    layer = _layer_for(methods, classifier, batches[0][1], layer_name)
    explanations = [
        explain_image(classifier, layer, inputs, name, target=target, compare=compare, methods=methods, options=options)
        for name, inputs in batches
    ]
    heading = f"{classifier.name}, weights {Path(weights).name}, layer {layer.name}"
    print_explanations(explanations, heading)
    write_png(draw_explanations(explanations, heading), output)
    typer.echo(f"Picture: {output}")


def _layer_for(methods: Sequence[str], classifier: Classifier, inputs: Tensor, name: str) -> ExplainedLayer:
    """Finds the layer; where no method looks at one, the model need not have any with maps."""
    if any(METHODS[method].of_layer for method in methods):
        return find_layer(classifier.model, inputs, name)
    return ExplainedLayer("none", classifier.model)


def _check_images(paths: Sequence[Path]) -> None:
    """Checks, before any work, that all images can be read; read again later, they are never all in memory."""
    if len(paths) > MOST_IMAGES:
        raise ValueError(f"Expected at most {MOST_IMAGES} images for one picture, but got {len(paths)}.")
    for path in paths:
        read_image(path)
