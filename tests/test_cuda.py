"""On a GPU: the values of the CPU and of the naive reference, and nothing of the user's changed. Skipped elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from captum_scorecam import RISE, ChannelScores, LayerGradCamPlusPlus, MeaningfulPerturbation, ScoreCAM
from captum_scorecam.layers import find_layer
from captum_scorecam.metrics import functional
from tests.naive_reference import naive_score_cam
from tests.support import colour_classifier
from tests.support.attributions import METHODS, Method, each, seeded
from tests.support.command_line import COLOURS, invoke
from tests.support.score_cam import last_run
from tests.support.small_net import Net, assert_close, images

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

HALF = [torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True)
def _full_float32(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Convolutions in full float32: cuDNN's default is TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def residual_net() -> Any:
    """ResNet-18 with random weights, whose scores are far enough apart for the softmax."""
    model = resnet18(num_classes=10)
    model.fc.weight.data.mul_(20)
    return model.cuda().eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1)).cuda()


@each(METHODS, quick=METHODS)
def test_every_method_gives_the_reference(method: Method) -> None:
    net, inputs = Net(gain=8), images()
    expected = method.expected(net, net.relu, inputs, 2)
    actual = method.explain(net.cuda(), net.relu, inputs.cuda(), 2)
    assert all(maps.is_cuda for maps in actual)
    method.assert_close(tuple(maps.cpu() for maps in actual), expected, max(method.rounding, 1e-8))


@pytest.mark.parametrize("channel_weighting", ["softmax", "increase", "score"])
def test_score_cam_of_a_residual_net(x: Tensor, channel_weighting: Any) -> None:
    model = residual_net()
    options: dict[str, Any] = {"channel_weighting": channel_weighting}
    with torch.device("cuda"):  # the reference's own tensors are on the default device
        expected = naive_score_cam(model, model.layer4, x, [1, 2], relu_attributions=False, **options)
    score_cam = ScoreCAM(model, "layer4", **options)
    assert isinstance(expected, Tensor)
    for perturbations_per_eval in (None, 7):
        call = {"relu_attributions": False, "perturbations_per_eval": perturbations_per_eval}
        maps = score_cam.attribute(x, [1, 2], **call)
        assert_close(maps, expected, 1e-4)


@pytest.mark.parametrize("dtype", HALF)
def test_autocast_and_models_in_half_precision(x: Tensor, dtype: torch.dtype) -> None:
    model = residual_net()
    score_cam = ScoreCAM(model, model.layer4, channel_weighting="increase")
    expected = score_cam.attribute(x, 1, relu_attributions=False)
    with torch.autocast("cuda", dtype):
        cast = score_cam.attribute(x, 1, relu_attributions=False)
    model.to(dtype)
    half = score_cam.attribute(x.to(dtype), 1, relu_attributions=False)
    for maps in (cast, half):
        for one, other in zip(maps.flatten(1).float(), expected.flatten(1), strict=True):
            assert torch.corrcoef(torch.stack([one, other]))[0, 1] > 0.98


def test_compiled_models(x: Tensor) -> None:
    model = residual_net()
    expected = ScoreCAM(model, model.layer4).attribute(x, 1)
    for mode in ("default", "reduce-overhead"):
        torch._dynamo.reset()
        compiled = ScoreCAM(torch.compile(model, mode=mode), model.layer4)
        for _ in range(2):
            assert_close(compiled.attribute(x, 1, perturbations_per_eval=32), expected, 1e-4)


@pytest.mark.parametrize("options", [{"max_forwards": 60}, {"max_forwards": 60, "score": "sigmoid"}])
def test_maps_on_a_budget_repeat_bit_for_bit(x: Tensor, options: dict[str, Any]) -> None:
    model = residual_net()
    score_cam = ScoreCAM(model, model.layer4, channel_weighting="increase", **options)
    call: dict[str, Any] = {"target": [1, 2], "relu_attributions": False}
    maps, errors = score_cam.attribute_with_error(x, **call, perturbations_per_eval=32)
    assert maps.is_cuda
    assert errors.is_cuda
    assert last_run(score_cam).omitted > 0
    for _ in range(3):
        again = score_cam.attribute_with_error(x, **call, perturbations_per_eval=32)
        assert torch.equal(again[0], maps)
        assert torch.equal(again[1], errors)
    on_cpu = ScoreCAM(model.cpu(), model.layer4, channel_weighting="increase", **options)
    assert_close(maps.cpu(), on_cpu.attribute(x.cpu(), **call), 0.02)


def test_maps_repeat_bit_for_bit(x: Tensor) -> None:
    model = residual_net()
    score_cam = ScoreCAM(model, model.layer4)
    maps = score_cam.attribute_targets(x, [1, 2, 3], perturbations_per_eval=32)
    for _ in range(3):
        assert torch.equal(score_cam.attribute_targets(x, [1, 2, 3], perturbations_per_eval=32), maps)


def test_channel_scores_come_back_from_a_file(x: Tensor, tmp_path: Path) -> None:
    model = residual_net()
    scores = ScoreCAM(model, model.layer4).channel_scores(x, [1, 2])
    assert isinstance(scores, ChannelScores)
    scores.save(tmp_path / "scores.safetensors")
    loaded = ChannelScores.load(tmp_path / "scores.safetensors")
    assert_close(loaded.maps("increase", False).cpu(), scores.maps("increase", False).cpu(), 1e-6)


def test_layers_are_found(x: Tensor) -> None:
    model = residual_net()
    assert find_layer(model, x).module is model.layer4


def test_random_numbers_and_parameters_stay(x: Tensor) -> None:
    model = residual_net()
    model.fc = nn.Sequential(nn.Dropout(0.5), model.fc).train()
    state, values = torch.cuda.get_rng_state(), {name: t.clone() for name, t in model.state_dict().items()}
    with pytest.warns(UserWarning, match="random"):
        ScoreCAM(model, model.layer4).attribute(x, 1)
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert all(torch.equal(t, values[name]) for name, t in model.state_dict().items())


def test_chunks_that_do_not_fit_are_halved(x: Tensor) -> None:
    model = residual_net()
    expected = ScoreCAM(model, model.layer4).attribute(x, 1)
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 400 * 2**20) / free)
    try:
        score_cam = ScoreCAM(model, model.layer4)
        maps = score_cam.attribute(x, 1, perturbations_per_eval=512)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert last_run(score_cam).rows_per_forward < 1024
    assert_close(maps, expected, 1e-4)


def test_a_stream_of_the_users_own(x: Tensor) -> None:
    model = residual_net()
    expected = ScoreCAM(model, model.layer4).attribute(x, 1)
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        maps = ScoreCAM(model, model.layer4).attribute(x, 1)
    stream.synchronize()
    assert_close(maps, expected, 1e-4)


MASK = MeaningfulPerturbation
OTHERS: dict[str, Callable[[Any, Tensor], Any]] = {
    "rise": lambda model, x: RISE(model, n_masks=64).attribute(x, 1, generator=seeded()),
    "mask": lambda model, x: MASK(model, n_iterations=5, score="output").attribute(x, 1, generator=seeded()),
    "grad-cam++": lambda model, x: LayerGradCamPlusPlus(model, model.layer4).attribute(x, 1),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_methods_give_the_values_of_the_cpu(x: Tensor, name: str) -> None:
    model = residual_net()
    actual = OTHERS[name](model, x)
    assert actual.is_cuda
    assert_close(actual.cpu(), OTHERS[name](model.cpu(), x.cpu()), 1e-3)


def test_metrics_give_the_values_of_the_cpu(x: Tensor) -> None:
    model = residual_net()
    maps = torch.rand(2, 1, 96, 96, generator=seeded())
    for metric in (functional.insertion, functional.deletion):
        actual = metric(model.cuda(), x, maps.cuda(), 1, step=0.1).auc
        assert_close(actual.cpu(), metric(model.cpu(), x.cpu(), maps, 1, step=0.1).auc, 1e-4)


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("red", "green"):
        (tmp_path / "data" / name).mkdir(parents=True)
        colour_classifier.red_and_green().save(tmp_path / "data" / name / f"{name}.png")
    for arguments in (["explain", "data/red/red.png", "--output", "a.png"], ["evaluate", "data", "--output", "run"]):
        result = invoke(*arguments, *COLOURS, "--layer", "features", "--device", "cuda")
        assert result.exit_code == 0, result.output
    assert (tmp_path / "a.png").is_file()
    assert len((tmp_path / "run" / "summary.json").read_text(encoding="utf-8")) > 2


def test_scores_and_layer_on_other_devices_than_the_inputs() -> None:
    net, inputs = Net(gain=8).cuda(), images().cuda()
    expected = ScoreCAM(net, net.relu).attribute(inputs, [1, 2])
    assert_close(ScoreCAM(lambda x: net(x).cpu(), net.relu).attribute(inputs, [1, 2]), expected)
    assert_close(ScoreCAM(lambda x: net(x.cuda()), net.relu).attribute(inputs.cpu(), [1, 2]), expected.cpu())
