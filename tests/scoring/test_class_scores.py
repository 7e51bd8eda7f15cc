"""Model output to the scores of the targets, by hand."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from captum_scorecam.scoring.class_scores import (
    ClassScores,
    are_probabilities,
    output_score,
    probability_score,
    score_function,
    sigmoid_score,
)

CPU = torch.device("cpu")
OUTPUT = torch.tensor([[0.0, 1.0, 2.0], [10.0, 11.0, 12.0], [20.0, 21.0, 22.0], [30.0, 31.0, 32.0]])
EXAMPLES = torch.tensor([0, 1, 1, 0])  # of two examples, the one that each row of the output is a version of


def scores_of(*targets: Any, n_examples: int = 2) -> ClassScores:
    return ClassScores(output_score, targets, n_examples, CPU)


def test_probability_is_the_softmax_over_the_classes() -> None:
    output = torch.tensor([[0.0, math.log(3.0)]])
    torch.testing.assert_close(probability_score(output), torch.tensor([[0.25, 0.75]]))
    pixels = output.view(1, 2, 1, 1).expand(1, 2, 3, 1)
    torch.testing.assert_close(probability_score(pixels), torch.tensor([0.25, 0.75]).view(1, 2, 1, 1).expand_as(pixels))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_probabilities_of_half_precision_are_float32(dtype: torch.dtype) -> None:
    torch.testing.assert_close(probability_score(torch.zeros(1, 3, dtype=dtype)), torch.full((1, 3), 1 / 3))


def test_scores_by_name_and_by_callable() -> None:
    assert score_function("output") is output_score
    assert score_function("probability") is probability_score
    assert score_function("sigmoid") is sigmoid_score
    assert score_function(torch.sigmoid) is torch.sigmoid


def test_an_unknown_score_is_an_error() -> None:
    with pytest.raises(
        ValueError, match="Expected `score` to be 'output', 'probability', 'sigmoid' or a callable, but got 'logit'"
    ):
        score_function("logit")  # type: ignore[arg-type]


@pytest.mark.parametrize("score", [output_score, probability_score, sigmoid_score])
@pytest.mark.parametrize("wrapped", [lambda x: x, lambda x: SimpleNamespace(logits=x)])
def test_a_complex_output_is_refused(score: Any, wrapped: Any) -> None:
    with pytest.raises(TypeError, match=r"`forward_func` to return real numbers, but got torch.complex64; set `score`"):
        score(wrapped(OUTPUT * 1j))


def test_an_output_that_is_no_tensor_points_to_a_callable_score() -> None:
    with pytest.raises(TypeError, match=r"an object with `logits`, but got NoneType\. A callable `score` can"):
        output_score(None)


@dataclass
class Detections:
    boxes: Tensor
    scores: Tensor


@pytest.mark.parametrize(
    ("output", "found"),
    [
        ({"out": OUTPUT, "aux": None}, ["dict. Set `score`", "key 'out', of shape (4, 3): score="]),
        ((OUTPUT, OUTPUT[:, 0]), ["item 0, of shape (4, 3): score=lambda output: output[0]", "item 1, of shape (4,)"]),
        (Detections(OUTPUT, OUTPUT), ["Detections", "boxes, of shape (4, 3): score=lambda output: output.boxes"]),
    ],
)  # fmt: skip
def test_an_output_with_tensors_shows_how_to_read_them(output: Any, found: list[str]) -> None:
    with pytest.raises(TypeError) as caught:
        output_score(output)
    for text in found:
        assert text in str(caught.value)
    assert_lines_read_tensors(str(caught.value), output)


def assert_lines_read_tensors(message: str, output: Any) -> None:
    lines = message.splitlines()[1:]
    assert lines
    for line in lines:
        read, shape = eval(line.split("score=")[1]), eval(line.split("of shape ")[1].split(": score=")[0])
        assert isinstance(read(output), Tensor)
        assert read(output).shape == torch.Size(shape)


class WithSlots:
    __slots__ = ("scores", "unset")

    def __init__(self, scores: Tensor) -> None:
        self.scores = scores


class AlsoWithSlots(WithSlots):
    __slots__ = "boxes"

    def __init__(self, scores: Tensor) -> None:
        super().__init__(scores)
        self.boxes = scores[:, 0]


@pytest.mark.parametrize(
    ("output", "got", "lines"),
    [
        (WithSlots(OUTPUT), "WithSlots.", ["scores, of shape (4, 3): score=lambda output: output.scores"]),
        (
            AlsoWithSlots(OUTPUT),
            "AlsoWithSlots.",
            [
                "boxes, of shape (4,): score=lambda output: output.boxes",
                "scores, of shape (4, 3): score=lambda output: output.scores",
            ],
        ),
        (
            SimpleNamespace(logits=[OUTPUT, OUTPUT]),
            "SimpleNamespace, whose `logits` are of type list.",
            [f"logits, item {i}, of shape (4, 3): score=lambda output: output.logits[{i}]" for i in (0, 1)],
        ),
        (
            SimpleNamespace(logits=None, pooled=OUTPUT),
            "SimpleNamespace, whose `logits` are of type NoneType.",
            ["pooled, of shape (4, 3): score=lambda output: output.pooled"],
        ),
        (
            {"feat": OUTPUT[:2], "heads": {"a": (OUTPUT, 1), 2: OUTPUT}},
            "dict.",
            [
                "key 'feat', of shape (2, 3): score=lambda output: output['feat']",
                "key 'heads', key 'a', item 0, of shape (4, 3): score=lambda output: output['heads']['a'][0]",
                "key 'heads', key 2, of shape (4, 3): score=lambda output: output['heads'][2]",
            ],
        ),
        (OUTPUT.numpy(), "ndarray.", ["an array of shape (4, 3): score=torch.from_numpy"]),
        (
            [OUTPUT.numpy(), OUTPUT],
            "list.",
            [
                "item 0, of shape (4, 3): score=lambda output: torch.from_numpy(output[0])",
                "item 1, of shape (4, 3): score=lambda output: output[1]",
            ],
        ),
    ],
    ids=["slots", "inherited slots", "logits in a list", "no logits", "nested", "array", "arrays"],
)
def test_tensors_anywhere_in_an_output_are_shown(output: Any, got: str, lines: list[str]) -> None:
    with pytest.raises(TypeError, match=re.escape(f"but got {got} Set `score` to read")) as caught:
        output_score(output)
    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == lines
    assert_lines_read_tensors(str(caught.value), output)


def test_at_most_ten_tensors_are_shown() -> None:
    with pytest.raises(TypeError) as caught:
        output_score([[OUTPUT] * 7] * 7)
    assert len(str(caught.value).splitlines()) == 1 + 10


def test_an_output_that_contains_itself_has_no_tensors() -> None:
    output: list[Any] = []
    output.append(output)
    with pytest.raises(TypeError, match=r"got list\. A callable `score` can"):
        output_score(output)


def test_a_score_that_returns_an_array_is_pointed_out() -> None:
    with pytest.raises(TypeError, match=r"`score` to return a dense tensor of real numbers, but got ndarray; use"):
        ClassScores(lambda output: output.numpy(), [0], 4, CPU).select_examples(OUTPUT)


def test_logits_are_read_by_every_named_score() -> None:
    output = SimpleNamespace(logits=OUTPUT, hidden_states=None)
    assert output_score(output) is OUTPUT
    torch.testing.assert_close(probability_score(output), OUTPUT.softmax(1))
    torch.testing.assert_close(sigmoid_score(output), OUTPUT.sigmoid())


@pytest.mark.parametrize("shape", [(4, 1), (1, 1), (2, 1, 5, 5)])
def test_probability_of_a_single_class_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"a single output is always 1, .* score='sigmoid' .* score='output'"):
        probability_score(torch.rand(shape))


def test_probability_of_one_value_per_example_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"N×classes for the score 'probability', but got \(4,\)"):
        probability_score(OUTPUT[:, 0])


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([[0.25, 0.75], [0.0, 1.0]], True),
        ([[0.25, 0.7501], [0.0, 1.0]], True),
        ([[0.25, 0.76], [0.0, 1.0]], False),
        ([[1.25, -0.25], [0.0, 1.0]], False),
        ([[1.0], [1.0]], False),
    ],
)
def test_probabilities_are_told_by_sign_and_sum(scores: list[list[float]], expected: bool) -> None:
    assert are_probabilities(torch.tensor(scores)) is expected
    assert are_probabilities(torch.tensor(1.0)) is False


@pytest.mark.parametrize(
    "target", [2, torch.tensor(2), torch.tensor([2]), (2,), [2, 2], torch.tensor([2, 2]), [(2,)] * 2]
)
def test_one_target_for_all_examples(target: Any) -> None:
    assert scores_of(target).select_examples(OUTPUT[:2]).tolist() == [[2], [12]]
    assert scores_of(target).select_rows(OUTPUT, EXAMPLES).tolist() == [[2], [12], [22], [32]]


@pytest.mark.parametrize("target", [[0, 2], torch.tensor([0, 2]), [(0,), (2,)]])
def test_a_target_of_each_example_follows_its_rows(target: Any) -> None:
    assert scores_of(target).select_examples(OUTPUT[:2]).tolist() == [[0], [12]]
    assert scores_of(target).select_rows(OUTPUT, EXAMPLES).tolist() == [[0], [12], [22], [30]]


def test_several_targets_stand_side_by_side() -> None:
    assert scores_of(1, [0, 2]).select_rows(OUTPUT, EXAMPLES).tolist() == [[1, 0], [11, 12], [21, 22], [31, 30]]


@pytest.mark.parametrize(("target", "expected"), [((1, 0), [2, 6]), ([(1, 0), (0, 1)], [2, 5])])
def test_targets_of_pixels(target: Any, expected: list[float]) -> None:
    output = torch.arange(8.0).view(2, 2, 2)
    assert scores_of(target).select_rows(output, torch.tensor([0, 1]))[:, 0].tolist() == expected


@pytest.mark.parametrize("output", [torch.tensor([3.0, 4.0]), torch.tensor([[3.0], [4.0]])])
def test_one_value_per_example_needs_no_target(output: Tensor) -> None:
    assert scores_of(None).select_examples(output).tolist() == [[3], [4]]
    assert scores_of(None).select_rows(output, torch.tensor([1, 0])).tolist() == [[3], [4]]


def test_missing_targets_and_targets_of_another_batch_are_captums_errors() -> None:
    with pytest.raises(AssertionError, match="Target not provided when necessary"):
        scores_of(None).select_examples(OUTPUT[:2])
    with pytest.raises(AssertionError, match="does not match with the number of targets"):
        scores_of([0, 1, 2])


@pytest.mark.parametrize(
    ("target", "got"),
    [
        (np.array([0, 1]), "ndarray; use torch.from_numpy"),
        ("cat", "str"),
        (1.0, "float"),
        (["cat", "dog"], "a list with str"),
        ([0, None], "a list with NoneType"),
        ([[0], [1]], "a list with list"),
    ],
)
def test_targets_of_other_types_are_named(target: Any, got: str) -> None:
    with pytest.raises(TypeError, match=f"Expected `target` to be a class index, .* of one per example, but got {got}"):
        scores_of(target)


@pytest.mark.parametrize("output", [OUTPUT[0, 0], OUTPUT[:1], OUTPUT[:3]])
def test_an_output_of_another_number_of_rows_is_an_error(output: Tensor) -> None:
    expected = f"Expected an output with one row per input row, but got shape {tuple(output.shape)} for"
    with pytest.raises(ValueError, match=re.escape(f"{expected} 2 input rows")):
        scores_of(0).select_examples(output)
    with pytest.raises(ValueError, match=re.escape(f"{expected} 4 input rows")):
        scores_of(0).select_rows(output, EXAMPLES)


@pytest.mark.parametrize(
    ("convert", "got"), [(Tensor.to_sparse, "torch.sparse_coo"), (torch.complex64, "torch.complex64")]
)
def test_scores_that_are_no_dense_real_numbers_are_an_error(convert: Any, got: str) -> None:
    read = convert if callable(convert) else lambda output: output.to(convert)
    message = re.escape(f"Expected `score` to return a dense tensor of real numbers, but got {got}.")
    with pytest.raises(TypeError, match=message):
        ClassScores(read, [0], 2, OUTPUT.device).select_examples(OUTPUT[:2])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_score_of_an_example_that_is_not_finite_is_an_error(value: float) -> None:
    output = OUTPUT[:2].clone()
    output[1, 2] = value
    with pytest.raises(ValueError, match="Expected finite scores of the inputs, but got NaN or Inf"):
        scores_of(2).select_examples(output)
    assert scores_of(1).select_examples(output).tolist() == [[1], [11]]  # nobody wants the other class


def test_zeros_have_the_scores_dtype() -> None:
    for dtype, expected in [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)]:
        zeros = scores_of(0, 1).zeros(3, torch.empty(2, 3, 4, dtype=dtype))
        assert (zeros.shape, zeros.dtype, float(zeros.abs().sum())) == ((3, 2), expected, 0.0)


def test_zeros_have_the_dtype_of_scores_that_are_more_precise_than_inputs() -> None:
    scores = scores_of(0)
    scores.select_examples(OUTPUT[:2].double())
    assert scores.zeros(3, torch.empty(2, 3, 4)).dtype == torch.float64


@pytest.mark.parametrize("target", [1, [1, 2]])
def test_scores_on_another_device_than_the_inputs_are_moved_to_it(target: Any) -> None:
    with FakeTensorMode():
        inputs = torch.device("cuda:0")
        scores = ClassScores(output_score, [target], 2, inputs)
        examples = torch.empty(4, dtype=torch.long, device=inputs)
        selected = scores.select_rows(torch.empty(4, 3, device="cpu"), examples)
    assert (selected.shape, selected.device) == ((4, 1), inputs)
