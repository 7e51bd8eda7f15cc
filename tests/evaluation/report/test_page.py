"""The report: what is in the page, and that nothing of a run's text becomes HTML."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from captum_scorecam._palette import CURVE_COLORS
from captum_scorecam.evaluation import METHODS as REGISTERED
from captum_scorecam.evaluation import METRICS, Curve, Failure, Record, export_run, summarize, write_report
from captum_scorecam.evaluation.mean_curves import mean_curves
from captum_scorecam.evaluation.report.curves import make_charts
from captum_scorecam.evaluation.report.gallery import disagreement
from captum_scorecam.evaluation.settings import write_configuration
from captum_scorecam.scoring.class_scores import NamedScore
from tests.support.evaluation_run import (
    HOSTILE,
    LAYERS,
    METHODS,
    N_IMAGES,
    RUN_SETTINGS,
    VERSIONS,
    make_records,
    write_records,
    write_run,
)
from tests.support.run_records import record

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
    for fact in ("Images12", "Grad-CAM, Score-CAM, RISE", "_avg_pooling:input", "predicted class", "9 of 12"):
        assert fact in facts
    for version in ("2.14.1", "znver4"):
        assert version in page.texts["section"][-1]


def test_the_means_are_in_the_table_with_their_intervals(page: Page) -> None:
    rows = page.texts["tbody"][0].split()
    assert rows[0] == "Grad-CAM"
    assert [rows.count(name) for name in ("Grad-CAM", "Score-CAM", "RISE")] == [1, 1, 1]
    leading = summarize(make_records(), RUN_SETTINGS).leading
    assert page.texts["tbody"][0].count("best") == sum(map(len, leading.values())) == 4
    assert "best" not in "".join(page.texts["tbody"][1:])  # differences and classes
    assert "Best marks the best mean of a metric, and those that a paired test" in page.texts["section"][0]
    assert re.search(r"\d\.\d{3} *(best)?\s+\[\d\.\d{3}, \d\.\d{3}\]", page.texts["tbody"][0])


@pytest.mark.usefixtures("no_charts")
@pytest.mark.parametrize(
    ("n_images", "note"),
    [(9, "No mean is marked as best: means over fewer"), (10, "No mean is marked as best: paired tests")],
)
def test_without_a_test_that_decides_no_mean_is_marked(n_images: int, note: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    records = [record for record in make_records() if record.index < n_images]
    write_records(run, [replace(record, values=dict.fromkeys(record.values, record.index / 10)) for record in records])
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert "best" not in page.texts["tbody"][0]
    assert any(text.strip().startswith(note) for text in page.texts["p"])


def test_metrics_without_their_plugin_are_said_to_be_unmarked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run")
    monkeypatch.delitem(METRICS, "insertion")
    for path in (write_report(run), export_run(run, "latex"), export_run(run, "markdown")):
        assert "Not marked, since their plugin was not given: insertion." in path.read_text(encoding="utf-8")


@pytest.mark.usefixtures("no_charts")
def test_differences_are_to_the_chosen_method(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    page = Page(write_report(run, tmp_path / "page.html", "rise").read_text(encoding="utf-8"))
    assert "Differences from RISE" in page.texts["h2"]
    methods = [row["data-method"] for row in page.of("figure") if "data-method" in row][:3]
    assert methods == METHODS
    with pytest.raises(ValueError, match="Expected `reference` to be one of grad_cam, score_cam, rise, but got 'mask'"):
        write_report(run, tmp_path / "page.html", "mask")


def test_each_metric_with_curves_has_a_chart(page: Page) -> None:
    assert page.texts["h3"][:3] == ["Insertion", "Deletion", "Similarity after randomisation"]
    assert page.texts["figcaption"][0] == "Insertionmean of 11 to 12 images"
    labels = [svg["aria-label"] for svg in page.of("svg", role="img")]
    assert labels[0] == "Insertion: mean curves of Grad-CAM, Score-CAM, RISE"
    assert len(labels) == 3


def test_every_image_is_in_the_gallery_with_its_maps(page: Page) -> None:
    assert len(page.of("article")) == N_IMAGES
    assert len(page.of("img", **{"class": "map"})) == 3 * N_IMAGES - 1 + 1  # one map failed; one is the viewer's
    assert any("Expected finite scores, but got NaN." in text for text in page.texts["p"])


@pytest.mark.usefixtures("no_charts")
@pytest.mark.parametrize(("score", "text"), [(None, "95.0\u00a0%"), ("output", "0.95")])
def test_an_output_that_need_not_be_a_probability_is_no_percentage(
    score: NamedScore | None, text: str, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run")
    write_configuration(run, replace(RUN_SETTINGS, score=score), VERSIONS)
    assert text in Page(write_report(run).read_text(encoding="utf-8")).texts["b"]


def test_what_failed_is_listed(page: Page) -> None:
    listed = page.texts["table"][-1]
    assert "broken/notes.png" in listed
    assert "reading the image" in listed
    assert "explaining" in listed


@pytest.mark.usefixtures("no_charts")
def test_more_images_than_have_pictures_are_in_the_tables_only(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    write_configuration(run, replace(RUN_SETTINGS, gallery=5), VERSIONS)
    for index in range(5, N_IMAGES):
        for path in (run / "gallery").glob(f"{index:06d}*.png"):
            path.unlink()
    html = write_report(run).read_text(encoding="utf-8")
    assert "5 of 12 images have pictures; the tables include all of them." in html
    assert len(Page(html).of("article")) == 5


def test_a_run_without_pictures_curves_or_other_methods_has_a_report(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for path in (run / "gallery").iterdir():
        path.unlink()
    write_configuration(
        run, replace(RUN_SETTINGS, methods=("score_cam",), metrics=("pointing_game",), data=None, gallery=0), VERSIONS
    )
    records = [
        replace(found, curves={}, values={name: found.values[name] for name in found.values if name == "pointing_game"})
        for found in make_records()
        if found.method in ("score_cam", None)
    ]
    write_records(run, records)
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert page.texts["h1"] == ["efficientnet_lite0 on a data set"]
    assert page.texts["h2"] == ["Means", "Failures", "Settings and versions"]


@pytest.mark.usefixtures("no_charts")
@pytest.mark.parametrize("n_metrics", [8, 9])
def test_tables_of_many_metrics_are_printed_in_landscape(n_metrics: int, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    metrics = tuple(f"metric_{number}" for number in range(n_metrics))
    write_configuration(run, replace(RUN_SETTINGS, metrics=metrics, gallery=0), VERSIONS)
    values: dict[str, float | None] = dict.fromkeys(metrics, 0.5)
    # Of two classes, so that there is a table by class.
    write_records(run, [record(i, m, values, target=i % 2, predicted=i % 2) for i in range(4) for m in METHODS])
    page = Page(write_report(run).read_text(encoding="utf-8"))
    classes = [(attributes.get("class") or "").split() for attributes in page.of("div")]
    scrolled = [names for names in classes if "scroll" in names]
    assert len(scrolled) == 3
    assert all(("many" in names) == (n_metrics > 8) for names in scrolled)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def corrupt_a_chunk(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 8] ^= 0xFF
    path.write_bytes(content)


def shrink(path: Path) -> None:
    Image.new("L", (3, 2)).save(path)


@pytest.mark.usefixtures("no_charts")
@pytest.mark.parametrize(
    ("name", "damage", "text"),
    [
        ("000003.png", Path.unlink, "000003.png is missing"),
        ("000003.png", cut, "000003.png is damaged"),
        ("000003.png", lambda path: path.write_text("no picture"), "000003.png is damaged"),
        ("000004-rise.png", Path.unlink, "000004-rise.png is missing"),
        ("000004-rise.png", corrupt_a_chunk, "000004-rise.png is damaged"),
        ("000004-rise.png", lambda path: path.write_bytes(b""), "000004-rise.png is damaged"),
        ("000004-rise.png", shrink, "000004-rise.png is damaged"),
    ],
)
def test_a_missing_or_damaged_picture_is_named_and_left_out(
    name: str, damage: Callable[[Path], None], text: str, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run")
    damage(run / "gallery" / name)
    with pytest.warns(UserWarning, match=f"^Some pictures are left out of the report: {text}.$") as found:
        page = Page(write_report(run).read_text(encoding="utf-8"))
    assert [warning.filename for warning in found] == [__file__]
    assert any(text in shown for shown in page.texts["p"])
    of_map = "-" in name
    assert len(page.of("article")) == N_IMAGES - (not of_map)
    assert ("the map's file is missing or damaged" in page.texts["p"]) == of_map


@pytest.mark.usefixtures("no_charts")
def test_of_many_missing_pictures_a_few_are_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for path in (run / "gallery").iterdir():
        path.unlink()
    with pytest.warns(UserWarning, match="000000.png is missing, .*, 000004.png is missing and 7 more.$"):
        page = Page(write_report(run).read_text(encoding="utf-8"))
    assert page.of("article") == []


@pytest.mark.usefixtures("no_charts")
def test_an_unfinished_run_misses_no_picture_of_an_image_that_may_not_have_one(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    write_configuration(run, replace(RUN_SETTINGS, gallery=2), VERSIONS)
    write_records(run, [found for found in make_records() if found.index in (5, 6)])
    for path in (run / "gallery").iterdir():
        path.unlink()
    assert Page(write_report(run).read_text(encoding="utf-8")).of("article") == []


@pytest.mark.usefixtures("no_charts")
def test_the_command_and_the_plugins_are_among_the_settings(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    settings = replace(RUN_SETTINGS, command="captum-scorecam evaluate data", sources={"flatness": "0123456789abcdef"})
    write_configuration(run, settings, VERSIONS)
    details = Page(write_report(run).read_text(encoding="utf-8")).texts["section"][-1]
    assert "captum-scorecam evaluate data" in details
    assert re.search(r"source of flatness\s*0123456789abcdef", details)


def test_a_run_in_which_everything_failed_has_a_report(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    write_records(run, [record for record in make_records() if record.error is not None])
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert page.texts["h2"] == ["Means", "Differences from Score-CAM", "Failures", "Settings and versions"]
    assert page.of("article") == []


def test_a_failed_metric_stands_among_the_failures(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    whole = next(record for record in make_records() if "insertion" in record.curves)
    failed = replace(
        whole,
        values={**whole.values, "insertion": None},
        curves={name: curve for name, curve in whole.curves.items() if name != "insertion"},
        failed_metrics={"insertion": Failure("RuntimeError", "no insertion", "metric")},
    )
    write_records(run, [failed])
    html = write_report(run).read_text(encoding="utf-8")
    assert "<td>computing Insertion</td><td>RuntimeError: no insertion</td>" in html
    assert "1 failure</a>: what failed is left out of the means." in html
    assert html.count("<dd>failed</dd>") == 1


def test_a_run_without_records_is_an_error_and_leaves_no_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for path in (run / "records").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="Expected a run with records, but"):
        write_report(run)
    assert not (run / "report.html").exists()


def test_hostile_names_stay_text_in_elements_attributes_and_data(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", hostile=True)
    html = write_report(run).read_text(encoding="utf-8")
    page = Page(html)
    assert HOSTILE not in html
    assert any(HOSTILE in text for text in page.texts["h3"])
    assert any(HOSTILE in (button.get("aria-label") or "") for button in page.of("button"))
    assert any((option.get("value") or "").startswith(HOSTILE) for option in page.of("option"))
    assert [attributes for tag, attributes in page.elements if any(name.startswith("on") for name in attributes)] == []
    assert len(page.of("script")) == 2
    data = json.loads(page.texts["script"][0])
    assert any(image["group"].startswith(HOSTILE) for image in data["images"])


@pytest.mark.usefixtures("no_charts")
def test_a_name_that_is_no_text_is_shown_as_far_as_it_is(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    path = run / "records" / "rank-000.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("photo_02.jpg", "photo_\\udcff.jpg"))
    assert "/photo_?.jpg" in write_report(run).read_text(encoding="utf-8")


@pytest.mark.usefixtures("no_charts")
def test_a_run_that_is_not_finished_says_so(tmp_path: Path, html: str) -> None:
    assert "Not finished" not in html
    run = write_run(tmp_path / "run")
    write_records(run, [record for record in make_records() if record.index < 6 or record.method == "grad_cam"])
    assert "Not finished: 7 of 13 images still have to run." in write_report(run).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("configuration.json", "Expected `output` to end in .html, but got"),
        ("missing/page.html", "Expected `output` to be in a folder that exists, but there is no"),
    ],
)
def test_only_a_page_in_a_folder_that_exists_is_written(output: str, message: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    before = (run / "configuration.json").read_bytes()
    with pytest.raises(ValueError, match=message):
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


# --- Curves -----------------------------------------------------------------------------------------------------------


def curve_record(method: str, x: list[float | str], y: list[float], index: int = 0) -> Record:
    return record(index, method, {}, curves={"insertion": Curve(x, y)})


def drawn_curves(svg: str) -> dict[str, list[list[float]]]:
    """The points of each curve by its colour; lines of the legend come last and are left out."""
    curves: dict[str, list[list[float]]] = {}
    for path in ElementTree.fromstring(svg).iter("path"):
        color = re.search(r"stroke: (#\w+)", path.get("style", ""))
        if color and color[1] in CURVE_COLORS:
            numbers = [float(number) for number in re.findall(r"[\d.]+", path.get("d", ""))]
            curves.setdefault(color[1], [numbers[::2], numbers[1::2]])
    return curves


def test_mean_curves_are_over_the_same_points_only() -> None:
    records = [curve_record("rise", [0, 1], [0.0, 0.5]), curve_record("rise", [0, 1], [0.5, 1.0])]
    curve = mean_curves([*records, curve_record("rise", [0, 2], [9.0, 9.0])])["insertion"]["rise"]
    assert (curve.y, curve.n) == ([0.25, 0.75], 2)


@pytest.mark.parametrize("metric", ["insertion", "deletion", "sanity_check"])
def test_a_chart_shows_each_methods_mean_at_each_point(metric: str) -> None:
    (chart,) = make_charts(mean_curves(make_records()), METHODS, [metric])
    curves = [[r.curves[metric] for r in make_records() if r.method == name and metric in r.curves] for name in METHODS]
    x = np.arange(len(LAYERS)) if metric == "sanity_check" else np.array(curves[0][0].x, dtype=float)
    expected = np.stack([np.mean([curve.y for curve in of_method], axis=0) for of_method in curves])
    drawn = drawn_curves(chart.svg)
    assert list(drawn) == list(CURVE_COLORS[:3])
    for horizontal, _ in drawn.values():
        np.testing.assert_allclose(np.interp(horizontal, [horizontal[0], horizontal[-1]], [x[0], x[-1]]), x, atol=1e-4)
    heights = np.stack([vertical for _, vertical in drawn.values()])
    slope, offset = np.polyfit(expected.ravel(), heights.ravel(), 1)  # one scale for all curves
    assert slope < 0  # downwards in an SVG
    np.testing.assert_allclose((heights - offset) / slope, expected, atol=1e-5)


def test_a_curve_has_its_methods_colour_also_where_another_method_has_no_curve(page: Page) -> None:
    (chart,) = make_charts(mean_curves([curve_record("rise", [0, 1], [0.0, 0.5])]), METHODS, ["insertion"])
    assert list(drawn_curves(chart.svg)) == [CURVE_COLORS[2]]
    styles = page.texts["style"][0]
    assert f".series-2 {{ --series: {CURVE_COLORS[2]}; }}" in styles


def test_ten_curves_of_a_chart_have_ten_styles() -> None:
    methods = [f"method_{number}" for number in range(10)]
    records = [curve_record(method, [0, 1], [0.0, number / 10]) for number, method in enumerate(methods)]
    (chart,) = make_charts(mean_curves(records), methods, ["insertion"])
    styles = [path.get("style", "") for path in ElementTree.fromstring(chart.svg).iter("path")]
    strokes = [(re.search(r"stroke: (#\w+)", style), "dasharray" in style) for style in styles]
    drawn = {(color[1], dashed) for color, dashed in strokes if color and color[1] in CURVE_COLORS}
    assert drawn == {*((color, False) for color in CURVE_COLORS), *((color, True) for color in CURVE_COLORS[:2])}


def test_text_of_a_chart_is_text_in_the_pages_colour_and_font_and_has_no_ids() -> None:
    (chart,) = make_charts(mean_curves(make_records()), METHODS, ["sanity_check"])
    svg = ElementTree.fromstring(chart.svg)
    texts = ["".join(text.itertext()) for text in svg.iter("text")]
    assert [text for text in texts if text in {*LAYERS, "Grad-CAM", "Score-CAM", "RISE"}] == [
        *LAYERS,
        *("Grad-CAM", "Score-CAM", "RISE"),
    ]
    assert "Rank correlation" in texts
    assert svg.get("fill") == "currentColor"
    assert not re.search("font-family|#000000| id=|clip-path|<style|<metadata", chart.svg)


@pytest.mark.parametrize("title", [HOSTILE, "$\\frac{", "_private", "W" * 300, "bell \a", "half \udcff", "灰度"])
def test_any_title_is_drawn_as_text(title: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTERED, "rise", REGISTERED["rise"]._replace(title=title))
    (chart,) = make_charts(mean_curves([curve_record("rise", [0, 1], [0.0, 0.5])]), ["rise"], ["insertion"])
    text = "".join(ElementTree.fromstring(chart.svg).itertext())
    shown = re.sub("[\a\udcff]", "\ufffd", title)
    shown = shown if len(shown) <= 48 else f"{shown[:47]}…"
    assert re.sub(r"\s", "", shown) in re.sub(r"\s", "", text)  # it may have several lines


def test_methods_with_one_title_have_a_curve_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTERED, "rise", REGISTERED["rise"]._replace(title="Mask"))
    records = [curve_record(method, [0, 1], [0.0, 0.5]) for method in ("rise", "mask")]
    (chart,) = make_charts(mean_curves(records), ["rise", "mask"], ["insertion"])
    assert len(drawn_curves(chart.svg)) == 2


def test_charts_do_not_depend_on_the_users_matplotlib_and_leave_it_as_it_is(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    expected = write_report(run).read_bytes()
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path", "axes.grid": True}):
        parameters, filters, numbers = mpl.rcParams.copy(), list(warnings.filters), plt.get_fignums()
        assert write_report(run).read_bytes() == expected
        assert (mpl.rcParams.copy(), list(warnings.filters), plt.get_fignums()) == (parameters, filters, numbers)
