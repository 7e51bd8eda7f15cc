"""Measures what a map costs against the channels, the images, the targets and the size of the images.

    python benchmarks/cost.py --output benchmarks/results/cost

One of the four is varied, the others stay as in `BASE`. All settings take turns, and so does a bare loop of as many
forwards at the same chunk size, so that the machine's moods fall on all alike. `OUTPUT.png` shows both.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
import typer
from recording import Row, machine, record
from speed import load_images
from systems import Subject, chunk_of, floor, subject
from torch import Tensor

from captum_scorecam import ScoreCAM


@dataclass(frozen=True)
class Setting:
    """The four numbers that a map's cost may depend on."""

    channels: int = 64
    images: int = 1
    targets: int = 1
    pixels: int = 224


BASE = Setting()
VARIED = {
    "channels": [16, 32, 64, 128, 256, 400],
    "images": [1, 2, 4, 8],
    "targets": [1, 5, 20, 100, 1000],
    "pixels": [128, 160, 224, 288, 320],
}


@dataclass
class Measured:
    """A setting, what explains by it, and the seconds that it and its bare forwards took."""

    setting: Setting
    explain: Callable[[], Any]
    score_cam: ScoreCAM
    inputs: Tensor
    seconds: list[float]
    bare: list[float]


def seconds_of(function: Callable[..., Any], *args: Any, device: torch.device) -> float:
    start = time.perf_counter()
    function(*args)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def prepared(built: Subject, photographs: Tensor, setting: Setting) -> Measured:
    """An explainer of its own for a setting, which has tuned its chunks."""
    inputs = F.interpolate(photographs[: setting.images], (setting.pixels,) * 2, mode="bilinear", antialias=True)
    score_cam = ScoreCAM(built.model, built.layer)

    def explain() -> Tensor:
        return score_cam.attribute_targets(inputs, list(range(setting.targets)), max_channels=setting.channels)

    explain()
    return Measured(setting, explain, score_cam, inputs, [], [])


def row_of(varied: str, measured: Measured) -> Row:
    assert measured.score_cam.last_run is not None
    rows, seconds = measured.score_cam.last_run.rows, statistics.median(measured.seconds)
    return {
        "varied": varied,
        "value": getattr(measured.setting, varied),
        "rows": rows,
        "rows in a forward": chunk_of(measured.score_cam),
        "seconds": seconds,
        "ms a row": 1000 * seconds / rows,
        "bare forwards, s": statistics.median(measured.bare),
        "of its floor": statistics.median(s / b for s, b in zip(measured.seconds, measured.bare, strict=True)),
    }


def draw(rows: list[Row], path: Path) -> None:
    """One panel for each number that is varied."""
    figure, panels = plt.subplots(1, len(VARIED), figsize=(13, 3.2), layout="constrained")
    for panel, varied in zip(panels, VARIED, strict=True):
        of_panel = [row for row in rows if row["varied"] == varied]
        values = [row["value"] for row in of_panel]
        panel.plot(values, [row["seconds"] for row in of_panel], "o-", label="ScoreCAM.attribute_targets")
        panel.plot(values, [row["bare forwards, s"] for row in of_panel], "x--", label="as many bare forwards")
        panel.set(xlabel=varied, ylim=(0, None), xscale="log" if varied == "targets" else "linear")
    panels[0].set_ylabel("seconds")
    panels[0].legend(frameon=False)
    figure.savefig(path, dpi=120)


def main(
    model: str = "efficientnet_lite0",
    repetitions: Annotated[int, typer.Option(help="Turns of each setting.")] = 3,
    device: str = "cpu",
    output: Path = Path("benchmarks/results/cost"),
) -> None:
    built = subject(model, device)
    photographs = torch.cat(load_images(model, None, 5)).to(device)
    photographs = torch.cat([photographs, photographs.flip(-1)])
    settings = {(v, n): replace(BASE, **{v: n}) for v, numbers in VARIED.items() for n in numbers}
    measured = {setting: prepared(built, photographs, setting) for setting in dict.fromkeys(settings.values())}
    bare = floor(built, compiled=False, bfloat16=False)
    for _ in range(repetitions):
        for each in measured.values():
            each.seconds.append(seconds_of(each.explain, device=built.device))
            assert each.score_cam.last_run is not None
            size = each.score_cam.last_run.rows, chunk_of(each.score_cam)
            each.bare.append(seconds_of(bare, each.inputs[:1], *size, device=built.device))
    rows = [row_of(varied, measured[setting]) for (varied, _), setting in settings.items()]
    about = {"model": model, "otherwise": str(BASE), "repetitions": repetitions, **machine(device)}
    record(output, about, rows)
    draw(rows, output.with_suffix(".png"))


if __name__ == "__main__":
    typer.run(main)
