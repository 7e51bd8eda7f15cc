"""Outputs of two forward passes are compared class by class, and training mode warns only of scores that vary."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from captum_scorecam import RISE, LayerGradCamPlusPlus, MeaningfulPerturbation, ScoreCAM
from captum_scorecam.metrics import functional
from captum_scorecam.scoring.repeated_forward import agree, class_scales, noise

TRAINING = "The model is in training mode: scores depend on the batch or are random"


def agrees(expected: Tensor, actual: Tensor) -> bool:
    return agree(expected, actual, 1e-4, class_scales(expected)[0])


def test_each_class_has_its_scale() -> None:
    expected = torch.tensor([[0.5, -0.25, 36500.0], [0.25, 0.75, 36500.0]])
    for column, least in [(0, 1e-4 * 0.5), (1, 1e-4 * 0.75), (2, 3.65)]:
        for factor, same in [(0.9, True), (1.1, False)]:
            actual = expected.clone()
            actual[0, column] += factor * least
            assert agrees(expected, actual) is same


def test_a_class_near_zero_has_the_rounding_of_the_others() -> None:
    expected = torch.tensor([[1e-9, 2.0, -4.0, 8.0]])
    assert agrees(expected, expected + torch.tensor([1e-5, 0, 0, 0]))
    assert not agrees(expected, expected + torch.tensor([1e-2, 0, 0, 0]))


def test_scales_need_no_operation_that_deterministic_algorithms_exclude_on_cuda(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: Any) -> Any:
        raise RuntimeError("kthvalue CUDA does not have a deterministic implementation")

    monkeypatch.setattr(Tensor, "kthvalue", refused)
    scales, _ = class_scales(torch.tensor([[2.0, 4.0, -0.001, 1.0, 3.0], [0.0, -5.0, 0.0, 0.0, 0.0]]))
    assert scales.tolist() == [2, 5, 1, 1, 3]


def test_infinite_and_missing_values_must_be_the_same() -> None:
    expected = torch.tensor([[1.0, -torch.inf, torch.nan]])
    assert agrees(expected, expected.clone())
    for column in (1, 2):
        other = expected.clone()
        other[0, column] = 0
        assert not agrees(expected, other)
    assert not agrees(expected, expected[:, :1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_noise_is_in_the_range_of_the_input_and_its_rows_differ(dtype: torch.dtype) -> None:
    x = torch.tensor([2.0, 6.0], dtype=dtype).view(1, 2, 1, 1).expand(1, 2, 8, 8)
    (rows,) = noise((x,), 4)
    assert rows.dtype == dtype
    assert rows.amin() >= 2
    assert rows.amax() <= 6
    assert rows.double().std(dim=(1, 2, 3)).amin() > 0.5
    assert len(set(rows.double().mean((1, 2, 3)).tolist())) == 4
    (of_flat,) = noise((torch.zeros(1, 3, 8, 8, dtype=dtype),), 2)
    assert of_flat.double().std(dim=(1, 2, 3)).amin() > 0.2


class Counting(nn.Module):
    """Counts its forward passes in a buffer, which its scores don't depend on, and takes `rows` rows, or any."""

    def __init__(self, channels: int = 6, rows: int | None = None, most_rows: int = 1000) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, channels, 3)
            self.fc = nn.Linear(channels, 4)
        self.fc.weight.data.mul_(50)
        self.register_buffer("count", torch.zeros(()))
        self.rows, self.most_rows, self.seen = rows, most_rows, list[int]()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        if self.rows is not None and len(x) != self.rows:
            raise RuntimeError(f"built for {self.rows} rows")
        if len(x) > self.most_rows:
            raise MemoryError
        self.get_buffer("count").add_(1)
        scores: Tensor = self.fc(self.conv(x).mean((2, 3)))
        return scores


class Masked(Counting):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).masked_fill(torch.tensor([False, False, False, True]), -torch.inf)


class Batched(Counting):
    """Its scores depend on the other rows."""

    def forward(self, x: Tensor) -> Tensor:
        scores = super().forward(x)
        return scores - scores.mean(0)


class Noisy(Counting):
    """Draws from NumPy, which PyTorch's random state does not show."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.from_numpy(np.random.randn(len(x), 4)).float()


CALLS: dict[str, Callable[[Any, Tensor], Any]] = {
    "ScoreCAM": lambda net, x: ScoreCAM(net, net.conv).attribute(x, 1, perturbations_per_eval=1),
    "RISE": lambda net, x: RISE(net, n_masks=20, score="output").attribute(x, 1, perturbations_per_eval=1),
    "few masks": lambda net, x: RISE(net, n_masks=4, score="output").attribute(x, 1, perturbations_per_eval=1),
    "Mask": lambda net, x: MeaningfulPerturbation(net, n_iterations=17, score="output").attribute(x, 1),
    "Grad-CAM++": lambda net, x: LayerGradCamPlusPlus(net, net.conv).attribute(x, 1),
    "insertion": lambda net, x: functional.insertion(
        net, x, x[:, :1], 1, step=0.05, score="output", perturbations_per_eval=1
    ),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


def images(n: int) -> Tensor:
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(n))


def messages_of(call: Callable[[Any, Tensor], Any], net: nn.Module, x: Tensor) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(net, x)
    return [str(warning.message) for warning in caught if "training mode" in str(warning.message)]


@every_call
@pytest.mark.parametrize("kind", [Counting, Masked])
@pytest.mark.parametrize("channels", [6, 20])
def test_a_count_and_masked_logits_are_no_reason_to_warn(call: Any, kind: type[Counting], channels: int) -> None:
    for n in (1, 2):
        assert messages_of(call, kind(channels).train(), images(n)) == []


@every_call
@pytest.mark.parametrize("kind", [Batched, Noisy])
def test_scores_that_vary_warn(call: Any, kind: type[Counting]) -> None:
    (message,) = messages_of(call, kind().train(), images(2))
    assert message.startswith(TRAINING)


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("call", [CALLS[name] for name in ("ScoreCAM", "RISE", "insertion")])
def test_with_one_perturbation_per_forward_every_forward_has_the_rows_of_the_inputs(
    call: Any, training: bool, n: int
) -> None:
    net = Counting(20, rows=n).train(training)
    assert messages_of(call, net, images(n)) == []
    assert set(net.seen) == {n}


def test_mask_runs_the_rows_of_the_inputs_only() -> None:
    net = Counting(rows=1).eval()
    CALLS["Mask"](net, images(1))
    assert set(net.seen) == {1}


def test_a_lack_of_memory_for_another_row_is_no_reason_to_warn() -> None:
    net = Counting(20, most_rows=3).train()
    assert messages_of(lambda net, x: ScoreCAM(net, net.conv).attribute(x, 1), net, images(3)) == []
    assert net.seen[:2] == [3, 4]  # the second one fails, which says nothing about the scores


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_other_rows_differ_from_those_of_an_image_of_one_colour(value: float) -> None:
    (message,) = messages_of(CALLS["Mask"], Batched().train(), torch.full((2, 3, 8, 8), value))
    assert message.startswith(TRAINING)


def test_the_range_of_inputs_is_computed_on_the_cpu() -> None:
    class WithoutDoubles(torch.Tensor):
        """Stands for a tensor on a device without float64: copies on the CPU are plain tensors."""

        def double(self, *_args: Any, **_options: Any) -> Any:
            raise TypeError("no float64")

        def cpu(self, *_args: Any, **_options: Any) -> Any:
            return self.as_subclass(Tensor).clone()

    x = torch.rand(2, 3, 4, 4)
    assert torch.equal(noise((x.as_subclass(WithoutDoubles),), 2)[0], noise((x,), 2)[0])
