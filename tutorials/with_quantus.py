"""
With Quantus
============

`Quantus <https://github.com/understandable-machine-intelligence-lab/Quantus>`_ holds more than thirty measures of
explanations: is a map faithful to the model, stable under noise, on the object, sparse? It works with arrays and asks
for one thing: a function that explains a batch. This page writes that function for
:class:`~captum_scorecam.ScoreCAM`, runs five measures on it and on Captum's ``LayerGradCam``, and then goes through
the conventions that differ, since those decide the numbers as much as the method does.
"""

import matplotlib.pyplot as plt
import numpy as np
import quantus
import torch
from captum.attr import LayerGradCam
from matplotlib.patches import Rectangle
from PIL import Image
from skimage import data
from torch import nn

from captum_scorecam import InputSpaceAttribution, ScoreCAM
from captum_scorecam.metrics.functional import deletion, energy_pointing_game
from captum_scorecam.models.classifiers import load_classifier

# %%
# Three photographs that come with scikit-image, and EfficientNet-Lite0, whose own prediction is explained in each.
# The boxes were drawn by hand, around what the predicted word means: the localisation measures need them.

classifier = load_classifier("efficientnet_lite0")
photographs = [Image.fromarray(picture) for picture in (data.astronaut(), data.coffee(), data.rocket())]
boxes = [(122, 155, 224, 224), (30, 0, 184, 183), (105, 60, 123, 224)]  # x1, y1, x2, y2: helmet, cup, rocket
inputs = torch.cat([classifier.inputs(photograph) for photograph in photographs])
with torch.no_grad():
    probabilities, targets = classifier.model(inputs).softmax(1).max(1)

regions = np.zeros((3, 1, *inputs.shape[2:]), dtype=bool)
for region, (x1, y1, x2, y2) in zip(regions[:, 0], boxes, strict=True):
    region[y1:y2, x1:x2] = True
x_batch, y_batch = inputs.numpy(), targets.numpy()
for target, probability in zip(targets, probabilities, strict=True):
    print(f"{classifier.class_names[target]:20} {probability:.0%}")

# %%
# One function for Quantus
# ------------------------
#
# Quantus calls it as ``explain(model=…, inputs=…, targets=…, method=…)`` with NumPy arrays and wants an array back.
# ``InputSpaceAttribution`` brings a layer's map to the input's size, whichever layer attribution it wraps. Three
# things are easy to get wrong:
#
# - The layer is looked up in the ``model`` that *comes in*. Quantus' randomisation tests call with altered copies of
#   the model; a layer that was captured outside would belong to the original.
# - It takes more keywords than it needs: some measures pass the ``device`` on.
# - One channel is returned, N×1×H×W. The map is the same for all colour channels, the localisation measures compare
#   it with masks N×1×H×W, and the others spread it over the channels on their own.

METHODS = {
    "ScoreCAM": (ScoreCAM, {"max_channels": 32}),
    "LayerGradCam": (LayerGradCam, {"relu_attributions": True}),
}


def explain(model: nn.Module, inputs: np.ndarray, targets: np.ndarray, method: str, **_: object) -> np.ndarray:
    """Explains a batch the way Quantus wants it: arrays in, an array N×1×H×W out."""
    attribution, options = METHODS[method]
    layer = model.get_submodule("_avg_pooling")
    maps = InputSpaceAttribution(attribution(model, layer)).attribute(
        torch.as_tensor(inputs, dtype=torch.float32),
        target=torch.as_tensor(targets),
        attribute_to_layer_input=True,
        **options,
    )
    return maps[:, :1].detach().numpy()


# %%
# ``max_channels=32`` keeps this page short, as the sensitivity below explains every image again and again. Leave it
# out, or take more, where the map itself is what you are after.

maps = {method: explain(classifier.model, x_batch, y_batch, method) for method in METHODS}

figure, axes = plt.subplots(2, 3, figsize=(7.5, 5.3), layout="constrained")
for line, (method, found) in zip(axes, maps.items(), strict=True):
    for axis, image, heat, (x1, y1, x2, y2) in zip(line, inputs, found[:, 0], boxes, strict=True):
        axis.imshow((image.permute(1, 2, 0) + 1) / 2)
        axis.imshow(heat / heat.max(), cmap="jet", alpha=0.45, vmin=0, vmax=1)
        axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor="white", linewidth=2))
        axis.set(xticks=[], yticks=[])
    line[0].set_ylabel(method)
for axis, target in zip(axes[0], targets, strict=True):
    axis.set_title(classifier.class_names[target])
plt.show()

# %%
# "Football helmet" is less odd a word for the astronaut once the maps show where it comes from: the helmet beside
# her.

# %%
# Five measures, two methods
# --------------------------
#
# One measure of each kind. Which way is better is part of the name here:
#
# - *Faithfulness correlation* (up): paint random pixels over; does the score fall by as much as they held of the map?
# - *Pixel flipping* (down): paint the highest pixels over first, in 12 steps; the mean probability along the way.
# - *Max sensitivity* (down): how far does the map move, relative to itself, if little noise is added to the image?
# - *Sparseness* (up, if you like it sparse): the Gini index of the map.
# - *Relevance rank accuracy* (up): of as many highest pixels as the box has, the share inside the box.
#
# ``softmax=True`` makes the measures look at probabilities; Quantus' default is the raw output.

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


def per_image(scores: list[float] | list[list[float]]) -> np.ndarray:
    """One number for each image: pixel flipping gives a curve for each, of which the mean counts."""
    return np.reshape(scores, (len(x_batch), -1)).mean(1)


results = {}
for method in METHODS:
    np.random.seed(0)  # Quantus draws from NumPy's global generator: both methods meet the same random pixels and noise
    results |= quantus.evaluate(
        metrics=metrics,
        xai_methods={method: explain},
        model=classifier.model,
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
# Means over three images, so this shows how it is done, not which method is better. The single images say why:

figure, axes = plt.subplots(1, len(metrics), figsize=(9, 3.2), layout="constrained")
for axis, name in zip(axes, metrics, strict=True):
    for n, target in enumerate(targets):
        pair = [results[method][name][n] for method in METHODS]
        axis.plot([0, 1], pair, "o-", color=f"C{n}", label=classifier.class_names[target])
    axis.set(xlim=(-0.4, 1.4), xticks=[0, 1], xticklabels=["Score", "Grad"])
    axis.set_title(name, fontsize=10)
    axis.tick_params(labelsize=9)
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
plt.show()

# %%
# Where the three lines do not all lean to one side, the choice of images decides the mean. Where the images lie far
# apart and each line is nearly level, the measure tells images apart, not methods. The rocket in its box is narrower
# than one cell of the 7×7 map, so no class activation map of this layer can put most of its highest pixels inside.
# And the faithfulness correlation of 24 random draws is itself uncertain by about 1/√24 ≈ 0.2 for each image. For a
# comparison that means something, take many images and many runs.
#
# Conventions that decide the numbers
# -----------------------------------
#
# **Sign.** ``LayerGradCam`` gives negative values unless ``relu_attributions=True``; ScoreCAM's map has the ReLU, as
# in the paper. Some measures of Quantus take absolute values by default, which counts evidence *against* the class as
# evidence for it. It shows when we ask for a class that is not there: for each photograph, the class of another one.

absent = targets.roll(1)
signed = InputSpaceAttribution(LayerGradCam(classifier.model, classifier.model._avg_pooling)).attribute(
    inputs, target=absent, attribute_to_layer_input=True
)
signed = signed[:, :1].detach()
print(f"negative values: {(signed < 0).float().mean():.0%}")


def share_inside(**options: bool) -> float:
    """The share of the map that lies inside the box, as Quantus counts it."""
    metric = quantus.AttributionLocalisation(normalise=False, **options, **quiet)
    call = {"model": classifier.model, "x_batch": x_batch, "y_batch": absent.numpy(), "s_batch": regions}
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
# (The sentence about an absolute operation is Quantus' own, for ``abs=False``. Here that is what we want.) The last
# two agree, and are the paper's energy-based pointing game: ``AttributionLocalisation`` with ``abs=False,
# positive_attributions=True``.
#
# **What "painted over" means.** Quantus' default baseline ``"black"`` is the lowest value *of that image*. Ours is 0,
# as in Captum, which for this model's preprocessing is mid-grey. Above we passed ``perturb_baseline=0.0`` to make
# them equal.
#
# **What a step is.** Quantus counts *features*: a pixel of a colour image is three. Our
# :func:`~captum_scorecam.metrics.functional.deletion` counts pixels and starts with the untouched image.
#
# With these matched, pixel flipping *is* the deletion curve. The two lines below come from the two libraries.

theirs = metrics["Pixel\nflipping ↓"](
    model=classifier.model, x_batch=x_batch, y_batch=y_batch, a_batch=maps["ScoreCAM"], softmax=True, channel_first=True
)
curve = deletion(classifier.model, inputs, torch.from_numpy(maps["ScoreCAM"]), targets, step=1 / 12)
difference = np.abs(curve.scores[:, 1:].numpy() - np.array(theirs)).max()
print(f"largest difference between the curves: {difference:.4f}")

figure, axis = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
fractions = np.linspace(0, 1, 13)
for n, (target, ours, quantus_curve) in enumerate(zip(targets, curve.scores, theirs, strict=True)):
    axis.plot(fractions, ours, color=f"C{n}", linewidth=5, alpha=0.35)
    axis.plot(fractions[1:], quantus_curve, "--", color=f"C{n}", label=classifier.class_names[target])
axis.set(xlabel="share of the image painted over", ylabel="probability", xlim=(0, 1), ylim=(0, 1))
axis.set_title("broad: deletion, dashed: quantus.PixelFlipping")
axis.legend()
plt.show()

# %%
# What is left of a difference comes from ties: the map has one value for the three colours of a pixel, and Quantus
# orders them as three features, so the last pixel of a step can be painted over in part.
#
# The measures of the Score-CAM paper, average drop and increase, are not in Quantus: they are in
# :mod:`captum_scorecam.metrics`, with insertion, deletion and the pointing games beside them. Take Quantus for its
# breadth, ours for the paper's numbers, and say in either case which conventions you used.
