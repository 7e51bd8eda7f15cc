"""
Beyond image classifiers
========================

Score-CAM asks one question of a network: how much of the class is left when only the places that this channel marks
remain visible? Nothing in it says "photograph". It needs a layer whose output has places, an input with the same kind
of places, and a number to watch. This page takes it to four kinds of model:

- a 1-D network that looks for a premature heartbeat in an ECG,
- a 3-D network that looks for a nodule in a volume,
- a segmentation network, which has an answer for every pixel,
- a Vision Transformer, whose layers give tokens rather than maps.

All data are generated and all four networks are trained on this page, in seconds. That has a reason beyond speed: we
put the evidence there ourselves, so we know where it is and can check the maps instead of admiring them. Each section
ends with a number, the share of the map's energy that lies on the evidence
(:func:`~captum_scorecam.metrics.functional.energy_pointing_game`), beside the share that a map spread evenly would have.
"""

import matplotlib.pyplot as plt
import torch
from captum.attr import LayerAttribution
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import VisionTransformer

from captum_scorecam import InputSpaceAttribution, ScoreCAM, vit_activation_maps
from captum_scorecam.metrics.functional import energy_pointing_game

generator = torch.Generator().manual_seed(0)


def uniform(*size: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(size, generator=generator)


def noise(*size: int) -> Tensor:
    return torch.randn(size, generator=generator)


def train(model: nn.Module, inputs: Tensor, labels: Tensor, epochs: int, learning_rate: float = 3e-3) -> nn.Module:
    """Trains with Adam in batches of 32, and returns the model in evaluation mode."""
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


def compare_with_even_spread(maps: Tensor, evidence: Tensor) -> tuple[float, float]:
    """Prints and returns the share of the energy on the evidence, and the share that an even map would have."""
    energy = float(energy_pointing_game(maps, evidence))
    even = float(evidence.float().mean())
    print(f"energy on the evidence: {energy:.0%}, of an even map: {even:.0%} ({len(maps)} examples)")
    return energy, even


# The networks start from the same weights on every build.
torch.manual_seed(0)

# %%
# A signal: which beat was it?
# ----------------------------
#
# An ECG of a few heartbeats is a tensor of shape N×1×512. Each beat is a small P wave, the sharp QRS complex and a
# broad T wave. In half of the recordings one beat comes early, without a P wave and with a wide complex: a premature
# ventricular contraction. The label says only that there is one, never where.

LENGTH = 512


def wave(time: Tensor, centre: float, width: float, height: float) -> Tensor:
    return height * torch.exp(-0.5 * ((time - centre) / width) ** 2)


def ecg(premature: bool) -> tuple[Tensor, Tensor]:
    """A recording of 512 samples, and where its premature beat is."""
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
train(ecg_net, *ecgs(800)[:2], epochs=6)
signals, labels, evidence = ecgs(200)
print(f"accuracy on 200 new recordings: {accuracy(ecg_net, signals, labels):.1%}")

# %%
# The call is the one that images get. The layer's maps are N×32×64 here, so they are upsampled linearly to the 512
# samples, and each masks the signal. A masked sample becomes 0, which for an ECG is the flat line between beats: a
# baseline that means "nothing here". Where 0 means something in your signals, give another one with ``baselines``.

with_premature = signals[labels == 1]
maps = ScoreCAM(ecg_net, ecg_net[2]).attribute(with_premature, target=1)
print("signals", tuple(with_premature.shape), "maps", tuple(maps.shape))

maps = LayerAttribution.interpolate(maps, (LENGTH,), "linear")
energy, even = compare_with_even_spread(maps, evidence[labels == 1])

# %%
# Three of the recordings, each sample coloured by its importance. The grey band is where we put the premature beat; the
# network was never told.


def draw_signal(axis: plt.Axes, signal: Tensor, importance: Tensor, where: Tensor) -> None:
    time = torch.arange(LENGTH)
    axis.fill_between(time, -0.8, 1.5, where=where, color="0.88", linewidth=0)
    axis.plot(time, signal, color="0.7", linewidth=1)
    points = axis.scatter(time, signal, c=importance / importance.max(), cmap="plasma_r", s=9, zorder=2)
    axis.set(xlim=(0, LENGTH - 1), ylim=(-0.8, 1.5), yticks=[])
    return points


figure, axes = plt.subplots(3, 1, figsize=(7, 5), sharex=True, layout="constrained")
for n, axis in enumerate(axes):
    points = draw_signal(axis, with_premature[n, 0], maps[n, 0], evidence[labels == 1][n])
axes[0].set_title("ECG, coloured by Score-CAM for 'premature beat' (grey: where it is)")
axes[-1].set_xlabel("sample")
figure.colorbar(points, ax=axes, label="importance", shrink=0.6)
plt.show()

# %%
# A volume: in which slice?
# -------------------------
#
# Each volume, N×1×16×32×32, is crossed by two bright vessels. Half of the volumes hold a nodule besides: a ball as
# bright as the vessels, so brightness alone tells nothing and the network has to learn the shape.

DEPTH, SIDE = 16, 32
z, y, x = torch.meshgrid(torch.arange(DEPTH), torch.arange(SIDE), torch.arange(SIDE), indexing="ij")


def volumes(number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Volumes, whether they hold a nodule, and where it is."""
    labels = torch.arange(number) % 2
    coarse = noise(number, 1, 4, 8, 8)
    images = 0.15 * F.interpolate(coarse, (DEPTH, SIDE, SIDE), mode="trilinear") + 0.1 * noise(number, 1, DEPTH, SIDE, SIDE)
    evidence = torch.zeros(number, DEPTH, SIDE, SIDE, dtype=torch.bool)
    for image, label, where in zip(images[:, 0], labels, evidence, strict=True):
        for start_y, start_x, slope_y, slope_x in uniform(2, 4, low=-1).tolist():
            centre_y, centre_x = 16 + 12 * start_y + slope_y * (z - 8), 16 + 12 * start_x + slope_x * (z - 8)
            image += torch.exp(-((((y - centre_y) ** 2 + (x - centre_x) ** 2) / 4) ** 2))
        if label:
            centre_z, centre_y, centre_x = (uniform(3) * torch.tensor([DEPTH - 9, SIDE - 9, SIDE - 9]) + 4).tolist()
            distance = ((z - centre_z) ** 2 + (y - centre_y) ** 2 + (x - centre_x) ** 2) / 12
            image += torch.exp(-(distance**2))
            where |= distance < 1.2
    return images, labels, evidence


def layer_3d(channels: int, out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(channels, out, 3, stride=stride, padding=1), nn.BatchNorm3d(out), nn.ReLU())


volume_net = nn.Sequential(
    layer_3d(1, 8, 2), layer_3d(8, 16, 1), layer_3d(16, 32, 2), nn.AdaptiveMaxPool3d(1), nn.Flatten(), nn.Linear(32, 2)
)
train(volume_net, *volumes(600)[:2], epochs=8)
scans, labels, evidence = volumes(100)
print(f"accuracy on 100 new volumes: {accuracy(volume_net, scans, labels):.1%}")

# %%
# Again the call does not change. ``InputSpaceAttribution`` saves the interpolation: it wraps any layer attribution and
# gives back maps of the input's shape, trilinear for volumes.

with_nodule, where = scans[labels == 1], evidence[labels == 1]
score_cam = InputSpaceAttribution(ScoreCAM(volume_net, volume_net[2]))
maps = score_cam.attribute(with_nodule, target=1)
energy, even = compare_with_even_spread(maps, where)

# %%
# One volume, every second slice: on top what the network saw, below it the map, with the nodule's outline in both. The
# profile sums the map over each slice. Put time in the place of depth, and the same profile tells *when* in a video.

n = 0
slices = range(1, DEPTH, 2)
figure, axes = plt.subplots(2, len(slices), figsize=(9, 2.8), layout="constrained")
for column, depth in zip(axes.T, slices, strict=True):
    column[0].imshow(with_nodule[n, 0, depth], cmap="gray", vmin=-0.3, vmax=1.3)
    column[1].imshow(maps[n, 0, depth], cmap="inferno", vmin=0, vmax=float(maps[n].max()))
    for axis in column:
        if where[n, depth].any():
            axis.contour(where[n, depth], levels=[0.5], colors="cyan", linewidths=1.2)
        axis.set(xticks=[], yticks=[])
    column[0].set_title(f"z = {depth}", fontsize=10)
figure.suptitle("A volume and its Score-CAM map for 'nodule' (cyan: the nodule)")

figure, axis = plt.subplots(figsize=(7, 2.4), layout="constrained")
profile = maps[n, 0].sum((1, 2))
inside = where[n].flatten(1).any(1).nonzero()[:, 0]
axis.axvspan(int(inside[0]) - 0.5, int(inside[-1]) + 0.5, color="0.88")
axis.bar(range(DEPTH), profile / profile.sum(), color="tab:orange")
axis.set(xlabel="slice z", ylabel="share of the map", title="Where in depth (grey: slices that hold the nodule)")
plt.show()

# %%
# Segmentation: why is this region that class?
# --------------------------------------------
#
# A segmentation network answers N×classes×H×W: a class score for each pixel. To explain it, decide which number to
# watch. The natural one is the mean score of a class over a region, say over one object that the network found.
#
# The images here hold four cells. A dividing cell has a bright spot somewhere inside; a resting cell has none. Every
# pixel of a dividing cell is labelled "dividing", also those far from the spot, so the network must look around.

IMAGE = 64
row, column = torch.meshgrid(torch.arange(IMAGE), torch.arange(IMAGE), indexing="ij")


def disc(centre: tuple[float, float], radius: float) -> Tensor:
    return (row - centre[0]) ** 2 + (column - centre[1]) ** 2 <= radius**2


def cells(number: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, the class of each pixel, the number (1 to 4) of its cell, and the spots."""
    images = 0.15 * noise(number, 1, IMAGE, IMAGE)
    classes = torch.zeros(number, IMAGE, IMAGE, dtype=torch.long)
    cell_numbers, spots = torch.zeros_like(classes), torch.zeros_like(classes, dtype=torch.bool)
    for image, label, cell_number, spot in zip(images[:, 0], classes, cell_numbers, spots, strict=True):
        for cell, (top, left) in enumerate([(16, 16), (16, 48), (48, 16), (48, 48)], start=1):
            shift_y, shift_x, size, angle, dividing = uniform(5).tolist()
            centre = top + 6 * shift_y - 3, left + 6 * shift_x - 3
            area = disc(centre, 8.5 + 3 * size)
            turn = torch.tensor(6.28 * angle)
            nucleus = disc((centre[0] + 5 * float(turn.sin()), centre[1] + 5 * float(turn.cos())), 2)
            image[area] += 0.6
            label[area], cell_number[area] = 1, cell
            if dividing > 0.5:
                image[nucleus] += 0.8
                label[area] = 2
                spot |= nucleus
    return images, classes, cell_numbers, spots


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
train(segmenter, *cells(400)[:2], epochs=8)
images, classes, cell_numbers, spots = cells(60)
print(f"pixels labelled right in 60 new images: {accuracy(segmenter, images, classes):.1%}")

# %%
# The wrapper below turns the network into what attribution methods expect, one row of class scores per example. Two
# details matter. The region is an *argument*: it goes into ``additional_forward_args``, so it is not masked, and each
# example keeps its own. And it is *fixed* before anything is masked. Recomputing it from each masked output would change
# the question from channel to channel.


class RegionScores(nn.Module):
    """The mean score of each class over a region: N×classes."""

    def __init__(self, segmenter: nn.Module) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, images: Tensor, region: Tensor) -> Tensor:
        return (self.segmenter(images) * region).sum((2, 3)) / region.sum((2, 3))


region_scores = RegionScores(segmenter).eval()
score_cam = InputSpaceAttribution(ScoreCAM(region_scores, segmenter[4]))

# %%
# We explain one dividing cell of every image that has any, all in one batch; its region are the pixels of the cell that
# the network itself called "dividing".

with torch.no_grad():
    predicted = segmenter(images).argmax(1)
examples, regions = [], []
for n in range(len(images)):
    for cell in range(1, 5):
        region = (cell_numbers[n] == cell) & (predicted[n] == 2)
        if (classes[n][cell_numbers[n] == cell] == 2).all() and region.sum() > 50:
            examples.append(n)
            regions.append(region)
            break
rows, regions = torch.tensor(examples), torch.stack(regions)
maps = score_cam.attribute(images[rows], target=2, additional_forward_args=regions.unsqueeze(1).float())

print("the explained cell:")
energy_on_cell, cell_share = compare_with_even_spread(maps, regions)
print("its spot:")
energy_on_spot, spot_share = compare_with_even_spread(maps, spots[rows] & regions)

# %%
# The same image, explained for two of its cells: only the region differs between the two rows of the batch, and the
# map moves with it.

dividing_cells = [
    [c for c in range(1, 5) if ((cell_numbers[n] == c) & (predicted[n] == 2)).sum() > 50] for n in range(len(images))
]
n = next(n for n, found in enumerate(dividing_cells) if len(found) == 2)
regions = torch.stack([(cell_numbers[n] == c) & (predicted[n] == 2) for c in dividing_cells[n]])
maps = score_cam.attribute(
    images[n].expand(2, -1, -1, -1), target=2, additional_forward_args=regions.unsqueeze(1).float()
)

figure, axes = plt.subplots(1, 4, figsize=(9, 2.7), layout="constrained")
axes[0].imshow(images[n, 0], cmap="gray")
axes[0].set_title("image")
axes[1].imshow(predicted[n], cmap="viridis", vmin=0, vmax=2)
axes[1].set_title("predicted classes")
for axis, importance, region in zip(axes[2:], maps, regions, strict=True):
    axis.imshow(images[n, 0], cmap="gray")
    axis.imshow(importance[0], cmap="inferno", alpha=0.6)
    axis.contour(region, levels=[0.5], colors="cyan", linewidths=1.5)
    axis.set_title("why 'dividing' here?")
for axis in axes:
    axis.set(xticks=[], yticks=[])
plt.show()

# %%
# A Vision Transformer
# --------------------
#
# A Transformer's block gives tokens, N×(1 + patches)×channels, without height or width. The patches *have* places, they
# were only laid out in a row: ``activation_transform=vit_activation_maps`` drops the class token and puts the others back
# on their grid. Which layer? In the last block, the first norm (``ln_1``): what comes after it no longer reaches the
# class token from the patches, which is the only token that the head reads.
#
# No trained weights are at hand here, and a map of random weights means nothing. So we train a small
# :class:`torchvision.models.VisionTransformer` from nothing, on patches of texture hidden in noise: horizontal
# stripes, vertical stripes or a checkerboard.

TEXTURES = ["horizontal", "vertical", "checkerboard"]
stripes_y, stripes_x = (row[:16, :16] // 2 % 2 * 2 - 1).float(), (column[:16, :16] // 2 % 2 * 2 - 1).float()
patterns = [stripes_y, stripes_x, stripes_y * stripes_x]


def textures(classes_of_images: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Images with one texture for each class, in different quarters, and where each is: N×textures×H×W."""
    images = 0.5 * noise(len(classes_of_images), 1, IMAGE, IMAGE)
    where = torch.zeros(len(images), len(classes_of_images[0]), IMAGE, IMAGE, dtype=torch.bool)
    for image, places, found in zip(images[:, 0], where, classes_of_images, strict=True):
        quarters = torch.randperm(4, generator=generator)
        for place, label, quarter in zip(places, found, quarters.tolist(), strict=False):
            top, left = (int(corner) for corner in 16 * uniform(2) + 32 * torch.tensor([quarter // 2, quarter % 2]))
            image[top : top + 16, left : left + 16] += patterns[label]
            place[top : top + 16, left : left + 16] = True
    return images.expand(-1, 3, -1, -1), where


vit = VisionTransformer(
    image_size=IMAGE, patch_size=8, num_layers=2, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=3
)
labels = torch.arange(1500) % 3
train(vit, textures([[label] for label in labels.tolist()])[0], labels, epochs=10, learning_rate=2e-3)
labels = torch.arange(150) % 3
images, where = textures([[label] for label in labels.tolist()])
print(f"accuracy on 150 new images: {accuracy(vit, images, labels):.1%}")

# %%
# Each image for its own class, all at once:

layer = vit.encoder.layers[-1].ln_1
score_cam = ScoreCAM(vit, layer)
maps = score_cam.attribute(images, target=labels, activation_transform=vit_activation_maps)
print("maps", tuple(maps.shape))
energy, even = compare_with_even_spread(LayerAttribution.interpolate(maps, (IMAGE, IMAGE), "bilinear"), where[:, 0])

# %%
# Now images that hold two textures, which training never showed. ``attribute_targets`` explains both classes from the same
# masked forwards. For how many of the images does each texture get more of its own class's map than of the other's?

pairs = [[[0, 1], [1, 2], [2, 0]][n % 3] for n in range(60)]
images, where = textures(pairs)
maps = score_cam.attribute_targets(images, torch.tensor(pairs), activation_transform=vit_activation_maps)
maps = F.interpolate(maps, (IMAGE, IMAGE), mode="bilinear")
shares = torch.stack(
    [energy_pointing_game(maps[:, [t]], where[:, place], reduction="none") for t in (0, 1) for place in (0, 1)], 1
).view(-1, 2, 2)
right = (shares[:, 0, 0] > shares[:, 1, 0]) & (shares[:, 1, 1] > shares[:, 0, 1])
print(f"both textures: {right.float().mean():.0%} of {len(images)} images")
print("mean share of a class's map on its own texture and on the other:")
print(f"  own {shares.diagonal(dim1=1, dim2=2).mean():.2f}, other {shares.flip(2).diagonal(dim1=1, dim2=2).mean():.2f}")

# %%

figure, axes = plt.subplots(3, 3, figsize=(6.5, 6.8), layout="constrained")
for n, line in enumerate(axes):
    for axis in line:
        axis.imshow(images[n, 0], cmap="gray")
        axis.set(xticks=[], yticks=[])
    for t, (axis, label) in enumerate(zip(line[1:], pairs[n], strict=True)):
        axis.imshow(maps[n, t], cmap="inferno", alpha=0.6)
        axis.contour(where[n, t], levels=[0.5], colors="cyan", linewidths=1.5)
        axis.set_title(f"why {TEXTURES[label]}?", fontsize=10)
axes[0, 0].set_title("image", fontsize=10)
plt.show()
