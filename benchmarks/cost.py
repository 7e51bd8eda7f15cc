"""Measures how the cost of a map depends on the numbers of channels, images and targets and on the image size.

    python benchmarks/cost.py --output benchmarks/results/cost

One of the four varies, the others stay at `BASE`. All settings take turns, each followed by a bare loop of as many
forwards with as many rows each, so that a slow phase of the machine affects both alike. `OUTPUT.png` shows both.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from operator import truediv
from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import torch
import typer
from images import preprocessed_images, resized
from recording import Row, machine, record
from systems import Ours, Subject, benchmarked_classifier, subject
from torch import Tensor

from captum_scorecam import RunStatistics, ScoreCAM


@dataclass(frozen=True)
class Setting:
    """The four numbers that may determine the cost of a map."""

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
class TimedSetting:
    """A setting with its own explainer, and the seconds that explanations and as many bare forwards took."""

    setting: Setting
    score_cam: ScoreCAM
    inputs: Tensor
    seconds: list[float] = field(default_factory=list)
    bare_seconds: list[float] = field(default_factory=list)

    def explain(self) -> None:
        self.score_cam.attribute_targets(self.inputs, list(range(self.setting.targets)))

    @property
    def run(self) -> RunStatistics:
        assert self.score_cam.last_run is not None
        return self.score_cam.last_run


def seconds_of(function: Callable[..., Any], *args: Any, device: torch.device) -> float:
    start = time.perf_counter()
    function(*args)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def tuned(built: Subject, photographs: Tensor, setting: Setting) -> TimedSetting:
    """A setting whose explainer has tuned the rows per forward."""
    inputs = resized(photographs[: setting.images], setting.pixels)
    timed = TimedSetting(setting, ScoreCAM(built.model, built.layer, max_channels=setting.channels), inputs)
    timed.explain()
    return timed


def row_of(varied: str, timed: TimedSetting) -> Row:
    seconds = statistics.median(timed.seconds)
    return {
        "varied": varied,
        "value": getattr(timed.setting, varied),
        "rows": timed.run.rows,
        "rows per forward": timed.run.rows_per_forward,
        "seconds": seconds,
        "ms per row": 1000 * seconds / timed.run.rows,
        "bare forwards, seconds": statistics.median(timed.bare_seconds),
        "time / bare forwards": statistics.median(map(truediv, timed.seconds, timed.bare_seconds)),
    }


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draws one panel for each number that varies."""
    figure, panels = plt.subplots(1, len(VARIED), figsize=(13, 3.2), layout="constrained")
    for panel, varied in zip(panels, VARIED, strict=True):
        shown = [row for row in rows if row["varied"] == varied]
        values = [row["value"] for row in shown]
        panel.plot(values, [row["seconds"] for row in shown], "o-", label="ScoreCAM.attribute_targets")
        panel.plot(values, [row["bare forwards, seconds"] for row in shown], "x--", label="as many bare forwards")
        panel.set(xlabel=varied, ylim=(0, None), xscale="log" if varied == "targets" else "linear")
    panels[0].set_ylabel("seconds")
    panels[0].legend(frameon=False)
    figure.savefig(path, dpi=120)


def main(
    model: str = "efficientnet_lite0",
    repetitions: Annotated[int, typer.Option(min=1, help="Runs of each setting.")] = 3,
    device: str = "cpu",
    output: Annotated[Path, typer.Option(help="Where to write, without extension.")] = Path("benchmarks/results/cost"),
) -> None:
    """Measures how the cost of a map depends on channels, images, targets and image size."""
    built = subject(model, device)
    photographs = torch.cat(preprocessed_images(benchmarked_classifier(model), None, 5)).to(device)
    photographs = torch.cat([photographs, photographs.flip(-1)])
    settings = {(v, n): replace(BASE, **{v: n}) for v, numbers in VARIED.items() for n in numbers}
    timed = {setting: tuned(built, photographs, setting) for setting in dict.fromkeys(settings.values())}
    _, bare = Ours().calls(built)
    for _ in range(repetitions):
        for each in timed.values():
            each.seconds.append(seconds_of(each.explain, device=built.device))
            size = each.run.rows, each.run.rows_per_forward
            each.bare_seconds.append(seconds_of(bare, each.inputs[:1], *size, device=built.device))
    rows = [row_of(varied, timed[setting]) for (varied, _), setting in settings.items()]
    record(output, {"model": model, "base": str(BASE), "repetitions": repetitions, **machine(device)}, rows)
    draw(rows, output.with_suffix(".png"))


if __name__ == "__main__":
    typer.run(main)
