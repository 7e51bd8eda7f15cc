"""Measures maps from some of the forward passes against exact ones: their correlation, and how their errors cover.

    python benchmarks/budget.py FOLDER --scores FOLDER-FOR-SCORES --output benchmarks/results/budget

Each image's masks are run once; the scores are kept as files and stand for the forward passes of all methods:

- budget: ``ScoreCAM(max_forwards=n)``;
- largest std: ``max_channels`` (Faster-Score-CAM), with as many channels as have n distinct masks;
- random: n masks, drawn with equal probability;
- clusters: the n masks nearest to the centres of n clusters (k-means), whose scores hold for their whole cluster, after
  the idea of Group-CAM (arXiv 2103.13859).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from images import image_paths
from recording import Row, machine, record
from sklearn.cluster import KMeans
from torch import Tensor

from captum_scorecam import ChannelScores, ChannelWeighting, ScoreCAM
from captum_scorecam.budget.within_budget import replayed_within_budget
from captum_scorecam.datasets import read_image
from captum_scorecam.models import Classifier, load_classifier

SHARES = (0.05, 0.1, 0.2, 0.4)
LAYERS = {
    "efficientnet_lite0": {"head": "_avg_pooling:input", "middle": "_blocks.11._depthwise_conv:input"},
    "efficientnet_lite1": {"head": "_avg_pooling:input", "middle": "_blocks.15._depthwise_conv:input"},
}


class Weights(NamedTuple):
    """A score, by its column in the recorded ones, with the weighting that is made from it."""

    score: str
    weighting: ChannelWeighting


WEIGHTS = [Weights("output", "softmax"), Weights("probability", "score"), Weights("output", "increase")]


def both_scores(output: Tensor) -> Tensor:
    """The outputs, then the probabilities, so that one forward pass gives both."""
    return torch.cat([output, output.softmax(1)], 1)


def recorded_scores(classifier: Classifier, layer: str, path: Path, file: Path) -> ChannelScores:
    """Runs all masks of an image for its predicted class, unless the file has their scores (see `both_scores`)."""
    if not file.exists():
        inputs = classifier.inputs(read_image(path))
        with torch.no_grad():
            output = classifier.model(inputs)
        target = int(output.argmax())
        score_cam = ScoreCAM(classifier.model, layer, score=both_scores)
        scores = score_cam.channel_scores(inputs, [target, target + output.shape[1]])
        assert isinstance(scores, ChannelScores)
        scores.save(file)
    return ChannelScores.load(file)


def column(scores: ChannelScores, score: str) -> ChannelScores:
    """The recorded scores of one kind."""
    chosen = slice(0, 1) if score == "output" else slice(1, 2)
    assert scores.baseline_scores is not None
    return replace(
        scores,
        mask_scores=scores.mask_scores[:, chosen],
        unmasked_scores=scores.unmasked_scores[:, chosen],
        baseline_scores=scores.baseline_scores[:, chosen],
    )


def within_budget(exact: ChannelScores, weights: Weights, n: int) -> ChannelScores:
    """What ``ScoreCAM(max_forwards=n)`` finds if the forward passes give the recorded scores."""
    return replayed_within_budget(exact, n, None, weights.weighting, weights.score == "probability")


def only(exact: ChannelScores, channels: Tensor) -> ChannelScores:
    """The recorded scores of some channels; the others have no mask."""
    index = torch.full_like(exact.masks.index, -1)
    index[0, channels] = exact.masks.index[0, channels]
    return replace(exact, masks=replace(exact.masks, index=index))


def with_largest_std(exact: ChannelScores, n: int) -> ChannelScores:
    deviations = exact.activations[0].flatten(1).std(1, correction=0)
    masked = [k for k in deviations.argsort(descending=True).tolist() if exact.has_mask[0, k]]
    chosen: list[int] = []
    masks: set[int] = set()
    for channel in masked:
        mask = int(exact.masks.index[0, channel])
        if mask not in masks and len(masks) == n:
            break
        masks.add(mask)
        chosen.append(channel)
    return only(exact, torch.tensor(chosen))


def with_random_masks(exact: ChannelScores, n: int) -> ChannelScores:
    chosen = torch.randperm(len(exact.masks), generator=torch.Generator().manual_seed(0))[:n]
    return only(exact, torch.isin(exact.masks.index[0], chosen).nonzero()[:, 0])


def with_clusters(exact: ChannelScores, n: int) -> ChannelScores:
    maps = exact.masks.maps.flatten(1)
    clusters = KMeans(n, n_init=1, random_state=0, max_iter=50).fit(maps.numpy())
    centres = torch.from_numpy(clusters.cluster_centers_).to(maps)
    nearest = torch.cdist(centres, maps).argmin(1)
    return replace(exact, mask_scores=exact.mask_scores[nearest[torch.from_numpy(clusters.labels_).long()]])


def correlation(maps: Tensor, exact: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([maps.flatten(), exact.flatten()]).double())[0, 1].nan_to_num())


class Compared(NamedTuple):
    """Correlations with the exact map by method, and errors of the map from a budget in units of its standard error."""

    correlations: dict[str, float]
    in_errors: Tensor
    largest_error: float


def compare(exact: ChannelScores, weights: Weights, share: float) -> Compared:
    n = max(1, round(share * len(exact.masks)))
    found = {
        "budget": within_budget(exact, weights, n),
        "largest std": with_largest_std(exact, n),
        "random": with_random_masks(exact, n),
        "clusters": with_clusters(exact, n),
    }
    maps = {name: scores.maps(weights.weighting) for name, scores in found.items()}
    target = exact.maps(weights.weighting)
    errors = found["budget"].standard_errors(weights.weighting)
    in_errors = (maps["budget"] - target).abs() / errors.clamp_min(torch.finfo(errors.dtype).tiny)
    largest = float(errors.max() / target.max())
    return Compared({name: correlation(m, target) for name, m in maps.items()}, in_errors.flatten(), largest)


def rows_of(images: list[ChannelScores], model: str, layer: str) -> Iterator[Row]:
    for weights in WEIGHTS:
        exact = [column(scores, weights.score) for scores in images]
        for share in SHARES:
            compared = [compare(scores, weights, share) for scores in exact]
            within = torch.stack([(each.in_errors <= 2).double().mean() for each in compared])
            correlations = {
                name: torch.tensor([each.correlations[name] for each in compared]) for name in compared[0].correlations
            }
            yield {
                "model": model,
                "layer": layer,
                "weights": " + ".join(weights),
                "share": f"{share:.0%}",
                **{name: f"{values.median():.4f} / {values.min():.3f}" for name, values in correlations.items()},
                "within 2 errors": f"{within.mean():.2f} / {within.min():.2f}",
                "median of difference / error": float(torch.cat([each.in_errors for each in compared]).median()),
                "largest error / maximum": float(torch.tensor([each.largest_error for each in compared]).median()),
            }


def main(
    folder: Annotated[Path, typer.Argument(help="Images.")],
    scores: Annotated[Path, typer.Option(help="Folder of recorded scores.")],
    n_images: Annotated[int, typer.Option(min=1)] = 100,
    model: Annotated[list[str], typer.Option(help="EfficientNet-Lite models.")] = list(LAYERS),  # noqa: B006
    output: Annotated[Path, typer.Option(help="Where to write, without extension.")] = Path(
        "benchmarks/results/budget"
    ),
) -> None:
    """Compares maps from some of the forward passes with exact ones; median / worst over the images."""
    warnings.filterwarnings("ignore", "The scores of the masked inputs differ")  # of the recorded probabilities
    rows: list[Row] = []
    counts: Row = {}
    scores.mkdir(parents=True, exist_ok=True)
    for name in model:
        classifier = load_classifier(name)
        for label, layer in LAYERS[name].items():
            images = [
                recorded_scores(classifier, layer, path, scores / f"{name}-{label}-{path.stem}.safetensors")
                for path in image_paths(folder, n_images)
            ]
            size = "×".join(map(str, images[0].activations.shape[2:]))
            distinct = sorted(len(each.masks) for each in images)
            counts[f"{name} {label}"] = f"{distinct[len(distinct) // 2]} of {images[0].activations.shape[1]} masks"
            rows += rows_of(images, name, f"{label}, {size}")
    record(output, {**machine("cpu"), "images": n_images, **counts}, rows)


if __name__ == "__main__":
    typer.run(main)
