"""On two fake GPUs: the values of the CPU, no tensors of several devices in one operation, and no chunk is waited for.

This file runs itself in another process, since the GPUs are registered for good.
"""

from __future__ import annotations

import json
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor, nn

from captum_scorecam import RISE, ScoreCAM
from captum_scorecam.metrics import functional
from tests.support import fake_gpu

X = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))
MAPS = torch.rand(2, 1, 12, 12, generator=torch.Generator().manual_seed(2))
FEW, MANY = 40, 3  # rows per forward pass

Result: TypeAlias = Any  # a tensor, or a tuple of them


class Places:
    """Where a check has its tensors: on the GPUs, or all of them on the CPU."""

    def __init__(self, fake: bool) -> None:
        self._fake = fake

    def device(self, index: int) -> torch.device:
        return torch.device("gpu", index) if self._fake else torch.device("cpu")

    def put(self, value: Any, index: int = 1) -> Any:
        return fake_gpu.on_gpu(value, index) if self._fake else value


def net() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 24, 3), nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5)).eval()


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class Weighted(nn.Module):
    """Takes an additional argument, on any device."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, weights: Tensor) -> Any:
        return self.model(x) * weights.to(x.device).view(-1, 1)


class TwoInputs(nn.Module):
    """Takes an input on each GPU."""

    def __init__(self, places: Places) -> None:
        super().__init__()
        self.first, self.second = places.put(net(), 0), places.put(net(), 1)
        self.device = places.device(1)

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.first(x).to(self.device) + 2 * self.second(y)


class Pipeline(nn.Module):
    """A part on each GPU."""

    def __init__(self, places: Places) -> None:
        super().__init__()
        self.first, self.second = places.put(net()[:3], 0), places.put(net()[3:], 1)
        self.device = places.device(1)

    def forward(self, x: Tensor) -> Any:
        return self.second(self.first(x).to(self.device))


def score_cam(places: Places, **options: Any) -> Result:
    call = {"perturbations_per_eval": options.pop("perturbations_per_eval", None), "relu_attributions": False}
    model = places.put(net())
    method = ScoreCAM(model, options.pop("layer", model[4]), **options)
    return method.attribute_with_error(places.put(X), [1, 2], **call)


def baselines_and_targets_on_another(places: Places) -> Result:
    model, baselines = places.put(net()), places.put(torch.full((1, 3, 12, 12), 0.2), 0)
    targets = places.put(torch.tensor([1, 2]), 0)
    return ScoreCAM(model, model[4]).attribute(places.put(X), targets, baselines=baselines)


def targets_of_each_example(places: Places) -> Result:
    model = places.put(net())
    return ScoreCAM(model, model[4]).attribute_targets(places.put(X), torch.tensor([[1, 2], [0, 3]]))


def additional_argument_on_the_cpu(places: Places) -> Result:
    model, x, weights = Weighted(places.put(net())), places.put(X), torch.tensor([0.5, 2.0])
    run: Any = functional
    return (
        ScoreCAM(model, model.get_submodule("model.4")).attribute(x, 1, weights),
        ScoreCAM(model, "auto").attribute(x, 1, weights),
        RISE(model, n_masks=50).attribute(x, 1, weights, generator=generator()),
        run.insertion(model, x, MAPS, 1, additional_forward_args=weights).scores,
    )


def input_on_each_gpu(places: Places, n_examples: int) -> Result:
    model, inputs = TwoInputs(places), tuple(places.put(X[:n_examples], index) for index in (0, 1))
    method = ScoreCAM(model, model.first[4], masked_forward_func=lambda *both: model(*both))
    maps = RISE(model, n_masks=50).attribute(inputs, 1, generator=generator())
    assert [each.device for each in maps] == [x.device for x in inputs]
    return ScoreCAM(model, model.first[4]).attribute(inputs, 1), method.attribute(inputs, 1), *maps


def in_a_pipeline(places: Places) -> Result:
    model = Pipeline(places)
    return ScoreCAM(model, model.second[1]).attribute(places.put(X, 0), [1, 2], relu_attributions=False)


class ActivationOnEach(nn.Module):
    """Runs one module for activations on each GPU."""

    def __init__(self, places: Places) -> None:
        super().__init__()
        self.first, self.second, self.head = places.put(net()[:2], 0), places.put(net()[3]), places.put(net()[5:])
        self.activation, self.device = nn.ReLU(), places.device(1)

    def forward(self, x: Tensor) -> Any:
        x = self.activation(self.first(x)).to(self.device)
        return self.head(self.activation(self.second(x)))


def activation_on_each(places: Places) -> Result:
    model = ActivationOnEach(places)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        maps = ScoreCAM(model, model.activation).attribute(places.put(X, 0), 1, relu_attributions=False)
    assert "ran 2 times in one forward pass; its last call is explained" in str(caught[0].message)
    return maps


def of_cpu_inputs(places: Places) -> Result:
    model = places.put(net())
    return ScoreCAM(lambda x: model(x.to(places.device(1))).cpu(), model[4]).attribute(X, [1, 2])


def rise(places: Places, perturbations_per_eval: int | None = None) -> Result:
    method, call = RISE(places.put(net()), n_masks=50), {"perturbations_per_eval": perturbations_per_eval}
    return method.attribute_with_error(places.put(X), 1, generator=generator(), **call)


def curves(places: Places, perturbations_per_eval: int | None = None) -> Result:
    model, x, call = places.put(net()), places.put(X), {"perturbations_per_eval": perturbations_per_eval}
    run: Any = functional
    insertion, deletion = run.insertion(model, x, places.put(MAPS), 1, **call), run.deletion(model, x, MAPS, 1, **call)
    return insertion.scores, deletion.scores


CHECKS: dict[str, Callable[[Places], Result]] = {
    "softmax": score_cam,
    "increase": lambda places: score_cam(places, channel_weighting="increase"),
    "automatic layer": lambda places: score_cam(places, layer="auto"),
    "budget": lambda places: score_cam(places, channel_weighting="increase", max_forwards=10),
    "budget of softmax": lambda places: score_cam(places, max_forwards=10),
    "budget of sigmoids": lambda places: score_cam(
        places, channel_weighting="increase", score="sigmoid", max_forwards=10
    ),
    "error": lambda places: score_cam(places, channel_weighting="increase", error=0.1),
    "baselines and targets on another GPU": baselines_and_targets_on_another,
    "targets of each example": targets_of_each_example,
    "additional argument on the CPU": additional_argument_on_the_cpu,
    "an input on each GPU": lambda places: input_on_each_gpu(places, 1),
    "two inputs on each GPU": lambda places: input_on_each_gpu(places, 2),
    "pipeline": in_a_pipeline,
    "activation module on each GPU": activation_on_each,
    "inputs on the CPU": of_cpu_inputs,
    "RISE": rise,
    "insertion and deletion": curves,
}
CHUNKED: dict[str, Callable[[Places, int], Result]] = {
    "softmax": lambda places, rows: score_cam(places, perturbations_per_eval=rows),
    "RISE": rise,
    "insertion and deletion": curves,
}


def differences(result: Result, expected: Result) -> list[str]:
    pairs = [each if isinstance(each, tuple) else (each,) for each in (result, expected)]
    return [
        f"differs by {difference:.3g}"
        for actual, wanted in zip(*pairs, strict=True)
        if not (difference := float((fake_gpu.on_cpu(actual) - wanted).abs().max())) <= 1e-5 * float(wanted.abs().max())
    ]


def waits_of_chunks(check: Callable[[Places, int], Result]) -> list[str]:
    """What waits for the GPU more often in more chunks."""
    counts = []
    for rows in (FEW, MANY):
        fake_gpu.waits.clear()
        check(Places(fake=True), rows)
        counts.append(fake_gpu.waits.copy())
    return [f"{name} waits {n} times more often" for name, n in (counts[1] - counts[0]).items()]


def faults() -> dict[str, list[str]]:
    """The faults of each check, found on the fake GPUs of this process."""
    fake_gpu.install()
    warnings.simplefilter("ignore")
    runs: dict[str, Callable[[], list[str]]] = {
        name: lambda check=check: differences(check(Places(fake=True)), check(Places(fake=False)))  # type: ignore[misc]
        for name, check in CHECKS.items()
    }
    for name, chunked in CHUNKED.items():
        runs[f"{name} in chunks"] = lambda chunked=chunked: waits_of_chunks(chunked)  # type: ignore[misc]
    found = {}
    for name, run in runs.items():
        try:
            with fake_gpu.FakeGpus():
                found[name] = run()
        except Exception as error:
            found[name] = [repr(error), *traceback.format_tb(error.__traceback__)[-2:]]
    return found


@pytest.mark.slow
@pytest.mark.skipif(not fake_gpu.AVAILABLE, reason="PyTorch registers no backends written in Python")
def test_on_fake_gpus() -> None:
    folder = Path(__file__).parents[1]
    run = subprocess.run([sys.executable, "-m", __name__], capture_output=True, text=True, cwd=folder, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == {name: [] for name in (*CHECKS, *(f"{name} in chunks" for name in CHUNKED))}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(faults()))
