"""The layer to explain: found by one forward pass, or named."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import DeQuantStub, QuantStub, convert, get_default_qconfig, prepare
from torchvision.models import SwinTransformer, VisionTransformer, get_model

from captum_scorecam import ScoreCAM, swin_activation_maps, vit_activation_maps
from captum_scorecam.layers import find_layer
from tests.support.token_nets import ChannelsLastNet, TokenNet


@pytest.fixture(scope="module")
def tiny_vit() -> nn.Module:
    model: nn.Module = VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=3
    )
    return model.eval()


@pytest.fixture(scope="module")
def tiny_swin() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = SwinTransformer(
            patch_size=[4, 4], embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=[4, 4], num_classes=3
        )
    return model.eval()


@pytest.fixture(scope="module")
def resnet18() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = get_model("resnet18", weights=None)
    return model.eval()


@pytest.mark.parametrize(
    ("name", "size", "layer"),
    [
        ("resnet18", 64, "layer4"),
        pytest.param("vgg11", 64, "avgpool", marks=pytest.mark.slow),
        pytest.param("densenet121", 64, "features", marks=pytest.mark.slow),
        ("squeezenet1_1", 64, "classifier.2"),
        pytest.param("googlenet", 64, "inception5b", marks=pytest.mark.slow),
        ("mobilenet_v3_small", 64, "features"),
        ("shufflenet_v2_x0_5", 64, "conv5"),
        pytest.param("efficientnet_b0", 64, "features", marks=pytest.mark.slow),
        pytest.param("convnext_tiny", 64, "features", marks=pytest.mark.slow),
        pytest.param("swin_t", 64, "permute", marks=pytest.mark.slow),
    ],
)
def test_auto_selects_the_last_maps_of_a_convolutional_model(name: str, size: int, layer: str) -> None:
    options = {"init_weights": False} if name in ("googlenet", "vgg11") else {}
    model = get_model(name, weights=None, **options).eval()
    found = find_layer(model, torch.zeros(1, 3, size, size))
    assert (found.name, found.of_input, found.activation_transform) == (layer, False, None)
    assert found.module is model.get_submodule(layer)


def test_auto_selects_the_last_blocks_first_norm_of_a_vision_transformer(tiny_vit: nn.Module) -> None:
    found = find_layer(tiny_vit, torch.zeros(1, 3, 32, 32))
    assert found.name == "encoder.layers.encoder_layer_1.ln_1"
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


def test_auto_takes_the_input_of_a_module_for_the_output_of_one_that_runs_twice() -> None:
    assert find_layer(Branches().eval(), torch.zeros(1, 3, 4, 4)).name == "single:input"


def test_the_input_of_a_layer_can_be_named() -> None:
    model = Branches().eval()
    found = find_layer(model, torch.zeros(1, 3, 4, 4), "pool:input")
    assert (found.module, found.of_input) == (model.pool, True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("STEM", r"Expected `layer` to name a module of the model, but got 'STEM'\. Closest matches: stem"),
        ("stemm", r"Expected `layer` to name a module of the model, but got 'stemm'\. Closest matches: stem"),
        (
            "pool:output",
            r"Expected `layer` to name a module of the model, but got 'pool:output'\. Closest matches: pool",
        ),
        ("", "Expected `layer` to name a module of the model, but got ''"),
        ("unused", "Expected `layer` to name a module that runs in the forward pass, but 'unused' does not"),
        ("pool", r"Expected `layer` to have N×K×h×w maps, but 'pool' has shape \(1, 1, 1, 1\)"),
        ("pair", "N×K×h×w maps, but 'pair' returns tuple of Tensor, tuple"),
    ],
)
def test_a_layer_that_cannot_be_explained_raises(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_layer(Branches().eval(), torch.zeros(1, 3, 4, 4), name)


@pytest.mark.parametrize("layer", [None, ["stem"], nn.Conv2d(3, 4, 1)], ids=["None", "list", "module"])
def test_a_layer_that_is_no_name_raises(layer: Any) -> None:
    with pytest.raises(TypeError, match='Expected `layer` to be "auto" or the name of a module, but got'):
        find_layer(Branches().eval(), torch.zeros(1, 3, 4, 4), layer)


class Container(nn.Module):
    """Returns a dictionary, and passes a tensor by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.maps, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        return {"maps": self.last(self.maps(pixels))}


class Keyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.container = Container()

    def forward(self, inputs: Tensor) -> Tensor:
        maps: Tensor = self.container(pixels=inputs)["maps"]
        return maps.mean((2, 3))


def test_a_layer_that_returns_a_dictionary_names_the_modules_in_it() -> None:
    with pytest.raises(
        ValueError, match=r"'container' returns dict\. Modules in it .* container\.maps, container\.last"
    ):
        find_layer(Keyword().eval(), torch.zeros(1, 3, 8, 8), "container")


def test_an_input_passed_by_keyword_can_be_named() -> None:
    model = Keyword().eval()
    found = find_layer(model, torch.zeros(1, 3, 8, 8), "container:input")
    assert (found.module, found.of_input, found.activation_transform) == (model.container, True, None)


@pytest.mark.parametrize(
    ("name", "prefix_tokens"), [("blocks.0", 5), ("blocks.3.attention:input", 5), ("norm", 5), ("blocks.2.norm2", 5)]
)
def test_tokens_of_a_named_layer_become_maps(name: str, prefix_tokens: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TokenNet(prefix_tokens).eval()
    transform = find_layer(model, torch.zeros(1, 3, 32, 48), name).activation_transform
    assert isinstance(transform, partial)
    assert (transform.func, transform.keywords) == (
        vit_activation_maps,
        {"prefix_tokens": prefix_tokens, "grid_size": (8, 12)},
    )


def test_a_transform_of_tokens_is_for_images_of_one_size() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TokenNet(0).eval()
    wide, high = torch.zeros(1, 3, 32, 48), torch.zeros(1, 3, 48, 32)
    found = find_layer(model, wide)
    assert found.image_size == (32, 48)
    assert found.for_inputs(model, wide) is found
    again = found.for_inputs(model, high)
    assert (again.name, again.image_size) == (found.name, (48, 32))
    assert isinstance(again.activation_transform, partial)
    assert again.activation_transform.keywords["grid_size"] == (12, 8)


def test_a_transform_of_tokens_of_a_signal_is_for_signals_of_one_length() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TokenNet(0, rank=1).eval()
    found = find_layer(model, torch.zeros(1, 3, 64))
    assert found.image_size == (64,)
    assert found.for_inputs(model, torch.zeros(1, 3, 96)).image_size == (96,)


def test_a_transform_of_maps_is_for_images_of_any_size(resnet18: nn.Module) -> None:
    found = find_layer(resnet18, torch.zeros(1, 3, 64, 64))
    assert found.image_size is None
    assert found.for_inputs(resnet18, torch.zeros(1, 3, 64, 96)) is found


@pytest.mark.parametrize("name", ["matrix", "q_norm", "k_norm"])
def test_an_attention_matrix_and_queries_are_no_maps(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TokenNet(0).eval()
    with pytest.raises(
        ValueError, match=f"attention.{name}' has shape .* that does not follow the positions of the im"
    ):
        find_layer(model, torch.zeros(1, 3, 32, 32), f"blocks.1.attention.{name}")


def test_an_attention_matrix_over_a_signal_is_no_map() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TokenNet(0, rank=1).eval()
    with pytest.raises(
        ValueError, match=r"blocks\.0\.attention\.matrix' has shape .* that does not follow the positions"
    ):
        find_layer(model, torch.zeros(1, 3, 64), "blocks.0.attention.matrix")


class ChannelAttention(nn.Module):
    """Attention between channels, whose matrix N×heads×K×K could be maps by its shape."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 4, stride=4)
        self.matrix = nn.Softmax(dim=-1)
        self.head = nn.Linear(32, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = self.stem(inputs).flatten(2).unflatten(1, (2, 16))
        mixed = self.matrix(tokens @ tokens.transpose(-2, -1)) @ tokens
        scores: Tensor = self.head(mixed.flatten(1, 2).mean(2))
        return scores


def test_a_matrix_over_channels_is_no_map() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ChannelAttention().eval()
    with pytest.raises(ValueError, match=r"'matrix' has shape \(1, 2, 16, 16\) that does not follow the positions"):
        find_layer(model, torch.zeros(1, 3, 64, 64), "matrix")


class SignalMixer(nn.Module):
    """Mixes all steps of N×t×K: its channels must not be taken for time."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(2, 24, 8, stride=8)
        self.mixing = nn.Sequential(*(nn.Linear(16, 16) for _ in range(3)))
        self.norm, self.head = nn.LayerNorm(24), nn.Linear(24, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.head(self.norm(self.mixing(self.stem(inputs)).transpose(1, 2)).mean(1))
        return scores


@pytest.mark.parametrize("seed", range(4))
def test_channels_of_a_mixed_signal_are_not_taken_for_time(seed: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SignalMixer().eval()
    signals = torch.zeros(1, 2, 128)
    assert find_layer(model, signals, "stem").activation_transform is None
    with pytest.raises(ValueError, match=r"'norm' has shape \(1, 16, 24\) that does not follow the positions"):
        find_layer(model, signals, "norm")


@pytest.mark.parametrize(("name", "size"), [("layer3", 32), ("layer4", 64), ("layer4.1.conv1", 64), ("layer2", 32)])
def test_maps_of_a_few_cells_can_be_named(name: str, size: int, resnet18: nn.Module) -> None:
    assert find_layer(resnet18, torch.zeros(1, 3, size, size), name).activation_transform is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["layer1.1.conv2", "layer2.0.conv1", "layer2.1.conv2", "layer3.1.conv2"])
def test_a_convolution_within_a_residual_branch_can_be_named(name: str) -> None:
    """Some of its positions react more than others, and so follow both dimensions of the image."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = get_model("resnet18", weights=None).eval()
    images = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    assert find_layer(model, images, name).activation_transform is None


class ChannelsLastOnly(nn.Module):
    """Refuses images in another memory format."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 32, 3, padding=1), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_contiguous(memory_format=torch.channels_last):
            raise RuntimeError("not channels last")
        scores: Tensor = self.head(self.conv(x).relu().mean((2, 3)))
        return scores


@pytest.mark.parametrize("layer", ["auto", "conv"])
def test_a_layer_is_looked_for_in_the_memory_format_of_the_images(layer: str) -> None:
    model = ChannelsLastOnly().eval()
    images = torch.rand(2, 3, 12, 20).to(memory_format=torch.channels_last)
    expected = ScoreCAM(model, model.conv).attribute(images, 1)
    found = find_layer(model, images, layer)
    assert found.name == "conv"
    assert torch.equal(ScoreCAM(model, layer).attribute(images, 1), expected)


def test_a_name_behind_the_prefix_of_a_parallel_model_finds_the_module() -> None:
    model = nn.DataParallel(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 3))))
    with pytest.raises(ValueError, match=r"but got 'module\.1'\. Closest matches: 1,"):
        ScoreCAM(model, "module.1")


def test_channels_last_are_told_from_channels_first_when_both_could_be() -> None:
    """Eight channels of an 8×8 grid, in either order."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ChannelsLastNet(width=8).eval()
    images = torch.zeros(1, 3, 32, 32)
    assert find_layer(model, images, "norm").activation_transform is swin_activation_maps
    assert find_layer(model, images, "stem").activation_transform is None


def test_the_model_and_the_random_state_stay_as_they_were() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.ReLU())
        model = nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).train()
    features[1].eval()
    seen: list[torch.Size] = []
    features.register_forward_hook(lambda _module, _args, output: seen.append(output.shape))
    modes, state = [module.training for module in model.modules()], model.state_dict()
    state, random_state = {name: value.clone() for name, value in state.items()}, torch.get_rng_state()
    with torch.inference_mode():
        assert find_layer(model, torch.rand(2, 3, 8, 8, generator=torch.Generator())).name == "0"
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert len(seen) > 1
    assert [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()].count(0) == 8


def quantised(*layers: nn.Module, images: Tensor) -> nn.Module:
    model = nn.Sequential(QuantStub(), *layers, DeQuantStub(), nn.Flatten()).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch plans to move this quantisation elsewhere
        model.qconfig = get_default_qconfig(torch.backends.quantized.engine)  # type: ignore[no-untyped-call]
        prepare(model, inplace=True)  # type: ignore[no-untyped-call]
        model(images)
        convert(model, inplace=True)  # type: ignore[no-untyped-call]
    return model


@pytest.mark.parametrize("size", [17, 41])
def test_a_layer_of_a_statically_quantised_model_is_found(size: int) -> None:
    """Its maps are quantised, 8×8 or 20×20."""
    images = torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    convolution = nn.Conv2d(3, 8, 3, stride=2)
    nn.init.normal_(convolution.weight, std=0.5, generator=torch.Generator().manual_seed(0))
    model = quantised(convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(1), images=images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = find_layer(model, images[:1])
        maps = ScoreCAM(model, "auto").attribute(images[:1], target=1)
        expected = ScoreCAM(model, model.get_submodule("2")).attribute(images[:1], target=1)
    assert found.name in ("1", "2")
    assert maps.max() > 0
    torch.testing.assert_close(maps, expected)


@pytest.mark.parametrize("channels", [3, 5], ids=["runs", "fails"])
def test_no_hook_stays_on_the_model(channels: int) -> None:
    model = Branches().eval()
    try:
        find_layer(model, torch.zeros(1, channels, 4, 4))
        failed = False
    except RuntimeError:
        failed = True
    assert failed == (channels == 5)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("ending", ["", ":input"])
def test_a_module_may_be_named_by_any_of_its_names(ending: str) -> None:
    class Renamed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base = Branches()
            self.again = self.base

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.again(x)
            return scores

    model = Renamed().eval()
    name = f"again.{'pool' if ending else 'single'}{ending}"
    found = find_layer(model, torch.zeros(1, 3, 4, 4), name)
    assert (found.name, found.module) == (name, model.base.pool if ending else model.base.single)
