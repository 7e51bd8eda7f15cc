"""Invalid calls raise a helpful error or warning before any masked forward pass."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_scorecam import InputSpaceAttribution, ScoreCAM
from captum_scorecam.weighting import ChannelWeighting
from tests.support.score_cam import last_run, naive_score_cam, run_score_cam
from tests.support.small_net import warnings_are_errors


class Net(nn.Module):
    """A small classifier, N×3×H×W to N×10, that counts its forward passes and lets a test corrupt its activations."""

    def __init__(self, spoil_maps: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 5, 3, padding=1)
            self.unused_branch = nn.Conv2d(3, 5, 3)
            self.fc = nn.Linear(5, 10)
        self.maps, self.tokens, self.pooled = nn.Identity(), nn.Identity(), nn.Identity()
        self.spoil_maps = spoil_maps
        self.forwards = 0
        self.double()

    def forward(self, x: Tensor, spoil_scores: Callable[[Tensor, int], Tensor] | None = None) -> Tensor:
        self.forwards += 1
        z = F.relu(self.conv(F.avg_pool2d(x, 2)))
        z = self.maps(self.spoil_maps(z) if self.spoil_maps else z)
        self.tokens(z.flatten(2).transpose(1, 2))
        out = self.fc(self.pooled(z.mean(dim=(2, 3)))) * 20
        return spoil_scores(out, self.forwards) if spoil_scores else out


def images(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 8, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("wrapped", [False, True])
def test_layer_that_never_runs_is_named(wrapped: bool) -> None:
    net = Net()
    forward = (lambda x: net(x)) if wrapped else net
    message = "Expected `layer` to run in the forward pass of `forward_func`, but layer Conv2d(3, 5, kernel_size=(3, 3)"
    with pytest.raises(ValueError, match=re.escape(message)):
        ScoreCAM(forward, net.unused_branch).attribute(images(), 0)
    assert net.forwards == 1


def test_layer_of_another_model_never_runs() -> None:
    net, other = Net(), Net()
    with pytest.raises(ValueError, match=r"but layer Identity\(\) did not run"):
        ScoreCAM(net, other.maps).attribute(images(), 0)
    assert (net.forwards, other.forwards) == (1, 0)


def test_layer_output_without_spatial_dimension_shows_its_shape() -> None:
    net = Net()
    with pytest.raises(ValueError, match=r"maps of shape N×K×spatial .*, but got shape \(2, 5\)"):
        ScoreCAM(net, net.pooled).attribute(images(), 0)
    assert net.forwards == 1


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("tokens", r"maps with 2 spatial dimensions, .* got shape \(2, 20, 5\); use `activation_transform` to convert"),
        ("maps", r"maps with 1 spatial dimensions, .* got shape \(2, 5, 4, 5\); use `activation_transform` to convert"),
    ],
)
def test_different_spatial_ranks_point_to_activation_transform(layer: str, message: str) -> None:
    net = Net()
    x = images()
    forward: Any = net
    if layer == "maps":  # 2-D maps for a sequence

        def forward(x: Tensor) -> Any:
            return net(x.reshape(*x.shape[:2], 8, 10))

        x = x.flatten(2)
    with pytest.raises(ValueError, match=message):
        ScoreCAM(forward, getattr(net, layer)).attribute(x, 0)
    assert net.forwards == 1


def test_activation_transform_that_leaves_no_spatial_dimension_raises() -> None:
    net = Net()
    score_cam = ScoreCAM(net, net.maps, activation_transform=lambda z: z.mean(dim=(2, 3)))
    with pytest.raises(ValueError, match=r"maps of shape N×K×spatial .*, but got shape \(2, 5\)"):
        score_cam.attribute(images(), 0)
    assert net.forwards == 1


@pytest.mark.parametrize("method", ["attribute", "attribute_targets"])
@pytest.mark.parametrize(
    ("target", "error", "text"),
    [
        (None, AssertionError, "Target not provided when necessary, cannot explain multiple outputs"),
        (10, IndexError, "index 10 is out of bounds for dimension 1 with size 10"),
        (torch.tensor(10), IndexError, "index 10 is out of bounds for dimension 1 with size 10"),
        ([0, 10], RuntimeError, "index 10 is out of bounds for dimension 1 with size 10"),
        (torch.tensor([10, 0]), RuntimeError, "index 10 is out of bounds for dimension 1 with size 10"),
        ([(0,), (10,)], IndexError, "index 10 is out of bounds for dimension 1 with size 10"),
        ([0, 1, 2], AssertionError, "does not match with the number of targets"),
        (torch.tensor([0, 1, 2]), AssertionError, "does not match with the number of targets"),
        ("cat", TypeError, "Expected `target` to be a class index, .* but got str"),
    ],
)
def test_wrong_target_raises_before_any_masked_forward(
    target: Any, error: type[Exception], text: str, method: str
) -> None:
    net = Net()
    explain = getattr(ScoreCAM(net, net.maps), method)
    with pytest.raises(error, match=text):
        explain(images(), target if method == "attribute" else [0, target])
    assert net.forwards <= 1  # the one that reads the activations, where Captum needs an output to see what is wrong


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [(0, 0, 0, 0), (1, 4, 3, 4)])
def test_activations_that_are_not_finite_raise(value: float, place: tuple[int, ...]) -> None:
    def spoil(z: Tensor) -> Tensor:
        z = z.clone()
        z[place] = value
        return z

    net = Net(spoil)
    message = r"Expected finite activations, but got NaN or Inf in the layer's activation of shape \(2, 5, 4, 5\)"
    with pytest.raises(ValueError, match=message):
        ScoreCAM(net, net.maps).attribute(images(), 0)
    assert net.forwards == 1


@pytest.mark.parametrize(
    ("transform", "error", "message"),
    [
        (lambda z: z[:, :0], ValueError, "maps with at least one channel and cell, but got shape (2, 0, 4, 5)"),
        (lambda z: z[..., :0], ValueError, "maps with at least one channel and cell, but got shape (2, 5, 4, 0)"),
        (Tensor.to_sparse, TypeError, "dense tensors of at least 16 bits per value, but got torch.sparse_coo"),
        (
            lambda z: z.to(torch.float8_e4m3fn),
            TypeError,
            "dense tensors of at least 16 bits per value, but got torch.float8_e4m3fn",
        ),
    ],
    ids=["no channel", "no cell", "sparse", "float8"],
)
def test_activations_that_hold_no_maps_raise(transform: Any, error: type[Exception], message: str) -> None:
    net = Net()
    with pytest.raises(error, match=re.escape(f"Expected the layer to return {message}.")):
        ScoreCAM(net, net.maps, activation_transform=transform).attribute(images(), 0)
    assert net.forwards == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("channel_weighting", ["softmax", "increase", "score"])
def test_scores_that_are_not_finite_raise(value: float, channel_weighting: ChannelWeighting) -> None:
    def spoil(out: Tensor, forward: int) -> Tensor:
        return torch.where(torch.tensor(forward == 3), torch.full_like(out, value), out)

    net = Net()
    score_cam = ScoreCAM(net, net.maps, channel_weighting=channel_weighting)
    with pytest.raises(ValueError, match=r"Expected finite scores, but got NaN or Inf for \d of \d+ masked inputs"):
        score_cam.attribute(images(), 0, spoil, perturbations_per_eval=1)


def test_score_of_the_baseline_that_is_not_finite_raises() -> None:
    def log_of_brightness(x: Tensor) -> Any:
        return net(x) + x.abs().flatten(1).sum(dim=1, keepdim=True).log()

    net = Net()
    with pytest.raises(ValueError, match="Expected finite scores, but got NaN or Inf for 2 of 2 masked inputs"):
        ScoreCAM(log_of_brightness, net.maps, channel_weighting="increase").attribute(images(), 0)
    actual = ScoreCAM(log_of_brightness, net.maps).attribute(images(), 0)  # the softmax doesn't need that score
    torch.testing.assert_close(actual, naive_score_cam(log_of_brightness, net.maps, images(), 0))


def test_score_of_another_class_may_be_infinite() -> None:
    def with_a_forbidden_class(x: Tensor) -> Tensor:
        return torch.cat([net(x)[:, :9], torch.full((len(x), 1), -float("inf"), dtype=x.dtype)], dim=1)

    net = Net()
    actual = ScoreCAM(with_a_forbidden_class, net.maps).attribute(images(), 0)
    torch.testing.assert_close(actual, naive_score_cam(net, net.maps, images(), 0))


@pytest.mark.parametrize("value", [0.0, 3.0, -1e4, 0.1])
def test_all_channels_constant_returns_a_zero_map_and_warns(value: float) -> None:
    net, x = Net(lambda z: torch.full_like(z, value)), images()
    score_cam = ScoreCAM(net, net.maps)
    warning = "All channels of the layer are constant for 2 of 2 examples"
    with pytest.warns(UserWarning, match=warning):
        actual = score_cam.attribute(x, 0)
    torch.testing.assert_close(actual, torch.zeros(2, 1, 4, 5, dtype=torch.float64), rtol=0, atol=0)
    assert net.forwards == 1
    run = last_run(score_cam)
    assert (run.channels, run.constant, run.shared, run.rows) == (10, 10, 0, 0)
    with pytest.warns(UserWarning, match=warning):
        several = score_cam.attribute_targets(x, [0, 1, 2])
    torch.testing.assert_close(several, torch.zeros(2, 3, 4, 5, dtype=torch.float64), rtol=0, atol=0)
    with pytest.warns(UserWarning, match=warning):
        spread = InputSpaceAttribution(score_cam).attribute(x, target=0)
    torch.testing.assert_close(spread, torch.zeros_like(x), rtol=0, atol=0)


def test_one_example_of_constant_channels_returns_a_zero_map_and_warns() -> None:
    def only_the_first(z: Tensor) -> Tensor:
        z = z.clone()
        z[1:] = 0
        return z

    net, x = Net(only_the_first), images()
    expected = naive_score_cam(net, net.maps, x[:1], 0)
    with pytest.warns(UserWarning, match="All channels of the layer are constant for 1 of 2 examples"):
        actual = ScoreCAM(net, net.maps).attribute(x, 0)
    assert actual.shape == (2, 1, 4, 5)
    assert float(actual[1].abs().max()) == 0.0 < float(expected.max())


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    ("reduce", "target", "shape"),
    [
        (lambda out: out.mean(dim=0, keepdim=True), 0, "(1, 10)"),
        (lambda out: out.sum(), None, "()"),
        (lambda out: out.sum().view(1), None, "(1,)"),
        (lambda out: out.mean(dim=0), None, "(10,)"),
    ],
    ids=["mean over the batch", "scalar", "vector of one", "one value per class"],
)
def test_output_without_one_row_per_input_row_raises(
    reduce: Callable[[Tensor], Tensor], target: int | None, shape: str, batch: int
) -> None:
    net = Net()
    message = f"Expected an output with one row per input row, but got shape {shape} for"
    with pytest.raises(ValueError, match=re.escape(message)):
        ScoreCAM(lambda x: reduce(net(x)), net.maps).attribute(images(batch), target)
    assert net.forwards <= 2


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
@pytest.mark.parametrize("place", [0, 1])
def test_integer_inputs_point_to_additional_forward_args(dtype: torch.dtype, place: int) -> None:
    net = Net()

    def embed(x: Tensor, ids: Tensor) -> Any:
        return net(x.double() + ids.double())

    inputs = [images(), images()]
    inputs[place] = (10 * inputs[place]).to(dtype)
    message = rf"Expected floating-point inputs, but got {dtype}\. .*`additional_forward_args`"
    with pytest.raises(TypeError, match=message):
        ScoreCAM(embed, net.maps).attribute(tuple(inputs), 0)
    with pytest.raises(TypeError, match=message):
        ScoreCAM(lambda x: net(x.double()), net.maps).attribute(inputs[place], 0)
    assert net.forwards == 0


def test_grad_kwargs_warn_and_change_nothing() -> None:
    net, x = Net(), images()
    plain = ScoreCAM(net, net.maps).attribute(x, 0)
    with pytest.warns(UserWarning, match="Score-CAM uses no gradients; `grad_kwargs` is ignored"):
        actual = ScoreCAM(net, net.maps).attribute(x, 0, grad_kwargs={"materialize_grads": True})
    torch.testing.assert_close(actual, plain, rtol=0, atol=0)


def test_softmax_of_probabilities_warns_in_the_constructor_and_returns_a_map() -> None:
    net, x = Net(), images()
    options: dict[str, Any] = {"score": "probability", "channel_weighting": "softmax"}
    with pytest.warns(UserWarning, match="The softmax of probabilities hardly varies over the channels"):
        score_cam = ScoreCAM(net, net.maps, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        actual = score_cam.attribute(x, 0)
    torch.testing.assert_close(actual, naive_score_cam(net, net.maps, x, 0, **options))


def test_softmax_of_a_model_that_ends_in_a_softmax_warns_and_returns_a_map() -> None:
    net, x = Net(), images()
    ends_in_softmax = nn.Sequential(net, nn.Softmax(1))
    with pytest.warns(UserWarning, match="The scores of the masked inputs differ by less than 1, so their softmax"):
        actual = ScoreCAM(ends_in_softmax, net.maps).attribute(x, 0)
    torch.testing.assert_close(actual, naive_score_cam(ends_in_softmax, net.maps, x, 0))


@pytest.mark.parametrize("channel_weighting", ["increase", "score"])
def test_other_weightings_of_a_model_that_ends_in_a_softmax_do_not_warn(
    channel_weighting: ChannelWeighting,
) -> None:
    net = Net()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score_cam = ScoreCAM(nn.Sequential(net, nn.Softmax(1)), net.maps, channel_weighting=channel_weighting)
        score_cam.attribute(images(), 0)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"score": "probability", "channel_weighting": "score"},
        {"score": "probability", "channel_weighting": "increase"},
        {"score": torch.sigmoid},
        {"grad_kwargs": None},
    ],
)
def test_valid_call_does_not_warn(options: dict[str, Any]) -> None:
    net = Net()
    with warnings_are_errors():
        actual = run_score_cam(net, net.maps, images(), 0, **options)
    reference = {name: value for name, value in options.items() if name != "grad_kwargs"}
    torch.testing.assert_close(actual, naive_score_cam(net, net.maps, images(), 0, **reference))


# --- Memory ----------------------------------------------------------------------------------------------------------


class SmallMemory:
    """A forward function that runs out of memory above `rows` rows and records the sizes of its calls."""

    def __init__(self, net: Net, rows: int) -> None:
        self.net, self.rows, self.sizes = net, rows, list[int]()

    def __call__(self, x: Tensor) -> Any:
        self.sizes.append(len(x))
        if len(x) > self.rows:
            raise torch.OutOfMemoryError(f"CUDA out of memory: {len(x)} rows")
        return self.net(x)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_chunks_are_halved_until_the_memory_suffices(rows: int) -> None:
    net, x = Net(), images(1)
    forward = SmallMemory(net, rows)
    score_cam = ScoreCAM(forward, net.maps)
    actual = score_cam.attribute(x, 0, perturbations_per_eval=5)
    torch.testing.assert_close(actual, naive_score_cam(net, net.maps, x, 0))
    assert forward.sizes[:2] == [1, 5]
    assert last_run(score_cam).rows_per_forward == {1: 1, 2: 2, 3: 2}[rows]
    too_large = [size for size in forward.sizes if size > rows]
    assert too_large == {1: [5, 2], 2: [5], 3: [5]}[rows]  # each size fails once: what has failed isn't tried again
    assert sum(size for size in forward.sizes[1:] if size <= rows) == 5


def test_out_of_memory_with_one_row_is_raised_with_what_was_tried() -> None:
    net, x = Net(), images(1)

    def forward(x: Tensor) -> Any:
        sizes.append(len(x))
        if len(sizes) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return net(x)

    sizes: list[int] = []
    with pytest.raises(
        torch.OutOfMemoryError,
        match="with a single masked input per forward pass, after halving the chunk size from 4 rows",
    ):
        ScoreCAM(forward, net.maps).attribute(x, 0, perturbations_per_eval=4)
    assert sizes == [1, 4, 2, 1]
