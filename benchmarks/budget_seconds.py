"""Measures the seconds to a map that correlates with the exact one by at least 0.99 in the worst of some images.

    python benchmarks/budget_seconds.py FOLDER --output benchmarks/results/budget_seconds

The number of forwards is the smallest of `FORWARDS` that reaches it. The other libraries compute their exact maps at
their fastest batch size. Every system has its own process; they take turns on each of the images that are timed.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from images import preprocessed_images
from recording import Row, machine, record
from speed import BATCHES, PEERS, Benchmark, System, agreement
from systems import Ours, benchmarked_classifier, subject

FORWARDS = (32, 48, 64, 72, 80, 96, 128, 160, 200, 250, 300)
CONFIGURATIONS = {"default": Ours(memory_kept=False), "memory kept": Ours(), "ONNX Runtime": Ours("onnxruntime")}


def forwards_needed(benchmark: Benchmark, correlation: float) -> tuple[int, Row]:
    """The least number of forwards whose maps reach a correlation in every image, and the worst of each number."""
    worker = benchmark.worker(Ours())
    exact = [worker.call(x, t).map for x, t in zip(benchmark.images, benchmark.targets, strict=True)]
    worker.stop()
    worst: Row = {}
    for n in FORWARDS:
        worker = benchmark.worker(Ours(max_forwards=n))
        found = [worker.call(x, t).map for x, t in zip(benchmark.images, benchmark.targets, strict=True)]
        worker.stop()
        worst[f"{n} forwards"] = min(agreement(maps, m)[0] for maps, m in zip(found, exact, strict=True))
        print(f"{n} forwards: worst correlation {worst[f'{n} forwards']:.4f}", flush=True)
        if worst[f"{n} forwards"] >= correlation:
            return n, worst
    raise ValueError(f"No number of forwards up to {FORWARDS[-1]} reaches a correlation of {correlation}.")


def main(
    folder: Annotated[Path, typer.Argument(help="Images.")],
    model: str = "efficientnet_lite0",
    n_images: Annotated[int, typer.Option(min=1, help="Images that must reach the correlation.")] = 20,
    n_timed: Annotated[int, typer.Option(min=1, help="How many of them are timed.")] = 5,
    correlation: float = 0.99,
    batch: Annotated[list[int], typer.Option(help="A batch size of peers to try. Default: several.")] = [],  # noqa: B006
    output: Annotated[Path, typer.Option(help="Where to write, without extension.")] = Path(
        "benchmarks/results/budget_seconds"
    ),
) -> None:
    """Measures the seconds to a map of a given correlation, against the exact maps of other libraries."""
    images = preprocessed_images(benchmarked_classifier(model), folder, n_images)
    build = partial(subject, model, "cpu", images[0].shape[-1])
    with torch.no_grad():
        built = build().model
        targets = [int(built(x).argmax()) for x in images]
    benchmark = Benchmark(build, "cpu", images, targets, tuple(batch) or BATCHES["cpu"])
    n, worst = forwards_needed(benchmark, correlation)
    systems: dict[str, System] = {
        f"ours, {name}, {n} forwards": replace(each, max_forwards=n) for name, each in CONFIGURATIONS.items()
    }
    systems |= {name: peer for name, peer in benchmark.peers(PEERS).items() if "float32" in name}
    timed = replace(benchmark, images=images[:n_timed], targets=targets[:n_timed])
    (timings,) = timed.run(systems, set(), repetitions=1, n_references=0)
    base = timings[next(iter(timings))]
    rows = [
        {
            "system": name,
            "seconds per image": statistics.median(each.seconds),
            "rows": statistics.mean(each.rows),
            "time / first": statistics.median(a / b for a, b in zip(each.seconds, base.seconds, strict=True)),
            "peak MiB": each.peak / 2**20,
        }
        for name, each in timings.items()
    ]
    record(output, {"model": model, "images": n_images, "timed": n_timed, **machine("cpu"), **worst}, rows)


if __name__ == "__main__":
    typer.run(main)
