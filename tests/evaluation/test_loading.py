"""Preprocessing moves regions, masks and boxes as it moves the image; runs compare maps with them."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import to_tensor

from captum_scorecam.datasets import Sample, open_data
from captum_scorecam.evaluation import plan_evaluation, read_records
from captum_scorecam.evaluation.loading import LoadedImages, Preprocessed, load_images, load_some
from captum_scorecam.models import Classifier
from tests.support.tiny_classifier import Pictures, picture
from tests.support.tiny_evaluation import OPTIONS, evaluate


def cropped(image: Image.Image) -> torch.Tensor:
    """Shows the left 6×4 of an image of 8×4, twice as large."""
    pixels: torch.Tensor = to_tensor(image.crop((0, 0, 6, 4)).resize((12, 8), Image.Resampling.NEAREST))
    return pixels


class OneSample(Pictures):
    def __init__(self, sample: Sample) -> None:
        super().__init__(1)
        self.sample = sample

    def __getitem__(self, index: int) -> Sample:
        return self.sample


def preprocessed(*boxes: tuple[int, int, int, int], mask: tuple[int, int, int, int] | None = None) -> Preprocessed:
    image, region = Image.new("RGB", (8, 4)), Image.new("L", (8, 4))
    for box in boxes:
        region.paste(255, box)
    drawn = None if mask is None else Image.new("L", (8, 4))
    if drawn is not None:
        drawn.paste(255, mask)
    data = OneSample(Sample("a", image, 0, region, drawn, boxes))
    found = LoadedImages(data, [0], None, cropped)[0].image
    assert isinstance(found, Preprocessed)
    return found


@pytest.mark.parametrize(
    ("images", "loaded"), [(1, [0]), (4, [0, 1, 2, 3]), (5, [0, 2, 4]), (9, [0, 3, 6]), (16, [0, 4, 8, 12])]
)
def test_some_images_are_spread_evenly(images: int, loaded: list[int], classifier: Classifier) -> None:
    plan = plan_evaluation(classifier, Pictures(images), methods=["grad_cam"], metrics=["sparseness"])
    assert [image.index for image in load_some(plan)] == loaded


def test_boxes_are_resized_and_cropped_one_by_one() -> None:
    found = preprocessed((1, 0, 3, 2), (2, 1, 8, 4), (6, 0, 8, 4))  # overlap; reaches outside; is outside
    assert found.boxes is not None
    assert found.boxes.tolist() == [[2, 0, 6, 4], [4, 2, 12, 8]]
    assert found.region is not None
    assert found.region.sum() == 4 * 4 + 8 * 6 - 2 * 2
    assert found.mask is None


def test_images_are_loaded_whatever_the_default_device() -> None:
    torch.set_default_device("meta")
    try:
        loaded = list(load_images(LoadedImages(Pictures(2), [0, 1], None, cropped)))
    finally:
        torch.set_default_device(None)
    assert [image.index for image in loaded] == [0, 1]


def test_one_box_is_that_around_the_region() -> None:
    assert preprocessed((1, 0, 3, 2)).boxes is None


def test_boxes_that_are_cropped_away_leave_no_region() -> None:
    found = preprocessed((6, 0, 7, 4), (7, 0, 8, 4))
    assert (found.region, found.boxes) == (None, None)


def test_a_mask_is_resized_and_cropped() -> None:
    found = preprocessed((1, 0, 8, 4), mask=(5, 1, 8, 3))
    assert found.mask is not None
    assert found.mask.nonzero().tolist() == [[y, x] for y in range(2, 6) for x in range(10, 12)]
    away = preprocessed((1, 0, 8, 4), mask=(6, 1, 8, 3))
    assert away.mask is not None
    assert not away.mask.any()


def write_coco(folder: Path, *segmentations: object) -> Path:
    """Pictures whose boxes have segmentations."""
    annotations = []
    for index, segmentation in enumerate(segmentations):
        image, (left, top, right, bottom) = picture(index)
        image.save(folder / f"{index}.png")
        box = [left, top, right - left, bottom - top]
        annotations.append({"image_id": index, "category_id": 0, "bbox": box, "segmentation": segmentation})
    images = [{"id": index, "file_name": f"{index}.png"} for index in range(len(segmentations))]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 0, "name": "red"}]}
    (folder / "coco.json").write_text(json.dumps(content))
    return folder / "coco.json"


def test_a_run_on_coco_compares_maps_with_masks_where_there_are_any(classifier: Classifier, tmp_path: Path) -> None:
    left, top, right, bottom = picture(0)[1]
    triangle = [[left, top, right, top, left, bottom]]
    chosen: dict[str, Any] = {
        "methods": ["grad_cam"],
        "metrics": ["iou", "relevance_mass", "energy_pointing_game", "max_box_acc"],
        "target": "label",
    }
    records = {}
    for name, segmentations in (("masks", (triangle, None)), ("boxes", (None, None))):
        (tmp_path / name).mkdir()
        path = write_coco(tmp_path / name, *segmentations)
        with pytest.warns(UserWarning, match="no mask") if name == "masks" else nullcontext():
            data = open_data(path, "coco")
        summary = evaluate(classifier, data, tmp_path / f"{name}-run", options=OPTIONS, **chosen)
        records[name] = read_records(tmp_path / f"{name}-run")
        hits = torch.tensor([record.curves["max_box_acc"].y for record in records[name]])
        assert summary is not None
        assert summary.overall.means["grad_cam"]["max_box_acc"].mean == pytest.approx(float(hits.mean(0).max()))
        assert hits.shape == (2, 100)
    masked, boxed = records["masks"][0], records["boxes"][0]
    assert [record.region for record in records["masks"]] == ["mask", "boxes"]
    assert [record.region for record in records["boxes"]] == ["boxes", "boxes"]
    assert records["masks"][1] == records["boxes"][1]
    assert masked.values["relevance_mass"] < masked.values["energy_pointing_game"]  # type: ignore[operator]
    assert boxed.values["relevance_mass"] == boxed.values["energy_pointing_game"]
    assert masked.values["energy_pointing_game"] == boxed.values["energy_pointing_game"]
    assert masked.values["iou"] != boxed.values["iou"]
    assert masked.curves == boxed.curves
