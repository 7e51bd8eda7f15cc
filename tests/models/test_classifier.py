"""What a classifier predicts."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch import nn

from captum_scorecam.models import Classifier, Prediction, load_classifier
from tests.support import colour_classifier


def test_probabilities_are_the_softmax_of_scores() -> None:
    prediction = Prediction(torch.tensor([4.0, 1.0, 0.0]))
    assert prediction.score == "probability"
    assert prediction.probabilities.tolist() == pytest.approx([0.93624, 0.04661, 0.01715], abs=1e-5)


def test_a_wrong_number_of_class_names_raises() -> None:
    classifier = load_classifier("tests.support.colour_classifier:with_too_few_names")
    with pytest.raises(ValueError, match="Expected 3 class names, but got 2"):
        classifier.predict(torch.zeros(1, 3, 32, 32))


def test_probabilities_that_the_model_returns_are_unchanged() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Softmax(1))
    prediction = Classifier("own", model, colour_classifier.preprocess).predict(torch.tensor([[[[0.0, 2.0]]]]))
    assert prediction.score == "output"
    torch.testing.assert_close(prediction.probabilities, torch.tensor([0.0, 2.0]).softmax(0))


@pytest.mark.parametrize(("output", "got"), [(nn.Identity(), r"\(1, 3, 4, 4\)"), (nn.Flatten(0), r"\(48,\)")])
def test_a_model_that_does_not_classify_raises(output: nn.Module, got: str) -> None:
    classifier = Classifier("own", output, colour_classifier.preprocess)
    with pytest.raises(ValueError, match=f"N×classes scores of two or more classes, but got {got}"):
        classifier.predict(torch.zeros(1, 3, 4, 4))


def test_preprocessing_that_returns_no_image_raises() -> None:
    classifier = Classifier("own", nn.Identity(), lambda _: torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match=r"to return a C×H×W tensor, but got \(1, 3, 4, 4\)"):
        classifier.inputs(Image.new("RGB", (4, 4)))
