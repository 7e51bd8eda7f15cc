"""
With Quantus
============

`Quantus <https://github.com/understandable-machine-intelligence-lab/Quantus>`_ holds more than thirty measures of
explanations: is a map faithful to the model, stable under noise, on the object, sparse? It works with arrays and asks for
one thing: a function that explains a batch. This page writes that function for :class:`~captum_scorecam.ScoreCAM`, runs
five measures on it and on Captum's ``LayerGradCam``, and then goes through the conventions that differ, since those
decide the numbers as much as the method does.
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
from captum_scorecam.classification.classifiers import load_classifier
from captum_scorecam.metrics.functional import deletion, energy_pointing_game

# %%
# Three photographs that come with scikit-image, and EfficientNet-Lite0. The boxes around the objects were drawn by hand;
# the localisation measures need them.

classifier = load_classifier("efficientnet_lite0")
photographs = [Image.fromarray(picture) for picture in (data.astronaut(), data.coffee(), data.rocket())]
boxes = [(0, 54, 166, 224), (30, 0, 184, 183), (105, 60, 123, 224)]  # x1, y1, x2, y2: suit, cup, rocket
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
# ``InputSpaceAttribution`` brings a layer's map to the input's size, whichever layer attribution it wraps. Two lines are
# easy to get wrong:
#
# - The layer is looked up in the ``model`` that *comes in*. Quantus' randomisation tests call with altered copies of the
#   model; a layer that was captured outside would belong to the original.
# - One channel is returned, N×1×H×W. The map is the same for all colour channels, the localisation measures compare it
#   with masks N×1×H×W, and the others spread it over the channels on their own.

METHODS = {
    "ScoreCAM": (ScoreCAM, {"max_channels": 32}),
    "LayerGradCam": (LayerGradCam, {"relu_attributions": True}),
}


def explain(model: nn.Module, inputs: np.ndarray, targets: np.ndarray, method: str) -> np.ndarray:
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
# ``max_channels=32`` keeps this page short, as the sensitivity below explains every image again and again. Leave it out,
# or take more, where the map itself is what you are after.

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
# Five measures, two methods
# --------------------------
#
# One measure of each kind. Which way is better is part of the name here:
#
# - *Faithfulness correlation* (up): paint random pixels over; does the score fall by as much as they held of the map?
# - *Pixel flipping* (down): paint the highest pixels over first, in 16 steps; the mean probability along the way.
# - *Max sensitivity* (down): how far does the map move, relative to itself, if little noise is added to the image?
# - *Sparseness* (up, if you like it sparse): the Gini index of the map.
# - *Relevance rank accuracy* (up): of as many highest pixels as the box has, the share inside the box.
#
# ``softmax=True`` makes the measures look at probabilities; Quantus' default is the raw output.

SIDE = inputs.shape[-1]
quiet = {"disable_warnings": True}
metrics = {
    "Faithfulness correlation ↑": quantus.FaithfulnessCorrelation(
        nr_runs=32, subset_size=3 * SIDE * SIDE // 8, perturb_baseline=0.0, return_aggregate=False, **quiet
    ),
    "Pixel flipping ↓": quantus.PixelFlipping(features_in_step=3 * SIDE * SIDE // 16, perturb_baseline=0.0, **quiet),
    "Max sensitivity ↓": quantus.MaxSensitivity(nr_samples=2, lower_bound=0.1, **quiet),
    "Sparseness ↑": quantus.Sparseness(**quiet),
    "Relevance rank accuracy ↑": quantus.RelevanceRankAccuracy(**quiet),
}

np.random.seed(0)  # Quantus draws from NumPy's global generator
results = quantus.evaluate(
    metrics=metrics,
    xai_methods=dict.fromkeys(METHODS, explain),
    model=classifier.model,
    x_batch=x_batch,
    y_batch=y_batch,
    s_batch=regions,
    agg_func=np.mean,
    explain_func_kwargs={},
    call_kwargs={"probabilities": {"softmax": True, "channel_first": True, "device": "cpu"}},
    return_as_df=True,
)
print(results.round(3).to_string())

# %%
# Every cell is a mean over three images, so this table shows how it is done, not which method is better. Read it with
# the pictures: the measures want different things. A broad map does well where a region is painted over softly or the
# box is large; a narrow one is sparse.
#
# Conventions that decide the numbers
# -----------------------------------
#
# **Sign.** ``LayerGradCam`` gives negative values unless ``relu_attributions=True``; ScoreCAM's map has the ReLU, as in the
# paper. Some measures of Quantus take absolute values by default, which turns evidence *against* the class into
# evidence for it. The share of a map inside the box, for Captum's default map:

signed = InputSpaceAttribution(LayerGradCam(classifier.model, classifier.model._avg_pooling)).attribute(
    inputs, target=targets, attribute_to_layer_input=True
)
signed = signed[:, :1].detach()
call = {"model": classifier.model, "x_batch": x_batch, "y_batch": y_batch, "s_batch": regions, "channel_first": True}


def share_inside(attributions: torch.Tensor, **options: bool) -> float:
    metric = quantus.AttributionLocalisation(normalise=False, **options, **quiet)
    return float(np.mean(metric(**call, a_batch=attributions.numpy())))


absolute = share_inside(signed)
positive = share_inside(signed, abs=False, positive_attributions=True)
ours = float(energy_pointing_game(signed, torch.from_numpy(regions[:, 0])))
print(f"Quantus' default, absolute values  {absolute:.3f}")
print(f"Quantus, positive values only      {positive:.3f}")
print(f"energy_pointing_game               {ours:.3f}")
if abs(positive - ours) > 1e-3:
    raise RuntimeError("Quantus and energy_pointing_game should agree on positive values.")

# %%
# The last two agree, and are the paper's energy-based pointing game: ``AttributionLocalisation`` with
# ``abs=False, positive_attributions=True``.
#
# **What "painted over" means.** Quantus' default baseline ``"black"`` is the lowest value *of that image*. Ours is 0, as in
# Captum, which for this model's preprocessing is mid-grey. Above we passed ``perturb_baseline=0.0`` to make them equal.
#
# **What a step is.** Quantus counts *features*: a pixel of a colour image is three. Our
# :func:`~captum_scorecam.metrics.functional.deletion` counts pixels and starts with the untouched image.
#
# With these matched, pixel flipping *is* the deletion curve. The two lines below come from the two libraries.

theirs = metrics["Pixel flipping ↓"](
    model=classifier.model, x_batch=x_batch, y_batch=y_batch, a_batch=maps["ScoreCAM"], softmax=True, channel_first=True
)
curve = deletion(classifier.model, inputs, torch.from_numpy(maps["ScoreCAM"]), targets, step=1 / 16)
difference = np.abs(curve.scores[:, 1:].numpy() - np.array(theirs)).max()
print(f"largest difference between the curves: {difference:.4f}")

figure, axis = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
fractions = np.linspace(0, 1, 17)
for n, (target, ours, quantus_curve) in enumerate(zip(targets, curve.scores, theirs, strict=True)):
    axis.plot(fractions, ours, color=f"C{n}", linewidth=5, alpha=0.35)
    axis.plot(fractions[1:], quantus_curve, "--", color=f"C{n}", label=classifier.class_names[target])
axis.set(xlabel="share of the image painted over", ylabel="probability", xlim=(0, 1), ylim=(0, 1))
axis.set_title("broad: deletion, dashed: quantus.PixelFlipping")
axis.legend()
plt.show()
