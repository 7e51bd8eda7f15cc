"""``auto`` on models of timm and Hugging Face with random weights: the right maps or an error, never wrong ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from captum_scorecam import ScoreCAM
from captum_scorecam.layers import find_layer

pytestmark = pytest.mark.slow

# timm: the grid and the prefix tokens of the last maps; written down from the architectures, not from what is found.
# None: no layer holds all maps (parallel streams), or its random weights hide where the tokens are.
TIMM: dict[str, tuple[int, int] | None] = {
    "bat_resnext26ts": (8, 0),
    "caformer_s18": (7, 0),
    "cait_xxs24_224": (14, 0),
    "coat_lite_tiny": (7, 1),
    "coatnet_nano_rw_224": (7, 0),
    "convit_tiny": (14, 1),
    "convnext_atto": (7, 0),
    "crossvit_tiny_240": None,
    "csatv2": (8, 0),
    "cspresnet50": (8, 0),
    "davit_tiny": (7, 0),
    "deit_tiny_distilled_patch16_224": (14, 2),
    "densenet121": (7, 0),
    "dla46_c": (7, 0),
    "dpn68": (7, 0),
    "edgenext_xx_small": (8, 0),
    "efficientformer_l1": (7, 0),
    "efficientformerv2_s0": (7, 0),
    "efficientnet_b0": (7, 0),
    "efficientvit_b0": (7, 0),
    "efficientvit_m0": (4, 0),
    "eva02_tiny_patch14_224": (16, 1),
    "fasternet_t0": (7, 0),
    "fastvit_t8": (8, 0),
    "gcvit_xxtiny": (7, 0),
    "gernet_s": (7, 0),
    "ghostnet_050": (7, 0),
    "gmixer_12_224": (14, 0),
    "hardcorenas_a": (7, 0),
    "hgnetv2_b0": (7, 0),
    "hiera_tiny_224": (7, 0),
    "hrnet_w18_small": (7, 0),
    "iformer_t": (7, 0),
    "inception_next_atto": (7, 0),
    "lcnet_035": (7, 0),
    "levit_128s": None,
    "mambaout_femto": (7, 0),
    "maxvit_tiny_rw_224": (7, 0),
    "mixer_s32_224": (7, 0),
    "mobilenetv3_small_050": (7, 0),
    "mobilenetv4_conv_small": (7, 0),
    "mobilevit_xxs": (8, 0),
    "mobilevitv2_050": (8, 0),
    "mvitv2_tiny": (7, 0),
    "nest_tiny": (14, 0),
    "nextvit_small": (7, 0),
    "pit_ti_224": (7, 1),
    "pit_ti_distilled_224": (7, 2),
    "poolformer_s12": (7, 0),
    "pvt_v2_b0": (7, 0),
    "regnetx_002": (7, 0),
    "repghostnet_050": (7, 0),
    "repvit_m0_9": (7, 0),
    "res2net50_26w_4s": (7, 0),
    "resmlp_12_224": (14, 0),
    "resnet18": (7, 0),
    "resnetv2_18": (7, 0),
    "rexnet_100": (7, 0),
    "samvit_base_patch16_224": (14, 0),
    "selecsls42": (4, 0),
    "sequencer2d_s": (16, 0),
    "shvit_s1": (4, 0),
    "skresnet18": (7, 0),
    "starnet_s050": (7, 0),
    "swiftformer_xs": (7, 0),
    "swin_tiny_patch4_window7_224": (7, 0),
    "swinv2_cr_tiny_ns_224": (7, 0),
    "swinv2_tiny_window8_256": (8, 0),
    "tiny_vit_5m_224": (7, 0),
    "twins_svt_small": (7, 0),
    "visformer_tiny": (7, 0),
    "vit_base_patch16_siglip_224": (14, 0),
    "vit_relpos_small_patch16_224": (14, 0),
    "vit_small_patch16_dinov3": (16, 5),
    "vit_tiny_patch16_224": (14, 1),
    "volo_d1_224": (14, 0),
    "xcit_nano_12_p16_224": (14, 0),
}

FEW_BLOCKS: dict[str, Any] = {"depth": 3}
FEW_IN_EACH_STAGE: dict[str, Any] = {"depths": (1, 1, 2, 1)}
# timm: fewer of the equal blocks of large models, which take most of the time and have the same layout each.
SHALLOW: dict[str, dict[str, Any]] = {
    "cait_xxs24_224": {"depth": 4},
    "convit_tiny": {"depth": 4, "local_up_to_layer": 2},
    "davit_tiny": {"depths": (1, 1, 1, 1)},
    "deit_tiny_distilled_patch16_224": FEW_BLOCKS,
    "densenet121": {"block_config": (2, 2, 4, 2)},
    "efficientformer_l1": FEW_IN_EACH_STAGE,
    "eva02_tiny_patch14_224": FEW_BLOCKS,
    "fastvit_t8": {"layers": (1, 1, 2, 1)},
    "maxvit_tiny_rw_224": FEW_IN_EACH_STAGE,
    "nextvit_small": {"depths": (1, 1, 5, 1)},
    "res2net50_26w_4s": {"layers": (1, 1, 2, 1)},
    "samvit_base_patch16_224": {**FEW_BLOCKS, "embed_dim": 192, "num_heads": 3, "global_attn_indexes": (2,)},
    "sequencer2d_s": {"layers": (1, 1, 2, 1)},
    "swin_tiny_patch4_window7_224": FEW_IN_EACH_STAGE,
    "swinv2_cr_tiny_ns_224": FEW_IN_EACH_STAGE,
    "swinv2_tiny_window8_256": FEW_IN_EACH_STAGE,
    "tiny_vit_5m_224": FEW_IN_EACH_STAGE,
    "twins_svt_small": FEW_IN_EACH_STAGE,
    "vit_base_patch16_siglip_224": {**FEW_BLOCKS, "embed_dim": 192, "num_heads": 3},
    "vit_relpos_small_patch16_224": FEW_BLOCKS,
    "vit_small_patch16_dinov3": FEW_BLOCKS,
    "vit_tiny_patch16_224": FEW_BLOCKS,
    "xcit_nano_12_p16_224": FEW_BLOCKS,
}

TOKENS: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 64,
    "patch_size": 8,
}
WINDOWS: dict[str, Any] = {
    "image_size": 64,
    "patch_size": 2,
    "embed_dim": 16,
    "depths": [1, 2],
    "num_heads": [2, 2],
    "window_size": 4,
}
STAGES: dict[str, Any] = {"hidden_sizes": [8, 16], "depths": [1, 1]}
PYRAMID: dict[str, Any] = {
    "hidden_sizes": [8, 16, 24, 32],
    "depths": [1, 1, 1, 2],
    "num_attention_heads": [1, 1, 2, 2],
    "image_size": 128,
}
# Hugging Face: the options of a tiny configuration, the size of the image, the grid, and the prefix tokens.
HUGGING_FACE: dict[str, tuple[dict[str, Any], int, int, int]] = {
    "ViT": (TOKENS, 64, 8, 1),
    "ViTMSN": (TOKENS, 64, 8, 1),
    "DeiT": (TOKENS, 64, 8, 2),
    "Beit": (TOKENS, 64, 8, 1),
    "Data2VecVision": (TOKENS, 64, 8, 1),
    "Dinov2": (TOKENS, 64, 8, 1),
    "Dinov2WithRegisters": (TOKENS, 64, 8, 5),
    "Swin": (WINDOWS, 64, 16, 0),
    "Swinv2": (WINDOWS, 64, 16, 0),
    "FocalNet": ({"image_size": 64, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "hidden_sizes": [8, 16],
                  "focal_levels": [2, 2], "focal_windows": [3, 3]}, 64, 16, 0),
    "ConvNext": ({**STAGES, "num_stages": 2, "patch_size": 2}, 64, 16, 0),
    "ConvNextV2": ({**STAGES, "num_stages": 2, "patch_size": 2}, 64, 16, 0),
    "ResNet": ({**STAGES, "embedding_size": 8, "layer_type": "basic"}, 64, 8, 0),
    "RegNet": ({**STAGES, "embedding_size": 8, "groups_width": 4}, 64, 8, 0),
    "Bit": ({"embedding_size": 8, "hidden_sizes": [32, 32], "depths": [1, 1], "num_groups": 4}, 64, 8, 0),
    "PoolFormer": ({"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}, 128, 4, 0),
    "Segformer": ({"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2]},
                  128, 4, 0),
    "Pvt": (PYRAMID, 128, 4, 1),
    "Cvt": ({"embed_dim": [8, 16, 24], "num_heads": [1, 1, 2], "depth": [1, 2, 3]}, 96, 6, 1),
    "MobileNetV2": ({"depth_multiplier": 0.25, "image_size": 128}, 128, 4, 0),
    "EfficientNet": ({"width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320, "image_size": 128},
                     128, 4, 0),
}  # fmt: skip


def as_trained(model: nn.Module) -> nn.Module:
    """The model with weights that are zero before training drawn at random."""
    for parameter in model.parameters():
        if parameter.dim() > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return model.eval()


def check_maps(model: nn.Module, images: Tensor, grid: int, prefix_tokens: int) -> None:
    """`auto` finds that grid, and tokens of a quadrant change most if the image changes there."""
    layer = find_layer(model, images)
    transform = layer.activation_transform
    assert getattr(transform, "keywords", {}).get("prefix_tokens", int(transform is not None)) == prefix_tokens or (
        prefix_tokens == 0 and getattr(transform, "__name__", "") == "swin_activation_maps"
    )
    other = torch.rand(images.shape, generator=torch.Generator().manual_seed(1))
    changed, half = images.repeat(5, 1, 1, 1), images.shape[-1] // 2
    for row in range(4):
        top, left = (row // 2) * half, (row % 2) * half
        changed[row + 1, :, top : top + half, left : left + half] = other[0, :, top : top + half, left : left + half]
    maps = maps_of(model, layer, changed)
    assert tuple(maps.shape[2:]) == (grid, grid)
    if transform is None:
        return  # the random filters of deep convolutions react everywhere
    reactions = (maps[1:] - maps[0]).float().square().sum(1, keepdim=True)
    pooled = functional.adaptive_avg_pool2d(reactions, 2).flatten(1)
    shares = pooled / pooled.sum(1, keepdim=True)  # of each change
    assert (shares / shares.sum(0)).argmax(0).tolist() == [0, 1, 2, 3]


def maps_of(model: nn.Module, layer: Any, images: Tensor) -> Tensor:
    found: list[Tensor] = []

    def keep(value: Any) -> None:
        tensor = value[0] if isinstance(value, (tuple, list)) else value
        found.append(tensor if layer.activation_transform is None else layer.activation_transform(tensor))

    if layer.of_input:
        hook = layer.module.register_forward_pre_hook(lambda _, args: keep(args))
    else:
        hook = layer.module.register_forward_hook(lambda _module, _args, output: keep(output))
    with torch.no_grad():
        model(images)
    hook.remove()
    return found[-1]


def image(size: int) -> Tensor:
    coarse = torch.rand(1, 3, size // 4, size // 4, generator=torch.Generator().manual_seed(0))
    return functional.interpolate(coarse, size=(size, size), mode="bilinear")


@pytest.mark.parametrize("name", TIMM)
@pytest.mark.filterwarnings("ignore")
def test_timm(name: str) -> None:
    timm = pytest.importorskip("timm")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = as_trained(timm.create_model(name, pretrained=False, **SHALLOW.get(name, {})))
    images, expected = image(timm.get_pretrained_cfg(name).input_size[1]), TIMM[name]
    if expected is None:
        with pytest.raises(ValueError, match="Name the layer; the last activations are"):
            find_layer(model, images)
    else:
        check_maps(model, images, *expected)


@pytest.mark.parametrize("name", HUGGING_FACE)
@pytest.mark.filterwarnings("ignore")
def test_hugging_face(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    options, size, grid, prefix_tokens = HUGGING_FACE[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        configuration = getattr(transformers, f"{name}Config")(**options, num_labels=4)
        model = as_trained(getattr(transformers, f"{name}ForImageClassification")(configuration))
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)  # small random weights would let deep maps vanish
    images = image(size)
    check_maps(model, images, grid, prefix_tokens)
    maps = ScoreCAM(model, "auto").attribute(images, target=1)
    assert isinstance(maps, Tensor)
    assert tuple(maps.shape) == (1, 1, grid, grid)
    assert maps.isfinite().all()
