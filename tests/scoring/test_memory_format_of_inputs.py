"""Models that read their input's memory get it as it is passed; only differing pixels prove that formats agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import get_model

from captum_scorecam import RISE, LayerGradCamPlusPlus, MeaningfulPerturbation, ScoreCAM
from captum_scorecam.metrics import functional
from captum_scorecam.models import load_classifier
from captum_scorecam.scoring.memory_format import MemoryFormats
from tests.support.masked_forward import forward_of


@pytest.fixture
def x() -> Tensor:
    return torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


# --- The user's own format --------------------------------------------------------------------------------------------


class ReadsMemory(nn.Module):
    """Adds a linear function of the input's memory to each class; `reads` may refuse a format."""

    def __init__(self, reads: Callable[[Tensor], Tensor], factor: float = 1.0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 20, 3, padding=1)
            self.fc = nn.Linear(192, 4)
        self.reads, self.factor = reads, factor
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.fc(self.reads(x)) + self.conv(x).mean((2, 3))[:, :4]
        return self.factor * scores


def memory(x: Tensor) -> Tensor:
    return torch.as_strided(x, (len(x), 192), (192, 1))


def pixels(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).view(len(x), 192)


def memory_of_channels_last(x: Tensor) -> Tensor:
    if not x.is_contiguous(memory_format=torch.channels_last):
        raise ValueError("channels last, please")
    return memory(x)


def memory_of_contiguous(x: Tensor) -> Tensor:
    return memory(x.contiguous())


def arranged_pixels(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).reshape(len(x), 192)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


CALLS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "ScoreCAM": lambda net, x: ScoreCAM(net, net.conv).attribute(x, 1),
    "ScoreCAM, increase": lambda net, x: ScoreCAM(net, net.conv, channel_weighting="increase").attribute(x, 1),
    "RISE": lambda net, x: RISE(net, n_masks=40, score="output").attribute(x, 1, generator=seeded()),
    "few masks": lambda net, x: RISE(net, n_masks=4, score="output").attribute(x, 1, generator=seeded()),
    "Mask": lambda net, x: MeaningfulPerturbation(net, n_iterations=17, score="output").attribute(
        x, 1, generator=seeded()
    ),
    "Grad-CAM++": lambda net, x: LayerGradCamPlusPlus(net, net.conv).attribute(x, 1),
    "insertion": lambda net, x: functional.insertion(net, x, x[:, :1], 1, step=0.05, score="output").scores,
    "deletion": lambda net, x: (
        functional.deletion(
            net, x, x[:, :1], 1, step=0.05, score="output", baselines=torch.rand(x.shape, generator=seeded())
        ).scores
    ),
    "scores": lambda net, x: functional.masked_input_scores(net, x, x[:, :1], 1, score="output").masked,
    "infidelity": lambda net, x: functional.infidelity(ScoreCAM(net, net.conv), x, 1, generator=seeded()),
    "sensitivity": lambda net, x: functional.sensitivity_max(
        ScoreCAM(net, net.conv), x, 1, n_perturb_samples=2, generator=seeded()
    ),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@every_call
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("reads", [memory, pixels, memory_of_channels_last])
def test_a_model_of_channels_last_images_gets_them(call: Any, reads: Callable[[Tensor], Tensor], n: int) -> None:
    x = torch.rand(n, 3, 8, 8, generator=seeded()).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(call(ReadsMemory(reads), x), call(ReadsMemory(arranged_pixels), x))


@every_call
def test_a_model_of_any_memory_order_gets_it(call: Any) -> None:
    x = torch.rand(2, 3, 8, 8, generator=seeded()).mT
    expected = call(ReadsMemory(lambda x: x.mT.reshape(len(x), 192)), x)
    torch.testing.assert_close(call(ReadsMemory(memory), x), expected)


def test_baselines_do_not_bring_their_format() -> None:
    x = torch.rand(1, 3, 8, 8, generator=seeded())
    blank = torch.rand(1, 3, 8, 8, generator=seeded()).contiguous(memory_format=torch.channels_last)
    for n_masks in (4, 40):
        maps = [
            RISE(ReadsMemory(reads), n_masks=n_masks, score="output").attribute(
                x, 1, baselines=blank, generator=seeded()
            )
            for reads in (memory, memory_of_contiguous)
        ]
        torch.testing.assert_close(maps[0], maps[1])


def test_video_keeps_its_format() -> None:
    seen = []

    def model(x: Tensor) -> Tensor:
        seen.append(x.is_contiguous(memory_format=torch.channels_last_3d))
        return x.mean((2, 3, 4))

    x = torch.rand(2, 3, 4, 4, 4).contiguous(memory_format=torch.channels_last_3d)
    RISE(model, n_masks=20, grid_size=2, score="output").attribute(x, 1)
    assert set(seen) == {True}


# --- What proves that formats are equal -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in CALLS if name != "Mask"])  # whose steps follow the sign of rounding
@pytest.mark.parametrize("value", [1.0, 0.5])
def test_an_image_of_one_colour_proves_nothing(name: str, value: float) -> None:
    call = CALLS[name]
    flat = torch.full((1, 3, 8, 8), value)
    torch.testing.assert_close(call(ReadsMemory(memory), flat), call(ReadsMemory(memory_of_contiguous), flat))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_an_image_of_one_colour_is_not_remembered_as_proof(value: float, x: Tensor) -> None:
    maps = []
    for reads in (memory, memory_of_contiguous):
        rise = RISE(ReadsMemory(reads), n_masks=40, score="output")
        rise.attribute(torch.full_like(x, value), 1)
        maps.append(rise.attribute(x, 1, generator=seeded()))
    torch.testing.assert_close(maps[0], maps[1])


@pytest.mark.parametrize("target", range(4))
def test_saturated_probabilities_prove_nothing(target: int, x: Tensor) -> None:
    maps = [
        ScoreCAM(net, net.conv, score="probability", channel_weighting="score").attribute(x, target)
        for net in (ReadsMemory(memory, 300.0), ReadsMemory(memory_of_contiguous, 300.0))
    ]
    torch.testing.assert_close(maps[0], maps[1])


class WithLargeOutputs(ReadsMemory):
    """Has constant outputs beside its own, or returns the softmax."""

    def __init__(self, reads: Callable[[Tensor], Tensor], large: int) -> None:
        super().__init__(reads, 300.0 if large == 0 else 1.0)
        self.large = large

    def forward(self, x: Tensor) -> Tensor:
        scores = super().forward(x)
        return torch.cat([scores, x.new_full((len(x), self.large), 36500.0)], 1) if self.large else scores.softmax(1)


@pytest.mark.parametrize("large", [0, 1, 4, 8])
def test_large_outputs_do_not_hide_the_difference_of_others(large: int, x: Tensor) -> None:
    forward = forward_of(WithLargeOutputs(memory, large), x)
    assert not MemoryFormats().fastest(forward, 100, None).channels_last


def test_an_output_that_does_not_vary_proves_nothing(x: Tensor) -> None:
    forward = forward_of(lambda x: x.new_ones(len(x), 3), x)
    assert not MemoryFormats().fastest(forward, 100, None).channels_last


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "mobilenet_v3_small"])
def test_convolutional_networks_run_in_channels_last(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        lite = name == "efficientnet_lite0"
        model = load_classifier(name).model if lite else get_model(name, weights=None)
    for x in (torch.rand(1, 3, 64, 64, generator=seeded()), torch.zeros(1, 3, 64, 64)):
        assert MemoryFormats().fastest(forward_of(model.eval(), x), 100, None).channels_last
