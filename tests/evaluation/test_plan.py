"""The plan of an evaluation: its contents, and errors before anything runs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from captum_scorecam.datasets import Mosaics, Sample
from captum_scorecam.evaluation import (
    MethodOptions,
    Metric,
    MetricResult,
    Plan,
    Provenance,
    RunSettings,
    plan_evaluation,
    read_settings,
    register_metric,
)
from captum_scorecam.evaluation.image_evaluation import classify
from captum_scorecam.evaluation.loading import load_some
from captum_scorecam.evaluation.settings import write_configuration
from captum_scorecam.models import Classifier
from tests.support import tiny_classifier
from tests.support.tiny_classifier import Pictures, picture

QUICK: dict[str, Any] = {"methods": ["grad_cam", "score_cam"], "metrics": ["average_drop"]}


def test_by_default_the_whole_data_set_is_evaluated(classifier: Classifier) -> None:
    plan = plan_evaluation(classifier, Pictures(6))
    assert plan.indices == (0, 1, 2, 3, 4, 5)
    assert tuple(plan.methods) == ("grad_cam", "score_cam")
    assert tuple(plan.metrics) == ("average_drop", "average_increase", "insertion", "deletion")
    assert (plan.target, plan.layer.name, plan.mosaics) == ("predicted", "features", None)
    assert plan.options == MethodOptions()


def test_names_are_kept_once_in_their_order(classifier: Classifier) -> None:
    plan = plan_evaluation(classifier, Pictures(1), methods=["rise", "mask", "rise"], metrics=["deletion"] * 2)
    assert (tuple(plan.methods), tuple(plan.metrics), plan.layer.name) == (("rise", "mask"), ("deletion",), "none")


def test_a_metric_of_mosaics_makes_mosaics_of_the_data_set(classifier: Classifier) -> None:
    data = Pictures(5)
    plan = plan_evaluation(classifier, data, metrics=["insertion", "mosaic_pointing_game"])
    assert plan.mosaics is not None
    assert plan.mosaics[3].image.tobytes() == Mosaics(data, 0)[3].image.tobytes()
    assert [metric.name for metric in plan.chosen_metrics("mosaic")] == ["mosaic_pointing_game"]
    assert [metric.name for metric in plan.chosen_metrics("image")] == ["insertion"]


def test_the_settings_are_those_of_the_arguments(classifier: Classifier) -> None:
    options = MethodOptions(
        n_masks=20,
        seed=3,
        mask_iterations=5,
        perturbations_per_eval=8,
        max_forwards=3,
        error=0.25,
        with_errors=True,
    )
    provenance = Provenance(
        data="/pictures", data_format="folder", weights="none", command="captum-scorecam evaluate /pictures"
    )
    plan = plan_evaluation(
        classifier, Pictures(9), **QUICK, target="label", images=4, options=options, gallery=2, provenance=provenance
    )
    assert not plan.options.with_errors  # which only pictures need
    assert plan.with_rows(4) == plan  # which has a number
    found = plan.settings(threads=2)
    assert found == RunSettings(
        model="tests.support.tiny_classifier:tiny",
        weights_digest=found.weights_digest,
        layer="features",
        dtype="float32",
        inputs=found.inputs,
        unbounded=False,
        read_as="probability",
        device="cpu",
        threads=2,
        classes=4,
        images=4,
        images_digest=found.images_digest,
        images_available=9,
        methods=("grad_cam", "score_cam"),
        metrics=("average_drop",),
        target="label",
        gallery=2,
        n_masks=20,
        mask_iterations=5,
        perturbations_per_eval=8,
        max_forwards=3,
        error=0.25,
        seed=3,
        data="/pictures",
        data_format="folder",
        weights="none",
        sources={"tests.support.tiny_classifier": found.sources["tests.support.tiny_classifier"]},
        command="captum-scorecam evaluate /pictures",
    )


def settings_of(plan: Plan) -> RunSettings:
    return plan.with_rows(4).settings(threads=1)


def test_the_digest_of_images_sees_the_class_of_a_label_and_not_its_spelling(classifier: Classifier) -> None:
    by_name = settings_of(plan_evaluation(classifier, Pictures(3, ["red", "green", "blue"]), **QUICK))
    by_index = settings_of(plan_evaluation(classifier, Pictures(3, [0, 1, 2]), **QUICK))
    others = settings_of(plan_evaluation(classifier, Pictures(3, ["red", "green", "red"]), **QUICK))
    assert by_name == by_index
    assert by_name.perturbations_per_eval == 4
    assert replace(by_name, images_digest=others.images_digest) == others != by_name


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"methods": ["magic"]},
            "Expected each of `methods` to be one of grad_cam, .*, mask, captum:CLASS, but got 'magic'",
        ),
        ({"methods": []}, "Expected at least one method and one metric"),
        ({"metrics": ["magic"]}, "Expected each of `metrics` to be one of average_drop, .*, but got 'magic'"),
        ({"metrics": []}, "Expected at least one method and one metric"),
        ({"target": "runner-up"}, "Expected `target` to be 'predicted' or 'label', but got 'runner-up'"),
        ({"images": 0}, "Expected `images` to be at least 1, but got 0"),
        ({"gallery": -1}, "Expected `gallery` to be at least 0, but got -1"),
        ({"gallery": 10**30}, "Expected `gallery` to be at most 9223372036854775807, but got 1000000"),
        ({"options": MethodOptions(n_masks=2**63)}, "Expected `n_masks` to be at most 9223372036854775807"),
        ({"options": MethodOptions(seed=2**64)}, "Expected `seed` to be at most 18446744073709551615"),
        ({"options": MethodOptions(seed=-(2**63) - 1)}, "Expected `seed` to be at least -9223372036854775808"),
        ({"options": MethodOptions(n_masks=0)}, "Expected `n_masks` to be at least 1, but got 0"),
        (
            {"options": MethodOptions(perturbations_per_eval=-4)},
            "Expected `perturbations_per_eval` to be at least 1",
        ),
        ({"options": MethodOptions(max_forwards=0)}, "Expected `max_forwards` to be at least 1, but got 0"),
        ({"options": MethodOptions(max_forwards=2**63)}, "Expected `max_forwards` to be at most 9223372036854775807"),
        ({"options": MethodOptions(error=1.0)}, r"Expected `error` in \(0, 1\), but got 1\.0\."),
        (
            {"methods": ["rise", "mask"], "options": MethodOptions(error=0.5)},
            "Expected `methods` to include score_cam, the only method with `error`, but got rise, mask",
        ),
        ({"layer": "nowhere"}, "Expected `layer` to name a module of the model, but got 'nowhere'"),
        (
            {"labels": {"violet": 9}, "target": "label"},
            "Expected labels that name classes of the model, but none does. The first: picture 0: .*'violet'",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_work(
    changed: dict[str, Any], message: str, classifier: Classifier
) -> None:
    with pytest.raises(ValueError, match=message):
        plan_evaluation(classifier, Pictures(2, ["violet", "violet"]), **(QUICK | changed))


def test_the_largest_numbers_can_be_read_back(classifier: Classifier, tmp_path: Path) -> None:
    options = MethodOptions(n_masks=2**63 - 1, seed=2**64 - 1)
    plan = plan_evaluation(classifier, Pictures(1), **(QUICK | {"gallery": 2**63 - 1, "options": options}))
    write_configuration(tmp_path, settings_of(plan), {})
    assert read_settings(tmp_path) == settings_of(plan)


def shifted(classifier: Classifier, by: float) -> Classifier:
    """A classifier whose outputs are explained as they are, for which 0 is not special."""
    with torch.no_grad():
        classifier.model.get_parameter("score.bias").add_(by)
    return replace(classifier, score="output")


@pytest.mark.parametrize(
    ("shift", "metric", "needed"),
    [
        (-100, "average_drop", "at least 0"),
        (-100, "average_drop_half", "at least 0"),
        (-100, "average_gain", r"in \[0, 1\]"),
        (100, "average_gain", r"in \[0, 1\]"),
    ],
)
def test_a_metric_that_is_undefined_for_all_outputs_is_refused(
    shift: float, metric: str, needed: str, classifier: Classifier
) -> None:
    message = (
        rf"Expected a score {needed} for {metric}, but the output .* is -?\d+\.?\d*\. .* set `score` to 'probability'"
    )
    with pytest.raises(ValueError, match=message):
        plan_evaluation(shifted(classifier, shift), Pictures(5), **(QUICK | {"metrics": ["insertion", metric]}))


@pytest.mark.parametrize(
    ("shift", "metrics"),
    [(100, ["average_drop", "average_drop_half"]), (-100, ["average_increase", "insertion", "deletion"])],
)
def test_a_metric_that_is_defined_for_the_outputs_is_planned(
    shift: float, metrics: list[str], classifier: Classifier
) -> None:
    assert plan_evaluation(shifted(classifier, shift), Pictures(5), **(QUICK | {"metrics": metrics})).metrics


class Numbered(Pictures):
    def name(self, index: int) -> Any:
        return index


def test_names_of_images_that_are_no_text_are_refused_before_work(classifier: Classifier) -> None:
    with pytest.raises(TypeError, match="Expected names of images to be str, but got int"):
        plan_evaluation(classifier, Numbered(2), **QUICK)


def test_numbers_of_numpy_and_paths_become_those_of_json(classifier: Classifier, tmp_path: Path) -> None:
    of_masks: dict[str, Any] = {"n_masks": np.int64(20), "perturbations_per_eval": np.int64(4), "seed": np.int64(1)}
    provenance = Provenance(data=tmp_path, weights=tmp_path / "w.pt")
    numbers: dict[str, Any] = {"images": np.int64(2), "gallery": np.int64(1), "options": MethodOptions(**of_masks)}
    plan = plan_evaluation(classifier, Pictures(3), **QUICK, **numbers, provenance=provenance)
    write_configuration(tmp_path, plan.settings(threads=1), {})
    settings = read_settings(tmp_path)
    assert (settings.n_masks, settings.seed, settings.images, settings.gallery) == (20, 1, 2, 1)
    assert (settings.data, settings.weights) == (str(tmp_path), str(tmp_path / "w.pt"))


class Unlabelled(Pictures):
    has_labels = has_boxes = False


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"target": "label"}, "Expected a data set with labels for `target` 'label', but it has none"),
        (
            {"metrics": ["mosaic_pointing_game"]},
            "Expected a data set with labels for mosaic_pointing_game, but it has none",
        ),
        ({"metrics": ["pointing_game"]}, "Expected a data set with boxes for pointing_game, but it has none"),
    ],
)
def test_a_data_set_without_what_a_metric_needs_is_refused(
    changed: dict[str, Any], message: str, classifier: Classifier
) -> None:
    with pytest.raises(ValueError, match=message):
        plan_evaluation(classifier, Unlabelled(2, [None, None]), **(QUICK | changed))


def test_another_class_needs_a_model_that_has_one(classifier: Classifier) -> None:
    one = replace(classifier, model=nn.Sequential(classifier.model, Score()), layer="0.features", score="sigmoid")
    one = replace(one, class_names=None)
    with pytest.raises(ValueError, match="Expected a model with two or more classes for random_logit, but it has one"):
        plan_evaluation(one, Unlabelled(2, [None, None]), **(QUICK | {"metrics": ["random_logit"]}))


class Score(nn.Module):
    """Returns a single output, N×1."""

    def forward(self, scores: Tensor) -> Tensor:
        return scores[:, :1]


def test_every_metric_of_mosaics_needs_labels(classifier: Classifier) -> None:
    register_metric(Metric("tiles", "Tiles", True, lambda _: MetricResult(0.0), on="mosaic"))
    with pytest.raises(ValueError, match="Expected a data set with labels for tiles, but it has none"):
        plan_evaluation(classifier, Unlabelled(2, [None, None]), **(QUICK | {"metrics": ["tiles"]}))


def test_a_data_set_without_images_is_refused(classifier: Classifier) -> None:
    with pytest.raises(ValueError, match="Expected a data set with at least one image, but it has none"):
        plan_evaluation(classifier, Pictures(0, []), **QUICK)


def test_numbers_that_may_be_positions_are_no_labels(classifier: Classifier) -> None:
    class Numbered(Pictures):
        classes = ("1", "2", "3", "4")  # type: ignore[assignment]

    nameless, data = replace(classifier, class_names=None), Numbered(4, ["1", "2", "3", "4"])
    with pytest.raises(ValueError, match="'1' may be class 1 or, as in torchvision's ImageFolder, its position"):
        plan_evaluation(nameless, data, target="label")
    with pytest.warns(UserWarning, match="4 of 4 images have no label .* Expected `labels` for classes named by numb"):
        plan = plan_evaluation(nameless, data, metrics=["average_drop"])
    with pytest.raises(ValueError, match="Expected `labels`"):
        plan.class_of("2")


def test_labels_that_are_no_classes_are_warned_of_at_the_callers_line(classifier: Classifier) -> None:
    with pytest.warns(
        UserWarning, match="1 of 2 images have no label that is a class .* picture 1: .*'violet'"
    ) as found:
        plan_evaluation(classifier, Pictures(2, ["red", "violet"]), **QUICK)
    assert [warning.filename for warning in found] == [__file__]


def test_boxes_of_another_class_than_the_explained_one_are_warned_of(classifier: Classifier) -> None:
    metrics = ["average_drop", "pointing_game", "iou", "mosaic_pointing_game"]
    message = "where it is another, pointing_game, iou compare its map with the wrong object. Set `target` to 'label'"
    with pytest.warns(UserWarning, match=message) as found:
        plan_evaluation(classifier, Pictures(4), **(QUICK | {"metrics": metrics}))
    assert [warning.filename for warning in found] == [__file__]
    plan_evaluation(classifier, Pictures(4), **(QUICK | {"metrics": metrics}), target="label")
    plan_evaluation(classifier, Pictures(4), **(QUICK | {"metrics": ["average_drop", "mosaic_pointing_game"]}))


def test_another_preprocessing_is_another_setting(classifier: Classifier) -> None:
    size = replace(classifier, preprocess=partial(tiny_classifier.preprocess, side=24))
    scale = replace(classifier, preprocess=lambda image: tiny_classifier.preprocess(image) / 2)
    found = [settings_of(plan_evaluation(each, Pictures(1), **QUICK)).inputs for each in (classifier, size, scale)]
    assert found[0] == "(3, 21, 21), mean 0.10 0.10 0.10, deviation 0.29 0.29 0.29"
    assert len({*found}) == 3


def test_mosaics_depend_on_images_that_are_not_drawn(classifier: Classifier) -> None:
    options: dict[str, Any] = {"metrics": ["mosaic_pointing_game"], "images": 2, "labels": {}}
    before = plan_evaluation(classifier, Pictures(8), **options)
    undrawn = next(index for index in range(8) if index not in before.indices)
    labels = [tiny_classifier.NAMES[(index + (index == undrawn)) % 4] for index in range(8)]
    after = plan_evaluation(classifier, Pictures(8, labels), **options)
    assert settings_of(before).images_digest != settings_of(after).images_digest
    without = [plan_evaluation(classifier, data, **QUICK, images=2) for data in (before.dataset, after.dataset)]
    assert settings_of(without[0]).images_digest == settings_of(without[1]).images_digest


def test_labels_of_one_class_do_not_meet_in_a_mosaic(classifier: Classifier) -> None:
    labels = {"red": 0, "crimson": 0, "green": 1, "blue": 2, "white": 3}
    classes: dict[str | int, int] = dict(labels.items())
    data = Pictures(10, [*labels, *labels])
    plan = plan_evaluation(classifier, data, metrics=["mosaic_pointing_game"], labels=labels)
    alone = replace(plan, mosaics=Mosaics(data, 0, classes=classes)).mosaics
    assert plan.mosaics is not None
    assert alone is not None
    assert [plan.mosaics[index].image.tobytes() for index in range(10)] == [
        alone[index].image.tobytes() for index in range(10)
    ]
    with pytest.raises(ValueError, match="labels of at least four classes for mosaics, but got 3"):
        plan_evaluation(
            classifier, data, metrics=["mosaic_pointing_game"], labels={**labels, "blue": 0}, target="label"
        )


class Unreadable(Pictures):
    """Pictures whose label is in the file, of which one is damaged."""

    def label(self, index: int) -> str | int | None:
        if index == 1:
            raise OSError("damaged")
        return super().label(index)


@pytest.mark.filterwarnings("ignore:1 of 3 images have no label")
def test_the_digest_does_not_need_a_label_that_cannot_be_read(classifier: Classifier) -> None:
    found = settings_of(plan_evaluation(classifier, Unreadable(3), **QUICK))
    assert found.images_digest != settings_of(plan_evaluation(classifier, Pictures(3), **QUICK)).images_digest


class OutputsFromFiles(nn.Module):
    """Returns the brightness of the image, and 0.5."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        unused: Tensor = 0 * self.features(inputs).sum()
        return torch.stack([inputs.mean((1, 2, 3)), torch.full((len(inputs),), 0.5)], 1) + unused


@pytest.mark.parametrize(("scale", "unbounded"), [(1.0, False), (10.0, True)])
def test_the_weighting_of_outputs_is_chosen_for_all_images(scale: float, unbounded: bool) -> None:
    """And not for each image by its own outputs."""
    last = picture(3)[0].tobytes()

    def preprocess(image: Image.Image) -> Tensor:
        pixels = tiny_classifier.preprocess(image) + 0.4
        return pixels * scale if image.tobytes() == last else pixels

    classifier = Classifier("own", OutputsFromFiles().eval(), preprocess, score="output")
    plan = plan_evaluation(
        classifier, Pictures(4, [0, 1, 0, 1]), methods=["score_cam"], metrics=["sparseness"], layer="features"
    )
    assert plan.unbounded is settings_of(plan).unbounded is unbounded


class Damaged(Pictures):
    """Pictures that can't be read."""

    def __getitem__(self, index: int) -> Sample:
        raise OSError(f"{index} is damaged")


def test_without_readable_images_the_weighting_is_that_of_the_synthetic_one(classifier: Classifier) -> None:
    plan = plan_evaluation(replace(classifier, score="output"), Damaged(4), **(QUICK | {"metrics": ["sparseness"]}))
    assert plan.unbounded


class Probabilities(nn.Module):
    """Returns values that sum to 1 by chance for a dark image, and logits for others."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 2, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        values = self.features(inputs).abs().mean((2, 3))
        is_dark = inputs.mean((1, 2, 3)).unsqueeze(1) < 0
        return torch.where(is_dark, values / values.sum(1, keepdim=True), 100 * values)


def test_outputs_of_all_images_are_read_alike() -> None:
    torch.manual_seed(0)
    own, data = Classifier("own", Probabilities().eval(), tiny_classifier.preprocess), Pictures(4, [0, 1, 0, 1])
    plan = plan_evaluation(own, data, methods=["score_cam"], metrics=["insertion"], layer="features")
    images = [data[index].image for index in range(4)]
    assert plan.read_as == own.predict(plan.example).score == "probability"
    assert "output" in {own.predict(own.inputs(image)).score for image in images}
    scores = {classify(plan, loaded).prediction.score for loaded in load_some(plan)}
    assert scores == {"probability"}
    assert plan.with_rows(4).settings(threads=1).read_as == "probability"
