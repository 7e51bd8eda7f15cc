"""The explanation of one image: classes, maps and costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from captum.attr import LayerAttribution, LayerGradCam
from PIL import Image
from skimage import data
from torch import Tensor, nn
from torchvision import transforms
from torchvision.models import VisionTransformer

from captum_scorecam import RunStatistics, ScoreCAM
from captum_scorecam.command_line.explanation import ImageExplanation, explain_image
from captum_scorecam.models import Classifier, find_layer, load_classifier
from tests.support import colour_classifier
from tests.support.token_nets import TokenNet

RED_SQUARE, GREEN_SQUARE = (slice(0, 16), slice(0, 16)), (slice(24, 32), slice(24, 32))


def explained(**options: Any) -> ImageExplanation:
    classifier = load_classifier("tests.support.colour_classifier:with_names")
    inputs = classifier.inputs(colour_classifier.red_and_green())
    return explain_image(classifier, find_layer(classifier.model, inputs), inputs, "image", **options)


def channels_of(explanation: ImageExplanation) -> RunStatistics:
    channels = explanation.runs["score_cam"].channels
    assert channels is not None
    return channels


def energy_share(values: Tensor, box: tuple[slice, slice]) -> float:
    return float(values[box].sum() / values.sum())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [("red", "predicted"), ("green", "runner-up")]),
        ({"compare": False}, [("red", "predicted")]),
        ({"target": "red"}, [("red", "predicted"), ("green", "runner-up")]),
        ({"target": "2"}, [("blue", "chosen"), ("red", "predicted")]),
        ({"target": "green", "compare": False}, [("green", "chosen")]),
    ],
)
def test_the_target_and_the_most_probable_other_class_are_explained(
    options: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    assert [(shown.name, shown.role) for shown in explained(**options).classes] == expected


@pytest.mark.parametrize(
    ("score", "outputs", "expected"),
    [("sigmoid", [18.0, 30.0, 20.0], [1, 2]), ("probability", [0.0, 150.0, 40.0], [1, 2])],
)
def test_probabilities_that_round_to_the_same_are_ranked_by_the_outputs(
    score: Any, outputs: list[float], expected: list[int]
) -> None:
    pool, head = nn.AdaptiveAvgPool2d(1), nn.Linear(2, 3)
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), pool, nn.Flatten(), head).eval()
    head.bias.data.copy_(torch.tensor(outputs))
    classifier = Classifier("network", network, transforms.ToTensor(), score=score)
    inputs = classifier.inputs(colour_classifier.red_and_green())
    found = explain_image(classifier, find_layer(network, inputs, "1"), inputs, "image")
    assert [shown.index for shown in found.classes] == expected


def test_tokens_of_images_of_another_shape_form_another_grid() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        classifier = Classifier("tokens", TokenNet(0).eval(), transforms.ToTensor())
    wide, high = (torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1)) for size in ((32, 48), (48, 32)))
    layer = find_layer(classifier.model, wide)
    found, expected = (
        explain_image(classifier, each, high, "image", target="1", compare=False).classes[0].maps
        for each in (layer, find_layer(classifier.model, high))
    )
    for name, maps in expected.items():
        torch.testing.assert_close(found[name], maps)


def test_probabilities_are_the_softmax_over_the_scores() -> None:
    # The scores are 4, 1 and 0.
    probabilities = [shown.score for shown in explained().classes]
    assert probabilities == pytest.approx([0.93624, 0.04661], abs=1e-5)


def test_one_set_of_forwards_serves_both_classes() -> None:
    # Blue is constant; red and green are masked once each, for two classes.
    run = explained().runs["score_cam"]
    assert run.channels is not None
    assert (run.channels.channels, run.channels.constant, run.channels.shared, run.forwards) == (3, 1, 0, 2)


def test_the_maps_are_captums_and_score_cams_upsampled_to_the_input() -> None:
    classifier = load_classifier("tests.support.colour_classifier:with_names")
    inputs = classifier.inputs(colour_classifier.red_and_green())
    layer = classifier.model.get_submodule("features")
    for index, shown in enumerate(explained().classes):
        for found, method in ((shown.maps["grad_cam"], LayerGradCam), (shown.maps["score_cam"], ScoreCAM)):
            expected = method(classifier.model, layer).attribute(
                inputs.clone().requires_grad_(), index, relu_attributions=True
            )
            torch.testing.assert_close(
                found, LayerAttribution.interpolate(expected, (32, 32), "bilinear")[0, 0].detach()
            )


def test_the_maps_of_a_colour_lie_on_its_square() -> None:
    red, green = explained().classes
    assert energy_share(red.maps["grad_cam"], RED_SQUARE) > 0.85  # the rest is the rim that upsampling makes
    assert energy_share(red.maps["score_cam"], RED_SQUARE) > 0.85
    assert energy_share(green.maps["grad_cam"], GREEN_SQUARE) > 0.75
    assert green.maps["score_cam"][GREEN_SQUARE].max() == green.maps["score_cam"].max()


def test_an_unknown_class_raises() -> None:
    with pytest.raises(ValueError, match="'violet' matches none"):
        explained(target="violet")


def tiny_vit() -> VisionTransformer:
    model = VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=3).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5, generator=generator)
    return model


def test_a_vision_transformer_is_explained_by_both_methods() -> None:
    model = tiny_vit()
    classifier = Classifier("vit", model, colour_classifier.preprocess)
    inputs = classifier.inputs(colour_classifier.red_and_green())
    explanation = explain_image(classifier, find_layer(model, inputs), inputs, "image")
    assert explanation.runs["grad_cam"].forwards == 2  # for the tokens and for their gradients
    assert channels_of(explanation).channels == 8
    score_cam = ScoreCAM(
        model,
        model.get_submodule("encoder.layers.encoder_layer_1.ln_1"),
        activation_transform=lambda tokens: torch.unflatten(tokens[:, 1:].mT, 2, (4, 4)),
    )
    expected = score_cam.attribute(inputs, explanation.classes[0].index)
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(
        explanation.classes[0].maps["score_cam"], LayerAttribution.interpolate(expected, (32, 32), "bilinear")[0, 0]
    )


@pytest.mark.slow
@pytest.mark.parametrize(("layer_name", "channels"), [("_blocks.14", 192), ("_avg_pooling:input", 1280)])
def test_the_maps_of_a_cat_in_a_corner_lie_on_the_cat(layer_name: str, channels: int) -> None:
    """The cat's face fills the upper left quarter of a picture of grass; the map must lie there, not in the grass."""
    picture = Image.fromarray(data.grass()).convert("RGB").resize((448, 448))
    cat = Image.fromarray(data.chelsea())
    picture.paste(cat.resize((337, 224)).crop((56, 0, 280, 224)), (0, 0))
    classifier = load_classifier("efficientnet_lite0")
    inputs = classifier.inputs(picture)
    layer = find_layer(classifier.model, inputs, layer_name)
    explanation = explain_image(classifier, layer, inputs, "cat on grass", compare=False)
    (shown,) = explanation.classes
    assert (shown.name, channels_of(explanation).channels) == ("Egyptian cat", channels)
    quarter = (slice(0, 112), slice(0, 112))  # a quarter of the area
    assert energy_share(shown.maps["score_cam"], quarter) > 0.75
    assert energy_share(shown.maps["grad_cam"], quarter) > 0.7
