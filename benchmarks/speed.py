"""Compares Score-CAM implementations within one run: seconds, rows, memory and agreement, as ratios.

    python benchmarks/speed.py --model efficientnet_lite0 --output benchmarks/results/efficientnet_lite0

Every system has its own process, so that its peak memory is its own. They take turns on each image, so that a slow
phase of the machine affects all alike. A floor, the bare forwards of a system, runs in that system's process right
after it. Peers run at their default batch size and at their fastest one up to 32. Whatever is slower than a peer at its
fastest (the peers' defaults, the loop of the released code) runs in the first repetition only. Tuning and compilation
happen before anything is timed.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer
from images import preprocessed_images, resized
from recording import Row, machine, record
from systems import BATCHES, FLOORS, Result, benchmarked_classifier, floor, subject, systems
from torch import Tensor
from torch.nn import functional as F

VARIANTS = {
    "float32": "ours",
    "three rows": "ours, 3 rows",
    "five targets": "ours, five targets",
    "bfloat16": "ours, bfloat16",
    "compiled": "ours, compiled",
    "compiled bfloat16": "ours, compiled bfloat16",
}
PEER_DEFAULTS = {"grad-cam": 16, "torchcam": 32}
RELEASED = "released loop"

Array = npt.NDArray[Any]


@dataclass
class Reply:
    """What a worker measured: the peak memory since it started, in bytes; no map from a floor."""

    seconds: float
    peak: int
    map: Array = field(default_factory=lambda: np.empty(0))
    rows: int = 0
    rows_per_forward: int = 0


@dataclass
class Timings:
    """The runs of one system, over repetitions and images."""

    seconds: list[float] = field(default_factory=list)
    floor_seconds: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    agreement: list[tuple[float, float]] = field(default_factory=list)
    rows_per_forward: int = 0
    peak: int = 0

    def add(self, reply: Reply, reference: Array) -> None:
        self.seconds.append(reply.seconds)
        self.rows.append(reply.rows)
        self.agreement.append(agreement(reply.map, reference))
        self.rows_per_forward, self.peak = reply.rows_per_forward, reply.peak


def serve(pipe: Connection, model: str, device: str, name: str) -> None:
    """The process of one system: explains an image or runs the system's floor, on request, until None arrives."""
    built = subject(model, device)
    calls: dict[str, Callable[..., Result | None]] = {"explain": systems(built)[name]()}
    if name in FLOORS:
        calls["floor"] = floor(built, *FLOORS[name])
    while (request := pipe.recv()) is not None:
        call, x, *rest = request
        x = x.to(device)
        start = time.perf_counter()
        result = calls[call](x, *rest)
        if device != "cpu":
            torch.cuda.synchronize()
        reply = Reply(time.perf_counter() - start, peak_bytes(device))
        if result is not None:
            reply.map, reply.rows = result.map.cpu().numpy(), result.rows
            reply.rows_per_forward = result.rows_per_forward
        pipe.send(reply)


def peak_bytes(device: str) -> int:
    if device != "cpu":
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Worker:
    """The other end of a system's process."""

    def __init__(self, model: str, device: str, name: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = name
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, model, device, name), daemon=True)
        self._process.start()

    def explain(self, x: Tensor, target: int) -> Reply:
        return self._request("explain", x, target)

    def floor_seconds(self, x: Tensor, rows: int, rows_per_forward: int) -> float:
        return self._request("floor", x, rows, rows_per_forward).seconds

    def stop(self) -> None:
        self._pipe.send(None)
        self._process.join()

    def _request(self, *request: Any) -> Reply:
        self._pipe.send(request)
        reply: Reply = self._pipe.recv()
        return reply


def agreement(maps: Array, reference: Array) -> tuple[float, float]:
    """Correlation with the reference, and the largest difference relative to its maximum, both maps scaled to sum 1."""
    first, second = torch.from_numpy(maps).double(), torch.from_numpy(reference).double()
    if first.shape != second.shape:  # a peer returns its map at the input's size
        second = F.interpolate(second[None, None], first.shape, mode="bilinear")[0, 0]
    correlation = torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1].item()
    first, second = first / first.sum(), second / second.sum()
    return correlation, ((first - second).abs().max() / second.max()).item()


def fastest_batch(peer: str, model: str, device: str, x: Tensor, target: int) -> int:
    """The batch size at which a peer explains one image in the least time."""
    seconds: dict[int, float] = {}
    for batch in BATCHES:
        worker = Worker(model, device, f"{peer}, batch {batch}")
        seconds[batch] = worker.explain(x, target).seconds
        worker.stop()
        print(f"{peer}, batch {batch}: {seconds[batch]:.1f} s", flush=True)
    return min(seconds, key=seconds.__getitem__)


def references(model: str, device: str, images: list[Tensor], targets: list[int]) -> list[Array]:
    """The maps of the naive reference."""
    naive = Worker(model, device, "naive")
    maps = [naive.explain(x, target).map for x, target in zip(images, targets, strict=True)]
    naive.stop()
    return maps


def run_all(model: str, device: str, images: list[Tensor], repetitions: int, names: list[str]) -> Row:
    """Runs all systems on all images, in turns: their timings, the peers' fastest batches, the first calls' seconds."""
    with torch.no_grad():
        targets = [int(subject(model, device).model(x.to(device)).argmax()) for x in images]
    fastest = {peer: fastest_batch(peer, model, device, images[0], targets[0]) for peer in PEER_DEFAULTS}
    peers = [f"{peer}, batch {b}" for peer, d in PEER_DEFAULTS.items() for b in sorted({d, fastest[peer]})]
    once = {RELEASED, *peers} - {f"{peer}, batch {batch}" for peer, batch in fastest.items()}
    workers = {name: Worker(model, device, name) for name in [*names, *peers, RELEASED]}
    expected = references(model, device, images, targets)
    first_call: dict[str, float] = {}
    for name in names:  # tunes and compiles
        reply = workers[name].explain(images[0], targets[0])
        first_call[name] = reply.seconds
        if name in FLOORS:
            workers[name].floor_seconds(images[0], reply.rows_per_forward, reply.rows_per_forward)
    timings = {name: Timings() for name in workers}
    for repetition in range(repetitions):
        for i, (x, target, reference) in enumerate(zip(images, targets, expected, strict=True)):
            for name, worker in workers.items():
                if name in once and repetition > 0:
                    continue
                reply = worker.explain(x, target)
                timings[name].add(reply, reference)
                if name in FLOORS:
                    seconds = worker.floor_seconds(x, reply.rows, reply.rows_per_forward)
                    timings[name].floor_seconds.append(seconds)
            print(f"repetition {repetition + 1}, image {i + 1}", flush=True)
    for worker in workers.values():
        worker.stop()
    return {"systems": timings, "fastest batch": fastest, "first call": first_call}


def row_of(name: str, timings: Timings, ours: Timings) -> Row:
    """The table's row of a system: medians over all runs, and medians of the ratios within each run."""
    ratios = [seconds / base for seconds, base in zip(timings.seconds, ours.seconds, strict=False)]
    floor_ratios = [s / f for s, f in zip(timings.seconds, timings.floor_seconds, strict=False)]
    return {
        "system": name,
        "seconds per image": statistics.median(timings.seconds),
        "rows": statistics.mean(timings.rows),
        "rows per forward": timings.rows_per_forward,
        "time / ours": statistics.median(ratios),
        "time / floor": statistics.median(floor_ratios) if floor_ratios else None,
        "peak MiB": timings.peak / 2**20,
        "correlation": min(correlation for correlation, _ in timings.agreement),
        "max difference": max(difference for _, difference in timings.agreement),
    }


def main(
    model: str = "efficientnet_lite0",
    images: Annotated[Path | None, typer.Option(help="A folder of images. Default: scikit-image's.")] = None,
    n_images: Annotated[int, typer.Option(min=1, help="The number of images.")] = 5,
    pixels: Annotated[int, typer.Option(help="Height and width of the images.")] = 224,
    repetitions: Annotated[int, typer.Option(min=1, help="Runs of each system on each image.")] = 3,
    device: str = "cpu",
    variant: Annotated[list[str], typer.Option(help="Variants of ours.", metavar="|".join(VARIANTS))] = list(VARIANTS),  # noqa: B006
    output: Annotated[Path, typer.Option(help="Where to write, without extension.")] = Path("benchmarks/results/speed"),
) -> None:
    """Compares Score-CAM implementations."""
    loaded = preprocessed_images(benchmarked_classifier(model), images, n_images)
    inputs = [resized(x, pixels) for x in loaded]
    found = run_all(model, device, inputs, repetitions, [VARIANTS[name] for name in variant])
    timings: dict[str, Timings] = found["systems"]
    rows = [row_of(name, each, timings["ours"]) for name, each in timings.items()]
    settings = {"model": model, "images": n_images, "pixels": pixels, "repetitions": repetitions, **machine(device)}
    details = {**found, "systems": {name: asdict(each) for name, each in timings.items()}}
    record(output, settings, rows, details)


if __name__ == "__main__":
    typer.run(main)
