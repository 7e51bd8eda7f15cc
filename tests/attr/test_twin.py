"""Masked inputs go through `masked_forward_func`: the map stays that of the naive reference, however it is run."""

from __future__ import annotations

import copy
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from captum.attr import NoiseTunnel
from torch import Tensor, nn

from captum_scorecam import RISE, InputSpaceAttribution, ScoreCAM
from captum_scorecam.scoring.chunk_size import SIZES
from tests.attr.test_score_cam_promises import Compilable, CountingBackend
from tests.support.attributions import OURS, Method, each
from tests.support.score_cam import naive_score_cam
from tests.support.small_net import Net, assert_close, images, nothing_changes, warnings_are_errors
from tests.support.threads import in_threads
from tests.support.two_ranks import results_of_ranks

TAKES_TWIN = {name: method for name, method in OURS.items() if "masked_forward_func" in method.constructor_options}


class Recorder:
    """A function of a model that keeps the arguments of each call."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.seen: list[tuple[Any, ...]] = []

    def __call__(self, *args: Any) -> Any:
        self.seen.append(args)
        return self.model(*args)

    @property
    def rows(self) -> list[int]:
        return [len(args[0]) for args in self.seen]


@each(TAKES_TWIN)
@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("perturbations_per_eval", [None, 1, 2])
def test_map_through_a_twin_equals_the_reference(
    method: Method, batch: int, perturbations_per_eval: int | None
) -> None:
    net, x = Net(), images(batch)
    twin = copy.deepcopy(net)
    options: dict[str, Any] = {"masked_forward_func": twin, "perturbations_per_eval": perturbations_per_eval}
    with warnings_are_errors(), nothing_changes(net, x), nothing_changes(twin):
        actual = method.explain(net, net.relu, x, 2, **options)
    method.assert_close(actual, method.expected(net, net.relu, x, 2))


@pytest.mark.parametrize("weighting", ["softmax", "increase"])
def test_the_model_runs_the_inputs_and_the_twin_what_is_masked(weighting: Any) -> None:
    net, x = Net(), images(1)
    twin = Recorder(copy.deepcopy(net))
    score_cam = ScoreCAM(net, net.relu, channel_weighting=weighting, masked_forward_func=twin)
    masked = [1, 4, 2] if weighting == "increase" else [4, 2]  # baselines first
    score_cam.attribute(x, 2, perturbations_per_eval=4)
    assert net.forwards == 1 + 4  # the inputs; in the first call, four single rows to compare
    assert twin.rows == [1, 4, *masked]
    score_cam.attribute(x, 2, perturbations_per_eval=4)
    assert net.forwards == 1 + 4 + 1
    assert twin.rows == [1, 4, *masked, 1, *masked]


def test_rise_through_a_twin_runs_the_model_on_the_inputs_only() -> None:
    net, x = Net(), images(1)
    twin = Recorder(copy.deepcopy(net))
    rise = RISE(net, n_masks=9, masked_forward_func=twin)
    rise.attribute(x, 2, perturbations_per_eval=5)
    assert (net.forwards, twin.rows) == (5, [1, 4, 5, 4])


class TwoInputs(nn.Module):
    """Two inputs of different sizes, an argument for each example and one for all."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x: Tensor, y: Tensor, weights: Tensor, shift: float) -> Tensor:
        assert weights.dtype == torch.int64
        scores: Tensor = self.net(x) * weights[:, None] + y.mean((1, 2, 3))[:, None] * 9 + shift
        return scores


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_a_twin_gets_what_the_model_gets(batch: int) -> None:
    net = TwoInputs()
    x, y = images(batch), images(batch, seed=2)[..., :7]
    arguments = (torch.arange(1, batch + 1), 0.5)
    twin = Recorder(copy.deepcopy(net))
    expected = naive_score_cam(net, net.net.relu, (x, y), 2, arguments)
    actual = ScoreCAM(net, net.net.relu, masked_forward_func=twin).attribute((x, y), 2, arguments)
    assert_close(actual, expected)
    assert {len(args) for args in twin.seen} == {4}
    assert {args[3] for args in twin.seen} == {0.5}
    assert all(len(args[0]) == len(args[1]) == len(args[2]) for args in twin.seen)
    assert {(args[0].shape[1:], args[1].shape[1:]) for args in twin.seen} == {(x.shape[1:], y.shape[1:])}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_twin_gets_contiguous_inputs_of_the_users_dtype(memory_format: torch.memory_format) -> None:
    net, x = Net(channels=20).float(), images(1, torch.float32).to(memory_format=memory_format)
    twin = Recorder(copy.deepcopy(net))
    expected = naive_score_cam(net, net.relu, x, 2)
    assert_close(ScoreCAM(net, net.relu, masked_forward_func=twin).attribute(x, 2), expected, 1e-5)
    assert all(args[0].is_contiguous() and args[0].dtype == torch.float32 for args in twin.seen)


def test_a_twin_may_overwrite_its_inputs() -> None:
    net, x = Net(), images(1)
    other = copy.deepcopy(net)

    def twin(x: Tensor) -> Any:
        output = other(x)
        x.zero_()
        return output

    with nothing_changes(net, x):
        actual = ScoreCAM(net, net.relu, masked_forward_func=twin).attribute(x, 2)
    assert_close(actual, naive_score_cam(net, net.relu, x, 2))


@pytest.mark.parametrize("perturbations_per_eval", [None, 1])
def test_a_twin_may_return_the_same_memory_again(perturbations_per_eval: int | None) -> None:
    net, x = Net(), images(1)
    other, memory = copy.deepcopy(net), torch.empty(64, 7, dtype=torch.float64)

    def twin(x: Tensor) -> Tensor:
        return memory[: len(x)].copy_(other(x))

    score_cam = ScoreCAM(net, net.relu, masked_forward_func=twin)
    actual = score_cam.attribute(x, 2, perturbations_per_eval=perturbations_per_eval)
    assert_close(actual, naive_score_cam(net, net.relu, x, 2))


@pytest.mark.parametrize("batch", [1, 2])
def test_a_twin_of_a_fixed_batch_size_runs_with_one_perturbation_per_eval(batch: int) -> None:
    net, x = Net(), images(batch)
    other = copy.deepcopy(net)

    def twin(x: Tensor) -> Any:
        return other(x.reshape(batch, 3, 12, 10))

    score_cam = ScoreCAM(net, net.relu, masked_forward_func=twin)
    assert_close(score_cam.attribute(x, 2, perturbations_per_eval=1), naive_score_cam(net, net.relu, x, 2))
    message = f"to take batches of any size, but it took {batch} and failed for 4. If its batch size is fixed, pass"
    with pytest.raises(ValueError, match=message):
        score_cam.attribute(x, 2)


@pytest.mark.parametrize(("batch", "perturbations_per_eval"), [(1, 2), (1, 3), (2, 2), (5, 2)])
def test_a_twin_gets_no_more_rows_than_asked_for(batch: int, perturbations_per_eval: int) -> None:
    net, x, twin = Net(), images(batch), Recorder(Net())
    score_cam = ScoreCAM(net, net.relu, masked_forward_func=twin)
    actual = score_cam.attribute(x, 2, perturbations_per_eval=perturbations_per_eval)
    assert_close(actual, naive_score_cam(net, net.relu, x, 2))
    assert max(twin.rows) <= max(perturbations_per_eval * batch, batch)


def test_a_model_of_a_fixed_batch_size_has_a_twin_that_takes_any() -> None:
    class Fixed(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.reshape(2, 3, 12, 10))

    net, x, twin = Fixed(), images(2), Recorder(Net())
    actual = ScoreCAM(net, net.relu, masked_forward_func=twin).attribute(x, 2, perturbations_per_eval=3)
    assert_close(actual, ScoreCAM(net, net.relu).attribute(x, 2, perturbations_per_eval=1))
    assert max(twin.rows) == 6


class Pair(nn.Module):
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z.relu(), -z


def test_maps_of_a_layer_that_returns_two_tensors() -> None:
    class TwoMaps(Net):
        def __init__(self) -> None:
            super().__init__()
            self.pair = Pair()

        def forward(self, x: Tensor) -> Tensor:
            second: Tensor = self.pair(self.conv(x))[1]
            return super().forward(x) + second.mean((1, 2, 3))[:, None]

    net, x = TwoMaps(), images()
    expected = naive_score_cam(net, net.pair, x, 2)
    actual = ScoreCAM(net, net.pair, masked_forward_func=copy.deepcopy(net)).attribute(x, 2)
    for one, other in zip(actual, expected, strict=True):
        assert_close(one, other)


@pytest.mark.usefixtures("fresh_compiler")
def test_a_compiled_twin_is_compiled_once() -> None:
    net, x, count = Compilable(channels=7), images(), CountingBackend()
    score_cam = ScoreCAM(net, net.relu, masked_forward_func=torch.compile(copy.deepcopy(net), backend=count))
    for seed in (1, 2):
        x = images(seed=seed)
        expected = naive_score_cam(net, net.relu, x, 2)
        assert_close(score_cam.attribute(x, 2, perturbations_per_eval=3), expected)
    assert count.compilations == 1


def test_threads_with_one_twin_get_the_maps_of_one_thread() -> None:
    net, lock = Net(), threading.Lock()
    other = copy.deepcopy(net)

    def twin(x: Tensor) -> Any:
        with lock:
            return other(x)

    score_cam = ScoreCAM(net, net.relu, masked_forward_func=twin)
    batches = [images(n, seed=n) for n in (1, 2, 3)]
    expected = [naive_score_cam(net, net.relu, x, 2) for x in batches]
    with warnings_are_errors():
        found = in_threads(*(lambda x=x: [score_cam.attribute(x, 2) for _ in range(3)] for x in batches))
    for maps, one in zip(found, expected, strict=True):
        for each_map in maps:
            assert_close(each_map, one)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_grad_modes(mode: Any) -> None:
    net, x = Net(), images()
    expected = naive_score_cam(net, net.relu, x, 2)
    with mode():
        assert_close(ScoreCAM(net, net.relu, masked_forward_func=copy.deepcopy(net)).attribute(x, 2), expected)


def test_captums_tools_and_the_input_space() -> None:
    net, x = Net(), images()
    twin = ScoreCAM(net, net.relu, masked_forward_func=copy.deepcopy(net))
    plain = ScoreCAM(net, net.relu)
    for wrap in (InputSpaceAttribution, lambda cam: NoiseTunnel(InputSpaceAttribution(cam))):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            expected = wrap(plain).attribute(x, target=2)
            torch.manual_seed(0)
            assert_close(wrap(twin).attribute(x, target=2), expected)


def maps_of_rank(rank: int) -> Any:
    net, x = Net(), images()
    twin = Recorder(copy.deepcopy(net))
    maps = ScoreCAM(net, net.relu, masked_forward_func=twin).attribute(x, 2, process_group=dist.group.WORLD)
    wrong = Net(gain=20 + rank)  # differs on one rank
    try:
        ScoreCAM(net, net.relu, masked_forward_func=wrong).attribute(x, 2, process_group=dist.group.WORLD)
        error = "none"
    except (ValueError, RuntimeError) as failure:
        error = str(failure)
    return {"maps": maps, "rows": sum(twin.rows), "error": error}


def test_ranks_share_the_rows_of_a_twin_and_fail_together(tmp_path: Path) -> None:
    net, x = Net(), images()
    first, second = results_of_ranks(maps_of_rank, tmp_path)
    for rank in (first, second):
        assert_close(rank["maps"], naive_score_cam(net, net.relu, x, 2))
        assert rank["rows"] == 2 + 4 + 6  # of 12
    assert "Expected all 2 ranks to run their forward passes, but 1 failed." in first["error"]
    assert "for the unmasked inputs they differ by" in second["error"]


def test_a_twin_and_the_model_have_chunk_sizes_and_memory_formats_of_their_own() -> None:
    net, x = Net(channels=40), images(1)
    model, twin = Recorder(net), Recorder(copy.deepcopy(net))
    score_cam = ScoreCAM(model, net.relu)
    expected = score_cam.attribute(x, 2)
    score_cam.masked_forward_func = twin
    assert_close(score_cam.attribute(x, 2), expected)
    first = SIZES["cpu"][0]
    assert [rows for rows in model.rows if rows == first][:5] == [first] * 5
    assert twin.rows[:7] == [1, 4, *[first] * 5]  # tuned anew
    assert not any(args[0].is_contiguous() for args in model.seen if len(args[0]) > 3)
    assert all(args[0].is_contiguous() for args in twin.seen)


def test_a_twin_that_overwrites_arguments_gets_copies_though_the_model_does_not() -> None:
    net, x, shift = Net(), images(), torch.rand(2, 1, dtype=torch.float64)

    def model(x: Tensor, shift: Tensor, scale: Tensor) -> Any:
        return net(x * scale) + shift * 2

    def twin(x: Tensor, shift: Tensor, scale: Tensor) -> Any:
        output = model(x, shift, scale)
        shift.zero_()
        scale.zero_()
        return output

    arguments = (shift, torch.tensor(0.5, dtype=torch.float64))
    expected = ScoreCAM(model, net.relu).attribute(x, 2, arguments)
    actual = ScoreCAM(model, net.relu, masked_forward_func=twin).attribute(x, 2, arguments)
    torch.testing.assert_close(actual, expected)
    assert arguments[1] == 0.5
