"""
Move from LayerGradCam to ScoreCAM
==================================

Suppose your code explains an image classifier with Captum's :class:`~captum.attr.LayerGradCam`, and you want to see
what Score-CAM says. This tutorial takes such code, changes one class name, and follows the maps through the rest of the
workflow: upsampling, Captum's visualization, a batch, several classes of one image, and
:class:`~captum.attr.NoiseTunnel`.

Grad-CAM weights each channel of a layer by the gradient of the class score: how would the score respond to a *small*
change of the channel? Score-CAM weights it by the score that the model returns when it sees *only* the part of the
image where the channel is active. That takes more forward passes, and no gradients.
"""

# %%
# A model and three photographs
# -----------------------------
#
# The ImageNet weights of EfficientNet-Lite0 come in a package, and the photographs come with scikit-image, so nothing
# is downloaded. For a torchvision model, only the names of the model and its layer change.

import matplotlib.pyplot as plt
import torch
from captum.attr import LayerAttribution, LayerGradCam, NoiseTunnel, visualization
from PIL import Image
from skimage import data
from torch import Tensor

from captum_scorecam import InputSpaceAttribution, ScoreCAM
from captum_scorecam.metrics.functional import energy_pointing_game, pointing_game
from captum_scorecam.models import imagenet_class_names, load_classifier, seen_pixels

classifier = load_classifier("efficientnet_lite0")
model, names = classifier.model, imagenet_class_names()

photographs = [Image.fromarray(pixels).convert("RGB") for pixels in (data.camera(), data.astronaut(), data.coffee())]
inputs = torch.cat([classifier.inputs(photograph) for photograph in photographs])
with torch.no_grad():
    probabilities = model(inputs).softmax(1)
predicted = probabilities.argmax(1)

for row, target in enumerate(predicted.tolist()):
    print(f"{names[target]}: {probabilities[row, target]:.1%}")

# %%
# The model is confident about two of the photographs. An astronaut is not among ImageNet's thousand classes; the model
# settles, without much confidence, for the helmet in her lap.
#
# Your Grad-CAM code
# ------------------
#
# One call explains the batch, with one target per image. We explain the last layer that still has spatial dimensions:
# the 7×7 maps that enter the average pooling, hence ``attribute_to_layer_input=True``. This model runs the same
# activation module at its stem and at its head, so explaining that module's output would be ambiguous.

layer = model.get_submodule("_avg_pooling")
grad_cam = LayerGradCam(model, layer)
grad_cam_maps = grad_cam.attribute(
    inputs, target=predicted, attribute_to_layer_input=True, relu_attributions=True
).detach()
print(tuple(grad_cam_maps.shape))

# %%
# The same with Score-CAM
# -----------------------
#
# The call stays the same. The constructor gets one option, to keep this tutorial fast: ``max_channels=64`` uses only
# the 64 channels of each image that vary most. We will see below what that changes. Omit it to run the published
# method.

score_cam = ScoreCAM(model, layer, max_channels=64)
score_cam_maps = score_cam.attribute(inputs, target=predicted, attribute_to_layer_input=True, relu_attributions=True)
print(tuple(score_cam_maps.shape))
assert score_cam_maps.shape == grad_cam_maps.shape

# %%
# The maps have the same shape, so the code that follows stays the same too. Here it is
# :meth:`~captum.attr.LayerAttribution.interpolate` and Captum's
# :func:`~captum.attr.visualization.visualize_image_attr`, in a function that draws one row of panels per image. The
# other tutorials use this package's :func:`~captum_scorecam.overlay`, which needs only the image and the map.

pixels = torch.stack([seen_pixels(x[None], classifier.preprocess) for x in inputs])  # normalisation undone


def upsampled(maps: Tensor) -> Tensor:
    """Resizes a layer's maps to the size of the inputs."""
    return LayerAttribution.interpolate(maps, tuple(inputs.shape[2:]), "bilinear")


def draw(rows: list[tuple[Tensor, ...]], titles: list[tuple[str, ...]]) -> None:
    """Draws one row of panels per image H×W×3: the image, then each map H×W over it."""
    figure, axes = plt.subplots(
        len(rows), len(rows[0]), figsize=(6.4, 2.4 * len(rows)), layout="constrained", squeeze=False
    )
    for row_axes, (image, *maps), row_titles in zip(axes, rows, titles, strict=True):
        row_axes[0].imshow(image)
        for axis, values in zip(row_axes[1:], maps, strict=True):
            visualization.visualize_image_attr(
                values.unsqueeze(2).numpy(),
                image.numpy(),
                method="blended_heat_map",
                sign="positive",
                cmap="inferno",
                alpha_overlay=0.6,
                plt_fig_axis=(figure, axis),
                use_pyplot=False,
            )
        for axis, title in zip(row_axes, row_titles, strict=True):
            axis.set_title(title, fontsize=14)
            axis.set_axis_off()


draw(
    [(pixels[n], upsampled(grad_cam_maps)[n, 0], upsampled(score_cam_maps)[n, 0]) for n in range(3)],
    [(names[target], "Grad-CAM", "Score-CAM") for target in predicted.tolist()],
)

# %%
# Both methods highlight the legs of the tripod, the helmet, and the coffee in the cup. The correlation of the 49 values
# of two maps says how similar they are:


def correlation(first: Tensor, second: Tensor) -> float:
    """Computes the correlation of two maps."""
    return torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1].item()


for n, target in enumerate(predicted.tolist()):
    similarity = correlation(grad_cam_maps[n], score_cam_maps[n])
    print(f"{names[target]}: {similarity:.2f}")
    assert similarity > 0.7, "the two methods should agree on these images"

# %%
# Agreement between two methods, one of which uses gradients and the other none, is better evidence than either map
# alone. Where they disagree, neither is right because of its name:
# :ref:`sphx_glr_tutorials_which_explanation_to_trust.py` turns to metrics.
#
# Several classes of one image
# ----------------------------
#
# The top-1 class is rarely the only interesting one. Did the model see the camera on the tripod? The model space
# shuttle behind the astronaut? :meth:`~captum_scorecam.ScoreCAM.attribute_targets` takes any number of targets, here
# two per image, and returns a map for each. A masked forward scores all classes at once, so a second class needs no
# further forwards.

others = torch.tensor([names.index(name) for name in ("reflex camera", "space shuttle", "cup")])
targets = torch.stack([predicted, others], dim=1)
one_target_forwards = score_cam.last_run.rows
maps = score_cam.attribute_targets(inputs, targets, attribute_to_layer_input=True)

print("maps:", tuple(maps.shape))
print("masked forwards, one target: ", one_target_forwards)
print("masked forwards, two targets:", score_cam.last_run.rows)
assert score_cam.last_run.rows == one_target_forwards
torch.testing.assert_close(maps[:, :1], score_cam_maps)  # the first target's maps are the ones from above

draw(
    [(pixels[n], *upsampled(maps)[n]) for n in range(3)],
    [("", *(f"{names[target]}\n{probabilities[n, target]:.2%}" for target in targets[n].tolist())) for n in range(3)],
)

# %%
# The map of the camera extends from the legs of the tripod up to the hands that hold the camera; the map of the shuttle
# peaks on the shuttle, not on the helmet. With a box around each object, the energy-based pointing game measures the
# share of a map inside the box:

objects = {  # class: image, and the box x1, y1, x2, y2 in pixels of the model's input
    "tripod": (0, (88, 132, 196, 224)),
    "reflex camera": (0, (104, 50, 164, 96)),
    "football helmet": (1, (118, 136, 224, 224)),
    "space shuttle": (1, (156, 0, 212, 118)),
}
for name, (n, box) in objects.items():
    shares = {
        names[target]: energy_pointing_game(upsampled(maps)[n : n + 1, t : t + 1], torch.tensor([[box]])).item()
        for t, target in enumerate(targets[n].tolist())
    }
    print(f"in the box of the {name}: " + ", ".join(f"{share:.0%} of the {of} map" for of, share in shares.items()))
    assert max(shares, key=lambda of: shares[of]) == name, "a box should hold more of its own class's map"

# %%
# Each box holds more of its own class's map than of the other's. Look at the probabilities too: the model considers
# the space shuttle very unlikely, and still the map finds it.

shuttle = names.index("space shuttle")
assert probabilities[1, shuttle] < 0.01, "the shuttle should be improbable"
print(f"space shuttle: {probabilities[1, shuttle]:.3%}")

# %%
# A class activation map is scaled to its own maximum before it is drawn. It shows *where* the evidence for a class is,
# not *how much* there is. Print the probability next to every map that you show.
#
# The third row shows another limit: the model recognises "espresso" and "cup" by the same region, and their maps hardly
# differ.

similarity = correlation(maps[2, 0], maps[2, 1])
print(f"correlation of the maps of espresso and cup: {similarity:.2f}")
assert similarity > 0.8, "the two maps of the cup should be similar"

# %%
# The cost, and what ``max_channels`` leaves out
# ----------------------------------------------
#
# The layer has 1280 channels. Not all of them need a forward: a channel that is constant over an image yields no mask,
# and channels with equal masks share a forward. Both shortcuts are exact. ``last_run`` reports the counts. Here is the
# first photograph with all channels, compared with its map of 64 channels:

published = ScoreCAM(model, layer)
all_channels = published.attribute(inputs[:1], target=predicted[:1], attribute_to_layer_input=True)
run = published.last_run
print(f"{run.channels} channels: {run.constant} constant, {run.shared} shared; {run.rows} forwards")
similarity = correlation(all_channels, score_cam_maps[0])
print(f"correlation of the two maps: {similarity:.3f}")
assert run.rows < 0.6 * run.channels, "at most 60 % of the channels should need a forward"
assert similarity > 0.95, "the map of 64 channels should be close to the map of all channels"

# %%
# The exact map takes forwards for about half of the channels, and the 64 channels with the largest standard deviation
# come close to it. That is good enough for exploring; for numbers that you publish, run all channels.
# :ref:`sphx_glr_tutorials_fast.py` shows more ways to save time.
#
# Captum's NoiseTunnel
# --------------------
#
# :class:`~captum.attr.NoiseTunnel` takes any attribution, but Captum's :func:`~captum.metrics.infidelity` and
# :func:`~captum.metrics.sensitivity_max` expect one with the shape of the *input*.
# :class:`~captum_scorecam.InputSpaceAttribution` wraps any layer attribution, including ``LayerGradCam``, and returns
# that shape. Here the map of the astronaut's helmet is averaged over three noisy copies of the photograph. NoiseTunnel
# draws from PyTorch's global generator, so we seed it inside a block that restores its state.

noise_tunnel = NoiseTunnel(InputSpaceAttribution(score_cam))
with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    smoothed = noise_tunnel.attribute(
        inputs[1:2],
        nt_type="smoothgrad",
        nt_samples=3,
        stdevs=0.3,
        target=predicted[1:2],
        attribute_to_layer_input=True,
    )
print(tuple(smoothed.shape))
assert smoothed.shape == inputs[1:2].shape

plain = upsampled(score_cam_maps)[1, 0]
draw([(pixels[1], plain, smoothed[0, 0])], [("football helmet", "Score-CAM", "with NoiseTunnel")])
helmet = torch.tensor([objects["football helmet"][1]])
for name, values in (("Score-CAM", plain), ("with NoiseTunnel", smoothed[0, 0])):
    on_helmet = pointing_game(values[None, None], [helmet], tolerance=0)
    share = energy_pointing_game(values[None, None], [helmet])
    print(f"{name}: maximum on the helmet: {bool(on_helmet)}, share of the map in its box: {share:.0%}")
    assert on_helmet, "the maximum should stay on the helmet"
assert share < energy_pointing_game(plain[None, None], [helmet]), "the average should be broader"

# %%
# The maximum stays on the helmet, and the average is broader than the map of the clean photograph: less of it lies in
# the box. How much a map changes under noise is itself a metric, :func:`~captum.metrics.sensitivity_max`; the next
# tutorial uses it.
#
# Summary
# -------
#
# - ``ScoreCAM(model, layer).attribute(...)`` takes the same call as ``LayerGradCam``. Two things differ: the ReLU is
#   on; and maps need no ``detach()``.
# - Explain several classes with ``attribute_targets``: they share one set of forwards, and the difference between the
#   maps of two classes says more than a single map.
# - A map shows where the evidence is, not how much.
# - ``InputSpaceAttribution`` adapts a layer attribution to the tools that expect the shape of the input.
#
# Which of the two methods, or of three others, should you believe on your images? See the next tutorial,
# :ref:`sphx_glr_tutorials_which_explanation_to_trust.py`.
