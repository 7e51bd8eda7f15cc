"""ScoreCAM's guarantees beyond the common contract: code compiles once, memory is that of one chunk."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from captum_scorecam import ScoreCAM
from captum_scorecam.scoring import chunk_size
from tests.support.score_cam import naive_score_cam, run_score_cam
from tests.support.small_net import Net, assert_close, images, nothing_changes

# --- Forwards --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
def test_one_forward_for_each_map_and_one_before(training: bool) -> None:
    net, x = Net(dropout=0.5).train(training), images(1)
    with pytest.warns(UserWarning, match="training mode") if training else nullcontext():
        run_score_cam(net, net.relu, x, 2, perturbations_per_eval=1)
    assert net.forwards == 7


# --- Precision -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-9), (torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)],
)
@pytest.mark.parametrize("score", ["output", "probability"])
def test_equal_weights_would_show_in_every_precision(dtype: torch.dtype, tolerance: float, score: str) -> None:
    net, x = Net(gain=8).to(dtype), images(dtype=dtype)
    options: dict[str, Any] = {"score": score, "channel_weighting": "softmax" if score == "output" else "score"}
    expected = naive_score_cam(net, net.relu, x, 2, **options)
    assert_close(run_score_cam(net, net.relu, x, 2, **options), expected, tolerance)
    flat = naive_score_cam(net, net.relu, x, 2, score=lambda out: 0 * out)
    difference = (flat / flat.max() - expected / expected.max()).abs().max()
    assert float(difference) > 3 * tolerance


def test_float16_maps_whose_range_is_beyond_float16() -> None:
    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            z: Tensor = self.maps(F.avg_pool2d(x, 2) * 40000)
            return z.flatten(2).amax(dim=2) / 40000

    net = Large()
    x = (2 * torch.rand(2, 4, 8, 8, generator=torch.Generator().manual_seed(5)) - 1).half()
    x[:, :, :2, :2], x[:, :, 6:, 6:] = 1, -1  # from -40000 to 40000; float16 ends at 65504
    expected = naive_score_cam(net, net.maps, x, 1)
    assert_close(ScoreCAM(net, net.maps).attribute(x, 1), expected, 1e-2)


# --- torch.compile ---------------------------------------------------------------------------------------------------


class CountingBackend:
    """Compiles with one of torch's debugging backends and counts the compilations."""

    def __init__(self, name: str = "eager") -> None:
        self.compile = torch._dynamo.lookup_backend(name)
        self.compilations = 0

    def __call__(self, graph: Any, example_inputs: Any) -> Any:
        self.compilations += 1
        return self.compile(graph, example_inputs)


class Compilable(Net):
    def forward(self, x: Tensor) -> Tensor:  # without the counter, which dynamo would guard on
        scores: Tensor = self.fc(F.adaptive_avg_pool2d(self.relu(self.norm(self.conv(x))), 2).flatten(1))
        return scores


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("form", ["module", "module, compiled layer", "in place", "function"])
def test_compiled_forward_func(form: str, backend: str) -> None:
    net, x, count = Compilable(), images(), CountingBackend(backend)
    expected = naive_score_cam(net, net.relu, x, 2)
    forward: Any = torch.compile(net, backend=count)
    layer = forward.relu if form == "module, compiled layer" else net.relu
    if form == "in place":
        net.compile(backend=count)
        forward = net
    elif form == "function":

        @torch.compile(backend=count)
        def forward(x: Tensor) -> Any:
            return net(x)

    with nothing_changes(net, x):
        actual = ScoreCAM(forward, layer).attribute(x, 2, perturbations_per_eval=2)
    assert_close(actual, expected)
    assert count.compilations >= 1  # the masked forwards did go through the compiled function


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("channel_weighting", ["softmax", "increase"])
def test_chunks_of_one_shape_compile_once(channel_weighting: Any) -> None:
    net, count = Compilable(channels=7), CountingBackend()
    compiled = torch.compile(net, backend=count)
    attribution = ScoreCAM(compiled, net.relu, channel_weighting=channel_weighting)
    call: dict[str, Any] = {"relu_attributions": False, "perturbations_per_eval": 3}
    for seed in (1, 2, 3):  # 14 rows in chunks of 6: the last has 2 to spare
        x = images(seed=seed)
        expected = naive_score_cam(net, net.relu, x, 2, channel_weighting=channel_weighting, relu_attributions=False)
        assert_close(attribution.attribute(x, 2, **call), expected)
    run_score_cam(compiled, net.relu, images(seed=4), 2, channel_weighting=channel_weighting, max_channels=2, **call)
    assert count.compilations == 1  # the last call had 4 rows of 6


@pytest.mark.usefixtures("fresh_compiler")
def test_chosen_chunk_size_does_not_compile_again_in_later_calls() -> None:
    net, count = Compilable(channels=7), CountingBackend()
    attribution = ScoreCAM(torch.compile(net, backend=count), net.relu)
    x = images()
    assert_close(attribution.attribute(x, 2), naive_score_cam(net, net.relu, x, 2))
    first = count.compilations
    for seed in (2, 3):
        attribution.attribute(images(seed=seed), 2)
    assert count.compilations == first


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize(("dynamic", "compilations"), [(None, 2), (False, 3)])
def test_each_size_that_tuning_tries_is_compiled_at_most_once(
    dynamic: bool | None, compilations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = iter(range(0, 10**7, 10))
    monkeypatch.setattr(chunk_size, "perf_counter", lambda: next(readings))  # the larger, the more rows per second
    net, count = Compilable(channels=300), CountingBackend()
    attribution = ScoreCAM(torch.compile(net, backend=count, dynamic=dynamic), net.relu)
    attribution.attribute(images(seed=5), 2)
    assert attribution.last_run is not None
    assert attribution.last_run.rows_per_forward == 32
    assert count.compilations == compilations  # by default, PyTorch's second one is for any number of rows
    for seed, max_channels in ((1, None), (2, 3), (3, 7), (4, 13)):  # the last ones fill a smaller size
        attribution.max_channels = max_channels
        actual, x = attribution.attribute(images(seed=seed), 2, relu_attributions=False), images(seed=seed)
        assert_close(actual, run_score_cam(net, net.relu, x, 2, max_channels=max_channels, relu_attributions=False))
    assert count.compilations == compilations


# --- Memory and synchronisation --------------------------------------------------------------------------------------


class Watcher(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the largest tensor returned by any operation, and counts host synchronisations."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.largest, self.host_reads = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(out):
            if isinstance(tensor, Tensor) and 0 not in tensor.stride():
                self.largest = max(self.largest, tensor.numel())
        self.host_reads += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)
        return out


class Wide(nn.Module):
    """Many cheap channels: the maps of all of them at the input's size would be by far the largest tensor."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.maps = nn.Conv2d(3, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.maps(F.adaptive_avg_pool2d(x, 4))
        return maps.mean(dim=(2, 3))


def test_masks_and_masked_inputs_exist_one_chunk_at_a_time() -> None:
    net, x = Wide(256), torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(6))
    with Watcher() as watcher:
        ScoreCAM(net, net.maps).attribute(x, 2, perturbations_per_eval=4)
    chunk, chunks_own_maps, all_masks = 4 * 3 * 64 * 64, 4 * 256 * 16, 256 * 64 * 64
    assert chunks_own_maps < chunk < all_masks / 20
    assert watcher.largest == chunk  # the masked inputs of one chunk are the largest tensor there is


@pytest.mark.parametrize(
    "options", [{}, {"channel_weighting": "increase"}, {"score": "probability", "channel_weighting": "score"}]
)
def test_host_does_not_wait_for_each_chunk(options: dict[str, Any]) -> None:
    net, x = Wide(48), torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(6))
    reads = []
    for perturbations_per_eval in (48, 12, 1):
        with Watcher() as watcher:
            run_score_cam(net, net.maps, x, 2, perturbations_per_eval=perturbations_per_eval, **options)
        reads.append(watcher.host_reads)
    assert reads[0] == reads[1] == reads[2]
