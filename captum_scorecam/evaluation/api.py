"""Evaluates attribution methods on a data set: the one call behind ``captum-scorecam evaluate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from captum_scorecam.datasets import ImageDataset
from captum_scorecam.evaluation.methods import DEFAULT_METHODS
from captum_scorecam.evaluation.metrics.registered import DEFAULT_MEASURES
from captum_scorecam.evaluation.plan import PREDICTED, Plan, plan_evaluation
from captum_scorecam.evaluation.records import read_records
from captum_scorecam.evaluation.request import DEFAULT_OPTIONS, MethodOptions
from captum_scorecam.evaluation.run import OnImage, running
from captum_scorecam.evaluation.settings import read_configuration
from captum_scorecam.evaluation.summary import Summary, summarize, write_summary
from captum_scorecam.models import Classifier


def evaluate(
    classifier: Classifier,
    data: ImageDataset,
    run_folder: Path | str,
    *,
    methods: Sequence[str] = DEFAULT_METHODS,
    measures: Sequence[str] = DEFAULT_MEASURES,
    layer: str = "auto",
    target: str = PREDICTED,
    images: int | None = None,
    options: MethodOptions = DEFAULT_OPTIONS,
    labels: Mapping[str, int] | None = None,
    gallery: int = 100,
    provenance: Mapping[str, Any] | None = None,
    workers: int = 0,
    threads: int | None = None,
    retry_errors: bool = False,
    on_image: OnImage | None = None,
) -> Summary | None:
    """Runs methods and measures on the images of a data set, or goes on with a run that was interrupted.

    Args:
        classifier (Classifier): The model, on the device where it is to run, in evaluation mode.
        data (ImageDataset): The images; `open_data`, or an object of your own.
        run_folder (Path or str): Where records, pictures and the summary go. A run that is there is resumed.
        methods (sequence of str): Names in `METHODS`. Default: grad_cam and score_cam.
        measures (sequence of str): Names in `MEASURES`. Default: average drop and increase, insertion, deletion.
        layer (str): The layer to explain, as `find_layer` takes it. Default: "auto".
        target (str): ``predicted``, or ``label`` for the class of the image's label. Default: "predicted".
        images (int, optional): How many images, drawn from ``options.seed``. Default: None, all.
        options (MethodOptions): Of the methods. Without `perturbations_per_eval`, it is 4 on a CPU and 128 on a GPU.
        labels (mapping of str to int, optional): The classes of labels that go by no name of the model. Default: None,
            what `label_table` makes of the data's classes.
        gallery (int): Of how many images pictures are kept. Default: 100.
        provenance (mapping, optional): What else has to be the same to resume the run, such as where data and weights
            come from; values that JSON can hold. Default: None.
        workers (int): Processes that read images ahead of time. Default: 0, this process reads them.
        threads (int, optional): PyTorch's threads on the CPU, on which roundings depend. Default: None, those of the
            run that is resumed, or PyTorch's number.
        retry_errors (bool): Run again what ended with an error before. Default: False.
        on_image (callable, optional): Called with the numbers of finished images and of all, of this rank and call.

    Returns:
        Summary: Of the whole run; None on all ranks but the first.

    Raises:
        ValueError: If something asked does not fit, or the folder holds another run, or is in use.
        OSError: If something can't be written. What is finished is kept.
    """
    plan = plan_evaluation(
        classifier,
        data,
        methods=methods,
        measures=measures,
        layer=layer,
        target=target,
        images=images,
        options=options,
        labels=labels,
        gallery=gallery,
        provenance=provenance,
    )
    return run_plan(
        plan, Path(run_folder), workers=workers, threads=threads, retry_errors=retry_errors, on_image=on_image
    )


def run_plan(
    plan: Plan,
    run: Path,
    *,
    workers: int = 0,
    threads: int | None = None,
    retry_errors: bool = False,
    on_image: OnImage | None = None,
) -> Summary | None:
    """Runs a plan as `evaluate` does, whose arguments these are, and writes the summary."""
    with running(plan, run, workers=workers, threads=threads, retry_errors=retry_errors, on_image=on_image) as ranks:
        if ranks.rank > 0:
            return None
        summary = summarize(read_records(run, curves=False), read_configuration(run)["asked"])
        write_summary(summary, run)
        return summary
