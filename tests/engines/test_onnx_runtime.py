"""ONNX Runtime on a GPU, with its session and CUDA replaced, so that no driver is needed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest
import torch

from captum_scorecam.engines import onnx_runtime
from captum_scorecam.engines.arguments import Arguments
from captum_scorecam.engines.export import ExportedModel
from captum_scorecam.engines.onnx_runtime import CUDA, Session
from tests.engines.conftest import arguments_of, inputs_of
from tests.support.small_net import Net, images

GPU = torch.device("cuda", 1)


class Cuda:
    """Stands for CUDA and for ONNX Runtime's session on it; notes what happens on which current device."""

    def __init__(self) -> None:
        self.providers = [CUDA, "CPUExecutionProvider"]
        self.current: torch.device | None = None
        self.log: list[tuple[str, torch.device | None]] = []
        self.fails = False

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        self.current = device
        try:
            yield
        finally:
            self.current = None

    def session(self, _content: bytes, options: Any, providers: Any) -> Any:
        self.log.append(("made", self.current))
        self.options = dict(providers[0][1])
        self.spins = options.get_session_config_entry("session.intra_op.allow_spinning") != "0"
        binding = SimpleNamespace(bind_input=lambda *_: None, bind_output=lambda *_: None)
        return SimpleNamespace(
            get_inputs=list,
            get_providers=lambda: self.providers,
            io_binding=lambda: binding,
            run_with_iobinding=self.run,
        )

    def run(self, _binding: Any, _options: Any) -> None:
        self.log.append(("ran", self.current))
        if self.fails:
            raise RuntimeError("no more")


class Stream:
    def __init__(self, cuda: Cuda, name: str, device: torch.device) -> None:
        self.cuda, self.name, self.device, self.cuda_stream = cuda, name, device, 0

    def wait_stream(self, other: Stream) -> None:
        self.cuda.log.append((f"{self.name} waits for {other.name}", self.cuda.current))


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    cuda = Cuda()
    monkeypatch.setattr(Arguments, "device", GPU)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device", cuda.device)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(cuda, "ours", device))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(cuda, "theirs", device))
    monkeypatch.setattr(onnxruntime, "InferenceSession", cuda.session)
    return cuda


def test_a_session_that_fell_back_to_the_cpu_is_refused(
    cuda: Cuda, exported: ExportedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA])
    monkeypatch.setattr(sys.modules[Session.__module__], "export", lambda *_: exported)
    assert isinstance(onnx_runtime(Net(), images()), Session)
    cuda.providers = ["CPUExecutionProvider"]
    with pytest.raises(ValueError, match="Expected ONNX Runtime to run on cuda:1, but its CUDA provider did not load"):
        onnx_runtime(Net(), images())


def test_threads_do_not_spin_and_new_numbers_of_rows_are_not_searched_for_algorithms_and_take_what_they_need(
    cuda: Cuda, exported: ExportedModel
) -> None:
    Session(exported)
    assert not cuda.spins
    assert cuda.options["device_id"] == "1"
    assert cuda.options["cudnn_conv_algo_search"] == "HEURISTIC"
    assert cuda.options["arena_extend_strategy"] == "kSameAsRequested"


@pytest.mark.parametrize("fails", [False, True])
def test_the_current_device_is_kept_and_streams_wait_even_after_an_error(
    fails: bool, cuda: Cuda, exported: ExportedModel
) -> None:
    session, cuda.fails = Session(exported), fails
    with pytest.raises(RuntimeError, match="no more") if fails else nullcontext():
        session(*inputs_of(2), *arguments_of(2))
    assert cuda.log == [
        ("made", GPU),
        ("ours waits for theirs", None),
        ("ran", GPU),
        ("theirs waits for ours", None),
    ]
