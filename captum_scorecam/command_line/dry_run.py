"""The output of ``evaluate --dry-run``: the plan and the number of forward passes."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text

from captum_scorecam.command_line.tables import plain_table, stdout_console
from captum_scorecam.evaluation import Plan, measure_forwards
from captum_scorecam.evaluation.planned_records import left_to_do
from captum_scorecam.evaluation.presentation import method_title
from captum_scorecam.evaluation.registry import MAP
from captum_scorecam.evaluation.rows_per_forward import rows_of_run
from captum_scorecam.evaluation.run import check_resumable

_WIDTH = 120  # if the output is not a terminal


def print_plan(plan: Plan, folder: Path, threads: int | None = None, retry_errors: bool = False) -> None:
    """Prints the data set, the model, the progress so far, and the forward passes of each method and metric.

    Args:
        plan (Plan): The evaluation.
        folder (Path): The run's folder, which need not exist.
        threads (int, optional): PyTorch's number of CPU threads. Default: None, as for `run_evaluation`.
        retry_errors (bool): Whether what failed before counts as left to do. Default: False.

    Raises:
        ValueError: If the folder contains a run with different settings.
    """
    check_resumable(plan, folder, threads)
    todo = left_to_do(plan, folder, retry_errors=retry_errors)
    console = stdout_console(_WIDTH)
    for line in _lines(plan, folder, sum(map(len, todo.values()))):
        console.print(Text(line))
    forwards = measure_forwards(plan)
    per_image = {method: sum(parts.values()) for method, parts in forwards.items()}
    left = {method: sum(method in methods for methods in todo.values()) for method in plan.methods}
    table = plain_table()
    table.add_column("Forwards per image, measured on the first one")
    for method in plan.methods:
        table.add_column(method_title(method), justify="right")
    for part in (MAP, *plan.metrics):
        table.add_row(part, *(str(forwards[method][part]) for method in plan.methods))
    table.add_section()
    table.add_row("total", *(str(per_image[method]) for method in plan.methods))
    table.add_row("images left", *(str(left[method]) for method in plan.methods))
    console.print(table)
    total = len(todo) + sum(left[method] * per_image[method] for method in plan.methods)
    console.print(f"Forwards left: about {total:,}, including the prediction of each image")


def _lines(plan: Plan, folder: Path, left: int) -> list[str]:
    known = [name for name, has in (("labels", plan.dataset.has_labels), ("boxes", plan.dataset.has_boxes)) if has]
    records = len(plan.indices) * len(plan.methods)
    return [
        f"Data: {len(plan.indices)} of {len(plan.dataset)} images, {' and '.join(known) or 'no labels'}",
        f"Model: {plan.classifier.name}, {plan.n_classes} classes, layer {plan.layer.name}, on {plan.device}",
        f"Target: {plan.target}",
        f"Masked images per forward: {rows_of_run(plan, folder) or 'tuned when the run starts'}",
        f"Done in {folder}: {records - left} of {records} records",
    ]
