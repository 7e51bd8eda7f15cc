"""configuration.json: resuming a run, and errors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn
from torchvision import models

from captum_scorecam.evaluation import read_records, read_settings
from captum_scorecam.evaluation.settings import (
    check_same_settings,
    digest_of_lines,
    digest_of_weights,
    find_versions,
    inputs_text,
    packages_of,
    read_configuration,
    warn_of_other_versions,
    write_configuration,
)
from tests.support.run_records import SETTINGS


@pytest.mark.parametrize("reader", [read_records, read_settings])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"^Expected the folder of a run, but '.*' contains no configuration\.json\.$"),
        (b"\xff", r"Expected a configuration in '.*', but it is not text in UTF-8\."),
        (b"", "Expected a configuration in '.*', but it is not JSON: Expecting value"),
        (b"[]", r"Expected a configuration in '.*', but it is \[\]\."),
        (b'{"format_version": 3, "settings": {}}', "Expected a configuration in '.*', but it lacks the key 'versions'"),
        (b'{"asked": {}, "versions": {}}', "Expected a run of format version 3, but '.*' has None: another version"),
        (b'{"format_version": 1}', "Expected a run of format version 3, but '.*' has 1: another version of captum-s"),
    ],
)
def test_a_folder_without_a_run_of_this_format_is_refused(
    tmp_path: Path, content: bytes | None, message: str, reader: Callable[[Path], object]
) -> None:
    if content is not None:
        (tmp_path / "configuration.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        reader(tmp_path)


def test_settings_that_lack_one_name_it(tmp_path: Path) -> None:
    write_configuration(tmp_path, SETTINGS, {})
    path = tmp_path / "configuration.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["settings"]["seed"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"^Expected a configuration in '.*', but `settings` lacks the key 'seed'\.$"):
        read_settings(tmp_path)


def test_the_configuration_is_readable_json(tmp_path: Path) -> None:
    write_configuration(tmp_path, SETTINGS, {"torch": "2.6"})
    assert json.loads((tmp_path / "configuration.json").read_text(encoding="utf-8")) == {
        "format_version": 3,
        "settings": asdict(SETTINGS) | {"methods": ["grad_cam", "score_cam"], "metrics": ["insertion", "average_drop"]},
        "versions": {"torch": "2.6"},
    }
    assert read_settings(tmp_path) == read_settings(str(tmp_path)) == SETTINGS
    assert read_configuration(tmp_path).versions == {"torch": "2.6"}


def test_settings_that_differ_are_listed() -> None:
    check_same_settings(SETTINGS, replace(SETTINGS))
    with pytest.raises(ValueError, match=r'"head"; `weights_digest`: ".*" -> "0"; `weights`: null -> "none"\.'):
        check_same_settings(SETTINGS, replace(SETTINGS, layer="head", weights="none", weights_digest="0"))
    check_same_settings(SETTINGS, replace(SETTINGS, weights="other/w.pt"))  # which has the same digest


def test_inputs_have_no_negative_zero() -> None:
    assert inputs_text(torch.full((1, 1, 2, 2), -1e-9)) == "(1, 2, 2), mean 0.00, deviation 0.00"


def test_inputs_that_a_run_has_not_recorded_are_not_compared(tmp_path: Path) -> None:
    now = replace(SETTINGS, inputs="(3, 8, 8), mean 0.00, deviation 1.00")
    write_configuration(tmp_path, SETTINGS, {})
    path = tmp_path / "configuration.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["settings"]["inputs"], content["settings"]["unbounded"]
    path.write_text(json.dumps(content))
    check_same_settings(read_settings(tmp_path), replace(now, unbounded=True))
    with pytest.raises(ValueError, match="different settings: `inputs`: "):
        check_same_settings(now, replace(now, inputs="(3, 9, 9), mean 0.00, deviation 1.00"))


def test_how_outputs_are_read_is_a_setting() -> None:
    now = replace(SETTINGS, read_as="output")
    check_same_settings(SETTINGS, now)  # of an earlier version
    with pytest.raises(ValueError, match='settings: `read_as`: "output" -> "probability"'):
        check_same_settings(now, replace(now, read_as="probability"))


def test_a_budget_is_a_setting() -> None:
    with pytest.raises(ValueError, match=r"settings: `error`: null -> 0\.1; `max_forwards`: 57 -> null\."):
        check_same_settings(replace(SETTINGS, max_forwards=57), replace(SETTINGS, error=0.1))


def test_versions_have_the_packages_that_numbers_depend_on() -> None:
    found = find_versions(torch.device("cpu"))
    assert found["torch"] == torch.__version__.split("+")[0]
    assert found["cuda"] is None
    assert {"captum", "captum_scorecam", "pillow", "python", "torchmetrics", "torchvision", "git_revision"} <= {*found}
    assert (found["numpy"], found["scipy"]) == (metadata.version("numpy"), metadata.version("scipy"))


def test_versions_include_those_of_further_packages() -> None:
    found = find_versions(torch.device("cpu"), "onnxruntime")
    assert {**find_versions(torch.device("cpu")), "onnxruntime": metadata.version("onnxruntime")} == found


def test_the_digest_of_weights_changes_with_any_parameter_or_buffer() -> None:
    model = nn.BatchNorm1d(3)
    before = digest_of_weights(model)
    assert digest_of_weights(nn.BatchNorm1d(3)) == before
    model.get_buffer("running_mean")[2] = 1e-6
    assert digest_of_weights(model) != before


def test_the_digest_of_weights_has_buffers_that_are_not_saved() -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("mean", torch.zeros(3), persistent=False)
    before = digest_of_weights(model)
    model.get_buffer("mean").add_(1)
    assert digest_of_weights(model) != before


def test_packages_of_a_model_are_those_of_its_modules() -> None:
    class Own(nn.Module):
        """Of a module that belongs to no package."""

    assert packages_of(nn.Sequential(Own(), nn.ReLU())) == ["torch"]
    assert packages_of(models.resnet18()) == ["torch", "torchvision"]


class WithExtraState(nn.Linear):
    """A layer with something else than tensors in its state dict."""

    extra: object = None

    def get_extra_state(self) -> object:
        return self.extra

    def set_extra_state(self, state: object) -> None:
        self.extra = state


def test_the_digest_of_weights_sees_what_is_not_a_tensor() -> None:
    model = WithExtraState(2, 2)
    found = []
    for model.extra in (None, {"version": 3}, {"version": 4}, {"scale": torch.ones(2)}, {"scale": torch.zeros(2)}):
        found.append(digest_of_weights(model))
    assert len({*found}) == 5
    model.extra = {"scale": torch.ones(2)}
    assert digest_of_weights(model) == found[3]


@pytest.mark.filterwarnings("ignore:torch.*deprecated")
def test_the_digest_of_weights_sees_those_of_a_quantised_layer() -> None:
    model, quantise = nn.Sequential(nn.Linear(3, 2)), cast(Any, torch.ao.quantization.quantize_dynamic)
    before = digest_of_weights(quantise(model, {nn.Linear}))
    assert digest_of_weights(quantise(model, {nn.Linear})) == before
    nn.init.ones_(model.get_parameter("0.weight"))
    assert digest_of_weights(quantise(model, {nn.Linear})) != before


def test_the_digest_of_lines_tells_where_they_end() -> None:
    assert digest_of_lines(["ab", "c"]) != digest_of_lines(["a", "bc"])
    assert digest_of_lines(["\udcff"]) != digest_of_lines(["\udcfe"])
    assert len(digest_of_lines([])) == 16


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"threads": 0}, "`threads` is 0, not in [1, 4096]"),
        ({"threads": 10**6}, "`threads` is 1000000, not in [1, 4096]"),
        ({"images": 17}, "`images` is 17 and `images_available` is 16"),
        ({"images": "3"}, "`images` is '3'"),
        ({"classes": 0}, "`classes` is 0, not in [1, 9.22337e+18]"),
        ({"max_forwards": 0}, "`max_forwards` is 0, not in [1, 9.22337e+18]"),
        ({"error": 1.5}, "`error` is 1.5, not in [0, 1]"),
        ({"gallery": -1}, "`gallery` is -1, not in [0, 9.22337e+18]"),
        ({"seed": 2**64}, "`seed` is 18446744073709551616, not in [-9.22337e+18, 1.84467e+19]"),
        ({"seed": 10**23}, "it contains a whole number of 24 digits"),
        ({"methods": []}, "`methods` is []"),
        ({"methods": ["rise", "rise"]}, "`methods` is ['rise', 'rise']"),
        ({"methods": ["../../rise"]}, "`methods` is ['../../rise']"),
        ({"metrics": "insertion"}, "`metrics` is 'insertion'"),
        (
            {"method_options": {"score_cam": "rise:n_masks={[1]:2}"}},
            "`method_options` of 'score_cam' is 'rise:n_masks={[1]:2}'",
        ),
        ({"metrics": [""]}, "`metrics` is ['']"),
        ({"target": "runner-up"}, "`target` is 'runner-up'"),
        ({"score": "magic"}, "`score` is 'magic'"),
        ({"sources": {"plugin": 7}}, "`sources`['plugin'] is 7"),
        ({"sources": []}, "`sources` is []"),
        ({"command": 7}, "`command` is 7"),
    ],
)
def test_settings_out_of_their_range_are_refused_with_the_file_and_the_key(
    changed: dict[str, object], message: str, tmp_path: Path
) -> None:
    write_configuration(tmp_path, SETTINGS, {})
    path = tmp_path / "configuration.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["settings"] |= changed
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=re.escape(f"Expected a configuration in {str(path)!r}, but {message}.")):
        read_settings(tmp_path)


def test_other_versions_of_a_rank_are_warned_of_and_other_numbers_of_cores_are_not() -> None:
    before = {"torch": "2.9.0", "cpu_cores": "2"}
    with pytest.warns(UserWarning, match=r'The first rank has other versions, .*: torch: "2\.9\.0" -> "2\.8\.0"\.$'):
        warn_of_other_versions(before, {"torch": "2.8.0", "cpu_cores": "4"}, "The first rank has")
    warn_of_other_versions(before, before | {"cpu_cores": "4"})
