"""Captum's methods from the command line on a real model: each class of captum.attr runs or is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from skimage import data

from captum_scorecam.evaluation import read_records
from captum_scorecam.evaluation.captum_methods import CLASSES, REFUSED
from tests.support.command_line import invoke

pytestmark = pytest.mark.slow

OPTIONS = {
    "Occlusion": ":sliding_window_shapes=(3,112,112),strides=(3,112,112)",
    **dict.fromkeys(("FeatureAblation", "KernelShap", "Lime", "ShapleyValueSampling"), ":patches=2"),
    **dict.fromkeys(
        ("IntegratedGradients", "InternalInfluence", "LayerConductance", "LayerIntegratedGradients"), ":n_steps=4"
    ),
}
WITHOUT_RULE = ("LRP", "LayerLRP")  # for ZeroPad2d and ReLU6
PASSING_BY = ("Deconvolution", "DeepLift", "DeepLiftShap", "GuidedBackprop", "GuidedGradCam")  # ReLU6
EQUAL = {  # maps
    frozenset({"FeatureAblation", "Occlusion"}),  # of the same four patches
    frozenset({"LayerGradCam", "LayerGradientXActivation"}),  # as what follows the layer is linear, and gradients equal
    frozenset({"LayerDeepLift", "LayerDeepLiftShap", "LayerGradientShap", "LayerIntegratedGradients"}),  # the same
}


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.fromarray(data.astronaut()).save(tmp_path / "photos" / "astronaut.png")
    return tmp_path


def test_each_class_that_takes_an_image_classifier_is_evaluated(photo: Path) -> None:
    names = sorted(CLASSES.keys() - {*REFUSED, *WITHOUT_RULE, *PASSING_BY})
    methods = [part for name in names for part in ("--method", f"captum:{name}{OPTIONS.get(name, '')}")]
    command = ["evaluate", "photos", "--data-format", "flat", "--output", "run", "--metric", "sparseness"]
    result = invoke(*command, "--perturbations-per-eval", "8", *methods)
    assert result.exit_code == 0, result.output
    records = read_records(photo / "run")
    assert [(record.method, record.error) for record in records] == [(name, None) for name in names]
    sparseness = {record.method: record.values["sparseness"] for record in records}
    constant = {name for name, value in sparseness.items() if value == 0}  # such as a map of zeros
    assert constant <= {"InternalInfluence"}, sparseness
    equal = {
        frozenset(name for name in names if sparseness[name] == pytest.approx(value, abs=1e-5))
        for value in sparseness.values()
    }
    assert {group for group in equal if len(group) > 1} == EQUAL, sparseness


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *((name, f"{name} raised TypeError: Module of type") for name in WITHOUT_RULE),
        *((name, f"{name} replaces the gradients of modules nn.ReLU") for name in PASSING_BY),
    ],
)
def test_what_captum_cannot_explain_is_refused_with_its_reason(name: str, reason: str, photo: Path) -> None:
    command = ["evaluate", "photos", "--data-format", "flat", "--output", "run", "--metric", "sparseness"]
    result = invoke(*command, "--method", f"captum:{name}")
    assert result.exit_code == 2
    assert reason in result.stderr
    assert not (photo / "run").exists()
