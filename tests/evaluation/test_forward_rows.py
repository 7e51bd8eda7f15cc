"""The rows of forward passes, of any kind of model."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from torch import Tensor, nn

from captum_scorecam.evaluation.forward_rows import forward_rows


class Halves(nn.Module):
    """Takes its input by position or by name, and runs out of memory beyond 4 rows."""

    def forward(self, inputs: Tensor) -> Tensor:
        if len(inputs) > 4:
            raise MemoryError
        return inputs / 2


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        module: nn.Module = torch.jit.script(nn.Sequential(nn.Linear(3, 2)))
    return module


@pytest.mark.parametrize("model", [nn.Linear(3, 2), nn.Sequential(nn.Linear(3, 2), nn.ReLU()), scripted()])
def test_the_rows_of_each_forward_are_recorded_in_order(model: nn.Module) -> None:
    other = nn.Linear(3, 2)
    with forward_rows(model) as rows:
        for n in (1, 4, 3, 4):
            model(torch.zeros(n, 3))
            other(torch.zeros(n, 3))
    model(torch.zeros(7, 3))
    assert rows == [1, 4, 3, 4]
    assert not any(table for name, table in vars(nn.modules.module).items() if name.startswith("_global_forward"))


def test_a_forward_that_fails_does_not_count_and_one_by_name_does() -> None:
    model = Halves()
    with forward_rows(model) as rows:
        with pytest.raises(MemoryError):
            model(torch.zeros(5, 1))
        model(inputs=torch.zeros(2, 1))
        model(torch.tensor(1.0).expand(3))
    assert rows == [2, 3]
    assert not model._forward_hooks


def test_copies_count_too_and_the_model_can_be_pickled() -> None:
    model = Halves()
    with forward_rows(model) as rows:
        copy.deepcopy(model)(torch.zeros(2, 1))
        pickle.loads(pickle.dumps(model))(torch.zeros(3, 1))
    assert rows == [2]


def test_the_hook_is_removed_after_an_error() -> None:
    model = Halves()
    with pytest.raises(MemoryError), forward_rows(model):
        model(torch.zeros(5, 1))
    assert not model._forward_hooks
