"""The troubleshooting page quotes the errors and warnings of the package, and misses none of the library's."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from captum.attr import LayerActivation, Saliency
from torch import Tensor, nn
from torch.nn import functional

from captum_scorecam import RISE, InputSpaceAttribution, MeaningfulPerturbation, ScoreCAM, vit_activation_maps
from captum_scorecam.metrics import AverageDrop, plot_curves
from captum_scorecam.metrics import functional as F
from tests.support.small_net import Net, images

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/guide/troubleshooting.rst").read_text(encoding="utf-8")
QUOTED = re.findall(r"^``(.+)``$", PAGE, re.MULTILINE)
NOT_ALL_QUOTED = ("app", "command_line", "models", "datasets", "evaluation", "_environment.py")


def text_of(node: ast.expr) -> str:
    """A message as the page quotes it, with "…" for each value."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(value) for value in node.values)
    return "…"


def messages_of(path: Path) -> list[str]:
    """The messages of a file's errors and warnings."""
    calls = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            calls.append(node.exc)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "warn_caller":
            calls.append(node)
    return [text_of(call.args[0]) for call in calls]


FILES = sorted((ROOT / "captum_scorecam").rglob("*.py"))
MESSAGES = {path.relative_to(ROOT / "captum_scorecam"): messages_of(path) for path in FILES}


def test_every_warning_goes_through_one_function() -> None:
    """Ensures that the search above finds every message."""
    assert [path.name for path in FILES if "warnings.warn(" in path.read_text(encoding="utf-8")] == ["_messages.py"]


def test_the_page_quotes_messages() -> None:
    assert len(QUOTED) > 50
    assert len(QUOTED) == len(set(QUOTED))


def test_quoted_messages_are_in_the_source() -> None:
    assert [quoted for quoted in QUOTED if not any(quoted in messages for messages in MESSAGES.values())] == []


def explains_itself(message: str) -> bool:
    """Whether a message starts with the name of an option or an argument."""
    return message.startswith("Expected `")


def test_no_message_of_the_library_is_missing() -> None:
    library = {m for path, of_file in MESSAGES.items() if path.parts[0] not in NOT_ALL_QUOTED for m in of_file}
    assert len(library) > 80
    assert sorted(message for message in library - set(QUOTED) if not explains_itself(message)) == []


class Reused(Net):
    """A network whose ReLU runs twice."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.relu(x))


def attribute(
    net: nn.Module | None = None,
    layer: str = "relu",
    inputs: Any = None,
    target: int | None = 0,
    grad_kwargs: dict[str, Any] | None = None,
    attr_dim_summation: bool = True,
    **options: Any,
) -> object:
    net = net or Net()
    score_cam = ScoreCAM(net, net.get_submodule(layer), **options)
    return score_cam.attribute(
        images() if inputs is None else inputs,
        target,
        grad_kwargs=grad_kwargs,
        attr_dim_summation=attr_dim_summation,
    )


def of_dictionary() -> object:
    net = Net()
    return ScoreCAM(lambda x: {"logits": net(x)}, net.relu).attribute(images(), 0)


def of_one_score() -> object:
    net = Net()
    cam = ScoreCAM(lambda x: net(x)[:, 0], net.relu, score="probability", channel_weighting="score")
    return cam.attribute(images())


def of_vector() -> object:
    net = Net()
    return InputSpaceAttribution(LayerActivation(net, net.fc)).attribute(images())


def narrow() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return attribute(nn.Sequential(Net(), nn.Softmax(1)), "0.relu")


def functional_dropout(always: bool = False) -> nn.Module:
    class Dropping(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(functional.dropout(x, training=self.training or always))

    net = Dropping()
    net.norm = nn.Identity()  # type: ignore[assignment]
    return net.eval()


def without_statistics() -> nn.Module:
    net = Net()
    net.norm = nn.BatchNorm2d(6, track_running_stats=False).double()
    return net.eval()


# The beginning of a message → a call that triggers it.
CALLS: dict[str, Callable[[], object]] = {
    "Expected `layer` to run": lambda: ScoreCAM(Net(), Net().relu).attribute(images(), 0),
    "layer ReLU() ran 2 times": lambda: attribute(Reused()),
    "Expected maps with 2 spatial": lambda: attribute(activation_transform=lambda z: z.flatten(2)),
    "Expected the layer to return maps": lambda: attribute(layer="fc"),
    "Expected the layer to return floating": lambda: attribute(activation_transform=lambda z: z.long()),
    "Expected activations of": lambda: attribute(activation_transform=lambda z: z.transpose(0, 1)),
    "Expected finite activations": lambda: attribute(activation_transform=lambda z: z / 0),
    "Expected a map with": of_vector,
    "Expected tokens": lambda: vit_activation_maps(torch.rand(1, 4, 4, 8)),
    "Expected 2×2 patch tokens": lambda: vit_activation_maps(torch.rand(1, 7, 4)),
    "`score` is an option": lambda: ScoreCAM(Net(), nn.ReLU()).attribute(images(), 0, score="probability"),
    "Target not provided": lambda: attribute(target=None),
    "Expected floating-point inputs": lambda: attribute(inputs=torch.zeros(1, 3, 8, 8, dtype=torch.uint8)),
    "Expected inputs of shape": lambda: attribute(inputs=images()[0, 0]),
    "Expected inputs with the same non-zero": lambda: attribute(inputs=(images(), images()[:1])),
    "Expected at least one target": lambda: ScoreCAM(Net(), nn.ReLU()).attribute_targets(images(), []),
    "Expected `forward_func` to return": of_dictionary,
    "Expected an output of shape": of_one_score,
    "Expected two or more classes": lambda: RISE(lambda x: Net()(x)[:, :1]).attribute(images(), 0),
    "Expected an output with one row": lambda: attribute(score=lambda output: output.mean(0, keepdim=True)),
    "Expected finite scores of the inputs": lambda: attribute(score=lambda output: output / 0),
    "All channels of the layer are constant": lambda: attribute(inputs=images() * 0),
    "The softmax of probabilities": lambda: attribute(score="probability"),
    "The scores of the masked inputs differ": narrow,
    "The model is in training mode": lambda: attribute(Net().train()),
    "The model draws random numbers in": lambda: attribute(functional_dropout().train()),
    "The model draws random numbers:": lambda: attribute(functional_dropout(always=True)),
    "The model has a BatchNorm2d without": lambda: attribute(without_statistics()),
    "Score-CAM uses no gradients": lambda: attribute(grad_kwargs={}),
    "Expected score='probability'": lambda: attribute(tolerance=0.1),
    "Expected neither": lambda: attribute(
        tolerance=0.1, score="probability", channel_weighting="score", attr_dim_summation=False
    ),
    "Expected inputs with the same number": lambda: RISE(Net()).attribute((images(), images()[..., 0]), 0),
    "Expected scores that are differentiable": lambda: MeaningfulPerturbation(
        lambda x: Net()(x).detach(), n_iterations=1
    ).attribute(images(), 0),
    "Expected attributions of shape N×1": lambda: F.insertion(Net(), images(), images()[:, 0], 0),
    "Expected an attribution for each": lambda: F.insertion(Net(), (images(), images()), images(), 0),
    "Expected non-negative scores": lambda: F.average_drop(torch.tensor([-1.0]), torch.tensor([0.5])),
    "Expected probabilities in [0, 1]": lambda: F.average_gain(torch.tensor([2.0]), torch.tensor([0.5])),
    "Expected a `keep_fraction`": lambda: F.masked_input_scores(
        Net(), images(), images(), 0, mask="binary", keep_fraction=None
    ),
    "Expected `attributions` to be finite": lambda: F.pointing_game(torch.zeros(1, 1, 4, 4) / 0, [torch.ones(1, 4)]),
    "Expected `attributions` to be a floating": lambda: F.insertion(Net(), images(), images().long(), 0),
    "Expected finite scores of the perturbed": lambda: F.infidelity(
        Saliency(Net()), images().requires_grad_(), 0, perturb_func=lambda x: (x, x / 0)
    ),
    "Expected `regions` to be": lambda: F.pointing_game(torch.rand(2, 1, 4, 4), [torch.ones(1, 4)]),
    "Expected every region": lambda: F.pointing_game(torch.rand(1, 1, 4, 4), [torch.empty(0, 4)]),
    "Expected boxes of shape": lambda: F.pointing_game(torch.rand(1, 1, 4, 4), [torch.tensor([0, 0, 1, 1])]),
    "Expected finite boxes": lambda: F.pointing_game(torch.rand(1, 1, 9, 9), [torch.tensor([[5, 5, 2, 2]])]),
    "Expected boxes in pixels": lambda: F.pointing_game(torch.rand(1, 1, 9, 9), [torch.rand(1, 4)]),
    "Expected boxes within": lambda: F.pointing_game(torch.rand(1, 1, 7, 7), [torch.tensor([[30, 40, 120, 160]])]),
    "Expected curves with": lambda: plot_curves(
        {"insertion": SimpleNamespace(x=[0.0], y=[1.0]), "layers": SimpleNamespace(x=["fc"], y=[1.0])}
    ),
    "Expected at least one example": lambda: AverageDrop().compute(),
}


@pytest.mark.parametrize("beginning", CALLS)
@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_raised_message_is_on_the_page(beginning: str) -> None:
    with pytest.raises((Exception, UserWarning)) as caught:
        CALLS[beginning]()
    message = str(caught.value)
    assert message.startswith(beginning)
    patterns = [re.escape(quoted).replace("…", ".+") for quoted in QUOTED]
    assert sum(re.fullmatch(pattern, message, re.DOTALL) is not None for pattern in patterns) == 1
