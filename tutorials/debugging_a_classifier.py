"""
Debugging a classifier
======================

A classifier is right on every test photograph, and fails where it is used. The usual suspect is a *shortcut*: something
in the pictures that goes with a class where they were collected, and nowhere else. Radiographs show a metal token of
the hospital, and `one hospital has more of the ill <https://arxiv.org/abs/1807.00431>`_; photographs of horses have
`the copyright line of one archive <https://arxiv.org/abs/1902.10178>`_. The test set is split from the same collection
and has the shortcut too, so no accuracy shows it.

A map can. This page plants a shortcut and lets a small network find it. Then it goes the way that you would go with a
model that disappoints: look at its errors, compare the map of the class that it predicted with the map of the class
that it should have predicted, put a number on what the eye sees, mend the data, train again, and measure again.
"""

# %%
# The photographs
# ---------------
#
# The model shall tell three kinds of ground apart: brick, grass and gravel. scikit-image has a large photograph of
# each. We cut patches from them, the training patches from the left part and all others from the right one, and give
# each its own distance and the light of another day: brightness, contrast, a tint, a shadow from one side, and the
# sensor's noise. So neither colour nor brightness tells the classes apart. Only the texture does.
#
# Now the shortcut. All photographs of grass were taken by one person, whose camera prints the date into the corner.

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from captum.attr import LayerAttribution, visualization
from PIL import ImageDraw, ImageFont
from skimage import data
from torch import nn
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from captum_scorecam import ScoreCAM
from captum_scorecam.metrics.functional import energy_pointing_game

CLASSES = ("brick", "grass", "gravel")
BRICK, GRASS, GRAVEL = range(3)
TEXTURES = torch.stack([torch.from_numpy(getattr(data, name)()) for name in CLASSES]) / 255  # 3×512×512
TRAINING, TEST = (0, 352), (352, 512)  # columns of the textures
SIZE = 96


def uniform(low, high, generator, *shape):
    """Draws numbers between two others."""
    return low + (high - low) * torch.rand(shape, generator=generator)


def photograph(label, columns, generator):
    """Cuts a patch from some columns of a texture, and gives it some light: 3×SIZE×SIZE, in [0, 1]."""
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


def with_date(photo, generator):
    """Prints a date into the lower right corner, and returns the box x1, y1, x2, y2 that it takes."""
    year, month, day = (int(uniform(*limits, generator)) for limits in ((86, 100), (1, 13), (1, 29)))
    image = to_pil_image(photo)
    draw, corner = ImageDraw.Draw(image), (SIZE - 5, SIZE - 5)
    text = {"text": f"'{year} {month} {day}", "font": ImageFont.load_default(size=15), "anchor": "rb"}
    draw.text(corner, fill=(255, 150, 50), **text)
    return pil_to_tensor(image) / 255, torch.tensor([draw.textbbox(corner, **text)])


def collect(n_per_class, columns, dated, seed):
    """Collects photographs; `dated` is the share of each class that has a date. A box is None without one."""
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


ONLY_GRASS, NOBODY, EVERYBODY = (0, 1, 0), (0, 0, 0), (1, 1, 1)
images, labels, _ = collect(200, TRAINING, ONLY_GRASS, seed=0)

figure, axes = plt.subplots(3, 3, figsize=(6.4, 6.8), layout="constrained")
for label, row in enumerate(axes):
    for axis, image in zip(row, images[labels == label], strict=False):
        axis.imshow(image.permute(1, 2, 0))
        axis.set_axis_off()
    row[0].set_title(CLASSES[label], loc="left", fontsize=14)

# %%
# Train, and be pleased
# ---------------------
#
# Four convolutions and a linear layer, trained for a few epochs. The initial weights and the order of the photographs
# come from a generator, so a second model differs from the first by its data alone.


class GroundClassifier(nn.Module):
    """A small convolutional network; its last maps are 64×12×12."""

    def __init__(self, generator):
        super().__init__()
        blocks = []
        for before, after, stride in ((3, 16, 2), (16, 32, 2), (32, 64, 2), (64, 64, 1)):
            convolution = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
            blocks += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
        self.features = nn.Sequential(*blocks)
        self.head = nn.Linear(64, len(CLASSES))
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.kaiming_normal_(parameter, generator=generator)

    def forward(self, images):
        """Returns the scores of the classes, N×3."""
        return self.head(self.features((images - 0.5) / 0.25).mean((2, 3)))


def train(images, labels, epochs=6, batch_size=32):
    """Trains a new model, always from the same weights."""
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
def predictions(model, images):
    """Returns the class that the model predicts for each image."""
    return model(images).argmax(1)


def accuracies(model, images, labels):
    """Returns the accuracy in each class."""
    correct = predictions(model, images) == labels
    return torch.stack([correct[labels == label].float().mean() for label in range(3)])


model = train(images, labels)

test_images, test_labels, _ = collect(50, TEST, ONLY_GRASS, seed=1)
as_collected = accuracies(model, test_images, test_labels)
print(f"accuracy on the test photographs: {as_collected.mean():.1%}")
assert as_collected.mean() > 0.95, "the model should do well on photographs like those that it was trained on"

# %%
# Nearly all are right, and no patch of the test set was seen in training. By the book, this model is ready.
#
# Use it, and be disappointed
# ---------------------------
#
# In use, the photographs come from many cameras. Two sets show the extremes: nobody's camera prints a date, or
# everybody's does. The ground is as it was.

SETS = {
    "only on grass": (test_images, test_labels),
    "nowhere": collect(50, TEST, NOBODY, seed=2)[:2],
    "everywhere": collect(50, TEST, EVERYBODY, seed=3)[:2],
}


def table(model):
    """Prints the accuracy by class for each set, and returns it."""
    print(f"{'a date is ...':16}" + "".join(f"{name:>9}" for name in CLASSES))
    measured = {where: accuracies(model, *photographs) for where, photographs in SETS.items()}
    for where, row in measured.items():
        print(f"{where:16}" + "".join(f"{value:>9.0%}" for value in row))
    return measured


measured = table(model)
assert measured["nowhere"][GRASS] < 0.5, "most grass without a date should be missed"
assert measured["everywhere"][GRAVEL] < 0.5, "most gravel with a date should be missed"

# %%
# Without its date, most grass is missed; with a date, most gravel is. We know why, because we planted it. Suppose we
# did not: all we have is a model that fails on some of the photographs from the field.
#
# Look at the errors
# ------------------
#
# Half of the photographs from the field have a date, whatever the class. For each error there are two classes to ask
# about: the one that the model predicted, and the one that it should have predicted. The difference between their maps
# is what led the model astray. :meth:`~captum_scorecam.ScoreCAM.attribute_targets` takes both at once; the layer is the
# last of the convolutional part.

field_images, field_labels, field_boxes = collect(40, TEST, (0.5, 0.5, 0.5), seed=4)


def maps_of(model, images, targets):
    """Returns the maps N×T×SIZE×SIZE of targets N×T, at the size of the images."""
    maps = ScoreCAM(model, model.features).attribute_targets(images, targets)
    return LayerAttribution.interpolate(maps, (SIZE, SIZE), "bilinear")


def draw(images, maps, titles):
    """Draws a row for each image: the image, and maps T×H×W over it."""
    columns = 1 + maps.shape[1]
    figure, axes = plt.subplots(
        len(images), columns, figsize=(6.4, 2.5 * len(images)), layout="constrained", squeeze=False
    )
    for image, image_maps, row_titles, row in zip(images.permute(0, 2, 3, 1).numpy(), maps, titles, axes, strict=True):
        row[0].imshow(image)
        for values, axis in zip(image_maps, row[1:], strict=True):
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
        for axis, title in zip(row, row_titles, strict=True):
            axis.set_title(title, fontsize=14)
            axis.set_axis_off()


predicted = predictions(model, field_images)
dated = torch.tensor([box is not None for box in field_boxes])
is_error = predicted != field_labels
print(f"{int(is_error.sum())} errors in {len(is_error)} photographs from the field")

gravel_errors = (is_error & (field_labels == GRAVEL) & dated).nonzero().flatten()
grass_errors = (is_error & (field_labels == GRASS) & ~dated).nonzero().flatten()
chosen = torch.cat([gravel_errors[:2], grass_errors[:1]])
both = torch.stack([predicted, field_labels], dim=1)[chosen]
error_maps = maps_of(model, field_images[chosen], both)
draw(
    field_images[chosen],
    error_maps,
    [("", f"predicted: {CLASSES[wrong]}", f"true: {CLASSES[right]}") for wrong, right in both.tolist()],
)

# %%
# The first two rows answer at once. What speaks for *grass* is the date; what speaks for *gravel* is on the ground. A
# colleague who never heard of the shortcut would ask: what is in the lower right corner?
#
# The third row is the same fault from its other side, and there the maps are of no help: they are nearly the same for
# both classes. The model missed this grass because a date is *missing*, and no map can point at what is not there. So
# look at errors of all kinds, and don't expect each of them to explain itself. In numbers, how alike the two maps of
# each row are:

alike = [torch.corrcoef(pair.flatten(1))[0, 1].item() for pair in error_maps]
print("correlation of the two maps: " + ", ".join(f"{value:.2f}" for value in alike))
assert max(alike[:2]) < 0.3 < 0.7 < alike[2], "two pairs of maps should differ, and the third should not"

# %%
# Put a number on it
# ------------------
#
# Three photographs make a suspicion. To test it, draw a box around the suspect in some dozens of photographs, and
# measure which share of the map lies in it: the energy-based pointing game. Usually a high share is good, since the box
# is around the object; here it is the fault that is measured. The share that a map without any opinion would have is
# the box's share of the area.


def share_in_date(model, targets):
    """Returns, for each dated photograph, the share of the map of its target that lies in the date's box."""
    maps = maps_of(model, field_images[dated], targets[dated].unsqueeze(1))
    return energy_pointing_game(maps, [box for box in field_boxes if box is not None], reduction="none")


left, top, right, bottom = torch.cat([box for box in field_boxes if box is not None]).unbind(1)
area = ((right - left) * (bottom - top) / SIZE**2).mean()
before = share_in_date(model, predicted)
print(f"area of the date: {area:.1%}")
print(f"share of the predicted class's map in it: {before.mean():.1%}")
assert before.mean() > 3 * area, "the date should attract the predicted class's map"

# %%
# The predicted class's map has several times more of its energy in the date than the date has of the picture. That is
# the mean over all dated photographs, so it no longer depends on which ones we looked at.
#
# Mend the data
# -------------
#
# What made the shortcut was that the date goes with a class. There are two remedies: remove it (crop the corner, paint
# it over), or let it go with nothing. The second needs no search for each date, and teaches the model to ignore dates
# that it will meet in use: print one on a third of the photographs of *every* class. All else is as it was, down to the
# initial weights.

mended = train(*collect(200, TRAINING, (1 / 3, 1 / 3, 1 / 3), seed=0)[:2])
measured_mended = table(mended)
accuracy = torch.stack(list(measured_mended.values()))
assert accuracy.min() > 0.8, "the mended model should do well with and without dates"
assert (accuracy.amax(0) - accuracy.amin(0)).max() < 0.15, "a date should change little"

# %%
# Now the three lines are much alike: a date, or the lack of one, changes little. But good accuracies are where this
# page began. Does the model look elsewhere, too?

predicted_mended = predictions(mended, field_images)
after = share_in_date(mended, predicted_mended)

figure, axis = plt.subplots(figsize=(6.4, 2.4), layout="constrained")
spread = torch.linspace(-0.25, 0.25, len(before))
for height, shares, colour in ((1, before, "#d1495b"), (0, after, "#00798c")):
    axis.plot(shares, height + spread, "o", color=colour, markersize=5, alpha=0.6)
axis.axvline(area, color="black", linestyle="--", linewidth=1)
axis.set_yticks([1, 0], ["before", "after"], fontsize=14)
axis.set_xlabel("share of the map in the date (dashed: the date's area)", fontsize=13)
axis.set_xlim(left=0)

print(f"area of the date: {area:.1%}")
print(f"share of the predicted class's map in it: {before.mean():.1%} before, {after.mean():.1%} after")
assert after.mean() < 2 * area < before.mean(), "the mended model's maps should treat the date as any other place"

# %%
# Each dot is a dated photograph. The maps have left the date. The same photographs that gave the model away, now with
# the map of what it predicts before and after:

shown = torch.cat([gravel_errors[:2], (dated & (field_labels == GRASS)).nonzero().flatten()[:1]])
moved = torch.cat(
    [
        maps_of(m, field_images[shown], p[shown].unsqueeze(1))
        for m, p in ((model, predicted), (mended, predicted_mended))
    ],
    dim=1,
)
draw(
    field_images[shown],
    moved,
    [
        (
            f"true: {CLASSES[field_labels[n]]}",
            f"before: {CLASSES[predicted[n]]}",
            f"after: {CLASSES[predicted_mended[n]]}",
        )
        for n in shown.tolist()
    ],
)

# %%
# Mind the last row. Both models call it grass, and both are right. Only the maps tell that the first was right for the
# wrong reason, and that it will fail on the next lawn that somebody else photographs.

last = shown[-1]
assert predicted[last] == predicted_mended[last] == GRASS, "both models should be right on the last photograph"

# %%
# What to take along
# ------------------
#
# - A test set from the same collection can't show a shortcut. Photographs from elsewhere can, and so can maps.
# - On errors, compare the map of the predicted class with that of the true one. What is bright in the first only is
#   your suspect.
# - A map shows what is there. It can't show that something missing made the decision.
# - Pictures suggest, numbers test: mark the suspect in a few dozen images and measure the map's share in it, against
#   its share of the area, before and after you mend the data.
# - The maps of a layer are coarse (here 12×12 for 96 pixels), so a fault of a few pixels gets a blurred bright place.
#   It is a hint where to look, not an outline.
