"""Measures rows per second of bare forwards, by engine and rows per forward.

    python benchmarks/bare_forwards.py --model efficientnet_lite0 --output benchmarks/results/bare_forwards_lite0

Every engine has its own process for each number of rows and each repetition. They take turns, so that a slow phase of
the machine affects all alike; rates are medians over the repetitions. Compilation and export are not timed.
"""

from __future__ import annotations

import statistics
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from images import preprocessed_images, resized
from recording import Row, machine, record
from speed import OURS, Worker
from systems import benchmarked_classifier, subject

SAME_FORWARDS = ("3 rows", "five targets")  # as "memory kept"


def main(
    model: str = "efficientnet_lite0",
    pixels: Annotated[int, typer.Option(help="Height and width of the image.")] = 224,
    rows: Annotated[list[int], typer.Option(min=1, help="Rows per forward.")] = [1, 2, 4, 8, 16, 32],  # noqa: B006
    total: Annotated[int, typer.Option(min=1, help="Rows per measurement.")] = 192,
    repetitions: Annotated[int, typer.Option(min=1, help="Processes of each engine and number of rows.")] = 3,
    leave_out: Annotated[list[str], typer.Option(help="Part of the names of engines to leave out.")] = [],  # noqa: B006
    device: str = "cpu",
    output: Annotated[Path, typer.Option(help="Where to write, without extension.")] = Path(
        "benchmarks/results/bare_forwards"
    ),
) -> None:
    """Measures bare forwards."""
    left_out = [*SAME_FORWARDS, *leave_out]
    engines = {name: each for name, each in OURS[device].items() if not any(part in name for part in left_out)}
    x = resized(preprocessed_images(benchmarked_classifier(model), None, 1)[0], pixels)
    rates: dict[str, dict[int, list[float]]] = {name: {n: [] for n in rows} for name in engines}
    for repetition in range(repetitions):
        for n in rows:
            for name, engine in engines.items():
                worker = Worker(partial(subject, model, device, pixels), device, engine)
                worker.call(x, 4 * n, n)
                rates[name][n].append(total / worker.call(x, total, n).seconds)
                worker.stop()
                print(f"repetition {repetition + 1}, {n} rows, {name}: {rates[name][n][-1]:.1f} per second", flush=True)
        done = {name: {f"{n} rows": statistics.median(of) for n, of in each.items()} for name, each in rates.items()}
        table: list[Row] = [{"rows per second": name, **each} for name, each in done.items()]
        settings = {"model": model, "pixels": pixels, "repetitions": repetition + 1, **machine(device)}
        record(output, settings, table, {"rates": rates})


if __name__ == "__main__":
    typer.run(main)
