"""The implementations to compare: each explains one image with one model."""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_scorecam import ScoreCAM, freed_memory_kept
from captum_scorecam.models import Classifier, load_classifier

sys.path.insert(0, str(Path(__file__).parents[1]))  # for tests.naive_reference


@dataclass
class Subject:
    """A model, the layer to explain (which runs once per forward) and the device of both."""

    model: nn.Module
    layer: nn.Module
    device: torch.device


@dataclass
class Result:
    """The map, the number of masked inputs that were run for it, and how many of them a forward had."""

    map: Tensor
    rows: int
    rows_per_forward: int


System = Callable[[Tensor, int], Result]


BATCHES = (2, 4, 8, 16, 32)
LAYERS = {"resnet18": "layer4", "resnet50": "layer4", "vgg16": "features.29"}
# Whether the model is compiled, and whether it runs in bfloat16.
OURS = {"ours": (False, False), "ours, bfloat16": (False, True)}
OURS |= {"ours, compiled": (True, False), "ours, compiled bfloat16": (True, True)}
FLOORS = OURS | {"ours, 3 rows": (False, False)}


def benchmarked_classifier(name: str) -> Classifier:
    """A classifier by name: EfficientNet-Lite with ImageNet weights, or a torchvision model with random ones."""
    return load_classifier(name, "none" if name in LAYERS else "DEFAULT")


def subject(name: str, device: str) -> Subject:
    """Builds a model by name; random weights are the same in every process."""
    torch.manual_seed(0)
    model = benchmarked_classifier(name).model
    if name not in LAYERS:
        # The activation function of the head runs at the stem too, so an identity after it is explained instead.
        model._avg_pooling = nn.Sequential(nn.Identity(), model.get_submodule("_avg_pooling"))
    layer = model.get_submodule(LAYERS.get(name, "_avg_pooling.0"))
    return Subject(model.to(device), layer, torch.device(device))


def ours(
    subject: Subject, compiled: bool = False, bfloat16: bool = False, n_targets: int = 1, rows: int | None = None
) -> System:
    forward = torch.compile(subject.model) if compiled else subject.model
    score_cam = ScoreCAM(forward, subject.layer)

    def explain(x: Tensor, target: int) -> Result:
        targets = [(target + i) % 1000 for i in range(n_targets)]
        with freed_memory_kept(), torch.autocast(subject.device.type, torch.bfloat16, enabled=bfloat16):
            maps = score_cam.attribute_targets(x, targets, perturbations_per_eval=rows)
        assert isinstance(maps, Tensor)
        assert score_cam.last_run is not None
        return Result(maps[0, 0].float(), score_cam.last_run.rows, score_cam.last_run.rows_per_forward)

    return explain


def floor(subject: Subject, compiled: bool, bfloat16: bool) -> Callable[[Tensor, int, int], None]:
    """A bare loop of forwards over prepared inputs, with our memory format and with freed memory kept, as ours does."""
    forward = torch.compile(subject.model) if compiled else subject.model

    def run(x: Tensor, rows: int, rows_per_forward: int) -> None:
        batch = x.repeat(rows_per_forward, 1, 1, 1).contiguous(memory_format=torch.channels_last)
        autocast = torch.autocast(subject.device.type, torch.bfloat16, enabled=bfloat16)
        with torch.no_grad(), autocast, freed_memory_kept():
            for done in range(0, rows, rows_per_forward):
                forward(batch if compiled else batch[: min(rows_per_forward, rows - done)])

    return run


@contextlib.contextmanager
def recorded_activation(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Collects the layer's outputs in the body."""
    outputs: list[Tensor] = []
    hook = layer.register_forward_hook(lambda *call: outputs.append(call[2].detach()))
    try:
        yield outputs
    finally:
        hook.remove()


def grad_cam(subject: Subject, batch: int) -> System:
    from pytorch_grad_cam import ScoreCAM as PeerScoreCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    method = PeerScoreCAM(subject.model, [subject.layer])
    method.batch_size = batch

    def explain(x: Tensor, target: int) -> Result:
        with recorded_activation(subject.layer) as activation, contextlib.redirect_stderr(io.StringIO()):
            maps = method(x, [ClassifierOutputTarget(target)])
        return Result(torch.from_numpy(maps[0]), activation[0].shape[1], batch)

    return explain


def torchcam(subject: Subject, batch: int) -> System:
    from torchcam.methods import ScoreCAM as PeerScoreCAM

    def explain(x: Tensor, target: int) -> Result:
        with PeerScoreCAM(subject.model, subject.layer, batch_size=batch) as method:
            with torch.inference_mode():
                output = subject.model(x)
            (maps,) = method(target, output, normalized=False)
            return Result(maps[0].float(), method.hook_a[0].shape[1], batch)

    return explain


def released(subject: Subject) -> System:
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


def naive(subject: Subject) -> System:
    """The naive reference of the tests, one forward per channel."""
    from tests.naive_reference import naive_score_cam

    def explain(x: Tensor, target: int) -> Result:
        maps = naive_score_cam(subject.model, subject.layer, x, target)
        assert isinstance(maps, Tensor)
        return Result(maps[0, 0].float(), 0, 1)

    return explain


def systems(subject: Subject) -> dict[str, Callable[[], System]]:
    """All systems by name, each as a function that builds it."""
    warnings.filterwarnings("ignore", module="torchcam|pytorch_grad_cam")
    named: dict[str, Callable[[], System]] = {}
    for name, (compiled, bfloat16) in OURS.items():
        named[name] = partial(ours, subject, compiled, bfloat16)
    named["ours, 3 rows"] = partial(ours, subject, rows=3)
    named["ours, five targets"] = partial(ours, subject, n_targets=5)
    for batch in BATCHES:
        named[f"grad-cam, batch {batch}"] = partial(grad_cam, subject, batch)
        named[f"torchcam, batch {batch}"] = partial(torchcam, subject, batch)
    named["released loop"] = partial(released, subject)
    named["naive"] = partial(naive, subject)
    return named
