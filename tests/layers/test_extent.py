"""Maps of a model that crops, pads, shifts or mirrors its inputs are refused; strides and patches leave out pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from captum_scorecam.layers import find_layer
from captum_scorecam.layers.placement import are_in_place
from captum_scorecam.models import load_classifier
from tests.support.token_nets import TokenNet

pytestmark = pytest.mark.slow

Change = Callable[[Tensor], Tensor]
CONVOLUTIONS: tuple[type[nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

CROPPED = "leaves out pixels at the edges of the image, as if the model cropped it"
PADDED = "has rows of cells that do not depend on the image, as if the model padded it"
DISPLACED = "follows the image at other places than its own, as if the model padded, shifted or mirrored it"
NO_POSITIONS = "holds image positions in an unknown order|does not follow the positions"


class Squeeze(nn.Module):
    """Weights each channel by all of the image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, width)

    def forward(self, maps: Tensor) -> Tensor:
        gates: Tensor = self.gate(8 * maps.flatten(2).mean(2)).sigmoid()
        return maps * gates.view(*gates.shape, *[1] * (maps.dim() - 2))


class Changed(nn.Module):
    """A convolutional network of changed inputs, whose maps have a stride of 2 to the power of its depth."""

    def __init__(
        self,
        change: Change = lambda images: images,
        *,
        rank: int = 2,
        depth: int = 3,
        width: int = 16,
        kernel: int = 3,
        padding: int = 1,
        padding_mode: str = "zeros",
        squeeze: bool = False,
    ) -> None:
        super().__init__()
        self.change, self.maps = change, nn.Sequential()
        for channels in [3] + [width] * (depth - 1):
            convolution = CONVOLUTIONS[rank - 1]
            self.maps.append(convolution(channels, width, kernel, stride=2, padding=padding, padding_mode=padding_mode))
            self.maps.append(nn.ReLU())
            self.maps.extend([Squeeze(width)] * squeeze)
        self.head = nn.Linear(width, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.head(self.maps(self.change(inputs)).flatten(2).mean(2))
        return scores


class ChangedTokens(TokenNet):
    """A transformer without position embedding on changed images."""

    def __init__(self, change: Change) -> None:
        super().__init__(0, patch=8)
        self.change = change

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(self.change(inputs))


def seeded(net: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return net().eval()


def noise(*size: int) -> Tensor:
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))


def assert_is_refused(net: Callable[[], nn.Module], size: tuple[int, ...], layer: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        find_layer(seeded(net), noise(*size), layer)


CROPS: dict[str, Change] = {
    "a cell per edge": lambda x: x[..., 12:-12, 12:-12],
    "less than a cell per edge": lambda x: x[..., 6:-6, 6:-6],
    "a quarter": lambda x: x[..., :32, :32],
    "the middle": lambda x: x[..., 16:48, 16:48],
    "the near edge": lambda x: x[..., 8:],
    "the far edge": lambda x: x[..., :-12],
    "different edges": lambda x: x[..., 4:-12, 2:-4],
    "a part, resized": lambda x: functional.interpolate(x[..., 8:-8, 8:-8], x.shape[2:]),
    "shifted out": lambda x: functional.pad(x[..., :-16], (16, 0)),
    "one half, mirrored": lambda x: torch.cat([x[..., :32], x[..., :32].flip(3)], 3),
}
PADS: dict[str, Change] = {
    "half at the far edges": lambda x: functional.pad(x, (0, 32, 0, 32)),
    "at the near edges": lambda x: functional.pad(x, (24, 0, 24, 0)),
    "at all edges": lambda x: functional.pad(x, (24, 24, 24, 24)),
}
DISPLACEMENTS: dict[str, Change] = {
    "a quarter at the far edges": lambda x: functional.pad(x, (0, 16, 0, 16)),
    "a quarter at one edge": lambda x: functional.pad(x, (0, 16)),
    "mirror images at all edges": lambda x: functional.pad(x, (16, 16, 16, 16), mode="reflect"),
    "mirror images at the far edges": lambda x: functional.pad(x, (0, 16, 0, 16), mode="reflect"),
    "the other edges": lambda x: functional.pad(x, (16, 16, 16, 16), mode="circular"),
    "edges repeated": lambda x: functional.pad(x, (16, 16, 16, 16), mode="replicate"),
    "rolled by half": lambda x: x.roll(32, 3),
    "rolled by a quarter": lambda x: x.roll(16, 3),
    "rolled back by a quarter": lambda x: x.roll(-16, 2),
    "rolled by a cell": lambda x: x.roll(8, 3),
    "rolled along both axes": lambda x: x.roll((20, 20), (2, 3)),
}
REFUSED = [
    pytest.param(change, f"{reason}|{NO_POSITIONS}", id=f"{kind}: {name}")
    for kind, reason, changes in (
        ("cropped", CROPPED, CROPS),
        ("padded", f"{PADDED}|{DISPLACED}", PADS),
        ("displaced", f"{DISPLACED}|{PADDED}", DISPLACEMENTS),
    )
    for name, change in changes.items()
]


@pytest.mark.parametrize(("change", "reason"), REFUSED)
def test_maps_that_do_not_cover_the_image_are_refused(change: Change, reason: str) -> None:
    assert_is_refused(lambda: Changed(change), (64, 64), "maps", reason)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (CROPS["a cell per edge"], CROPPED),
        (PADS["at all edges"], PADDED),
        (DISPLACEMENTS["a quarter at the far edges"], DISPLACED),
        (DISPLACEMENTS["rolled by half"], DISPLACED),
    ],
    ids=["cropped", "padded", "stretched", "rolled"],
)
def test_auto_refuses_maps_that_do_not_cover_the_image(change: Change, reason: str) -> None:
    assert_is_refused(lambda: Changed(change), (64, 64), "auto", f"{reason}|{NO_POSITIONS}")


@pytest.mark.parametrize(("change", "reason"), REFUSED)
@pytest.mark.parametrize(
    ("net", "layer"),
    [
        (lambda change: Changed(change, kernel=2, padding=0), "maps"),
        (lambda change: Changed(change, squeeze=True), "maps"),
        (ChangedTokens, "norm"),
    ],
    ids=["patches", "squeeze and excitation", "tokens"],
)
def test_other_architectures_do_not_hide_it(
    net: Callable[[Change], nn.Module], layer: str, change: Change, reason: str
) -> None:
    assert_is_refused(lambda: net(change), (64, 64), layer, reason)


@pytest.mark.parametrize(
    ("rank", "size", "change"),
    [
        (1, (64,), lambda x: x[..., 12:-12]),
        (1, (64,), lambda x: functional.pad(x, (0, 24))),
        (1, (64,), lambda x: x.roll(24, 2)),
        (1, (64,), lambda x: x.flip(2)),
        (3, (16, 16, 16), lambda x: x[..., 3:-3]),
        (3, (16, 16, 16), lambda x: functional.pad(x, (0, 0, 0, 0, 6, 0))),
        (3, (16, 16, 16), lambda x: x.roll(6, 2)),
        (3, (16, 16, 16), lambda x: x.flip(3)),
    ],
    ids=[f"{kind} {what}" for what in ("signal", "volume") for kind in ("cropped", "padded", "rolled", "mirrored")],
)
def test_signals_and_volumes_are_refused_too(rank: int, size: tuple[int, ...], change: Change) -> None:
    reason = f"{CROPPED}|{PADDED}|{DISPLACED}|{NO_POSITIONS}"
    assert_is_refused(lambda: Changed(change, rank=rank, depth=4 - rank if rank == 1 else 2), size, "maps", reason)


@pytest.mark.parametrize("axes", [(2,), (3,), (2, 3)])
@pytest.mark.parametrize("layer", ["auto", "maps"])
def test_mirrored_maps_are_refused(axes: tuple[int, ...], layer: str) -> None:
    assert_is_refused(lambda: Changed(lambda x: x.flip(axes), depth=1), (32, 32), layer, NO_POSITIONS)


def test_the_error_says_what_was_seen() -> None:
    message = r"'maps' has shape \(1, 16, 5, 5\) that leaves out pixels at the edges .*, as if the model cropped it\."
    assert_is_refused(lambda: Changed(CROPS["a cell per edge"]), (64, 64), "maps", message)
    message = r"the activation \(16, 10, 10\) of 'maps' follows the image at other places than its own.*Name the layer"
    assert_is_refused(lambda: Changed(DISPLACEMENTS["a quarter at the far edges"]), (64, 64), "auto", message)


# How EfficientNet-Lite1's rows of cells (columns) react, in per cent, to eighths of noise like an ordinary photograph
OUTWARD = [
    [59, 37, 23, 7, 3, 1, 1, 1],
    [24, 30, 26, 17, 5, 2, 2, 3],
    [9, 20, 26, 29, 15, 6, 3, 3],
    [3, 6, 13, 19, 17, 8, 3, 2],
    [2, 3, 6, 15, 24, 20, 8, 5],
    [2, 2, 3, 8, 24, 32, 25, 17],
    [1, 1, 1, 3, 7, 19, 28, 34],
    [1, 1, 1, 2, 5, 11, 29, 35],
]


def test_cells_that_react_as_if_they_lay_a_little_further_out_are_in_place() -> None:
    changes, bounds = torch.tensor(OUTWARD, dtype=torch.float32), list(range(0, 241, 30))
    assert are_in_place(changes, bounds)
    assert not are_in_place(changes.roll(3, 1), bounds)
    assert not are_in_place(changes.flip(1), bounds)


def padded_to_multiple(multiple: int) -> Change:
    return lambda x: functional.pad(x, (0, -x.shape[3] % multiple, 0, -x.shape[2] % multiple))


def padded_around_to_multiple(multiple: int) -> Change:
    def change(x: Tensor) -> Tensor:
        height, width = (-n % multiple for n in x.shape[2:])
        return functional.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))

    return change


def normalised(x: Tensor) -> Tensor:
    """By statistics of the whole image, so that every pixel affects every cell."""
    return (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True)


class Unpadded(nn.Module):
    """LeNet, or a stack of convolutions without padding, whose maps contract."""

    def __init__(self, *layers: nn.Module, width: int) -> None:
        super().__init__()
        self.maps, self.head = nn.Sequential(*layers), nn.Linear(width, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.head(self.maps(inputs).flatten(2).mean(2))
        return scores


def lenet() -> nn.Module:
    first = [nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2)]
    return Unpadded(*first, nn.Conv2d(6, 16, 5), nn.ReLU(), width=16)


def stack() -> nn.Module:
    layers = [(nn.Conv2d(8 if k else 3, 8, 3), nn.ReLU()) for k in range(8)]
    return Unpadded(*(layer for pair in layers for layer in pair), width=8)


def padded_by_one() -> nn.Module:
    return Unpadded(nn.Conv2d(3, 8, 4, stride=4), nn.ReLU(), nn.Conv2d(8, 8, 1, padding=1), width=8)


@pytest.mark.parametrize(
    ("net", "size"),
    [
        (lambda: Changed(lambda x: x[..., 1:-1, 1:-1], depth=1), (32, 32)),
        (lambda: Changed(lambda x: functional.pad(x, (0, 1, 0, 1)), depth=1), (32, 32)),
        (lambda: Changed(lambda x: functional.interpolate(x, 16), depth=1), (32, 32)),
        (lambda: Changed(lambda x: functional.interpolate(x, scale_factor=0.25, mode="bilinear"), depth=2), (64, 64)),
        (lambda: Changed(normalised), (64, 64)),
        (lambda: Changed(squeeze=True), (64, 64)),
        (Changed, (61, 70)),
        (Changed, (96, 40)),
        (lambda: Changed(padding=0), (63, 63)),
        (lambda: Changed(padding=0), (30, 33)),
        (lambda: Changed(kernel=2, padding=0), (63, 63)),
        (lambda: Changed(depth=5, width=8), (225, 225)),
        (lambda: Changed(depth=5, width=8), (230, 230)),
        (lambda: Changed(depth=5, width=8, padding=0), (225, 225)),
        (lambda: Changed(padded_to_multiple(32), depth=5, width=8), (225, 225)),
        (lambda: Changed(padded_to_multiple(32), depth=5, width=8), (230, 300)),
        (lambda: Changed(padded_to_multiple(8)), (57, 60)),
        (lambda: Changed(padded_to_multiple(8), kernel=2, padding=0), (57, 57)),
        (lambda: Changed(padded_around_to_multiple(8)), (57, 60)),
        (lambda: Changed(padding_mode="circular"), (64, 64)),
        (lambda: Changed(padding_mode="reflect"), (64, 64)),
        (lambda: Changed(padding_mode="replicate"), (64, 64)),
        (lenet, (28, 28)),
        (stack, (28, 28)),
        (padded_by_one, (64, 64)),
        (lambda: Changed(rank=1), (100,)),
        (lambda: Changed(rank=1, padding=0), (99,)),
        (lambda: Changed(rank=3, depth=2), (8, 18, 15)),
    ],
    ids=[
        "a pixel less",
        "a pixel more",
        "resized",
        "resized to a quarter",
        "normalised",
        "squeeze and excitation",
        "odd sizes",
        "oblong",
        "unpadded, seven left over",
        "unpadded, oblong",
        "patches, seven left over",
        "stride 32 at 225",
        "stride 32 at 230",
        "stride 32 at 225, unpadded",
        "225 padded to 256",
        "230×300 padded to 256×320",
        "padded to a multiple of the stride",
        "patches, padded to a multiple",
        "padded on both sides to a multiple",
        "circular convolutions",
        "reflecting convolutions",
        "replicating convolutions",
        "LeNet",
        "eight unpadded convolutions",
        "a point-wise convolution with padding",
        "signal",
        "signal, unpadded",
        "volume",
    ],
)
def test_maps_of_the_whole_image_are_accepted(net: Callable[[], nn.Module], size: tuple[int, ...]) -> None:
    assert find_layer(seeded(net), noise(*size), "maps").name == "maps"


@pytest.mark.parametrize("size", [39, 230])
@pytest.mark.parametrize("layer", ["auto", "norm"])
def test_patches_that_leave_out_part_of_one_are_accepted(size: int, layer: str) -> None:
    net = seeded(lambda: TokenNet(0, patch=8 if size < 64 else 16))
    assert find_layer(net, noise(size, size), layer).name == "norm"


@pytest.mark.parametrize("change", [lambda x: x[..., 1:-1, 1:-1], lambda x: functional.pad(x, (0, 1, 0, 1))])
def test_auto_accepts_a_pixel_less_or_more(change: Change) -> None:
    assert find_layer(seeded(lambda: Changed(change, depth=1)), noise(32, 32)).name == "maps"


@pytest.mark.parametrize("bias", [-1.0, -2.0])
@pytest.mark.parametrize("layer", ["auto", "maps"])
def test_maps_that_are_mostly_zero_are_no_part_of_the_image(bias: float, layer: str) -> None:
    model = seeded(lambda: Changed(lambda x: 4 * x, depth=1, width=4))
    nn.init.constant_(model.get_parameter("maps.0.bias"), bias)
    assert find_layer(model, noise(32, 32), layer).name == "maps"


def test_maps_of_tiny_values_are_accepted() -> None:
    """Their squares are 0 in float32."""
    model = seeded(lambda: Changed(depth=1))
    for parameter in model.get_submodule("maps").parameters():
        parameter.data.mul_(1e-30)
    assert find_layer(model, noise(32, 32), "maps").name == "maps"


class Padded(nn.Module):
    """A network that pads its inputs."""

    def __init__(self, model: nn.Module, padding: Sequence[int]) -> None:
        super().__init__()
        self.model, self.padding = model, padding

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.model(functional.pad(inputs, list(self.padding)))
        return scores


@pytest.fixture(scope="module")
def lite0() -> nn.Module:
    return load_classifier("efficientnet_lite0").model


HEAD = "model._avg_pooling:input"  # whose cells see more than the image


@pytest.mark.parametrize("padding", [(0, 112), (224, 0), (0, 0, 0, 168)])
def test_padding_is_noticed_in_coarse_maps_of_a_trained_model(padding: Sequence[int], lite0: nn.Module) -> None:
    with pytest.raises(ValueError, match=f"{DISPLACED}|{NO_POSITIONS}"):
        find_layer(Padded(lite0, padding), noise(224, 224), HEAD)


@pytest.mark.parametrize("size", [(224, 224), (300, 200)])
def test_coarse_maps_of_a_trained_model_are_accepted(size: tuple[int, int], lite0: nn.Module) -> None:
    assert find_layer(Padded(lite0, (0, 0)), noise(*size), HEAD).name == HEAD


@pytest.mark.parametrize("size", [(32, 100), (64, 64), (48, 160)])
def test_strides_that_differ_between_the_sides_are_accepted(size: tuple[int, int]) -> None:
    """As in networks that read text."""
    net = seeded(lambda: Changed(depth=4))
    for name in ("maps.4", "maps.6"):
        layer = net.get_submodule(name)
        assert isinstance(layer, nn.Conv2d)
        layer.stride = (2, 1)
    assert find_layer(net, noise(*size), "maps").name == "maps"
