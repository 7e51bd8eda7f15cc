"""The twins of one small model: what they return, for which arguments, and maps through them."""

from __future__ import annotations

import gc
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_scorecam import RISE, ScoreCAM
from captum_scorecam.engines.export import ExportedModel
from captum_scorecam.engines.openvino import CompiledModel
from tests.engines.conftest import arguments_of, inputs_of
from tests.support.score_cam import naive_score_cam
from tests.support.small_net import assert_close, nothing_changes
from tests.support.threads import in_threads


def outputs(model: nn.Module, batch: int, seed: int = 1) -> Tensor:
    with torch.no_grad():
        output: Tensor = model(*inputs_of(batch, seed), *arguments_of(batch))
    return output


@pytest.mark.parametrize("batch", [1, 2, 3, 9])
def test_output_is_the_models_for_any_number_of_rows(model: nn.Module, twin: nn.Module, batch: int) -> None:
    assert_close(outputs(twin, batch), outputs(model, batch), 1e-5)
    assert outputs(twin, batch).dtype == torch.float32


@pytest.mark.parametrize("layout", ["channels_last", "slice", "requires_grad"])
def test_inputs_in_any_layout(model: nn.Module, twin: nn.Module, layout: str) -> None:
    x, y = inputs_of(4)
    if layout == "channels_last":
        x = x.to(memory_format=torch.channels_last)
    elif layout == "slice":
        x, y = (torch.cat([each, each], 1)[:, :3] for each in (x, y))
    else:
        x = x.requires_grad_()
    expected = outputs(model, 4)
    actual = twin(x, y, *arguments_of(4))
    assert_close(actual, expected, 1e-5)
    assert not actual.requires_grad


def test_outputs_are_not_overwritten_by_later_calls(model: nn.Module, twin: nn.Module) -> None:
    kept = [outputs(twin, 3, seed) for seed in (1, 2, 3)]
    gc.collect()
    for seed, output in zip((1, 2, 3), kept, strict=True):
        assert_close(output, outputs(model, 3, seed), 1e-5)
    output = outputs(twin, 3)
    output.zero_()
    assert_close(outputs(twin, 3), outputs(model, 3), 1e-5)


def test_the_default_device_does_not_matter(model: nn.Module, twin: nn.Module) -> None:
    arguments = (*inputs_of(2), *arguments_of(2))
    with torch.no_grad(), torch.device("meta"):
        actual = twin(*arguments)
    assert_close(actual, outputs(model, 2), 1e-5)


def test_inputs_stay_as_they_are(twin: nn.Module) -> None:
    x, y = inputs_of(2)
    before = x.clone(), y.clone()
    twin(x, y, *arguments_of(2))
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


def test_threads_share_a_twin(model: nn.Module, twin: nn.Module) -> None:
    calls = [lambda n=n: [outputs(twin, n, n) for _ in range(20)] for n in (1, 2, 3, 4)]
    for n, found in zip((1, 2, 3, 4), in_threads(*calls), strict=True):
        for output in found:
            assert_close(output, outputs(model, n, n), 1e-5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {0: torch.rand(2, 3, 12, 11)},
            "exported, with a tensor of torch.float32 of shape (N, 3, 12, 10) on cpu as argument 0,",
        ),
        ({0: torch.rand(2, 3, 12, 10).double()}, "but got torch.float64 of shape (N, 3, 12, 10) on cpu."),
        ({1: torch.rand(2, 3, 12, 7, device="meta")}, "but got torch.float32 of shape (N, 3, 12, 7) on meta."),
        ({1: None}, "on cpu as argument 1, but got NoneType."),
        ({2: torch.rand(2)}, "torch.int64 of shape (N) on cpu as argument 2, but got torch.float32 of"),
        ({2: torch.arange(3)}, "arguments with the same number of rows, but got [2, 3]."),
        ({3: torch.rand(5, 3)}, "torch.float32 of shape (5, 4) on cpu as argument 3, but got"),
        ({4: 0.25}, "as exported, with 0.5 as argument 4, but got 0.25."),
        ({4: torch.tensor(0.5)}, "as exported, with 0.5 as argument 4, but got tensor(0.5000)."),
        ({5: 1}, "as exported, 5 arguments, but got 6."),
    ],
)
def test_other_arguments_are_refused(twin: nn.Module, changed: dict[int, Any], message: str) -> None:
    arguments = dict(enumerate((*inputs_of(2), *arguments_of(2)))) | changed
    with pytest.raises(ValueError, match=re.escape(message)):
        twin(*arguments.values())


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    "options",
    [{}, {"channel_weighting": "increase"}, {"score": "probability", "channel_weighting": "score"}],
    ids=str,
)
def test_map_through_a_twin(model: nn.Module, twin: nn.Module, batch: int, options: dict[str, Any]) -> None:
    inputs, arguments, layer = inputs_of(batch), arguments_of(batch), model.get_submodule("net.relu")
    expected = naive_score_cam(model, layer, inputs, 2, arguments, **options)
    with nothing_changes(model, *inputs):
        actual = ScoreCAM(model, layer, masked_forward_func=twin, **options).attribute(inputs, 2, arguments)
    assert_close(actual, expected, 1e-5)


def test_rise_through_a_twin(model: nn.Module, twin: nn.Module) -> None:
    inputs, arguments = inputs_of(2), arguments_of(2)
    maps = [
        RISE(model, n_masks=9, masked_forward_func=each).attribute(
            inputs, 2, arguments, generator=torch.Generator().manual_seed(0)
        )
        for each in (None, twin)
    ]
    for expected, actual in zip(*maps, strict=True):
        assert_close(actual, expected, 1e-5)


def test_a_twin_of_old_weights_makes_no_map(model: nn.Module, twin: nn.Module) -> None:
    inputs, arguments, layer = inputs_of(1), arguments_of(1), model.get_submodule("net.relu")
    score_cam = ScoreCAM(model, layer, masked_forward_func=twin)
    score_cam.attribute(inputs, 2, arguments)
    with torch.no_grad():
        model.get_parameter("net.fc.bias")[3] += 0.125
    try:
        with pytest.raises(ValueError, match=r"for the unmasked inputs they differ by 0\.125, of which"):
            score_cam.attribute(inputs, 2, arguments)
    finally:
        with torch.no_grad():
            model.get_parameter("net.fc.bias")[3] -= 0.125


def test_a_twin_uses_pytorchs_number_of_threads(twin: nn.Module) -> None:
    count = (
        twin._model.get_property("INFERENCE_NUM_THREADS")  # type: ignore[operator, union-attr]
        if hasattr(twin, "_model")
        else twin._session.get_session_options().intra_op_num_threads  # type: ignore[operator, union-attr]
    )
    assert count == torch.get_num_threads()


def test_openvino_does_not_reduce_precision(exported: ExportedModel) -> None:
    """Where the CPU computes in bfloat16, OpenVINO would, with an error of a percent."""
    hint = CompiledModel(exported)._model.get_property("INFERENCE_PRECISION_HINT")
    assert hint.to_string() == "f32"
