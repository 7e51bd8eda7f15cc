"""A forward pass of masked inputs: the model's inputs, and the calls that are rejected before it."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from captum_scorecam import RISE
from captum_scorecam.masking.baselines import blend
from captum_scorecam.masking.channel_masks import ChannelMasks
from captum_scorecam.scoring import masked_forward
from captum_scorecam.scoring.chunk_size import ChunkSize
from captum_scorecam.scoring.chunks import score_baselines, score_masked_inputs
from captum_scorecam.scoring.masked_forward import MaskedForward
from tests.support.masked_forward import forward_of, random_masks
from tests.support.small_net import Net, images


def total(x: Tensor, *others: Tensor) -> Tensor:
    return torch.stack([each.flatten(1).sum(1) for each in (x, *others)]).sum(0)


def test_scores_of_masked_inputs_by_hand() -> None:
    inputs = torch.tensor([[[4.0, 8.0]], [[-2.0, 6.0]]])
    forward = forward_of(total, inputs, None, baselines=2.0)
    masks = torch.tensor([[[0.5, 1.0]], [[0.0, 0.0]], [[1.0, 0.25]]])
    scores = forward((masks,), torch.tensor([0, 0, 1]))
    assert scores.tolist() == [[3 + 8], [2 + 2], [-2 + 3]]
    assert forward.unmasked_output().tolist() == [12, 4]


def test_every_input_has_its_mask_and_arguments_follow_their_example() -> None:
    given: list[tuple[Any, ...]] = []

    def model(x: Tensor, y: Tensor, shift: Tensor, factor: float) -> Tensor:
        given.append((shift.tolist(), factor))
        return factor * total(x, y) + shift

    x, y = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]]), torch.tensor([[[10.0]], [[20.0]]])
    forward = forward_of(model, (x, y), None, additional_forward_args=(torch.tensor([0.5, 0.25]), 2))
    masks = (torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]]]), torch.tensor([[[0.5]], [[1.0]]]))
    assert forward(masks, torch.tensor([1, 0])).tolist() == [[2 * (4 + 10) + 0.25], [2 * (1 + 10) + 0.5]]
    assert given == [([0.25, 0.5], 2)]


def test_baselines_are_scored_one_per_example() -> None:
    baselines = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]])
    forward = forward_of(total, torch.rand(2, 1, 2), None, baselines=baselines)
    assert score_baselines(forward, ChunkSize(1)).tolist() == [[3], [7]]


def test_the_users_inputs_do_not_reach_the_model_itself() -> None:
    def overwriting(x: Tensor) -> Tensor:
        return x.zero_().flatten(1)

    inputs = torch.rand(2, 1, 3)
    before = inputs.clone()
    forward = forward_of(overwriting, inputs)
    forward.unmasked_output()
    forward((torch.ones(2, 1, 3),), torch.tensor([0, 1]))
    assert torch.equal(inputs, before)


def test_scores_are_float32_in_half_precision_and_float64_in_double() -> None:
    masks = random_masks(1, 2, (4,))
    for dtype, expected in [(torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.float64,) * 2]:
        forward = forward_of(lambda x: x.sum(2), torch.rand(1, 1, 4, dtype=dtype))
        assert score_masked_inputs(forward, masks, ChunkSize(2)).dtype == expected


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (torch.ones(2, 3, 4, dtype=torch.int64), TypeError, "got torch.int64. .*`additional_forward_args`"),
        (torch.rand(2, 3), ValueError, r"Expected inputs of shape N×C×spatial .*, but got shape \(2, 3\)"),
        (torch.rand(2, 3, 1, 1, 1, 1), ValueError, r"N×C×spatial .*, but got shape \(2, 3, 1, 1, 1, 1\)"),
        (torch.rand(0, 3, 4), ValueError, r"same non-zero number of examples, but got \[0\]"),
        ((torch.rand(2, 3, 4), torch.rand(3, 3, 4)), ValueError, r"same non-zero number of examples, but got \[2, 3\]"),
    ],
)
def test_inputs_that_cannot_be_masked_are_an_error(inputs: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        forward_of(total, inputs)


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        ([], ValueError, "Expected at least one target, but got none"),
        (torch.empty(2, 0, dtype=torch.int64), ValueError, "Expected at least one target, but got none"),
        (3, TypeError, "Expected `targets` to be a sequence of targets or a tensor, but got 3"),
    ],
)
def test_targets_that_are_no_sequence_are_an_error(targets: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        MaskedForward.from_call(total, torch.rand(2, 1, 2), targets, None, None, "output")


def test_sizes_are_those_of_each_input() -> None:
    forward = forward_of(total, (torch.rand(2, 3, 4, 5), torch.rand(2, 1, 6)))
    assert forward.sizes == ((4, 5), (6,))
    masks = ChannelMasks.from_activations(torch.rand(2, 3, 2, 2), forward.sizes[:1])
    assert masks[torch.tensor([0])][0].shape[2:] == (4, 5)


@pytest.mark.parametrize("writes", [False, True])
def test_rows_of_an_argument_have_memory_of_their_own(writes: bool) -> None:
    shapes: list[tuple[int, ...]] = []

    def model(x: Tensor, boxes: Tensor) -> Tensor:
        shapes.append(boxes.view(-1, 4).shape)  # not a view of an expanded row
        return total(x) + (boxes.add_(1) if writes else boxes + 1)[:, 0, 0]

    boxes = torch.zeros(1, 5, 4)
    forward = forward_of(model, torch.tensor([[[4.0, 8.0]]]), None, additional_forward_args=(boxes,))
    assert forward.unmasked_output().tolist() == [13]
    for _ in range(2):
        assert forward((torch.ones(3, 1, 2),), torch.zeros(3, dtype=torch.long)).tolist() == [[13], [13], [13]]
    assert shapes == [(5, 4), (15, 4), (15, 4)]
    assert not boxes.any()


@pytest.mark.parametrize("n_examples", [1, 2])
@pytest.mark.parametrize("writes", [False, True])
def test_rows_of_an_argument_keep_its_memory_format(n_examples: int, writes: bool) -> None:
    def model(x: Tensor, condition: Tensor) -> Tensor:
        seen = condition.add_(0) if writes else condition
        return total(x) + seen.permute(0, 2, 3, 1).view(len(seen), -1, 3).sum((1, 2))

    condition = torch.ones(n_examples, 3, 2, 4).contiguous(memory_format=torch.channels_last)
    forward = forward_of(model, torch.ones(n_examples, 1, 2), None, additional_forward_args=(condition,))
    assert forward.unmasked_output().tolist() == n_examples * [26]
    examples = torch.arange(5) % n_examples
    assert forward((torch.ones(5, 1, 2),), examples).flatten().tolist() == 5 * [26]


def test_inputs_in_another_memory_format_are_blended_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    blended: list[Tensor] = []

    def recording(x: Tensor, mask: Tensor, baseline: Any) -> Tensor:
        blended.append(x)
        return blend(x, mask, baseline)

    monkeypatch.setattr(masked_forward, "blend", recording)
    x = torch.rand(3, 2, 4, 5, dtype=torch.float64)
    masks, examples = (torch.rand(4, 1, 4, 5, dtype=torch.float64),), torch.tensor([2, 0, 2, 1])
    expected = forward_of(total, x, None)(masks, examples)
    assert torch.equal(
        forward_of(total, x.contiguous(memory_format=torch.channels_last), None)(masks, examples), expected
    )
    assert [(len(each), each.is_contiguous()) for each in blended] == [(4, True), (4, True)]


def scale_data(shift: Tensor) -> None:
    shift.data.add_(1)


def scale_array(shift: Tensor) -> None:
    shift.detach().numpy()[:] += 1


def assign_data(shift: Tensor) -> None:
    shift.data = shift.data + 1


@pytest.mark.parametrize("write", [scale_data, scale_array, assign_data])
@pytest.mark.parametrize("inference", [False, True])
def test_arguments_are_copied_however_they_are_written_to(write: Callable[[Tensor], None], inference: bool) -> None:
    def model(x: Tensor, shift: Tensor) -> Tensor:
        write(shift)
        return total(x) + shift[:, 0].nan_to_num()

    with torch.inference_mode(inference):
        shift = torch.tensor([[0.0, torch.nan]])
        forward = forward_of(model, torch.tensor([[[4.0, 8.0]]]), None, additional_forward_args=(shift,))
        assert forward.unmasked_output().tolist() == [13]
        assert forward.writes_arguments
        for _ in range(2):
            assert forward((torch.ones(3, 1, 2),), torch.zeros(3, dtype=torch.long)).tolist() == [[13], [13], [13]]
    assert float(shift[0, 0]) == 0


def test_arguments_with_nan_that_are_only_read_are_not_copied() -> None:
    arguments = (torch.tensor([[torch.nan]]), torch.tensor([1]), "text")
    forward = forward_of(lambda x, *_: total(x), torch.ones(1, 1, 2), None, additional_forward_args=arguments)
    forward.unmasked_output()
    assert not forward.writes_arguments


def test_arguments_are_copied_for_a_write_that_changes_nothing_at_first() -> None:
    def model(x: Tensor, limit: Tensor) -> Tensor:
        return total(x) + limit.clamp_(0, 1)[:, 0]

    forward = forward_of(model, torch.tensor([[[4.0, 8.0]]]), None, additional_forward_args=(torch.ones(1, 1),))
    assert forward.unmasked_output().tolist() == [13]
    assert forward((torch.ones(3, 1, 2),), torch.zeros(3, dtype=torch.long)).tolist() == [[13], [13], [13]]


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:`torch.jit:FutureWarning")
@pytest.mark.parametrize("as_function", [True, False])
def test_torchscript_without_a_signature_is_called(as_function: bool) -> None:
    net = Net().requires_grad_(False)
    trace: Any = torch.jit.trace
    without = trace(lambda x: net(x), images(1)) if as_function else trace(net, images(1)).forward
    expected = RISE(net, n_masks=9).attribute(images(), 1)
    torch.testing.assert_close(RISE(without, n_masks=9).attribute(images(), 1), expected)
    torch.testing.assert_close(RISE(net, n_masks=9, masked_forward_func=without).attribute(images(), 1), expected)


def test_a_function_written_in_c_is_called_and_its_type_error_is_raised() -> None:
    assert forward_of(torch.relu, torch.ones(2, 1, 1), (0, 0)).unmasked_output().tolist() == [[[1]], [[1]]]
    with pytest.raises(TypeError, match="relu"):
        forward_of(torch.relu, torch.ones(2, 1, 1), None, additional_forward_args="text").unmasked_output()


class Batch(UserDict[str, Any]):
    """Like Hugging Face's BatchEncoding."""

    def __init__(self, data: dict[str, Any], encoding: str) -> None:
        super().__init__(data)
        self.encoding = encoding


def test_rows_in_a_user_dict_follow_their_example() -> None:
    def model(x: Tensor, batch: Batch) -> Tensor:
        assert batch.encoding == "fast"
        shifts: Tensor = batch["shift"].add_(1)  # of a copy
        return total(x) + shifts

    batch = Batch({"shift": torch.tensor([1.0, 2.0])}, "fast")
    forward = forward_of(model, torch.zeros(2, 1, 2), None, additional_forward_args=batch)
    assert forward.unmasked_output().tolist() == [2, 3]
    for _ in range(2):
        assert forward((torch.ones(3, 1, 2),), torch.tensor([1, 1, 0])).tolist() == [[3], [3], [2]]
    assert batch["shift"].tolist() == [1, 2]


class Options(dict[str, Any]):
    """A dictionary with attributes, as EasyDict and the settings of many programs."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(name)


class Frozen(dict[str, Any]):
    """A dictionary that can't be changed, as the configurations of some libraries."""

    def __setitem__(self, *_: object) -> None:
        raise TypeError("frozen")


class Shifts(list[Any]):
    """A list with methods of its own."""


@pytest.mark.parametrize(
    ("wrap", "read"), [(lambda x: Options(shift=x), lambda x: x.shift), (lambda x: Shifts([x]), lambda x: x[0])]
)
def test_rows_in_subclasses_of_dict_and_list_follow_their_example(wrap: Any, read: Any) -> None:
    def model(x: Tensor, argument: Any) -> Tensor:
        assert type(argument) is type(given)
        shifts: Tensor = read(argument).add_(1)  # of a copy
        return total(x) + shifts

    given = wrap(torch.tensor([1.0, 2.0]))
    forward = forward_of(model, torch.zeros(2, 1, 2), None, additional_forward_args=given)
    assert forward.unmasked_output().tolist() == [2, 3]
    for _ in range(2):
        assert forward((torch.ones(3, 1, 2),), torch.tensor([1, 1, 0])).tolist() == [[3], [3], [2]]
    assert read(given).tolist() == [1, 2]


def test_a_dictionary_that_refuses_changes_is_passed_as_it_is() -> None:
    given = Frozen(scale=2)
    forward = forward_of(lambda x, o: o["scale"] * total(x), torch.ones(1, 1, 2), None, additional_forward_args=given)
    assert forward.unmasked_output().tolist() == [4]


def test_a_generator_starts_each_forward_pass_in_the_same_state() -> None:
    generator = torch.Generator().manual_seed(0)
    expected = float(torch.rand(1, generator=generator))
    generator.manual_seed(0)

    def model(x: Tensor, generator: torch.Generator) -> Tensor:
        return total(x) + torch.rand(1, generator=generator)

    forward = forward_of(model, torch.zeros(1, 1, 2), None, additional_forward_args=generator)
    assert forward.unmasked_output().tolist() == [pytest.approx(expected)]
    for _ in range(2):
        assert forward((torch.ones(2, 1, 2),), torch.tensor([0, 0])).tolist() == [[pytest.approx(expected)]] * 2
    assert float(torch.rand(1, generator=generator)) == expected


def pop(options: dict[str, Any]) -> float:
    return float(options.pop("shift", 0))


def rename(options: dict[str, Any]) -> float:
    shift = float(options.get("shift", 0))
    options["shifted"] = options.pop("shift", None)
    return shift


def count(options: dict[str, Any]) -> float:
    options["shift"] += 1
    return float(options["shift"] - 1)


def divide(options: dict[str, Any]) -> float:
    options["array"] /= 2
    return 10 * float(options["array"][0])


@pytest.mark.parametrize("change", [pop, rename, count, divide])
@pytest.mark.parametrize("with_tensor", [False, True])
def test_arguments_without_tensors_are_copied_too(change: Callable[[dict[str, Any]], float], with_tensor: bool) -> None:
    def model(x: Tensor, options: dict[str, Any]) -> Tensor:
        return total(x) + change(options)

    options = {"shift": 5, "array": np.ones(3)} | ({"tensor": torch.ones(3)} if with_tensor else {})
    forward = forward_of(model, torch.tensor([[[4.0, 8.0]]]), None, additional_forward_args=(options,))
    assert forward.unmasked_output().tolist() == [17]
    assert forward.writes_arguments
    for _ in range(2):
        assert forward((torch.ones(3, 1, 2),), torch.zeros(3, dtype=torch.long)).tolist() == [[17], [17], [17]]
    assert options["shift"] == 5
    assert np.array_equal(options["array"], np.ones(3))  # type: ignore[arg-type]


def test_containers_that_are_only_read_are_not_copied() -> None:
    arguments = ({"sizes": (2, 2), "mean": np.ones(3)}, [torch.ones(3), None])
    forward = forward_of(lambda x, *_: total(x), torch.ones(1, 1, 2), None, additional_forward_args=arguments)
    forward.unmasked_output()
    assert not forward.writes_arguments


@pytest.mark.parametrize(
    "argument", [["cat", "dog"], ("cat", "dog"), {"prompts": ["cat", "dog"]}, [0.5, 2], [[0.5, 2]]]
)
def test_as_many_texts_or_numbers_as_examples_are_an_error(argument: Any) -> None:
    message = "Expected `additional_forward_args` without a list of 2 strings or numbers for 2"
    with pytest.raises(ValueError, match=message):
        forward_of(total, torch.rand(2, 1, 2), None, additional_forward_args=(argument,))
    for n_examples in (1, 3):
        forward_of(total, torch.rand(n_examples, 1, 2), None, additional_forward_args=(argument,))
    forward_of(total, torch.rand(2, 1, 2), None, additional_forward_args=("cat", "dog"))  # two arguments
    forward_of(total, torch.rand(2, 1, 2), None, additional_forward_args=((224, 224),))  # a size
