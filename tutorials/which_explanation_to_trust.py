"""
Compare explanations with metrics
=================================

Ask five methods where a model looked, and you get five maps. There is no ground truth to compare them with: nobody
knows what the model "really" looked at. There are metrics instead, and each turns one property of a good explanation
into a number.

This tutorial explains three photographs with five methods and evaluates the maps with seven metrics. A sixth map, which
knows nothing about the model, serves as a control: it shows how far each metric itself can be trusted.
"""

# %%
# Three photographs and a model
# -----------------------------
#
# The ImageNet weights of EfficientNet-Lite0 come in a package, the photographs with scikit-image. To keep this tutorial
# fast, the images are 176 pixels wide instead of 224, and every method runs with less than its usual settings. A study
# would use hundreds of images at full size; its settings are noted in the comments.

from collections.abc import Callable
from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from captum.attr import Attribution, LayerGradCam
from captum.metrics import infidelity
from PIL import Image
from skimage import data
from torch import Tensor

from captum_scorecam import (
    RISE,
    InputSpaceAttribution,
    LayerGradCamPlusPlus,
    MeaningfulPerturbation,
    ScoreCAM,
    overlay,
)
from captum_scorecam.metrics import plot_curves
from captum_scorecam.metrics.functional import (
    average_drop,
    average_increase,
    cascading_parameter_randomization,
    deletion,
    insertion,
    masked_input_scores,
    sensitivity_max,
)
from captum_scorecam.models import imagenet_class_names, load_classifier, seen_pixels

classifier = load_classifier("efficientnet_lite0")
model, names = classifier.model, imagenet_class_names()

photographs = [data.chelsea(), data.stereo_motorcycle()[0], data.camera()]
inputs = torch.cat([classifier.inputs(Image.fromarray(photograph).convert("RGB")) for photograph in photographs])
inputs = F.interpolate(inputs, (176, 176), mode="bilinear", antialias=True)
with torch.no_grad():
    probabilities, targets = model(inputs).softmax(1).max(1)
for probability, target in zip(probabilities, targets, strict=True):
    print(f"{names[target]}: {probability:.1%}")

# %%
# Five methods and a control
# --------------------------
#
# ``LayerGradCam`` and ``LayerGradCamPlusPlus`` use gradients, ``ScoreCAM`` masks the image with the channels of a
# layer, ``RISE`` masks it at random, and ``MeaningfulPerturbation`` ("Mask") searches for the smallest region whose
# deletion removes the class. The first three explain a layer, here the input of the average pooling
# (``attribute_to_layer_input``, as the activation module before the pooling runs twice in this model);
# :class:`~captum_scorecam.InputSpaceAttribution` resizes their maps to the image.

layer = model.get_submodule("_avg_pooling")
METHODS = {  # a study: no `max_channels`, 4000 masks, 300 iterations at the default learning rate
    "Grad-CAM": InputSpaceAttribution(LayerGradCam(model, layer)),
    "Grad-CAM++": InputSpaceAttribution(LayerGradCamPlusPlus(model, layer)),
    "Score-CAM": InputSpaceAttribution(ScoreCAM(model, layer, max_channels=80)),
    "RISE": RISE(model, n_masks=120),
    "Mask": MeaningfulPerturbation(model, n_iterations=30, learning_rate=0.3),
}
QUICK_METHODS = METHODS | {  # for the metrics that compute new maps
    "Score-CAM": InputSpaceAttribution(ScoreCAM(model, layer, max_channels=32)),
    "RISE": RISE(model, n_masks=60),
    "Mask": MeaningfulPerturbation(model, n_iterations=10, learning_rate=0.3),
}


def call_options(method: Attribution) -> dict[str, Any]:
    """Returns the arguments of ``attribute`` that methods of a layer need."""
    explains_layer = isinstance(method, InputSpaceAttribution)
    return {"attribute_to_layer_input": True, "relu_attributions": True} if explains_layer else {}


def explain(method: Attribution, inputs: Tensor) -> Tensor:
    """Returns a method's maps N×1×H×W; RISE and Mask draw the same random numbers in every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        maps = method.attribute(inputs, target=targets, **call_options(method))
    return maps[:, :1].detach()


maps = {name: explain(method, inputs) for name, method in METHODS.items()}

# %%
# The control is a round blob in the middle of the image, where photographers tend to place their subject. It depends on
# neither the model nor the class, so a good score of the blob says nothing about explanations.

ramp = torch.linspace(-1, 1, inputs.shape[3])
blob = torch.exp(-(ramp**2 + ramp.unsqueeze(1) ** 2) / (2 * 0.6**2))
maps["Blob"] = blob.expand(len(inputs), 1, -1, -1).contiguous()

page = plt.figure(figsize=(6.4, 14.7), layout="constrained")
for n, (target, figure) in enumerate(zip(targets, page.subfigures(3, 1).flat, strict=True)):
    axes = figure.subplots(2, 3)
    for (name, values), axis in zip(maps.items(), axes.flat, strict=True):
        axis.imshow(overlay(seen_pixels(inputs[n : n + 1], classifier.preprocess), values[n]))
        axis.set_title(name, fontsize=14)
        axis.set_axis_off()
    figure.suptitle(f"{names[target]}, {probabilities[n]:.0%}", fontsize=15)

# %%
# The first three maps are smooth because they are upsampled from 6×6. RISE and Mask are not tied to a layer, and with
# so few masks and iterations their maps also highlight background. By appearance, one would pick one of the first
# three; but on the cat and the moped the blob looks just as convincing. On to the metrics.
#
# Average drop and increase: keep only what the map highlights
# ------------------------------------------------------------
#
# Multiply the image by the map, scaled to [0, 1]. If the map is good, the evidence for the class is still there: the
# probability drops little (average drop, lower is better) or even rises (average increase, higher is better).
# :func:`~captum_scorecam.metrics.functional.masked_input_scores` scores the masked images. Two variants are in use:
# the full map, or only the half of the pixels where it is highest.

RESULTS: dict[str, dict[str, float]] = {name: {} for name in maps}
for name, values in maps.items():
    for part, keep_fraction in (("full", None), ("half", 0.5)):
        scores = masked_input_scores(model, inputs, values, targets, keep_fraction=keep_fraction)
        RESULTS[name][f"drop, {part}"] = average_drop(*scores).item()
        RESULTS[name][f"increase, {part}"] = average_increase(*scores).item()


def print_table(columns: list[str]) -> None:
    """Prints the results by method and metric."""
    print(" " * 10 + "".join(f"{column:>{len(column) + 3}}" for column in columns))
    for name, row in RESULTS.items():
        print(f"{name:10}" + "".join(f"{row[column]:>{len(column) + 3}.3g}" for column in columns))


print_table(["drop, full", "drop, half", "increase, full", "increase, half"])

# %%
# The blob does well. With the full map, its average drop is lower than that of each of the three class activation maps:

blob_drop = RESULTS["Blob"]["drop, full"]
for name in ("Grad-CAM", "Grad-CAM++", "Score-CAM"):
    assert blob_drop < RESULTS[name]["drop, full"], "the blob should have the lower drop"
    print(f"average drop of {name} − average drop of the blob: {RESULTS[name]['drop, full'] - blob_drop:.1f}")

# %%
# It benefits from centre bias. There is a second way to achieve a low drop without explaining anything: being broad.
# The mean of a scaled map is the fraction of the image that it lets through:


def scaled(maps: Tensor) -> Tensor:
    """Scales each map to [0, 1]."""
    lowest, highest = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return (maps - lowest) / (highest - lowest)


for name, values in maps.items():
    RESULTS[name]["mean"] = scaled(values).mean().item()
print_table(["mean", "drop, full"])

broadest = sorted(METHODS, key=lambda name: RESULTS[name]["mean"], reverse=True)[:2]
lowest_drop = sorted(METHODS, key=lambda name: RESULTS[name]["drop, full"])[:2]
assert set(broadest) == set(lowest_drop) == {"RISE", "Mask"}, "these should be the broadest and have the lowest drop"

# %%
# Of the five methods, RISE and Mask let through the most and have the lowest drop. That may be merit. To isolate the
# effect of breadth, take the square root of a map, or its fourth root: the peaks stay in place and the order of the
# pixels stays the same, but the map is flatter. The average drop of Score-CAM's maps, flattened:

FLATTENED: dict[str, float] = {}
for name, power in (("map", 1), ("square root", 1 / 2), ("fourth root", 1 / 4)):
    scores = masked_input_scores(model, inputs, maps["Score-CAM"] ** power, targets, keep_fraction=None)
    FLATTENED[name] = average_drop(*scores).item()
    print(f"{name:12} average drop {FLATTENED[name]:.2f}")
assert FLATTENED["map"] > FLATTENED["square root"] > FLATTENED["fourth root"], "flatter should be better"

# %%
# The explanation is the same in each line. So compare average drops only between maps that keep the same fraction of
# the image. Keeping half of the pixels is a step in that direction, though a flat map still has the advantage within
# the half; ``mask="binary"`` removes it. And the average *increase* counts images: with three, it has only four
# possible values.
#
# Insertion and deletion: one pixel after the other
# -------------------------------------------------
#
# Insertion reveals the pixels of a blurred image, deletion removes the pixels of the image, starting where the map is
# highest. If the map ranks the important pixels first, the probability rises or falls early. The metric is the area
# under the curve: higher is better for insertion, lower for deletion. A study takes a hundred steps; we take ten.

insertions = {name: insertion(model, inputs, values, targets, step=0.1) for name, values in maps.items()}
deletions = {name: deletion(model, inputs, values, targets, step=0.1) for name, values in maps.items()}
for name in maps:
    RESULTS[name]["insertion"] = insertions[name].auc.mean().item()
    RESULTS[name]["deletion"] = deletions[name].auc.mean().item()

figure, axes = plt.subplots(2, 1, figsize=(6.4, 8), layout="constrained")
plot_curves(insertions, xlabel="share of pixels inserted", ylabel="probability", axes=axes[0])
plot_curves(deletions, xlabel="share of pixels deleted", ylabel="probability", axes=axes[1])
print_table(["insertion", "deletion"])
assert RESULTS["Grad-CAM"]["deletion"] < RESULTS["Blob"]["deletion"], "Grad-CAM should beat the blob"

# %%
# These curves depend only on the order of the pixels, so flattening a map changes nothing. The blob loses its advantage
# in deletion: the probability falls more slowly than with Grad-CAM's map. Insertion and deletion have a weakness of
# their own: half-deleted photographs are unlike anything in the training data, so the model partly responds to the
# deletion itself.

flattened = insertion(model, inputs, maps["Score-CAM"] ** (1 / 4), targets, step=0.1)
assert (flattened.auc - insertions["Score-CAM"].auc).abs().max() < 0.01, "insertion should not depend on flattening"

# %%
# Infidelity: does the map add up?
# --------------------------------
#
# Remove a random square. The score should fall by what the map holds in that square. Captum's
# :func:`~captum.metrics.infidelity` is the mean squared difference after the best common rescaling (``normalize=True``,
# as a class activation map has no unit); lower is better. Its perturbation function returns two tensors: the weights
# for the sum over the map, here 1 inside the square, and the image without the square.


def without_square(repeated_inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Returns a random square for each row, and the row without it."""
    squares = torch.zeros_like(repeated_inputs)
    generator = torch.Generator().manual_seed(0)  # the same squares for each method
    for square in squares:
        top, left = torch.randint(0, square.shape[1] - 64, (2,), generator=generator).tolist()
        square[:, top : top + 64, left : left + 64] = 1
    return squares, repeated_inputs * (1 - squares)


for name, values in maps.items():
    per_channel = values.expand_as(inputs).contiguous()
    with torch.no_grad():
        per_image = infidelity(
            model, without_square, inputs, per_channel, target=targets, n_perturb_samples=6, normalize=True
        )
    RESULTS[name]["infidelity"] = per_image.mean().item()
print_table(["infidelity"])
for name in ("Grad-CAM", "Grad-CAM++", "Score-CAM"):
    assert RESULTS[name]["infidelity"] < RESULTS["Blob"]["infidelity"], f"{name} should beat the blob"

# %%
# Here the three class activation maps beat the blob. But a different perturbation makes a different metric, and may
# rank the methods differently. Report which perturbation you used, and its size.
#
# Sensitivity: does the map survive noise?
# ----------------------------------------
#
# Imperceptible noise should not change the map. :func:`~captum_scorecam.metrics.functional.sensitivity_max` calls
# Captum's metric of that name: the largest relative change of the map under small noise; lower is better. Every sample
# computes a whole map, so we use one photograph and one sample (a study: ten).

photographer, tripod = inputs[2:], targets[2:]
with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)  # RISE and Mask draw from the global generator here, the same in each call
    for name, method in QUICK_METHODS.items():
        RESULTS[name]["sensitivity"] = sensitivity_max(
            method,
            photographer,
            tripod,
            n_perturb_samples=1,
            perturb_radius=0.05,
            generator=torch.Generator().manual_seed(0),
            **call_options(method),
        ).item()
RESULTS["Blob"]["sensitivity"] = 0.0  # constant
print_table(["sensitivity"])

# %%
# The blob wins, and nothing can beat it: a constant map is perfectly stable. Stability is worth something only if the
# map depends on the model, which is what the last metric tests.
#
# Sanity check: does the map depend on the model?
# -----------------------------------------------
#
# Replace learned weights by random ones, here those of the final classifier ``_fc``: the features stay the same, but
# the model no longer knows what a tripod is. A map that explains the model's answer must change.
# :func:`~captum_scorecam.metrics.functional.cascading_parameter_randomization` returns the rank correlation of each new
# map with the original one; low is good, as the original map is gone. A study continues to the earlier layers.


def sanity(explain_inputs: Callable[[Tensor], Tensor]) -> float:
    """Computes the mean rank correlation of the maps before and after randomisation of ``_fc``."""
    (similarity,) = cascading_parameter_randomization(
        model, explain_inputs, inputs, layers=["_fc"], generator=torch.Generator().manual_seed(0)
    )
    return similarity.spearman.mean().item()


for name, method in QUICK_METHODS.items():
    RESULTS[name]["sanity"] = sanity(partial(explain, method))
RESULTS["Blob"]["sanity"] = sanity(lambda _: maps["Blob"])
print_table(["sanity"])
assert RESULTS["Grad-CAM"]["sanity"] < RESULTS["Score-CAM"]["sanity"] - 0.2, "Grad-CAM should change more"
assert min(RESULTS[name]["sanity"] for name in ("Grad-CAM++", "Score-CAM", "Blob")) > 0.7, "these should hardly change"

# %%
# The blob fails, as it should. But Score-CAM and Grad-CAM++ hardly change either, whereas Grad-CAM does. The formulas
# explain why. Score-CAM's and Grad-CAM++'s channel weights are never negative, so the map is a weighted mean of the
# channels whatever the weights are, and the channels stay the same. Grad-CAM's weights have both signs, so channels can
# cancel out. Score-CAM offers such weights as an option:

signed = InputSpaceAttribution(ScoreCAM(model, layer, max_channels=32, channel_weighting="increase"))
signed_sanity = sanity(partial(explain, signed))
print(f"Score-CAM: {RESULTS['Score-CAM']['sanity']:.2f}")
print(f"Score-CAM with channel_weighting='increase': {signed_sanity:.2f}")
assert signed_sanity < RESULTS["Score-CAM"]["sanity"] - 0.3, "signed weights should change the map more"

# %%
# So a single map with positive weights shows mainly where the model has features at all, and only secondarily which of
# them support the class. To see the class, compare the maps of two classes, as in
# :ref:`sphx_glr_tutorials_from_grad_cam_to_score_cam.py`.
#
# All metrics side by side
# ------------------------
#
# The methods, ranked by each metric; 1 is the best.

HIGHER_IS_BETTER = {
    "drop, full": False,
    "drop, half": False,
    "insertion": True,
    "deletion": False,
    "infidelity": False,
    "sensitivity": False,
    "sanity": False,
}
table = torch.tensor([[RESULTS[name][metric] for metric in HIGHER_IS_BETTER] for name in maps])
costs = torch.where(torch.tensor(list(HIGHER_IS_BETTER.values())), -table, table)
ranks = 1 + (costs.unsqueeze(0) < costs.unsqueeze(1)).sum(1)  # one more than the number of better methods

figure, axis = plt.subplots(figsize=(6.4, 5.2), layout="constrained")
axis.imshow(ranks, cmap="Blues_r", vmin=0, vmax=7)
axis.set_xticks(range(len(HIGHER_IS_BETTER)), list(HIGHER_IS_BETTER), rotation=45, ha="right", fontsize=14)
axis.set_yticks(range(len(maps)), list(maps), fontsize=14)
for row, column in torch.cartesian_prod(*map(torch.arange, ranks.shape)).tolist():
    rank = int(ranks[row, column])
    axis.text(column, row, str(rank), ha="center", va="center", fontsize=15, color="white" if rank <= 3 else "black")

wins = (ranks == 1).any(1)
print("best by at least one metric:", ", ".join(name for name, won in zip(maps, wins, strict=True) if won))
assert not (ranks == 1).all(1).any(), "no map should be the best by all metrics"
assert wins.sum() >= 3, "the metrics should disagree about the best map"

# %%
# No method is best by every metric, and the metrics do not agree on a winner. Three photographs and reduced settings
# are no basis for ranking *methods*: other images or full settings can change the order. What the metrics can and
# cannot tell does not depend on them:
#
# - **Average drop** favours broad maps. Use it to compare maps that keep the same area.
# - **Insertion and deletion** depend only on the order of the pixels, and show the model images far from its training
#   data.
# - **Infidelity** depends on the chosen perturbation, and **sensitivity** is best for a map that ignores everything.
#   Neither is meaningful alone.
# - **The sanity check** can reject a map but cannot confirm it: pure noise would change too.
# - None of them knows the truth. Where you can plant it, as in :ref:`sphx_glr_tutorials_debugging_a_classifier.py`, do.
#
# So which explanation should you trust? One that passes tests it could have failed: it beats a blob, it changes with
# the class and with the model, and another method, built on a different idea, highlights the same place. Report more
# than one metric, and include a control.
#
# To run these metrics on a data set, with confidence intervals, use one command, ``captum-scorecam evaluate``: see
# :doc:`/guide/evaluating`.
