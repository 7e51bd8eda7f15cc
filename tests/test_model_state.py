"""Buffers that forward passes change are restored, whichever modules and processes they are in."""

from __future__ import annotations

import copy
import functools
import random
import subprocess
import sys
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from captum_scorecam import (
    RISE,
    InputSpaceAttribution,
    LayerGradCamPlusPlus,
    MeaningfulPerturbation,
    ScoreCAM,
    _random_draws,
)
from captum_scorecam._held_modules import held_modules
from captum_scorecam.layers import find_layer
from captum_scorecam.metrics.functional import infidelity
from captum_scorecam.model_state import unchanged_model_state
from tests.support.small_net import Net, images, nothing_changes, warnings_are_errors

SCRIPT = """
import sys

import torch
from torch import nn

from captum_scorecam import ScoreCAM


class CompilesItself(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
        self.compiled = []

    def forward(self, x):
        if not self.compiled:
            self.compiled.append(torch.compile(self.head, backend="eager"))
        return self.compiled[0](self.conv(x))


assert "torch._dynamo" not in sys.modules
model = CompilesItself()
before = {name: value.clone() for name, value in model.state_dict().items()}
ScoreCAM(model, model.conv).attribute(torch.rand(2, 3, 8, 8), target=1)
assert model.compiled
assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
"""


@pytest.mark.slow
def test_buffers_of_a_part_compiled_in_the_first_forward_stay_as_they_were() -> None:
    finished = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


class Counting(nn.Module):
    """Counts its forward passes in a buffer, and keeps a cache of another size in a second one."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()
        self.register_buffer("count", torch.zeros(2))
        self.register_buffer("cache", torch.zeros(1))
        self.size = 1

    def forward(self, x: Tensor) -> Tensor:
        self.get_buffer("count").add_(1)
        if self.size < len(x):
            self.size, self.cache = len(x), torch.zeros(len(x))
        scores: Tensor = self.net(x)
        return scores + self.get_buffer("cache")[: len(x), None]


@pytest.mark.filterwarnings("ignore:The model is in training mode")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("as_function", [True, False])
def test_a_count_of_forward_passes_is_restored(training: bool, as_function: bool) -> None:
    model = Counting().train(training)
    RISE((lambda x: model(x)) if as_function else model, n_masks=9).attribute(images(), 1)
    assert model.get_buffer("count").tolist() == [0, 0]


def test_a_count_is_restored_in_inference_mode() -> None:
    with torch.inference_mode():
        made_here = Counting().eval()
    for model in (made_here, Counting().eval()):
        with torch.inference_mode():
            RISE(model, n_masks=9).attribute(images(), 1)
        assert model.get_buffer("count").tolist() == [0, 0]


def test_a_count_is_restored_after_an_error() -> None:
    model = Counting().eval()
    model.net.fails_at = 3  # after the unmasked inputs, and their repetition since a buffer changed
    with pytest.raises(RuntimeError, match="no more"):
        RISE(model, n_masks=9).attribute(images(), 1)
    assert model.get_buffer("count").tolist() == [0, 0]


def test_a_cache_that_grew_stays_with_its_size() -> None:
    model = Counting().eval()
    RISE(model, n_masks=9).attribute(images(), 1, perturbations_per_eval=2)
    assert len(model.get_buffer("cache")) == model.size == 4
    assert model(images(3)).shape == (3, 7)


def test_a_graph_of_the_users_is_left_as_it_is() -> None:
    net, x = Net(), images()
    scores = net(x).sum()
    RISE(net, n_masks=9).attribute(x, 1)
    scores.backward()
    assert net.conv.weight.grad is not None


METHODS: dict[str, Callable[[Any, nn.Module], Any]] = {
    "Score-CAM": ScoreCAM,
    "RISE": lambda model, _: RISE(model, n_masks=9),
    "Grad-CAM++": LayerGradCamPlusPlus,
    "Mask": lambda model, _: MeaningfulPerturbation(model, n_iterations=2),
}
IN_TRAINING = "ignore:The model is in training mode"


@pytest.mark.filterwarnings(IN_TRAINING)
@pytest.mark.parametrize("method", METHODS)
def test_a_pending_backward_pass_in_training_mode_still_runs(method: str) -> None:
    net, x = Net().train(), images().requires_grad_()
    expected = torch.autograd.grad(copy.deepcopy(net)(x).sum(), x)
    loss = net(x).sum()
    METHODS[method](net, net.relu).attribute(x.detach(), 1)
    assert torch.equal(torch.autograd.grad(loss, x)[0], expected[0])


class Adaptive(nn.BatchNorm2d):
    """Normalises by the batch in evaluation mode, too, as in test-time adaptation."""

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, True, 0.1, self.eps)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", ["module", "function"])
def test_statistics_updated_in_evaluation_mode_are_restored_with_a_warning(method: str, form: str) -> None:
    net = Net()
    net.norm = Adaptive(6).double().eval()
    holder = SimpleNamespace(net=net)
    forward = net if form == "module" else lambda x: holder.net(x)
    with nothing_changes(net), pytest.warns(UserWarning, match="updates running statistics in evaluation mode"):
        METHODS[method](forward, net.relu).attribute(images(), 1)


@pytest.mark.parametrize("layer", ["auto", "relu"])
def test_looking_for_a_layer_restores_statistics(layer: str) -> None:
    net = Net()
    net.norm = Adaptive(6).double().eval()
    with nothing_changes(net):
        find_layer(net, images(), layer)


@pytest.mark.filterwarnings(IN_TRAINING)
@pytest.mark.parametrize("hidden", [False, True])
def test_functional_call_leaves_both_sets_of_buffers(hidden: bool) -> None:
    net = Net().train()
    other = {name: torch.ones_like(value) for name, value in net.named_buffers()}
    holder = SimpleNamespace(net=net)
    forwards: list[Callable[[Tensor], Any]] = [
        lambda x: torch.func.functional_call(net, other, (x,)),
        lambda x: torch.func.functional_call(holder.net, other, (x,)),
    ]
    kept = copy.deepcopy(other)
    with nothing_changes(net):
        ScoreCAM(forwards[hidden], net.relu).attribute(images(), 1)
    torch.testing.assert_close(other, kept, rtol=0, atol=0)


@pytest.mark.filterwarnings(IN_TRAINING)
def test_buffers_of_models_in_vmap_are_restored() -> None:
    nets = [Net().train() for _ in range(3)]
    parameters, buffers = torch.func.stack_module_state(nets)
    kept = copy.deepcopy(buffers)

    def one(parameters: Any, buffers: Any, x: Tensor) -> Any:
        return torch.func.functional_call(nets[0], (parameters, buffers), (x,))

    def ensemble(x: Tensor) -> Tensor:
        scores: Tensor = torch.vmap(one, in_dims=(0, 0, None))(parameters, buffers, x).mean(0)
        return scores

    RISE(ensemble, n_masks=9).attribute(images(), 1)
    torch.testing.assert_close(buffers, kept, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"Expected `layer` to run outside of `torch\.func\.vmap`, but"):
        ScoreCAM(ensemble, nets[0].relu).attribute(images(), 1)


class Hiding(nn.Module):
    """Calls a network that is none of its submodules."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.hidden = [net]

    def forward(self, x: Tensor) -> Any:
        return self.hidden[0](x)


class Nets(NamedTuple):
    a: nn.Module


class HidingAnywhere(nn.Module):
    """Calls a network in training mode that it hides in an attribute, in evaluation mode."""

    def __init__(self, hidden: Any, read: Callable[[Any], Callable[[Tensor], Any]]) -> None:
        super().__init__()
        self.hidden, self.read = hidden, read

    def forward(self, x: Tensor) -> Any:
        return self.read(self.hidden)(x)


HIDDEN: dict[str, Callable[[nn.Module], nn.Module]] = {
    "dict": lambda net: HidingAnywhere({"a": net}, lambda nets: nets["a"]),
    "object": lambda net: HidingAnywhere(SimpleNamespace(net=net), lambda holder: holder.net),
    "partial": lambda net: HidingAnywhere(functools.partial(net), lambda call: call),
    "OrderedDict": lambda net: HidingAnywhere(OrderedDict(a=net), lambda nets: nets["a"]),
    "namedtuple": lambda net: HidingAnywhere(Nets(net), lambda nets: nets.a),
    "deque": lambda net: HidingAnywhere(deque([net]), lambda nets: nets[0]),
}


@pytest.mark.filterwarnings("ignore:The model is in training mode")
@pytest.mark.parametrize("form", HIDDEN)
def test_buffers_of_modules_in_attributes_of_any_kind_are_restored(form: str) -> None:
    net = Net().train()
    model = HIDDEN[form](net).eval()
    with nothing_changes(net):
        ScoreCAM(model, net.relu).attribute(images(), 1)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:`torch.jit:FutureWarning")
def test_frozen_torchscript_has_no_mode() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).double()
    jit: Any = torch.jit
    frozen = jit.freeze(jit.script(net.eval()))
    within, wrapped = (nn.Sequential(*parts, frozen).double().eval() for parts in ([nn.Conv2d(3, 3, 3), nn.ReLU()], []))
    del frozen.training  # which the modules around it have set
    expected = RISE(net, n_masks=9).attribute(images(1), 1)
    for model in (frozen, wrapped, lambda x: frozen(x)):
        torch.testing.assert_close(RISE(model, n_masks=9).attribute(images(1), 1), expected)
    assert ScoreCAM(within, "1").attribute(images(1), 1).shape[:2] == (1, 1)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:`torch.jit:FutureWarning")
@pytest.mark.parametrize("form", ["scripted", "traced", "inside", "in an attribute"])
def test_buffers_of_torchscript_are_restored(form: str) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).double().eval()
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).double().eval()
    jit: Any = torch.jit
    compiled = jit.trace(net, images(1)) if form == "traced" else jit.script(net)
    model = nn.Sequential(compiled if form == "inside" else net, head).eval()
    if form == "in an attribute":
        model.parts = {"first": compiled}  # type: ignore[assignment]
    expected = RISE(nn.Sequential(net, head), n_masks=9).attribute(images(1), 1)
    function = jit.script(model) if form == "scripted" else jit.trace(model, images(1)) if form == "traced" else model
    with nothing_changes(net):
        torch.testing.assert_close(RISE(function, n_masks=9).attribute(images(1), 1), expected)
    if form == "inside":
        assert ScoreCAM(model, head[0]).attribute(images(1), 1, attribute_to_layer_input=True).shape[:2] == (1, 1)
        find_layer(model, images(1), "1.0:input")


class Cached(nn.Module):
    """Makes a cache for larger images, which an attribute describes, and has a loss in training mode."""

    def __init__(self, same_size: bool) -> None:
        super().__init__()
        self.net, self.same_size, self.largest = Net().eval(), same_size, 8
        self.helpers = {"loss": nn.CrossEntropyLoss()}
        self.register_buffer("scale", torch.ones(1 if same_size else 8).double(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        width = x.shape[-1]
        if width > self.largest:
            self.scale = torch.full((1 if self.same_size else width,), width / 8).double()
            self.largest = width
        return self.net(x * self.scale[-1])  # type: ignore[no-any-return]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("same_size", [True, False])
def test_a_cache_and_the_attribute_that_describes_it_stay_together(same_size: bool, training: bool) -> None:
    model, fresh = Cached(same_size).eval(), Cached(same_size).eval()
    fresh.load_state_dict(model.state_dict())
    model.training = training
    with warnings_are_errors():
        ScoreCAM(model, model.net.relu).attribute(images(), 1)
    assert torch.equal(model(images()), fresh(images()))


def fill(module: nn.Module, value: float) -> None:
    module.get_buffer("scale").fill_(value)


def replace(module: nn.Module, value: float) -> None:
    module.scale = torch.full_like(module.get_buffer("scale"), value)


class ReadyAtFirst(nn.Module):
    """Computes a buffer in the first forward pass, and notes in an attribute that it has."""

    def __init__(self, update: Callable[[nn.Module, float], None], flag: str, before: Any, after: Any) -> None:
        super().__init__()
        self.net, self.update, self.flag, self.after = Net().eval(), update, flag, after
        self.register_buffer("scale", torch.zeros(2).double())
        if before is not ...:
            setattr(self, flag, before)

    def forward(self, x: Tensor) -> Tensor:
        if getattr(self, self.flag, None) != self.after:
            self.update(self, 2.0)
            setattr(self, self.flag, self.after)
        return self.net(x * self.get_buffer("scale")[0])  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore:The model is in training mode")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("before", "after"), [(False, True), (None, 3), (2, 3), (..., True)])
@pytest.mark.parametrize("update", [fill, replace])
def test_a_buffer_and_the_attribute_that_says_it_is_ready_stay_together(
    update: Any, before: Any, after: Any, training: bool
) -> None:
    model, fresh = (ReadyAtFirst(update, "ready", before, after) for _ in range(2))
    fresh.net.load_state_dict(model.net.state_dict())
    model.training = training
    ScoreCAM(model, model.net.relu).attribute(images(), 1)
    assert torch.equal(model(images()), fresh(images()))


@pytest.mark.parametrize("hidden", [None, (torch.zeros(7), torch.zeros(7))])
def test_a_tuple_of_tensors_in_an_attribute_describes_no_cache(hidden: Any) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()
            self.hidden = hidden
            self.calls: Tensor
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.net(x)
            self.calls = self.calls + 1
            self.hidden = (scores.mean(0), scores.sum(0))
            return scores

    model = Recurrent().eval()
    maps = ScoreCAM(model, model.net.relu).attribute(images(), 1)
    assert isinstance(maps, Tensor)
    torch.testing.assert_close(maps, ScoreCAM(model.net, model.net.relu).attribute(images(), 1))
    assert not model.calls.any()


def test_the_first_forward_of_a_lazy_model_draws_its_own_numbers() -> None:
    def lazy() -> nn.Sequential:
        return nn.Sequential(
            nn.LazyConv2d(4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.LazyLinear(7)
        ).eval()

    first, second = lazy(), lazy()
    x = images(dtype=torch.float32)
    with torch.random.fork_rng(), warnings_are_errors():
        for model in (first, second):
            ScoreCAM(model, model[1]).attribute(x, 1)
    weights, others = (model.get_parameter("0.weight") for model in (first, second))
    assert not torch.equal(weights, others)


def test_a_loss_in_an_attribute_does_not_make_a_model_train() -> None:
    net = Net().eval()
    net.helpers = {"loss": nn.CrossEntropyLoss()}  # type: ignore[assignment]
    with pytest.warns(UserWarning, match=r"^The model draws random numbers: scores are random\.$"):
        RISE(Drawing(net).eval(), n_masks=9).attribute(images(), 1)


class Drawing(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) + torch.rand(1)  # type: ignore[no-any-return]


class Raising:
    """An object whose attributes can't be read, as those of a proxy without an object."""

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no object")


def test_attributes_that_raise_are_left_alone() -> None:
    net = Net().eval()
    net.helpers = [Raising()]  # type: ignore[assignment]
    RISE(net, n_masks=9).attribute(images(), 1)


def exported(net: nn.Module, x: Tensor) -> nn.Module:
    return torch.export.export(net, (x,)).module()


def run_forward(net: nn.Module, x: Tensor) -> Any:
    return net.forward(x)


def run_forward_with(x: Tensor, net: nn.Module) -> Any:
    return net.forward(x)


class Predictor:
    def __init__(self, net: nn.Module) -> None:
        self.parts = {"net": net}
        self.trained = nn.BatchNorm2d(2)

    def predict(self, x: Tensor) -> Any:
        return self.parts["net"].forward(x)


# A network → a function that hides it.
HIDING: dict[str, Callable[[nn.Module], Callable[[Tensor], Any]]] = {
    "no submodule": lambda net: Hiding(net).train(net.training),
    "bound method": lambda net: net.forward,
    "lambda": lambda net: lambda x: net.forward(x),
    "partial": lambda net: functools.partial(net.forward),
    "decorated": lambda net: torch.inference_mode()(lambda x: net.forward(x)),
    "partial of a function": lambda net: functools.partial(run_forward, net),
    "partial with a keyword": lambda net: functools.partial(run_forward_with, net=net),
    "method of an object": lambda net: Predictor(net).predict,
    "wraps its method": lambda net: functools.wraps(net.forward)(lambda x: net.forward(x)),
}


@pytest.mark.filterwarnings(IN_TRAINING)
@pytest.mark.parametrize("form", HIDING)
@pytest.mark.parametrize("training", [True, False])
def test_buffers_of_hidden_modules_are_restored(form: str, training: bool) -> None:
    model = Counting().train(training)
    with nothing_changes(model):
        RISE(HIDING[form](model), n_masks=9).attribute(images(1), 1, perturbations_per_eval=1)


def test_a_method_holds_the_modules_that_its_code_names() -> None:
    predictor = Predictor(Net())
    held = held_modules(predictor.predict)
    assert predictor.parts["net"] in held
    assert predictor.trained not in held


@pytest.mark.filterwarnings(IN_TRAINING)
def test_a_function_may_refer_to_a_variable_without_a_value() -> None:
    model = Counting().train()

    def forward(x: Tensor) -> Any:
        return model.forward(x) if len(x) else other(x)

    with nothing_changes(model):
        RISE(forward, n_masks=9).attribute(images(1), 1, perturbations_per_eval=1)
    if len(images()) == 0:
        other = model


@pytest.mark.filterwarnings(IN_TRAINING, "ignore:`torch.jit:DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("export", [lambda net, _: torch.jit.script(net), exported], ids=["scripted", "exported"])
def test_buffers_of_programs_that_run_no_modules_are_restored(export: Any) -> None:
    x = images()
    program = export(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()).double().train(), x)
    kept = {name: value.clone() for name, value in program.named_buffers()}
    holder = SimpleNamespace(program=program)
    RISE(lambda x: holder.program(x), n_masks=9).attribute(x, 1, perturbations_per_eval=1)
    assert len(kept) == 3
    torch.testing.assert_close(dict(program.named_buffers()), kept, rtol=0, atol=0)


class DroppingAtRandom(nn.Module):
    """Drops out only in some forward passes, the first not among them."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net(channels=24)
        self.random = random.Random(0)

    def forward(self, x: Tensor) -> Any:
        drops = self.training and self.random.random() < 0.5
        return self.net(F.dropout(x, 0.1) if drops else x)


@pytest.fixture
def _without_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread that another test has left counts as one that may draw random numbers."""
    monkeypatch.setattr(_random_draws, "_others_may_draw", lambda: False)


@pytest.mark.usefixtures("_without_other_threads")
def test_random_numbers_drawn_after_the_first_forward_are_noticed() -> None:
    model = DroppingAtRandom()
    model.net.norm.eval()
    state = torch.get_rng_state()
    with pytest.warns(UserWarning, match="The model draws random numbers in training mode"):
        ScoreCAM(model, model.net.relu).attribute(images(), 1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.usefixtures("_without_other_threads")
def test_the_random_state_is_restored_if_the_warning_is_an_error() -> None:
    model = DroppingAtRandom()
    model.net.norm.eval()
    state = torch.get_rng_state()
    with warnings_are_errors(), pytest.raises(UserWarning, match="draws random numbers"):
        ScoreCAM(model, model.net.relu).attribute(images(), 1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.filterwarnings(IN_TRAINING)
@pytest.mark.parametrize("alias", [lambda buffer: buffer.detach(), lambda buffer: buffer[...]])
def test_views_made_anew_of_a_buffer_are_restored(alias: Callable[[Tensor], Tensor]) -> None:
    net = Net().train()

    def forward(x: Tensor) -> Any:
        for _ in range(2):
            views = {name: alias(buffer) for name, buffer in net.named_buffers()}
            output = torch.func.functional_call(net, views, (x,))
        return output

    with nothing_changes(net):
        RISE(forward, n_masks=9).attribute(images(), 1)


def test_a_model_that_a_function_only_refers_to_is_left_to_others() -> None:
    other, net = Net().train(), Net()
    holder = SimpleNamespace(net=net, other=other)

    def forward(x: Tensor) -> Any:
        other.norm.get_buffer("running_mean").add_(1)  # as a thread that trains it would
        return holder.net(x)

    RISE(forward, n_masks=9).attribute(images(), 1)
    assert float(other.norm.get_buffer("running_mean").min()) >= 3


def test_buffers_that_can_not_be_compared_are_no_obstacle() -> None:
    net = Net()
    net.register_buffer("elsewhere", torch.zeros(3, device="meta"))
    net.register_buffer("running_nan", torch.full((3,), torch.nan))
    net.__dict__["parent"] = weakref.proxy(Hiding(net))
    assert RISE(net, n_masks=9).attribute(images(), 1).isfinite().all()
    assert find_layer(net, images(), "relu").module is net.relu


def test_buffers_are_restored_one_by_one_if_they_can_not_be_compared_together(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_tensors: Any) -> Tensor:
        raise torch.OutOfMemoryError("no memory")

    moving = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3)).double()
    before = [value.clone() for value in moving.buffers()]
    with unchanged_model_state(moving, ()) as state:
        state.first_forward(lambda: moving(images()), lambda _, __: True)
        monkeypatch.setattr(torch, "cat", full)
    monkeypatch.undo()
    for value, expected in zip(moving.buffers(), before, strict=True):
        assert torch.equal(value, expected)


def test_a_buffer_that_two_modules_share_gets_its_first_content() -> None:
    class Writing(nn.Module):
        count: Tensor

        def __init__(self, count: Tensor, number: float) -> None:
            super().__init__()
            self.register_buffer("count", count)
            self.number = number

        def forward(self, x: Tensor) -> Tensor:
            self.count.fill_(self.number)
            return x

    shared = torch.zeros(2)
    net, hidden = Net(), [Writing(shared, 1.0), Writing(shared, 0.0)]
    ScoreCAM(lambda x: net(hidden[1](hidden[0](x))), net.relu).attribute(images(), 1)
    assert shared.tolist() == [0, 0]


class Waiting(nn.Module):
    """Replaces its buffer, and lets another thread call it meanwhile."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.main = threading.get_ident()

    def forward(self, x: Tensor) -> Tensor:
        if threading.get_ident() == self.main:
            other = threading.Thread(target=self, args=(x,))
            other.start()
            other.join()
            self.count = self.count + 1
        return x


def test_calls_of_another_thread_leave_a_replaced_buffer_to_be_restored() -> None:
    net, waiting = Net(), Waiting()
    before = waiting.count
    hidden = {"waiting": waiting, "net": net}
    ScoreCAM(lambda x: hidden["net"](hidden["waiting"](x)), net.relu).attribute(images(), 1)
    assert waiting.count is before
    assert before == 0


class ReadingNumbers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the numbers that Python reads from tensors. On a GPU, each waits for all work before it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_buffers_are_compared_together() -> None:
    norms = nn.Sequential(*(nn.BatchNorm2d(3) for _ in range(20))).eval()
    with ReadingNumbers() as reading, unchanged_model_state(norms, ()) as state:
        state.first_forward(lambda: norms(images().float()), lambda _, __: True)
    assert 0 < reading.count <= 4  # for the statistics and the counts, after the forward pass and at the end


def test_a_layer_in_another_transform_than_vmap_is_explained() -> None:
    net, x = Net(), images()

    def forward(x: Tensor) -> Any:
        return torch.func.vjp(net, x)[0]

    torch.testing.assert_close(ScoreCAM(forward, net.relu).attribute(x, 1), ScoreCAM(net, net.relu).attribute(x, 1))


class MovingMean(nn.Module):
    """Subtracts a running mean, which it updates in every forward pass in a way of its own, and calls a network."""

    mean: Tensor

    def __init__(self, update: Callable[[Any, Tensor], None], centres: bool = False) -> None:
        super().__init__()
        self.net, self.update, self.centres = Net(), update, centres
        self.register_buffer("mean", torch.zeros(3, dtype=torch.float64))

    def forward(self, x: Tensor) -> Any:
        self.update(self, x.detach().mean((0, 2, 3)))
        return self.net(x - self.mean.view(3, 1, 1) if self.centres else x)


def write_data(model: MovingMean, mean: Tensor) -> None:
    model.mean.data.mul_(0.9).add_(mean)


def assign_data(model: MovingMean, mean: Tensor) -> None:
    model.mean.data = 0.9 * model.mean + mean


def replace_buffer(model: MovingMean, mean: Tensor) -> None:
    model.mean = 0.9 * model.mean + mean


def write(model: MovingMean, mean: Tensor) -> None:
    model.mean.lerp_(mean, 0.5)


UPDATES = [write_data, assign_data, replace_buffer, write]


@pytest.mark.filterwarnings(IN_TRAINING)
@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("as_function", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_buffers_are_restored_however_they_are_updated(update: Any, as_function: bool, training: bool) -> None:
    model = MovingMean(update).train(training)
    holder = SimpleNamespace(model=model)
    with nothing_changes(model):
        RISE((lambda x: holder.model(x)) if as_function else model, n_masks=9).attribute(images(), 1)


def test_a_replaced_buffer_is_restored_after_an_error_in_the_first_forward() -> None:
    model = MovingMean(replace_buffer).eval()
    holder = SimpleNamespace(model=model)
    with nothing_changes(model):
        with pytest.raises(IndexError):
            RISE(lambda x: holder.model(x), n_masks=9).attribute(images(), 99999)
        model.net.fails_at = model.net.forwards + 1  # after the buffer was replaced
        with pytest.raises(RuntimeError, match="no more"):
            RISE(lambda x: holder.model(x), n_masks=9).attribute(images(), 1)


@pytest.mark.parametrize("update", UPDATES)
def test_looking_for_a_layer_restores_buffers_however_they_are_updated(update: Any) -> None:
    model = MovingMean(update).eval()
    with nothing_changes(model):
        find_layer(model, images(), "net.relu")


@pytest.mark.filterwarnings(IN_TRAINING)
def test_functional_call_leaves_both_sets_of_buffers_that_the_module_replaces() -> None:
    model = MovingMean(replace_buffer).train()
    other = {"mean": torch.ones(3, dtype=torch.float64)}
    holder = SimpleNamespace(model=model)
    with nothing_changes(model):
        RISE(lambda x: torch.func.functional_call(holder.model, dict(other), (x,)), n_masks=9).attribute(images(), 1)
    assert other["mean"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("method", METHODS)
def test_any_update_of_statistics_in_evaluation_mode_warns(update: Any, method: str) -> None:
    model = MovingMean(update, centres=True).eval()
    with nothing_changes(model), pytest.warns(UserWarning, match="updates running statistics in evaluation mode"):
        METHODS[method](model, model.net.relu).attribute(images(), 1)


def test_random_numbers_of_a_users_perturbation_differ_from_call_to_call() -> None:
    net, x = Net(), images()
    maps = InputSpaceAttribution(ScoreCAM(net, net.relu))

    def perturbed(inputs: Tensor) -> tuple[Tensor, Tensor]:
        noise = 0.1 * torch.randn_like(inputs)
        return noise, inputs - noise

    found = [infidelity(maps, x, target=1, perturb_func=perturbed) for _ in range(2)]
    assert not torch.equal(*found)
