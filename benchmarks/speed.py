"""Compares Score-CAM implementations in one run: seconds, rows, memory and agreement, as ratios.

    python benchmarks/speed.py --model efficientnet_lite0 --output benchmarks/results/efficientnet_lite0

Every system lives in its own process, so that its peak memory is its own; they take turns on each image, so that the
machine's moods fall on all alike. Peers run at their default batch size and at the best of 4, 8, 16 and 32.
"""

from __future__ import annotations

import json
import multiprocessing
import platform
import resource
import statistics
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from PIL import Image
from skimage import data
from systems import FLOORS, LAYERS, floor, subject, systems
from torch import Tensor

from captum_scorecam.classification.classifiers import load_classifier
from captum_scorecam.classification.images import read_image

MAIN = ["ours", "ours, bfloat16", "ours, compiled", "ours, compiled bfloat16"]
PEER_DEFAULTS = {"grad-cam": 16, "torchcam": 32}


def load_images(model: str, folder: Path | None, n_images: int) -> list[Tensor]:
    """Images from a folder or from scikit-image, preprocessed for the model."""
    classifier = load_classifier(model, "none" if model in LAYERS else "DEFAULT")
    if folder is not None:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
        return [classifier.inputs(read_image(path)) for path in paths[:: max(1, len(paths) // n_images)][:n_images]]
    photographs = [data.chelsea(), data.coffee(), data.rocket(), data.astronaut(), data.stereo_motorcycle()[0]]
    return [classifier.inputs(Image.fromarray(photograph)) for photograph in photographs[:n_images]]


def serve(pipe: Connection, model: str, device: str, name: str) -> None:
    """A process of one system: explains an image, or runs the floor, whenever it is told to."""
    built = subject(model, device)
    system = (
        floor(built, *FLOORS[name.removeprefix("floor of ")]) if name.startswith("floor") else systems(built)[name]()
    )
    while (work := pipe.recv()) is not None:
        x, *rest = work
        x = x.to(device)
        start = time.perf_counter()
        result = system(x, *rest)
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

    def __call__(self, *work: Any) -> tuple[float, int, Any]:
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
    seconds = {}
    for batch in (4, 8, 16, 32):
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
    workers = {name: Worker(model, device, name) for name in [*names, *peers, "released loop"]}
    floors = {name: Worker(model, device, f"floor of {name}") for name in names}
    naive = Worker(model, device, "naive")
    references = [naive(x, target)[2][0] for x, target in zip(images, targets, strict=True)]
    naive.stop()
    first_call = {name: workers[name](images[0], targets[0])[0] for name in names}  # tuning and compiling
    for name in names:
        floors[name](images[0], 64, 8)
    seen: dict[str, Any] = {name: {"seconds": [], "floor": [], "rows": [], "agreement": []} for name in workers}
    for repetition in range(repetitions):
        for i, (x, target) in enumerate(zip(images, targets, strict=True)):
            for name, worker in workers.items():
                seconds, peak, (maps, rows, chunk) = worker(x, target)
                record = seen[name]
                record["seconds"].append(seconds)
                record["rows"].append(rows)
                record["chunk"], record["peak"] = chunk, peak
                record["agreement"].append(agreement(maps, references[i]))
                if name in floors:
                    record["floor"].append(floors[name](x, rows, chunk)[0])
            print(f"repetition {repetition + 1}, image {i + 1}", flush=True)
    for worker in [*workers.values(), *floors.values()]:
        worker.stop()
    return {"systems": seen, "best batch": bests, "first call": first_call}


def summary(seen: dict[str, Any], main: str = "ours") -> list[dict[str, Any]]:
    """One row per system: medians over all runs, and medians of the ratios within each run."""
    rows = []
    for name, record in seen.items():
        ratios = [ours / theirs for ours, theirs in zip(seen[main]["seconds"], record["seconds"], strict=True)]
        floor_ratios = [s / f for s, f in zip(record["seconds"], record["floor"], strict=False)]
        rows.append(
            {
                "system": name,
                "seconds per image": statistics.median(record["seconds"]),
                "rows": statistics.mean(record["rows"]),
                "rows in a forward": record["chunk"],
                f"times as fast as {main}": statistics.median(ratios),
                "of its floor": statistics.median(floor_ratios) if floor_ratios else None,
                "peak MiB": record["peak"] / 2**20,
                "correlation": min(c for c, _ in record["agreement"]),
                "max difference": max(d for _, d in record["agreement"]),
            }
        )
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    def text(value: Any) -> str:
        return (
            ""
            if value is None
            else value
            if isinstance(value, str)
            else f"{value:.3g}"
            if value < 1e3
            else f"{value:.0f}"
        )

    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    return "\n".join([*lines, *("| " + " | ".join(text(value) for value in row.values()) + " |" for row in rows)])


def main(
    model: str = "efficientnet_lite0",
    images: Annotated[Path | None, typer.Option(help="A folder of images; default: scikit-image's.")] = None,
    n_images: int = 5,
    repetitions: int = 3,
    device: str = "cpu",
    compiled: bool = True,
    output: Path = Path("benchmarks/results/speed"),
) -> None:
    names = MAIN if compiled else MAIN[:2]
    result = measure(model, device, load_images(model, images, n_images), repetitions, names)
    rows = summary(result["systems"])
    about = {
        "model": model,
        "device": device,
        "images": n_images,
        "repetitions": repetitions,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.with_suffix(".json").write_text(json.dumps({"about": about, "rows": rows, **result}, indent=1))
    output.with_suffix(".md").write_text(f"{about}\n\n{markdown(rows)}\n")
    print(markdown(rows))


if __name__ == "__main__":
    typer.run(main)
