"""Engines by name: their twins agree with the model, for images of each size."""

from __future__ import annotations

import copy
import sys
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_scorecam import ScoreCAM
from captum_scorecam.engines import by_name
from captum_scorecam.engines.by_name import check_engine, twin_by_name
from captum_scorecam.scoring.chunk_size import is_compiled
from tests.support.score_cam import naive_score_cam
from tests.support.small_net import Net, assert_close, images, nothing_changes


class Maker:
    """Makes twins that are copies for one size of image, as an engine's are."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor, self.sizes = factor, list[tuple[int, ...]]()

    def __call__(self, model: nn.Module, inputs: Tensor) -> Any:
        copied, size = copy.deepcopy(model), tuple(inputs.shape[1:])
        self.sizes.append(size)

        def twin(x: Tensor) -> Any:
            assert x.shape[1:] == size
            return copied(x) * self.factor

        return twin


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_images_of_each_size_are_exported_once(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    make, net = Maker(), Net()
    monkeypatch.setattr(by_name, {"onnxruntime": "onnx_runtime", "openvino": "openvino"}[engine], make)
    with nothing_changes(net):
        twin = twin_by_name(engine, net, images(1))
    assert make.sizes == [(3, 12, 10)]
    score_cam = ScoreCAM(net, net.relu, masked_forward_func=twin)
    for x in (images(1), images(2)[..., :8], images(1)):
        assert_close(score_cam.attribute(x, 2), naive_score_cam(net, net.relu, x, 2))
    assert make.sizes == [(3, 12, 10), (3, 12, 8)]


def test_the_twins_of_the_last_sizes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    make, net = Maker(), Net()
    monkeypatch.setattr(by_name, "KEPT", 2)
    monkeypatch.setattr(by_name, "openvino", make)
    twin = twin_by_name("openvino", net, images(1))
    assert twin is not None
    for width in (10, 8, 10, 9, 10, 8):
        twin(images(1)[..., :width])
    assert [size[-1] for size in make.sizes] == [10, 8, 9, 8]


def test_a_twin_that_gives_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_name, "openvino", Maker(1.01))
    with pytest.raises(ValueError, match="Expected `masked_forward_func` to give what `forward_func` gives"):
        twin_by_name("openvino", Net(), images(1))


def test_eager_needs_no_twin() -> None:
    assert twin_by_name("eager", Net(), images(1)) is None
    check_engine("eager")


class Compilable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 6, 3), nn.Linear(6, 7)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.fc(self.conv(x).relu().mean((2, 3)))
        return scores


def test_a_compiled_twin_is_compiled_without_the_hooks_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.compiler.reset()
    graphs = []

    def backend(graph: Any, _inputs: Any) -> Any:
        graphs.append(graph)
        return graph

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    net, x = Compilable(), images(1, torch.float32)
    twin = twin_by_name("compile", net, x)
    assert twin is not None
    assert is_compiled(twin)
    for _ in range(3):
        handles = [module.register_forward_hook(lambda *_: None) for module in (net, twin)]
        with torch.no_grad():
            torch.testing.assert_close(twin(images(4, torch.float32)), net(images(4, torch.float32)))
        for handle in handles:
            handle.remove()
    assert len(graphs) == 1 + 1  # and a sum, to see whether anything can be compiled


def test_without_a_compiler_nothing_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    def backend(*_: Any) -> Any:
        raise RuntimeError("g++ not found")

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    with pytest.raises(ValueError, match=r"Expected a compiler that works .* g\+\+ not found.* Choose 'eager'"):
        twin_by_name("compile", Compilable(), images(1, torch.float32))


@pytest.mark.parametrize("package", ["onnxruntime", "onnx", "onnxscript", "openvino"])
def test_a_missing_package_is_named_before_any_work(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine: Any = package if package == "openvino" else "onnxruntime"
    monkeypatch.setitem(sys.modules, package, None)
    extra = "openvino" if package == "openvino" else "onnx"
    with pytest.raises(ModuleNotFoundError, match=rf'needs {package}: pip install "captum-scorecam\[{extra}\]"\.'):
        check_engine(engine)
    with pytest.raises(ValueError, match="Expected `engine` to be 'eager', 'compile', 'onnxruntime' or"):
        check_engine("tensorrt")  # type: ignore[arg-type]
