"""
Which explanation should I trust?
=================================

Ask five methods where a model looked, and you get five maps. There is no answer sheet to hold against them: nobody
knows what the model "really" looked at. What there is instead is measures. Each takes one thing that a good explanation
should do, and makes it a number.

This page asks five methods about three photographs, and measures their maps in six ways. A sixth map takes part in all
of them, one that has never seen the model. It shows how far each measure can be trusted itself.
"""

# %%
# Three photographs, one model
# ----------------------------
#
# EfficientNet-Lite0, which comes with its ImageNet weights in a package, and photographs that come with scikit-image.
# To keep this page quick, they are 176 pixels wide instead of 224, and every method gets less work than it should have.
# A study takes hundreds of images at full size; the settings that it would use stand beside ours.

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam, visualization
from captum.metrics import infidelity
from PIL import Image
from skimage import data

from captum_scorecam import RISE, InputSpaceAttribution, LayerGradCamPlusPlus, MeaningfulPerturbation, ScoreCAM
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
from captum_scorecam.models.classifiers import load_classifier

classifier = load_classifier("efficientnet_lite0")
model, names = classifier.model, classifier.class_names

photographs = [data.chelsea(), data.stereo_motorcycle()[0], data.camera()]
inputs = torch.cat([classifier.inputs(Image.fromarray(photograph).convert("RGB")) for photograph in photographs])
inputs = F.interpolate(inputs, (176, 176), mode="bilinear", antialias=True)
with torch.no_grad():
    probabilities, targets = model(inputs).softmax(1).max(1)
for probability, target in zip(probabilities, targets, strict=True):
    print(f"{names[target]}: {probability:.1%}")

# %%
# Five methods, and an impostor
# -----------------------------
#
# ``LayerGradCam`` and ``LayerGradCamPlusPlus`` use gradients, ``ScoreCAM`` masks the image with the layer's own
# channels, ``RISE`` with random masks, and ``MeaningfulPerturbation`` ("Mask") looks for the smallest region whose loss
# takes the class away. The first three explain a layer, here what goes into the average pooling
# (``attribute_to_layer_input``: the activation module before it runs twice in this model, so its output would not name
# one place); :class:`~captum_scorecam.InputSpaceAttribution` gives their maps the size of the image.

layer = model._avg_pooling
of_layer = {"attribute_to_layer_input": True, "relu_attributions": True}
METHODS = {
    "Grad-CAM": InputSpaceAttribution(LayerGradCam(model, layer)),
    "Grad-CAM++": InputSpaceAttribution(LayerGradCamPlusPlus(model, layer)),
    "Score-CAM": InputSpaceAttribution(ScoreCAM(model, layer)),
    "RISE": RISE(model),
    "Mask": MeaningfulPerturbation(model),
}
OPTIONS = {  # a study: no `max_channels`, 4000 masks, 300 iterations at the default learning rate
    "Grad-CAM": of_layer,
    "Grad-CAM++": of_layer,
    "Score-CAM": of_layer | {"max_channels": 80},
    "RISE": {"n_masks": 120},
    "Mask": {"n_iterations": 30, "learning_rate": 0.3},
}
QUICK_OPTIONS = OPTIONS | {  # for the measures that explain an image again and again
    "Score-CAM": of_layer | {"max_channels": 32},
    "RISE": {"n_masks": 60},
    "Mask": {"n_iterations": 10, "learning_rate": 0.3},
}


def explain(method, inputs, targets, options):
    """Returns a method's maps N×1×H×W; what it draws at random is the same in every call."""
    generator = {"generator": torch.Generator().manual_seed(0)} if method in ("RISE", "Mask") else {}
    return METHODS[method].attribute(inputs, target=targets, **options[method], **generator)[:, :1].detach()


maps = {method: explain(method, inputs, targets, OPTIONS) for method in METHODS}

# %%
# The impostor is a round blob in the middle of the picture. It knows that photographers put things in the middle. It
# knows nothing about the model or the class, so whatever it achieves is not the merit of an explanation.

ramp = torch.linspace(-1, 1, inputs.shape[3])
blob = torch.exp(-(ramp**2 + ramp.unsqueeze(1) ** 2) / (2 * 0.6**2))
maps["blob"] = blob.expand(len(inputs), 1, -1, -1).contiguous()

pixels = ((inputs * 128 + 127) / 255).clamp(0, 1).permute(0, 2, 3, 1).numpy()  # what the model saw, not normalised
page = plt.figure(figsize=(6.4, 14.7), layout="constrained")
for n, (target, figure) in enumerate(zip(targets.tolist(), page.subfigures(3, 1), strict=True)):
    axes = figure.subplots(2, 3)
    for (method, values), axis in zip(maps.items(), axes.flat, strict=True):
        scaled = (values[n] - values[n].min()) / (values[n].max() - values[n].min())
        visualization.visualize_image_attr(
            scaled.permute(1, 2, 0).numpy(),
            pixels[n],
            method="blended_heat_map",
            sign="positive",
            cmap="inferno",
            alpha_overlay=0.6,
            plt_fig_axis=(page, axis),
            use_pyplot=False,
        )
        axis.set_title(method, fontsize=14)
        axis.set_axis_off()
    figure.suptitle(f"{names[target]}, {probabilities[n]:.0%}", fontsize=15)

# %%
# The first three are smooth, since they are 6×6 maps, upsampled. RISE and Mask may go anywhere, and with so little work
# they also go where there is nothing to see. By the look of it one would take one of the first three; but the blob
# looks just as convincing on the cat and on the moped. So, on to numbers.
#
# Keep what it shows: average drop and increase
# ---------------------------------------------
#
# Multiply the image with the map, scaled to [0, 1]. If the map is good, what the class needs is still there: the
# probability drops little (average drop, lower is better), or even rises (average increase, higher is better).
# :func:`~captum_scorecam.metrics.functional.masked_input_scores` runs the masked images. Two variants are in use: the
# whole map, or only the half of the pixels where it is highest.

RESULTS = {method: {} for method in maps}
for method, values in maps.items():
    for name, keep_fraction in (("whole", None), ("half", 0.5)):
        scores = masked_input_scores(model, inputs, values, targets, keep_fraction=keep_fraction)
        RESULTS[method][f"drop, {name}"] = average_drop(*scores).item()
        RESULTS[method][f"increase, {name}"] = average_increase(*scores).item()


def table(results, columns):
    """Prints numbers by method and measure."""
    print(" " * 10 + "".join(f"{column:>{len(column) + 3}}" for column in columns))
    for method, row in results.items():
        print(f"{method:10}" + "".join(f"{row[column]:>{len(column) + 3}.3g}" for column in columns))


table(RESULTS, ["drop, whole", "drop, half", "increase, whole", "increase, half"])

# %%
# The impostor does well. With the whole map it loses less than each of the three class activation maps:

of_the_blob = RESULTS["blob"]["drop, whole"]
for method in ("Grad-CAM", "Grad-CAM++", "Score-CAM"):
    assert of_the_blob < RESULTS[method]["drop, whole"], "the blob should have the lower drop"
    print(f"average drop of {method} − average drop of the blob: {RESULTS[method]['drop, whole'] - of_the_blob:.1f}")

# %%
# It profits from the photographers: what stands in the middle stays in the light. There is a second way to a low drop
# that explains nothing, and that is to be broad. How broad is a map? Its mean, once it is scaled to [0, 1], is the
# share of the light that it lets through:

for method, values in maps.items():
    lowest, highest = values.amin((2, 3), keepdim=True), values.amax((2, 3), keepdim=True)
    RESULTS[method]["light"] = ((values - lowest) / (highest - lowest)).mean().item()
table(RESULTS, ["light", "drop, whole"])

by_light = sorted(METHODS, key=lambda method: RESULTS[method]["light"], reverse=True)
by_drop = sorted(METHODS, key=lambda method: RESULTS[method]["drop, whole"])
assert set(by_light[:2]) == set(by_drop[:2]) == {"RISE", "Mask"}, (
    "these should be the broadest and have the lowest drop"
)

# %%
# Of the five methods, RISE and Mask let through the most light and lose the least. That may be chance, or merit. To see
# what breadth does alone, take a map and change nothing else: its square root, or its fourth root, has its hills in the
# same places and in the same order, only flatter. The average drop of Score-CAM's maps, flattened:

FLATTENED = {}
for name, power in (("map", 1), ("square root", 1 / 2), ("fourth root", 1 / 4)):
    flattened = maps["Score-CAM"] ** power
    scores = masked_input_scores(model, inputs, flattened, targets, keep_fraction=None)
    FLATTENED[name] = average_drop(*scores).item()
    print(f"{name:12} average drop {FLATTENED[name]:.2f}")
assert FLATTENED["map"] > FLATTENED["square root"] > FLATTENED["fourth root"], "flatter should be better"

# %%
# Nothing was explained better from line to line. So compare average drops only between maps that keep the same share of
# the image. Keeping half of the pixels goes in that direction, though within the half a flat map still has the
# advantage; ``mask="binary"`` goes all the way. And mind the average *increase*: it counts photographs. Among three it
# can take four values.
#
# Take it apart in its order: insertion and deletion
# --------------------------------------------------
#
# The pixels appear on a blurred image (insertion), or vanish from the image (deletion), the highest of the map first. A
# good map finds what matters early: the probability rises, or falls, at once. The measure is the area under the curve:
# high is good for insertion, low for deletion. A study takes a hundred steps, we take ten.

insertions = {method: insertion(model, inputs, values, targets, step=0.1) for method, values in maps.items()}
deletions = {method: deletion(model, inputs, values, targets, step=0.1) for method, values in maps.items()}
for method in maps:
    RESULTS[method]["insertion"] = insertions[method].auc.mean().item()
    RESULTS[method]["deletion"] = deletions[method].auc.mean().item()

figure, axes = plt.subplots(2, 1, figsize=(6.4, 7.5), layout="constrained")
plot_curves(insertions, xlabel="share of pixels inserted", ylabel="probability", axes=axes[0])
plot_curves(deletions, xlabel="share of pixels deleted", ylabel="probability", axes=axes[1])
table(RESULTS, ["insertion", "deletion"])
assert RESULTS["Grad-CAM"]["deletion"] < RESULTS["blob"]["deletion"], "Grad-CAM should beat the blob"

# %%
# These curves ask for the order of the pixels only, so flattening a map changes nothing. The blob loses its advantage:
# when what it points at vanishes, the model holds on for longer than with Grad-CAM's map. The measure has a weakness of
# its own: half-erased photographs are like nothing that the model was trained on, and what it says about them is partly
# about the erasing.

flattened = insertion(model, inputs, maps["Score-CAM"] ** (1 / 4), targets, step=0.1)
assert (flattened.auc - insertions["Score-CAM"].auc).abs().max() < 0.01, "insertion should not see the flattening"

# %%
# Add up: infidelity
# ------------------
#
# Take a square away, at random. What the score loses should be what the map holds in that square. Captum's
# :func:`~captum.metrics.infidelity` is the mean square of the difference, after the best common scale was chosen
# (``normalize=True``, since a class activation map has no unit); lower is better. It is told how to perturb: the
# function returns what goes into the sum, here the square itself, and the image without it.


def without_square(repeated_inputs):
    """Returns a random square for each row, and the row without it."""
    squares = torch.zeros_like(repeated_inputs)
    generator = torch.Generator().manual_seed(0)  # the same squares for each method
    for square in squares:
        top, left = torch.randint(0, square.shape[1] - 64, (2,), generator=generator).tolist()
        square[:, top : top + 64, left : left + 64] = 1
    return squares, repeated_inputs * (1 - squares)


for method, values in maps.items():
    spread = values.expand_as(inputs).contiguous()
    with torch.no_grad():
        each = infidelity(model, without_square, inputs, spread, target=targets, n_perturb_samples=6, normalize=True)
    RESULTS[method]["infidelity"] = each.mean().item()
table(RESULTS, ["infidelity"])
for method in ("Grad-CAM", "Grad-CAM++", "Score-CAM"):
    assert RESULTS[method]["infidelity"] < RESULTS["blob"]["infidelity"], f"{method} should beat the blob"

# %%
# Here the three class activation maps are ahead of the blob. But another kind of perturbation is another measure, and
# may give another order. Say which one you used, with its size.
#
# Stay calm: sensitivity
# ----------------------
#
# Noise that nobody sees should not change the map. :func:`~captum_scorecam.metrics.functional.sensitivity_max` calls
# Captum's measure of that name: the largest relative change of the map under small noise; lower is better. Each sample
# costs a whole explanation, so we ask about one photograph, and one sample (a study: ten).

photographer, tripod = inputs[2:], targets[2:]
with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)  # RISE and Mask draw from the global generator here, the same in each call
    for method in METHODS:
        each = sensitivity_max(
            METHODS[method],
            photographer,
            tripod,
            n_perturb_samples=1,
            perturb_radius=0.05,
            generator=torch.Generator().manual_seed(0),
            **QUICK_OPTIONS[method],
        )
        RESULTS[method]["sensitivity"] = each.item()
RESULTS["blob"]["sensitivity"] = 0.0  # nothing changes it
table(RESULTS, ["sensitivity"])

# %%
# The winner is the blob, and nothing can beat it: what never looks is never disturbed. Calm is worth something only in
# a map that depends on the model. Which is the last question.
#
# Depend on the model: the sanity check
# -------------------------------------
#
# Replace what the model has learned by random numbers, here those of the classifier ``_fc`` at its end: the features
# are as they were, but the model no longer knows what a tripod is. A map that explains the model's answer must change.
# :func:`~captum_scorecam.metrics.functional.cascading_parameter_randomization` gives the rank correlation of each new
# map with the old one: low is good, the old map is gone. A study goes on to the layers before.

EXPLAIN = {method: lambda x, method=method: explain(method, x, targets, QUICK_OPTIONS) for method in METHODS}
EXPLAIN["blob"] = lambda _: maps["blob"]
for method, explain_inputs in EXPLAIN.items():
    (check,) = cascading_parameter_randomization(
        model, explain_inputs, inputs, layers=["_fc"], generator=torch.Generator().manual_seed(0)
    )
    RESULTS[method]["sanity"] = check.spearman.mean().item()
table(RESULTS, ["sanity"])
assert RESULTS["Grad-CAM"]["sanity"] < RESULTS["Score-CAM"]["sanity"] - 0.2, "Grad-CAM should notice more"
assert min(RESULTS[method]["sanity"] for method in ("Grad-CAM++", "Score-CAM", "blob")) > 0.7, "these should not"

# %%
# The blob fails, as it should. But Score-CAM and Grad-CAM++ hardly notice, either, where Grad-CAM's map becomes
# another. The reason is in their formulas. Both weigh the channels by numbers that are never negative, so whatever the
# weights are, the map is a mean of the channels, and the channels are what they were. Grad-CAM's weights have both
# signs: channels can cancel each other. Score-CAM has such weights too, as an option:

signed = QUICK_OPTIONS["Score-CAM"] | {"channel_weighting": "increase"}
(check,) = cascading_parameter_randomization(
    model,
    lambda x: explain("Score-CAM", x, targets, {"Score-CAM": signed}),
    inputs,
    layers=["_fc"],
    generator=torch.Generator().manual_seed(0),
)
print(f"Score-CAM: {RESULTS['Score-CAM']['sanity']:.2f}")
print(f"Score-CAM with channel_weighting='increase': {check.spearman.mean():.2f}")
assert check.spearman.mean() < RESULTS["Score-CAM"]["sanity"] - 0.3, "signed weights should change the map more"

# %%
# So a single map of positive weights tells first of all where the features are that the model has, and only then which
# of them speak for the class. To see the class in it, compare the maps of two classes, as in
# :ref:`sphx_glr_tutorials_from_grad_cam_to_score_cam.py`.
#
# Side by side
# ------------
#
# All in one picture: each column is a measure, and 1 is its best map.

HIGHER_IS_BETTER = {
    "drop, whole": False,
    "drop, half": False,
    "insertion": True,
    "deletion": False,
    "infidelity": False,
    "sensitivity": False,
    "sanity": False,
}
values = torch.tensor([[RESULTS[method][measure] for measure in HIGHER_IS_BETTER] for method in maps])
badness = torch.where(torch.tensor(list(HIGHER_IS_BETTER.values())), -values, values)
ranks = 1 + (badness.unsqueeze(0) < badness.unsqueeze(1)).sum(1)  # how many are better, and one

figure, axis = plt.subplots(figsize=(6.4, 5.2), layout="constrained")
axis.imshow(ranks, cmap="Blues_r", vmin=0, vmax=7)
axis.set_xticks(range(len(HIGHER_IS_BETTER)), HIGHER_IS_BETTER, rotation=45, ha="right", fontsize=14)
axis.set_yticks(range(len(maps)), maps, fontsize=14)
for row, column in torch.cartesian_prod(*map(torch.arange, ranks.shape)).tolist():
    rank = int(ranks[row, column])
    axis.text(column, row, rank, ha="center", va="center", fontsize=15, color="white" if rank <= 3 else "black")

wins = (ranks == 1).any(1)
print("first in at least one column:", ", ".join(method for method, won in zip(maps, wins, strict=True) if won))
assert not (ranks == 1).all(1).any(), "no map should be the best by all measures"
assert wins.sum() >= 3, "the measures should disagree about the best map"

# %%
# No row is first everywhere, and the measures do not agree on a winner. Three photographs and little work for each
# method are no ground for ranking *methods*: with other images, and with full settings, the order changes. What does
# not depend on them is what the measures can tell and what they can't:
#
# - **Average drop** favours broad maps. Use it between maps that keep the same area.
# - **Insertion and deletion** look at the order only, and show the model pictures of a kind that it never met.
# - **Infidelity** depends on the perturbation that you choose, and **sensitivity** is best for a map that ignores
#   everything. Neither makes sense alone.
# - **The sanity check** can fail a map, not pass it: noise would change too.
# - None of them knows the truth. Where you can plant it, as in :ref:`sphx_glr_tutorials_debugging_a_classifier.py`, do.
#
# So which explanation should you trust? One that survives a check it could have failed: it beats a blob, it changes
# with the class and with the model, and another method, built on another idea, points to the same place. And report
# more than one measure, with an impostor among the maps.
#
# From here to a data set, with intervals and many images, it is one command, ``captum-scorecam evaluate``: see
# :doc:`/guide/evaluating`.
