"""
Get a Score-CAM map in a second
===============================

Score-CAM runs the model once for each channel of a layer. Most of these runs can be predicted from a few, and the
prediction says how good it is. This tutorial computes a map from a fraction of the forward passes, shows its standard
error, and lets :class:`~captum_scorecam.ScoreCAM` stop by itself when the map is good enough.

The model is EfficientNet-Lite0 with its ImageNet weights. All times were measured on the machine that built this page.
"""

from time import perf_counter

import matplotlib.pyplot as plt
import torch
from PIL import Image
from skimage import data
from torch import Tensor

from captum_scorecam import ScoreCAM
from captum_scorecam.models import load_classifier, seen_pixels

classifier = load_classifier("efficientnet_lite0")
model = classifier.model
photograph = Image.fromarray(data.coffee())
inputs = classifier.inputs(photograph)
seen = seen_pixels(inputs, classifier.preprocess)  # cropped and resized, as the model sees it
target = int(classifier.predict(inputs).scores.argmax())
print((classifier.class_names or [])[target])


def correlation(first: Tensor, second: Tensor) -> float:
    """Returns the correlation of two maps."""
    return float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])


# %%
# The exact map
# -------------
#
# The head of the network has 1280 channels. Constant channels are skipped and equal ones share a forward pass, and
# what remains takes its time.

exact = ScoreCAM(model, "auto")
start = perf_counter()
exact_map = exact.attribute(inputs, target)
seconds = perf_counter() - start
print(f"{exact.last_run.rows} forward passes, {seconds:.1f} s")

# %%
# A number of forward passes
# --------------------------
#
# With ``max_forwards`` that many masks are run. They are chosen so that they determine most of the map, and a Gaussian
# process predicts the scores of the others. ``attribute_with_error`` returns the map and the standard error of each
# cell.

budget = ScoreCAM(model, "auto", max_forwards=57)
budget.attribute(inputs, target)  # finds the layer
start = perf_counter()
quick_map, errors = budget.attribute_with_error(inputs, target)
seconds = perf_counter() - start
print(f"{budget.last_run.rows} forward passes, {seconds:.1f} s, correlation {correlation(quick_map, exact_map):.3f}")

# %%
# The difference from the exact map is about as large as the error says: at most two standard errors in most cells. That
# can be checked here, since the exact map is known; usually the error is all there is.

difference = (quick_map - exact_map).abs()
print(f"{(difference <= 2 * errors).float().mean():.0%} of the cells differ by at most two standard errors")

figure, axes = plt.subplots(1, 4, figsize=(11, 3), layout="constrained")
panels = {"exact": exact_map, "57 forwards": quick_map, "difference": difference, "standard error": errors}
for ax, (title, values) in zip(axes, panels.items(), strict=True):
    most = exact_map.max() if title in ("exact", "57 forwards") else 2 * errors.max()
    ax.imshow(seen, extent=(0, 7, 7, 0))
    ax.imshow(values[0, 0], cmap="inferno", vmin=0, vmax=float(most), extent=(0, 7, 7, 0), alpha=0.75)
    ax.set_title(title)
    ax.set_axis_off()
plt.show()

# %%
# An error instead of a number
# ----------------------------
#
# How many passes a map needs depends on the image and the layer. With ``error=0.03`` the largest standard error will be
# at most 3 % of the map's largest value.

careful = ScoreCAM(model, "auto", error=0.03)
careful_map = careful.attribute(inputs, target)
run = careful.last_run
print(f"{run.rows} forward passes, error {run.errors[0]:.3f}, correlation {correlation(careful_map, exact_map):.4f}")

# %%
# All weightings from the same passes
# -----------------------------------
#
# :meth:`~captum_scorecam.ScoreCAM.channel_scores` returns the scores of the channels. Maps of every weighting follow
# from them, and so do the channels that made the map.

scores = exact.channel_scores(inputs, [target])
increase = scores.maps("increase")[0]
print(f"softmax and increase: correlation {correlation(scores.maps()[0], increase):.3f}")

# %%
# :meth:`~captum_scorecam.ChannelScores.plot` draws the strongest channels: what each lets the model see, its score and
# its weight.

figure = plt.figure(figsize=(11, 2.6), layout="compressed")
scores.plot(seen, figure=figure)
plt.show()

# %%
# :doc:`/methods/budget` has the mathematics and says where it fails.
