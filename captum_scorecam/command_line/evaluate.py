"""The command ``evaluate``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import torch
import typer

from captum_scorecam.command_line.demo import DEMO_MODEL
from captum_scorecam.command_line.dry_run import print_plan
from captum_scorecam.command_line.messages import plain_messages
from captum_scorecam.command_line.options import ChosenDevice, Device, Layer, Model, NMasks, Weights, torch_device
from captum_scorecam.command_line.plugins import import_plugins
from captum_scorecam.command_line.progress import shown_progress
from captum_scorecam.command_line.summary_table import print_summary
from captum_scorecam.datasets import DATA_FORMATS, open_data, read_label_table
from captum_scorecam.evaluation.api import run_plan
from captum_scorecam.evaluation.methods import DEFAULT_METHODS, METHODS, MethodOptions, check_methods
from captum_scorecam.evaluation.metrics.registered import DEFAULT_MEASURES, MEASURES, check_measures
from captum_scorecam.evaluation.plan import PREDICTED, plan_evaluation
from captum_scorecam.evaluation.ranks import local_rank
from captum_scorecam.models import Classifier, check_model_name, load_classifier

_INTERRUPTED = "Interrupted. What is finished is kept; the same command goes on."


def evaluate(
    data: Annotated[Path, typer.Argument(help="A folder or file of labelled images.", show_default=False)],
    output: Annotated[
        Path, typer.Option(help="The run's folder; the run that it holds is resumed.", show_default=False)
    ],
    data_format: Annotated[str, typer.Option(help="What DATA is.", metavar="|".join(DATA_FORMATS))] = "auto",
    classes: Annotated[
        Path | None,
        typer.Option(help="A CSV file, label,class_index, for labels that are no class names.", show_default=False),
    ] = None,
    images: Annotated[
        int | None, typer.Option(help="How many images, drawn by --seed; all unless given.", min=1, show_default=False)
    ] = None,
    model: Model = DEMO_MODEL,
    weights: Weights = "DEFAULT",
    layer: Layer = "auto",
    target: Annotated[
        str, typer.Option(help="The class that is explained in each image.", metavar="predicted|label")
    ] = PREDICTED,
    method: Annotated[
        list[str], typer.Option(help="How to explain; give it again for more.", metavar="|".join(METHODS))
    ] = list(DEFAULT_METHODS),  # noqa: B006 (typer wants a list, and copies it)
    metric: Annotated[
        list[str],
        typer.Option(
            help="What to measure; give it again for more. Pointing games want --target label.",
            metavar="|".join(MEASURES),
        ),
    ] = list(DEFAULT_MEASURES),  # noqa: B006
    plugin: Annotated[
        list[str] | None,
        typer.Option(help="Your module that registers methods or metrics.", metavar="PACKAGE.MODULE"),
    ] = None,
    n_masks: NMasks = 2000,
    mask_iterations: Annotated[int, typer.Option(help="Steps of mask.", min=1)] = 300,
    seed: Annotated[int, typer.Option(help="What images, mosaics, masks and noise are drawn from.", min=0)] = 0,
    perturbations_per_eval: Annotated[
        int | None,
        typer.Option(help="Masked images per forward; 4 on CPU, 128 on GPU unless given.", min=1, show_default=False),
    ] = None,
    gallery: Annotated[int, typer.Option(help="Of how many images pictures are kept.", min=0)] = 100,
    workers: Annotated[int, typer.Option(help="Processes that read images ahead of time.", min=0)] = 0,
    threads: Annotated[
        int | None,
        typer.Option(help="PyTorch's threads on the CPU; roundings depend on them.", min=1, show_default=False),
    ] = None,
    device: ChosenDevice = Device.auto,
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help="Run again what ended with an error.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would run, and run nothing.")] = False,
) -> None:
    """Evaluate methods on a data set: records, pictures and a summary, in a folder; interrupted, it can be resumed.

    The exit status is 1 if an image could not be read or evaluated (the others are done), 2 for bad input or an output
    that can't be written, 130 after Ctrl-C.
    """
    with plain_messages(_INTERRUPTED):
        import_plugins(plugin or [])
        methods, measures = check_methods(method), check_measures(metric)
        check_model_name(model)
        chosen_device = torch_device(device, local_rank())
        opened = open_data(data, data_format)
        plan = plan_evaluation(
            _classifier(model, weights, chosen_device, seed),
            opened,
            methods=methods,
            measures=measures,
            layer=layer,
            target=target,
            images=images,
            options=MethodOptions(n_masks, seed, mask_iterations, perturbations_per_eval),
            labels=None if classes is None else read_label_table(classes),
            gallery=gallery,
            provenance={"data": str(data.resolve()), "data_format": data_format, "weights": weights},
        )
        if dry_run:
            print_plan(plan, output)
            return
        with shown_progress(_is_first_rank()) as on_image:
            summary = run_plan(
                plan, output, workers=workers, threads=threads, retry_errors=retry_errors, on_image=on_image
            )
        if summary is None:
            return
        print_summary(summary)
        typer.echo(f"Run: {output}")
    if summary.errors:
        raise typer.Exit(1)


def _classifier(name: str, weights: str, device: torch.device, seed: int) -> Classifier:
    """Loads a classifier; random weights are drawn from the seed, so that every rank and a resumed run has the same."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        classifier = load_classifier(name, weights)
    classifier.model.to(device)
    return classifier


def _is_first_rank() -> bool:
    return os.environ.get("RANK", "0") == "0"
