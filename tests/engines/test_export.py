"""Exports leave the model alone, and what can't be exported is refused with a reason."""

from __future__ import annotations

import logging
import re
import sys
import threading
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_scorecam.engines import export as export_module
from captum_scorecam.engines import onnx_runtime, openvino
from captum_scorecam.engines.arguments import Arguments
from captum_scorecam.engines.export import EAGER, LOGGERS, ExportedModel, export
from captum_scorecam.engines.onnx_runtime import Session
from captum_scorecam.engines.openvino import CompiledModel
from tests.support.small_net import Net, images, nothing_changes


class Remembering(nn.Module):
    """Keeps its latest input, counts its calls and has a hook, a parameter without gradients and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.conv.weight.requires_grad_(False)
        self.latest: Tensor | None = None
        self.forwards = 0
        self.eval()

    def forward(self, x: Tensor) -> SimpleNamespace:
        self.latest = x
        self.forwards += 1
        return SimpleNamespace(logits=self.norm(self.conv(x)).mean((2, 3)), hidden=x)


def test_an_export_changes_nothing_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    model, x = Remembering(), images(1, torch.float32)
    latest = model.latest = torch.zeros(1)
    model.register_forward_hook(lambda *_: None)
    with nothing_changes(model, x):
        exported = export(model, Arguments.from_call(x, None))
    assert model.latest is latest
    assert model.forwards == 0
    assert list(tmp_path.iterdir()) == []
    assert (exported.output_shape, exported.output_dtype) == ((2,), torch.float32)
    for twin in (Session(exported), CompiledModel(exported)):  # the logits, of a batch of another size
        with torch.no_grad():
            torch.testing.assert_close(twin(images(3, torch.float32)), model(images(3, torch.float32)).logits)


# --- Refusals --------------------------------------------------------------------------------------------------------


class Reading(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


class FixedBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, 360)


class OneNumber(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum()


class SeveralRows(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(0, 1)


class Bessel(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        rows: Tensor = torch.special.bessel_j0(x)
        return rows.flatten(1)


class Failing(nn.Module):
    def forward(self, _: Tensor) -> Tensor:
        raise RuntimeError("no weights\nsecond line")


class Dictionary(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"scores": x.flatten(1)}


class Uncopied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.file = sys.stdout

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


CANT = "Expected `model` to be one that can be exported, but {} can't: "
REFUSED: list[tuple[nn.Module, str]] = [
    (Reading(), CANT + "its code depends on the values of its inputs. " + EAGER),
    (FixedBatch(), CANT + "its code fixes the number of rows, here at 2. " + EAGER),
    (OneNumber(), CANT + "its output, of shape (), does not have one row per input row. " + EAGER),
    (SeveralRows(), "does not have one row per input row. " + EAGER),
    (Bessel(), CANT + "ONNX has no counterpart of prims.bessel_j0.default. " + EAGER),
    (Failing(), CANT + "no weights. " + EAGER),
    (Uncopied(), CANT + "cannot pickle"),
    (Dictionary(), "Expected `model` to return a tensor or an object with `logits`, but {} returns dict. Wrap it"),
    (Net().train(), "Expected `model` in evaluation mode, but {} is in training mode. Call `model.eval()`."),
]


@pytest.mark.parametrize(("model", "message"), REFUSED, ids=[type(model).__name__ for model, _ in REFUSED])
def test_models_that_cant_be_exported(model: nn.Module, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    model.train(isinstance(model, Net))
    with pytest.raises(ValueError, match=re.escape(message.format(type(model).__name__))):
        export(model, Arguments.from_call(images(1, torch.float32), None))
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore:.torch.jit.trace.* is deprecated")
def test_torchscript_and_large_models_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    x = images(1, torch.float32)
    arguments = Arguments.from_call(x, None)
    with pytest.raises(ValueError, match="can't: it is TorchScript, which the exporter does not read"):
        export(torch.jit.trace(Net().float(), x), arguments)  # type: ignore[no-untyped-call]
    monkeypatch.setattr(export_module, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match=r"Net can't: its weights take 0\.0 GiB, and ONNX keeps less than 2 GiB"):
        export(Net(), arguments)


@pytest.mark.parametrize(
    ("model", "inputs", "additional", "error", "message"),
    [
        (
            torch.relu,
            images(1, torch.float32),
            None,
            TypeError,
            "to be a torch.nn.Module, but got builtin_function",
        ),
        (Net(), None, None, TypeError, "Expected `inputs` to be a tensor or a tuple of tensors, but got NoneType."),
        (Net(), images(2)[:0], None, ValueError, "Expected `inputs` with the same non-zero number of examples, but"),
        (Net(), (images(2), images(1)), None, ValueError, "number of examples, but got shapes [(2, 3, 12, 10), (1, 3"),
        (Net(), images(), [3], TypeError, "Expected `additional_forward_args` to be tensors, numbers, strings or None"),
        (Net(), images(), torch.rand(2, device="meta"), ValueError, "on one device, but got ['cpu', 'meta']."),
    ],
)
@pytest.mark.parametrize("make", [onnx_runtime, openvino])
def test_bad_arguments(
    make: Any, model: Any, inputs: Any, additional: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        make(model, inputs, additional)


@pytest.mark.parametrize(
    ("make", "device", "dtype", "message"),
    [
        (onnx_runtime, "mps", torch.float32, "the package onnxruntime-gpu, but got mps. "),
        (openvino, "mps", torch.float32, "on a CPU, where OpenVINO runs, but got mps. "),
        (openvino, "cpu", torch.float64, "half precision, as OpenVINO computes, but got torch.float64. "),
    ],
)
def test_inputs_that_an_engine_does_not_take_are_refused_before_the_export(
    make: Any, device: str, dtype: torch.dtype, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Arguments, "device", torch.device(device))
    monkeypatch.setattr(sys.modules[make.__module__], "export", lambda *_: pytest.fail("exported"))
    with pytest.raises(ValueError, match=re.escape(message + EAGER)):
        make(Net(), images(1, dtype))


def test_several_threads_that_export_leave_prints_warnings_and_logs_as_they_are() -> None:
    entered, left = threading.Event(), threading.Event()

    def first() -> None:
        with export_module._quietly():
            entered.set()
            left.wait(0.2)

    before = sys.stdout, sys.stderr, warnings.filters, [logging.getLogger(name).level for name in LOGGERS]
    thread = threading.Thread(target=first)
    thread.start()
    assert entered.wait(10)
    with export_module._quietly():
        left.set()
        thread.join(10)
    assert (sys.stdout, sys.stderr, warnings.filters) == before[:3]
    assert [logging.getLogger(name).level for name in LOGGERS] == before[3]


@pytest.mark.parametrize("runtime", [Session, CompiledModel])
def test_a_runtime_that_refuses_the_model(
    runtime: Any, exported: ExportedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = onnx_runtime if runtime is Session else openvino
    broken = replace(exported, content=exported.content[:-1000])
    monkeypatch.setattr(sys.modules[runtime.__module__], "export", lambda *_: broken)
    name = "ONNX Runtime" if runtime is Session else "OpenVINO"
    with pytest.raises(ValueError, match=rf"Expected `model` to run in {name}, but Model does not: [^\n]+\. Run it"):
        make(Net(), images(1, torch.float32))


def test_openvino_refuses_float64(exported: ExportedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    double = replace(exported, output_dtype=torch.float64)  # of inputs in float32
    monkeypatch.setattr(sys.modules[CompiledModel.__module__], "export", lambda *_: double)
    with pytest.raises(ValueError, match=r"as OpenVINO computes, but got torch\.float64"):
        openvino(Net(), images(1, torch.float32))


# --- Missing packages ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "package", "extra"),
    [
        (onnx_runtime, "onnxruntime", "onnx"),
        (onnx_runtime, "onnxscript", "onnx"),
        (onnx_runtime, "onnx", "onnx"),
        (openvino, "openvino", "openvino"),
    ],
)
def test_a_missing_package_names_its_extra(
    make: Any, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    message = rf'The engine needs {package}: pip install "captum-scorecam\[{extra}\]"\.'
    with pytest.raises(ModuleNotFoundError, match=message):
        make(Net(), images())


def test_an_export_keeps_two_rows_of_a_large_batch() -> None:
    values = Arguments.from_call(torch.rand(64, 3, 8, 8), (torch.rand(64, 2), torch.rand(3))).tensors
    assert [tuple(value.shape) for value in values] == [(2, 3, 8, 8), (2, 2), (3,)]
    assert sum(value.untyped_storage().nbytes() for value in values) == 4 * (2 * 3 * 8 * 8 + 2 * 2 + 3)
