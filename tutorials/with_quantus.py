"""
Evaluate maps with Quantus
==========================

`Quantus <https://github.com/understandable-machine-intelligence-lab/Quantus>`_ offers more than thirty metrics for
explanations: is a map faithful to the model, stable under noise, on the object, sparse? It works on arrays and requires
one thing: a function that explains a batch. This tutorial writes that function for :class:`~captum_scorecam.ScoreCAM`
and Captum's ``LayerGradCam``, computes five metrics for each, and then discusses the conventions in which the two
libraries differ, because those affect the numbers as much as the method does.
"""

from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import quantus
import torch
from captum.attr import LayerGradCam
from matplotlib.patches import Rectangle
from PIL import Image
from skimage import data
from torch import nn

from captum_scorecam import InputSpaceAttribution, ScoreCAM, overlay
from captum_scorecam.metrics.functional import deletion, energy_pointing_game
from captum_scorecam.models import imagenet_class_names, load_classifier, seen_pixels

# %%
# We use three photographs that ship with scikit-image, and EfficientNet-Lite0, whose top-1 class is explained for each.
# The localisation metrics need boxes; these were drawn by hand around the object that the predicted class refers to.

classifier = load_classifier("efficientnet_lite0")
model, names = classifier.model, imagenet_class_names()
photographs = [Image.fromarray(picture) for picture in (data.astronaut(), data.coffee(), data.rocket())]
boxes = [(122, 155, 224, 224), (30, 0, 184, 183), (105, 60, 123, 224)]  # x1, y1, x2, y2: helmet, cup, rocket
inputs = torch.cat([classifier.inputs(photograph) for photograph in photographs])
with torch.no_grad():
    probabilities, targets = model(inputs).softmax(1).max(1)

regions = np.zeros((3, 1, *inputs.shape[2:]), dtype=bool)
for region, (x1, y1, x2, y2) in zip(regions[:, 0], boxes, strict=True):
    region[y1:y2, x1:x2] = True
x_batch, y_batch = inputs.numpy(), targets.numpy()
for target, probability in zip(targets, probabilities, strict=True):
    print(f"{names[target]:20} {probability:.0%}")

# %%
# One function for Quantus
# ------------------------
#
# Quantus calls ``explain(model=…, inputs=…, targets=…, method=…)`` with NumPy arrays and expects an array in return.
# ``InputSpaceAttribution`` resizes the map of any layer attribution to the input. Three things are easy to get wrong:
#
# - The layer must be looked up in the ``model`` argument. Quantus' randomisation tests pass altered copies of the
#   model; a layer captured outside of the function would belong to the original.
# - The function must accept further keywords, as some metrics pass on the ``device``.
# - It returns one channel, N×1×H×W. The map is the same for all colour channels, the localisation metrics compare it
#   with masks N×1×H×W, and the other metrics broadcast it over the channels.

METHODS = {"Score-CAM": partial(ScoreCAM, max_channels=32), "Grad-CAM": LayerGradCam}


def explain(
    model: nn.Module, inputs: np.ndarray[Any, Any], targets: np.ndarray[Any, Any], method: str, **_: object
) -> np.ndarray[Any, Any]:
    """Explains a batch for Quantus: arrays in, an array N×1×H×W out."""
    attribution = InputSpaceAttribution(METHODS[method](model, model.get_submodule("_avg_pooling")))
    maps = attribution.attribute(
        torch.as_tensor(inputs, dtype=torch.float32),
        target=torch.as_tensor(targets),
        attribute_to_layer_input=True,
        relu_attributions=True,
    )
    return maps[:, :1].detach().numpy()


# %%
# ``max_channels=32`` keeps this tutorial fast, as the sensitivity metric explains every image several times. Omit it
# for more than a demonstration.

maps = {method: explain(model, x_batch, y_batch, method) for method in METHODS}

figure, axes = plt.subplots(2, 3, figsize=(7.5, 5.3), layout="constrained")
for row, (method, method_maps) in zip(axes, maps.items(), strict=True):
    for axis, image, heat, (x1, y1, x2, y2) in zip(row, inputs, method_maps[:, 0], boxes, strict=True):
        axis.imshow(overlay(seen_pixels(image[None], classifier.preprocess), heat))
        axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor="white", linewidth=2))
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(method)
for axis, target in zip(axes[0], targets, strict=True):
    axis.set_title(names[target])
plt.show()

# %%
# "Football helmet" seems less odd for the astronaut once the maps show the evidence: the helmet next to her.
#
# Five metrics, two methods
# -------------------------
#
# One metric of each kind; the arrow shows which direction is better:
#
# - *Faithfulness correlation* ↑: replace random pixels; does the score fall by as much as the map attributed to them?
# - *Pixel flipping* ↓: replace the highest pixels first, in 12 steps; the mean probability along the way.
# - *Max sensitivity* ↓: how much does the map change, relative to itself, under small noise?
# - *Sparseness* ↑ (if sparse maps are what you want): the Gini index of the map.
# - *Relevance rank accuracy* ↑: if the box has n pixels, the share of the n highest pixels that lie inside.
#
# ``softmax=True`` computes the metrics on probabilities; Quantus' default is the raw output.

SIDE = inputs.shape[-1]
quiet = {"disable_warnings": True}
metrics = {
    "Faithfulness\ncorrelation ↑": quantus.FaithfulnessCorrelation(
        nr_runs=24, subset_size=3 * SIDE * SIDE // 8, perturb_baseline=0.0, return_aggregate=False, **quiet
    ),
    "Pixel\nflipping ↓": quantus.PixelFlipping(features_in_step=SIDE * SIDE // 4, perturb_baseline=0.0, **quiet),
    "Max\nsensitivity ↓": quantus.MaxSensitivity(nr_samples=2, lower_bound=0.1, **quiet),
    "Sparseness ↑\n": quantus.Sparseness(**quiet),
    "Relevance rank\naccuracy ↑": quantus.RelevanceRankAccuracy(**quiet),
}


def per_image(scores: list[float] | list[list[float]]) -> np.ndarray[Any, Any]:
    """Reduces the scores to one number per image: the mean of a curve for pixel flipping."""
    return np.reshape(scores, (len(x_batch), -1)).mean(1)


results: dict[str, dict[str, Any]] = {}
for method in METHODS:
    np.random.seed(0)  # Quantus draws from NumPy's global generator: both methods get the same random pixels and noise
    results |= quantus.evaluate(
        metrics=metrics,
        xai_methods={method: explain},
        model=model,
        x_batch=x_batch,
        y_batch=y_batch,
        s_batch=regions,
        agg_func=per_image,
        explain_func_kwargs={},
        call_kwargs={"probabilities": {"softmax": True, "channel_first": True, "device": "cpu"}},
    )
for name in metrics:
    means = "   ".join(f"{method} {results[method][name].mean():6.3f}" for method in METHODS)
    print(f"{' '.join(name.split()):30} {means}")

# %%
# These are means over three images: they show how to use Quantus, not which method is better. The values of the single
# images show why:

figure, axes = plt.subplots(1, len(metrics), figsize=(9, 3.2), layout="constrained")
for axis, name in zip(axes, metrics, strict=True):
    for n, target in enumerate(targets):
        pair = [results[method][name][n] for method in METHODS]
        axis.plot([0, 1], pair, "o-", color=f"C{n}", label=names[target])
    axis.set(xlim=(-0.4, 1.4), xticks=[0, 1], xticklabels=[method.removesuffix("-CAM") for method in METHODS])
    axis.set_title(name, fontsize=10)
    axis.tick_params(labelsize=9)
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
plt.show()

# %%
# If the three lines do not all slope the same way, the mean depends on the choice of images. If the lines are far apart
# and nearly level, the metric distinguishes images, not methods. The rocket's box is narrower than a cell of the 7×7
# map, so no class activation map of this layer can place most of its highest pixels inside. And a faithfulness
# correlation from 24 random draws has a standard error of about 1/√24 ≈ 0.2 for each image. A meaningful comparison
# takes many images and many draws.
#
# Conventions that change the numbers
# -----------------------------------
#
# **Sign.** ``LayerGradCam`` returns negative values too, unless ``relu_attributions=True``; ScoreCAM's map includes the
# ReLU, as in the paper. Some Quantus metrics take absolute values by default, which counts evidence *against* the class
# as evidence for it. This matters if we explain a class that is not in the image: for each photograph, the class of
# another one.

absent = targets.roll(1)
signed = InputSpaceAttribution(LayerGradCam(model, model.get_submodule("_avg_pooling"))).attribute(
    inputs, target=absent, attribute_to_layer_input=True
)
signed = signed[:, :1].detach()
print(f"negative values: {(signed < 0).float().mean():.0%}")


def share_inside(**options: bool) -> float:
    """Computes the share of the map that lies inside the box, according to Quantus."""
    metric = quantus.AttributionLocalisation(normalise=False, **options, **quiet)
    call = {"model": model, "x_batch": x_batch, "y_batch": absent.numpy(), "s_batch": regions}
    return float(np.mean(metric(**call, a_batch=signed.numpy(), channel_first=True)))


absolute = share_inside()
positive = share_inside(abs=False, positive_attributions=True)
ours = float(energy_pointing_game(signed, torch.from_numpy(regions[:, 0])))
print(f"Quantus' default, absolute values  {absolute:.3f}")
print(f"Quantus, positive values only      {positive:.3f}")
print(f"energy_pointing_game               {ours:.3f}")
if abs(positive - ours) > 1e-3:
    raise RuntimeError("Quantus and energy_pointing_game should agree on positive values.")

# %%
# (The message about absolute values is Quantus' warning about ``abs=False``, which is intended here.) The last two
# agree: ``AttributionLocalisation`` with ``abs=False, positive_attributions=True`` is the paper's energy-based pointing
# game.
#
# **Baseline.** Quantus' default ``perturb_baseline="black"`` is the lowest value *of that image*. The default of this
# package is 0, as in Captum, which is mid-grey after this model's preprocessing. Above we passed
# ``perturb_baseline=0.0`` to make them equal.
#
# **Steps.** Quantus counts *features*: a pixel of a colour image is three.
# :func:`~captum_scorecam.metrics.functional.deletion` counts pixels, and its curve starts at the original image.
#
# With these matched, pixel flipping *is* the deletion curve. Here are the curves of both libraries:

quantus_curves = metrics["Pixel\nflipping ↓"](
    model=model, x_batch=x_batch, y_batch=y_batch, a_batch=maps["Score-CAM"], softmax=True, channel_first=True
)
curve = deletion(model, inputs, torch.from_numpy(maps["Score-CAM"]), targets, step=1 / 12)
difference = np.abs(curve.scores[:, 1:].numpy() - np.array(quantus_curves)).max()
print(f"largest difference between the curves: {difference:.4f}")

figure, axis = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
fractions = np.linspace(0, 1, 13)
for n, (target, scores, quantus_curve) in enumerate(zip(targets, curve.scores, quantus_curves, strict=True)):
    axis.plot(fractions, scores, color=f"C{n}", linewidth=5, alpha=0.35)
    axis.plot(fractions[1:], quantus_curve, "--", color=f"C{n}", label=names[target])
axis.set(xlabel="share of pixels replaced", ylabel="probability", xlim=(0, 1), ylim=(0, 1))
axis.set_title("wide: deletion, dashed: quantus.PixelFlipping", fontsize=11)
figure.legend(loc="outside lower center", ncols=3)
plt.show()

# %%
# The remaining difference is due to ties: the map has one value for the three colours of a pixel, and Quantus ranks
# them as three features, so a step may replace only part of its last pixel.
#
# Average drop and average increase, the metrics of the Score-CAM paper, are not in Quantus; they are in
# :mod:`captum_scorecam.metrics`, with insertion, deletion and the pointing games. Use Quantus for its breadth and this
# package for the paper's numbers, and in either case state the conventions.
