"""The implementations to compare: each explains one image with one model."""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_scorecam import ScoreCAM, engines, freed_memory_kept
from captum_scorecam.models import Classifier, load_classifier

sys.path.insert(0, str(Path(__file__).parents[1]))  # for tests.naive_reference

Precision = Literal["float32", "tf32", "bfloat16", "float16"]
Engine = Literal["eager", "compile", "reduce-overhead", "onnxruntime", "openvino"]
TWINS = ("onnxruntime", "openvino")  # the engines that run an exported copy of the model
HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}
LAYERS = {"resnet18": "layer4", "resnet50": "layer4", "vgg16": "features.29"}


@dataclass
class Subject:
    """A model, the layer to explain (which runs once per forward), an example of the inputs, the device of all."""

    model: nn.Module
    layer: nn.Module
    inputs: Tensor

    @property
    def device(self) -> torch.device:
        return self.inputs.device


@dataclass
class Result:
    """The map, the number of masked inputs that were run for it, and how many of them a forward had."""

    map: Tensor
    rows: int
    rows_per_forward: int


Explain = Callable[[Tensor, int], Result]
Floor = Callable[[Tensor, int, int], None]  # of an image, a number of rows, and the rows of each forward
Forward = Callable[..., Any]


@dataclass(frozen=True)
class Ours:
    """A configuration of `ScoreCAM`.

    Attributes:
        engine: What runs the masked forwards.
        precision: What convolutions compute in.
        memory_kept: Whether calls are made within `freed_memory_kept`.
        rows: Rows per forward; None to tune them.
        n_targets: The number of targets of a call.
        max_forwards: Masks to run; None for the exact map.
    """

    engine: Engine = "eager"
    precision: Precision = "float32"
    memory_kept: bool = True
    rows: int | None = None
    n_targets: int = 1
    max_forwards: int | None = None

    def calls(self, subject: Subject) -> tuple[Explain, Floor]:
        """Returns what explains one image, and the bare loop of the same forwards."""
        forward = self.masked_forward(subject)
        return self._explainer(subject, forward), self._floor(subject, forward)

    def _explainer(self, subject: Subject, forward: Forward) -> Explain:
        model, twin = (subject.model, forward) if self.engine in TWINS else (forward, None)
        score_cam = ScoreCAM(model, subject.layer, masked_forward_func=twin, max_forwards=self.max_forwards)

        def explain(x: Tensor, target: int) -> Result:
            targets = [(target + i) % 1000 for i in range(self.n_targets)]
            with self.settings(subject.device):
                maps = score_cam.attribute_targets(x, targets, perturbations_per_eval=self.rows)
            assert isinstance(maps, Tensor)
            assert score_cam.last_run is not None
            return Result(maps[0, 0].float(), score_cam.last_run.rows, score_cam.last_run.rows_per_forward)

        return explain

    def masked_forward(self, subject: Subject) -> Forward:
        """Returns what runs the masked forwards."""
        if self.engine == "onnxruntime":
            return engines.onnx_runtime(subject.model, subject.inputs)
        if self.engine == "openvino":
            return engines.openvino(subject.model, subject.inputs)
        if self.engine == "eager":
            return subject.model
        return torch.compile(subject.model, mode=None if self.engine == "compile" else self.engine)

    def _floor(self, subject: Subject, forward: Forward) -> Floor:
        """Returns a loop of forwards over copies of an image, in the fastest memory format."""
        images_last = self.engine not in TWINS
        images_last &= subject.device.type == "cpu" or self.precision != "float32"
        memory_format = torch.channels_last if images_last else torch.contiguous_format

        def run(x: Tensor, rows: int, rows_per_forward: int) -> None:
            batch = x.repeat(rows_per_forward, 1, 1, 1).contiguous(memory_format=memory_format)
            whole = self.engine in ("compile", "reduce-overhead")
            with torch.no_grad(), self.settings(subject.device):
                for done in range(0, rows, rows_per_forward):
                    forward(batch if whole else batch[: min(rows_per_forward, rows - done)])

        return run

    @contextlib.contextmanager
    def settings(self, device: torch.device) -> Iterator[None]:
        """Sets the precision, and keeps freed memory, in the body."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(computing_in(self.precision, device))
            if self.memory_kept:
                stack.enter_context(freed_memory_kept())
            yield


@dataclass(frozen=True)
class Peer:
    """A configuration of another library's Score-CAM."""

    library: Literal["grad-cam", "torchcam"]
    batch: int
    precision: Precision = "float32"
    compiled: bool = False

    def explainer(self, subject: Subject) -> Explain:
        """Returns a function that explains one image."""
        build = {"grad-cam": _grad_cam, "torchcam": _torchcam}[self.library]
        model = torch.compile(subject.model) if self.compiled else subject.model
        explain = build(subject, model, self.batch)

        def explain_in_precision(x: Tensor, target: int) -> Result:
            with computing_in(self.precision, subject.device):
                return explain(x, target)

        return explain_in_precision


@contextlib.contextmanager
def computing_in(precision: Precision, device: torch.device) -> Iterator[None]:
    """Runs convolutions and matrix products of the body in the given precision."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision != "float32"
    with torch.autocast(device.type, HALF.get(precision), enabled=precision in HALF):
        yield


def benchmarked_classifier(name: str) -> Classifier:
    """A classifier by name: EfficientNet-Lite with ImageNet weights, or a torchvision model with random ones."""
    return load_classifier(name, "none" if name in LAYERS else "DEFAULT")


def subject(name: str, device: str, pixels: int = 224, layer: str | None = None) -> Subject:
    """Builds a model by name, to explain a layer, by default the last; random weights are the same in every process."""
    warnings.filterwarnings("ignore", module="torchcam|pytorch_grad_cam")
    torch.manual_seed(0)
    model = benchmarked_classifier(name).model
    if name not in LAYERS:
        # The activation function of the head runs at the stem too, so an identity after it is explained instead.
        model._avg_pooling = nn.Sequential(nn.Identity(), model.get_submodule("_avg_pooling"))
    explained = model.get_submodule(layer or LAYERS.get(name, "_avg_pooling.0"))
    return Subject(model.to(device).eval(), explained, torch.zeros(1, 3, pixels, pixels, device=device))


@contextlib.contextmanager
def recorded_activation(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Collects the layer's outputs in the body."""
    outputs: list[Tensor] = []
    hook = layer.register_forward_hook(lambda *call: outputs.append(call[2].detach()))
    try:
        yield outputs
    finally:
        hook.remove()


def _grad_cam(subject: Subject, model: Any, batch: int) -> Explain:
    from pytorch_grad_cam import ScoreCAM as PeerScoreCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    method = PeerScoreCAM(model, [subject.layer])
    method.batch_size = batch

    def explain(x: Tensor, target: int) -> Result:
        with recorded_activation(subject.layer) as activation, contextlib.redirect_stderr(io.StringIO()):
            maps = method(x, [ClassifierOutputTarget(target)])
        return Result(torch.from_numpy(maps[0]), activation[0].shape[1], batch)

    return explain


def _torchcam(subject: Subject, model: Any, batch: int) -> Explain:
    from torchcam.methods import ScoreCAM as PeerScoreCAM

    def explain(x: Tensor, target: int) -> Result:
        with PeerScoreCAM(model, subject.layer, batch_size=batch) as method:
            with torch.inference_mode():
                output = model(x)
            (maps,) = method(target, output, normalized=False)
            return Result(maps[0].float(), method.hook_a[0].shape[1], batch)

    return explain


def released_loop(subject: Subject) -> Explain:
    """The recipe of the authors' released code: one channel at a time, probabilities as weights."""

    @torch.no_grad()
    def explain(x: Tensor, target: int) -> Result:
        with recorded_activation(subject.layer) as activation:
            subject.model(x)
        total, rows = torch.zeros(1, 1, *x.shape[2:], device=x.device), 0
        for k in range(activation[0].shape[1]):
            upsampled = F.interpolate(activation[0][:, k : k + 1], x.shape[2:], mode="bilinear")
            low, high = upsampled.min(), upsampled.max()
            if low == high:
                continue
            mask = (upsampled - low) / (high - low)
            total += subject.model(x * mask).softmax(1)[0, target] * upsampled
            rows += 1
        return Result(total.relu()[0, 0], rows, 1)

    return explain


def naive(subject: Subject) -> Explain:
    """The naive reference of the tests, one forward per channel, in float64, so that it adds no rounding of its own."""
    from tests.naive_reference import naive_score_cam

    model = subject.model.double()

    def explain(x: Tensor, target: int) -> Result:
        # The reference creates tensors on the default device.
        with computing_in("float32", subject.device), torch.device(subject.device):
            maps = naive_score_cam(model, subject.layer, x.double(), target)
        assert isinstance(maps, Tensor)
        return Result(maps[0, 0], 0, 1)

    return explain
