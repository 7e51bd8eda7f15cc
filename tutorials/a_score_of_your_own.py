"""
Explain boxes, embeddings and other scores
==========================================

Score-CAM needs one number for each masked image and each question, nothing more. A class score of a classifier is one
such number. This tutorial explains three others:

- *detection*: why does the model see this object, in this box?
- *embeddings*: where does the image resemble another picture?
- *one logit*: why does the image contain a cat, of whatever breed?

Each takes a ``forward_func`` that returns a tensor with one row for each image it was given. The model is
EfficientNet-Lite0 with its ImageNet weights. :doc:`/guide/scores_of_your_own` has more recipes, among them those for
torchvision's detectors, YOLO and segmentation.
"""

from typing import Any

import matplotlib.pyplot as plt
import torch
from captum.attr import LayerAttribution
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image, ImageOps
from skimage import data
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.functional import pil_to_tensor

from captum_scorecam import ScoreCAM, box_scores, overlay
from captum_scorecam.metrics.functional import energy_pointing_game
from captum_scorecam.models import imagenet_class_names, load_classifier

names = imagenet_class_names()
classifier: Any = load_classifier("efficientnet_lite0").model

TILE = 128
MEAN, SCALE = 127, 128  # the model's normalisation


def tile(picture) -> Tensor:
    """Returns the middle of a picture as 3×128×128, normalised."""
    image = ImageOps.fit(Image.fromarray(picture).convert("RGB"), (TILE, TILE))
    return (pil_to_tensor(image).float() - MEAN) / SCALE


tiles = [tile(picture) for picture in (data.chelsea(), data.coffee(), data.rocket(), data.camera())]
mosaic = torch.cat([torch.cat(tiles[:2], 2), torch.cat(tiles[2:], 2)], 1).unsqueeze(0)
print("mosaic", tuple(mosaic.shape))

# %%
# A detector
# ----------
#
# A classifier that averages its features over the image becomes a simple detector if it averages them over windows
# instead. The one below classifies 25 windows of 128×128 pixels. Like YOLO before non-maximum suppression, it returns
# a box and the probabilities of all classes for each of them.


class SlidingWindow(nn.Module):
    """Classifies every window of 128×128 pixels, 32 pixels apart: boxes and probabilities for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = classifier
        self.features = nn.Identity()  # the layer to explain

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        features = self.features(self.classifier.extract_features(images))  # N×1280×8×8
        windows = F.avg_pool2d(features, TILE // 32, stride=1).permute(0, 2, 3, 1)
        top, left = torch.meshgrid(32.0 * torch.arange(5), 32.0 * torch.arange(5), indexing="ij")
        boxes = torch.stack([left, top, left + TILE, top + TILE], 2).flatten(0, 1)
        probabilities = self.classifier._fc(windows).softmax(3).flatten(1, 2)
        return [{"boxes": boxes, "scores": each} for each in probabilities]


detector = SlidingWindow().eval()
with torch.no_grad():
    detections = detector(mosaic)[0]
for window in (0, 4, 24):
    probability, label = detections["scores"][window].max(0)
    print(f"{detections['boxes'][window].int().tolist()}: {names[label]} ({probability:.0%})")

# %%
# The score of a box
# ------------------
#
# We ask about three of them: the cat, the espresso, and the tripod. The score of a chosen box is that of the best
# detection in the masked image: its overlap with the box (IoU) times its probability of the class.
# :func:`~captum_scorecam.box_scores` computes it, N×T for T boxes of each image. The boxes are fixed beforehand. They
# are passed as ``additional_forward_args``, so they are not masked, and each image of a batch keeps its own.


def scores_of_boxes(images: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
    return box_scores(detector(images), boxes, labels)


chosen = torch.tensor([0, 4, 24])
boxes = detections["boxes"][chosen].unsqueeze(0)  # N×T×4
labels = detections["scores"][chosen].argmax(1).unsqueeze(0)  # N×T
with torch.no_grad():
    print("scores of the unmasked image:", scores_of_boxes(mosaic, boxes, labels))

# %%
# Target t is box t, so ``attribute_targets`` explains all three with the same forwards. To save time, we use only the
# 128 channels that vary most. The score lies in [0, 1], where a softmax over the channels would be nearly uniform.
# ``channel_weighting="increase"`` weights each channel by how much its masked image scores above an empty one.

score_cam = ScoreCAM(scores_of_boxes, detector.features, channel_weighting="increase", max_channels=128)
maps = score_cam.attribute_targets(mosaic, [0, 1, 2], additional_forward_args=(boxes, labels))
maps = LayerAttribution.interpolate(maps, tuple(mosaic.shape[2:]), "bilinear")
print("maps", tuple(maps.shape))


def draw(axis: Axes, image: Tensor, title: str, attribution: Tensor | None = None, box: Tensor | None = None) -> None:
    pixels = ((image * SCALE + MEAN) / 255).permute(1, 2, 0).clamp(0, 1)
    axis.imshow(pixels if attribution is None else overlay(pixels, attribution))
    if box is not None:
        left, top, right, bottom = box.tolist()
        axis.add_patch(
            Rectangle((left + 1, top + 1), right - left - 3, bottom - top - 3, fill=False, color="cyan", linewidth=2)
        )
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, fontsize=10)


figure, axes = plt.subplots(2, 2, figsize=(6, 6.4), layout="constrained")
draw(axes[0, 0], mosaic[0], "image")
for axis, attribution, box, label in zip(axes.flat[1:], maps[0], boxes[0], labels[0], strict=True):
    draw(axis, mosaic[0], f"why {names[label]}, here?", attribution, box)
plt.show()

# %%
# In numbers: the share of each map inside its own box, a quarter of the image.

for attribution, box, label in zip(maps[0], boxes[0], labels[0], strict=True):
    energy = float(energy_pointing_game(attribution.expand(1, 1, -1, -1), [box.unsqueeze(0)]))
    print(f"{names[label]}: {energy:.0%} of the map in its box")
    if energy < 0.5:
        raise RuntimeError("Most of the map should be in the box.")

# %%
# A concept, and one logit
# ------------------------
#
# Scores of different kinds may stand side by side in one output: they, too, cost the forwards of one. The first below
# is the cosine similarity of the image's embedding to a concept. A concept can be the mean embedding of a few pictures;
# here it is a single one, another view of the espresso. The second is the log-odds of a group of classes, all five
# kinds of cats, which turns 1000 logits into one.

query = tile(data.coffee()[:, ::-1][40:360, 60:420])
KINDS = ["tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat"]
cats = [names.index(kind) for kind in KINDS]
others = [label for label in range(len(names)) if label not in cats]


def embed(images: Tensor) -> Tensor:
    return detector.features(classifier.extract_features(images)).mean((2, 3))


def concept_and_cat(images: Tensor) -> Tensor:
    embeddings = embed(images)
    logits = classifier._fc(embeddings)
    cat = logits[:, cats].logsumexp(1) - logits[:, others].logsumexp(1)
    return torch.stack([F.cosine_similarity(embeddings, concept), cat], 1)


with torch.no_grad():
    concept = embed(query.unsqueeze(0))
    similarity, cat = concept_and_cat(mosaic)[0].tolist()
print(f"similarity {similarity:.2f}, log-odds of a cat {cat:.1f}")

score_cam = ScoreCAM(concept_and_cat, detector.features, channel_weighting="increase", max_channels=128)
maps = score_cam.attribute_targets(mosaic, [0, 1])
maps = LayerAttribution.interpolate(maps, tuple(mosaic.shape[2:]), "bilinear")

figure, axes = plt.subplots(1, 3, figsize=(7.5, 2.75), layout="constrained")
draw(axes[0], query, "the concept")
draw(axes[1], mosaic[0], "what resembles it?", maps[0, 0])
draw(axes[2], mosaic[0], "why any cat?", maps[0, 1])
plt.show()

for question, attribution, box in zip(("concept", "cat"), maps[0], boxes[0, [1, 0]], strict=True):
    energy = float(energy_pointing_game(attribution.expand(1, 1, -1, -1), [box.unsqueeze(0)]))
    print(f"{question}: {energy:.0%} of the map in its tile, a quarter of the image")

# %%
# As a whole, the mosaic is no cat: its log-odds are negative. The map still shows which part speaks for one. The map of
# the concept is the broader one, brightest on the espresso.
#
# Summary
# -------
#
# - Write a function of the images that returns N×T scores; Score-CAM explains each of the T as a target.
# - Fix what the score is about (box, region, concept) before anything is masked.
# - What differs between the images of a batch goes into ``additional_forward_args``; what all of them share belongs in
#   the function.
# - If the score is bounded, use ``channel_weighting="increase"``.
# - Look at the score of the unmasked image first: if it is about 0, there is nothing to explain.
