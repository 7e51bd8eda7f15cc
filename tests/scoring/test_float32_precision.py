"""Float32 on hardware that rounds it, and the tolerances and memory formats that follow."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from captum_scorecam.engines.onnx_runtime import _providers
from captum_scorecam.scoring.float32_precision import convolution_epsilon, float32_epsilon
from captum_scorecam.scoring.repeated_forward import LEAST_TOLERANCE, rounding_tolerance

CPU, GPU = torch.device("cpu"), torch.device("cuda")
EPSILON = torch.finfo(torch.float32).eps


@pytest.fixture(autouse=True)
def _settings_restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True


@pytest.mark.parametrize(("precision", "epsilon"), [("highest", EPSILON), ("high", 2**-10), ("medium", 2**-7)])
def test_matrix_products_on_the_cpu(precision: str, epsilon: float) -> None:
    torch.set_float32_matmul_precision(precision)
    assert float32_epsilon(CPU) == epsilon
    assert convolution_epsilon(CPU) == EPSILON
    x = torch.zeros(1)
    assert rounding_tolerance(x, x) == pytest.approx(max(LEAST_TOLERANCE, 16 * epsilon))
    assert rounding_tolerance(x.double(), x.double()) == LEAST_TOLERANCE


@pytest.mark.parametrize(("allowed", "epsilon"), [(True, 2**-10), (False, EPSILON)])
def test_convolutions_on_a_gpu(allowed: bool, epsilon: float) -> None:
    torch.backends.cudnn.allow_tf32 = allowed
    assert convolution_epsilon(GPU) == float32_epsilon(GPU) == epsilon
    assert convolution_epsilon(CPU) == EPSILON


@pytest.mark.parametrize(
    ("capability", "hip", "epsilon"),
    [((9, 0), None, 2**-10), ((8, 0), None, 2**-10), ((7, 5), None, EPSILON), ((9, 4), "6.4", EPSILON)],
)
def test_gpus_without_tf32(
    capability: tuple[int, int], hip: str | None, epsilon: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    torch.set_float32_matmul_precision("high")
    assert convolution_epsilon(GPU) == float32_epsilon(GPU) == epsilon
    assert float32_epsilon(CPU) == 2**-10


@pytest.mark.parametrize("allowed", [True, False])
def test_before_settings_had_a_precision_per_operation(allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends, "cudnn", _Legacy(allowed))
    assert convolution_epsilon(GPU) == float32_epsilon(GPU) == (2**-10 if allowed else EPSILON)
    assert convolution_epsilon(CPU) == float32_epsilon(CPU) == EPSILON
    torch.set_float32_matmul_precision("high")
    assert float32_epsilon(CPU) == 2**-10


class _Legacy:
    def __init__(self, allow_tf32: bool) -> None:
        self.allow_tf32 = allow_tf32


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 16 * 2**-10), (torch.bfloat16, 16 * 2**-7)])
def test_half_precision(dtype: torch.dtype, tolerance: float) -> None:
    x = torch.zeros(1)
    assert rounding_tolerance(x.to(dtype), x) == tolerance
    with torch.autocast("cpu", dtype):
        assert rounding_tolerance(x, x) == tolerance


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="needs PyTorch 2.9")
@pytest.mark.parametrize(("precision", "used"), [("ieee", "0"), ("tf32", "1")])
def test_onnx_runtime_uses_tf32_where_pytorch_does(precision: str, used: str) -> None:
    cudnn: Any = torch.backends.cudnn
    cudnn.conv.fp32_precision = precision
    stream: Any = SimpleNamespace(cuda_stream=0)
    (_, options), _ = _providers(GPU, stream)
    assert options["use_tf32"] == used
