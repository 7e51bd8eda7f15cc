"""Compares Score-CAM implementations in one run: seconds, rows, memory and agreement, as ratios.

    python benchmarks/speed.py --model efficientnet_lite0 --output benchmarks/results/efficientnet_lite0

Every system lives in its own process, so that its peak memory is its own; they take turns on each image, so that the
machine's moods fall on all alike. A floor runs in its system's process, right after it. Peers run at their default
batch size and at the best one up to 32. What is slower than a peer at its best (their defaults, the released code's
loop) takes part in the first repetition only. Tuning and compilation come before what is timed.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from PIL import Image
from recording import machine, record
from skimage import data
from systems import BATCHES, FLOORS, LAYERS, Result, floor, subject, systems
from torch import Tensor

from captum_scorecam.datasets.images import read_image
from captum_scorecam.models.classifiers import load_classifier

VARIANTS = {
    "float32": "ours",
    "three rows": "ours, 3 rows",
    "five targets": "ours, five targets",
    "bfloat16": "ours, bfloat16",
}
VARIANTS |= {"compiled": "ours, compiled", "compiled bfloat16": "ours, compiled bfloat16"}
PEER_DEFAULTS = {"grad-cam": 16, "torchcam": 32}
RELEASED = "released loop"


def load_images(model: str, folder: Path | None, n_images: int) -> list[Tensor]:
    """Images from a folder or from scikit-image, each 1×C×H×W, preprocessed for the model."""
    classifier = load_classifier(model, "none" if model in LAYERS else "DEFAULT")
    if folder is not None:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
        return [classifier.inputs(read_image(path)) for path in paths[:: max(1, len(paths) // n_images)][:n_images]]
    photographs = [data.chelsea(), data.coffee(), data.rocket(), data.astronaut(), data.stereo_motorcycle()[0]]
    return [classifier.inputs(Image.fromarray(photograph)) for photograph in photographs[:n_images]]


def serve(pipe: Connection, model: str, device: str, name: str) -> None:
    """A process of one system: explains an image, or runs the system's floor, whenever it is told to."""
    built = subject(model, device)
    calls: dict[str, Callable[..., Result | None]] = {"explain": systems(built)[name]()}
    if name in FLOORS:
        calls["floor"] = floor(built, *FLOORS[name])
    while (work := pipe.recv()) is not None:
        call, x, *rest = work
        x = x.to(device)
        start = time.perf_counter()
        result = calls[call](x, *rest)
        if device != "cpu":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        peak = (
            torch.cuda.max_memory_allocated()
            if device != "cpu"
            else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        )
        pipe.send((seconds, peak, None if result is None else (result.map.cpu().numpy(), result.rows, result.chunk)))


class Worker:
    """The other end of a system's process."""

    def __init__(self, model: str, device: str, name: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = name
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, model, device, name), daemon=True)
        self._process.start()

    def __call__(self, x: Tensor, target: int) -> tuple[float, int, Any]:
        """Explains an image: seconds, the peak in bytes up to now, and the map with its rows and its chunk size."""
        return self._sent("explain", x, target)

    def floor(self, x: Tensor, rows: int, chunk: int) -> float:
        """The seconds of as many bare forwards."""
        return self._sent("floor", x, rows, chunk)[0]

    def _sent(self, *work: Any) -> tuple[float, int, Any]:
        self._pipe.send(work)
        return self._pipe.recv()  # type: ignore[no-any-return]

    def stop(self) -> None:
        self._pipe.send(None)
        self._process.join()


def agreement(maps: Any, reference: Any) -> tuple[float, float]:
    """Correlation with the reference, and the largest difference relative to its maximum, both maps scaled to sum 1."""
    first, second = torch.from_numpy(maps).double(), torch.from_numpy(reference).double()
    if first.shape != second.shape:  # a peer gives its map at the input's size
        second = torch.nn.functional.interpolate(second[None, None], first.shape, mode="bilinear")[0, 0]
    correlation = torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1].item()
    first, second = first / first.sum(), second / second.sum()
    return correlation, ((first - second).abs().max() / second.max()).item()


def best_batch(peer: str, model: str, device: str, x: Tensor, target: int) -> int:
    """The batch size at which a peer takes the least time for one image."""
    seconds: dict[int, float] = {}
    for batch in BATCHES:
        worker = Worker(model, device, f"{peer}, batch {batch}")
        seconds[batch] = worker(x, target)[0]
        worker.stop()
        print(f"{peer}, batch {batch}: {seconds[batch]:.1f} s", flush=True)
    return min(seconds, key=seconds.__getitem__)


def measure(model: str, device: str, images: list[Tensor], repetitions: int, names: list[str]) -> dict[str, Any]:
    """Runs all systems on all images, in turns, and returns what was seen of each."""
    with torch.no_grad():
        targets = [int(subject(model, device).model(x.to(device)).argmax()) for x in images]
    bests = {peer: best_batch(peer, model, device, images[0], targets[0]) for peer in PEER_DEFAULTS}
    peers = [f"{peer}, batch {b}" for peer, d in PEER_DEFAULTS.items() for b in sorted({d, bests[peer]})]
    once = {RELEASED, *peers} - {f"{peer}, batch {batch}" for peer, batch in bests.items()}
    workers = {name: Worker(model, device, name) for name in [*names, *peers, RELEASED]}
    naive = Worker(model, device, "naive")
    references = [naive(x, target)[2][0] for x, target in zip(images, targets, strict=True)]
    naive.stop()
    first_call: dict[str, float] = {}
    for name in names:  # tuning and compiling
        first_call[name], _, (_, _, chunk) = workers[name](images[0], targets[0])
        if name in FLOORS:
            workers[name].floor(images[0], chunk, chunk)
    seen: dict[str, Any] = {name: {"seconds": [], "floor": [], "rows": [], "agreement": []} for name in workers}
    for repetition in range(repetitions):
        for i, (x, target) in enumerate(zip(images, targets, strict=True)):
            for name, worker in workers.items():
                if name in once and repetition > 0:
                    continue
                seconds, peak, (maps, rows, chunk) = worker(x, target)
                of_system = seen[name]
                of_system["seconds"].append(seconds)
                of_system["rows"].append(rows)
                of_system["chunk"], of_system["peak"] = chunk, peak
                of_system["agreement"].append(agreement(maps, references[i]))
                if name in FLOORS:
                    of_system["floor"].append(worker.floor(x, rows, chunk))
            print(f"repetition {repetition + 1}, image {i + 1}", flush=True)
    for worker in workers.values():
        worker.stop()
    return {"systems": seen, "best batch": bests, "first call": first_call}


def summary(seen: dict[str, Any], main: str = "ours") -> list[dict[str, Any]]:
    """One row per system: medians over all runs, and medians of the ratios within each run."""
    rows = []
    for name, of_system in seen.items():
        ratios = [theirs / ours for ours, theirs in zip(seen[main]["seconds"], of_system["seconds"], strict=False)]
        floor_ratios = [s / f for s, f in zip(of_system["seconds"], of_system["floor"], strict=False)]
        rows.append(
            {
                "system": name,
                "seconds per image": statistics.median(of_system["seconds"]),
                "rows": statistics.mean(of_system["rows"]),
                "rows in a forward": of_system["chunk"],
                f"times the seconds of {main}": statistics.median(ratios),
                "times its floor": statistics.median(floor_ratios) if floor_ratios else None,
                "peak MiB": of_system["peak"] / 2**20,
                "correlation": min(c for c, _ in of_system["agreement"]),
                "max difference": max(d for _, d in of_system["agreement"]),
            }
        )
    return rows


def main(
    model: str = "efficientnet_lite0",
    images: Annotated[Path | None, typer.Option(help="A folder of images; default: scikit-image's.")] = None,
    n_images: int = 5,
    pixels: Annotated[int, typer.Option(help="Height and width of the images.")] = 224,
    repetitions: int = 3,
    device: str = "cpu",
    variant: Annotated[list[str], typer.Option(help="Which of ours.", metavar="|".join(VARIANTS))] = list(VARIANTS),  # noqa: B006
    output: Path = Path("benchmarks/results/speed"),
) -> None:
    resized = [
        F.interpolate(x, (pixels, pixels), mode="bilinear", antialias=True)
        for x in load_images(model, images, n_images)
    ]
    result = measure(model, device, resized, repetitions, [VARIANTS[v] for v in variant])
    rows = summary(result["systems"])
    about = {"model": model, "images": n_images, "pixels": pixels, "repetitions": repetitions, **machine(device)}
    record(output, about, rows, result)


if __name__ == "__main__":
    typer.run(main)
