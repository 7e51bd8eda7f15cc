"""Models of timm and Hugging Face, as the commands take them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.command_line import invoke, rows_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("folder")]  # the packages take seconds to import


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_a_timm_model_with_the_weights_of_a_file_is_explained(folder: Path) -> None:
    timm = pytest.importorskip("timm")
    trained = timm.create_model("test_resnet", num_classes=2)
    with torch.no_grad():
        trained.fc.bias.copy_(torch.tensor([-20.0, 20.0]))
    torch.save({"state_dict": trained.state_dict(), "epoch": 3}, folder / "weights.pth")
    result = invoke("explain", "colours.png", "--model", "timm/test_resnet", "--weights", "weights.pth")
    assert result.exit_code == 0, result.output
    assert "timm/test_resnet, weights weights.pth, layer layer4" in result.output
    assert [row[:2] for row in rows_of(result.output)[::2]] == [
        ["colours.png", "class 1 (1)"],
        ["class 0 (0)", "Grad-CAM"],
    ]
    assert (folder / "scorecam.png").exists()


def test_resnet18_of_timm_is_explained(folder: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.save(timm.create_model("resnet18").state_dict(), folder / "resnet18.pth")
    result = invoke("explain", "colours.png", "--model", "timm/resnet18", "--weights", "resnet18.pth")
    assert result.exit_code == 0, result.output
    assert "timm/resnet18, weights resnet18.pth, layer layer4" in result.output
    assert (folder / "scorecam.png").exists()


def hugging_face_resnet(names: dict[int, str], **options: Any) -> None:
    """Saves a classifier of the last of `names` into the folder ``model``."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", id2label=names, **options
    )
    model = transformers.ResNetForImageClassification(config)
    with torch.no_grad():
        model.classifier[-1].weight.zero_()
        model.classifier[-1].bias.copy_(torch.arange(len(names)) - 1.0)
    model.save_pretrained("model")
    transformers.ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained("model")


def test_a_hugging_face_folder_is_explained_with_its_class_names(folder: Path) -> None:
    hugging_face_resnet({2: "eel", 0: "cat", 1: "dog"})
    result = invoke("explain", "colours.png", "--model", "hf/model", "--method", "rise", "--n-masks", "10")
    assert result.exit_code == 0, result.output
    rows = rows_of(result.output)
    assert [row[0] for row in rows] == ["colours.png", "predicted, 66.5%", "dog (1)", "runner-up, 24.5%"]
    assert rows[0][1] == "eel (2)"
    assert (folder / "scorecam.png").exists()


def test_a_hugging_face_model_with_several_labels_shows_sigmoids() -> None:
    hugging_face_resnet({0: "cat", 1: "dog", 2: "eel"}, problem_type="multi_label_classification")
    result = invoke("explain", "colours.png", "--model", "hf/model", "--method", "rise", "--n-masks", "10")
    assert result.exit_code == 0, result.output
    assert [row[0] for row in rows_of(result.output)][1::2] == ["predicted, 73.1%", "runner-up, 50.0%"]


def test_score_cam_explains_a_hugging_face_model() -> None:
    hugging_face_resnet({0: "cat", 1: "dog"})
    result = invoke("explain", "colours.png", "--model", "hf/model", "--layer", "resnet.encoder.stages.1")
    assert result.exit_code == 0, result.output
    assert "hf/model, weights DEFAULT, layer resnet.encoder.stages.1" in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "timm/resnet81"], "`--model` to be timm/ and one of the names in timm.list_models()"),
        (["--model", "hf/nowhere/at/all"], "`--model` to be hf/FOLDER or hf/OWNER/NAME, but there is no folder"),
        (
            ["--model", "timm/resnet18", "--weights", "colours.png"],
            "`--weights` to be a state dict written by torch.save",
        ),
    ],
)
def test_errors_name_the_options(options: list[str], message: str) -> None:
    pytest.importorskip("timm")
    pytest.importorskip("transformers")
    result = invoke("explain", "colours.png", *options)
    assert result.exit_code == 2
    assert result.output.startswith(f"Error: Expected {message}")
