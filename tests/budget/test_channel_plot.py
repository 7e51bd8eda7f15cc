"""The picture of a map's strongest channels: what each panel shows, and what can't be drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from captum_scorecam import ChannelScores, ScoreCAM
from captum_scorecam.budget.map_errors import widening
from captum_scorecam.masking.scaling import min_max_normalize, resize
from tests.budget.test_channel_scores import scored
from tests.support.counting_net import CountingNet, noise

IMAGE = np.random.default_rng(0).random((12, 10, 3))


def drawn(found: ChannelScores, *args: Any, **options: Any) -> Any:
    """The figure, without the types of its artists."""
    return found.plot(*args, **options)


def texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


def of_rank(rank: int) -> ChannelScores:
    net = CountingNet(rank, 12)
    found = ScoreCAM(net, net.maps, max_forwards=6).channel_scores(noise(1, rank), [2], torch.arange(1))
    assert isinstance(found, ChannelScores)
    return found


@pytest.mark.parametrize(("example", "target"), [(0, 0), (1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("weighting", ["softmax", "increase"])
def test_panels_show_the_strongest_channels_with_their_scores_and_weights(
    example: int, target: int, weighting: Any
) -> None:
    found = scored("constant", max_forwards=6)
    figure = drawn(found, IMAGE, 8, weighting, example=example, target=target)
    channels, weights = found.strongest_channels(8, weighting)
    assert texts(figure.axes[0]) == ["map", f"{weighting} weights", f"6 of {(16, 24)[example]} masks run"]
    n_predicted = 0
    for axes, channel, weight in zip(
        figure.axes[1:9], channels[example, :, target].tolist(), weights[example, :, target].tolist(), strict=True
    ):
        error = ""
        if not found.was_run[example, channel]:
            assert found.prediction is not None
            row = found.masks.index[example, channel]
            error = f" ± {widening(6) * float(found.prediction.deviations[row, target]):.2g}"
            n_predicted += 1
        score = float(found.scores[example, channel, target])
        assert texts(axes) == [f"channel {channel}", f"score {score:.4g}{error}", f"weight {weight:.3g}"]
    assert 0 < n_predicted < 8


def test_masks_hide_the_image_and_the_map_is_over_a_grey_one() -> None:
    found = scored(targets=[2, 0])
    figure = drawn(found, IMAGE, 3, example=1, target=1)
    (picture,) = figure.axes[0].images
    share = min_max_normalize(resize(found.maps()[1:, 1:], (12, 10)))[0, 0].numpy()
    expected = 0.4 * IMAGE.mean(2, keepdims=True) + 0.6 * mpl.colormaps["inferno"](share)[..., :3]
    np.testing.assert_allclose(picture.get_array() / 255, expected, atol=0.51 / 255)
    channels, _ = found.strongest_channels(3)
    for axes, channel in zip(figure.axes[1:], channels[1, :, 1], strict=True):
        seen, shadow = axes.images
        (mask,) = found.masks[found.masks.index[1, channel].view(1)]
        np.testing.assert_allclose(seen.get_array(), IMAGE)
        assert not shadow.get_array().any()
        np.testing.assert_allclose(shadow.get_alpha(), 1 - mask[0, 0])
        assert shadow.get_extent() == seen.get_extent()


def test_without_an_image_the_masks_are_drawn() -> None:
    found = scored()
    channels, _ = found.strongest_channels(2)
    for axes, channel in zip(drawn(found, n_channels=2).axes[1:], channels[0, :, 0], strict=True):
        (mask,) = found.masks[found.masks.index[0, channel].view(1)]
        np.testing.assert_allclose(axes.images[0].get_array(), mask[0, 0])


BYTES = (255 * IMAGE).astype(np.uint8)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (BYTES, BYTES / 255),
        (Image.fromarray(BYTES), BYTES / 255),
        (torch.from_numpy(IMAGE).requires_grad_(), IMAGE),
        (torch.from_numpy(IMAGE).bfloat16(), torch.from_numpy(IMAGE).bfloat16().float().numpy()),
        (IMAGE[:, :, 0], IMAGE[:, :, [0, 0, 0]]),
        (IMAGE[:, :, :1], IMAGE[:, :, [0, 0, 0]]),
        (IMAGE.repeat(2, 0).repeat(2, 1), IMAGE.repeat(2, 0).repeat(2, 1)),
    ],
    ids=["uint8", "PIL", "tensor", "bfloat16", "grey", "one channel", "larger"],
)
def test_images_of_every_kind(image: Any, expected: np.ndarray[Any, Any]) -> None:
    seen, shadow = drawn(scored(), image, 1).axes[1].images
    np.testing.assert_allclose(seen.get_array(), expected)
    assert tuple(shadow.get_extent()) == (-0.5, expected.shape[1] - 0.5, expected.shape[0] - 0.5, -0.5)


@pytest.mark.parametrize("with_signal", [True, False])
def test_masks_of_one_dimension_are_areas_behind_the_signal(with_signal: bool) -> None:
    found, signal = of_rank(1), np.linspace(-3, 5, 24)
    axes = drawn(found, signal if with_signal else None, 2).axes[1]
    (mask,) = found.masks[found.masks.index[0, found.strongest_channels(1)[0][0, 0]]]
    (area,) = axes.collections
    outline = np.asarray(area.get_paths()[0].vertices)
    length = 24 if with_signal else 12
    for i, value in enumerate(mask[0, 0].tolist()):
        position = (i + 0.5) * length / 12 - 0.5
        assert np.abs(outline - [position, value]).sum(1).min() < 1e-6
    if with_signal:
        np.testing.assert_allclose(axes.lines[0].get_ydata(), signal)


def test_channels_without_a_mask_are_left_out() -> None:
    figure = drawn(scored("constant"), n_channels=24)  # of 24 channels, 8 are constant
    assert [bool(axes.texts) for axes in figure.axes] == [True] * 17 + [False]


def test_panels_fill_rows_evenly() -> None:
    figure = drawn(scored(), n_channels=8)
    assert [axes.get_subplotspec().rowspan.start for axes in figure.axes] == [0] * 5 + [1] * 5
    assert not figure.axes[9].texts


def test_a_figure_of_the_callers_is_drawn_into() -> None:
    figure: Any = Figure(figsize=(6, 4))
    above, below = figure.subfigures(2, 1)
    assert drawn(scored(), n_channels=1, figure=above) is above
    assert drawn(scored(), n_channels=2, figure=below) is below
    assert [len(above.axes), len(below.axes)] == [2, 3]


def test_the_figure_is_unknown_to_pyplot_and_can_be_written(tmp_path: Path) -> None:
    drawn(scored(), IMAGE).savefig(tmp_path / "channels.png")
    assert plt.get_fignums() == []
    with Image.open(tmp_path / "channels.png") as written:
        assert written.size[0] > 2 * written.size[1]


def test_nothing_overlaps() -> None:
    figure = drawn(scored(max_forwards=5), IMAGE, 7)
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    boxes = [axes.get_window_extent() for axes in figure.axes[:8]]
    boxes += [text.get_window_extent() for axes in figure.axes for text in axes.texts]
    for i, one in enumerate(boxes):
        for other in boxes[:i]:
            overlap = min(one.x1, other.x1) - max(one.x0, other.x0), min(one.y1, other.y1) - max(one.y0, other.y0)
            assert min(overlap) <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"example": 2}, "Expected `example` to be at most 1, but got 2"),
        ({"target": -1}, "Expected `target` to be at least 0, but got -1"),
        ({"n_channels": 0}, "Expected `n_channels` to be at least 1, but got 0"),
        (
            {"channel_weighting": "mean"},
            r"Expected `channel_weighting` to be .*, but got 'mean'",
        ),
        ({"image": IMAGE.transpose(2, 0, 1)}, r"Expected `image` to be H×W, H×W×1 or H×W×3, but got .* \(3, 12, 10\)"),
        ({"image": IMAGE[:0]}, r"Expected `image` to have pixels, but got an array of shape \(0, 10, 3\)"),
        ({"image": IMAGE[None]}, r"Expected `image` to be H×W, H×W×1 or H×W×3, but got .* \(1, 12, 10, 3\)"),
        ({"image": 4 * IMAGE - 2}, r"in \[0, 1\], or in \[0, 255\] as uint8, but got values from -1.99. to 1.9"),
        ({"image": IMAGE * np.nan}, r"in \[0, 1\], or in \[0, 255\] as uint8, but got values from nan to nan"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        drawn(scored(), **arguments)


def test_bad_signals_and_maps_that_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match=r"Expected `image` to be a signal, L or L×C, but got .* \(1, 12, 1\)"):
        drawn(of_rank(1), np.zeros((1, 12, 1)))
    with pytest.raises(ValueError, match="Expected `activations` of 1-D or 2-D maps, but got 3-D ones"):
        drawn(of_rank(3))
