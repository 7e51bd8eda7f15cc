"""One small model, exported once, and each engine's twin of it."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator

import pytest
import torch
from filelock import FileLock
from torch import Tensor, nn

from captum_scorecam.engines.arguments import Arguments
from captum_scorecam.engines.export import ExportedModel, export
from captum_scorecam.engines.onnx_runtime import Session
from captum_scorecam.engines.openvino import CompiledModel
from tests.support.small_net import Net, images


class Model(nn.Module):
    """Two inputs, one argument for each example, one that is unused, and a number; an output with logits."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net().float()

    def forward(self, x: Tensor, y: Tensor, weights: Tensor, _unused: Tensor, shift: float) -> Tensor:
        scores: Tensor = self.net(x) * weights[:, None] + y.mean((1, 2, 3))[:, None] * 9 + shift
        return scores


def inputs_of(batch: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    x = images(batch, torch.float32, seed)
    return x, x[..., :7] * 2


def arguments_of(batch: int) -> tuple[Tensor, Tensor, float]:
    return torch.arange(1, batch + 1), torch.rand(5, 4), 0.5


@pytest.fixture(scope="session", autouse=True)
def _no_telemetry() -> Iterator[None]:
    """OpenVINO reports its use and keeps files about it, but not where `CI` is set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "CI", "true")
        yield


@pytest.fixture(scope="session")
def model() -> nn.Module:
    return Model().eval()


@pytest.fixture(scope="session")
def exported(model: nn.Module, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> ExportedModel:
    """The model, exported by the first of pytest's processes that needs it."""
    own = tmp_path_factory.getbasetemp()
    file = (own if worker_id == "master" else own.parent) / "exported"
    with FileLock(file.with_suffix(".lock")):
        if not file.exists():
            file.write_bytes(pickle.dumps(export(model, Arguments.from_call(inputs_of(1), arguments_of(1)))))
        read: ExportedModel = pickle.loads(file.read_bytes())
    return read


@pytest.fixture(scope="session", params=["ONNX Runtime", "OpenVINO"])
def twin(request: pytest.FixtureRequest, exported: ExportedModel) -> nn.Module:
    return Session(exported) if request.param == "ONNX Runtime" else CompiledModel(exported)
