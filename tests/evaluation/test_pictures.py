"""The pictures of a run."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from captum_scorecam.evaluation import read_records
from captum_scorecam.models import Classifier
from tests.support.tiny_classifier import Pictures
from tests.support.tiny_evaluation import QUICK, evaluate, metric_input


def test_pictures_are_what_the_model_saw_and_the_map(classifier: Classifier, tmp_path: Path) -> None:
    evaluate(classifier, Pictures(3), tmp_path, **QUICK, gallery=2)
    assert sorted(os.listdir(tmp_path / "gallery")) == [
        "000000-grad_cam.png", "000000-score_cam.png", "000000.png",
        "000001-grad_cam.png", "000001-score_cam.png", "000001.png",
    ]  # fmt: skip
    with Image.open(tmp_path / "gallery" / "000001-score_cam.png") as picture:
        assert (picture.mode, picture.size, picture.getextrema()) == ("L", (21, 21), (0, 255))
        found = torch.from_numpy(np.array(picture))
    target = read_records(tmp_path)[3].target
    assert target is not None
    maps = metric_input(classifier, "score_cam", Pictures(3)[1], target).maps[0, 0]
    expected = (maps - maps.min()) / (maps.max() - maps.min()) * 255
    torch.testing.assert_close(found.float(), expected, atol=0.5001, rtol=0)


def test_the_picture_of_an_image_is_its_input(classifier: Classifier, tmp_path: Path) -> None:
    evaluate(classifier, Pictures(1), tmp_path, **QUICK)
    inputs = classifier.inputs(Pictures(1)[0].image)[0]
    expected = (inputs - inputs.min()) / (inputs.max() - inputs.min()) * 255
    with Image.open(tmp_path / "gallery" / "000000.png") as picture:
        assert picture.mode == "RGB"
        found = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()
    torch.testing.assert_close(found, expected, atol=0.5001, rtol=0)
