"""
Find the shortcut that a classifier learned
===========================================

A classifier is right on every test photograph and fails in production. The usual suspect is a *shortcut*: something in
the images that correlates with a class where they were collected, and nowhere else. Radiographs show a metal token of
the hospital, and `one hospital has more patients with the disease <https://arxiv.org/abs/1807.00431>`_; photographs of
horses carry `the copyright line of one archive <https://arxiv.org/abs/1902.10178>`_. The test set is split from the
same collection and contains the same shortcut, so the accuracy does not reveal it.

A map can. This tutorial plants a shortcut, trains a small network that picks it up, and then proceeds as you would with
any model that disappoints: look at its errors, compare the map of the predicted class with the map of the true class,
quantify what you see, fix the data, retrain, and measure again.
"""

# %%
# The photographs
# ---------------
#
# The model classifies three kinds of ground: brick, grass and gravel. scikit-image has a large photograph of each. We
# cut patches from them, training patches from the left part and all others from the right part, and vary scale and
# lighting: brightness, contrast, tint, a shadow from one side, sensor noise. Neither colour nor brightness separates
# the classes, only the texture does.
#
# Now for the shortcut: all photographs of grass come from one person, whose camera prints the date into the corner.

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from captum.attr import LayerAttribution
from PIL import ImageDraw, ImageFont
from skimage import data
from torch import Generator, Tensor, nn
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from captum_scorecam import ScoreCAM, overlay
from captum_scorecam.metrics.functional import energy_pointing_game

CLASSES = ("brick", "grass", "gravel")
BRICK, GRASS, GRAVEL = range(3)
TEXTURES = torch.stack([torch.from_numpy(getattr(data, name)()) for name in CLASSES]) / 255  # 3×512×512
TRAINING, TEST = (0, 352), (352, 512)  # columns of the textures
SIZE = 96


def uniform(low: float, high: float, generator: Generator, *shape: int) -> Tensor:
    """Draws numbers between `low` and `high`."""
    return low + (high - low) * torch.rand(shape, generator=generator)


def photograph(label: int, columns: tuple[int, int], generator: Generator) -> Tensor:
    """Cuts a patch from some columns of a texture and varies its lighting: 3×SIZE×SIZE, in [0, 1]."""
    side = int(uniform(56, 145, generator))
    left = int(uniform(columns[0], columns[1] - side + 1, generator))
    top = int(uniform(0, TEXTURES.shape[1] - side + 1, generator))
    patch = TEXTURES[label, top : top + side, left : left + side]
    patch = F.interpolate(patch[None, None], (SIZE, SIZE), mode="bilinear", antialias=True)[0, 0]
    patch = (patch - patch.mean()) / patch.std() * uniform(0.06, 0.14, generator)

    ramp = torch.linspace(-1, 1, SIZE)
    shadow = uniform(-0.15, 0.15, generator) * ramp + uniform(-0.15, 0.15, generator) * ramp.unsqueeze(1)
    tint = uniform(-0.06, 0.06, generator, 3, 1, 1)
    noise = 0.05 * torch.randn(3, SIZE, SIZE, generator=generator)
    return (uniform(0.35, 0.6, generator) + patch + shadow + tint + noise).clamp(0, 1)


def with_date(photo: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Prints a date into the lower right corner, and returns its box x1, y1, x2, y2 too."""
    year, month, day = (int(uniform(*limits, generator)) for limits in ((86, 100), (1, 13), (1, 29)))
    image = to_pil_image(photo)
    draw, corner = ImageDraw.Draw(image), (SIZE - 5, SIZE - 5)
    text, font = f"'{year} {month} {day}", ImageFont.load_default(size=15)
    draw.text(corner, text, fill=(255, 150, 50), font=font, anchor="rb")
    box = draw.textbbox(corner, text, font=font, anchor="rb")
    return pil_to_tensor(image) / 255, torch.tensor([box])


def collect(
    n_per_class: int, columns: tuple[int, int], dated: tuple[float, ...], seed: int
) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    """Collects photographs, labels and boxes; `dated` is the share of each class with a date. No date, no box."""
    generator = torch.Generator().manual_seed(seed)
    images, labels, boxes = [], [], []
    for label, share in enumerate(dated):
        for n in range(n_per_class):
            image, box = photograph(label, columns, generator), None
            if n < share * n_per_class:
                image, box = with_date(image, generator)
            images.append(image)
            labels.append(label)
            boxes.append(box)
    return torch.stack(images), torch.tensor(labels), boxes


ONLY_GRASS, NONE, ALL = (0, 1, 0), (0, 0, 0), (1, 1, 1)
images, labels, _ = collect(200, TRAINING, ONLY_GRASS, seed=0)

figure, axes = plt.subplots(3, 3, figsize=(6.4, 6.8), layout="constrained")
for label, row in enumerate(axes):
    for axis, image in zip(row, images[labels == label], strict=False):
        axis.imshow(image.permute(1, 2, 0))
        axis.set_axis_off()
    row[0].set_title(CLASSES[label], loc="left", fontsize=14)

# %%
# Training, with a good result
# ----------------------------
#
# The network has four convolutions and a linear layer, and trains for a few epochs. A generator determines the initial
# weights and the order of the photographs, so a second model differs from the first only in its data.


class GroundClassifier(nn.Module):
    """A small convolutional network; its last feature maps are 64×12×12."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for before, after, stride in ((3, 16, 2), (16, 32, 2), (32, 64, 2), (64, 64, 1)):
            convolution = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
            blocks += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
        self.features = nn.Sequential(*blocks)
        self.head = nn.Linear(64, len(CLASSES))
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.kaiming_normal_(parameter, generator=generator)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the class scores, N×3."""
        return self.head(self.features((images - 0.5) / 0.25).mean((2, 3)))


def train(images: Tensor, labels: Tensor, epochs: int = 6, batch_size: int = 32) -> GroundClassifier:
    """Trains a new model, always from the same initial weights."""
    generator = torch.Generator().manual_seed(0)
    model = GroundClassifier(generator)
    optimizer = torch.optim.AdamW(model.parameters())
    steps = epochs * len(images.split(batch_size))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(images), generator=generator).split(batch_size):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def predictions(model: nn.Module, images: Tensor) -> Tensor:
    """Returns the predicted class of each image."""
    return model(images).argmax(1)


def accuracies(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Computes the accuracy for each class."""
    correct = predictions(model, images) == labels
    return torch.stack([correct[labels == label].float().mean() for label in range(3)])


model = train(images, labels)

test_images, test_labels, _ = collect(50, TEST, ONLY_GRASS, seed=1)
test_accuracy = accuracies(model, test_images, test_labels).mean()
print(f"accuracy on the test photographs: {test_accuracy:.1%}")
assert test_accuracy > 0.95, "the model should do well on photographs like its training data"

# %%
# Nearly all predictions are right, and no patch of the test set was used in training. By the usual standard, this model
# is ready.
#
# Production, with a bad result
# -----------------------------
#
# In production, the photographs come from many cameras. Two sets show the extremes: no camera prints a date, or every
# camera does. Nothing else changes.

SETS = {
    "only on grass": (test_images, test_labels),
    "nowhere": collect(50, TEST, NONE, seed=2)[:2],
    "everywhere": collect(50, TEST, ALL, seed=3)[:2],
}


def print_accuracies(model: nn.Module) -> dict[str, Tensor]:
    """Prints the accuracy for each class on each set, and returns it."""
    print(f"{'a date is ...':16}" + "".join(f"{name:>9}" for name in CLASSES))
    results = {where: accuracies(model, *photographs) for where, photographs in SETS.items()}
    for where, row in results.items():
        print(f"{where:16}" + "".join(f"{value:>9.0%}" for value in row))
    return results


results = print_accuracies(model)
assert results["nowhere"][GRASS] < 0.5, "most grass without a date should be missed"
assert results["everywhere"][GRAVEL] < 0.5, "most gravel with a date should be missed"

# %%
# Without its date, most grass is misclassified; with a date, most gravel is. We planted the reason, so we know it. Now
# suppose we did not: all we have is a model that fails on some photographs from the field.
#
# Look at the errors
# ------------------
#
# Half of the photographs from the field have a date, whatever their class. Every error involves two classes: the
# predicted one and the true one. The difference between their maps shows what misled the model.
# :meth:`~captum_scorecam.ScoreCAM.attribute_targets` computes both at once, here at the last convolutional layer.

field_images, field_labels, field_boxes = collect(40, TEST, (0.5, 0.5, 0.5), seed=4)


def maps_of(model: GroundClassifier, images: Tensor, targets: Tensor) -> Tensor:
    """Computes the maps N×T×SIZE×SIZE of targets N×T, upsampled to the images."""
    maps = ScoreCAM(model, model.features).attribute_targets(images, targets)
    return LayerAttribution.interpolate(maps, (SIZE, SIZE), "bilinear")


def draw(images: Tensor, maps: Tensor, titles: list[tuple[str, ...]]) -> None:
    """Draws one row per image: the image, then each of its maps T×H×W over it."""
    columns = 1 + maps.shape[1]
    size = (6.4, 2.5 * len(images))
    _, axes = plt.subplots(len(images), columns, figsize=size, layout="constrained", squeeze=False)
    for image, image_maps, row_titles, row in zip(images.permute(0, 2, 3, 1).numpy(), maps, titles, axes, strict=True):
        row[0].imshow(image)
        for values, axis in zip(image_maps, row[1:], strict=True):
            axis.imshow(overlay(image, values))
        for axis, title in zip(row, row_titles, strict=True):
            axis.set_title(title, fontsize=14)
            axis.set_axis_off()


predicted = predictions(model, field_images)
dated = torch.tensor([box is not None for box in field_boxes])
is_error = predicted != field_labels
print(f"{int(is_error.sum())} errors in {len(is_error)} photographs from the field")

gravel_errors = (is_error & (field_labels == GRAVEL) & dated).nonzero().flatten()
grass_errors = (is_error & (field_labels == GRASS) & ~dated).nonzero().flatten()
shown = torch.cat([gravel_errors[:2], grass_errors[:1]])
both = torch.stack([predicted, field_labels], dim=1)[shown]
error_maps = maps_of(model, field_images[shown], both)
draw(
    field_images[shown],
    error_maps,
    [("", f"predicted: {CLASSES[wrong]}", f"true: {CLASSES[right]}") for wrong, right in both.tolist()],
)

# %%
# The first two rows give it away. The evidence for *grass* is the date; the evidence for *gravel* is on the ground. A
# colleague who has never heard of the shortcut would ask what is in the lower right corner.
#
# The third row is the same flaw seen from the other side, and there the maps do not help: they are nearly the same for
# both classes. The model missed this grass because a date is *missing*, and no map can highlight what is not there. So
# look at errors of all kinds, and do not expect each of them to explain itself. The correlation of the two maps in each
# row confirms it:

similarities = [torch.corrcoef(pair.flatten(1))[0, 1].item() for pair in error_maps]
print("correlation of the two maps: " + ", ".join(f"{value:.2f}" for value in similarities))
assert max(similarities[:2]) < 0.3 < 0.7 < similarities[2], "two pairs of maps should differ, and the third should not"

# %%
# Quantify it
# -----------
#
# Three photographs raise a suspicion. To test it, draw a box around the suspect in a few dozen photographs and measure
# the share of the map inside: the energy-based pointing game. Usually a high share is good, because the box marks the
# object; here it measures the flaw. A uniform map would have a share equal to the area of the box.

date_boxes = [box for box in field_boxes if box is not None]


def share_in_date(model: GroundClassifier, targets: Tensor) -> Tensor:
    """Returns the share of the target's map that lies in the date's box, for each dated photograph."""
    maps = maps_of(model, field_images[dated], targets[dated].unsqueeze(1))
    return energy_pointing_game(maps, date_boxes, reduction="none")


left, top, right, bottom = torch.cat(date_boxes).unbind(1)
area = float(((right - left) * (bottom - top) / SIZE**2).mean())
before = share_in_date(model, predicted)
print(f"area of the date: {area:.1%}")
print(f"share of the predicted class's map in it: {before.mean():.1%}")
assert before.mean() > 3 * area, "the date should attract the predicted class's map"

# %%
# The share of the map in the date is several times the date's share of the area. That is the mean over all dated
# photographs, so it no longer depends on the ones we happened to look at.
#
# Fix the data
# ------------
#
# The date is a shortcut because it correlates with a class. There are two remedies: remove it (crop the corner, paint
# it over), or break the correlation. The second requires no search for dates, and teaches the model to ignore the dates
# that it will meet in production: print one on a third of the photographs of *every* class. Everything else stays the
# same, including the initial weights.

fixed_model = train(*collect(200, TRAINING, (1 / 3, 1 / 3, 1 / 3), seed=0)[:2])
accuracy = torch.stack(list(print_accuracies(fixed_model).values()))
assert accuracy.min() > 0.8, "the retrained model should do well with and without dates"
assert (accuracy.amax(0) - accuracy.amin(0)).max() < 0.15, "a date should change little"

# %%
# Now the three rows are similar: the presence of a date changes little. But this tutorial began with good accuracies
# too. Has the evidence moved as well?

predicted_after = predictions(fixed_model, field_images)
after = share_in_date(fixed_model, predicted_after)

figure, axis = plt.subplots(figsize=(6.4, 2.4), layout="constrained")
spread = torch.linspace(-0.25, 0.25, len(before))
for height, shares in ((1, before), (0, after)):
    axis.plot(shares, height + spread, "o", markersize=5, alpha=0.6)
axis.axvline(area, color="black", linestyle="--", linewidth=1)
axis.set_yticks([1, 0], ["before", "after"], fontsize=14)
axis.set_xlabel("share of the map in the date (dashed: the date's area)", fontsize=13)
axis.set_xlim(left=0)

print(f"area of the date: {area:.1%}")
print(f"share of the predicted class's map in it: {before.mean():.1%} before, {after.mean():.1%} after")
assert after.mean() < 2 * area < before.mean(), "the retrained model should treat the date like any other place"

# %%
# Each dot is a dated photograph. The maps have moved away from the date. Here are the revealing photographs again, with
# the map of the predicted class before and after:

shown = torch.cat([gravel_errors[:2], (dated & (field_labels == GRASS)).nonzero().flatten()[:1]])
maps_before = maps_of(model, field_images[shown], predicted[shown].unsqueeze(1))
maps_after = maps_of(fixed_model, field_images[shown], predicted_after[shown].unsqueeze(1))
draw(
    field_images[shown],
    torch.cat([maps_before, maps_after], dim=1),
    [
        (
            f"true: {CLASSES[field_labels[n]]}",
            f"before: {CLASSES[predicted[n]]}",
            f"after: {CLASSES[predicted_after[n]]}",
        )
        for n in shown.tolist()
    ],
)

# %%
# Note the last row. Both models predict grass, and both are right. Only the maps reveal that the first model was right
# for the wrong reason, and likely to fail on the next lawn without a date.

last = shown[-1]
assert predicted[last] == predicted_after[last] == GRASS, "both models should be right on the last photograph"

# %%
# Summary
# -------
#
# - A test set from the same collection cannot reveal a shortcut. Photographs from elsewhere can, and so can maps.
# - For errors, compare the map of the predicted class with that of the true class. What is bright only in the first is
#   the suspect.
# - A map highlights what is there. It cannot show that the absence of something decided.
# - Pictures suggest, numbers test: mark the suspect in a few dozen images and compare the map's share in it with its
#   share of the area, before and after you fix the data.
# - The maps of a layer are coarse (here 12×12 for 96 pixels), so a flaw of a few pixels shows up as a blurred bright
#   spot. It is a hint where to look, not an outline.
