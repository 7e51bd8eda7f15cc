"""Measures the memory of a process that explains images of mixed sizes, beside one that runs as many bare forwards.

    python benchmarks/memory.py --output benchmarks/results/memory

Each system runs in a process of its own; `OUTPUT.png` shows the resident memory after each call. The bare forwards have
the numbers of rows that ScoreCAM's have: oneDNN keeps kernels for each, so one number more would be growth of its own.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import matplotlib.pyplot as plt
import torch
import typer
from recording import machine, record
from torch import Tensor, nn

from captum_scorecam import ScoreCAM, freed_memory_kept

CHANNELS, ROWS_PER_FORWARD = 32, 8
SIZES = range(96, 300, 4)
SYSTEMS = ("bare forwards", "ScoreCAM", "ScoreCAM, freed memory kept")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    features = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, CHANNELS, 3, padding=1)]
    head = [nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * CHANNELS, 3)]
    return nn.Sequential(*features, *head).eval()


def resident_mebibytes() -> float:
    """The resident memory of this process, as Linux counts it."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * 4096 / 2**20


def explainer(system: str) -> Callable[[Tensor], object]:
    """What a system does with an image: unmasked forwards in both memory formats, and a masked row for each channel."""
    model = network()
    if system == "bare forwards":

        def run(x: Tensor) -> None:
            with torch.no_grad():
                model(x)
                model(x.expand(2, -1, -1, -1).contiguous(memory_format=torch.channels_last))
                for _ in range(CHANNELS // ROWS_PER_FORWARD):
                    rows = x.expand(ROWS_PER_FORWARD, -1, -1, -1)
                    model(rows.contiguous(memory_format=torch.channels_last))

        return run
    score_cam = ScoreCAM(model, model[3])

    def explain(x: Tensor) -> None:
        score_cam.attribute(x, target=1, perturbations_per_eval=ROWS_PER_FORWARD)
        if score_cam.last_run is None or score_cam.last_run.rows != CHANNELS:
            raise RuntimeError(f"Expected {CHANNELS} masked rows, as many as bare ones, but got {score_cam.last_run}.")

    return explain


def measure(system: str, calls: int) -> list[float]:
    """The resident memory in MiB after each call."""
    explain, sizes, memory = explainer(system), random.Random(0), []
    with freed_memory_kept() if system.endswith("kept") else nullcontext():
        for _ in range(calls):
            explain(torch.rand(1, 3, sizes.choice(SIZES), sizes.choice(SIZES)))
            memory.append(resident_mebibytes())
    return memory


def main(
    calls: Annotated[int, typer.Option(min=20, help="Images explained.")] = 300,
    output: Annotated[Path, typer.Option(help="Where to write, without extension.")] = Path(
        "benchmarks/results/memory"
    ),
    system: Annotated[str, typer.Option(help="Measure one system in this process and print its curve.")] = "",
) -> None:
    """Measures resident memory over many calls with images of mixed sizes."""
    if system:
        print(json.dumps(measure(system, calls)))
        return
    command = [sys.executable, __file__, "--calls", str(calls), "--system"]
    curves = {name: json.loads(subprocess.check_output([*command, name])) for name in SYSTEMS}
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for name, curve in curves.items():
        axes.plot(range(1, calls + 1), curve, label=name)
    axes.set(xlabel="images explained", ylabel="resident memory (MiB)", ylim=(0, None))
    axes.legend(frameon=False)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output.with_suffix(".png"), dpi=120)
    rows = [
        {
            "system": name,
            **{f"after {n}": curve[n - 1] for n in (20, calls // 3, 2 * calls // 3, calls)},
            "growth after 20": curve[-1] - curve[19],
        }
        for name, curve in curves.items()
    ]
    record(output, machine("cpu") | {"calls": calls}, rows, {"curves": curves})


if __name__ == "__main__":
    typer.run(main)
