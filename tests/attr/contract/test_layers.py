"""Layers of every kind: what hooks can read is explained, everything else is refused by name."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_scorecam import LayerGradCamPlusPlus, ScoreCAM
from tests.support.attributions import OURS, Method, each
from tests.support.small_net import images

OF_LAYER = {name: method for name, method in OURS.items() if method.of_layer}
Pair = namedtuple("Pair", ["maps", "others"])


class ModelOutput(OrderedDict[str, Any]):
    """As in transformers: a mapping with attributes."""

    logits: Tensor


@dataclass
class Features:
    maps: Tensor


class Block(nn.Module):
    """Returns its maps in some container; two submodules return tensors."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.ReLU()
        self.kind = kind

    def forward(self, x: Tensor, mask: Tensor | None = None, scale: float = 1.0) -> Any:
        z = self.second(self.first(x)) * scale
        z = z if mask is None else z * mask
        containers: dict[str, Any] = {
            "tensor": z,
            "list": [z, z * 2],
            "named tuple": Pair(z, z * 2),
            "dict": {"maps": z},
            "model output": ModelOutput(maps=z),
            "dataclass": Features(z),
            "tuple with None": (z, None),
            "nested tuple": (z, (z,)),
            "empty tuple": (),
        }
        return containers[self.kind]


class Net(nn.Module):
    def __init__(self, kind: str, call: str = "positional") -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.block, self.fc = Block(kind), nn.Linear(6, 7)
        self.unused = nn.ModuleList([nn.Conv2d(3, 3, 1)])
        self.call = call
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        arguments: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
            "positional": ((x,), {}),
            "keywords": ((), {"x": x, "scale": 2.0}),
            "with None": ((x, None), {"scale": 2.0}),
            "keywords with None": ((), {"x": x, "mask": None}),
        }
        args, kwargs = arguments[self.call]
        out = self.block(*args, **kwargs)
        parts = list(out.values()) if isinstance(out, dict) else getattr(out, "maps", out)
        z = parts if isinstance(parts, Tensor) else parts[0] if len(parts) else x[:, :1].expand(-1, 6, -1, -1)
        scores: Tensor = self.fc(z.mean((2, 3)))
        return scores


@each(OF_LAYER)
@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("dict", "returns dict"),
        ("model output", "returns ModelOutput"),
        ("dataclass", "returns Features"),
        ("tuple with None", "returns tuple of Tensor, NoneType"),
        ("nested tuple", "returns tuple of Tensor, tuple"),
    ],
)
def test_a_layer_that_returns_no_tensors_names_its_submodules_that_do(method: Method, kind: str, found: str) -> None:
    net = Net(kind)
    if method.call.get("attribute_to_layer_input"):
        return
    submodules = r"Its submodules that return tensors: first \(2, 6, 12, 10\), second \(2, 6, 12, 10\)\."
    with pytest.raises(TypeError, match=f"Expected `layer` to return a tensor or a tuple of tensors, .*{found}"
                                        rf"\. {submodules}"):  # fmt: skip
        method.explain(net, net.block, images(), 2)
    assert not net.block._forward_hooks
    assert not net.block.first._forward_hooks


def test_a_layer_that_returns_nothing_says_so() -> None:
    net = Net("empty tuple")
    for attribution in (ScoreCAM, LayerGradCamPlusPlus):
        with pytest.raises(TypeError, match="returns an empty tuple"):
            attribution(net, net.block).attribute(images(), 2)


@pytest.mark.parametrize("kind", ["list", "named tuple"])
@pytest.mark.parametrize("attribution", [ScoreCAM, LayerGradCamPlusPlus])
def test_a_layer_that_returns_several_tensors_gives_several_maps(kind: str, attribution: Any) -> None:
    net, other = Net(kind), Net("tensor")
    unused = {"allow_unused": True, "materialize_grads": True} if attribution is LayerGradCamPlusPlus else None
    maps = attribution(net, net.block).attribute(images(), 2, grad_kwargs=unused)
    assert isinstance(maps, tuple)
    torch.testing.assert_close(maps[0], attribution(other, other.block).attribute(images(), 2))


@pytest.mark.parametrize("attribution", [ScoreCAM, LayerGradCamPlusPlus])
@pytest.mark.parametrize("call", ["keywords", "with None", "keywords with None"])
def test_the_input_of_a_layer_is_its_tensors_whichever_way_they_are_passed(attribution: Any, call: str) -> None:
    net = Net("tensor", call)
    same = nn.Sequential(front := nn.Identity(), net)
    actual = attribution(net, net.block).attribute(images(), 2, attribute_to_layer_input=True)
    torch.testing.assert_close(actual, attribution(same, front).attribute(images(), 2))


@pytest.mark.parametrize("attribution", [ScoreCAM, LayerGradCamPlusPlus])
@pytest.mark.parametrize("call", ["keywords", "with None", "keywords with None"])
def test_the_output_of_a_layer_does_not_depend_on_how_it_is_called(attribution: Any, call: str) -> None:
    net, other = Net("tensor", call), Net("tensor")
    actual = attribution(net, net.block).attribute(images(), 2)
    expected = attribution(other, other.block).attribute(images(), 2)
    factor = {"keywords with None": 1.0}.get(call, 2.0)
    if attribution is LayerGradCamPlusPlus:
        assert actual.shape == expected.shape
    else:
        assert float((actual / factor - expected).abs().max()) < float(expected.abs().max())


@each(OF_LAYER)
@pytest.mark.parametrize("layer", [None, 3, ["block"], nn.Parameter(torch.zeros(2)), (nn.ReLU(),)])
def test_something_that_is_no_layer_is_refused_by_the_constructor(method: Method, layer: Any) -> None:
    with pytest.raises(TypeError, match="Expected `layer` to be a module"):
        method.made(Net("tensor"), layer)


@each(OF_LAYER)
def test_a_list_of_modules_that_does_not_run_itself_is_named(method: Method) -> None:
    net = Net("tensor")
    with pytest.raises(ValueError, match=r"Expected `layer` to run .* but layer ModuleList\(.* did not run"):
        method.explain(net, net.unused, images(), 2)


@each(OF_LAYER)
@pytest.mark.filterwarnings("ignore:.torch.jit.trace.* is deprecated")
def test_a_layer_of_torchscript_has_no_hooks(method: Method) -> None:
    traced = torch.jit.trace(Net("tensor"), images())  # type: ignore[no-untyped-call]
    with pytest.raises(TypeError, match="got a TorchScript module, which takes none"):
        method.made(traced, traced.block)


@each(OURS)
@pytest.mark.parametrize(
    "target",
    [
        torch.tensor([2, 3], dtype=torch.uint8),
        torch.tensor([2, 3], dtype=torch.int32),
        torch.tensor(2, dtype=torch.int16),
        [torch.tensor(2), torch.tensor(3)],
    ],
)
def test_class_indices_of_any_integer_type_are_understood(method: Method, target: Any) -> None:
    net, x = Net("tensor"), images()
    same = [2, 3] if isinstance(target, list) or target.dim() else 2
    method.assert_close(
        method.explain(net, net.block, x, target), method.explain(net, net.block, x, same), tolerance=1e-12
    )


@each(OURS)
@pytest.mark.parametrize("target", [True, [True, False], torch.tensor([True, False]), torch.tensor([1.0, 2.0])])
def test_targets_that_are_no_class_indices_raise_before_any_forward(method: Method, target: Any) -> None:
    net = Net("tensor")
    calls: list[int] = []
    net.register_forward_pre_hook(lambda _module, taken: calls.append(len(taken[0])))
    with pytest.raises(TypeError, match="Expected `target` to hold class indices as integers, but got"):
        method.explain(net, net.block, images(), target)
    assert calls == []


@each(OURS, lambda method: not callable(method.options.get("score")))
def test_logits_of_an_output_are_read(method: Method) -> None:
    class HuggingFace(Net):
        def forward(self, x: Tensor) -> Any:
            output = ModelOutput(logits=super().forward(x))
            output.logits = output["logits"]
            return output

    net, other, x = HuggingFace("tensor"), Net("tensor"), images()
    actual, expected = (method.explain(each, each.block, x, 2) for each in (net, other))
    method.assert_close(actual, expected)
