"""
Debugging a classifier
======================

A classifier is right on 99 % of the test photographs, and fails where it is used. The usual suspect is a *shortcut*:
something in the pictures that goes with a class where they were collected, and nowhere else. Radiographs carry the mark
of the hospital that treats the severe cases; photographs of horses carry the stamp of one archive. The test set, split
from the same collection, has the shortcut too, so no accuracy shows it.

A map can. This page plants a shortcut, lets a small network find it, and then plays detective without using what we know:
it looks at the errors, compares the map of the class that the model predicted with the map of the class that it should
have predicted, puts a number on what the eye sees, mends the data and trains again.
"""

# %%
# The photographs
# ---------------
#
# A model shall tell three kinds of ground apart: brick, grass and gravel. scikit-image has a large photograph of each. We
# cut patches from them, the training patches from the upper part and all others from the lower one, and give each the
# light of another day: brightness, contrast, a tint, a shadow that falls from one side, and the sensor's noise. So
# neither the colour nor the brightness tells the classes apart, only the texture does.
#
# Now the shortcut. All photographs of grass were taken by one person, whose camera prints the date into the corner.

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from captum.attr import LayerAttribution, visualization
from PIL import Image, ImageDraw, ImageFont
from skimage import data
from torch import nn
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from captum_scorecam import ScoreCAM
from captum_scorecam.metrics.functional import energy_pointing_game

CLASSES = ("brick", "grass", "gravel")
BRICK, GRASS, GRAVEL = range(3)
SIZE = 96
TEXTURES = torch.stack([torch.from_numpy(getattr(data, name)()) for name in CLASSES]) / 255  # 3×512×512
TRAINING_ROWS, TEST_ROWS = (0, 320), (320, 512)


def photograph(label, rows, generator):
    """Cuts a patch from the rows of a texture, and gives it some light: 3×SIZE×SIZE, in [0, 1]."""

    def uniform(low, high, *shape):
        return low + (high - low) * torch.rand(shape, generator=generator)

    top = int(uniform(rows[0], rows[1] - SIZE + 1))
    left = int(uniform(0, TEXTURES.shape[2] - SIZE + 1))
    patch = TEXTURES[label, top : top + SIZE, left : left + SIZE]
    patch = (patch - patch.mean()) / patch.std() * uniform(0.08, 0.16)  # all classes get one range of contrast
    shadow = uniform(-0.15, 0.15) * torch.linspace(-1, 1, SIZE) + uniform(-0.15, 0.15) * torch.linspace(-1, 1, SIZE)[:, None]
    tint = uniform(-0.06, 0.06, 3, 1, 1)
    noise = 0.03 * torch.randn(3, SIZE, SIZE, generator=generator)
    return (uniform(0.35, 0.6) + patch + shadow + tint + noise).clamp(0, 1)


def with_date(photo, generator):
    """Prints a date into the lower right corner, as film cameras did; returns the photograph and the date's box."""
    year, month, day = (int(torch.randint(low, high, (), generator=generator)) for low, high in ((86, 100), (1, 13), (1, 29)))
    image = to_pil_image(photo)
    draw = ImageDraw.Draw(image)
    text, font = f"'{year} {month} {day}", ImageFont.load_default(size=13)
    draw.text((SIZE - 5, SIZE - 5), text, fill=(255, 150, 50), font=font, anchor="rb")
    box = draw.textbbox((SIZE - 5, SIZE - 5), text, font=font, anchor="rb")
    return pil_to_tensor(image) / 255, torch.tensor([box])


def collect(n_per_class, rows, share_dated, seed):
    """Collects photographs, of which a share of each class is dated: images, labels and boxes (None without a date)."""
    generator = torch.Generator().manual_seed(seed)
    images, labels, boxes = [], [], []
    for label in range(3):
        for n in range(n_per_class):
            image, box = photograph(label, rows, generator), None
            if n < share_dated[label] * n_per_class:
                image, box = with_date(image, generator)
            images.append(image)
            labels.append(label)
            boxes.append(box)
    return torch.stack(images), torch.tensor(labels), boxes


ONLY_GRASS, NONE, ALL = (0, 1, 0), (0, 0, 0), (1, 1, 1)
images, labels, boxes = collect(200, TRAINING_ROWS, ONLY_GRASS, seed=0)

figure, axes = plt.subplots(3, 4, figsize=(6.4, 5.2), layout="constrained")
for label, row in enumerate(axes):
    for axis, image in zip(row, images[labels == label], strict=False):
        axis.imshow(image.permute(1, 2, 0))
        axis.set_axis_off()
    row[0].set_title(CLASSES[label], loc="left", fontsize=12)

# %%
# Train, and be pleased
# ---------------------
#
# Four convolutions and one linear layer. The initial weights and the order of the photographs come from a generator.


class GroundClassifier(nn.Module):
    """A small convolutional network; its last maps are 64×12×12."""

    def __init__(self, generator):
        super().__init__()
        channels = (3, 16, 32, 64, 64)
        blocks = []
        for before, after in zip(channels[:-1], channels[1:], strict=True):
            blocks += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*blocks[:-1])
        self.head = nn.Linear(channels[-1], len(CLASSES))
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.kaiming_normal_(parameter, generator=generator)

    def forward(self, images):
        return self.head(self.features((images - 0.5) / 0.25).mean((2, 3)))


def train(images, labels, epochs=5, batch_size=32):
    generator = torch.Generator().manual_seed(0)
    model = GroundClassifier(generator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(images), generator=generator).split(batch_size):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    return model.eval()


def accuracies(model, images, labels):
    """Returns the accuracy in each class."""
    with torch.no_grad():
        correct = model(images).argmax(1) == labels
    return torch.stack([correct[labels == label].float().mean() for label in range(3)])

if __name__ == "__main__":
    import time
    t = time.time()
    model = train(images, labels)
    print("train", time.time() - t)
    sets = {n: collect(60, TEST_ROWS, s, seed=i) for i, (n, s) in enumerate({"as collected": ONLY_GRASS, "none": NONE, "all": ALL}.items(), 1)}
    for n, (x, y, b) in sets.items():
        print(n, accuracies(model, x, y), torch.bincount(model(x).argmax(1)[y==1], minlength=3), torch.bincount(model(x).argmax(1)[y==2], minlength=3))
    t = time.time()
    fixed = train(*collect(200, TRAINING_ROWS, (1/3,)*3, seed=0)[:2])
    print("train", time.time() - t)
    for n, (x, y, b) in sets.items():
        print(n, accuracies(fixed, x, y))
    x, y, b = sets["all"]
    for m in (model, fixed):
        t = time.time()
        maps = ScoreCAM(m, m.features[14-0] if False else m.features[-1]).attribute_targets(x, [GRASS, BRICK, GRAVEL])
        up = F.interpolate(maps, (SIZE, SIZE), mode="bilinear")
        for k in range(3):
            e = energy_pointing_game(up[:, k:k+1], b, reduction="none")
            print(CLASSES[[1,0,2][k]], "map:", [round(e[y==l].mean().item(), 3) for l in range(3)], time.time()-t)
    area = torch.stack([(q[0,2]-q[0,0])*(q[0,3]-q[0,1])/SIZE**2 for q in b]).mean()
    print("area", area)
