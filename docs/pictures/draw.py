"""Draws the documentation's pictures: EfficientNet-Lite0, ImageNet weights, photographs that ship with scikit-image.

    python docs/pictures/draw.py [NAME ...]

Without names it draws all of them, in some minutes on a CPU. Numbers in the pictures are those of the run that drew it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from panels import DPI, WIDTH, figure_of, frame, write
from subject import HEAD, Subject, enlarged, mosaic, photograph
from torch import Tensor

from captum_scorecam import RISE, MeaningfulPerturbation, ScoreCAM
from captum_scorecam.command_line.panels import Panel
from captum_scorecam.masking.baselines import gaussian_blur
from captum_scorecam.metrics import plot_curves
from captum_scorecam.metrics.functional import (
    cascading_parameter_randomization,
    deletion,
    energy_pointing_game,
    insertion,
    masked_input_scores,
)
from captum_scorecam.models import Classifier, load_classifier

TIGER_CAT, ESPRESSO = 282, 967
COFFEE_BOX = (112, 0, 224, 112)


def draw_layers(classifier: Classifier) -> Figure:
    """One class at four depths."""
    subject = Subject(classifier, photograph("chelsea"), TIGER_CAT)
    panels = []
    for name in ["_blocks.4", "_blocks.10", "_blocks.15"]:
        cam = ScoreCAM(subject.model, subject.model.get_submodule(name))
        maps = cam.attribute(subject.x, TIGER_CAT)
        size = f"{cam.last_run.channels}×{maps.shape[2]}×{maps.shape[3]}"
        panels.append(subject.panel(name, f"{size}, {cam.last_run.rows} forwards", maps))
    cam = ScoreCAM(subject.model, subject.head)
    maps = cam.attribute(subject.x, TIGER_CAT, **HEAD)
    panels.append(subject.panel("input of _avg_pooling", f"1280×7×7, {cam.last_run.rows} forwards", maps))
    return figure_of(panels, 4)


def draw_pairs(classifier: Classifier) -> Figure:
    """The pairs of score and weighting on a mosaic, and how much of each map lies on the coffee."""
    subject = Subject(classifier, mosaic(), ESPRESSO)
    maps = {"Grad-CAM": subject.grad_cam()}
    for score, weighting in [
        ("output", "softmax"),
        ("probability", "increase"),
        ("probability", "score"),
        ("probability", "softmax"),
    ]:
        maps[f"{score}, {weighting}"] = subject.score_cam(score=score, channel_weighting=weighting)
    panels = [subject.panel("Explained: espresso", f"p = {subject.probability():.3f}")]
    for title, of_pair in maps.items():
        share = float(energy_pointing_game(enlarged(of_pair), [torch.tensor([COFFEE_BOX])]))
        panels.append(subject.panel(title, f"{share:.0%} of its energy in the frame", of_pair))
    return frame(figure_of(panels, 3), COFFEE_BOX)


def draw_channel_masks(classifier: Classifier) -> Figure:
    """Three channels of the head: activation, mask, masked input, and what the class's score became."""
    subject = Subject(classifier, photograph("coffee"), ESPRESSO)
    with torch.no_grad():
        activations = subject.model.extract_features(subject.x)
    varied = activations.flatten(2).std(2)[0].topk(200).indices
    masks = enlarged(activations[:, varied])
    low, high = masks.amin((2, 3), True), masks.amax((2, 3), True)
    masks = ((masks - low) / (high - low))[0].unsqueeze(1)
    with torch.no_grad():
        scores = torch.cat([subject.model(subject.x * part)[:, ESPRESSO] for part in masks.split(8)])
    order = scores.argsort(descending=True)
    panels = []
    for rank in (0, len(order) // 2, len(order) - 1):
        channel = order[rank]
        cells = activations[0, varied[channel]]
        panels += [
            Panel(f"channel {int(varied[channel])}", "activation, 7×7", cells / cells.max()),
            Panel("mask", "enlarged, scaled to [0, 1]", masks[channel, 0]),
            Panel("masked input", f"output {scores[channel]:.1f}", subject.pixels(subject.x * masks[channel])),
        ]
    return figure_of(panels, 3)


def draw_baselines(classifier: Classifier) -> Figure:
    """What a masked-out pixel becomes, and the maps that follow."""
    subject = Subject(classifier, photograph("coffee"), ESPRESSO)
    disk = (torch.linspace(-1, 1, 224).square()[:, None] + torch.linspace(-1, 1, 224).square() < 0.3).float()
    given = {
        "None: zeros, here grey": torch.zeros_like(subject.x),
        "-127 / 128: black": torch.full_like(subject.x, -127 / 128),
        "blurred, σ = 10 pixels": gaussian_blur(subject.x, 61, 10.0),
    }
    panels = [Panel(title, "under a disk", subject.pixels(b + disk * (subject.x - b))) for title, b in given.items()]
    maps = [subject.score_cam(baselines=b) for b in given.values()]
    for of_baseline in maps:
        alike = float(torch.corrcoef(torch.stack([maps[0].flatten(), of_baseline.flatten()]))[0, 1])
        panels.append(subject.panel("the map of espresso", f"correlation with the first: {alike:.3f}", of_baseline))
    return figure_of(panels, 3)


def draw_rise(classifier: Classifier) -> Figure:
    """A masked input, the maps of few and of many masks, and the standard error."""
    subject = Subject(classifier, photograph("coffee"), ESPRESSO)
    few, many = RISE(subject.model, n_masks=200), RISE(subject.model, n_masks=2000)
    first = few.attribute(subject.x, ESPRESSO, generator=torch.Generator().manual_seed(0))
    second, error = many.attribute_with_error(subject.x, ESPRESSO, generator=torch.Generator().manual_seed(0))
    spread, largest = float(second.max() - second.min()), float(error.max())
    return figure_of(
        [
            subject.panel("200 masks", f"{float(first.min()):.2f} to {float(first.max()):.2f}", first[:, :1]),
            subject.panel("2000 masks", f"{float(second.min()):.2f} to {float(second.max()):.2f}", second[:, :1]),
            subject.panel("standard error", f"at most {largest:.3f} ({largest / spread:.0%} of range)", error[:, :1]),
        ],
        3,
    )


def draw_mask(classifier: Classifier) -> Figure:
    """The deletion game's result, and the input after it."""
    subject = Subject(classifier, photograph("coffee"), ESPRESSO)
    deleted = MeaningfulPerturbation(subject.model).attribute(
        subject.x, ESPRESSO, generator=torch.Generator().manual_seed(0)
    )
    after = subject.x + deleted * (gaussian_blur(subject.x, 61, 10.0) - subject.x)
    return figure_of(
        [
            subject.panel("the input", f"p(espresso) = {subject.probability():.3f}"),
            subject.panel("1 − U(m)", f"mean {float(deleted.mean()):.3f}", deleted[:, :1]),
            Panel("what is left", f"p(espresso) = {subject.probability(after):.3f}", subject.pixels(after)),
        ],
        3,
    )


def draw_average_drop(classifier: Classifier) -> Figure:
    """What is left of an image under the three masks of a Score-CAM map."""
    subject = Subject(classifier, photograph("chelsea"), TIGER_CAT)
    maps = enlarged(subject.score_cam())
    soft = (maps - maps.min()) / (maps.max() - maps.min())
    half = (maps >= maps.flatten().median()).float()
    panels = [subject.panel("the input", f"p(tiger cat) = {subject.probability():.3f}")]
    for title, mask, options in [
        ("half of it, soft (default)", soft * half, {}),
        ("all of it, soft", soft, {"keep_fraction": None}),
        ("half of it, binary", half, {"mask": "binary"}),
    ]:
        masked = masked_input_scores(subject.model, subject.x, maps, TIGER_CAT, **options).masked
        panels.append(Panel(title, f"p = {float(masked):.3f}", subject.pixels(subject.x * mask)))
    return figure_of(panels, 4)


def draw_curves(classifier: Classifier) -> Figure:
    """Insertion and deletion of two methods, and of a map that knows nothing."""
    subject = Subject(classifier, photograph("coffee"), ESPRESSO)
    noise = torch.rand(1, 1, 7, 7, generator=torch.Generator().manual_seed(0))
    maps = {"Score-CAM": subject.score_cam(), "Grad-CAM": subject.grad_cam(), "random 7×7 map": noise}
    figure = Figure(figsize=(WIDTH, 3.8), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    for ax, metric, verb in [(left, insertion, "inserted"), (right, deletion, "deleted")]:
        curves = {name: metric(subject.model, subject.x, of_method, ESPRESSO) for name, of_method in maps.items()}
        plot_curves(curves, xlabel=f"share of pixels {verb}", ylabel="p(espresso)", axes=ax)
    return figure


def draw_randomization(classifier: Classifier) -> Figure:
    """Maps of two methods while the model is randomised from its last layer down."""
    subject = Subject(classifier, photograph("chelsea"), TIGER_CAT)
    layers = ["_conv_stem", "_bn0", *(f"_blocks.{i}" for i in range(16)), "_conv_head", "_bn1", "_fc"]
    shown = ["_fc", "_conv_head", "_blocks.12", "_blocks.9"]
    panels = []
    for title, explain in [
        ("Score-CAM", lambda: subject.score_cam(max_channels=64)),
        ("Grad-CAM", subject.grad_cam),
    ]:
        panels.append(subject.panel(title, "as trained", explain()))
        for layer, similarity, maps in randomized(subject, explain, layers):
            if layer in shown:
                panels.append(subject.panel(f"… to {layer}", f"Spearman {similarity:.2f}", maps))
    return figure_of(panels, 5)


def randomized(
    subject: Subject, explain: Callable[[], Tensor], layers: list[str]
) -> Iterator[tuple[str, float, Tensor]]:
    """Each layer's name, the similarity of the map after its randomisation, and that map."""
    latest: list[Tensor] = []

    def kept(_: Tensor) -> Tensor:
        latest[:] = [explain()]
        return latest[0]

    generator = torch.Generator().manual_seed(0)
    for record in cascading_parameter_randomization(subject.model, kept, subject.x, layers=layers, generator=generator):
        yield record.layer, float(record.spearman), latest[0]


PICTURES = {name.removeprefix("draw_"): draw for name, draw in globals().items() if name.startswith("draw_")}

if __name__ == "__main__":
    loaded = load_classifier("efficientnet_lite0")
    for wanted in sys.argv[1:] or PICTURES:
        write(PICTURES[wanted](loaded), f"{wanted}.png" if wanted == "curves" else f"{wanted}.jpg")
        print(wanted)
