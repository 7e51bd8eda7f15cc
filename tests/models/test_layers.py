"""The layer to explain: found by one forward pass, or named."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import SwinTransformer, VisionTransformer, get_model

from captum_scorecam import swin_activation_maps, vit_activation_maps
from captum_scorecam.models import find_layer


@pytest.fixture(scope="module")
def tiny_vit() -> nn.Module:
    model: nn.Module = VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=3
    )
    return model.eval()


@pytest.fixture(scope="module")
def tiny_swin() -> nn.Module:
    model: nn.Module = SwinTransformer(
        patch_size=[4, 4], embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=[4, 4], num_classes=3
    )
    return model.eval()


@pytest.mark.parametrize(
    ("name", "size", "layer"),
    [
        ("resnet18", 64, "layer4"),
        ("vgg11", 64, "avgpool"),
        ("densenet121", 64, "features"),
        ("squeezenet1_1", 64, "classifier.2"),
        ("googlenet", 64, "inception5b"),
        ("mobilenet_v3_small", 64, "features"),
        ("shufflenet_v2_x0_5", 64, "conv5"),
        ("efficientnet_b0", 64, "features"),
        ("convnext_tiny", 64, "features"),
        ("swin_t", 64, "permute"),
    ],
)
def test_auto_selects_the_last_maps_of_a_convolutional_model(name: str, size: int, layer: str) -> None:
    options = {"init_weights": False} if name in ("googlenet", "vgg11") else {}
    model = get_model(name, weights=None, **options).eval()
    found = find_layer(model, torch.zeros(1, 3, size, size))
    assert (found.name, found.of_input, found.activation_transform) == (layer, False, None)
    assert found.module is model.get_submodule(layer)


def test_auto_selects_the_last_blocks_first_norm_of_a_vision_transformer() -> None:
    found = find_layer(get_model("vit_b_32", weights=None).eval(), torch.zeros(1, 3, 224, 224))
    assert found.name == "encoder.layers.encoder_layer_11.ln_1"
    assert found.activation_transform is vit_activation_maps


@pytest.mark.parametrize("name", ["conv_proj", "encoder.layers.encoder_layer_0", "encoder.ln", "encoder.ln:input"])
def test_tokens_of_a_named_vit_layer_become_maps(name: str, tiny_vit: nn.Module) -> None:
    found = find_layer(tiny_vit, torch.zeros(1, 3, 32, 32), name)
    assert found.activation_transform is (None if name == "conv_proj" else vit_activation_maps)


@pytest.mark.parametrize(
    ("name", "has_tokens"),
    [
        ("features.0.0", False),
        ("features.0", True),
        ("features.1.0.norm2", True),
        ("norm", True),
        ("permute:input", True),
        ("permute", False),
    ],
)
def test_tokens_of_a_named_swin_layer_become_maps(name: str, has_tokens: bool, tiny_swin: nn.Module) -> None:
    found = find_layer(tiny_swin, torch.zeros(1, 3, 32, 32), name)
    assert found.activation_transform is (swin_activation_maps if has_tokens else None)


class Branches(nn.Module):
    """A convolution, a ReLU that runs twice, one that never runs, and a head with 1×1 maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.relu = nn.ReLU()
        self.single = nn.Conv2d(4, 1, 1)
        self.unused = nn.Conv2d(4, 4, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.pair = nn.LSTM(1, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        maps = self.single(self.relu(self.relu(self.stem(inputs))))
        self.pair(maps.flatten(1)[:, :1])
        pooled: Tensor = self.pool(maps)
        return pooled.flatten(1)


def test_auto_skips_layers_that_run_twice_and_single_or_1x1_maps() -> None:
    assert find_layer(Branches().eval(), torch.zeros(1, 3, 4, 4)).name == "stem"


def test_the_input_of_a_layer_can_be_named() -> None:
    model = Branches().eval()
    found = find_layer(model, torch.zeros(1, 3, 4, 4), "pool:input")
    assert (found.module, found.of_input) == (model.pool, True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stemm", r"Expected `layer` to name a module of the model, but got 'stemm'\. Closest matches: stem"),
        (
            "pool:output",
            r"Expected `layer` to name a module of the model, but got 'pool:output'\. Closest matches: pool",
        ),
        ("", "Expected `layer` to name a module of the model, but got ''"),
        ("unused", "Expected `layer` to name a module that runs in the forward pass, but 'unused' does not"),
        ("pool", r"Expected `layer` to have N×K×h×w maps, but 'pool' has shape \(1, 1, 1, 1\)"),
        ("pair", "N×K×h×w maps, but 'pair' has no tensor"),
    ],
)
def test_a_layer_that_cannot_be_explained_raises(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_layer(Branches().eval(), torch.zeros(1, 3, 4, 4), name)


def test_a_model_without_maps_raises() -> None:
    with pytest.raises(ValueError, match="Expected a model with a layer whose output is N×K×h×w"):
        find_layer(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize("channels", [3, 5], ids=["runs", "fails"])
def test_no_hook_stays_on_the_model(channels: int) -> None:
    model = Branches().eval()
    try:
        find_layer(model, torch.zeros(1, channels, 4, 4))
        failed = False
    except RuntimeError:
        failed = True
    assert failed == (channels == 5)
    assert all(not module._forward_hooks for module in model.modules())
