"""Chooses the number of masked inputs per forward pass, once for a whole run."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from captum_scorecam.evaluation.loading import Preprocessed, load_some
from captum_scorecam.evaluation.plan import Plan
from captum_scorecam.evaluation.settings import CONFIGURATION, read_settings
from captum_scorecam.scoring.fastest_rows import fastest_rows
from captum_scorecam.scoring.masked_forward import MaskedForward
from captum_scorecam.scoring.twin import through

UNTUNED_ROWS = {"cpu": 4, "cuda": 128}
_ROWS_OF_METHOD = 100  # per image, at least, if it or its metrics run in chunks


def rows_of_run(plan: Plan, folder: Path) -> int | None:
    """Returns the number given in the options, or that of the run in a folder; None if it is still to be tuned.

    Raises:
        ValueError: If the configuration of the run can't be read.
    """
    given = plan.options.perturbations_per_eval
    if given is not None or not (folder / CONFIGURATION).exists():
        return given
    return read_settings(folder).perturbations_per_eval


def tuned_rows(plan: Plan) -> int:
    """Returns the number of masked inputs per forward pass with the most rows per second.

    Every method and metric runs the same masked forward passes, so they share one number. Images of several sizes do,
    too: it is tuned on the largest of four.

    Args:
        plan (Plan): The evaluation.

    Returns:
        int: 4 on a CPU and 128 on a GPU if no method or metric runs many masks, or the model fails. Images on which it
        fails become records later.
    """
    untuned = UNTUNED_ROWS.get(plan.device.type, UNTUNED_ROWS["cuda"])
    in_chunks = [each.method.in_chunks for each in plan.methods.values()]
    if not any(in_chunks + [metric.in_chunks for metric in plan.chosen_metrics()]):
        return untuned
    try:
        forward = MaskedForward.from_call(plan.classifier.model, _largest_inputs(plan), [0], None, None, "output")
        if plan.twin is not None:
            forward = through(forward, plan.twin)
        return fastest_rows(forward, _ROWS_OF_METHOD * len(plan.indices) * len(plan.methods))
    except Exception:  # the user's model may raise anything
        return untuned


def _largest_inputs(plan: Plan) -> Tensor:
    images = (loaded.image for loaded in load_some(plan))
    inputs = [plan.classifier.batch(image.values) for image in images if isinstance(image, Preprocessed)]
    return max(inputs, key=Tensor.numel, default=plan.example)
