"""What ScoreCAM promises about everything but the map: it leaves no trace, and it works wherever the model works."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from captum_scorecam import InputSpaceAttribution, ScoreCAM
from tests.naive_reference import naive_score_cam
from tests.support.small_net import Net, assert_close, images, nothing_changes

# --- No trace --------------------------------------------------------------------------------------------------------


def explain_increase(net: nn.Module, layer: nn.Module, x: Tensor) -> Tensor:
    return ScoreCAM(net, layer).attribute(
        x, [2, 4], channel_weighting="increase", baselines=0.5, max_channels=4, perturbations_per_eval=1
    )


METHODS: dict[str, Callable[[nn.Module, nn.Module, Tensor], Any]] = {
    "attribute": lambda net, layer, x: ScoreCAM(net, layer).attribute(x, 2, perturbations_per_eval=1),
    "increase": explain_increase,
    "layer input": lambda net, layer, x: ScoreCAM(net, layer).attribute(
        x, 2, attribute_to_layer_input=True, perturbations_per_eval=1
    ),
    "attribute_targets": lambda net, layer, x: ScoreCAM(net, layer).attribute_targets(
        x, [2, [4, 5]], perturbations_per_eval=1
    ),
    "input space": lambda net, layer, x: InputSpaceAttribution(ScoreCAM(net, layer)).attribute(
        x, target=2, perturbations_per_eval=1
    ),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("grad_mode", [True, False])
def test_nothing_of_the_users_is_changed(method: str, grad_mode: bool) -> None:
    net, x = Net(), images().requires_grad_()
    net.conv.bias.requires_grad_(False)
    seen: list[int] = []
    net.relu.register_forward_hook(lambda _module, _taken, given: seen.append(len(given)))
    net.relu.register_forward_pre_hook(lambda _module, taken: seen.append(len(taken[0])))
    with torch.set_grad_enabled(grad_mode), nothing_changes(net, x):
        METHODS[method](net, net.relu, x)
    assert len(seen) == 2 * net.forwards
    assert seen[:2] == [2, 2]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("fails_at", [1, 2, 3, 5])
def test_nothing_of_the_users_is_changed_when_the_nth_forward_raises(method: str, fails_at: int) -> None:
    net, x = Net(), images().requires_grad_()
    net.fails_at = fails_at
    with nothing_changes(net, x), pytest.raises(RuntimeError, match="no more"):
        METHODS[method](net, net.relu, x)
    assert net.forwards == fails_at
    assert_close(ScoreCAM(net, net.relu).attribute(x, 2), naive_score_cam(net, net.relu, x, 2))


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError])
def test_nothing_is_changed_when_the_users_callables_raise(failure: type[BaseException]) -> None:
    def fail(_: Tensor) -> Tensor:
        raise failure("stopped")

    net, x = Net(), images()
    for options in ({"score": fail}, {"activation_transform": fail}):
        with nothing_changes(net, x), pytest.raises(failure, match="stopped"):
            ScoreCAM(net, net.relu).attribute(x, 2, **options)


@pytest.mark.parametrize("fails_at", [-1, 2, 3])
@pytest.mark.parametrize("module", ["norm", "dropout", "both"])
def test_training_mode_warns_once_and_keeps_statistics_and_random_state(module: str, fails_at: int) -> None:
    net, x = Net(dropout=0.5), images()
    net.train()
    net.norm.train(module in ("norm", "both"))
    net.dropout.train(module in ("dropout", "both"))
    net.fails_at = fails_at
    with warnings.catch_warnings(record=True) as caught, nothing_changes(net, x):
        warnings.simplefilter("always")
        with pytest.raises(RuntimeError, match="no more") if fails_at > 0 else nullcontext():
            ScoreCAM(net, net.relu).attribute(x[:1], 2, perturbations_per_eval=1)
    assert ["train" in str(warning.message) for warning in caught] == [True]
    assert net.forwards == (7 if fails_at < 0 else fails_at)
    net(x)  # the model itself still writes its statistics
    assert int(net.norm.num_batches_tracked) == int(module != "dropout")


def test_training_mode_without_such_modules_does_not_warn() -> None:
    net, x = Net(), images()
    net.train()
    net.norm.eval()
    net.dropout.eval()
    assert_close(ScoreCAM(net, net.relu).attribute(x, 2), naive_score_cam(net, net.relu, x, 2))


def test_model_that_draws_random_numbers_leaves_the_random_state() -> None:
    class Noisy(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 0.0 * torch.rand(len(x), 7)

    net, x = Noisy(), images()
    with nothing_changes(net, x):
        actual = ScoreCAM(net, net.relu).attribute(x, 2)
    assert_close(actual, naive_score_cam(net, net.relu, x, 2))


def test_model_that_overwrites_its_input_gets_copies() -> None:
    class Overwriting(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.sub_(0.3).mul_(2))

    class Careful(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward((x - 0.3) * 2)

    net, careful, x = Overwriting(), Careful(), images()
    with nothing_changes(net, x):
        actual = ScoreCAM(net, net.relu).attribute(x, 2, channel_weighting="increase")
    assert_close(actual, naive_score_cam(careful, careful.relu, x, 2, channel_weighting="increase"))


@pytest.mark.parametrize("inplace", ["module", "functional"])
@pytest.mark.parametrize("layer", ["conv", "norm"])
def test_in_place_operations_after_the_layer_do_not_reach_the_map(layer: str, inplace: str) -> None:
    class Functional(Net):
        def forward(self, x: Tensor) -> Tensor:
            z = self.norm(self.conv(x).mul_(-1.5))
            return self.fc(F.adaptive_avg_pool2d(F.relu_(z).add_(1), 2).flatten(1))

    net, x = Net(inplace=True) if inplace == "module" else Functional(), images()
    options: dict[str, Any] = {"relu_attributions": False}
    expected = naive_score_cam(net, getattr(net, layer), x, 2, **options)
    assert float(expected.min()) < 0  # a ReLU in the map would show
    assert_close(ScoreCAM(net, getattr(net, layer)).attribute(x, 2, **options), expected)


def test_in_place_layer_is_explained_at_its_input() -> None:
    net, plain, x = Net(inplace=True), Net(), images()
    options: dict[str, Any] = {"relu_attributions": False, "attribute_to_layer_input": True}
    expected = naive_score_cam(plain, plain.relu, x, 2, **options)
    assert_close(ScoreCAM(net, net.relu).attribute(x, 2, **options), expected)


# --- One map, however it is run --------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel_weighting", ["softmax", "increase", "score"])
def test_batch_is_example_by_example(channel_weighting: str) -> None:
    net, x, baseline = Net(), images(4), images(4, seed=2)
    target = [2, 0, 6, 2]
    score_cam = ScoreCAM(net, net.relu)
    together = score_cam.attribute(x, target, baselines=baseline, channel_weighting=channel_weighting)
    alone = [
        score_cam.attribute(x[n : n + 1], target[n], baselines=baseline[n : n + 1], channel_weighting=channel_weighting)
        for n in range(4)
    ]
    assert_close(together, torch.cat(alone), 1e-10)


@pytest.mark.parametrize("perturbations_per_eval", [1, 2, 3, 5, 6, 7, 1000])
def test_any_chunk_size_gives_the_same_map(perturbations_per_eval: int) -> None:
    net, x = Net(), images(3)
    score_cam = ScoreCAM(net, net.relu)
    expected = score_cam.attribute(x, 2)
    assert_close(score_cam.attribute(x, 2, perturbations_per_eval=perturbations_per_eval), expected, 1e-10)


def test_one_instance_explains_inputs_of_many_shapes() -> None:
    net, score_cam_of = Net(), {}
    score_cam_of["relu"] = ScoreCAM(net, net.relu)
    for batch, height, width in [(1, 12, 10), (5, 8, 8), (2, 31, 9), (1, 12, 10)]:
        x = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(width), dtype=torch.float64)
        assert_close(score_cam_of["relu"].attribute(x, 2), naive_score_cam(net, net.relu, x, 2))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_model_may_view_what_its_convolution_gives(rank: int) -> None:
    """Masked inputs in channels_last must not break `view`, which works on the user's own contiguous inputs."""

    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            with torch.random.fork_rng():
                torch.manual_seed(0)
                self.conv = [nn.Conv1d, nn.Conv2d, nn.Conv3d][rank - 1](3, 4, 3)
                self.fc = nn.Linear(4 * 4**rank, 5)

        def forward(self, x: Tensor) -> Tensor:
            z = self.conv(x)
            return self.fc(z.view(len(z), -1))

    net = Viewing().double()
    x = torch.randn(2, 3, *[6] * rank, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for perturbations_per_eval in (None, 1, 3):
        actual = ScoreCAM(net, net.conv).attribute(x, 2, perturbations_per_eval=perturbations_per_eval)
        assert_close(actual, naive_score_cam(net, net.conv, x, 2))


@pytest.mark.parametrize("strides", ["channels_last", "expanded", "transposed"])
def test_inputs_of_any_strides(strides: str) -> None:
    net, x = Net(), images()
    x = {
        "channels_last": x.to(memory_format=torch.channels_last),
        "expanded": x[:1, :1].expand(2, 3, 12, 10),
        "transposed": x.transpose(2, 3),
    }[strides]
    expected = naive_score_cam(net, net.relu, x.contiguous(), 2)
    with nothing_changes(net, x):
        assert_close(ScoreCAM(net, net.relu).attribute(x, 2), expected)


def test_layer_that_runs_twice_is_explained_at_its_last_call_with_a_warning() -> None:
    class Twice(Net):
        def forward(self, x: Tensor) -> Tensor:
            z = self.relu(self.conv(x))
            z = self.relu(1 - 2 * F.avg_pool2d(self.norm(z), 2))
            return self.fc(F.adaptive_avg_pool2d(z, 2).flatten(1))

    net, x = Twice(), images()
    for at_input in (False, True):
        expected = naive_score_cam(net, net.relu, x, 2, attribute_to_layer_input=at_input)
        assert tuple(expected.shape) == (2, 1, 3, 2)
        with pytest.warns(UserWarning, match=r"(?i)ran|run|call|twice|more than once") as caught:
            actual = ScoreCAM(net, net.relu).attribute(x, 2, attribute_to_layer_input=at_input)
        assert len(caught) == 1
        assert_close(actual, expected)


# --- Grad modes, precision, wrappers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("made_inside", [False, True])
def test_every_grad_mode(context: Callable[[], AbstractContextManager[Any]], made_inside: bool) -> None:
    net, x = Net(), images()
    expected = naive_score_cam(net, net.relu, x, 2)
    with context():
        own = images() if made_inside else x
        actual = ScoreCAM(net, net.relu).attribute(own, 2)
        spread = InputSpaceAttribution(ScoreCAM(net, net.relu)).attribute(own, target=2)
    assert_close(actual, expected)
    assert not actual.requires_grad
    assert not spread.requires_grad


def test_tensor_made_in_inference_mode_is_explained_outside_of_it() -> None:
    net = Net()
    with torch.inference_mode():
        x = images()
    assert_close(ScoreCAM(net, net.relu).attribute(x, 2), naive_score_cam(net, net.relu, images(), 2))


def test_no_forward_builds_a_graph() -> None:
    class Watching(Net):
        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            graphs.append(out.requires_grad)
            return out

    graphs: list[bool] = []
    net, x = Watching(), images().requires_grad_()
    ScoreCAM(net, net.relu).attribute(x, 2, channel_weighting="increase", perturbations_per_eval=1)
    assert len(graphs) >= 7
    assert not any(graphs)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-9), (torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)],
)
@pytest.mark.parametrize("score", ["output", "probability"])
def test_models_of_every_precision(dtype: torch.dtype, tolerance: float, score: str) -> None:
    net, x = Net(gain=8).to(dtype), images(dtype=dtype)
    options: dict[str, Any] = {"score": score, "channel_weighting": "softmax" if score == "output" else "score"}
    expected = naive_score_cam(net, net.relu, x, 2, **options)
    actual = ScoreCAM(net, net.relu).attribute(x, 2, **options)
    grad_cam = LayerGradCam(net, net.relu).attribute(x, 2)
    assert (actual.dtype, actual.shape, actual.device) == (grad_cam.dtype, grad_cam.shape, grad_cam.device)
    assert_close(actual, expected, tolerance)
    flat = naive_score_cam(net, net.relu, x, 2, score=lambda out: 0 * out)
    difference = (flat / flat.max() - expected / expected.max()).abs().max()
    assert float(difference) > 3 * tolerance  # equal weights would show


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(
    ("score", "channel_weighting"), [("output", "softmax"), ("output", "increase"), ("probability", "score")]
)
def test_scores_and_weights_are_float32_where_the_model_answers_in_bfloat16(
    score: str, channel_weighting: str, autocast: bool
) -> None:
    class CoarseScores(nn.Module):
        """Float32 maps, and scores in bfloat16 that are multiples of 1/8, so exact: what is lost is lost afterwards."""

        def __init__(self) -> None:
            super().__init__()
            self.maps = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            z = self.maps(F.avg_pool2d(x, 2).float())
            return ((8 * z.flatten(2).amax(dim=2)).round() / 8).to(torch.bfloat16)

    net = CoarseScores()
    x = torch.rand(2, 9, 8, 8, generator=torch.Generator().manual_seed(4)) * torch.linspace(0.5, 4, 9).view(9, 1, 1)
    options: dict[str, Any] = {"score": score, "channel_weighting": channel_weighting}
    expected = naive_score_cam(net, net.maps, x, 3, **options)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        actual = ScoreCAM(net, net.maps).attribute(x, 3, **options)
    assert actual.dtype == torch.float32
    assert_close(actual, expected, 1e-5)


def test_autocast_in_bfloat16() -> None:
    net, x = Net(gain=4).float(), images(dtype=torch.float32)
    given: list[torch.dtype] = []
    net.register_forward_pre_hook(lambda _module, taken: given.append(taken[0].dtype))
    precise = naive_score_cam(net, net.relu, x, 2)
    given.clear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = ScoreCAM(net, net.relu).attribute(x, 2)
        assert set(given) == {torch.float32}  # masked inputs keep the input's precision
        grad_cam = LayerGradCam(net, net.relu).attribute(x, 2)
        expected = naive_score_cam(net, net.relu, x, 2)
        assert torch.is_autocast_enabled("cpu")
    assert (actual.dtype, actual.shape) == (grad_cam.dtype, grad_cam.shape)
    assert_close(actual, expected, 3e-2)
    assert_close(actual, precise, 5e-2)


@pytest.mark.parametrize("layer_dtype", [torch.bfloat16, torch.float64])
def test_layer_of_another_precision_than_the_input(layer_dtype: torch.dtype) -> None:
    class Mixed(Net):
        def forward(self, x: Tensor) -> Tensor:
            assert x.dtype == torch.float32
            z = self.relu(self.norm(self.conv(x)).to(layer_dtype)).float()
            return self.fc(F.adaptive_avg_pool2d(z, 2).flatten(1))

    net, x = Mixed(gain=4).float(), images(dtype=torch.float32)
    actual = ScoreCAM(net, net.relu).attribute(x, 2)
    assert_close(actual, naive_score_cam(net, net.relu, x, 2), 1e-2 if layer_dtype == torch.bfloat16 else 2e-5)


def test_float16_maps_whose_range_is_beyond_float16() -> None:
    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            z = self.maps(F.avg_pool2d(x, 2) * 40000)
            return z.flatten(2).amax(dim=2) / 40000

    net = Large()
    x = (2 * torch.rand(2, 4, 8, 8, generator=torch.Generator().manual_seed(5)) - 1).half()
    x[:, :, :2, :2], x[:, :, 6:, 6:] = 1, -1  # from -40000 to 40000; float16 ends at 65504
    expected = naive_score_cam(net, net.maps, x, 1)
    assert_close(ScoreCAM(net, net.maps).attribute(x, 1), expected, 1e-2)


def test_data_parallel_and_device_ids() -> None:
    net, x = Net(), images()
    expected = naive_score_cam(net, net.relu, x, 2)
    assert_close(ScoreCAM(nn.DataParallel(net), net.relu).attribute(x, 2), expected)
    assert_close(ScoreCAM(nn.DataParallel(net), net.relu, device_ids=[0]).attribute(x, 2), expected)


def test_progress_bar_is_shown_on_demand(capsys: pytest.CaptureFixture[str]) -> None:
    net, x = Net(), images()
    plain = ScoreCAM(net, net.relu).attribute(x, 2, perturbations_per_eval=2)
    assert capsys.readouterr() == ("", "")
    shown = ScoreCAM(net, net.relu).attribute(x, 2, perturbations_per_eval=2, show_progress=True)
    output = capsys.readouterr()
    assert "100%" in output.err
    assert output.out == ""
    torch.testing.assert_close(shown, plain, rtol=0, atol=0)


# --- torch.compile ---------------------------------------------------------------------------------------------------


class CountingBackend:
    """Compiles with one of torch's own debugging backends, and counts how often it is asked to."""

    def __init__(self, name: str = "eager") -> None:
        self.compile = torch._dynamo.lookup_backend(name)
        self.compilations = 0

    def __call__(self, graph: Any, example_inputs: Any) -> Any:
        self.compilations += 1
        return self.compile(graph, example_inputs)


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Compilable(Net):
    def forward(self, x: Tensor) -> Tensor:  # without the counter, which dynamo would guard on
        return self.fc(F.adaptive_avg_pool2d(self.relu(self.norm(self.conv(x))), 2).flatten(1))


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
        forward = torch.compile(lambda x: net(x), backend=count)
    with nothing_changes(net, x):
        actual = ScoreCAM(forward, layer).attribute(x, 2, perturbations_per_eval=2)
    assert_close(actual, expected)
    assert count.compilations >= 1  # the masked forwards did go through the compiled function


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("channel_weighting", ["softmax", "increase"])
def test_chunks_of_one_shape_compile_once(channel_weighting: str) -> None:
    net, count = Compilable(channels=7), CountingBackend()
    compiled = torch.compile(net, backend=count)
    score_cam = ScoreCAM(compiled, net.relu)
    options: dict[str, Any] = {"channel_weighting": channel_weighting, "relu_attributions": False}
    for seed in (1, 2, 3):  # 14 rows in chunks of 6: the last has 2 to spare
        x = images(seed=seed)
        actual = score_cam.attribute(x, 2, perturbations_per_eval=3, **options)
        assert_close(actual, naive_score_cam(net, net.relu, x, 2, **options))
    score_cam.attribute(images(seed=4), 2, perturbations_per_eval=3, max_channels=2, **options)  # 4 rows of 6
    assert count.compilations == 1


@pytest.mark.usefixtures("fresh_compiler")
def test_chosen_chunk_size_does_not_compile_again_in_later_calls() -> None:
    net, count = Compilable(channels=7), CountingBackend()
    score_cam = ScoreCAM(torch.compile(net, backend=count), net.relu)
    x = images()
    assert_close(score_cam.attribute(x, 2), naive_score_cam(net, net.relu, x, 2))
    first = count.compilations
    for seed in (2, 3):
        score_cam.attribute(images(seed=seed), 2)
    assert count.compilations == first


# --- Memory and synchronisation --------------------------------------------------------------------------------------


class Watcher(TorchDispatchMode):
    """Notes the largest tensor that any operation gives, and counts the values that the host waits for."""

    def __init__(self) -> None:
        super().__init__()
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
        return self.maps(F.adaptive_avg_pool2d(x, 4)).mean(dim=(2, 3))


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
            ScoreCAM(net, net.maps).attribute(x, 2, perturbations_per_eval=perturbations_per_eval, **options)
        reads.append(watcher.host_reads)
    assert reads[0] == reads[1] == reads[2]
