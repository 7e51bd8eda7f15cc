"""
Explain signals, volumes, segmentation and transformers
=======================================================

Score-CAM asks how much of a class score remains when only the places that a channel highlights stay visible. Nothing
about that is specific to photographs. It takes a layer with spatial dimensions, an input with the same number of
spatial dimensions, and a score. This tutorial applies it to four kinds of models:

- a 1-D network that detects a premature heartbeat in an ECG,
- a 3-D network that detects a nodule in a volume,
- a segmentation network, which classifies every pixel,
- a Vision Transformer, whose layers return tokens rather than maps.

All data are generated and all four networks are trained by this script, in seconds. Speed is not the only reason: we
place the evidence ourselves, so we know where it is and can evaluate the maps instead of admiring them. Each section
ends with a number, the share of the map's energy that lies on the evidence
(:func:`~captum_scorecam.metrics.functional.energy_pointing_game`), next to the share of a uniform map.
"""

import math

import matplotlib.pyplot as plt
import torch
from captum.attr import LayerAttribution
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import VisionTransformer

from captum_scorecam import RISE, InputSpaceAttribution, ScoreCAM, vit_activation_maps
from captum_scorecam.metrics.functional import energy_pointing_game

torch.manual_seed(0)  # initial weights
generator = torch.Generator().manual_seed(0)  # data


def uniform(*size: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(size, generator=generator)


def noise(*size: int) -> Tensor:
    return torch.randn(size, generator=generator)


def train(model: nn.Module, inputs: Tensor, labels: Tensor, epochs: int, learning_rate: float = 3e-3) -> nn.Module:
    """Trains with Adam and batches of 32; returns the model in evaluation mode."""
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, epochs * (-(-len(inputs) // 32)))
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs), generator=generator).split(32):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    return float((model(inputs).argmax(1) == labels).float().mean())


def compare_with_uniform_map(maps: Tensor, evidence: Tensor) -> tuple[float, float]:
    """Prints and returns the share of the energy on the evidence, for the maps and for a uniform map."""
    energy = float(energy_pointing_game(maps, evidence))
    uniform_energy = float(evidence.float().mean())
    print(f"energy on the evidence: {energy:.0%}, of a uniform map: {uniform_energy:.0%} ({len(maps)} examples)")
    return energy, uniform_energy


# %%
# A signal: which heartbeat?
# --------------------------
#
# An ECG of a few heartbeats is a tensor of shape N×1×512. Each beat consists of a small P wave, the sharp QRS complex
# and a broad T wave. In half of the recordings one beat comes early, without a P wave and with a wide complex: a
# premature ventricular contraction. The label only says that there is one, not where.

LENGTH = 512


def wave(time: Tensor, centre: float, width: float, height: float) -> Tensor:
    return height * torch.exp(-0.5 * ((time - centre) / width) ** 2)


def ecg(premature: bool) -> tuple[Tensor, Tensor]:
    """Generates a recording of 512 samples and the mask of its premature beat."""
    time, signal, evidence = torch.arange(LENGTH).float(), torch.zeros(LENGTH), torch.zeros(LENGTH, dtype=torch.bool)
    gap = float(uniform(1, low=75, high=95))
    centres = torch.arange(gap / 2, LENGTH - 20, gap) + 3 * noise(len(torch.arange(gap / 2, LENGTH - 20, gap)))
    which = int(torch.randint(1, len(centres) - 1, (1,), generator=generator)) if premature else -1
    for number, centre in enumerate(centres.tolist()):
        if number == which:
            centre -= 0.25 * gap
            signal += wave(time, centre, 7, 0.9) + wave(time, centre + 20, 8, -0.45)
            evidence |= (time > centre - 21) & (time < centre + 44)
        else:
            signal += wave(time, centre - 17, 4, 0.15) + wave(time, centre - 4, 1.5, -0.12)
            signal += wave(time, centre, 2, 1.0) + wave(time, centre + 5, 2, -0.2) + wave(time, centre + 24, 7, 0.25)
    return signal + 0.03 * noise(LENGTH), evidence


def ecgs(number: int) -> tuple[Tensor, Tensor, Tensor]:
    labels = torch.arange(number) % 2
    signals, evidence = zip(*(ecg(bool(label)) for label in labels), strict=True)
    return torch.stack(signals).unsqueeze(1), labels, torch.stack(evidence)


def layer_1d(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(channels, out, 7, stride=2, padding=3), nn.BatchNorm1d(out), nn.ReLU())


ecg_net = nn.Sequential(
    layer_1d(1, 16), layer_1d(16, 32), layer_1d(32, 32), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 2)
)
train(ecg_net, *ecgs(400)[:2], epochs=8)
signals, labels, evidence = ecgs(100)
print(f"accuracy on 100 new recordings: {accuracy(ecg_net, signals, labels):.1%}")

# %%
# The call is the same as for images. The layer's maps are N×32×64: each channel is upsampled linearly to 512 samples
# and masks the signal. A masked sample becomes 0, which in an ECG is the flat line between beats: a baseline that means
# "nothing here". If 0 means something in your signals, pass a different one as ``baselines``.

with_premature = signals[labels == 1]
maps = ScoreCAM(ecg_net, ecg_net[2]).attribute(with_premature, target=1)
print("signals", tuple(with_premature.shape), "maps", tuple(maps.shape))

maps = LayerAttribution.interpolate(maps, (LENGTH,), "linear")
energy, uniform_energy = compare_with_uniform_map(maps, evidence[labels == 1])
if energy < 3 * uniform_energy:
    raise RuntimeError("The maps are not on the premature beats.")

# %%
# Three of the recordings, with each sample coloured by its attribution. The grey band marks the premature beat, whose
# position the network was never given.


def draw_signal(axis: Axes, signal: Tensor, attribution: Tensor, where: Tensor) -> PathCollection:
    time = torch.arange(LENGTH)
    axis.fill_between(time, -0.8, 1.5, where=where, color="0.88", linewidth=0)
    axis.plot(time, signal, color="0.7", linewidth=1)
    points = axis.scatter(time, signal, c=attribution / attribution.max(), cmap="inferno_r", s=9, zorder=2)
    axis.set(xlim=(0, LENGTH - 1), ylim=(-0.8, 1.5), yticks=[])
    return points


figure, axes = plt.subplots(3, 1, figsize=(7, 5), sharex=True, layout="constrained")
for n, axis in enumerate(axes):
    points = draw_signal(axis, with_premature[n, 0], maps[n, 0], evidence[labels == 1][n])
axes[0].set_title("Score-CAM for 'premature beat' (grey: the premature beat)")
axes[-1].set_xlabel("sample")
figure.colorbar(points, ax=axes, label="attribution", shrink=0.6)
plt.show()

# %%
# A volume: which slice?
# ----------------------
#
# Each volume, N×1×16×32×32, contains two bright vessels. Half of the volumes also contain a nodule: a ball as bright as
# the vessels, so brightness does not give it away and the network has to learn the shape.

DEPTH, SIDE = 16, 32
z, y, x = torch.meshgrid(torch.arange(DEPTH), torch.arange(SIDE), torch.arange(SIDE), indexing="ij")


def volumes(number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Generates volumes, their labels (1: with a nodule) and masks of the nodules."""
    labels = torch.arange(number) % 2
    coarse = noise(number, 1, 4, 8, 8)
    images = 0.15 * F.interpolate(coarse, (DEPTH, SIDE, SIDE), mode="trilinear")
    images += 0.1 * noise(number, 1, DEPTH, SIDE, SIDE)
    evidence = torch.zeros(number, DEPTH, SIDE, SIDE, dtype=torch.bool)
    for image, label, where in zip(images[:, 0], labels, evidence, strict=True):
        for start_y, start_x, slope_y, slope_x in uniform(2, 4, low=-1).tolist():
            centre_y, centre_x = 16 + 12 * start_y + slope_y * (z - 8), 16 + 12 * start_x + slope_x * (z - 8)
            image += torch.exp(-((((y - centre_y) ** 2 + (x - centre_x) ** 2) / 4) ** 2))
        if label:
            centre_z, centre_y, centre_x = (uniform(3) * torch.tensor([DEPTH - 9, SIDE - 9, SIDE - 9]) + 4).tolist()
            distance = ((z - centre_z) ** 2 + (y - centre_y) ** 2 + (x - centre_x) ** 2) / 20
            image += torch.exp(-(distance**2))
            where |= distance < 1.2
    return images, labels, evidence


def layer_3d(channels: int, out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(channels, out, 3, stride=stride, padding=1), nn.BatchNorm3d(out), nn.ReLU())


volume_net = nn.Sequential(
    layer_3d(1, 8, 2), layer_3d(8, 16, 1), layer_3d(16, 16, 1), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(16, 2)
)
train(volume_net, *volumes(400)[:2], epochs=7)
scans, labels, evidence = volumes(40)
print(f"accuracy on 40 new volumes: {accuracy(volume_net, scans, labels):.1%}")

# %%
# Again the call is the same. ``InputSpaceAttribution`` takes care of the interpolation: it wraps any layer attribution
# and returns maps with the shape of the input, trilinearly interpolated for volumes.
#
# One option is worth a look. The default weighting is a softmax over the channels, designed for layers with hundreds of
# them. This layer has 16, and channels unrelated to the class still get their share of the weight. With
# ``channel_weighting="increase"``, a channel is weighted by how much its masked input scores *above* an empty one,
# which may be zero or negative.

with_nodule, where = scans[labels == 1], evidence[labels == 1]
score_cam = InputSpaceAttribution(ScoreCAM(volume_net, volume_net[1]))
print("softmax,", end=" ")
compare_with_uniform_map(score_cam.attribute(with_nodule, target=1), where)
print("increase,", end=" ")
score_cam = InputSpaceAttribution(ScoreCAM(volume_net, volume_net[1], channel_weighting="increase"))
maps = score_cam.attribute(with_nodule, target=1)
energy, uniform_energy = compare_with_uniform_map(maps, where)
if energy < 3 * uniform_energy:
    raise RuntimeError("The maps are not on the nodules.")

# %%
# One volume, every third slice: the input on top, the map below, with the nodule's outline in both.

n = 0
slices = range(1, DEPTH, 3)
figure, axes = plt.subplots(2, len(slices), figsize=(7.5, 3.5), layout="constrained")
for column, depth in zip(axes.T, slices, strict=True):
    column[0].imshow(with_nodule[n, 0, depth], cmap="gray", vmin=-0.3, vmax=1.3)
    column[1].imshow(maps[n, 0, depth], cmap="inferno", vmin=0, vmax=float(maps[n].max()))
    for axis in column:
        if where[n, depth].any():
            axis.contour(where[n, depth], levels=[0.5], colors="cyan", linewidths=1.2)
        axis.set(xticks=[], yticks=[])
    column[0].set_title(f"slice {depth}")
figure.suptitle("A volume and its Score-CAM map for 'nodule' (cyan: the nodule)")
plt.show()

# %%
# The profile sums the map over each slice. For a video, with time instead of depth, the same profile shows *when*.

figure, axis = plt.subplots(figsize=(7, 2.4), layout="constrained")
profile = maps[n, 0].sum((1, 2))
inside = where[n].flatten(1).any(1).nonzero()[:, 0]
axis.axvspan(int(inside[0]) - 0.5, int(inside[-1]) + 0.5, color="0.88")
axis.bar(range(DEPTH), profile / profile.sum())
axis.axhline(1 / DEPTH, color="0.4", linestyle=":", linewidth=1)
axis.set(xlabel="slice", ylabel="share of the map")
axis.set_title("Profile over depth (grey: slices of the nodule, dotted: a uniform map)", fontsize=11)
plt.show()

# %%
# Segmentation: why does this region get that class?
# --------------------------------------------------
#
# A segmentation network returns N×classes×H×W: class scores for each pixel. An explanation needs a single number per
# class. The natural one is the mean probability of the class over a region, such as all pixels that the network assigns
# to it.
#
# The images here show four cells. A dividing cell has a bright spot somewhere inside; a resting cell has none. Every
# pixel of a dividing cell is labelled "dividing", even far from the spot, so the network has to use context.

IMAGE = 64
row, column = torch.meshgrid(torch.arange(IMAGE), torch.arange(IMAGE), indexing="ij")


def disc(centre_row: float, centre_column: float, radius: float) -> Tensor:
    return (row - centre_row) ** 2 + (column - centre_column) ** 2 <= radius**2


def cells(number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Generates images, the class of each pixel (0: none, 1: resting, 2: dividing) and its cell, 1 to 4."""
    images = 0.15 * noise(number, 1, IMAGE, IMAGE)
    classes = torch.zeros(number, IMAGE, IMAGE, dtype=torch.long)
    cell_numbers = torch.zeros_like(classes)
    for image, label, cell_number in zip(images[:, 0], classes, cell_numbers, strict=True):
        for cell, (top, left) in enumerate([(16, 16), (16, 48), (48, 16), (48, 48)], start=1):
            shift_row, shift_column, size, angle, dividing = uniform(5).tolist()
            centre_row, centre_column = top + 6 * shift_row - 3, left + 6 * shift_column - 3
            area = disc(centre_row, centre_column, 8.5 + 3 * size)
            image[area] += 0.6
            label[area], cell_number[area] = 1, cell
            if dividing > 0.5:
                turn = 2 * math.pi * angle
                image[disc(centre_row + 5 * math.sin(turn), centre_column + 5 * math.cos(turn), 2)] += 0.8
                label[area] = 2
    return images, classes, cell_numbers


def layer_2d(channels: int, out: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels, out, 3, stride, padding=dilation, dilation=dilation)
    return nn.Sequential(convolution, nn.BatchNorm2d(out), nn.ReLU())


segmenter = nn.Sequential(
    layer_2d(1, 16, stride=2),
    layer_2d(16, 32),
    layer_2d(32, 32, dilation=2),
    layer_2d(32, 32, dilation=4),
    layer_2d(32, 32),
    nn.Conv2d(32, 3, 1),
    nn.Upsample(scale_factor=2, mode="bilinear"),
)
train(segmenter, *cells(250)[:2], epochs=8)
images, classes, cell_numbers = cells(24)
print(f"pixel accuracy on 24 new images: {accuracy(segmenter, images, classes):.1%}")

# %%
# The wrapper below turns the network into what attribution methods expect, one row of class scores per example. Two
# details matter. The region is an *argument*: passed as ``additional_forward_args``, it is not masked, and each example
# keeps its own. And it is *fixed* before anything is masked: recomputing it from each masked output would explain a
# different score for each channel.


class RegionProbabilities(nn.Module):
    """Returns the mean probability of each class over a region N×1×H×W: N×classes."""

    def __init__(self, segmenter: nn.Module) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, images: Tensor, region: Tensor) -> Tensor:
        probabilities = self.segmenter(images).softmax(1)
        return (probabilities * region).sum((2, 3)) / region.sum((2, 3))


region_probabilities = RegionProbabilities(segmenter).eval()
score_cam = InputSpaceAttribution(ScoreCAM(region_probabilities, segmenter[4], channel_weighting="increase"))

# %%
# First question: why does the network label some cells "dividing" and others "resting"? One batch per class, over the
# images that contain both kinds.

RESTING, DIVIDING = 1, 2
with torch.no_grad():
    predicted = segmenter(images).argmax(1)
pixels = torch.stack([(predicted == kind).sum((1, 2)) for kind in (RESTING, DIVIDING)])
mixed = (pixels > 100).all(0)

for kind, other, name in [(RESTING, DIVIDING, "resting"), (DIVIDING, RESTING, "dividing")]:
    regions = predicted[mixed] == kind
    maps = score_cam.attribute(images[mixed], target=kind, additional_forward_args=regions.unsqueeze(1).float())
    print(f"why {name}:", end=" ")
    energy, uniform_energy = compare_with_uniform_map(maps, regions)
    elsewhere = float(energy_pointing_game(maps, predicted[mixed] == other))
    print(f"    on the cells of the other kind: {elsewhere:.0%}")
    if energy < max(1.5 * uniform_energy, elsewhere):
        raise RuntimeError(f"The maps for '{name}' are not on the cells of that kind.")

# %%
# The maps distinguish the two kinds of cells. Second question, a finer one: why is *this* cell dividing, as opposed to
# that one? The batch contains the same image twice, with the region of one cell each.
#
# Here class activation maps reach their limit, for a good reason: they weight *channels*, and a channel that highlights
# dividing cells highlights all of them, so the maps of the two cells are much the same. If your question is about one
# of several similar objects, use a method that masks *places*: :class:`~captum_scorecam.RISE` hides random parts of the
# image and needs no layer. The correlation below is close to 1 if the two maps are the same.


def dividing_cells(n: int) -> list[Tensor]:
    cells_of_image = [(cell_numbers[n] == cell) & (predicted[n] == DIVIDING) for cell in range(1, 5)]
    return [cell for cell in cells_of_image if cell.sum() > 50]


n = next(n for n in range(len(images)) if len(dividing_cells(n)) == 2)
regions = torch.stack(dividing_cells(n))
arguments = {
    "inputs": images[n].expand(2, -1, -1, -1),
    "target": DIVIDING,
    "additional_forward_args": regions.unsqueeze(1).float(),
}
maps = {
    "Score-CAM": score_cam.attribute(**arguments),
    "RISE": RISE(region_probabilities, n_masks=300, score="output").attribute(**arguments, generator=generator),
}
correlations = {method: float(torch.corrcoef(both.flatten(1))[0, 1]) for method, both in maps.items()}
for method, correlation in correlations.items():
    print(f"{method}: correlation of the maps of the two cells {correlation:.2f}")
if correlations["Score-CAM"] < correlations["RISE"] + 0.3:
    raise RuntimeError(f"RISE should distinguish the two cells better than Score-CAM: {correlations}.")

# %%


def set_title(axis: Axes, title: str) -> None:
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, fontsize=10)


def draw_map(axis: Axes, image: Tensor, attribution: Tensor, outline: Tensor, title: str) -> None:
    axis.imshow(image, cmap="gray")
    axis.imshow(attribution, cmap="inferno", alpha=0.6)
    axis.contour(outline, levels=[0.5], colors="cyan", linewidths=1.5)
    set_title(axis, title)


figure, axes = plt.subplots(2, 3, figsize=(7, 4.8), layout="constrained")
axes[0, 0].imshow(images[n, 0], cmap="gray")
set_title(axes[0, 0], "image")
axes[1, 0].imshow(predicted[n], cmap="viridis", vmin=0, vmax=2)
set_title(axes[1, 0], "predicted (yellow: dividing)")
for line, (method, both) in zip(axes, maps.items(), strict=True):
    for axis, attribution, region in zip(line[1:], both, regions, strict=True):
        draw_map(axis, images[n, 0], attribution[0], region, f"{method}: why this one?")
plt.show()

# %%
# A Vision Transformer
# --------------------
#
# A Transformer block returns tokens, N×(1 + patches)×channels, without height or width. The patches do have positions,
# they are just stored in a sequence: ``activation_transform=vit_activation_maps`` drops the class token and arranges
# the others on their grid. Which layer? The first norm of the last block (``ln_1``): after the attention of that block,
# the patch tokens no longer affect the class token, and the head reads nothing else.
#
# We train a small :class:`torchvision.models.VisionTransformer` from scratch on patches of texture hidden in noise:
# horizontal stripes, vertical stripes, a checkerboard, or nothing. The fourth class matters. Without it, a network
# could classify an image as vertical because it sees neither of the other two, and then there is no place for a map to
# highlight.

TEXTURES = ["horizontal", "vertical", "checkerboard", "nothing"]
NOTHING = 3
FIELD, PATCH = 48, 16
stripes = (torch.arange(PATCH) // 2 % 2 * 2 - 1).float()
patterns = [stripes.view(-1, 1).expand(-1, PATCH), stripes.expand(PATCH, -1), torch.outer(stripes, stripes)]


def textures(classes_of_images: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Generates images, each texture in a different quadrant, and masks of the textures N×textures×H×W."""
    images = 0.4 * noise(len(classes_of_images), 1, FIELD, FIELD)
    where = torch.zeros(len(images), len(classes_of_images[0]), FIELD, FIELD, dtype=torch.bool)
    for image, places, found in zip(images[:, 0], where, classes_of_images, strict=True):
        quadrants = torch.randperm(4, generator=generator).tolist()
        for place, label, quadrant in zip(places, found, quadrants, strict=False):
            if label != NOTHING:
                shift_row, shift_column = (8 * uniform(2)).int().tolist()
                top, left = 24 * (quadrant // 2) + shift_row, 24 * (quadrant % 2) + shift_column
                image[top : top + PATCH, left : left + PATCH] += patterns[label]
                place[top : top + PATCH, left : left + PATCH] = True
    return images.expand(-1, 3, -1, -1), where


vit = VisionTransformer(
    image_size=FIELD, patch_size=8, num_layers=2, num_heads=4, hidden_dim=48, mlp_dim=96, num_classes=4
)
labels = torch.arange(1200) % 4
train(vit, textures([[label] for label in labels.tolist()])[0], labels, epochs=8, learning_rate=2e-3)
labels = torch.arange(80) % 4
images, where = textures([[label] for label in labels.tolist()])
print(f"accuracy on 80 new images: {accuracy(vit, images, labels):.1%}")

# %%
# One call explains each image for its own class:

shown = labels != NOTHING
score_cam = ScoreCAM(vit, vit.encoder.layers[-1].ln_1, activation_transform=vit_activation_maps)
maps = score_cam.attribute(images[shown], target=labels[shown])
print("maps", tuple(maps.shape))
maps = LayerAttribution.interpolate(maps, (FIELD, FIELD), "bilinear")
energy, uniform_energy = compare_with_uniform_map(maps, where[shown, 0])
if energy < 2 * uniform_energy:
    raise RuntimeError("The Transformer's maps are not on the textures.")

# %%
# Now for images with *two* textures, which did not occur in training. ``attribute_targets`` explains both classes with
# the same masked forwards. Does the map of each class lie on its own texture?

pairs = [[[0, 1], [1, 2], [2, 0]][n % 3] for n in range(30)]
images, where = textures(pairs)
maps = score_cam.attribute_targets(images, torch.tensor(pairs))
maps = LayerAttribution.interpolate(maps, (FIELD, FIELD), "bilinear")


def energy_on(order: tuple[int, int]) -> Tensor:
    """Returns the shares of the two classes' maps on two textures, N×2."""
    shares = [
        energy_pointing_game(maps[:, [t]], where[:, texture], reduction="none") for t, texture in enumerate(order)
    ]
    return torch.stack(shares, 1)


on_own, on_other = energy_on((0, 1)), energy_on((1, 0))
print(f"share of a class's map on its own texture {on_own.mean():.0%}, on the other {on_other.mean():.0%}")
print(f"images in which both maps prefer their own: {(on_own > on_other).all(1).float().mean():.0%} of {len(images)}")

# %%
# These are the first three images, not the best three. The maps do not confuse the two textures, but much of them lies
# on noise: a map shows what the model uses, right or wrong.

figure, axes = plt.subplots(3, 3, figsize=(6.5, 6.8), layout="constrained")
for n, line in enumerate(axes):
    line[0].imshow(images[n, 0], cmap="gray")
    set_title(line[0], "image")
    for t, (axis, label) in enumerate(zip(line[1:], pairs[n], strict=True)):
        draw_map(axis, images[n, 0], maps[n, t], where[n, t], f"why {TEXTURES[label]}?")
plt.show()

# %%
# Two notes on other Transformers. For models with register tokens, or without a class token, set ``prefix_tokens``, and
# for grids that are not square ``grid_size``: ``functools.partial(vit_activation_maps, prefix_tokens=5)``. The blocks
# of a Swin Transformer return N×h×w×channels, which :func:`~captum_scorecam.swin_activation_maps` turns into maps:
#
# .. code-block:: python
#
#     score_cam = ScoreCAM(swin, swin.features[-1], activation_transform=swin_activation_maps)
#
# Summary
# -------
#
# - The layer's output needs as many spatial dimensions as the input. Where they are hidden, ``activation_transform``
#   restores them.
# - Ask what 0 means in your data. It replaces what is masked, unless you set ``baselines``.
# - Pass what must not be masked, such as a region or a length, as ``additional_forward_args``.
# - A model that does not return N×classes scores needs a wrapper that computes them; the layer may lie deep inside it.
# - With few channels, compare ``channel_weighting="increase"`` with the default.
# - A class activation map distinguishes classes. To distinguish two objects of the same class, mask places instead.
