"""The command ``evaluate``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from captum_scorecam._environment import local_rank
from captum_scorecam.command_line.dry_run import print_plan
from captum_scorecam.command_line.messages import plain_messages
from captum_scorecam.command_line.options import (
    DEFAULT_MODEL,
    OF_METHODS,
    OF_RUN,
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
    Plugins,
    ScoreName,
    Seed,
    WeightsName,
    in_range,
    load_on_device,
)
from captum_scorecam.command_line.plugins import import_plugins
from captum_scorecam.command_line.progress import shown_progress
from captum_scorecam.command_line.summary_table import print_summary
from captum_scorecam.datasets import DATA_FORMATS, DataFormat, open_data, read_label_table
from captum_scorecam.datasets.formats import lists_folder
from captum_scorecam.engines.by_name import check_engine
from captum_scorecam.evaluation import METRICS, MethodOptions, plan_evaluation, run_evaluation
from captum_scorecam.evaluation.method_choice import check_options_of_run, chosen_methods, warn_of_unused_options
from captum_scorecam.evaluation.methods import DEFAULT_METHODS
from captum_scorecam.evaluation.metric_choice import chosen_metrics
from captum_scorecam.evaluation.metrics.registry import DEFAULT_METRICS
from captum_scorecam.evaluation.plan import DEFAULT_GALLERY, Provenance
from captum_scorecam.evaluation.ranks import is_first_rank
from captum_scorecam.evaluation.records import Target
from captum_scorecam.evaluation.request import DEFAULT_OPTIONS
from captum_scorecam.evaluation.run import check_folder
from captum_scorecam.models import check_model_name

MOST_PICTURES = 10_000_000
_IF_STOPPED = "Finished images are kept; run the same command again to resume."
_IF_PLAN_STOPPED = "Nothing was written."


def evaluate(
    context: typer.Context,
    data: Annotated[
        Path, typer.Argument(help="A folder or file of labelled images.", metavar="DATA", show_default=False)
    ],
    output: Annotated[
        Path,
        typer.Option(
            help="The folder of the run. A run that it already contains is resumed.",
            metavar="FOLDER",
            show_default=False,
        ),
    ],
    data_format: Annotated[
        DataFormat, typer.Option(help=f"The format of DATA: {', '.join(DATA_FORMATS)}.", metavar="NAME")
    ] = "auto",
    classes: Annotated[
        Path | None,
        typer.Option(
            help="A CSV file with columns label and class_index, for labels that are not class names.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(help="Evaluate N random images. Default: all.", min=1, metavar="N", show_default=False),
    ] = None,
    target: Annotated[
        Target,
        typer.Option(help="The class to explain: the predicted one or the image's label, whose boxes metrics use."),
    ] = "predicted",
    method: MethodNames = list(DEFAULT_METHODS),  # noqa: B006 (Typer needs a list, and copies it)
    metric: Annotated[
        list[str],
        typer.Option(
            help=f"One of {', '.join(METRICS)}, or quantus:CLASS with options. Can be repeated. Use metrics of "
            "boxes, such as pointing games and iou, with --target label.",
            metavar="METRIC",
            rich_help_panel=OF_METHODS,
        ),
    ] = list(DEFAULT_METRICS),  # noqa: B006
    n_masks: NMasks = DEFAULT_OPTIONS.n_masks,
    mask_iterations: MaskIterations = DEFAULT_OPTIONS.mask_iterations,
    max_forwards: MaxForwards = None,
    error: MaxError = None,
    perturbations_per_eval: PerturbationsPerEval = None,
    plugin: Plugins = None,
    model: ModelName = DEFAULT_MODEL,
    weights: WeightsName = "DEFAULT",
    score: ScoreName = None,
    layer: LayerName = "auto",
    device: ChosenDevice = "auto",
    engine: ChosenEngine = "eager",
    seed: Seed = DEFAULT_OPTIONS.seed,
    gallery: Annotated[
        int,
        typer.Option(
            help="Save pictures of the first N images.",
            callback=in_range(0, MOST_PICTURES),
            metavar="N",
            rich_help_panel=OF_RUN,
        ),
    ] = DEFAULT_GALLERY,
    workers: Annotated[
        int,
        typer.Option(
            help="Processes that read images ahead.", callback=in_range(0, 256), metavar="N", rich_help_panel=OF_RUN
        ),
    ] = 0,
    threads: Annotated[
        int | None,
        typer.Option(
            help="Number of PyTorch CPU threads, which affects rounding. Default: PyTorch's, or a resumed run's.",
            callback=in_range(1, 1024),  # a million crashes the process
            metavar="N",
            show_default=False,
            rich_help_panel=OF_RUN,
        ),
    ] = None,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Retry what failed.", rich_help_panel=OF_RUN)
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print what would run, measured on one image, and stop.", rich_help_panel=OF_RUN
        ),
    ] = False,
) -> None:
    """Evaluate methods on a data set.

    Writes records, pictures and a summary to a folder. Run the same command
    again to resume an interrupted run.

    Exit status: 0 if all images were evaluated, 1 if some or the device
    failed, 2 for bad input or files that can't be read or written, 130 after
    Ctrl-C, 143 after SIGTERM.
    """
    with plain_messages(context, _IF_PLAN_STOPPED if dry_run else _IF_STOPPED):
        first_rank, gpu = is_first_rank(), local_rank()  # like the next lines, checked before the model is loaded
        check_folder(output)
        _check_outside(output, data, data_format)
        import_plugins(plugin or [])
        methods = chosen_methods(method)
        chosen_metrics(metric)
        options = MethodOptions(
            n_masks=n_masks,
            seed=seed,
            mask_iterations=mask_iterations,
            perturbations_per_eval=perturbations_per_eval,
            max_forwards=max_forwards,
            error=error,
        )
        check_options_of_run(methods, options)
        warn_of_unused_options(methods, options)
        check_model_name(model)
        check_engine(engine)
        labels = None if classes is None else read_label_table(classes)
        dataset = open_data(data, data_format)
        plan = plan_evaluation(
            load_on_device(model, weights, device, score=score, gpu=gpu, seed=seed),
            dataset,
            methods=method,
            metrics=metric,
            layer=layer,
            target=target,
            images=images,
            options=options,
            labels=labels,
            gallery=gallery,
            engine=engine,
            provenance=Provenance(
                data=str(data.resolve()),
                data_format=data_format,
                weights=weights,
                plugins=plugin or [],
                command=shlex.join(["captum-scorecam", *sys.argv[1:]]),
            ),
        )
        if dry_run:
            if first_rank:
                print_plan(plan, output, threads, retry_errors)
            return
        with shown_progress(first_rank) as on_image:
            summary = run_evaluation(
                plan, output, workers=workers, threads=threads, retry_errors=retry_errors, on_image=on_image
            )
        if summary is None:
            return
        print_summary(summary)
        typer.echo(f"Run: {output}")
    if summary.errors:
        raise typer.Exit(1)


def _check_outside(output: Path, data: Path, data_format: DataFormat) -> None:
    """Raises ValueError if the run's pictures would become images of the data set."""
    inside = output.resolve().is_relative_to(data.resolve())
    hidden = inside and any(part.startswith(".") for part in output.resolve().relative_to(data.resolve()).parts)
    if inside and not hidden and lists_folder(data, data_format):
        raise ValueError(
            f"Expected `output` to be outside of the folder of images, but {str(output)!r} is in {str(data)!r}: its "
            "pictures would be evaluated, too."
        )
