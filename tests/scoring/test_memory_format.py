"""Models get inputs in the user's memory format, or in a faster one from which they have shown to compute the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_scorecam import RISE, MeaningfulPerturbation, ScoreCAM
from captum_scorecam.metrics import functional
from captum_scorecam.scoring.masked_forward import MANY_ROWS
from captum_scorecam.scoring.memory_format import MemoryFormats
from tests.naive_reference import naive_score_cam
from tests.support.masked_forward import forward_of


def checked(x: Tensor) -> Tensor:
    if not x.is_contiguous():
        raise ValueError("contiguous, please")
    return x.mean((2, 3))


def viewed(x: Tensor) -> Tensor:
    return x.view(len(x), -1)[:, ::7]


def complex_pairs(x: Tensor) -> Tensor:
    return torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2)).abs().mean((2, 3))


def strided(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return torch.as_strided(x, (n, c, h // 2, w), (c * h * w, h * w, 2 * w, 1)).square().mean((2, 3))


def transposed_memory(x: Tensor) -> Tensor:
    """Reads the memory as an extension in C would, whatever the strides."""
    return torch.as_strided(x, (len(x), x[0].numel()), (x[0].numel(), 1))[:, :3] * 10


STUBBORN = [checked, viewed, complex_pairs, strided, transposed_memory]


class Net(nn.Module):
    def __init__(self, reads: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 20, 3, padding=1)
            self.fc = nn.Linear(20, 3)
        self.reads = reads
        self.formats: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.formats.append(x.is_contiguous(memory_format=torch.channels_last))
        scores: Tensor = self.fc(torch.relu(self.conv(x)).mean((2, 3)))
        return scores + self.reads(x)[:, :3]


def mean_colour(x: Tensor) -> Tensor:
    return x.mean((2, 3))


@pytest.fixture
def x() -> Tensor:
    return torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("reads", STUBBORN)
@pytest.mark.parametrize("n", [1, 2])
def test_scores_of_a_model_that_reads_memory_equal_the_naive_reference(
    reads: Callable[[Tensor], Tensor], n: int, x: Tensor
) -> None:
    net, x = Net(reads).eval(), x.repeat(n, 1, 1, 1) + torch.arange(n).view(n, 1, 1, 1)
    expected: Any = naive_score_cam(net, net.conv, x, 1)
    torch.testing.assert_close(ScoreCAM(net, net.conv).attribute(x, 1).double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("reads", STUBBORN)
def test_every_method_and_metric_bears_a_model_that_reads_memory(reads: Callable[[Tensor], Tensor], x: Tensor) -> None:
    net = Net(reads).eval()
    RISE(net, n_masks=2 * MANY_ROWS).attribute(x, 1)
    MeaningfulPerturbation(net, n_iterations=MANY_ROWS).attribute(x, 1)
    scores = functional.deletion(net, x, x[:, :1], 1, step=1 / 32, score="output").scores
    torch.testing.assert_close(scores[:, 0], net(x)[:, 1])
    masked_formats = set(net.formats[-4:])
    assert masked_formats == {False}


def test_a_model_that_agrees_gets_channels_last_after_one_check(x: Tensor) -> None:
    net = Net(mean_colour).eval()
    score_cam = ScoreCAM(net, net.conv)
    score_cam.attribute(x, 1)
    assert net.formats[:2] == [False, False]  # the inputs, and noise, which follows in the other format
    assert set(net.formats[2:]) == {True}
    first = len(net.formats)
    score_cam.attribute(x, 1)
    assert len(net.formats) < 2 * first  # remembered


def test_each_shape_is_checked() -> None:
    def refuses_large(x: Tensor) -> Tensor:
        return checked(x) if x.shape[-1] > 4 else mean_colour(x)

    net, formats = Net(refuses_large).eval(), MemoryFormats()
    for size, expected in [(4, True), (8, False), (4, True), (8, False)]:
        forward = forward_of(net, torch.rand(1, 3, size, size))
        assert formats.fastest(forward, MANY_ROWS, None).channels_last is expected


def test_few_rows_are_not_worth_a_check(x: Tensor) -> None:
    forward = forward_of(Net(mean_colour), x)
    assert not MemoryFormats().fastest(forward, MANY_ROWS - 1, None).channels_last


@pytest.mark.parametrize("shape", [(1, 3, 8), (1, 3, 4, 4, 4)])
def test_other_ranks_keep_their_format(shape: tuple[int, ...]) -> None:
    forward = forward_of(lambda x: x.flatten(2).mean(2), torch.rand(shape))
    assert not MemoryFormats().fastest(forward, 100, None).channels_last


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_rounding_is_no_disagreement_and_a_percent_is_one_in_single_precision(dtype: torch.dtype, x: Tensor) -> None:
    eps = torch.finfo(dtype).eps
    for factor, expected in [(1 + 2 * eps, True), (1.01 if dtype != torch.bfloat16 else 1.2, False)]:

        def almost(x: Tensor, factor: float = factor) -> Any:
            scores = x.mean((2, 3))
            return scores if x.is_contiguous() else scores * factor

        forward = forward_of(almost, x.to(dtype))
        assert MemoryFormats().fastest(forward, 100, None).channels_last is expected


def test_a_memory_error_of_the_check_is_no_agreement(x: Tensor) -> None:
    def runs_out(x: Tensor) -> Tensor:
        if not x.is_contiguous():
            raise MemoryError
        return x.mean((2, 3))

    forward = forward_of(runs_out, x)
    assert not MemoryFormats().fastest(forward, 100, None).channels_last


def test_a_format_in_which_a_model_is_slower_is_left_if_it_agrees(x: Tensor) -> None:
    net = Net(mean_colour).eval()
    RISE(net, n_masks=20).attribute(x.mT, 1)
    assert net.formats[-1] is True
    assert net.formats[0] is False


@pytest.mark.parametrize(
    ("n", "perturbations_per_eval", "expected"),
    [(1, None, [2, 2]), (3, None, [2, 2]), (1, 1, [1, 1, 1, 1]), (3, 1, [3, 3]), (3, 2, [2, 2])],
)
def test_rows_of_the_comparison(n: int, perturbations_per_eval: int | None, expected: list[int]) -> None:
    seen = []

    def model(x: Tensor) -> Tensor:
        seen.append(len(x))
        return x.mean((2, 3))

    forward = forward_of(model, torch.rand(n, 3, 8, 8))
    assert MemoryFormats().fastest(forward, 100, perturbations_per_eval).channels_last
    assert seen == expected
