"""What the page shows: pictures and downloads as part of the text, the difference of two classes, channels."""

from __future__ import annotations

import base64
import io
import re
import threading
from math import inf
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from captum_scorecam import ChannelScores, overlay
from captum_scorecam.app.loaded_models import Prepared
from captum_scorecam.app.runs import Choices, Column, Progress, Run
from captum_scorecam.app.view import (
    N_CHANNELS,
    Shown,
    channels_html,
    maps_html,
    progress_html,
    score_text,
    seen_html,
    status_html,
    top_classes,
)
from captum_scorecam.models import Classifier, Prediction, find_layer, seen_pixels
from tests.support.tiny_classifier import NAMES, TinyClassifier, picture, preprocess

HOSTILE = "<img src=x onerror=alert(1)>"
PIXELS = torch.rand(6, 8, 3, generator=torch.Generator().manual_seed(0))
MAPS = torch.rand(2, 6, 8, generator=torch.Generator().manual_seed(1))


def shown(*columns: Column, code: str = "", running: bool = False) -> Shown:
    return Shown(PIXELS, (3, 1), {3: "white", 1: HOSTILE}, {3: "60.0%", 1: "20.0%"}, columns, code, running)


def column(**changes: Any) -> Column:
    return Column(**({"method": "grad_cam", "layer": "a:input", "maps": MAPS, "captions": ("one", "two")} | changes))


def pictures(html: str) -> list[NDArray[np.uint8]]:
    found = re.findall(r'<img src="data:image/png;base64,([^"]+)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(each)))) for each in found]


def arrays(html: str) -> dict[str, NDArray[np.float32]]:
    found = re.findall(r'href="data:application/octet-stream;base64,([^"]+)" download="([^"]+)"', html)
    return {name: np.load(io.BytesIO(base64.b64decode(each))) for each, name in found}


def test_maps_of_each_class_and_of_their_difference_are_side_by_side() -> None:
    html = maps_html(shown(column()))
    difference = MAPS[0] / MAPS[0].max() - MAPS[1] / MAPS[1].max()
    for found, expected in zip(pictures(html), [*MAPS, difference], strict=True):
        np.testing.assert_array_equal(found, np.asarray(overlay(PIXELS, expected)))
    assert re.findall(r"<h3>(.*?)</h3>", html) == ["Grad-CAM <code>a:input</code>"]
    assert re.findall(r"<figcaption><b>(\w+)</b> ([\d.]+%)<br>one", html) == [("white", "60.0%")]
    assert "<b>white − &lt;img" in html
    assert "orange: more of the first, blue: more of the second" in html


def test_maps_can_be_downloaded_once_the_run_has_ended() -> None:
    html = maps_html(shown(column(), code='print("maps")', running=True))
    assert (arrays(html), "maps.py" in html) == ({}, False)
    html = maps_html(shown(column(), code='print("maps")'))
    found = arrays(html)
    assert list(found) == [f"grad_cam-a_input-{name}.npy" for name in ("3", "1", "3-minus-1")]
    np.testing.assert_array_equal(found["grad_cam-a_input-1.npy"], MAPS[1].numpy())
    assert "<code>print(&#34;maps&#34;)</code>" in html
    source = re.findall(r'href="data:text/x-python;base64,([^"]+)" download="maps.py"', html)
    assert base64.b64decode(source[0]) == b'print("maps")'


def test_a_map_that_a_run_has_not_reached_is_not_waited_for() -> None:
    html = maps_html(shown(column(maps=None), column()))
    assert "aria-busy" not in html
    assert html.count("The run ended before this map.") == 3


@pytest.mark.parametrize(
    ("maps", "errors", "caption"),
    [
        ([[2.0, 1.0], [4.0, 4.0]], (), "largest difference 0.5 of 1 · orange"),
        ([[2.0, 1.0], [4.0, 4.0]], (0.0, 0.0), "largest difference 0.5 of 1 · orange"),
        (
            [[2.0, 1.9], [4.0, 3.8]],
            (0.031, 0.0),
            "largest difference 0 of 1, errors of the maps ±3.1% and exact · orange",
        ),
        ([[2.0, -2.0], [1.0, 1.0]], (), "largest difference 2 of 2 · orange"),
        ([[0.0, 0.0], [1.0, 1.0]], (inf, 0.2), "largest difference 1 of 1, errors of the maps error unknown and ±20%"),
    ],
)
def test_a_difference_says_how_large_it_is(maps: list[list[float]], errors: tuple[float, ...], caption: str) -> None:
    of_classes = torch.tensor(maps).view(2, 1, 2).expand(2, 6, 2)
    html = maps_html(
        Shown(PIXELS[:, :2], (3, 1), {3: "a", 1: "b"}, {3: "", 1: ""}, (column(maps=of_classes, errors=errors),))
    )
    assert f"<b>a − b</b><br>{caption}" in html


def test_names_are_shown_as_they_are_and_run_nothing() -> None:
    html = maps_html(shown(column(layer=HOSTILE, failure=""), column(maps=None), column(failure=HOSTILE), running=True))
    assert "<img src=x" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;" in html
    assert html.count('aria-busy="true"') == 3
    assert "<img src=x" not in status_html(HOSTILE, notes=[HOSTILE])


def test_a_single_class_has_no_difference() -> None:
    one = Shown(PIXELS, (3,), {3: "white"}, {3: ""}, (column(maps=MAPS[:1], captions=("one",)),))
    html = maps_html(one)
    assert len(pictures(html)) == 1
    assert "<h3>white</h3>" in html
    assert "<b>Grad-CAM</b> <code>a:input</code><br>one" in html


def test_a_zero_map_has_a_difference() -> None:
    html = maps_html(shown(column(maps=MAPS * torch.tensor([1.0, 0.0]).view(2, 1, 1))))
    np.testing.assert_array_equal(pictures(html)[2], np.asarray(overlay(PIXELS, MAPS[0])))


def with_channels() -> Shown:
    classifier = Classifier("tiny", TinyClassifier().eval(), preprocess, NAMES)
    inputs = classifier.inputs(picture(0)[0])
    layer = find_layer(classifier.model, inputs, "features")
    choices = Choices((2, 0), ("features",), ("grad_cam", "score_cam"), max_forwards=3, exact=False)
    run = Run(classifier, Prepared([layer]), inputs, classifier.predict(inputs), choices, threading.Lock())
    for _ in run.updates():
        pass
    pixels = seen_pixels(inputs, classifier.preprocess)
    return Shown(pixels, (2, 0), {2: "blue", 0: "red"}, {2: "", 0: ""}, run.columns)


def test_the_strongest_channels_with_what_they_keep_and_their_scores() -> None:
    found = with_channels()
    scores = found.columns[1].scores
    assert isinstance(scores, ChannelScores)
    html = channels_html(found, "1:1")
    indices, weights = scores.strongest_channels(N_CHANNELS)
    assert re.findall(r"<b>channel (\d+)</b>", html) == ["3", "2", "1", "0"]  # one is constant
    assert indices[0, :4, 1].tolist() == [3, 2, 1, 0]
    assert "of features <small>for red, softmax weights" in html
    for kept, channel, weight in zip(pictures(html), indices[0, :4, 1], weights[0, :4, 1], strict=True):
        (mask,) = scores.masks[scores.masks.index[0, channel].view(1)]
        expected = (255 * found.pixels * mask[0, 0, :, :, None]).round().byte().numpy()
        np.testing.assert_array_equal(kept, expected)
        predicted = "" if scores.was_run[0, channel] else ", predicted"
        text = f"score {float(scores.scores[0, channel, 1]):.4g}{predicted}<br>weight {float(weight):.3g}<"
        assert text in html
    assert 0 < html.count("predicted") < 4


def test_only_score_cams_maps_have_channels() -> None:
    found = with_channels()
    html = maps_html(found)
    assert sorted(set(re.findall(r'data-map="([^"]+)"', html))) == ["1:0", "1:1"]
    for key in ("0:0", "2:0", "1:2", "x", "1:", "-1:0"):
        with pytest.raises(ValueError, match=r"Choose a map of Score-CAM\."):
            channels_html(found, key)


def test_the_classes_with_the_highest_scores() -> None:
    prediction = Prediction(torch.tensor([0.0, 3.0, 1.0, 2.0]), "probability")
    classifier = Classifier("tiny", TinyClassifier(), preprocess, NAMES)
    assert top_classes(prediction) == [1, 3, 2, 0]
    assert top_classes(Prediction(torch.tensor([18.0, 30.0, 25.0]), "sigmoid")) == [1, 2, 0]
    assert score_text(prediction, 1) == "64.4%"
    html = seen_html(PIXELS, classifier, prediction, "onnxruntime")
    assert re.findall(r"<span>(\w+)</span><b>([\d.]+%)", html)[0] == ("green", "64.4%")
    assert "What tiny sees · onnxruntime" in html
    (seen,) = pictures(html)
    np.testing.assert_array_equal(seen, (255 * PIXELS).round().byte().numpy())


def test_scores_that_are_no_probabilities_are_no_percentages() -> None:
    prediction = Prediction(torch.tensor([-4.0, 12.5]), "output", unbounded=True)
    assert score_text(prediction, 1) == "12.5"
    assert "%" not in seen_html(PIXELS, Classifier("t", TinyClassifier(), preprocess), prediction, "eager")


def test_progress_has_a_bar_once_its_length_is_known() -> None:
    assert "<progress" not in progress_html(Progress())
    assert '<progress value="3" max="64">' in progress_html(Progress("Score-CAM", 3, 64))
