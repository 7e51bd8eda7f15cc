"""What happens when a visitor uses the page, without a browser."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
import torchvision
from PIL import Image

from captum_scorecam.app import Models
from captum_scorecam.app.loaded_models import DEMO_MODELS
from captum_scorecam.app.page import Subject, _Page
from captum_scorecam.app.parts import MORE_MODELS
from captum_scorecam.app.view import Shown
from captum_scorecam.models import load_classifier
from tests.app.conftest import TINY
from tests.support.tiny_classifier import NAMES, picture


@pytest.fixture(scope="module")
def page() -> _Page:
    async def build() -> _Page:  # in an event loop, or Gradio leaves one open
        return _Page(Models(load_classifier, {TINY: {}}, any_name=True))

    return asyncio.run(build())


def last(updates: Iterable[dict[Any, Any]]) -> dict[Any, Any]:
    """The last update of the page's parts."""
    *_, update = updates
    return update


@pytest.fixture(scope="module")
def subject(page: _Page) -> Subject:
    found = last(page.first_look("Cat", TINY))[page.subject]
    assert isinstance(found, Subject)
    return found


def explained(page: _Page, subject: Subject | None, **changes: Any) -> dict[Any, Any]:
    return last(explaining(page, subject, **changes))


def explaining(
    page: _Page, subject: Subject | None, look: str | None = None, shown: Shown | None = None, **changes: Any
) -> Any:
    chosen = {"classes": [0, 2], "other": None, "layers": ["features"], "methods": ["score_cam"]}
    chosen |= {"max_forwards": 3, "exact": True} | changes
    return page.explain(subject, look or (subject.look if subject else ""), shown, *chosen.values())


def upload(path: Path, name: str | None = None) -> dict[str, Any]:
    """What a page sends once a file is uploaded."""
    return {"path": str(path), "orig_name": name}


def test_a_first_look_offers_classes_and_layers(page: _Page) -> None:
    found = last(page.first_look("Cat", TINY))
    labels = [label for label, _ in found[page.classes].choices]
    assert [re.sub(r" · [\d.]+%", "", label) for label in labels] == [NAMES[i] for _, i in found[page.classes].choices]
    assert found[page.classes].value == [index for _, index in found[page.classes].choices[:2]]
    assert found[page.other].choices == [(name, index) for index, name in enumerate(NAMES)]
    assert found[page.layers].value == ["features"]
    assert "Choose what to explain." in found[page.status]
    assert (found[page.sample], found[page.maps]) == ("Cat", "")
    assert found[page.seen].startswith("<figure")


def test_without_samples_the_page_asks_for_a_picture(page: _Page) -> None:
    found = last(page.first_look(None, TINY))
    assert "Drop a picture to begin." in found[page.status]
    assert page.classes not in found


def test_an_upload_takes_the_place_of_the_sample(page: _Page, subject: Subject, tmp_path: Path) -> None:
    picture(1)[0].save(tmp_path / "mine.png")
    found = last(page.look_at_upload(upload(tmp_path / "mine.png", 'my {cat}\'s "1": a.png'), TINY, subject, None))
    assert found[page.subject].picture.name == 'my {cat}\'s "1": a.png'
    assert found[page.sample] is None
    assert found[page.layers] == gr.skip()  # those of the same model stay chosen


def test_a_dark_upload_comes_with_its_warning(page: _Page, subject: Subject, tmp_path: Path) -> None:
    Image.new("L", (30, 20), 3).save(tmp_path / "dark.png")
    found = last(page.look_at_upload(upload(tmp_path / "dark.png"), TINY, subject, None))
    assert "looks dark" in found[page.status]
    assert str(tmp_path) not in found[page.status]


def test_a_file_that_is_no_picture_changes_nothing_else(page: _Page, subject: Subject, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("text")
    found = last(page.look_at_upload(upload(tmp_path / "text.png"), TINY, subject, None))
    assert "&#39;text.png&#39; can&#39;t be read as one" in found[page.status]
    assert found.keys() == {page.status}
    assert last(page.look_at_upload(None, TINY, subject, None)) == gr.skip()


def test_a_model_that_does_not_exist_is_named_and_the_one_before_stays(page: _Page, subject: Subject) -> None:
    found = last(page.change_model("resnet81", subject, None))
    assert "but got &#39;resnet81&#39;. Closest matches: resnet18" in found[page.status]
    assert "`" not in found[page.status]
    assert (found[page.model], found[page.seen]) == (TINY, subject.seen)
    assert page.subject not in found
    assert last(page.change_model(TINY, subject, None)) == gr.skip()
    assert last(page.change_model("resnet18", None, None)) == gr.skip()


def test_weights_that_can_not_be_downloaded(page: _Page, subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("Could not download the weights of resnet18 (no network). Set `weights` to a file.")

    monkeypatch.setattr(page.models, "_load", offline)
    found = last(page.change_model("resnet18", subject, None))
    assert "Could not download the weights of resnet18 (no network).<" in found[page.status]


def test_maps_of_the_chosen_classes_in_their_order(page: _Page, subject: Subject) -> None:
    found = explained(page, subject, classes=[2], other=1)
    shown = found[page.shown]
    assert "Done." in found[page.status]
    assert re.findall(r"<figcaption><b>(\w+)</b>", found[page.maps]) == ["blue", "green"]
    assert "<b>blue − green</b>" in found[page.maps]
    assert (shown.classes, page.channels in found) == ((2, 1), False)
    assert f"load_classifier({TINY!r})" in shown.code
    assert "skimage.data.chelsea()" in shown.code


def test_choices_of_another_picture_are_replaced_by_the_first_ones_of_this_one(page: _Page, subject: Subject) -> None:
    now = last(page.look_at_sample("Coffee", TINY, subject, None))
    (first, second), coffee = now[page.classes].value, now[page.subject]
    assert now[page.look] == coffee.look != subject.look
    shown = explained(page, coffee, look=subject.look, classes=[3 - first, 3 - second], other=0)[page.shown]
    assert shown.classes == (first, second)
    assert "('score_cam', 'features', None)" in shown.code  # the layers of the same model stay chosen
    shown = explained(page, coffee, look="1 another model", classes=[0], layers=["gone"])[page.shown]
    assert (shown.classes, shown.columns[0].layer) == ((first, second), "features")


def test_what_the_page_sends_is_not_compared_with_choices_that_may_have_changed(page: _Page) -> None:
    functions = {function.name: function for function in page.blocks.fns.values()}
    assert not functions["explain"].preprocess
    assert not functions["look_at_upload"].preprocess  # would leave another file


@pytest.mark.parametrize("changes", [{"classes": [0, 4, -1, "x"]}, {"classes": [0], "methods": ["score_cam", "gone"]}])
def test_classes_and_methods_that_do_not_exist_are_left_out(
    page: _Page, subject: Subject, changes: dict[str, Any]
) -> None:
    shown = explained(page, subject, **changes)[page.shown]
    assert (shown.classes, [column.method for column in shown.columns]) == ((0,), ["score_cam"])


def test_a_cancelled_run_keeps_its_maps_with_their_downloads(page: _Page, subject: Subject) -> None:
    updates = explaining(page, subject, methods=["score_cam", "grad_cam", "mask"], max_forwards=3, exact=False)
    for update in updates:
        if page.shown in update and all(column.maps is not None for column in update[page.shown].columns[:2]):
            break
    updates.close()
    assert (".npy" in update[page.maps], "maps.py" in update[page.maps]) == (False, False)
    assert update[page.channels] == ""  # they were of a map that is gone
    update = page.cancelled(TINY, subject, update[page.shown])
    maps, shown = update[page.maps], update[page.shown]
    assert "Cancelled. Maps that are finished stay." in update[page.status]
    assert (maps.count('.npy"'), maps.count('maps.py"')) == (6, 1)
    assert "aria-busy" not in maps
    assert maps.count("The run ended before this map.") == 3
    assert (
        "for method, layer_name, max_forwards in [('score_cam', 'features', 3), ('grad_cam', 'features', None)]:"
        in (shown.code)
    )
    again = page.cancelled(TINY, subject, shown)
    assert again.keys() == {page.status}
    assert "No run of yours is going on or waiting." in again[page.status]
    assert page.cancelled(TINY, None, None) == again
    assert "resnet50 is still loading." in page.cancelled("resnet50", subject, shown)[page.status]


def test_a_second_click_makes_no_map_again_unless_choices_differ_or_the_run_was_cancelled(
    page: _Page, subject: Subject
) -> None:
    shown = explained(page, subject)[page.shown]
    second = explained(page, subject, shown=shown)
    assert second.keys() == {page.status}
    assert "Done." in second[page.status]
    for changes in ({"classes": [2]}, {"max_forwards": 4}, {"shown": replace(shown, complete_for=None)}):
        again = explained(page, subject, **({"shown": shown} | changes))[page.shown]
        assert again.complete_for is not None
        assert again.columns is not shown.columns


def test_what_is_typed_is_not_completed_to_the_name_of_another_model() -> None:
    known = [*torchvision.models.list_models(), *DEMO_MODELS]
    assert [(name, more) for name in known for more in MORE_MODELS if name in more and name != more] == []


@pytest.mark.parametrize("name", ["cancelled", "look_at_upload", "look_at_sample", "change_model"])
def test_a_run_is_ended_before_what_ends_it_is_answered(page: _Page, name: str) -> None:
    functions = page.blocks.fns
    numbers = {function.name: number for number, function in functions.items()}
    (cancelling,) = [
        number
        for number, function in functions.items()
        if function.cancels == [numbers["explain"]] and functions[numbers[name]].targets[0] in function.targets
    ]
    assert cancelling < numbers[name]  # the other way round, it would end a run that is started after a look


@pytest.mark.parametrize("name", ["look_at_upload", "look_at_sample", "change_model"])
def test_another_picture_or_model_ends_the_run(page: _Page, subject: Subject, name: str, tmp_path: Path) -> None:
    updates = explaining(page, subject, methods=["grad_cam", "mask"])
    shown = next(update[page.shown] for update in updates if page.shown in update)
    updates.close()
    (tmp_path / "text.png").write_text("text")
    given = {"look_at_upload": upload(tmp_path / "text.png"), "look_at_sample": "Cat", "change_model": "resnet81"}
    arguments = [subject] if name == "change_model" else [TINY, subject]
    first = next(getattr(page, name)(given[name], *arguments, shown))
    assert "The run was cancelled." in first[page.status]
    assert "aria-busy" not in first[page.maps]
    assert not first[page.shown].running


def test_a_click_on_channels_leads_to_them(page: _Page) -> None:
    functions = page.blocks.fns
    (clicked,) = [number for number, function in functions.items() if function.name == "show_channels"]
    (then,) = [function for function in functions.values() if function.trigger_after == clicked]
    assert "prefers-reduced-motion" in str(then.js)


def test_a_class_that_is_chosen_twice_is_explained_once(page: _Page, subject: Subject) -> None:
    shown = explained(page, subject, classes=[2, 1], other=1)[page.shown]
    assert shown.classes == (2, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": []}, "Choose 1 to 5 classes: 0 are chosen."),
        ({"layers": []}, "Choose a layer."),
        ({"layers": ["gone"]}, "Choose a layer."),
        ({"methods": []}, "Choose a method."),
    ],
)
def test_choices_that_make_no_run_are_named(
    page: _Page, subject: Subject, changes: dict[str, Any], message: str
) -> None:
    found = explained(page, subject, **changes)
    assert message in found[page.status]
    assert found.keys() == {page.status}


def test_without_a_picture_there_is_nothing_to_explain(page: _Page) -> None:
    assert "Choose a picture first." in explained(page, None)[page.status]


def test_channels_are_shown_on_a_click(page: _Page, subject: Subject) -> None:
    shown = explained(page, subject)[page.shown]
    found = page.show_channels(shown, SimpleNamespace(map="0:1"))  # type: ignore[arg-type]
    assert found.keys() == {page.channels}
    assert "Strongest channels of features <small>for blue" in found[page.channels]
    whole = f"{float(shown.columns[0].scores.unmasked_scores[0, 1]):.4g}"
    assert f"picture it is {whole}. The weight" in found[page.channels]
    for given, event, message in [
        (None, SimpleNamespace(map="0:1"), "Explain a picture first."),
        (shown, SimpleNamespace(map="9:1"), "Choose a map of Score-CAM."),
    ]:
        found = page.show_channels(given, event)  # type: ignore[arg-type]
        assert found.keys() == {page.status}
        assert message in found[page.status]


def test_the_page_tells_nobody_and_runs_one_model_at_a_time(page: _Page) -> None:
    blocks = page.blocks
    assert not blocks.analytics_enabled
    limits = {function.concurrency_id: function.concurrency_limit for function in blocks.fns.values()}
    assert limits["model"] == 1
    assert sum(function.concurrency_id == "model" for function in blocks.fns.values()) == 5
    assert all(function.api_visibility == "private" for function in blocks.fns.values())
