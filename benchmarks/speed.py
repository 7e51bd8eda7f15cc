"""Compares Score-CAM implementations within one run: seconds, rows, memory and agreement, as ratios.

    python benchmarks/speed.py --model efficientnet_lite0 --output benchmarks/results/efficientnet_lite0

Every system has its own process, so that its peak memory is its own. They take turns on each image, so that a slow
phase of the machine affects all alike. A floor, the bare forwards of a system, runs in that system's process right
after it. Peers run at their default batch size and at their fastest one, eager and compiled; this is chosen by one map
at each size, in a new process. Their defaults and the loop of the released code run in the first repetition only.
Export, the first compilation and most of the tuning happen before anything is timed; a compiled model may still
compile for another size within a timed call, which the medians hide. After the single call with which `--quick` warms
up, tuning goes on. The peak is that of a matrix product, measured in a process of its own before all else. Results are
written after each repetition.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer
from images import preprocessed_images, resized
from recording import Row, machine, peak_resident_bytes, record
from systems import (
    Explain,
    Floor,
    Ours,
    Peer,
    Precision,
    Result,
    Subject,
    benchmarked_classifier,
    computing_in,
    naive,
    released_loop,
    subject,
)
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

OURS = {
    "cpu": {
        "default": Ours(memory_kept=False),
        "memory kept": Ours(),
        "3 rows": Ours(rows=3),
        "five targets": Ours(n_targets=5),
        "compiled": Ours("compile"),
        "ONNX Runtime": Ours("onnxruntime"),
        "OpenVINO": Ours("openvino"),
        "bfloat16": Ours(precision="bfloat16"),
        "compiled, bfloat16": Ours("compile", "bfloat16"),
    },
    "cuda": {
        "float32": Ours(),
        "TF32": Ours(precision="tf32"),
        "bfloat16": Ours(precision="bfloat16"),
        "float16": Ours(precision="float16"),
        "compiled, bfloat16": Ours("compile", "bfloat16", rows=256),
        "compiled, float16": Ours("compile", "float16", rows=256),
        "reduce-overhead, float16": Ours("reduce-overhead", "float16", rows=256),
    },
}
BASE = {"cpu": "default", "cuda": "TF32"}
PEERS = {"grad-cam": 16, "torchcam": 32}  # and their batch sizes by default
BATCHES = {"cpu": (2, 4, 8, 16, 32), "cuda": (64, 128, 256, 512)}
PEER_PRECISIONS: dict[str, tuple[Precision, ...]] = {"cpu": ("float32",), "cuda": ("tf32", "float16")}
MATRIX = {"cpu": 3072, "cuda": 8192}

Array = npt.NDArray[Any]
System = Ours | Peer | str


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
    first_call: float = 0

    def add(self, reply: Reply, reference: Array) -> None:
        self.seconds.append(reply.seconds)
        self.rows.append(reply.rows)
        self.rows_per_forward, self.peak = reply.rows_per_forward, reply.peak
        self.agreement.append(agreement(reply.map, reference))


def serve(pipe: Connection, build: Callable[[], Subject], device: str, system: System) -> None:
    """The process of a system: explains an image, or runs its floor, until None arrives."""
    explain, floor = calls_of(system, build())
    while (request := pipe.recv()) is not None:
        arguments = [value.to(device) if isinstance(value, Tensor) else value for value in request]
        call: Callable[..., Result | None] = explain if len(arguments) == 2 else floor
        start = time.perf_counter()
        try:
            result = call(*arguments)
            synchronize(device)
        except Exception as error:
            pipe.send(error)
            continue
        reply = Reply(time.perf_counter() - start, peak_bytes(device))
        if result is not None:
            reply.map, reply.rows = result.map.cpu().numpy(), result.rows
            reply.rows_per_forward = result.rows_per_forward
        pipe.send(reply)


def calls_of(system: System, built: Subject) -> tuple[Explain, Floor]:
    """What explains an image, and the floor, which does nothing for systems other than ours."""
    if isinstance(system, Ours):
        return system.calls(built)
    if isinstance(system, Peer):
        return system.explainer(built), lambda *_: None
    return {"naive": naive, "released loop": released_loop}[system](built), lambda *_: None


def synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def peak_bytes(device: str) -> int:
    return torch.cuda.max_memory_allocated() if device != "cpu" else peak_resident_bytes()


class Worker:
    """The other end of a system's process."""

    def __init__(self, build: Callable[[], Subject], device: str, system: System) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, build, device, system), daemon=True)
        self._process.start()

    def ask(self, *request: Any) -> None:
        """Requests an image to be explained, given with a target, or a floor: an image, rows and rows per forward."""
        self._pipe.send(request)

    def answer(self) -> Reply:
        reply: Reply | Exception = self._pipe.recv()
        if isinstance(reply, Exception):
            raise reply
        return reply

    def call(self, *request: Any) -> Reply:
        """Asks and waits for the answer."""
        self.ask(*request)
        return self.answer()

    def stop(self) -> None:
        self._pipe.send(None)
        self._process.join()


def agreement(maps: Array, reference: Array) -> tuple[float, float]:
    """Correlation with the reference, and the largest difference relative to its maximum, both maps scaled to sum 1."""
    first, second = torch.from_numpy(maps).double(), torch.from_numpy(reference).double()
    if first.shape != second.shape:  # a peer returns its map at the input's size
        second = F.interpolate(second[None, None], first.shape, mode="bilinear")[0, 0]
    correlation = torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1].item()
    first, second = first / first.sum(), second / second.sum()
    return correlation, ((first - second).abs().max() / second.max()).item()


def flops_per_second(device: str, precision: Precision) -> float:
    """The machine's peak: the fastest of twenty matrix products."""
    size, dtype = MATRIX[device], {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision, torch.float32)
    factor = torch.randn(size, size, device=device, dtype=dtype)
    seconds = []
    with computing_in(precision, factor.device):
        for _ in range(20):
            start = time.perf_counter()
            factor @ factor
            synchronize(device)
            seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def measured_peaks(device: str, precisions: set[Precision]) -> dict[str, float]:
    """The peak in each precision."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return {each: pool.apply(flops_per_second, (device, each)) for each in sorted(precisions)}


def flops_per_row(built: Subject) -> int:
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        built.model(built.inputs)
    return counter.get_total_flops()


@dataclass
class Benchmark:
    """What builds a model, its images with their classes, its device, and the batch sizes to try for peers.

    A quick benchmark runs no floors and warms up with one call of each system.
    """

    build: Callable[[], Subject]
    device: str
    images: list[Tensor]
    targets: list[int]
    batches: tuple[int, ...]
    quick: bool = False

    def worker(self, system: System) -> Worker:
        return Worker(self.build, self.device, system)

    def fastest(self, peer: Peer) -> Peer:
        """A peer at the batch size at which it explains the first image in the least time.

        Each runs in a process of its own, since what has run before changes how fast memory is allocated.
        """
        seconds: dict[int, float] = {}
        n_calls = 1 if self.device == "cpu" else 2  # a GPU's first call selects kernels
        for batch in self.batches:
            worker = self.worker(replace(peer, batch=batch))
            seconds[batch] = min(worker.call(self.images[0], self.targets[0]).seconds for _ in range(n_calls))
            worker.stop()
            print(f"{peer.library}, {peer.precision}, batch {batch}: {seconds[batch]:.2f} s", flush=True)
        return replace(peer, batch=min(seconds, key=seconds.__getitem__))

    def peers(self, libraries: dict[str, int]) -> dict[str, Peer]:
        """Libraries, given with their default batch size, at their fastest; on the CPU also compiled and by default."""
        found = {}
        for library, default in libraries.items():
            for precision in PEER_PRECISIONS[self.device]:
                best = self.fastest(Peer(library, default, precision))  # type: ignore[arg-type]
                found[f"{library}, {precision}, batch {best.batch}"] = best
            if self.device == "cpu":
                found[f"{library}, compiled, batch {best.batch}"] = replace(best, compiled=True)
                if best.batch != default:
                    found[f"{library}, by default, batch {default}"] = replace(best, batch=default)
        return found

    def references(self, n_images: int) -> list[Array | None]:
        """The maps of the naive reference for the first images; None for the others."""
        worker = self.worker("naive")
        known = [worker.call(x, t).map for x, t in list(zip(self.images, self.targets, strict=True))[:n_images]]
        worker.stop()
        return [*known, *[None] * (len(self.images) - len(known))]

    def warm_up(self, workers: dict[str, Worker], systems: dict[str, System]) -> dict[str, Timings]:
        """Tunes, compiles and exports; leaves out a peer that does not run compiled."""
        timings = {}
        fixed = {name for name, each in systems.items() if isinstance(each, Ours) and each.rows is not None}
        for name in fixed:  # compile side by side; the others tune alone
            workers[name].ask(self.images[0], self.targets[0])
        for name, worker in sorted(workers.items(), key=lambda item: item[0] not in fixed):
            try:
                reply = worker.answer() if name in fixed else worker.call(self.images[0], self.targets[0])
                if isinstance(systems[name], Ours) and not self.quick:
                    worker.call(self.images[0], self.targets[0])
                    worker.call(self.images[0], reply.rows_per_forward, reply.rows_per_forward)
            except Exception as error:
                print(f"{name} does not run: {type(error).__name__}: {str(error)[:200]}", flush=True)
                workers.pop(name).stop()
                continue
            timings[name] = Timings(first_call=reply.seconds)
            print(f"{name}: first call {reply.seconds:.1f} s", flush=True)
        return {name: timings[name] for name in workers}

    def run(
        self, systems: dict[str, System], once: set[str], repetitions: int, n_references: int
    ) -> Iterator[dict[str, Timings]]:
        """Runs all systems on all images, in turns; yields the timings so far after each repetition."""
        expected = self.references(n_references)
        workers = {name: self.worker(system) for name, system in systems.items()}
        timings = self.warm_up(workers, systems)
        for repetition in range(repetitions):
            for i, (x, target, reference) in enumerate(zip(self.images, self.targets, expected, strict=True)):
                for name, worker in workers.items():
                    if name in once and repetition > 0:
                        continue
                    reply = worker.call(x, target)
                    reference = reply.map if reference is None else reference
                    timings[name].add(reply, reference)
                    if isinstance(systems[name], Ours) and not self.quick:
                        floor = worker.call(x, reply.rows, reply.rows_per_forward)
                        timings[name].floor_seconds.append(floor.seconds)
                seconds = {name: round(each.seconds[-1], 3) for name, each in timings.items()}
                print(f"repetition {repetition + 1}, image {i + 1}: {seconds}", flush=True)
            yield timings
        for worker in workers.values():
            worker.stop()


def row_of(name: str, timings: Timings, base: Timings, share_of_peak: float) -> Row:
    """The table's row of a system: medians over all runs, and medians of the ratios within each run."""
    ratios = [seconds / first for seconds, first in zip(timings.seconds, base.seconds, strict=False)]
    floor_ratios = [s / f for s, f in zip(timings.seconds, timings.floor_seconds, strict=False)]
    rates = [rows / seconds for rows, seconds in zip(timings.rows, timings.seconds, strict=True)]
    return {
        "system": name,
        "seconds per image": statistics.median(timings.seconds),
        "rows": statistics.mean(timings.rows),
        "rows per forward": timings.rows_per_forward,
        "rows per second": statistics.median(rates),
        "share of peak": statistics.median(rates) * share_of_peak,
        "time / first": statistics.median(ratios),
        "time / floor": statistics.median(floor_ratios) if floor_ratios else None,
        "peak MiB": timings.peak / 2**20,
        "correlation": min(correlation for correlation, _ in timings.agreement),
        "max difference": max(difference for _, difference in timings.agreement),
    }


def main(
    model: str = "efficientnet_lite0",
    layer: Annotated[str | None, typer.Option(help="Name of the layer. Default: the last convolutional one.")] = None,
    images: Annotated[Path | None, typer.Option(help="A folder of images. Default: scikit-image's.")] = None,
    n_images: Annotated[int, typer.Option(min=1, help="The number of images.")] = 5,
    pixels: Annotated[int, typer.Option(help="Height and width of the images.")] = 224,
    repetitions: Annotated[int, typer.Option(min=1, help="Runs of each system on each image.")] = 3,
    n_references: Annotated[
        int,
        typer.Option(
            min=0, help="Images that the naive reference explains; others are compared with the first system."
        ),
    ] = 5,
    device: str = "cpu",
    batch: Annotated[list[int], typer.Option(help="A batch size of peers to try. Default: several.")] = [],  # noqa: B006
    leave_out: Annotated[list[str], typer.Option(help="Part of the names of systems to leave out.")] = [],  # noqa: B006
    max_forwards: Annotated[int | None, typer.Option(min=1, help="Masks that ours run. Default: all.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Run no bare forwards and warm up with one call.")] = False,
    output: Annotated[Path, typer.Option(help="Where to write, without extension.")] = Path("benchmarks/results/speed"),
) -> None:
    """Compares Score-CAM implementations."""

    def taken(systems: dict[str, Any]) -> dict[str, Any]:
        return {name: each for name, each in systems.items() if not any(part in name for part in leave_out)}

    ours = taken({f"ours, {name}": replace(each, max_forwards=max_forwards) for name, each in OURS[device].items()})
    base = f"ours, {BASE[device]}"
    if base not in ours:
        raise typer.BadParameter(f"Expected {base!r} to stay, with which the others are compared.")
    inputs = [resized(x, pixels) for x in preprocessed_images(benchmarked_classifier(model), images, n_images)]
    build = partial(subject, model, device, pixels, layer)
    built = build()
    with torch.no_grad():
        targets = [int(built.model(x.to(device)).argmax()) for x in inputs]
    flops = flops_per_row(built)
    del built
    benchmark = Benchmark(build, device, inputs, targets, tuple(batch) or BATCHES[device], quick)
    peaks = measured_peaks(device, {each.precision for each in ours.values()})
    others: dict[str, System] = {**benchmark.peers(taken(PEERS))}
    if device == "cpu":
        others["released loop"] = "released loop"
    systems: dict[str, System] = {**ours, **taken(others)}
    once = {name for name in systems if "by default" in name or name == "released loop"}
    settings = {"model": model, "layer": layer or "last", "images": n_images, "pixels": pixels, **machine(device)}
    settings |= {"GFLOP per row": flops / 1e9, **{f"peak in {k}, TFLOP/s": peak / 1e12 for k, peak in peaks.items()}}
    for done, timings in enumerate(benchmark.run(systems, once, repetitions, n_references), 1):
        rows = [
            row_of(name, each, timings[base], flops / peaks[getattr(systems[name], "precision", "float32")])
            for name, each in timings.items()
        ]
        found = {"systems": {name: asdict(each) for name, each in timings.items()}}
        record(output, settings | {"repetitions": done}, rows, found)


if __name__ == "__main__":
    typer.run(main)
