"""Forward passes have rows that the user's batch could have: models that squeeze, or take a fixed batch, are served."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from captum_scorecam.metrics import functional
from tests.support.attributions import OURS, Method, each
from tests.support.small_net import images


class Net(nn.Module):
    """A model whose output or features lose the dimension of the examples if there is a single row."""

    def __init__(self, channels: int, squeezes: str) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv, self.fc = nn.Conv2d(3, channels, 3), nn.Linear(channels, 7)
        self.squeezes = squeezes
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        z = torch.relu(self.conv(x) + 1).mean((2, 3), keepdim=True)
        scores: Tensor = self.fc(z.squeeze() if self.squeezes == "features" else z.flatten(1))
        return scores[:, 2:3].squeeze() if self.squeezes == "output" else scores


@each(OURS)
@pytest.mark.parametrize("channels", [6, 7, 8])
def test_a_model_that_squeezes_its_features_is_explained_for_two_examples(method: Method, channels: int) -> None:
    net, other, x = Net(channels, "features"), Net(channels, "nothing"), images(2)
    for options in ({}, method.one_row_each):
        actual = method.explain(net, net.conv, x, 2, **options)
        method.assert_close(actual, method.explain(other, other.conv, x, 2, **options))


@each(OURS, lambda method: method.options.get("score", "output") == "output" and "score" in method.constructor_options)
@pytest.mark.parametrize("channels", [6, 7, 8])
def test_a_model_that_squeezes_its_output_is_explained_for_two_examples(method: Method, channels: int) -> None:
    net, other, x = Net(channels, "output"), Net(channels, "nothing"), images(2)
    for options in ({}, method.one_row_each):
        actual = method.explain(net, net.conv, x, None, score="output", **options)
        method.assert_close(actual, method.explain(other, other.conv, x, 2, score="output", **options))


@each(OURS)
@pytest.mark.parametrize("channels", [6, 7, 8])
def test_batch_norm_of_features_in_training_mode_gets_two_rows(method: Method, channels: int) -> None:
    net, x = Net(channels, "nothing"), images(2)
    net.fc = nn.Sequential(net.fc, nn.BatchNorm1d(7).double().train())  # type: ignore[assignment]
    for options in ({}, method.one_row_each):
        with pytest.warns(UserWarning, match="training mode"):
            maps = method.explain(net, net.conv, x, 2, **options)
        assert all(each.isfinite().all() for each in maps)


@pytest.mark.parametrize("step", [0.2, 0.25, 0.5])
def test_deletion_of_two_examples_runs_no_single_row(step: float) -> None:
    net, other, x = Net(6, "features"), Net(6, "nothing"), images(2)
    actual, expected = (functional.deletion(model, x, x[:, :1], 2, step=step).scores for model in (net, other))
    torch.testing.assert_close(actual, expected)


@each(OURS)
def test_one_example_of_a_model_that_squeezes_raises_before_the_work(method: Method) -> None:
    net, x = Net(6, "features"), images(1)
    calls: list[int] = []
    net.register_forward_pre_hook(lambda _module, taken: calls.append(len(taken[0])))
    with pytest.raises(ValueError, match=r"one row per input row|of shape N×classes .* but got \(7,\)"):
        method.explain(net, net.conv, x, 2)
    assert calls == [1]


@each(OURS, lambda method: method.takes("perturbations_per_eval"))
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_a_model_of_a_fixed_batch_size_is_explained_with_one_perturbation_per_eval(method: Method, batch: int) -> None:
    class Fixed(Net):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) != batch:
                raise ValueError(f"batch of {len(x)}")
            return super().forward(x)

    net, other, x = Fixed(7, "nothing"), Net(7, "nothing"), images(batch)
    actual = method.explain(net, net.conv, x, 2, perturbations_per_eval=1)
    method.assert_close(actual, method.explain(other, other.conv, x, 2, perturbations_per_eval=1))
    with pytest.raises(ValueError, match="batch of"):
        method.explain(net, net.conv, x, 2, perturbations_per_eval=batch + 1)
