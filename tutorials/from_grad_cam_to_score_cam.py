"""
From LayerGradCam to ScoreCAM
=============================

You have code that explains an image classifier with Captum's :class:`~captum.attr.LayerGradCam`, and you want to know
what Score-CAM says. This page takes such a piece of code, changes one name in it, and follows the maps through the rest
of the workflow: upsampling, Captum's visualization, a batch, several classes of one image, and
:class:`~captum.attr.NoiseTunnel`.

Grad-CAM weighs each channel of a layer by the gradient of the class score: what would happen if the channel changed a
*little*. Score-CAM weighs it by what happens when the model sees *only* the part of the image where the channel is
active. The second question costs more forward passes, and asks for no gradient.
"""

# %%
# A model and three photographs
# -----------------------------
#
# EfficientNet-Lite0 comes with its ImageNet weights in a package, and the photographs come with scikit-image, so
# nothing is downloaded here. With a model of torchvision the lines are the same but for the names.

import matplotlib.pyplot as plt
import torch
from captum.attr import LayerAttribution, LayerGradCam, NoiseTunnel, visualization
from PIL import Image
from skimage import data

from captum_scorecam import InputSpaceAttribution, ScoreCAM
from captum_scorecam.metrics.functional import energy_pointing_game, pointing_game
from captum_scorecam.models.classifiers import load_classifier

classifier = load_classifier("efficientnet_lite0")
model, names = classifier.model, classifier.class_names

photographs = [Image.fromarray(pixels).convert("RGB") for pixels in (data.camera(), data.astronaut(), data.coffee())]
inputs = torch.cat([classifier.inputs(photograph) for photograph in photographs])
with torch.no_grad():
    probabilities = model(inputs).softmax(1)
predicted = probabilities.argmax(1)

for row, target in enumerate(predicted.tolist()):
    print(f"{names[target]}: {probabilities[row, target]:.1%}")

# %%
# Two of the answers are confident. The astronaut is not among ImageNet's thousand classes, and the model settles,
# without much conviction, for the helmet in her lap.
#
# Grad-CAM, as you have it
# ------------------------
#
# One call for the batch, with one target for each image. The layer is the last place where the features still have a
# place in the image: the 7×7 maps that go into the average pooling. That is what ``attribute_to_layer_input=True``
# says. It is needed because this model runs one and the same activation module both at its stem and at its head, so the
# output of that module would not name one place.

layer = model._avg_pooling
grad_cam = LayerGradCam(model, layer)
grad_cam_maps = grad_cam.attribute(
    inputs, target=predicted, attribute_to_layer_input=True, relu_attributions=True
).detach()
print(tuple(grad_cam_maps.shape))

# %%
# Score-CAM, by changing the name
# -------------------------------
#
# The arguments stay. One is added, to keep this page quick: ``max_channels=64`` runs the 64 channels of each image that
# vary most, and leaves out the others; we come back to what that changes. Leave it away for the method as its paper has
# it.

score_cam = ScoreCAM(model, layer)
score_cam_maps = score_cam.attribute(
    inputs, target=predicted, attribute_to_layer_input=True, relu_attributions=True, max_channels=64
)
print(tuple(score_cam_maps.shape))
assert score_cam_maps.shape == grad_cam_maps.shape

# %%
# What comes back has the same shape, so what follows in your code stays too. Here it is
# :meth:`~captum.attr.LayerAttribution.interpolate` and Captum's
# :func:`~captum.attr.visualization.visualize_image_attr`, in a function that draws one row of panels for each image.

pixels = ((inputs * 128 + 127) / 255).clamp(0, 1).permute(0, 2, 3, 1).numpy()  # what the model saw, not normalised


def upsampled(maps):
    """Returns maps of a layer at the size of the inputs."""
    return LayerAttribution.interpolate(maps, tuple(inputs.shape[2:]), "bilinear")


def draw(rows, titles):
    """Draws a row of panels for each image: the image, or a map H×W over the image."""
    figure, axes = plt.subplots(
        len(rows), len(rows[0]), figsize=(6.4, 2.4 * len(rows)), layout="constrained", squeeze=False
    )
    for row_axes, (image, *maps), row_titles in zip(axes, rows, titles, strict=True):
        row_axes[0].imshow(image)
        for axis, values in zip(row_axes[1:], maps, strict=True):
            visualization.visualize_image_attr(
                values.unsqueeze(2).numpy(),
                image,
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
    [(names[target], "LayerGradCam", "ScoreCAM") for target in predicted.tolist()],
)

# %%
# Both look at the tripod's legs, at the helmet, and at the coffee in the cup. How alike two maps are can be put into a
# number, the correlation of their 49 values:


def correlation(one, other):
    """Returns the correlation of two maps."""
    return torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1].item()


for n, target in enumerate(predicted.tolist()):
    alike = correlation(grad_cam_maps[n], score_cam_maps[n])
    print(f"{names[target]}: {alike:.2f}")
    assert alike > 0.7, "the two methods should agree on these images"

# %%
# That two methods agree, where one uses gradients and the other none, is worth more than either map alone. Where they
# disagree, neither is right by its name: :ref:`sphx_glr_tutorials_which_explanation_to_trust.py` puts the question to
# measures.
#
# Several classes of one image
# ----------------------------
#
# The model's first choice is rarely the only interesting class. Did it see the camera on the tripod? And the model of
# the space shuttle behind the astronaut? :meth:`~captum_scorecam.ScoreCAM.attribute_targets` takes any number of
# targets, here two for each image, and gives a map for each. A masked forward gives the scores of all classes at once,
# so a second class costs no second set of forwards.

others = torch.tensor([names.index(name) for name in ("reflex camera", "space shuttle", "cup")])
targets = torch.stack([predicted, others], dim=1)
one_target_forwards = score_cam.last_run.rows
maps = score_cam.attribute_targets(inputs, targets, attribute_to_layer_input=True, max_channels=64)

print("maps:", tuple(maps.shape))
print("masked forwards, one target: ", one_target_forwards)
print("masked forwards, two targets:", score_cam.last_run.rows)
assert score_cam.last_run.rows == one_target_forwards
torch.testing.assert_close(maps[:, :1], score_cam_maps)  # the first target's maps are those that we had

draw(
    [(pixels[n], *upsampled(maps)[n]) for n in range(3)],
    [("", *(f"{names[target]}\n{probabilities[n, target]:.2%}" for target in targets[n].tolist())) for n in range(3)],
)

# %%
# The camera's map climbs from the legs of the tripod to the hands that hold the camera; the shuttle's map leaves the
# helmet altogether. With a box around each object, the energy-based pointing game tells how much of a map lies in the
# box:

objects = {  # class: image, and the box x1, y1, x2, y2 in the pixels of the model's input
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
    print(f"in the box of the {name}: " + ", ".join(f"{share:.0%} of {of}'s map" for of, share in shares.items()))
    assert max(shares, key=shares.get) == name, "a class's map should have more in its own box than the other class's"

# %%
# Each box holds more of its own class's map than of the other's. Look at the probabilities as well: the model gives the
# space shuttle next to nothing, and still the map finds it.

shuttle = names.index("space shuttle")
assert probabilities[1, shuttle] < 0.01, "the shuttle should be improbable"
print(f"space shuttle: {probabilities[1, shuttle]:.3%}")

# %%
# A class activation map is scaled to its own maximum before it is drawn. It says *where* the evidence for a class is,
# and nothing about *how much* there is. Print the probability beside every map that you show.
#
# The third row shows the other limit: "espresso" and "cup" are read off the same place, and their maps tell little
# apart.

alike = correlation(maps[2, 0], maps[2, 1])
print(f"correlation of the maps of espresso and cup: {alike:.2f}")
assert alike > 0.8, "the two maps of the cup should be alike"

# %%
# What it costs, and what ``max_channels`` leaves out
# ---------------------------------------------------
#
# The layer has 1280 channels. Not all of them need a forward: a channel that is constant over an image has no mask, and
# channels with equal masks share a forward. Both shortcuts are exact. ``last_run`` keeps the account. Here is the first
# photograph with all channels, compared with its map of 64 channels:

all_channels = score_cam.attribute(inputs[:1], target=predicted[:1], attribute_to_layer_input=True)
run = score_cam.last_run
print(f"{run.channels} channels: {run.constant} constant, {run.shared} shared; {run.rows} forwards")
alike = correlation(all_channels, score_cam_maps[0])
print(f"correlation of the two maps: {alike:.3f}")
assert run.rows < 0.6 * run.channels, "little more than half of the channels should have to run"
assert alike > 0.95, "the map of 64 channels should be close to that of all"

# %%
# About half of the channels have to run for the exact map, and the 64 of largest standard deviation come close to it.
# That is enough to look around with; for numbers that you publish, run all of them. :ref:`sphx_glr_tutorials_fast.py`
# shows what else makes it quick.
#
# On through Captum: NoiseTunnel
# ------------------------------
#
# Some of Captum's tools expect attributions of the *input's* shape: :class:`~captum.attr.NoiseTunnel`,
# :func:`~captum.metrics.infidelity`, :func:`~captum.metrics.sensitivity_max`.
# :class:`~captum_scorecam.InputSpaceAttribution` wraps a layer attribution, ``LayerGradCam`` too, and gives them what
# they expect. Here the map of the astronaut's helmet is averaged over three noisy copies of the photograph. NoiseTunnel
# draws from PyTorch's global generator, so it is seeded within a block that puts it back.

smooth = NoiseTunnel(InputSpaceAttribution(score_cam))
with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    smoothed = smooth.attribute(
        inputs[1:2],
        nt_type="smoothgrad",
        nt_samples=3,
        stdevs=0.3,
        target=predicted[1:2],
        attribute_to_layer_input=True,
        max_channels=64,
    )
print(tuple(smoothed.shape))
assert smoothed.shape == inputs[1:2].shape

plain = upsampled(score_cam_maps)[1, 0]
draw([(pixels[1], plain, smoothed[0, 0])], [("football helmet", "ScoreCAM", "in a NoiseTunnel")])
helmet = torch.tensor([objects["football helmet"][1]])
for name, values in (("ScoreCAM", plain), ("in a NoiseTunnel", smoothed[0, 0])):
    on_helmet = pointing_game(values[None, None], [helmet], tolerance=0)
    share = energy_pointing_game(values[None, None], [helmet])
    print(f"{name}: maximum on the helmet: {bool(on_helmet)}, share of the map in its box: {share:.0%}")
    assert on_helmet, "the helmet should stay the brightest place"
assert share < energy_pointing_game(plain[None, None], [helmet]), "the average should be broader"

# %%
# The helmet stays the brightest place, and the average is broader than the map of the clean photograph: in some of the
# copies, other parts of the suit counted too. How much a map moves under noise can itself be measured, by
# :func:`~captum.metrics.sensitivity_max`; the next page does.
#
# What to take along
# ------------------
#
# - ``ScoreCAM(model, layer).attribute(...)`` takes ``LayerGradCam``'s call. One default differs: the ReLU is on.
# - Ask for several classes with ``attribute_targets``: one set of forwards serves them all, and the difference between
#   two classes' maps says more than one map.
# - A map says where, not how much.
# - ``InputSpaceAttribution`` leads on to the tools that want the input's shape.
#
# Which of the two methods, or of three others, should you believe on your images? That is the next page,
# :ref:`sphx_glr_tutorials_which_explanation_to_trust.py`.
