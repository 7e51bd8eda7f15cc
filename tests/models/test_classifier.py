"""What a classifier predicts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from captum_scorecam.models import Classifier, Prediction, load_classifier
from captum_scorecam.scoring.class_scores import NamedScore
from tests.support import colour_classifier


def own(model: nn.Module, score: NamedScore | None = None) -> Classifier:
    return Classifier("own", model, colour_classifier.preprocess, score=score)


def predict(outputs: list[float], score: NamedScore | None = None) -> Prediction:
    return own(nn.Flatten(), score).predict(torch.tensor(outputs).view(1, 1, 1, -1))


def test_probabilities_are_the_softmax_of_scores() -> None:
    prediction = predict([4.0, 1.0, 0.0])
    assert prediction.score == "probability"
    assert prediction.probabilities.tolist() == pytest.approx([0.93624, 0.04661, 0.01715], abs=1e-5)


def test_labels_that_do_not_exclude_each_other_have_the_sigmoid_of_their_scores() -> None:
    prediction = predict([4.0, 1.0, 0.0], "sigmoid")
    assert prediction.score == "sigmoid"
    assert prediction.probabilities.tolist() == pytest.approx([0.98201, 0.73106, 0.5], abs=1e-5)


def test_one_logit_has_a_probability() -> None:
    assert predict([1.0], "sigmoid").probabilities.tolist() == pytest.approx([0.73106], abs=1e-5)


@pytest.mark.parametrize(("outputs", "has_probabilities"), [([0.9, 0.8, 0.0], True), ([4.0, 1.0, 0.0], False)])
def test_outputs_may_be_taken_as_they_are(outputs: list[float], has_probabilities: bool) -> None:
    prediction = predict(outputs, "output")
    assert prediction.probabilities.tolist() == pytest.approx(outputs)
    assert prediction.has_probabilities == has_probabilities
    assert predict(outputs, "probability").has_probabilities


@pytest.mark.parametrize("score", [None, "probability"])
def test_one_output_needs_a_score(score: NamedScore | None) -> None:
    with pytest.raises(ValueError, match="Expected `score` to be 'sigmoid' or 'output' for a model with one output"):
        predict([1.0], score)


OUTPUTS = torch.tensor([0.9, 0.8, 0.1])
SMALL = torch.tensor([0.55, 0.5, 0.6])


class Head(nn.Module):
    """Returns its bias, through a linear layer."""

    def __init__(self, bias: Tensor, frozen: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(2, len(bias))
        nn.init.zeros_(self.linear.weight)
        with torch.no_grad():
            self.linear.bias.copy_(bias)
        self.requires_grad_(not frozen)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.linear(inputs.mean((2, 3)))
        return outputs


class WithoutAutograd(nn.Module):
    """A model that runs outside PyTorch."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.from_numpy(inputs.numpy()).mean((2, 3))


def predicted(*modules: nn.Module, score: NamedScore | None = None) -> Prediction:
    return own(nn.Sequential(*modules), score).predict(torch.zeros(1, 2, 4, 4))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("probabilities", [OUTPUTS, SMALL])
def test_outputs_of_a_sigmoid_are_probabilities(probabilities: Tensor, frozen: bool) -> None:
    prediction = predicted(Head(probabilities.logit(), frozen), nn.Sigmoid())
    assert prediction.score == "output"
    assert prediction.has_probabilities
    torch.testing.assert_close(prediction.probabilities, probabilities)


def test_outputs_of_a_softmax_in_bfloat16_are_probabilities() -> None:
    model = nn.Sequential(Head(torch.tensor([1.7, 0.3, 0.2, 0.1])), nn.Softmax(1)).bfloat16()
    inputs = torch.zeros(1, 2, 4, 4, dtype=torch.bfloat16)
    with torch.no_grad():
        assert abs(float(model(inputs).float().sum()) - 1) > 1e-3
    assert own(model).predict(inputs).score == "output"


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("logits", [OUTPUTS, SMALL])
def test_small_logits_of_a_linear_layer_get_the_softmax(logits: Tensor, frozen: bool) -> None:
    prediction = predicted(Head(logits, frozen))
    assert prediction.score == "probability"
    torch.testing.assert_close(prediction.probabilities, logits.softmax(0))


@pytest.mark.parametrize("outputs", [[0.04, 0.01, 0.03], [0.9, 0.8, 0.1]])
def test_outputs_that_may_be_those_of_a_sigmoid_are_pointed_out(outputs: list[float]) -> None:
    with pytest.warns(UserWarning, match=r"all in \[0, 1\] but do not sum to 1, and their softmax is used.* `score`"):
        assert predict(outputs).score == "probability"


def test_a_model_that_leaves_pytorch_is_run_as_it_is() -> None:
    with pytest.warns(UserWarning, match="do not sum to 1"):
        prediction = own(WithoutAutograd()).predict(torch.full((1, 2, 4, 4), 0.25))
    assert prediction.scores.tolist() == [0.25, 0.25]


@pytest.mark.parametrize("outputs", [[0.9, 1.2, 0.1], [0.9, -0.2, 0.1]])
def test_outputs_outside_the_unit_range_are_not_pointed_out(outputs: list[float]) -> None:
    assert predict(outputs).score == "probability"


@pytest.mark.parametrize("value", [0.032, 0.48, 3.2])
def test_a_linear_output_is_no_probability_whatever_its_value(value: float) -> None:
    prediction = predicted(Head(torch.tensor([value])), score="output")
    assert prediction.probabilities.tolist() == pytest.approx([value])
    assert not prediction.has_probabilities


def test_the_sigmoid_of_one_logit_may_be_taken_as_it_is() -> None:
    assert predicted(Head(torch.tensor([0.3])), nn.Sigmoid(), score="output").has_probabilities
    assert predicted(Head(torch.tensor([0.3])), score="sigmoid").has_probabilities


def test_an_unknown_score_raises() -> None:
    with pytest.raises(
        ValueError, match="Expected `score` to be 'output', 'probability' or 'sigmoid', but got 'softmax'"
    ):
        own(nn.Identity(), "softmax")  # type: ignore[arg-type]


class WithLogits(nn.Module):
    def forward(self, inputs: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=inputs.flatten(1), hidden_states=None)


def test_logits_are_read() -> None:
    assert own(WithLogits()).predict(torch.tensor([[[[3.0, 1.0]]]])).scores.tolist() == [3.0, 1.0]


class Returning(nn.Module):
    def __init__(self, *keys: str) -> None:
        super().__init__()
        self.keys = keys

    def forward(self, inputs: Tensor) -> object:
        return {key: inputs.flatten(1) for key in self.keys} if self.keys else (inputs.flatten(1),)


@pytest.mark.parametrize(
    ("model", "returns"),
    [
        (Returning(), r"tuple \(item 0, of shape \(1, 2\)\)"),
        (Returning("out", "aux"), r"dict \(key 'out', of shape \(1, 2\); key 'aux', of shape \(1, 2\)\)"),
    ],
)
def test_a_model_that_returns_no_scores_raises(model: nn.Module, returns: str) -> None:
    message = f"object with `logits`, but own returns {returns}\\. Wrap it in a module that returns the scores; package"
    with pytest.raises(TypeError, match=message):
        own(model).predict(torch.zeros(1, 2, 1, 1))


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
    with pytest.raises(ValueError, match=f"Expected a model that returns N×classes scores, but got {got}"):
        own(output).predict(torch.zeros(1, 3, 4, 4))


def test_preprocessing_that_returns_no_image_raises() -> None:
    classifier = Classifier("own", nn.Identity(), lambda _: torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match=r"to return a C×H×W tensor, but got \(1, 3, 4, 4\)"):
        classifier.inputs(Image.new("RGB", (4, 4)))


def test_a_model_that_overwrites_its_input_gets_a_copy() -> None:
    class Overwriting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sub_(0.5).mul_(2).mean((2, 3))

    x = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    first, second = (own(Overwriting()).predict(x).scores for _ in range(2))
    assert torch.equal(x, before)
    assert torch.equal(first, second)
