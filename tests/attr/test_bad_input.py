"""What a wrong call gets: an error or a warning that says what is wrong, before masked forwards are spent on it."""

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
from tests.naive_reference import naive_score_cam


class Net(nn.Module):
    """A small classifier, N×3×H×W to N×10, that counts its forwards and lets a test spoil what goes through it."""

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
    with pytest.raises(ValueError, match=r"(?s)(unused_branch|Conv2d).*(never|not) (run|ran|called|reached)") as caught:
        ScoreCAM(forward, net.unused_branch).attribute(images(), 0)
    assert wrapped or "unused_branch" in str(caught.value) or "Conv2d(3, 5" in str(caught.value)
    assert net.forwards == 1


def test_layer_of_another_model_never_runs() -> None:
    net, other = Net(), Net()
    with pytest.raises(ValueError, match=r"Identity|maps"):
        ScoreCAM(net, other.maps).attribute(images(), 0)
    assert (net.forwards, other.forwards) == (1, 0)


def test_layer_output_without_spatial_dimension_shows_its_shape() -> None:
    net = Net()
    with pytest.raises(ValueError, match=re.escape("(2, 5)")) as caught:
        ScoreCAM(net, net.pooled).attribute(images(), 0)
    assert "spatial" in str(caught.value)
    assert net.forwards == 1


@pytest.mark.parametrize("layer", ["tokens", "maps"])
def test_spatial_ranks_that_differ_point_to_activation_transform(layer: str) -> None:
    net = Net()
    x = images()
    forward: Any = net
    if layer == "maps":  # 2-D maps for a sequence

        def forward(x: Tensor) -> Tensor:
            return net(x.unflatten(2, (8, 10)))

        x = x.flatten(2)
    with pytest.raises(ValueError, match="activation_transform"):
        ScoreCAM(forward, getattr(net, layer)).attribute(x, 0)
    assert net.forwards == 1


def test_activation_transform_that_leaves_no_spatial_dimension_raises() -> None:
    net = Net()
    with pytest.raises(ValueError, match="spatial"):
        ScoreCAM(net, net.maps).attribute(images(), 0, activation_transform=lambda z: z.mean(dim=(2, 3)))
    assert net.forwards == 1


@pytest.mark.parametrize("method", ["attribute", "attribute_targets"])
@pytest.mark.parametrize(
    ("target", "error", "text"),
    [
        (None, AssertionError, "Target not provided"),
        (10, (IndexError, RuntimeError), "out of (range|bounds)"),
        (torch.tensor(10), (IndexError, RuntimeError), "out of (range|bounds)"),
        ([0, 10], (IndexError, RuntimeError), "out of (range|bounds)"),
        (torch.tensor([10, 0]), (IndexError, RuntimeError), "out of (range|bounds)"),
        ([(0,), (10,)], (IndexError, RuntimeError), "out of (range|bounds)"),
        ([0, 1, 2], AssertionError, "number of targets"),
        (torch.tensor([0, 1, 2]), AssertionError, "number of targets"),
        ("cat", AssertionError, "not valid"),
    ],
)
def test_wrong_target_gets_captums_error_before_any_masked_forward(
    target: Any, error: Any, text: str, method: str
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
    with pytest.raises(ValueError, match=r"(?i)(nan|inf|finite)(?s:.*)activation|activation(?s:.*)(nan|inf|finite)"):
        ScoreCAM(net, net.maps).attribute(images(), 0)
    assert net.forwards == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("channel_weighting", ["softmax", "increase", "score"])
def test_scores_that_are_not_finite_raise(value: float, channel_weighting: str) -> None:
    def spoil(out: Tensor, forward: int) -> Tensor:
        return torch.where(torch.tensor(forward == 3), torch.full_like(out, value), out)

    net = Net()
    with pytest.raises(ValueError, match=r"(?i)(nan|inf|finite)(?s:.*)score|score(?s:.*)(nan|inf|finite)"):
        ScoreCAM(net, net.maps).attribute(
            images(), 0, spoil, channel_weighting=channel_weighting, perturbations_per_eval=1
        )


def test_score_of_the_baseline_that_is_not_finite_raises() -> None:
    def log_of_brightness(x: Tensor) -> Tensor:
        return net(x) + x.abs().flatten(1).sum(dim=1, keepdim=True).log()

    net = Net()
    with pytest.raises(ValueError, match=r"(?i)(nan|inf|finite)(?s:.*)score|score(?s:.*)(nan|inf|finite)"):
        ScoreCAM(log_of_brightness, net.maps).attribute(images(), 0, channel_weighting="increase")
    actual = ScoreCAM(log_of_brightness, net.maps).attribute(images(), 0)  # the softmax doesn't need that score
    torch.testing.assert_close(actual, naive_score_cam(log_of_brightness, net.maps, images(), 0))


def test_class_that_nobody_asked_for_may_be_infinite() -> None:
    def with_a_forbidden_class(x: Tensor) -> Tensor:
        return torch.cat([net(x)[:, :9], torch.full((len(x), 1), -float("inf"), dtype=x.dtype)], dim=1)

    net = Net()
    actual = ScoreCAM(with_a_forbidden_class, net.maps).attribute(images(), 0)
    torch.testing.assert_close(actual, naive_score_cam(net, net.maps, images(), 0))


@pytest.mark.parametrize("value", [0.0, 3.0, -1e4, 0.1])
def test_all_channels_constant_gives_a_zero_map_and_a_warning(value: float) -> None:
    net, x = Net(lambda z: torch.full_like(z, value)), images()
    score_cam = ScoreCAM(net, net.maps)
    with pytest.warns(UserWarning, match="constant"):
        actual = score_cam.attribute(x, 0)
    torch.testing.assert_close(actual, torch.zeros(2, 1, 4, 5, dtype=torch.float64), rtol=0, atol=0)
    assert net.forwards == 1
    run = score_cam.last_run
    assert (run.channels, run.constant, run.shared, run.rows) == (10, 10, 0, 0)
    with pytest.warns(UserWarning, match="constant"):
        several = score_cam.attribute_targets(x, [0, 1, 2])
    torch.testing.assert_close(several, torch.zeros(2, 3, 4, 5, dtype=torch.float64), rtol=0, atol=0)
    with pytest.warns(UserWarning, match="constant"):
        spread = InputSpaceAttribution(score_cam).attribute(x, target=0)
    torch.testing.assert_close(spread, torch.zeros_like(x), rtol=0, atol=0)


def test_one_example_of_constant_channels_gets_a_zero_map_and_a_warning() -> None:
    def only_the_first(z: Tensor) -> Tensor:
        z = z.clone()
        z[1:] = 0
        return z

    net, x = Net(only_the_first), images()
    expected = naive_score_cam(net, net.maps, x[:1], 0)
    with pytest.warns(UserWarning, match="constant"):
        actual = ScoreCAM(net, net.maps).attribute(x, 0)
    assert actual.shape == (2, 1, 4, 5)
    assert float(actual[1].abs().max()) == 0.0 < float(expected.max())


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    ("reduce", "target"),
    [
        (lambda out: out.mean(dim=0, keepdim=True), 0),
        (lambda out: out.sum(), None),
        (lambda out: out.sum().view(1), None),
        (lambda out: out.mean(dim=0), None),
    ],
    ids=["mean over the batch", "scalar", "vector of one", "one value per class"],
)
def test_output_that_does_not_grow_with_the_input_raises(
    reduce: Callable[[Tensor], Tensor], target: int | None, batch: int
) -> None:
    net = Net()
    with pytest.raises(ValueError, match=r"(?i)rows?|grow|perturbations_per_eval|batch|examples?"):
        ScoreCAM(lambda x: reduce(net(x)), net.maps).attribute(images(batch), target)
    assert net.forwards <= 2


OPTIONS: list[tuple[str, Any]] = [
    ("perturbations_per_eval", 0),
    ("perturbations_per_eval", -3),
    ("max_channels", 0),
    ("max_channels", -1),
    ("score", "logit"),
    ("channel_weighting", "sigmoid"),
]


@pytest.mark.parametrize("method", ["attribute", "attribute_targets"])
@pytest.mark.parametrize(("option", "value"), OPTIONS)
def test_unknown_option_says_what_was_expected_and_got(option: str, value: Any, method: str) -> None:
    net = Net()
    explain = getattr(ScoreCAM(net, net.maps), method)
    with pytest.raises(ValueError, match=rf"Expected `{option}`.*, but got {value!r}\."):
        explain(images(), 0 if method == "attribute" else [0, 1], **{option: value})
    assert net.forwards == 0


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("perturbations_per_eval", 1.5),
        ("perturbations_per_eval", "many"),
        ("max_channels", 2.5),
        ("score", 3),
        ("channel_weighting", 3),
        ("activation_transform", 3),
    ],
)
def test_option_of_the_wrong_type_is_named(option: str, value: Any) -> None:
    net = Net()
    with pytest.raises((TypeError, ValueError), match=rf"`{option}`"):
        ScoreCAM(net, net.maps).attribute(images(), 0, **{option: value})
    assert net.forwards == 0


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
@pytest.mark.parametrize("place", [0, 1])
def test_integer_inputs_point_to_additional_forward_args(dtype: torch.dtype, place: int) -> None:
    net = Net()

    def embed(x: Tensor, ids: Tensor) -> Tensor:
        return net(x.double() + ids.double())

    inputs = [images(), images()]
    inputs[place] = (10 * inputs[place]).to(dtype)
    with pytest.raises(TypeError, match="additional_forward_args"):
        ScoreCAM(embed, net.maps).attribute(tuple(inputs), 0)
    with pytest.raises(TypeError, match="additional_forward_args"):
        ScoreCAM(lambda x: net(x.double()), net.maps).attribute(inputs[place], 0)
    assert net.forwards == 0


def test_grad_kwargs_warn_and_change_nothing() -> None:
    net, x = Net(), images()
    plain = ScoreCAM(net, net.maps).attribute(x, 0)
    with pytest.warns(UserWarning, match="grad_kwargs"):
        actual = ScoreCAM(net, net.maps).attribute(x, 0, grad_kwargs={"materialize_grads": True})
    torch.testing.assert_close(actual, plain, rtol=0, atol=0)


def test_softmax_of_probabilities_warns_and_goes_on() -> None:
    net, x = Net(), images()
    with pytest.warns(UserWarning, match=r"(?s)probability.*softmax|softmax.*probability"):
        actual = ScoreCAM(net, net.maps).attribute(x, 0, score="probability", channel_weighting="softmax")
    expected = naive_score_cam(net, net.maps, x, 0, score="probability", channel_weighting="softmax")
    torch.testing.assert_close(actual, expected)


def test_softmax_of_a_model_that_ends_in_a_softmax_warns_and_goes_on() -> None:
    net, x = Net(), images()
    ends_in_softmax = nn.Sequential(net, nn.Softmax(1))
    with pytest.warns(UserWarning, match="outputs are probabilities"):
        actual = ScoreCAM(ends_in_softmax, net.maps).attribute(x, 0)
    torch.testing.assert_close(actual, naive_score_cam(ends_in_softmax, net.maps, x, 0))


@pytest.mark.parametrize("channel_weighting", ["increase", "score"])
def test_other_weightings_of_a_model_that_ends_in_a_softmax_warn_of_nothing(channel_weighting: str) -> None:
    net = Net()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score_cam = ScoreCAM(nn.Sequential(net, nn.Softmax(1)), net.maps)
        score_cam.attribute(images(), 0, channel_weighting=channel_weighting)


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
def test_right_call_warns_of_nothing(options: dict[str, Any]) -> None:
    net = Net()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        actual = ScoreCAM(net, net.maps).attribute(images(), 0, **options)
    reference = {name: value for name, value in options.items() if name != "grad_kwargs"}
    torch.testing.assert_close(actual, naive_score_cam(net, net.maps, images(), 0, **reference))


class SmallMemory:
    """A forward that has no memory for more than `rows` rows, and keeps the sizes that it was given."""

    def __init__(self, net: Net, rows: int) -> None:
        self.net, self.rows, self.sizes = net, rows, list[int]()

    def __call__(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        if len(x) > self.rows:
            raise torch.OutOfMemoryError(f"CUDA out of memory: {len(x)} rows")
        return self.net(x)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_chunks_are_halved_until_the_memory_suffices(rows: int) -> None:
    net, x = Net(), images(1)
    forward = SmallMemory(net, rows)
    actual = ScoreCAM(forward, net.maps).attribute(x, 0, perturbations_per_eval=5)
    torch.testing.assert_close(actual, naive_score_cam(net, net.maps, x, 0))
    assert forward.sizes[:2] == [1, 5]
    too_large = [size for size in forward.sizes if size > rows]
    assert too_large == {1: [5, 2], 2: [5], 3: [5]}[rows]  # each size fails once: what has failed isn't tried again
    assert sum(size for size in forward.sizes[1:] if size <= rows) == 5


def test_out_of_memory_with_one_row_is_raised_with_what_was_tried() -> None:
    net, x = Net(), images(1)

    def forward(x: Tensor) -> Tensor:
        sizes.append(len(x))
        if len(sizes) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return net(x)

    sizes: list[int] = []
    with pytest.raises(torch.OutOfMemoryError) as caught:
        ScoreCAM(forward, net.maps).attribute(x, 0, perturbations_per_eval=4)
    assert sizes == [1, 4, 2, 1]
    told = str(caught.value) + "".join(getattr(caught.value, "__notes__", []))
    assert re.search(r"one|\b1\b", told)
    assert re.search(r"\b4\b", told)
