"""Hugging Face's image classifiers in folders; transformers takes seconds to import."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from captum_scorecam.models import load_classifier, seen_pixels

pytestmark = pytest.mark.slow

TINY = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 8,
    "image_size": 32,
    "patch_size": 8,
}
ANIMALS = {2: "eel", 0: "cat", 1: "dog"}


@pytest.fixture(scope="module")
def transformers() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HF_HUB_OFFLINE", "1")  # read when huggingface_hub is imported
        yield pytest.importorskip("transformers")


@pytest.fixture
def save(transformers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Saves a tiny model into the folder ``model``, with an image processor, and returns it."""
    monkeypatch.chdir(tmp_path)

    def save(kind: str = "ViTForImageClassification", processor: dict[str, Any] | None = None, **options: Any) -> Any:
        model = getattr(transformers, kind)(transformers.ViTConfig(**TINY, **options)).eval()
        model.save_pretrained("model")
        options_of_processor = {"size": {"height": 32, "width": 32}} | (processor or {})
        transformers.ViTImageProcessor(**options_of_processor).save_pretrained("model")
        return model

    return save


def red() -> Image.Image:
    return Image.new("RGB", (40, 50), (255, 0, 127))


def outputs_of(classifier: Any) -> torch.Tensor:
    scores: torch.Tensor = classifier.predict(classifier.inputs(red())).scores
    return scores


def expected(model: Any, inputs: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(inputs).logits[0]
    return logits


@pytest.mark.parametrize("name", ["hf/model", "hf/./model", "hf/{}/model"])
def test_a_folder_has_a_model_its_preprocessing_and_class_names(
    name: str, save: Callable[..., Any], tmp_path: Path
) -> None:
    model = save(id2label=ANIMALS)
    classifier = load_classifier(name.format(tmp_path))
    inputs = classifier.inputs(red())
    assert inputs.shape == (1, 3, 32, 32)
    torch.testing.assert_close(inputs[0, :, 5, 5], torch.tensor([1.0, -1.0, 127 / 255 * 2 - 1]))
    torch.testing.assert_close(seen_pixels(inputs, classifier.preprocess)[5, 5], torch.tensor([1.0, 0.0, 127 / 255]))
    torch.testing.assert_close(outputs_of(classifier), expected(model, inputs))
    assert classifier.class_names == ["cat", "dog", "eel"]
    assert not classifier.model.training


def test_made_up_class_names_are_none(save: Callable[..., Any]) -> None:
    save(num_labels=12)
    assert load_classifier("hf/model").class_names is None


@pytest.mark.parametrize(
    ("processor", "values"),
    [
        ({"image_mean": [0.2, 0.3, 0.4], "image_std": [0.5, 0.25, 0.125]}, [1.6, -1.2, (127 / 255 - 0.4) / 0.125]),
        ({"do_normalize": False}, [1.0, 0.0, 127 / 255]),
        ({"do_normalize": False, "do_rescale": False}, [255.0, 0.0, 127.0]),
    ],
    ids=["normalised", "rescaled", "bytes"],
)
def test_pixels_are_seen_through_any_image_processor(
    processor: dict[str, Any], values: list[float], save: Callable[..., Any]
) -> None:
    save(processor=processor)
    classifier = load_classifier("hf/model")
    inputs = classifier.inputs(red())
    torch.testing.assert_close(inputs[0, :, 5, 5], torch.tensor(values))
    seen = seen_pixels(inputs, classifier.preprocess)[5, 5]
    torch.testing.assert_close(seen, torch.tensor([1.0, 0.0, 127 / 255]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("problem", "score"),
    [
        ("multi_label_classification", "sigmoid"),
        ("regression", "output"),
        ("single_label_classification", "probability"),
        (None, "probability"),
    ],
)
def test_the_kind_of_problem_selects_the_score(problem: str | None, score: str, save: Callable[..., Any]) -> None:
    save(num_labels=4, problem_type=problem)
    classifier = load_classifier("hf/model")
    prediction = classifier.predict(classifier.inputs(red()))
    assert prediction.score == score
    logits = prediction.scores
    wanted = {"sigmoid": logits.sigmoid(), "output": logits, "probability": logits.softmax(0)}[score]
    torch.testing.assert_close(prediction.probabilities, wanted)
    assert load_classifier("hf/model", score="output").score == "output"


@pytest.mark.parametrize("bias", [0.032, 3.2])
def test_a_regression_has_no_probabilities(bias: float, save: Callable[..., Any]) -> None:
    model = save(num_labels=1, problem_type="regression")
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.fill_(bias)
    model.save_pretrained("model")
    classifier = load_classifier("hf/model")
    prediction = classifier.predict(classifier.inputs(red()))
    assert prediction.probabilities.tolist() == pytest.approx([bias])
    assert not prediction.has_probabilities


@pytest.mark.parametrize("file", ["model/model.safetensors", "names_of_the_model.pt", "lightning.ckpt"])
def test_weights_come_from_a_file(file: str, save: Callable[..., Any]) -> None:
    model = save(id2label=ANIMALS)
    state = model.state_dict()
    torch.save(state, "names_of_the_model.pt")
    torch.save({"state_dict": {f"net.{name}": value for name, value in state.items()}}, "lightning.ckpt")
    Path("model/model.safetensors").rename("model.safetensors")
    classifier = load_classifier("hf/model", file.replace("model/", ""))
    torch.testing.assert_close(outputs_of(classifier), expected(model, classifier.inputs(red())))


def test_random_weights_need_no_file(save: Callable[..., Any]) -> None:
    save()
    Path("model/model.safetensors").unlink()
    assert outputs_of(load_classifier("hf/model", "none")).isfinite().all()


def test_weights_for_another_number_of_classes_raise(save: Callable[..., Any]) -> None:
    save(num_labels=5)
    Path("model/model.safetensors").rename("other.safetensors")
    save(num_labels=3)
    with pytest.raises(
        ValueError, match="Expected `weights` to match hf/model, but tensors are missing, unexpected or"
    ):
        load_classifier("hf/model", "other.safetensors")


def test_a_model_without_a_trained_head_raises(save: Callable[..., Any]) -> None:
    save("ViTModel")
    with pytest.raises(
        ValueError, match=r"hf/model has no weights for 2 tensors: classifier\.bias, classifier\.weight"
    ):
        load_classifier("hf/model")


def test_a_model_of_another_task_raises(transformers: Any, save: Callable[..., Any]) -> None:
    save()
    transformers.BertConfig().save_pretrained("model")
    with pytest.raises(ValueError, match="Expected an image classifier, but hf/model is a model of type bert"):
        load_classifier("hf/model")


@pytest.mark.parametrize(
    ("file", "contents", "message"),
    [
        (
            "preprocessor_config.json",
            None,
            r"to contain preprocessor_config\.json: image_processor\.save_pretrained\('m",
        ),
        (
            "config.json",
            None,
            r"Expected the folder 'model' to contain config\.json: model\.save_pretrained\('model'\)",
        ),
        ("config.json", "{", r"a folder written by save_pretrained, but loading it fails: .*not a valid JSON file"),
        ("model.safetensors", None, "a folder written by save_pretrained, but loading it fails: .*no file named"),
        ("model.safetensors", "abc", "a folder written by save_pretrained, but loading it fails: "),
    ],
)
def test_a_missing_or_damaged_file_raises(
    file: str, contents: str | None, message: str, save: Callable[..., Any]
) -> None:
    save()
    Path("model", file).unlink()
    if contents is not None:
        Path("model", file).write_text(contents)
    with pytest.raises(ValueError, match=message):
        load_classifier("hf/model")


def test_a_saved_model_of_timm_has_its_preprocessing_in_its_configuration(
    transformers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = transformers.TimmWrapperConfig(
        architecture="resnet18",
        num_labels=3,
        model_args={},
        pretrained_cfg={"input_size": (3, 64, 64), "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "crop_pct": 1.0},
    )
    model = transformers.TimmWrapperForImageClassification(config).eval()
    model.save_pretrained("model")
    classifier = load_classifier("hf/model")
    inputs = classifier.inputs(red())
    assert inputs.shape == (1, 3, 64, 64)
    assert [round(float(value), 3) for value in inputs[0].amax((1, 2))] == [2.0, -2.0, round((127 / 255 - 0.5) * 4, 3)]
    torch.testing.assert_close(outputs_of(classifier), expected(model, inputs))


def test_weights_with_nan_are_refused(save: Callable[..., Any]) -> None:
    torch.save({name: value * torch.nan for name, value in save().state_dict().items()}, "weights.pt")
    with pytest.raises(ValueError, match="contains NaN"):
        load_classifier("hf/model", "weights.pt")


@pytest.mark.parametrize("source", ["", "./nowhere", "no/where/at/all", "/nowhere", "C:\\nowhere"])
def test_a_missing_folder_raises(source: str, transformers: Any) -> None:
    assert transformers.__name__ == "transformers"
    with pytest.raises(ValueError, match="Expected `name` to be hf/FOLDER or hf/OWNER/NAME, but there is no folder '"):
        load_classifier(f"hf/{source}")


def test_a_model_that_cannot_be_downloaded_raises(
    transformers: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s [Retry 1/5].")
        raise OSError("no network")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", fail)
    capfd.readouterr()
    with pytest.raises(OSError, match=r"There is no folder 'owner/name', and downloading .* fails: no network$"):
        load_classifier("hf/owner/name")
    assert capfd.readouterr() == ("", "")


def test_nothing_is_printed_and_settings_are_kept(
    transformers: Any, save: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    save()
    capfd.readouterr()
    logging = transformers.utils.logging
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_classifier("hf/model")
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
