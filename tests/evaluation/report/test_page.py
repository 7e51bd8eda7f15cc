"""The report: what is in the page, and that nothing of a run's text becomes HTML."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer import Typer
from typer.testing import CliRunner

from captum_scorecam.command_line.report import report
from captum_scorecam.evaluation.report.curves import HEIGHT, make_charts, mean_curves
from captum_scorecam.evaluation.report.gallery import disagreement
from captum_scorecam.evaluation.report.page import write_report
from tests.support.evaluation_run import HOSTILE, METHODS, N_IMAGES, write_run

VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """Collects a page's elements and the text in each kind of them; fails where elements are not nested."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.texts[tag][-1] += data

    def of(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.elements if name == tag and attributes.items() <= found.items()]


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(write_run(tmp_path_factory.mktemp("run") / "run")).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_the_heading_says_what_was_run(page: Page) -> None:
    assert page.texts["h1"] == ["efficientnet_lite0 on pictures"]
    facts = " ".join(page.texts["header"][0].split())
    for fact in ("Images12", "Grad-CAM, Score-CAM, RISE", "_avg_pooling:input", "as predicted", "9 of 12"):
        assert fact in facts
    assert "2.14.1" in page.texts["details"][0]


def test_the_means_are_in_the_table_with_their_intervals(page: Page) -> None:
    rows = page.texts["tbody"][0].split()
    assert rows[0] == "Grad-CAM"
    assert [rows.count(name) for name in ("Grad-CAM", "Score-CAM", "RISE")] == [1, 1, 1]
    assert page.texts["tbody"][0].count("best") == 7  # in the pointing game, two are level
    assert re.search(r"\d\.\d{3} *(best)?\s+\[\d\.\d{3}, \d\.\d{3}\]", page.texts["tbody"][0])


def test_differences_are_to_the_chosen_method(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    page = Page(write_report(run, tmp_path / "page.html", "rise").read_text(encoding="utf-8"))
    assert "Differences to RISE" in page.texts["h2"]
    methods = [row["data-method"] for row in page.of("figure") if "data-method" in row][:3]
    assert methods == METHODS
    with pytest.raises(ValueError, match="Expected `--reference` to be one of"):
        write_report(run, tmp_path / "page.html", "mask")


def test_curves_are_drawn_for_each_measure_that_has_them(page: Page) -> None:
    assert page.texts["h3"][:3] == ["Insertion", "Deletion", "Similarity after randomisation"]
    assert page.texts["figcaption"][0] == "Insertionmean of 11 to 12 images"
    assert len(page.of("polyline")) == 9


def test_every_image_is_in_the_gallery_with_its_maps(page: Page) -> None:
    assert len(page.of("article")) == N_IMAGES
    assert len(page.of("img", **{"class": "map"})) == 3 * N_IMAGES - 1 + 1  # one map failed; one is the viewer's
    assert any("Expected finite scores, but got NaN." in text for text in page.texts["p"])


def test_what_failed_is_listed(page: Page) -> None:
    listed = page.texts["table"][-1]
    assert "broken/notes.png" in listed
    assert "reading the image" in listed
    assert "explaining" in listed


def test_more_images_than_have_pictures_are_in_the_tables_only(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for index in range(5, N_IMAGES):
        for path in (run / "gallery").glob(f"{index:06d}*.png"):
            path.unlink()
    html = write_report(run).read_text(encoding="utf-8")
    assert "5 of the 12 images; the tables count all of them." in html
    assert len(Page(html).of("article")) == 5


def test_a_run_without_pictures_curves_or_other_methods_has_a_report(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for path in (run / "gallery").iterdir():
        path.unlink()
    configuration = json.loads((run / "configuration.json").read_text())
    configuration["asked"].update(methods=["score_cam"], measures=["pointing_game"])
    del configuration["asked"]["data"]
    (run / "configuration.json").write_text(json.dumps(configuration))
    keep_lines(run, lambda record: record["method"] == "score_cam", drop=("curves",))
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert page.texts["h1"] == ["efficientnet_lite0 on a data set"]
    assert page.texts["h2"] == ["Means"]


def test_a_run_in_which_everything_failed_has_a_report(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    keep_lines(run, lambda record: record["error"] is not None)
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert page.texts["h2"] == ["Means", "Differences to Score-CAM", "Failures"]
    assert page.of("article") == []


def keep_lines(run: Path, keep: Any, drop: tuple[str, ...] = ()) -> None:
    for path in (run / "records").iterdir():
        records = [record for record in map(json.loads, path.read_text().splitlines()) if keep(record)]
        lines = [json.dumps({key: value for key, value in record.items() if key not in drop}) for record in records]
        path.write_text("".join(f"{line}\n" for line in lines))


def test_a_run_without_records_is_an_error_and_leaves_no_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for path in (run / "records").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="Expected a run with records"):
        write_report(run)
    assert not (run / "report.html").exists()


def test_hostile_names_stay_text_in_elements_attributes_and_data(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", hostile=True)
    html = write_report(run).read_text(encoding="utf-8")
    page = Page(html)
    assert HOSTILE not in html
    assert any(HOSTILE in text for text in page.texts["h3"])
    assert any(HOSTILE in (button.get("aria-label") or "") for button in page.of("button"))
    assert any(option.get("value", "").startswith(HOSTILE) for option in page.of("option"))
    assert [attributes for tag, attributes in page.elements if any(name.startswith("on") for name in attributes)] == []
    assert len(page.of("script")) == 2
    data = json.loads(page.texts["script"][0])
    assert any(image["group"].startswith(HOSTILE) for image in data["images"])


def test_a_name_that_is_no_text_is_shown_as_far_as_it_is(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    path = run / "records" / "rank-000.jsonl"
    path.write_text(path.read_text().replace("photo_02.jpg", "photo_\\udcff.jpg"))
    assert "/photo_?.jpg" in write_report(run).read_text(encoding="utf-8")


def test_a_run_that_is_not_finished_says_so(tmp_path: Path, html: str) -> None:
    assert "Not finished" not in html
    run = write_run(tmp_path / "run")
    keep_lines(run, lambda record: record["index"] < 6 or record["method"] == "grad_cam")
    assert "Not finished: 7 of 13 images" in write_report(run).read_text(encoding="utf-8")


@pytest.mark.parametrize("output", ["configuration.json", "missing/page.html"])
def test_only_a_page_in_a_folder_that_exists_is_written(output: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    before = (run / "configuration.json").read_bytes()
    with pytest.raises(ValueError, match="Expected `--output` to"):
        write_report(run, run / output)
    assert (run / "configuration.json").read_bytes() == before


def test_the_page_loads_nothing(html: str, page: Page) -> None:
    places = [value or "" for _, found in page.elements for name, value in found.items() if name in ("src", "href")]
    places += re.findall(r"url\((.*?)\)", html)
    assert {place.split(":")[0] if place.startswith("data:") else place[0] for place in places} == {"data", "#"}
    assert "default-src 'none'" in html


def test_a_report_is_the_same_each_time(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    assert write_report(run, tmp_path / "1.html").read_bytes() == write_report(run, tmp_path / "2.html").read_bytes()


def ramp(*, flipped: bool = False, transposed: bool = False) -> Image.Image:
    values = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    values = values[:, ::-1] if flipped else values
    return Image.fromarray(np.ascontiguousarray(values.T if transposed else values))


def test_disagreement_is_0_of_equal_maps_1_of_unrelated_and_2_of_opposed_ones() -> None:
    squared = Image.fromarray((np.asarray(ramp(), dtype=np.float64) ** 2 / 255).astype(np.uint8))
    assert disagreement([ramp(), ramp()]) == pytest.approx(0, abs=1e-6)
    assert disagreement([ramp(), squared]) == pytest.approx(0, abs=0.01)  # the order of the pixels is the same
    assert disagreement([ramp(), ramp(transposed=True)]) == pytest.approx(1, abs=1e-6)
    assert disagreement([ramp(), ramp(flipped=True)]) == pytest.approx(2, abs=1e-6)
    assert disagreement([ramp(), ramp(), ramp(flipped=True)]) == pytest.approx(4 / 3, abs=1e-5)


def test_a_constant_map_has_no_part_in_disagreement() -> None:
    constant = Image.new("L", (64, 64))
    assert disagreement([ramp(), ramp(), constant]) == pytest.approx(0, abs=1e-6)
    assert disagreement([ramp(), constant]) is None


def curve_record(method: str, x: list[float], y: list[float]) -> dict[str, Any]:
    return {"method": method, "error": None, "curves": {"insertion": {"x": x, "y": y}}}


def test_mean_curves_are_over_the_same_points_only() -> None:
    records = [curve_record("rise", [0, 1], [0.0, 0.5]), curve_record("rise", [0, 1], [0.5, 1.0])]
    curve = mean_curves([*records, curve_record("rise", [0, 2], [9.0, 9.0])])["insertion"]["rise"]
    assert (curve.y, curve.n) == ([0.25, 0.75], 2)


def test_labels_of_curves_that_end_together_stand_apart_and_inside() -> None:
    records = [curve_record(f"method_{number}", [0, 1], [number / 10, 0.0]) for number in range(8)]
    methods = [f"method_{number}" for number in range(8)]
    (chart,) = make_charts(mean_curves(records), methods, ["insertion"])
    places = sorted(line.label for line in chart.lines)
    assert min(below - above for above, below in pairwise(places)) >= 15
    assert places[0] > 0
    assert places[-1] < HEIGHT


def app() -> Typer:
    commands = Typer()
    commands.command()(report)
    return commands


def test_the_command_writes_the_page_and_says_where(tmp_path: Path) -> None:
    run, output = write_run(tmp_path / "run"), tmp_path / "page.html"
    result = CliRunner().invoke(app(), [str(run), "--output", str(output), "--reference", "rise"])
    assert (result.exit_code, result.output) == (0, f"Report: {output}\n")
    assert "Differences to RISE" in output.read_text(encoding="utf-8")


def test_the_command_says_what_is_wrong_in_a_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(app(), [str(tmp_path)])
    assert result.exit_code == 2
    assert result.output.startswith("Error: Expected the folder of a run")
    assert result.output.count("\n") == 1
