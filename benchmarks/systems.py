"""The systems that are compared: each explains one image with one model and says how many masked inputs it ran."""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_scorecam import ScoreCAM
from captum_scorecam.models.classifiers import load_classifier
from captum_scorecam.scoring.freed_memory import freed_memory_kept

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))


@dataclass
class Subject:
    """A model, the layer to explain (which runs once in a forward) and where its inputs are."""

    model: nn.Module
    layer: nn.Module
    device: torch.device


@dataclass
class Result:
    """The map, and the masked inputs that were run for it in chunks of some rows."""

    map: Tensor
    rows: int
    chunk: int


System = Callable[[Tensor, int], Result]


BATCHES = (2, 4, 8, 16, 32)
LAYERS = {"resnet18": "layer4", "resnet50": "layer4", "vgg16": "features.29"}
# Whether compiled, and whether in bfloat16; the same for what is compared with a floor.
OURS = {"ours": (False, False), "ours, bfloat16": (False, True)}
OURS |= {"ours, compiled": (True, False), "ours, compiled bfloat16": (True, True)}
FLOORS = OURS | {"ours, 3 rows": (False, False)}


def subject(name: str, device: str) -> Subject:
    """Builds a model by name: EfficientNet-Lite0 with ImageNet weights, or a torchvision model with random ones."""
    torch.manual_seed(0)
    model = load_classifier(name, "none" if name in LAYERS else "DEFAULT").model
    if name not in LAYERS:
        # The activation function of the head runs at the stem too, so an identity behind it is explained instead.
        model._avg_pooling = nn.Sequential(nn.Identity(), model._avg_pooling)
    layer = model.get_submodule(LAYERS.get(name, "_avg_pooling.0"))
    return Subject(model.to(device), layer, torch.device(device))


def chunk_of(score_cam: ScoreCAM) -> int:
    """The rows in a forward, once one shape has been explained."""
    (chunk_size,) = score_cam._chunk_sizes._tuned.values()
    return chunk_size.rows


def ours(
    subject: Subject, compiled: bool = False, bfloat16: bool = False, n_targets: int = 1, rows: int | None = None
) -> System:
    forward = torch.compile(subject.model) if compiled else subject.model
    score_cam = ScoreCAM(forward, subject.layer)

    def explain(x: Tensor, target: int) -> Result:
        targets = [(target + i) % 1000 for i in range(n_targets)]
        with torch.autocast(subject.device.type, torch.bfloat16, enabled=bfloat16):
            maps = score_cam.attribute_targets(x, targets, perturbations_per_eval=rows)
        return Result(maps[0, 0].float(), score_cam.last_run.rows, rows or chunk_of(score_cam))

    return explain


def floor(subject: Subject, compiled: bool, bfloat16: bool) -> Callable[[Tensor, int, int], None]:
    """A bare loop of forwards over ready inputs, in ours' memory format and with freed memory kept, as ours does."""
    forward = torch.compile(subject.model) if compiled else subject.model

    def run(x: Tensor, rows: int, chunk: int) -> None:
        ready = x.repeat(chunk, 1, 1, 1).contiguous(memory_format=torch.channels_last)
        autocast = torch.autocast(subject.device.type, torch.bfloat16, enabled=bfloat16)
        with torch.no_grad(), autocast, freed_memory_kept(subject.device):
            for done in range(0, rows, chunk):
                forward(ready if compiled else ready[: min(chunk, rows - done)])

    return run


def grad_cam(subject: Subject, batch: int) -> System:
    from pytorch_grad_cam import ScoreCAM as PeerScoreCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    method = PeerScoreCAM(subject.model, [subject.layer])
    method.batch_size = batch

    def explain(x: Tensor, target: int) -> Result:
        activation: list[Tensor] = []
        hook = subject.layer.register_forward_hook(lambda *call: activation.append(call[2].detach()))
        with contextlib.redirect_stderr(io.StringIO()):
            weights_and_map = method(x, [ClassifierOutputTarget(target)])
        hook.remove()
        return Result(torch.from_numpy(weights_and_map[0]), activation[0].shape[1], batch)

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
    """The recipe of the code that the authors released: one channel at a time, probabilities as weights."""

    def explain(x: Tensor, target: int) -> Result:
        activation: list[Tensor] = []
        hook = subject.layer.register_forward_hook(lambda *call: activation.append(call[2].detach()))
        total, rows = torch.zeros(1, 1, *x.shape[2:], device=x.device), 0
        with torch.no_grad():
            subject.model(x)
            hook.remove()
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
    from naive_reference import naive_score_cam

    def explain(x: Tensor, target: int) -> Result:
        maps = naive_score_cam(subject.model, subject.layer, x, target)
        return Result(maps[0, 0].float(), 0, 1)

    return explain


def systems(subject: Subject) -> dict[str, Callable[[], System]]:
    """All systems by name; each is built when it is called for."""
    warnings.filterwarnings("ignore", module="torchcam|pytorch_grad_cam")
    named: dict[str, Callable[[], System]] = {}
    for name, (compiled, bfloat16) in OURS.items():
        named[name] = lambda c=compiled, b=bfloat16: ours(subject, c, b)
    named["ours, 3 rows"] = lambda: ours(subject, rows=3)
    named["ours, five targets"] = lambda: ours(subject, n_targets=5)
    for batch in BATCHES:
        named[f"grad-cam, batch {batch}"] = lambda b=batch: grad_cam(subject, b)
        named[f"torchcam, batch {batch}"] = lambda b=batch: torchcam(subject, b)
    named["released loop"] = lambda: released(subject)
    named["naive"] = lambda: naive(subject)
    return named
