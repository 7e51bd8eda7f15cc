"""The recipes of the guide page on scores of one's own: each map equals the naive reference's.

The models are tiny and random, in float64, so that rounding can't hide a wrong score.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.ops import box_convert

from captum_scorecam import ScoreCAM, box_scores, region_scores, vit_activation_maps, with_all_detections
from tests.support.score_cam import naive_score_cam
from tests.support.small_net import Net, assert_close, images
from tests.support.tiny_detectors import DETECTORS, chosen_detections, pictures, tiny_detector

INCREASE: dict[str, Any] = {"channel_weighting": "increase"}


def assert_equals_reference(
    forward: Callable[..., Tensor],
    layer: nn.Module,
    x: Tensor,
    targets: list[Any],
    arguments: tuple[Tensor, ...] = (),
    score: Any = "output",
    **options: Any,
) -> Tensor:
    """Compares the maps of each target, before the ReLU; returns them."""
    score_cam = ScoreCAM(forward, layer, score=score, **INCREASE, **options)
    maps = score_cam.attribute_targets(x, targets, arguments or None, relu_attributions=False)
    reference_score = {"sigmoid": torch.sigmoid}.get(score, score) if isinstance(score, str) else score
    assert isinstance(maps, Tensor)
    for t, target in enumerate(targets):
        expected = naive_score_cam(
            forward, layer, x, target, arguments or None, relu_attributions=False, score=reference_score,
            **INCREASE, **options,
        )  # fmt: skip
        assert_close(maps[:, t : t + 1], expected)
        for each in expected:
            assert float(each.abs().max()) > 0
    return maps


class BoxScores(nn.Module):
    """The recipe for a detector that returns a list of detections."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = with_all_detections(detector)

    def forward(self, x: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        return box_scores(self.detector(x), boxes, labels)


@pytest.mark.parametrize("name", DETECTORS)
def test_detection(name: str) -> None:
    detector, x = tiny_detector(name), pictures()
    with torch.no_grad():
        boxes, labels = chosen_detections(with_all_detections(detector)(x))
    forward, layer = BoxScores(detector).eval(), detector.get_submodule("backbone.3")
    maps = assert_equals_reference(forward, layer, x, [0, 1], (boxes, labels), max_channels=12)
    assert not torch.allclose(maps[:, 0], maps[:, 1])
    row = ScoreCAM(forward, layer, max_channels=12, **INCREASE).attribute_targets(
        x, [0, 1], (boxes, labels), relu_attributions=False, perturbations_per_eval=1
    )
    assert_close(row, maps)


class Yolo(nn.Module):
    """A stand-in for YOLO before NMS: N×anchors×(4 + 1 + C), boxes as (cx, cy, w, h) in pixels."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Conv2d(3, 8, 7, 4, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
            self.head = nn.Conv2d(8, 5 + classes, 1)
        self.head.weight.data.mul_(5)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        raw = self.head(self.body(x)).permute(0, 2, 3, 1)  # N×8×8×(5 + C)
        cells = torch.arange(8, dtype=raw.dtype) * 8 + 4
        centres = torch.stack(torch.meshgrid(cells, cells, indexing="xy"), 2)
        boxes = torch.cat([centres + 4 * raw[..., :2].tanh(), 24 * raw[..., 2:4].sigmoid()], 3)
        return torch.cat([boxes, raw[..., 4:].sigmoid()], 3).flatten(1, 2)


def test_yolo_before_nms() -> None:
    model, x = Yolo(), pictures()

    def forward(x: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        output = model(x)
        found = box_convert(output[..., :4], "cxcywh", "xyxy")
        probabilities = output[..., 4:5] * output[..., 5:]
        detections = [{"boxes": b, "scores": p} for b, p in zip(found, probabilities, strict=True)]
        return box_scores(detections, boxes, labels)

    with torch.no_grad():
        output = model(x)
    best = (output[..., 4:5] * output[..., 5:]).amax(2).topk(2, dim=1).indices
    rows = torch.arange(2).unsqueeze(1)
    boxes = box_convert(output[rows, best, :4], "cxcywh", "xyxy")
    labels = output[rows, best, 5:].argmax(2)
    assert_equals_reference(forward, model.body[3], x, [0, 1], (boxes, labels))


def test_segmentation() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = get_model("lraspp_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=4)
    model, x = model.double().eval(), pictures()
    with torch.no_grad():
        predicted = model(x)["out"].argmax(1)
    kind = int(predicted.flatten().mode().values)
    regions = (predicted == kind).unsqueeze(1)
    regions[..., :32] = False  # the right half

    def forward(x: Tensor, regions: Tensor) -> Tensor:
        return region_scores(model(x)["out"], regions)

    assert_equals_reference(forward, model.backbone["12"], x, [kind, 3 - kind], (regions,), max_channels=5)


def test_embeddings() -> None:
    model, x = Net(), images(2)
    concepts = images(6, seed=5)
    with torch.no_grad():
        concept = model(concepts).mean(0)

    def similarity(x: Tensor) -> Tensor:
        return F.cosine_similarity(model(x), concept, dim=1)

    assert_equals_reference(similarity, model.relu, x, [None])

    def similarity_of_each(x: Tensor, concept: Tensor) -> Tensor:
        return F.cosine_similarity(model(x), concept, dim=1)

    with torch.no_grad():
        of_each = model(concepts[:2])
    maps = assert_equals_reference(similarity_of_each, model.relu, x, [None], (of_each,))
    alone = ScoreCAM(similarity_of_each, model.relu, **INCREASE).attribute(
        x[1:], None, of_each[1:], relu_attributions=False
    )
    assert_close(maps[1:], alone)


def test_regression() -> None:
    model, x = Net(), images(2)
    high = assert_equals_reference(model, model.relu, x, [2])
    low = assert_equals_reference(model, model.relu, x, [2], score=lambda output: -output)
    assert_close(low, -high)


def test_multi_label() -> None:
    model = Net()
    assert_equals_reference(model, model.relu, images(2), [0, 3, 6], score="sigmoid")


def test_binary_with_one_logit() -> None:
    model, x = Net(), images(2)
    positive = assert_equals_reference(lambda x: model(x)[:, :1], model.relu, x, [0], score="sigmoid")
    flat = assert_equals_reference(lambda x: model(x)[:, 0], model.relu, x, [None], score="sigmoid")
    negative = assert_equals_reference(
        lambda x: model(x)[:, :1], model.relu, x, [0], score=lambda logit: torch.sigmoid(-logit)
    )
    assert_close(flat, positive)
    assert_close(negative, -positive)


def test_detr() -> None:
    transformers = pytest.importorskip("transformers")
    backbone = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    sizes = {f"{part}_{size}": 2 for part in ("encoder", "decoder") for size in ("layers", "attention_heads")}
    sizes |= {"d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_queries": 6, "num_labels": 3}
    config = transformers.DetrConfig(
        backbone_config=backbone, use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, **sizes
    )
    model, x = random_weights(transformers.DetrForObjectDetection(config)), pictures()

    def detections(x: Tensor) -> list[dict[str, Tensor]]:
        output = model(pixel_values=x)
        height, width = x.shape[2:]
        boxes = box_convert(output.pred_boxes, "cxcywh", "xyxy") * x.new_tensor([width, height, width, height])
        probabilities = output.logits.softmax(2)
        return [{"boxes": b, "scores": p} for b, p in zip(boxes, probabilities, strict=True)]

    def forward(x: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        return box_scores(detections(x), boxes, labels)

    with torch.no_grad():
        found = detections(x)
    boxes, labels = torch.stack([each["boxes"][:2] for each in found]), torch.tensor([[0, 1], [2, 0]])
    layer = [module for module in model.modules() if type(module).__name__ == "ResNetStage"][-1]
    assert_equals_reference(forward, layer, x, [0, 1], (boxes, labels))


def test_groups_and_pairs_of_classes() -> None:
    model, x = Net(), images(2)

    def log_odds(logits: Tensor) -> Tensor:
        return logits[:, [0, 3]].logsumexp(1) - logits[:, [1, 2, 4, 5, 6]].logsumexp(1)

    def lead(logits: Tensor) -> Tensor:
        return logits[:, 2] - logits[:, 5]

    group = assert_equals_reference(model, model.relu, x, [None], score=log_odds)
    pair = assert_equals_reference(model, model.relu, x, [None], score=lead)
    both = assert_equals_reference(
        model, model.relu, x, [0, 1], score=lambda logits: torch.stack([log_odds(logits), lead(logits)], 1)
    )
    assert_close(both, torch.cat([group, pair], 1))


def tiny_clip() -> Any:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config={**sizes, "vocab_size": 50, "max_position_embeddings": 8, "eos_token_id": 49},
            vision_config={**sizes, "image_size": 32, "patch_size": 8},
            projection_dim=12,
        )
    )


def tiny_siglip() -> Any:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return transformers.SiglipModel(
        transformers.SiglipConfig(
            text_config={**sizes, "vocab_size": 50, "max_position_embeddings": 8, "projection_size": 16},
            vision_config={**sizes, "image_size": 32, "patch_size": 8},
        )
    )


PROMPTS = torch.tensor([[3, 7, 12, 49], [3, 22, 30, 49]])  # as many as images: none may be taken for an image's own


def random_weights(model: Any) -> Any:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5, generator=generator)
    return model.double().eval()


def test_clip() -> None:
    model = random_weights(tiny_clip())
    x = pictures()[..., ::2, ::2]
    with torch.no_grad():
        prompts = model(input_ids=PROMPTS, pixel_values=x).text_embeds  # of unit length

    def similarity(x: Tensor) -> Tensor:
        embedding = model.visual_projection(model.vision_model(pixel_values=x).pooler_output)
        cosine: Tensor = F.normalize(embedding, dim=-1) @ prompts.T
        return cosine

    with torch.no_grad():
        expected = model(input_ids=PROMPTS, pixel_values=x).logits_per_image / model.logit_scale.exp()
        torch.testing.assert_close(similarity(x), expected)
    layer = model.vision_model.encoder.layers[-1].layer_norm1
    assert_equals_reference(similarity, layer, x, [0, 1], activation_transform=vit_activation_maps)


def siglip_maps(tokens: Tensor) -> Tensor:
    return vit_activation_maps(tokens, prefix_tokens=0)


def test_siglip() -> None:
    model = random_weights(tiny_siglip())
    x = pictures()[..., ::2, ::2]
    with torch.no_grad():
        prompts = model(input_ids=PROMPTS, pixel_values=x).text_embeds  # of unit length

    def similarity(x: Tensor) -> Tensor:
        cosine: Tensor = F.normalize(model.vision_model(pixel_values=x).pooler_output, dim=-1) @ prompts.T
        return cosine

    with torch.no_grad():
        logits = model(input_ids=PROMPTS, pixel_values=x).logits_per_image
        torch.testing.assert_close(similarity(x) * model.logit_scale.exp() + model.logit_bias, logits)
    layer = model.vision_model.post_layernorm
    assert_equals_reference(similarity, layer, x, [0, 1], activation_transform=siglip_maps)
