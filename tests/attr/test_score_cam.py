"""ScoreCAM against the naive reference, in float64, over shapes, chunk sizes, baselines and variants."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from captum_scorecam import ScoreCAM
from tests.naive_reference import read_activations
from tests.support.score_cam import naive_score_cam, run_score_cam

# degenerate draws warn; the warnings have tests of their own
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

CLASSES = 4


class PlantedMaps(nn.Module):
    """A small classifier whose layer `maps` has a given size, constant channels and affine copies."""

    def __init__(
        self,
        size: tuple[int, ...],
        in_channels: int = 2,
        channels: int = 4,
        relu: bool = False,
        constant: tuple[int, ...] = (),
        copies: dict[int, tuple[int, float, float]] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.size, self.relu, self.constant, self.copies = size, relu, constant, copies or {}
        generator = torch.Generator().manual_seed(seed)
        self.mix = torch.randn(channels, in_channels, generator=generator, dtype=torch.float64)
        self.position = torch.randn(channels, *size, generator=generator, dtype=torch.float64)
        self.head = torch.randn(CLASSES, channels, *size, generator=generator, dtype=torch.float64)
        self.maps: nn.Module = nn.Identity()

    def forward(self, x: Tensor, second: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        z = torch.einsum("kc,nc...->nk...", self.mix, x)
        z = getattr(F, f"adaptive_avg_pool{len(self.size)}d")(z, self.size) + 0.5 * self.position
        if second is not None:
            z = z + second.flatten(1).cos().mean(dim=1).view(-1, *[1] * (z.dim() - 1))
        if self.relu:
            z = F.relu(z - 0.5)
        planes = list(z.unbind(dim=1))
        for k in self.constant:
            planes[k] = torch.full_like(planes[k], 0.25 * k)
        for k, (original, scale, offset) in self.copies.items():
            planes[k] = scale * planes[original] + offset
        z = self.maps(torch.stack(planes, dim=1))
        logits = torch.einsum("nk...,ck...->nc", torch.tanh(z), self.head)
        return logits if shift is None else logits * shift[:, None]


@dataclass
class DrawnCall:
    """One randomly drawn call: the net, the inputs, and the options of the method and of `attribute`."""

    net: dict[str, Any]
    inputs: Tensor | tuple[Tensor, ...]
    call: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)


@st.composite
def drawn_calls(draw: st.DrawFn) -> DrawnCall:
    rank = draw(st.sampled_from([1, 2, 2, 3]))
    longest = {1: 9, 2: 6, 3: 4}[rank]
    batch, in_channels, channels = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 6))
    size = tuple(draw(st.integers(1, longest)) for _ in range(rank))
    sizes = [tuple(draw(st.integers(2, longest + 3)) for _ in range(rank)) for _ in range(draw(st.integers(1, 2)))]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs = tuple(normal(batch, in_channels, *spatial) for spatial in sizes)
    shift = 2 * normal(batch) if draw(st.booleans()) else None
    classes = st.integers(0, CLASSES - 1)
    call: dict[str, Any] = {
        "target": draw(st.one_of(classes, st.lists(classes, min_size=batch, max_size=batch))),
        "relu_attributions": draw(st.booleans()),
        "attr_dim_summation": draw(st.sampled_from([True, True, False])),
        "score": draw(st.sampled_from(["output", "probability", torch.sigmoid])),
        "channel_weighting": draw(st.sampled_from(["softmax", "increase", "score"])),
        "max_channels": draw(st.one_of(st.none(), st.integers(1, channels))),
    }  # fmt: skip
    if shift is not None or len(inputs) == 2:
        call["additional_forward_args"] = (shift,) if len(inputs) == 2 else (None, shift)
    kinds = [draw(st.sampled_from(["zeros", "scalar", "shared", "own"])) for _ in inputs]
    values = tuple(
        {"zeros": 0, "scalar": -0.75, "shared": normal(1, *x.shape[1:]), "own": normal(*x.shape)}[kind]
        for kind, x in zip(kinds, inputs, strict=True)
    )
    call["baselines"] = None if set(kinds) == {"zeros"} else values if len(inputs) == 2 else values[0]
    names = draw(st.permutations(range(channels)))
    copied = draw(st.integers(0, (channels - 1) // 2))
    scales = st.sampled_from([0.25, 0.5, 3.0, 40.0])
    copies = {
        names[2 * i]: (names[2 * i + 1], draw(scales), draw(st.sampled_from([-2.0, 0.0, 1.5]))) for i in range(copied)
    }
    net = {
        "size": size,
        "in_channels": in_channels,
        "channels": channels,
        "relu": draw(st.booleans()),
        "constant": tuple(names[-1:]) if draw(st.booleans()) else (),
        "copies": copies,
        "seed": draw(st.integers(0, 2**16)),
    }
    chunks = draw(st.one_of(st.none(), st.integers(1, 2 * channels)))
    return DrawnCall(net, inputs if len(inputs) > 1 else inputs[0], call, {"perturbations_per_eval": chunks})


def assert_same_map(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Equal to `tolerance`, relative to the largest value of the expected map."""
    assert actual.shape == expected.shape
    scale = float(expected.abs().max()) or 1.0
    assert float((actual - expected).abs().max()) <= tolerance * scale


@given(drawn_calls())
@settings(max_examples=150)
def test_map_equals_reference(drawn: DrawnCall) -> None:
    net = PlantedMaps(**drawn.net)
    expected = naive_score_cam(net, net.maps, drawn.inputs, **drawn.call)
    actual = run_score_cam(net, net.maps, drawn.inputs, **drawn.call, **drawn.options)
    assert actual.dtype == torch.float64
    assert_same_map(actual, expected)


@pytest.mark.parametrize("perturbations_per_eval", [None, 1, 3, 100])
@pytest.mark.parametrize("batch", [1, 3])
def test_planted_constant_and_copied_channels_keep_their_place(batch: int, perturbations_per_eval: int | None) -> None:
    net = PlantedMaps((3, 4), channels=7, constant=(0, 5), copies={2: (1, 3.0, -2.0), 6: (1, 0.5, 0.0)})
    x = torch.randn(batch, 2, 7, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    call: dict[str, Any] = {"target": 2, "attr_dim_summation": False, "relu_attributions": False}
    actual = ScoreCAM(net, net.maps).attribute(x, **call, perturbations_per_eval=perturbations_per_eval)
    assert_same_map(actual, naive_score_cam(net, net.maps, x, **call))
    assert float(actual[:, [0, 5]].abs().max()) == 0.0

    (maps,) = read_activations(net, net.maps, (x,))
    weights = actual.flatten(2).sum(dim=2) / maps.flatten(2).sum(dim=2)
    torch.testing.assert_close(weights[:, [2, 6]], weights[:, [1, 1]])  # one mask, one score, one weight
    torch.testing.assert_close(weights[:, [1, 2, 3, 4, 6]].sum(dim=1), torch.ones(batch, dtype=torch.float64))


def test_negative_affine_copy_has_its_own_mask() -> None:
    net = PlantedMaps((3, 3), channels=3, copies={2: (0, -1.0, 0.0)})
    x = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    call: dict[str, Any] = {
        "target": 0,
        "channel_weighting": "score",
        "relu_attributions": False,
        "attr_dim_summation": False,
    }
    expected = naive_score_cam(net, net.maps, x, **call)
    assert not torch.allclose(expected[:, 0], -expected[:, 2])
    assert_same_map(run_score_cam(net, net.maps, x, **call), expected)


def test_equal_maps_of_different_examples_are_masked_with_their_own_example() -> None:
    class PositionOnly(PlantedMaps):
        """The maps are the same for every input, so every example has the same masks, over different inputs."""

        def forward(self, x: Tensor) -> Any:  # type: ignore[override]
            maps = self.maps(self.position.expand(len(x), *self.position.shape))
            return x.flatten(2).mean(dim=2) * maps.mean() + torch.tanh(x).flatten(2).sum(dim=2)

    net = PositionOnly((3, 3), in_channels=CLASSES)
    x = torch.randn(3, CLASSES, 6, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    expected = naive_score_cam(net, net.maps, x, 1)
    assert not torch.allclose(expected[0], expected[1])
    assert_same_map(ScoreCAM(net, net.maps).attribute(x, 1), expected)


@pytest.mark.parametrize("small", [(2, 2), (1, 1), (1, 3)])
def test_map_larger_than_the_input_whose_resized_mask_is_constant(small: tuple[int, int]) -> None:
    """A peak that falls between the samples of the smaller grid leaves a constant mask: no weight, and never NaN."""

    class Peak(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps = nn.Identity()

        def forward(self, x: Tensor) -> Any:
            mean = x.flatten(2).mean(dim=2)
            peak = torch.zeros(len(x), 2, 9, 9, dtype=x.dtype)
            peak[:, 0, 4, 6] = 1.0  # seen by none of the samples of the grids above
            peak[:, 1] = torch.arange(81.0, dtype=x.dtype).view(9, 9)
            return mean + self.maps(peak).mean()

    net = Peak()
    x = torch.rand(2, 3, *small, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    expected = naive_score_cam(net, net.maps, x, 1, attr_dim_summation=False)
    assert float(expected[:, 0].abs().max()) == 0.0
    assert_same_map(ScoreCAM(net, net.maps).attribute(x, 1, attr_dim_summation=False), expected)


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(
            [0.3, 0.2, 0.1, 0.1, 0.2, 0.3], id="constant"
        ),  # its second and fifth values are what two columns see
        pytest.param([0.0, 0.1, 0.3, 0.0, 0.0, 1.0, 0.1, 0.7, 0.0], id="constant to rounding"),
    ],
)
def test_mask_that_is_constant_for_one_of_two_inputs_removes_that_input(row: list[float]) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps = nn.Identity()

        def forward(self, x: Tensor, second: Tensor) -> Tensor:
            planted = torch.tensor([row, row[::-1]], dtype=x.dtype)
            self.maps(planted[:, None].expand(len(x), 2, 1, len(row)))
            return torch.stack([x.sum((1, 2, 3)), second.sum((1, 2, 3))], 1)

    net, generator = Net(), torch.Generator().manual_seed(9)
    inputs = tuple(torch.rand(2, 1, 2, width, generator=generator, dtype=torch.float64) for width in (2, 4))
    call: dict[str, Any] = {"target": 0, "channel_weighting": "score", "relu_attributions": False, "baselines": (-5, 0)}
    actual = run_score_cam(net, net.maps, inputs, **call)
    score_of_nothing = 4 * -5.0
    planted = torch.tensor([row, row[::-1]], dtype=torch.float64)
    torch.testing.assert_close(actual, score_of_nothing * planted.sum(0).expand(2, 1, 1, len(row)))
    assert_same_map(actual, naive_score_cam(net, net.maps, inputs, **call))


def test_tuple_layer_returns_a_map_for_each_tensor() -> None:
    class TwoScales(nn.Module):
        def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
            return z, F.avg_pool2d(z, 2).square()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.split = TwoScales()

        def forward(self, x: Tensor) -> Any:
            fine, coarse = self.split(torch.sin(x))
            return fine.flatten(2).mean(dim=2) + coarse.flatten(2).amax(dim=2)

    net, x = Net(), torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    expected = naive_score_cam(net, net.split, x, [0, 2])
    actual = ScoreCAM(net, net.split).attribute(x, [0, 2])
    assert isinstance(actual, tuple)
    assert [tuple(each.shape) for each in actual] == [(2, 1, 6, 8), (2, 1, 3, 4)]
    for one, other in zip(actual, expected, strict=True):
        assert_same_map(one, other)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_layer_input_of_every_rank(rank: int) -> None:
    net = PlantedMaps((4, 3, 2)[:rank])
    x = torch.randn(2, 2, *(7, 5, 4)[:rank], generator=torch.Generator().manual_seed(6), dtype=torch.float64)

    class Square(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return z.square()

    net.maps = Square()
    call: dict[str, Any] = {"target": 3, "attribute_to_layer_input": True}
    expected = naive_score_cam(net, net.maps, x, **call)
    assert not torch.allclose(expected, naive_score_cam(net, net.maps, x, 3))
    assert_same_map(ScoreCAM(net, net.maps).attribute(x, **call), expected)


def test_transformed_activation_is_explained() -> None:
    class Tokens(nn.Module):
        """The layer returns N×T×C tokens with one prefix token, like a ViT."""

        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Identity()

        def forward(self, x: Tensor) -> Any:
            patches = F.avg_pool2d(x, 2).flatten(2).transpose(1, 2)
            tokens = self.tokens(torch.cat([patches.mean(dim=1, keepdim=True), patches.tanh()], dim=1))
            return tokens.mean(dim=1) * 3

    def to_maps(tokens: Tensor) -> Any:
        return tokens[:, 1:].transpose(1, 2).reshape(len(tokens), -1, 3, 4)

    net, x = Tokens(), torch.randn(2, 5, 6, 8, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    expected = naive_score_cam(net, net.tokens, x, 4, activation_transform=to_maps)
    actual = ScoreCAM(net, net.tokens, activation_transform=to_maps).attribute(x, 4)
    assert tuple(actual.shape) == (2, 1, 3, 4)
    assert_same_map(actual, expected)


@pytest.mark.parametrize("per_example", [False, True])
@given(drawn=drawn_calls())
@settings(max_examples=20)
def test_attribute_targets_stacks_the_maps_of_attribute(drawn: DrawnCall, per_example: bool) -> None:
    net, inputs = PlantedMaps(**drawn.net), drawn.inputs
    batch = len(inputs[0] if isinstance(inputs, tuple) else inputs)
    call: dict[str, Any] = {
        name: value for name, value in drawn.call.items() if name not in ("target", "attr_dim_summation")
    }
    table = torch.tensor([[0, 3], [2, 1], [1, 1]])[:batch]
    targets = table if per_example else [3, 0, [2, 1, 0][:batch]]
    each = [table[:, t] for t in range(2)] if per_example else targets
    expected = torch.cat([naive_score_cam(net, net.maps, inputs, target, **call) for target in each], dim=1)
    actual = run_score_cam(net, net.maps, inputs, targets, method="attribute_targets", **call, **drawn.options)
    assert_same_map(actual, expected)
