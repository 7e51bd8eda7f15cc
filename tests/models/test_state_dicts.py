"""State dicts in files, and the names of their tensors."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from captum_scorecam.models.state_dicts import build_with_weights, class_count, load_state_dict, read_state_dict

State = dict[str, Tensor]


def net(num_classes: int = 3, fill: float = 0.0) -> nn.Sequential:
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, num_classes))
    for parameter in made.parameters():
        nn.init.constant_(parameter, fill)
    return made


def of_net(fill: float = 0.5, num_classes: int = 3) -> State:
    return net(num_classes, fill).state_dict()


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def fill_of(model: nn.Module) -> float:
    (value,) = {value for parameter in model.parameters() for value in parameter.flatten().tolist()}
    return float(value)


def saved(value: object, folder: Path) -> Path:
    torch.save(value, folder / "weights.pt")
    return folder / "weights.pt"


OPTIMIZER = torch.optim.SGD(net().parameters(), lr=0.1).state_dict()


@pytest.mark.parametrize(
    "checkpoint",
    [
        of_net(),
        {"state_dict": of_net(), "optimizer_states": [OPTIMIZER], "epoch": 3, "hyper_parameters": {"lr": 0.1}},
        {"model_state_dict": of_net(), "optimizer_state_dict": OPTIMIZER, "loss": torch.tensor(0.3)},
        {"model": of_net(), "optimizer": OPTIMIZER},
        {"model": {"name": "resnet", "depth": 18}, "net": of_net()},
        {"model": {"state_dict": of_net()}, "epoch": 1},
        {"model": "resnet18", "state_dict": of_net()},
        {"ema": of_net(), "model": None},
        dict(net(fill=0.5).named_parameters()) | {"1.running_mean": torch.ones(4), "1.running_var": torch.ones(4)},
    ],
    ids=["bare", "Lightning", "PyTorch", "timm", "configuration", "nested", "name", "ema", "no counter"],
)
def test_the_weights_are_found_in_a_checkpoint(checkpoint: dict[str, Any], tmp_path: Path) -> None:
    model = net()
    load_state_dict(model, read_state_dict(saved(checkpoint, tmp_path)), "net")
    assert fill_of(model) == 0.5


@pytest.mark.parametrize("average", ["state_dict_ema", "model_ema"])
def test_averaged_weights_beside_the_model_s_are_ignored_with_a_warning(average: str, tmp_path: Path) -> None:
    path = saved({average: of_net(0.25), "state_dict": of_net(0.5)}, tmp_path)
    with pytest.warns(UserWarning, match=f"several state dicts: 'state_dict' is used, and '{average}' ignored"):
        state = read_state_dict(path)
    assert state["3.bias"].tolist() == [0.5] * 3


@pytest.mark.parametrize(
    ("contents", "problem"),
    [
        (nn.Linear(2, 1), "a pickled model (torch.nn.modules.linear.Linear), not a state dict. Save its state dict"),
        ({"model": nn.Linear(2, 1)}, "contains, under 'model', a pickled model (torch.nn.modules.linear.Linear), not"),
        (Namespace(lr=0.1), "contains a pickled object (argparse.Namespace), not a state dict."),
        (OPTIMIZER, "contains the state of an optimizer."),
        ({"generator": of_net(), "discriminator": of_net()}, "a state dict under 'generator' and 'discriminator'."),
        (({"n01440764": ("tench",)}, ["n01440764"]), "contains an object of class tuple."),
        (torch.zeros(3), "contains an object of class torch.Tensor."),
        ({}, "contains an empty dict."),
        ({"state_dict": {"fc.bias": 3}}, "under 'state_dict', a dict whose entry 'fc.bias' is an object of class int."),
        ({0: torch.zeros(3)}, "contains a dict whose entry 0 is an object of class torch.Tensor."),
        ({"fc.bias": torch.zeros(3, device="meta")}, "tensors without values, such as 'fc.bias', which is on"),
    ],
    ids=["model", "model in a dict", "object", "optimizer", "two", "tuple", "tensor", "empty", "int", "index", "meta"],
)
def test_a_file_of_torch_save_without_a_state_dict_is_described(contents: object, problem: str, tmp_path: Path) -> None:
    path = saved(contents, tmp_path)
    with pytest.raises(ValueError, match=re.escape(problem)) as raised:
        read_state_dict(path)
    assert str(raised.value).startswith("Expected `weights` to contain a state dict of tensors, but ")
    assert "weights_only" not in str(raised.value)


@pytest.mark.filterwarnings("ignore:.*nested tensors")
def test_nested_tensors_are_described(tmp_path: Path) -> None:
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    with pytest.raises(ValueError, match=r"contains nested tensors, such as 'fc\.bias'\.$"):
        read_state_dict(saved({"fc.bias": nested}, tmp_path))


PREFIXES = ["", "model.", "net.", "module.", "_orig_mod.", "model.module._orig_mod.", "backbone.resnet."]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    "model", [net(), nn.DataParallel(net()), torch.compile(net())], ids=["bare", "parallel", "compiled"]
)
def test_prefixes_are_found(prefix: str, model: nn.Module) -> None:
    fill = 1.0 + PREFIXES.index(prefix)
    load_state_dict(model, prefixed(prefix, of_net(fill)), "net")
    assert fill_of(model) == fill


class Wrapper(nn.Module):
    """A model whose own names begin with a usual prefix."""

    def __init__(self) -> None:
        super().__init__()
        self.model = net()


def test_a_prefix_that_the_model_has_itself_is_kept() -> None:
    model = Wrapper()
    load_state_dict(model, prefixed("model.", of_net(0.5)), "wrapper")
    assert fill_of(model) == 0.5
    load_state_dict(model, prefixed("module.model.", of_net(0.25)), "wrapper")
    assert fill_of(model) == 0.25


def test_the_counter_of_an_averaged_model_is_no_weight() -> None:
    model = net()
    load_state_dict(model, AveragedModel(net(fill=0.5)).state_dict(), "net")
    assert fill_of(model) == 0.5


def test_other_modules_of_a_lightning_module_are_ignored_with_a_warning() -> None:
    model = net()
    state = prefixed("model.", of_net(0.5)) | {"criterion.weight": torch.ones(3)}
    with pytest.warns(
        UserWarning, match=r"Only the tensors under 'model\.' in the file .*, without criterion\.weight\."
    ):
        load_state_dict(model, state, "net")
    assert fill_of(model) == 0.5


def test_of_several_sets_of_weights_the_one_with_a_usual_prefix_is_taken() -> None:
    model = net()
    with pytest.warns(UserWarning, match=r"Only the tensors under 'net\.' .* without teacher\.0\.weight.* and 6 more"):
        load_state_dict(model, prefixed("teacher.", of_net(0.25)) | prefixed("net.", of_net(0.5)), "net")
    assert fill_of(model) == 0.5


def without(*names: str) -> State:
    return {name: value for name, value in of_net().items() if name not in names}


@pytest.mark.parametrize(
    ("state", "names"),
    [
        (without("3.bias"), "3.bias"),
        (of_net(num_classes=4), "3.bias, 3.weight"),
        (of_net() | {"4.weight": torch.ones(1)}, "4.weight"),
        (prefixed("model.", without("0.bias")), "0.bias"),
        (prefixed("model.", of_net()) | {"model.head": torch.ones(1)}, "head"),
        (
            of_net() | prefixed("teacher.", without("0.weight")),
            "teacher.0.bias, teacher.1.bias, teacher.1.running_mean",
        ),
        ({"encoder.weight": torch.ones(1)}, "0.bias, 0.weight, 1.bias"),
    ],
    ids=["missing", "shape", "unexpected", "missing in prefix", "unexpected in prefix", "two", "other"],
)
def test_weights_that_do_not_match_raise(state: State, names: str) -> None:
    model = net()
    message = "Expected `weights` to match tiny, but tensors are missing, unexpected or of a different shape: "
    with pytest.raises(ValueError, match=re.escape(message + names)):
        load_state_dict(model, state, "tiny")
    assert fill_of(model) == 0.0


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8), "is quantised (torch.qint8)"),
        (lambda w: w.to_sparse(), "has the layout torch.sparse_coo, not torch.strided"),
        (lambda w: w.to_sparse_csr(), "has the layout torch.sparse_csr, not torch.strided"),
        (lambda w: w + 0.5j, "is complex (torch.complex64)"),
        (lambda w: w.long(), "has the dtype torch.int64, which holds no fractions; the model's is torch.float32"),
        (lambda w: w > 0, "has the dtype torch.bool, which holds no fractions; the model's is torch.float32"),
        (lambda w: w * float("nan"), "contains NaN (12 of 12 values)"),
        (lambda w: w.masked_fill(torch.eye(3, 4) > 0, torch.nan).half(), "contains NaN (3 of 12 values)"),
    ],
    ids=["quantised", "coo", "csr", "complex", "int64", "bool", "NaN", "some NaN"],
)
@pytest.mark.filterwarnings("ignore:Sparse", "ignore:.*quantize")
def test_weights_of_another_kind_raise(change: Callable[[Tensor], Tensor], problem: str) -> None:
    model = net()
    state = of_net() | {"3.weight": change(of_net()["3.weight"])}
    with pytest.raises(ValueError, match=re.escape(f"Expected `weights` to match net, but 'm.3.weight' {problem}.")):
        load_state_dict(model, prefixed("m.", state), "net")
    assert fill_of(model) == 0


def test_weights_in_half_or_double_precision_and_infinite_values_are_loaded() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn):
        model = net()
        load_state_dict(model, {name: value.to(dtype) for name, value in of_net().items()}, "net")
        assert fill_of(model) == 0.5
    load_state_dict(model, of_net(float("-inf")), "net")  # as in the mask of an attention layer
    assert fill_of(model) == float("-inf")


def test_buffers_in_whole_numbers_are_loaded() -> None:
    model = net()
    load_state_dict(model, of_net() | {"1.running_mean": torch.full((4,), 2)}, "net")
    assert model.state_dict()["1.running_mean"].tolist() == [2.0] * 4


def test_equal_sets_of_weights_with_unusual_prefixes_raise() -> None:
    state = prefixed("student.", of_net()) | prefixed("teacher.", of_net())
    with pytest.raises(
        ValueError, match=r"contain tiny once, but it is there with the prefixes 'student\.', 'teacher\.'"
    ):
        load_state_dict(net(), state, "tiny")


def reordered(state: State) -> State:
    return dict(sorted(state.items(), reverse=True))


@pytest.mark.parametrize("change", [dict, reordered, lambda state: prefixed("module.", state)])
def test_the_number_of_classes_is_that_of_the_file(change: Callable[[State], State]) -> None:
    model = build_with_weights(net, change(of_net(0.5, num_classes=7)), "net")
    assert (class_count(model), fill_of(model)) == (7, 0.5)


def test_a_model_without_its_head_has_no_classes() -> None:
    assert class_count(net(), "head.weight") == 0


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (np.ones(3), "contains a NumPy array or number."),
        ({"a": np.ones(3)}, "contains a dict whose entry 'a' is a NumPy array or number."),
        ({"a": torch.ones(3), "b": np.float64(2)}, "contains a dict whose entry 'b' is a NumPy array or number."),
    ],
)
def test_numpy_arrays_are_named(content: object, problem: str, tmp_path: Path) -> None:
    path = saved(content, tmp_path)
    with pytest.raises(ValueError, match=re.escape(f"a state dict of tensors, but {str(path)!r} {problem}")):
        read_state_dict(path)


@pytest.mark.parametrize("new", [True, False])
def test_sparse_weights_are_read_without_pytorchs_warning(new: bool, tmp_path: Path) -> None:
    torch.save({"a": torch.eye(3).to_sparse()}, tmp_path / "weights.pt", _use_new_zipfile_serialization=new)
    assert read_state_dict(tmp_path / "weights.pt")["a"].is_sparse


def test_state_dicts_are_found_at_any_depth(tmp_path: Path) -> None:
    moments = {"state": {0: {"exp_avg": torch.zeros(1)}}, "param_groups": []}
    contents = {"weights": {"epoch": 3, "best": {"teacher": of_net(), "optimizer": moments}, "last": of_net()}}
    path = saved(contents | {"optimizer": moments}, tmp_path)
    listed = "a dict with a state dict under 'teacher' in 'best' in 'weights' and 'last' in 'weights'. Save only the"
    with pytest.raises(ValueError, match=re.escape(f"{str(path)!r} contains {listed}")):
        read_state_dict(path)


class WithBranch(nn.Module):
    """A model whose auxiliary branch is no head for training."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.head = nn.Linear(2, 3)
        self.add_module(name, nn.Linear(2, 2))


@pytest.mark.parametrize("name", ["auxiliary_branch", "aux", "aux3"])
def test_a_branch_with_another_name_than_torchvisions_heads_must_be_there(name: str) -> None:
    state = {key: value for key, value in WithBranch(name).state_dict().items() if key.startswith("head")}
    with pytest.raises(ValueError, match=f"tensors are missing, .*: {name}"):
        load_state_dict(WithBranch(name), state, "own")


@pytest.mark.parametrize("name", ["aux1", "AuxLogits", "aux_classifier"])
def test_torchvisions_heads_for_training_may_be_missing(name: str) -> None:
    model = WithBranch(name)
    load_state_dict(model, {"head.weight": torch.ones(3, 2), "head.bias": torch.ones(3)}, "own")
    assert bool((model.head.weight == 1).all())


class WithAuxiliaryHead(nn.Module):
    """Named as Inception v3's heads are."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.AuxLogits = nn.ModuleDict({"fc": nn.Linear(4, num_classes)})
        self.fc = nn.Linear(4, num_classes)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_classes_are_those_of_the_head_not_of_one_for_training(prefix: str) -> None:
    tuned = WithAuxiliaryHead()
    tuned.fc = nn.Linear(4, 2)
    model = build_with_weights(WithAuxiliaryHead, prefixed(prefix, tuned.state_dict()), "inception_v3")
    assert class_count(model) == 2
    assert torch.equal(model.state_dict()["fc.weight"], tuned.fc.weight)


def test_lazy_layers_get_the_shapes_of_the_file() -> None:
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(2), nn.LazyBatchNorm1d())
    made = nn.Sequential(nn.Flatten(), nn.Linear(3, 2), nn.BatchNorm1d(2))
    load_state_dict(model, made.state_dict(), "lazy")
    model.eval(), made.eval()
    assert torch.equal(model(torch.ones(4, 3)), made(torch.ones(4, 3)))


@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_a_quantised_model_gets_the_packed_weights_of_a_file(tmp_path: Path) -> None:
    quantise: Any = torch.ao.quantization.quantize_dynamic
    model, other = (quantise(nn.Sequential(nn.Linear(4, 3)), {nn.Linear}) for _ in range(2))
    load_state_dict(model, read_state_dict(saved(other.state_dict(), tmp_path)), "quantised")
    assert torch.equal(model(torch.ones(1, 4)), other(torch.ones(1, 4)))
