"""A tap makes a layer of an activation that no hook can read: the maps are those of the eager model's layer."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from torch import Tensor, nn

from captum_scorecam import ActivationTap, InputSpaceAttribution, LayerGradCamPlusPlus, ScoreCAM, vit_activation_maps
from tests.naive_reference import naive_score_cam
from tests.support.small_net import assert_close, images

Forward = Callable[[Tensor], Tensor]
TwoOutputs = Callable[[Tensor], tuple[Any, Any]]


class TwoHeads(nn.Module):
    """Returns its maps beside the logits; its ReLU is a module, so that the eager model has a layer."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv, self.relu, self.fc = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Linear(12, 7)
        self.fc.weight.data.mul_(60)
        self.eval()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.relu(self.conv(x))
        return z, self.fc(F.avg_pool2d(z, 3).flatten(1))


class WithDict(TwoHeads):
    def forward(self, x: Tensor) -> Any:
        maps, logits = super().forward(x)
        return {"features": {"last": maps}, "logits": logits}


class Functional(TwoHeads):
    """Its activation is a function's, which a tap inside the model makes a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.tap = ActivationTap()

    def forward(self, x: Tensor) -> Any:
        z = self.tap(F.relu(self.conv(x)))
        return self.fc(F.avg_pool2d(z, 3).flatten(1))


@pytest.fixture
def x() -> Tensor:
    return images(2, torch.float32)


def logits_of(model: TwoOutputs) -> Forward:
    def forward(x: Tensor) -> Tensor:
        logits: Tensor = model(x)[1]
        return logits

    return forward


def tapped(model: TwoOutputs, tap: nn.Module) -> Forward:
    """The function of the guide: gives the tap the maps, returns the logits."""

    def forward(x: Tensor) -> Tensor:
        maps, logits = model(x)
        tap(maps)
        return torch.as_tensor(logits)

    return forward


def as_arrays(model: TwoOutputs) -> TwoOutputs:
    """Stands for a session of another engine: NumPy arrays, no gradient."""

    def session(x: Tensor) -> tuple[Any, Any]:
        with torch.no_grad():
            maps, logits = model(x)
        return maps.numpy(), logits.numpy()

    return session


def traced(net: nn.Module, x: Tensor) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.trace.* is deprecated")
        return torch.jit.trace(net, x)  # type: ignore[no-untyped-call]


def scripted(net: nn.Module, _x: Tensor) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.script.* is deprecated")
        return torch.jit.script(net)


def exported(net: nn.Module, x: Tensor) -> Any:
    return torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim("rows")},)).module()


def assert_maps_of_the_eager_layer(forward: Forward, layer: nn.Module, x: Tensor, tolerance: float = 1e-6) -> None:
    net = TwoHeads()
    expected = naive_score_cam(logits_of(net), net.relu, x, 2)
    assert isinstance(expected, Tensor)
    assert_close(ScoreCAM(forward, layer).attribute(x, 2), expected, tolerance)


@pytest.mark.parametrize("converted", [traced, scripted, exported])
def test_converted_models_give_the_eager_maps(converted: Callable[..., TwoOutputs], x: Tensor) -> None:
    tap = ActivationTap()
    assert_maps_of_the_eager_layer(tapped(converted(TwoHeads(), x), tap), tap, x)


@pytest.mark.parametrize("converted", [traced, scripted, exported])
@pytest.mark.parametrize("method", [LayerGradCamPlusPlus, LayerGradCam])
def test_converted_models_have_gradients(converted: Callable[..., TwoOutputs], method: Any, x: Tensor) -> None:
    net, tap = TwoHeads(), ActivationTap()
    forward = tapped(converted(net, x), tap)
    expected = method(logits_of(net), net.relu).attribute(x, 2).detach()
    for _ in range(3):  # TorchScript optimises the graph in the second call
        assert_close(method(forward, tap).attribute(x, 2), expected, tolerance=1e-5)


def test_arrays_of_a_session_give_the_eager_maps(x: Tensor) -> None:
    tap = ActivationTap()
    assert_maps_of_the_eager_layer(tapped(as_arrays(TwoHeads()), tap), tap, x)


def test_dict_output(x: Tensor) -> None:
    net, tap = WithDict(), ActivationTap()

    def forward(x: Tensor) -> Tensor:
        output = net(x)
        tap(output["features"]["last"])
        logits: Tensor = output["logits"]
        return logits

    assert_maps_of_the_eager_layer(forward, tap, x)


def test_functional_activation_inside_a_model(x: Tensor) -> None:
    net, plain = Functional(), TwoHeads()
    assert net.state_dict().keys() == plain.state_dict().keys()
    assert_maps_of_the_eager_layer(net, net.tap, x)
    expected = LayerGradCamPlusPlus(logits_of(plain), plain.relu).attribute(x, 2)
    assert_close(LayerGradCamPlusPlus(net, net.tap).attribute(x, 2), expected, tolerance=1e-6)


def test_transformed_tokens_and_the_size_of_the_input(x: Tensor) -> None:
    net, tap = TwoHeads(), ActivationTap()

    def tokens(x: Tensor) -> tuple[Any, Any]:
        maps, logits = net(x)
        return maps.flatten(2).mT.detach().numpy(), logits.detach().numpy()

    def transform(z: Tensor) -> Tensor:
        return vit_activation_maps(z, prefix_tokens=0, grid_size=(6, 5))

    of_tap = ScoreCAM(tapped(tokens, tap), tap, activation_transform=transform)
    actual = InputSpaceAttribution(of_tap).attribute(x, 2)
    expected = InputSpaceAttribution(ScoreCAM(logits_of(net), net.relu)).attribute(x, 2)
    assert isinstance(actual, Tensor)
    assert isinstance(expected, Tensor)
    assert_close(actual, expected, tolerance=1e-6)


def test_several_activations_give_several_maps(x: Tensor) -> None:
    def early_and_late(x: Tensor) -> tuple[Any, Any]:
        maps, logits = as_arrays(TwoHeads())(x)
        return [maps, maps[:, ::-1, ::2]], logits

    tap = ActivationTap()
    first, second = ScoreCAM(tapped(early_and_late, tap), tap).attribute(x, 2)
    net = TwoHeads()
    expected = ScoreCAM(logits_of(net), net.relu).attribute(x, 2)
    assert isinstance(expected, Tensor)
    assert_close(first, expected, tolerance=1e-6)
    assert second.shape == (2, 1, 3, 5)
    assert float(second.max()) > 0


def test_threads_share_a_tap(x: Tensor) -> None:
    tap = ActivationTap()
    score_cam = ScoreCAM(tapped(as_arrays(TwoHeads()), tap), tap, channel_weighting="increase")
    expected = [score_cam.attribute(x, target) for target in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda target: score_cam.attribute(x, target), range(4)))
    for actual, map_of_one_thread in zip(together, expected, strict=True):
        assert isinstance(map_of_one_thread, Tensor)
        assert_close(actual, map_of_one_thread, tolerance=1e-6)


# --- What a tap returns ----------------------------------------------------------------------------------------------


def test_tensors_pass_unchanged() -> None:
    z = torch.rand(2, 3, requires_grad=True)
    assert ActivationTap()(z) is z


def read_only() -> np.ndarray[Any, Any]:
    array = np.arange(6.0).reshape(2, 3)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.ones((2, 3), dtype=np.float16), id="float16"),
        pytest.param(np.arange(6.0).reshape(2, 3), id="float64"),
        pytest.param(read_only(), id="read-only, as JAX returns it"),
        pytest.param(np.arange(6.0).reshape(2, 3)[:, ::-1], id="negative strides"),
        pytest.param(np.arange(6.0).reshape(3, 2).T, id="transposed"),
    ],
)
def test_arrays_become_tensors_of_their_dtype(array: np.ndarray[Any, Any]) -> None:
    tensor = ActivationTap()(array)
    assert torch.equal(tensor, torch.tensor(array.tolist(), dtype=tensor.dtype))
    assert str(tensor.dtype) == f"torch.{array.dtype}"


@pytest.mark.parametrize("activation", [None, {"maps": torch.zeros(1)}, "layer4", (torch.zeros(1), None)])
def test_anything_else_is_refused(activation: Any) -> None:
    with pytest.raises(TypeError, match="Expected `activation` to be a tensor, a NumPy array, or a tuple or list"):
        ActivationTap()(activation)


# --- What can't be read ----------------------------------------------------------------------------------------------


def without_return(x: Tensor) -> tuple[Any, Any]:
    maps, logits = TwoHeads()(x)
    return maps.detach(), logits


@pytest.mark.parametrize("model", [as_arrays(TwoHeads()), without_return])
def test_missing_gradients_are_an_error(model: TwoOutputs, x: Tensor) -> None:
    tap = ActivationTap()
    with pytest.raises(ValueError, match="Expected scores that are differentiable with respect to the layer's activat"):
        LayerGradCamPlusPlus(tapped(model, tap), tap).attribute(x, 2)


def test_a_layer_that_the_scores_do_not_depend_on_has_no_gradient(x: Tensor) -> None:
    net, unused = TwoHeads(), nn.Conv2d(3, 2, 3)

    def forward(x: Tensor) -> Tensor:
        unused(x)
        return logits_of(net)(x)

    with pytest.raises(ValueError, match=r"they have no gradient\. ScoreCAM needs no gradients\."):
        LayerGradCamPlusPlus(forward, unused).attribute(x, 2)


@pytest.mark.parametrize("method", [ScoreCAM, LayerGradCamPlusPlus])
def test_a_layer_of_torchscript_is_refused(method: Any, x: Tensor) -> None:
    model = traced(TwoHeads(), x)
    with pytest.raises(TypeError, match="Let the model return the activation too, and pass it to an `ActivationTap`"):
        method(logits_of(model), model.relu)


@pytest.mark.parametrize("method", [ScoreCAM, LayerGradCamPlusPlus])
def test_modules_that_do_not_run_are_refused(method: Any, x: Tensor) -> None:
    program = exported(TwoHeads(), x)
    for forward, layer in [(logits_of(program), program.conv), (logits_of(TwoHeads()), ActivationTap())]:
        with pytest.raises(ValueError, match=r"did not run\. If the model runs no modules .* use an `ActivationTap`"):
            method(forward, layer).attribute(x, 2)


class Plain(nn.Module):
    """May be scripted: TorchScript knows no ``super``."""

    def __init__(self) -> None:
        super().__init__()
        net = TwoHeads()
        self.conv, self.relu, self.fc = net.conv, net.relu, net.fc

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(F.avg_pool2d(self.relu(self.conv(x)), 3).flatten(1))
        return logits


@pytest.mark.parametrize("converted", [traced, scripted, exported])
@pytest.mark.parametrize("name", ["auto", "conv"])
@pytest.mark.parametrize("method", [ScoreCAM, LayerGradCamPlusPlus])
def test_named_layers_of_converted_models_are_refused(
    converted: Callable[..., Any], name: str, method: Any, x: Tensor
) -> None:
    with pytest.raises(ValueError, match=r"TorchScript, exported programs.* an `ActivationTap`"):
        method(converted(Plain().eval(), x), name).attribute(x, 2)


@pytest.mark.parametrize("name", ["auto", "conv"])
def test_a_function_has_no_named_layers(name: str) -> None:
    with pytest.raises(TypeError, match=r"got function\. Pass the layer itself, or an `ActivationTap`"):
        ScoreCAM(logits_of(TwoHeads()), name)


def test_a_scripted_part_does_not_keep_the_layer_from_being_found(x: Tensor) -> None:
    net = Plain().eval()
    stem, rest = nn.Sequential(net.conv, net.relu), [nn.Identity(), nn.AvgPool2d(3), nn.Flatten(), net.fc]
    eager, mixed = (nn.Sequential(first, *rest).eval() for first in (stem, scripted(stem, x)))
    expected = ScoreCAM(eager, "auto").attribute(x, 2)
    assert isinstance(expected, Tensor)
    assert_close(ScoreCAM(mixed, "auto").attribute(x, 2), expected, tolerance=1e-6)


def test_the_error_of_a_layer_with_a_scripted_part_names_the_other_parts(x: Tensor) -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = scripted(nn.Conv2d(3, 4, 3), x)
            self.act = nn.ReLU()

        def forward(self, x: Tensor) -> Any:
            return {"maps": self.act(self.stem(x))}

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.holder = Holder()

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.holder(x)["maps"].mean((2, 3))
            return scores

    net = Outer().eval()
    with pytest.raises(TypeError, match=r"returns dict\. Its submodules that return tensors: act \(2, 4, 10, 8\)"):
        ScoreCAM(net, net.holder).attribute(x, 2)


# --- ONNX Runtime ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[None, 2], ids=["any batch", "batches of two"])
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TwoOutputs:
    """A session with two outputs, whose first dimension is dynamic or fixed."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    dynamic = {"x": {0: "rows"}, "maps": {0: "rows"}, "logits": {0: "rows"}} if request.param is None else None
    names: dict[str, Any] = {"input_names": ["x"], "output_names": ["maps", "logits"], "dynamic_axes": dynamic}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the exporter that needs no onnxscript
        torch.onnx.export(TwoHeads(), (images(2, torch.float32),), path, dynamo=False, **names)
    of_file = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(x: Tensor) -> tuple[Any, Any]:
        maps, logits = of_file.run(["maps", "logits"], {"x": x.numpy()})
        return maps, logits

    return run


def test_onnx_session_gives_the_eager_maps(session: TwoOutputs, x: Tensor) -> None:
    tap, net = ActivationTap(), TwoHeads()
    expected = ScoreCAM(logits_of(net), net.relu).attribute(x, 2)
    assert isinstance(expected, Tensor)
    score_cam = ScoreCAM(tapped(session, tap), tap)
    actual = score_cam.attribute(x, 2, perturbations_per_eval=1)  # two rows in every forward, also where all may run
    assert_close(actual, expected, tolerance=1e-5)


def test_onnx_session_has_no_gradients(session: TwoOutputs, x: Tensor) -> None:
    tap = ActivationTap()
    with pytest.raises(ValueError, match="Expected scores that are differentiable with respect to the layer's activat"):
        LayerGradCamPlusPlus(tapped(session, tap), tap).attribute(x, 2)
