"""ScoreCAM on torchvision's architectures: the map of a few channels equals the naive reference's.

The weights are random. Deep random nets answer every input alike, which would hide wrong scores: batch norms take the
statistics of a small batch of real images, and the last layer is drawn so that the scores of that batch spread by
about one.

Some of these nets amplify rounding: in float32 their own scores of an image differ by 1e-4 and more between a batch of
one and a batch of six, and the map can't be steadier than that. They are compared in float64 and agree to 1e-12.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import get_model

from captum_scorecam import ScoreCAM, swin_activation_maps, vit_activation_maps
from tests.conftest import photograph
from tests.naive_reference import read_activations
from tests.support.score_cam import naive_score_cam

CHANNELS = 5


@dataclass
class Architecture:
    """A torchvision model, the layer to explain and the layer that makes its scores."""

    name: str
    layer: str
    head: str
    map_size: tuple[int, ...]
    size: int = 64
    options: dict[str, Any] = field(default_factory=dict)
    target: Any = 3
    wrap: Callable[[nn.Module], Callable[..., Tensor]] = lambda model: model
    as_maps: Callable[[Tensor], Tensor] | None = None  # the reference's own
    activation_transform: Callable[[Tensor], Tensor] | None = None  # the package's
    frames: int = 0
    dtype: torch.dtype = torch.float32


def output_of_segmentation(model: nn.Module) -> Callable[..., Tensor]:
    return lambda x: model(x)["out"]


AUXILIARY = {"aux_logits": True, "init_weights": False}
ARCHITECTURES = [
    Architecture("vgg11", "features.18", "classifier.6", (4, 4)),
    Architecture("resnet18", "layer3", "fc", (4, 4)),
    Architecture("densenet121", "features.norm5", "classifier", (3, 3), size=96),  # an in-place ReLU follows
    Architecture("squeezenet1_1", "features.12", "classifier.1", (3, 3)),
    Architecture("googlenet", "inception4e", "fc", (4, 4), options=AUXILIARY, dtype=torch.float64),
    Architecture("inception_v3", "Mixed_6e", "fc", (4, 4), size=96, options=AUXILIARY, dtype=torch.float64),
    Architecture("mobilenet_v2", "features.16", "classifier.1", (2, 2), dtype=torch.float64),
    Architecture("mobilenet_v3_small", "features.8", "classifier.3", (4, 4)),
    Architecture("shufflenet_v2_x1_0", "stage3", "fc", (4, 4), dtype=torch.float64),
    Architecture("mnasnet0_5", "layers.13", "classifier.1", (2, 2), dtype=torch.float64),
    Architecture("regnet_y_400mf", "trunk_output.block3", "fc", (4, 4), dtype=torch.float64),
    Architecture("efficientnet_b0", "features.5", "classifier.1", (4, 4)),
    Architecture("convnext_tiny", "features.5", "classifier.2", (4, 4)),
    Architecture(
        "vit_b_32", "encoder.layers.encoder_layer_6.ln_1", "heads.head", (3, 3), size=96, options={"image_size": 96},
        as_maps=lambda tokens: tokens[:, 1:].permute(0, 2, 1).reshape(len(tokens), -1, 3, 3),
        activation_transform=vit_activation_maps,
    ),
    Architecture(
        "swin_t", "features.5", "head", (4, 4), as_maps=lambda tokens: tokens.permute(0, 3, 1, 2),
        activation_transform=swin_activation_maps,
    ),
    Architecture("mc3_18", "layer2", "fc", (4, 12, 12), size=48, frames=4),
    Architecture("r3d_18", "layer3", "fc", (2, 6, 6), size=48, frames=8),
    Architecture(
        "lraspp_mobilenet_v3_large", "backbone.12", "classifier.high_classifier", (4, 4), target=(3, 20, 40),
        options={"weights_backbone": None}, wrap=output_of_segmentation,
    ),
]  # fmt: skip


def photographs(architecture: Architecture, number: int) -> Tensor:
    """The photograph, its mirror image, its negative, dimmed, …; frames shift it by a pixel each."""
    picture = photograph(architecture.size)
    variants = [picture, picture.flip(3), -picture, picture / 2, picture.flip(2), picture.transpose(2, 3)]
    batch = torch.cat(variants[:number])
    if architecture.frames:
        batch = torch.stack([batch.roll(shift, dims=3) for shift in range(architecture.frames)], dim=2)
    return batch


def build(architecture: Architecture) -> nn.Module:
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model: nn.Module = get_model(architecture.name, weights=None, num_classes=8, **architecture.options).eval()
        norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.train()
            norm.momentum = None
        forward, batch = architecture.wrap(model), photographs(architecture, 6)
        forward(batch)
        model.eval()
        head: Any = model.get_submodule(architecture.head)
        head.weight.normal_()
        head.weight.div_(forward(batch).flatten(1).std(dim=0).mean())
    return model.to(architecture.dtype)


QUICK = ("resnet18", "squeezenet1_1", "mobilenet_v3_small", "efficientnet_b0", "lraspp_mobilenet_v3_large")
CASES = [
    pytest.param(architecture, id=architecture.name, marks=() if architecture.name in QUICK else pytest.mark.slow)
    for architecture in ARCHITECTURES
]


@pytest.mark.parametrize("architecture", CASES)
def test_architecture(architecture: Architecture) -> None:
    model, x = build(architecture), photographs(architecture, 2).to(architecture.dtype)
    forward, layer = architecture.wrap(model), model.get_submodule(architecture.layer)
    options: dict[str, Any] = {"max_channels": CHANNELS}
    expected = naive_score_cam(
        forward, layer, x, architecture.target, activation_transform=architecture.as_maps, **options
    )
    transform = architecture.activation_transform
    actual = ScoreCAM(forward, layer, activation_transform=transform, **options).attribute(x, architecture.target)
    assert tuple(actual.shape) == (2, 1, *architecture.map_size)
    tolerance = 1e-4 if architecture.dtype == torch.float32 else 1e-9
    assert float((actual - expected).abs().max()) <= tolerance * float(expected.max())

    (maps,) = read_activations(forward, layer, (x,))
    maps = maps if architecture.as_maps is None else architecture.as_maps(maps)
    spread = maps.flatten(2).std(dim=2)
    equal_weights = [m[s.topk(CHANNELS).indices].mean(dim=0).clamp(min=0) for m, s in zip(maps, spread, strict=True)]
    assert float((torch.stack(equal_weights)[:, None] - expected).abs().max()) > 1e-2 * float(expected.max())
