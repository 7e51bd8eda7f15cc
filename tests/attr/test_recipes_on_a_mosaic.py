"""The score of a box, on ImageNet weights: its map has most energy in the tile that the box encloses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from captum.attr import LayerAttribution
from PIL import Image, ImageOps
from skimage import data
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.functional import pil_to_tensor

from captum_scorecam import ScoreCAM, box_scores
from captum_scorecam.metrics.functional import energy_pointing_game
from captum_scorecam.models import load_classifier

TILE = 128
BOXES = torch.tensor(
    [[x, y, x + TILE, y + TILE] for y in (0, TILE) for x in (0, TILE)], dtype=torch.float32
)  # one for each tile


class SlidingWindow(nn.Module):
    """A detector made of a classifier: it classifies every window of the size of a tile, 32 pixels apart."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier: Any = load_classifier("efficientnet_lite0").model
        self.features = nn.Identity()

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        features = self.features(self.classifier.extract_features(images))
        windows = F.avg_pool2d(features, TILE // 32, stride=1).permute(0, 2, 3, 1)
        rows, columns = windows.shape[1:3]
        top, left = torch.meshgrid(32.0 * torch.arange(rows), 32.0 * torch.arange(columns), indexing="ij")
        boxes = torch.stack([left, top, left + TILE, top + TILE], 2).flatten(0, 1)
        probabilities = self.classifier._fc(windows).softmax(3).flatten(1, 2)
        return [{"boxes": boxes, "scores": scores} for scores in probabilities]


def tile(name: str) -> Tensor:
    image = ImageOps.fit(Image.fromarray(getattr(data, name)()).convert("RGB"), (TILE, TILE))
    pixels: Tensor = pil_to_tensor(image).float()
    return (pixels - 127) / 128


@pytest.mark.slow
@pytest.mark.parametrize("weighting", ["increase", "score"])
def test_a_box_is_explained_by_its_tile(weighting: str) -> None:
    detector = SlidingWindow().eval()
    tiles = [tile(name) for name in ("chelsea", "coffee", "rocket", "camera")]
    mosaic = torch.cat([torch.cat(tiles[:2], 2), torch.cat(tiles[2:], 2)], 1).unsqueeze(0)
    with torch.no_grad():
        labels = detector.classifier(torch.stack(tiles)).argmax(1)

    def forward(images: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        return box_scores(detector(images), boxes, labels)

    score_cam = ScoreCAM(forward, detector.features, channel_weighting=weighting, max_channels=200)  # type: ignore[arg-type]
    maps = score_cam.attribute_targets(mosaic, [0, 1, 2, 3], (BOXES.unsqueeze(0), labels.unsqueeze(0)))
    maps = LayerAttribution.interpolate(maps, (2 * TILE, 2 * TILE), "bilinear")[0].unsqueeze(1)
    for t, one in enumerate(maps):
        energies = [float(energy_pointing_game(one.unsqueeze(0), [box.unsqueeze(0)])) for box in BOXES]
        assert energies[t] > 0.6
        assert max(energies) == energies[t]
