"""Arguments of the wrong type or shape raise an error that names them, before any forward pass."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from captum_scorecam import RISE, LayerGradCamPlusPlus, MeaningfulPerturbation, ScoreCAM
from tests.support.attributions import OURS, Method, each
from tests.support.small_net import Net, images

FLAGS = ["attribute_to_layer_input", "relu_attributions", "attr_dim_summation", "show_progress"]


def takes_baselines(method: Method) -> bool:
    return method.takes("baselines") and (
        method.attribution is not MeaningfulPerturbation or method.options.get("perturbation") == "baseline"
    )


def of_class(attribution: type) -> Callable[[Method], bool]:
    return lambda method: (method.over or method.attribution) is attribution


def assert_refused(method: Method, error: type[Exception], message: str, inputs: Any = None, **options: Any) -> None:
    """The call raises the error, and no forward pass runs."""
    net = Net()
    with pytest.raises(error, match=re.escape(message)):
        method.explain(net, net.relu, images() if inputs is None else inputs, 2, **options)
    assert net.forwards == 0


@each(OURS)
def test_a_function_that_cannot_be_called_raises_in_the_constructor(method: Method) -> None:
    for value in (None, 3, "s"):
        with pytest.raises(TypeError, match=rf"Expected `forward_func` to be callable, but got {value!r}\."):
            method.made(value, nn.ReLU())  # type: ignore[arg-type]


@each(OURS, lambda method: method.takes("generator"))
def test_a_generator_of_another_type_raises(method: Method) -> None:
    for value, shown in [(3, "3."), ("s", "'s'."), (False, "False."), (np.random.default_rng(0), "Generator(PCG")]:
        message = f"Expected `generator` to be a torch.Generator or None, but got {shown}"
        assert_refused(method, TypeError, message, generator=value)


@each(OURS)
def test_a_flag_is_true_or_false(method: Method) -> None:
    flags = [name for name in FLAGS if method.takes(name)]
    assert flags
    for name in flags:
        for value, shown in [
            (torch.tensor([True, False]), "tensor([ True, False])."),
            (np.array([True, False]), "array([ True, False])."),
            (torch.tensor(True), "tensor(True)."),
            ("no", "'no'."),
            (1, "1."),
            (None, "None."),
        ]:
            assert_refused(
                method, TypeError, f"Expected `{name}` to be True or False, but got {shown}", **{name: value}
            )


@each(OURS, lambda method: method.takes("process_group"))
def test_a_process_group_of_another_type_raises(method: Method) -> None:
    for value in ([0, 1], "s", 3):
        message = f"Expected `process_group` to be a torch.distributed.ProcessGroup or None, but got {value!r}."
        assert_refused(method, TypeError, message, process_group=value)


@each(OURS, lambda method: method.takes("grad_kwargs") and method.entry == "attribute")
@pytest.mark.parametrize("value", [3, "s", ["allow_unused"]], ids=str)
def test_grad_kwargs_of_another_type_raise(method: Method, value: Any) -> None:
    assert_refused(
        method, TypeError, f"Expected `grad_kwargs` to be a dict or None, but got {value!r}.", grad_kwargs=value
    )


# --- Targets ---------------------------------------------------------------------------------------------------------


@each(OURS, lambda method: method.of_several_targets)
@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        ("12", TypeError, "Expected `targets` to be a sequence of targets or a tensor, but got '12'."),
        (b"x", TypeError, "Expected `targets` to be a sequence of targets or a tensor, but got b'x'."),
        (bytearray(b"x"), TypeError, "a sequence of targets or a tensor, but got bytearray(b'x')."),
        (np.array([1, 2]), TypeError, "a sequence of targets or a tensor, but got array([1, 2])."),
        (torch.tensor(1), ValueError, "Expected `targets` of shape T or N×T, but got ()."),
        (torch.ones(2, 1, 1).long(), ValueError, "Expected `targets` of shape T or N×T, but got (2, 1, 1)."),
    ],
    ids=str,
)
def test_targets_that_are_no_sequence_raise(method: Method, targets: Any, error: type[Exception], message: str) -> None:
    assert_refused(method, error, message, targets=targets)


@each(OURS, lambda method: method.of_several_targets)
def test_targets_may_be_any_sequence_or_a_tensor(method: Method) -> None:
    net, x = Net(), images()
    rows = {"perturbations_per_eval": 4}  # tuned ones depend on time, and rounding on them
    expected = method.explain(net, net.relu, x, targets=[1, 2], **rows)
    for targets in ((1, 2), range(1, 3), torch.tensor([1, 2]), torch.tensor([[1, 2], [1, 2]])):
        method.assert_close(method.explain(net, net.relu, x, targets=targets, **rows), expected, 0)


# --- Baselines -------------------------------------------------------------------------------------------------------

MATCH = "Expected `baselines` to be one value, or one or 2 examples that match inputs of shape (2, 3, 12, 10), but got"
NUMBER = "Expected `baselines` to be a number or a tensor for each input, but got "

BAD_BASELINES: list[tuple[Any, type[Exception], str]] = [
    (True, TypeError, NUMBER + "True."),
    (1j, TypeError, NUMBER + "1j."),
    ("black", TypeError, NUMBER + "str."),
    ([0.5], TypeError, NUMBER + "list."),
    (np.zeros((2, 3, 12, 10)), TypeError, NUMBER + "ndarray; use torch.from_numpy."),
    (("black",), TypeError, NUMBER + "str."),
    (torch.tensor(True), TypeError, "Expected `baselines` to hold real numbers, but got a tensor of torch.bool."),
    (torch.tensor([1j]), TypeError, "to hold real numbers, but got a tensor of torch.complex64."),
    ((), ValueError, "Expected `baselines` to match the number of inputs, 1, but got 0."),
    ((0.0, 0.5), ValueError, "Expected `baselines` to match the number of inputs, 1, but got 2."),
    (float("nan"), ValueError, "Expected `baselines` to be finite in torch.float64, but got NaN or Inf."),
    (torch.full((1, 3, 12, 10), float("inf")), ValueError, "Expected `baselines` to be finite in torch.float64, but"),
    (10**400, ValueError, "Expected `baselines` to be finite in torch.float64, but got NaN or Inf."),
    (torch.zeros(1, 3, 12, 10).to_sparse(), TypeError, "Expected `baselines` to be a dense tensor with values, but"),
    (torch.zeros(1, 3, 12, 10, device="meta"), TypeError, "a dense tensor with values, but got a meta tensor."),
    (torch.zeros(3, 3, 12, 10), ValueError, f"{MATCH} shape (3, 3, 12, 10)."),
    (torch.zeros(1, 3, 12, 11), ValueError, f"{MATCH} shape (1, 3, 12, 11)."),
    (torch.zeros(2, 3, 10, 12), ValueError, f"{MATCH} shape (2, 3, 10, 12)."),
    (torch.zeros(1, 2, 3, 12, 10), ValueError, f"{MATCH} shape (1, 2, 3, 12, 10)."),
    (torch.zeros(10), ValueError, f"{MATCH} shape (10,)."),
    (torch.zeros(3, 12, 10), ValueError, f"{MATCH} shape (3, 12, 10)."),
    (torch.zeros(0, 3, 12, 10), ValueError, f"{MATCH} shape (0, 3, 12, 10)."),
]


@each(OURS, takes_baselines, quick=OURS)
def test_baselines_that_do_not_fit_raise(method: Method) -> None:
    for baselines, error, message in BAD_BASELINES:
        assert_refused(method, error, message, baselines=baselines)


@each(OURS, takes_baselines)
@pytest.mark.parametrize("batch", [1, 2])
def test_a_number_is_a_baseline_in_any_form(method: Method, batch: int) -> None:
    net, x = Net(), images(batch)
    expected = method.explain(net, net.relu, x, 2, baselines=2)
    values = [torch.tensor(2), torch.tensor(2.0), torch.tensor([2]), np.float32(2), np.int64(2)]
    for value in [*values, torch.full_like(x[:1], 2), torch.full((batch, 1, 1, 1), 2)]:
        method.assert_close(method.explain(net, net.relu, x, 2, baselines=value), expected, 1e-6)
        method.assert_close(method.explain(net, net.relu, (x,), 2, baselines=(value,)), expected, 1e-6)


@each(OURS, takes_baselines)
@pytest.mark.parametrize("batch", [1, 2])
def test_a_baseline_of_fewer_dimensions_is_broadcast(method: Method, batch: int) -> None:
    net, x = Net(), images(batch)
    row = torch.linspace(-1, 1, 10).double()
    expected = method.explain(net, net.relu, x, 2, baselines=row.expand_as(x))
    method.assert_close(method.explain(net, net.relu, x, 2, baselines=row.unsqueeze(0)), expected, 1e-6)


# --- Inputs ----------------------------------------------------------------------------------------------------------


@each(OURS)
def test_an_input_without_dimensions_raises(method: Method) -> None:
    message = "Expected `inputs` to have one row per example, but got a tensor of shape ()."
    assert_refused(method, ValueError, message, torch.tensor(1.0))
    assert_refused(method, ValueError, message, (torch.tensor(1.0), images()))


@each(OURS, of_class(LayerGradCamPlusPlus))
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int64])
def test_gradient_maps_take_the_types_that_the_model_takes(method: Method, dtype: torch.dtype) -> None:
    net, x = Net(), (100 * images()).to(dtype)
    with pytest.raises(TypeError, match=rf"`inputs` of a type that `forward_func` takes, .* failed with {dtype}\."):
        method.explain(net, net.relu, x, 2)
    if method.over is None:
        converted = method.explain(net, net.relu, x.double() / 255, 2)
        method.assert_close(method.explain(lambda x: net(x.double() / 255), net.relu, x, 2), converted, 0)


class Failing(Net):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("out of memory" if x.dtype == torch.uint8 else "my own error")


@each(OURS, of_class(LayerGradCamPlusPlus))
def test_errors_of_other_causes_are_the_models(method: Method) -> None:
    net = Failing()
    with pytest.raises(RuntimeError, match="my own error"):
        method.explain(net, net.relu, images(), 2)
    with pytest.raises(RuntimeError, match="out of memory"):
        method.explain(net, net.relu, images().to(torch.uint8), 2)


# --- Inputs, targets, numbers, devices -------------------------------------------------------------------------------


@each(OURS)
def test_inputs_that_are_not_dense_or_not_finite_raise(method: Method) -> None:
    x, missing = images(), images()
    missing[1, 0, 0, 0] = float("nan")
    tensors = "Expected `inputs` to be a tensor or a tuple of tensors, but got "
    dense = "Expected `inputs` to be a dense tensor with values, but got "
    for inputs, error, message in [
        (x.numpy(), TypeError, tensors + "ndarray; use torch.from_numpy."),
        (x.to_sparse(), TypeError, dense + "a sparse tensor."),
        (x.to("meta"), TypeError, dense + "a meta tensor."),
        (torch.nested.nested_tensor(list(x), layout=torch.jagged), TypeError, dense + "a nested tensor."),
        (missing, ValueError, "Expected `inputs` to be finite, but got NaN or Inf for 1 of 2 examples, the first for "),
    ]:
        assert_refused(method, error, message, inputs=inputs)


@each(OURS, lambda method: method.entry != "attribute_targets")
def test_targets_of_no_form_raise(method: Method) -> None:
    start = "Expected `target` to "
    for target, error, message in [
        ([1, (2,)], ValueError, start + "hold class indices of the same form, but got [1, (2,)]."),
        ([(1,), (2, 0)], ValueError, start + "hold class indices of the same form, but got [(1,), (2, 0)]."),
        (
            torch.tensor([], dtype=torch.int64),
            ValueError,
            start + "hold class indices, but got a tensor of shape (0,).",
        ),
        (10**30, ValueError, start + "hold class indices of 64 bits, but got 1000000000000000000000000000000."),
        (torch.tensor([1, 2], device="meta"), TypeError, start + "be a dense tensor with values, but got a meta"),
    ]:
        net = Net()
        with pytest.raises(error, match=re.escape(message)):
            method.explain(net, net.relu, images(), target)
        assert net.forwards == 0


@each(OURS, lambda method: method.takes("perturbations_per_eval"))
def test_a_number_of_rows_may_be_numpys(method: Method) -> None:
    net, x = Net(), images()
    expected = method.explain(net, net.relu, x, 2, perturbations_per_eval=100)
    method.assert_close(method.explain(net, net.relu, x, 2, perturbations_per_eval=np.int8(100)), expected, 0)


@pytest.mark.parametrize("attribution", [ScoreCAM, LayerGradCamPlusPlus])
@pytest.mark.parametrize("device_ids", ["cuda", 0, ["cuda:0"], {0}], ids=str)
def test_device_ids_of_another_type_raise(attribution: Any, device_ids: Any) -> None:
    net = Net()
    message = f"Expected `device_ids` to be a list of ints or None, but got {device_ids!r}."
    with pytest.raises(TypeError, match=re.escape(message)):
        attribution(net, net.relu, device_ids)
    for right in (None, [0], (0, 1)):
        assert attribution(net, net.relu, right).device_ids is right


@pytest.mark.parametrize(
    ("attribution", "name"),
    [(RISE, "n_masks"), (RISE, "grid_size")]
    + [(MeaningfulPerturbation, name) for name in ("n_iterations", "grid_size", "jitter")],
)
def test_whole_numbers_may_be_numpys_but_not_huge(attribution: Any, name: str) -> None:
    assert type(getattr(attribution(Net(), **{name: np.int64(3)}), name)) is int
    with pytest.raises(ValueError, match=f"Expected `{name}` to be at most 2147483647, but got 1000"):
        attribution(Net(), **{name: 10**30})
