"""What ``evaluate --dry-run`` prints: what would run, and how many forwards."""

from __future__ import annotations

import sys
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from captum_scorecam.evaluation.plan import Plan
from captum_scorecam.evaluation.run import left_to_do
from captum_scorecam.evaluation.settings import CONFIGURATION

_WIDTH = 120  # where the output goes to a file


def print_plan(plan: Plan, run: Path) -> None:
    """Prints the data set, what is done already, and the most forwards of each method and measure.

    Args:
        plan (Plan): What would run.
        run (Path): The run's folder; it need not exist.
    """
    todo = left_to_do(plan, run)
    console = Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False)
    for line in _lines(plan, run, sum(map(len, todo.values()))):
        console.print(Text(line))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("Forwards of an image, at most")
    per_method = {method: plan.most_forwards(method) for method in plan.methods}
    for method in plan.methods:
        table.add_column(method, justify="right")
    for part in ("map", *plan.measures):
        table.add_row(part, *(str(per_method[method][part]) for method in plan.methods))
    table.add_section()
    left = {method: sum(method in missing for missing in todo.values()) for method in plan.methods}
    totals = {method: sum(per_method[method].values()) for method in plan.methods}
    table.add_row("all of an image", *(str(total) for total in totals.values()))
    table.add_row("images left", *(str(number) for number in left.values()))
    console.print(table)
    forwards = len(todo) + sum(left[method] * totals[method] for method in plan.methods)
    console.print(f"Forwards left, at most: {forwards:,} (a prediction of each image among them)")


def _lines(plan: Plan, run: Path, left: int) -> list[str]:
    known = [name for name, has in (("labels", plan.data.has_labels), ("boxes", plan.data.has_boxes)) if has]
    records = len(plan.indices) * len(plan.methods)
    done = f"{records - left} of {records} records" if (run / CONFIGURATION).exists() else "nothing, a new run"
    return [
        f"Data: {len(plan.indices)} of {len(plan.data)} images, {' and '.join(known) or 'no labels'}",
        f"Model: {plan.classifier.name}, {plan.n_classes} classes, layer {plan.layer.name}, on {plan.device}",
        f"Target: {plan.target}",
        f"Masked images in a forward: {plan.options.perturbations_per_eval}",
        f"Done in {run}: {done}",
    ]
