"""Agreement with grad-cam 1.5 and torchcam 0.5, and with the authors' released code, on a real model and a real image.

Differences in convention are documented in each test; nothing else may differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
import pytorch_grad_cam.score_cam
import torch
import torch.nn.functional as F
import torchcam.methods
from captum.attr import LayerAttribution
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from captum_scorecam import ScoreCAM
from tests.conftest import EGYPTIAN_CAT, TIGER_CAT, photograph
from tests.support.score_cam import last_run


class OneCallEach(nn.Module):
    """EfficientNet-Lite0 with the head's activations as a separate layer.

    The model's own `_swish` gives them in its second call of a forward; grad-cam reads the first call of a layer.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model
        self.head_activations = nn.Identity()

    def forward(self, x: Tensor) -> Any:
        z = self.head_activations(self.model.extract_features(x))
        return self.model._fc(self.model._avg_pooling(z).flatten(1))


class Remembered(nn.Module):
    """A model that runs a batch of several rows once: the peers score the same masked inputs again for every class."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.outputs: dict[bytes, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        key = hashlib.sha256(x.contiguous().numpy().data).digest()
        if len(x) == 1 or key not in self.outputs:  # a peer hooks the run of one row, for its activations
            self.outputs[key] = self.model(x)
        return self.outputs[key]


@pytest.fixture(scope="module")
def network(efficientnet_lite0: nn.Module) -> OneCallEach:
    return OneCallEach(efficientnet_lite0).eval()


def correlation(one: Tensor, other: Tensor) -> float:
    assert one.numel() == other.numel()
    assert float(other.std()) > 0
    return float(torch.corrcoef(torch.stack([one.flatten().double(), other.flatten().double()]))[0, 1])


def grad_cam_map(network: nn.Module, layer: nn.Module, x: Tensor, target: int) -> Tensor:
    """Its map at the layer's resolution, before it clips, rescales and resizes it."""
    method = pytorch_grad_cam.score_cam.ScoreCAM(network, [layer])
    method.batch_size = 8
    try:
        method.activations_and_grads(x)
        activations = method.activations_and_grads.activations[0].numpy()
        return torch.from_numpy(method.get_cam_image(x, layer, [ClassifierOutputTarget(target)], activations, None))
    finally:
        method.activations_and_grads.release()


def torchcam_map(network: nn.Module, layer: nn.Module, x: Tensor, target: int) -> Tensor:
    with torchcam.methods.ScoreCAM(network, layer, batch_size=8) as method, torch.no_grad():
        network(x)
        return method(target)[0]


def same_upsampling(monkeypatch: pytest.MonkeyPatch) -> None:
    def half_pixel_centres(size: tuple[int, int]) -> nn.Module:
        return nn.Upsample(size=size, mode="bilinear", align_corners=False)

    monkeypatch.setattr(torch.nn, "UpsamplingBilinear2d", half_pixel_centres)


@pytest.fixture(scope="module")
def block_4_map(network: OneCallEach, cat: Tensor) -> Tensor:
    """Our map of 40×28×28 activations that run once."""
    maps: Tensor = ScoreCAM(network, network.model._blocks[4]).attribute(cat, EGYPTIAN_CAT, relu_attributions=False)
    return maps[0]


@pytest.fixture(scope="module")
def block_8_maps(network: OneCallEach, cat: Tensor) -> dict[int, Tensor]:
    """Our maps of 112×14×14 activations that run once, for two classes out of one set of forwards."""
    score_cam = ScoreCAM(network, network.model._blocks[8])
    maps = score_cam.attribute_targets(cat, [EGYPTIAN_CAT, TIGER_CAT], relu_attributions=False)
    return dict(zip([EGYPTIAN_CAT, TIGER_CAT], maps[0], strict=True))


def test_grad_cam_agrees_except_for_align_corners(
    network: OneCallEach, cat: Tensor, block_4_map: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    # grad-cam 1.5: align_corners=True when it upsamples masks (taken out here), softmax over the channels (as here),
    # 1e-8 added to the range of a mask (invisible here), no ReLU at this stage
    same_upsampling(monkeypatch)
    theirs = grad_cam_map(network, network.model._blocks[4], cat, EGYPTIAN_CAT)
    assert correlation(block_4_map, theirs) >= 0.99999
    torch.testing.assert_close(block_4_map, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_unmodified_grad_cam_agrees(network: OneCallEach, cat: Tensor, block_8_maps: dict[int, Tensor]) -> None:
    # with align_corners=True its masks are moved by up to half a cell of the map, 8 pixels, towards the border
    theirs = grad_cam_map(network, network.model._blocks[8], cat, TIGER_CAT)
    ours = block_8_maps[TIGER_CAT]
    assert correlation(ours, theirs) >= 0.99
    assert correlation(ours.clamp(min=0), theirs.clamp(min=0)) >= 0.99


@pytest.mark.slow
def test_torchcam_agrees(network: OneCallEach, cat: Tensor, block_8_maps: dict[int, Tensor]) -> None:
    # torchcam 0.5: normalises a map before it upsamples it, so a mask may fall short of [0, 1] where the peak lies
    # between pixels; takes the score of the unmasked input away, which the softmax cancels; ReLU, then min-max
    theirs = torchcam_map(network, network.model._blocks[8], cat, EGYPTIAN_CAT)
    ours = block_8_maps[EGYPTIAN_CAT].clamp(min=0)
    assert correlation(ours, theirs) >= 0.999
    assert float((ours / ours.max() - theirs[0]).abs().max()) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("peer_map", "agreement"), [(torchcam_map, 0.999), (grad_cam_map, 0.99)])
def test_peers_agree_on_the_activations_of_the_head(
    network: OneCallEach, peer_map: Callable[..., Tensor], agreement: float
) -> None:
    # 1280×5×5 after ReLU6. Constant channels are all zero: the peers score them (as a black image) and give them a
    # weight, which changes the map by a factor that the correlation doesn't see
    cat = photograph(160)
    score_cam = ScoreCAM(network, network.head_activations)
    targets = [EGYPTIAN_CAT, TIGER_CAT]
    maps = score_cam.attribute_targets(cat, targets)[0]
    assert last_run(score_cam).constant > 100
    remembered = Remembered(network)
    for ours, target in zip(maps, targets, strict=True):
        theirs = peer_map(remembered, network.head_activations, cat, target)
        assert correlation(ours, theirs.clamp(min=0)) >= agreement


def released_code(network: nn.Module, activations: Tensor, x: Tensor, target: int) -> Tensor:
    """Reimplements what github.com/haofanwang/Score-CAM computes.

    The probability of each masked image weighs the upsampled map that masked it. A map that is constant once
    upsampled is passed over. The sum is clipped at zero and brought to [0, 1].
    """
    total = torch.zeros(x.shape[2:])
    with torch.no_grad():
        for channel in activations[0]:
            enlarged = F.interpolate(channel[None, None], x.shape[2:], mode="bilinear", align_corners=False)
            low, high = enlarged.min(), enlarged.max()
            if low != high:
                probabilities = torch.softmax(network(x * (enlarged - low) / (high - low)), dim=1)
                total += probabilities[0, target] * enlarged[0, 0]
    total = total.clamp(min=0)
    return (total - total.min()) / (total.max() - total.min())


def test_recipe_of_the_released_code(network: OneCallEach, cat: Tensor, block_4_map: Tensor) -> None:
    # their map has the input's size; upsampling is linear, so it may follow the sum instead, as Captum users do it
    layer = network.model._blocks[4]
    kept: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _module, _taken, given: kept.append(given.detach().clone()))
    with torch.no_grad():
        network(cat)
    hook.remove()
    theirs = released_code(network, kept[0], cat, EGYPTIAN_CAT)

    score_cam = ScoreCAM(network, layer, score="probability", channel_weighting="score")
    ours = score_cam.attribute(cat, EGYPTIAN_CAT, relu_attributions=False)
    ours = LayerAttribution.interpolate(ours, (224, 224), "bilinear")[0, 0].clamp(min=0)
    ours = (ours - ours.min()) / (ours.max() - ours.min())
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    default = LayerAttribution.interpolate(block_4_map[None], (224, 224), "bilinear")[0, 0].clamp(min=0)
    assert correlation(default, theirs) < 0.9999  # Algorithm 1 is another map
