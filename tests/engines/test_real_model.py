"""EfficientNet-Lite0's head through each engine, against one forward pass per channel."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from captum_scorecam import ScoreCAM
from captum_scorecam.engines.arguments import Arguments
from captum_scorecam.engines.export import ExportedModel, export
from captum_scorecam.engines.onnx_runtime import Session
from captum_scorecam.engines.openvino import CompiledModel
from tests.conftest import EGYPTIAN_CAT, photograph
from tests.support.command_line import invoke
from tests.support.score_cam import naive_score_cam
from tests.support.small_net import assert_close

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cat() -> Tensor:
    return photograph(160)


@pytest.fixture(scope="module")
def exported_lite0(efficientnet_lite0: nn.Module, cat: Tensor) -> ExportedModel:
    return export(efficientnet_lite0, Arguments.from_call(cat, None))


@pytest.fixture(scope="module")
def expected(efficientnet_lite0: nn.Module, cat: Tensor) -> Tensor:
    layer = efficientnet_lite0.get_submodule("_avg_pooling")
    found: Tensor = naive_score_cam(efficientnet_lite0, layer, cat, EGYPTIAN_CAT, attribute_to_layer_input=True)
    return found


@pytest.mark.parametrize("runtime", [Session, CompiledModel])
def test_map_equals_the_naive_reference(
    runtime: type[nn.Module],
    efficientnet_lite0: nn.Module,
    cat: Tensor,
    exported_lite0: ExportedModel,
    expected: Tensor,
) -> None:
    layer, twin = efficientnet_lite0.get_submodule("_avg_pooling"), runtime(exported_lite0)
    score_cam = ScoreCAM(efficientnet_lite0, layer, masked_forward_func=twin)
    assert_close(score_cam.attribute(cat, EGYPTIAN_CAT, attribute_to_layer_input=True), expected, 1e-5)


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("runtime", [Session, CompiledModel])
def test_outputs_equal_the_models(
    runtime: type[nn.Module], efficientnet_lite0: nn.Module, cat: Tensor, exported_lite0: ExportedModel, batch: int
) -> None:
    x = cat * torch.linspace(0.2, 1, batch).view(-1, 1, 1, 1)
    with torch.no_grad():
        assert_close(runtime(exported_lite0)(x), efficientnet_lite0(x), 1e-5)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_demo_names_the_engine(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("demo", "--engine", engine, "--max-forwards", "20")
    assert (result.exit_code, result.stderr) == (0, "")
    assert f", engine {engine}\n" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["scorecam.png"]
