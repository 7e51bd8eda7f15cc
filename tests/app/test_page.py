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
from captum_scorecam.app.page import _PARTS, MORE_MODELS, Subject, _Page, build_page
from captum_scorecam.models import load_classifier
from tests.app.conftest import TINY
from tests.support.tiny_classifier import NAMES, picture


@pytest.fixture(scope="module")
def page() -> _Page:
    return _Page(Models(load_classifier, {TINY: {}}, any_name=True))


def last(updates: Iterable[tuple[Any, ...]]) -> dict[str, Any]:
    """The last values of the page's parts."""
    *_, outputs = updates
    return dict(zip(_PARTS, outputs, strict=True))


def is_kept(update: Any) -> bool:
    return isinstance(update, dict) and update == gr.skip()


@pytest.fixture(scope="module")
def subject(page: _Page) -> Subject:
    found = last(page.first_look("Cat", TINY))["subject"]
    assert isinstance(found, Subject)
    return found


def explained(page: _Page, subject: Subject | None, **changes: Any) -> Any:
    return list(explaining(page, subject, **changes))[-1]


def explaining(page: _Page, subject: Subject | None, **changes: Any) -> Any:
    look = subject.look if subject else ""
    chosen = {"classes": [0, 2], "other": None, "layers": ["features"], "methods": ["score_cam"], "exact": True}
    return page.explain(subject, **({"look": look, "shown": None, **chosen, "max_forwards": 3} | changes))


def upload(path: Path, name: str | None = None) -> dict[str, Any]:
    """What a page sends once a file is uploaded."""
    return {"path": str(path), "orig_name": name}


def built(page: _Page) -> gr.Blocks:
    async def build() -> gr.Blocks:  # in an event loop, or Gradio leaves one open
        return build_page(page.models)

    return asyncio.run(build())


def test_a_first_look_offers_classes_and_layers(page: _Page) -> None:
    found = last(page.first_look("Cat", TINY))
    labels = [label for label, _ in found["classes"].choices]
    assert [re.sub(r" · [\d.]+%", "", label) for label in labels] == [NAMES[i] for _, i in found["classes"].choices]
    assert found["classes"].value == [index for _, index in found["classes"].choices[:2]]
    assert found["other"].choices == [(name, index) for index, name in enumerate(NAMES)]
    assert found["layers"].value == ["features"]
    assert "Choose what to explain." in found["status"]
    assert (found["sample"], found["maps"]) == ("Cat", "")
    assert found["seen"].startswith("<figure")


def test_without_samples_the_page_asks_for_a_picture(page: _Page) -> None:
    found = last(page.first_look(None, TINY))
    assert "Drop a picture to begin." in found["status"]
    assert is_kept(found["classes"])


def test_an_upload_takes_the_place_of_the_sample(page: _Page, subject: Subject, tmp_path: Path) -> None:
    picture(1)[0].save(tmp_path / "mine.png")
    found = last(page.look_at_upload(upload(tmp_path / "mine.png", 'my {cat}\'s "1": a.png'), TINY, subject, None))
    assert found["subject"].picture.name == 'my {cat}\'s "1": a.png'
    assert found["sample"] is None
    assert is_kept(found["layers"])  # those of the same model stay chosen


def test_a_dark_upload_comes_with_its_warning(page: _Page, subject: Subject, tmp_path: Path) -> None:
    Image.new("L", (30, 20), 3).save(tmp_path / "dark.png")
    found = last(page.look_at_upload(upload(tmp_path / "dark.png"), TINY, subject, None))
    assert "looks dark" in found["status"]
    assert str(tmp_path) not in found["status"]


def test_a_file_that_is_no_picture_changes_nothing_else(page: _Page, subject: Subject, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("text")
    found = last(page.look_at_upload(upload(tmp_path / "text.png"), TINY, subject, None))
    assert "&#39;text.png&#39; can&#39;t be read as one" in found["status"]
    assert {name for name, value in found.items() if not is_kept(value)} == {"status"}
    assert all(map(is_kept, last(page.look_at_upload(None, TINY, subject, None)).values()))


def test_a_model_that_does_not_exist_is_named_and_the_one_before_stays(page: _Page, subject: Subject) -> None:
    found = last(page.change_model("resnet81", subject, None))
    assert "but got &#39;resnet81&#39;. Closest matches: resnet18" in found["status"]
    assert "`" not in found["status"]
    assert (found["model"], found["seen"]) == (TINY, subject.seen)
    assert is_kept(found["subject"])
    assert all(map(is_kept, last(page.change_model(TINY, subject, None)).values()))
    assert all(map(is_kept, last(page.change_model("resnet18", None, None)).values()))


def test_weights_that_can_not_be_downloaded(page: _Page, subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("Could not download the weights of resnet18 (no network). Set `weights` to a file.")

    monkeypatch.setattr(page.models, "_load", offline)
    found = last(page.change_model("resnet18", subject, None))
    assert "Could not download the weights of resnet18 (no network).<" in found["status"]


def test_maps_of_the_chosen_classes_in_their_order(page: _Page, subject: Subject) -> None:
    status, maps, channels, shown = explained(page, subject, classes=[2], other=1)
    assert "Done." in status
    assert re.findall(r"<figcaption><b>(\w+)</b>", maps) == ["blue", "green"]
    assert "<b>blue − green</b>" in maps
    assert (shown.classes, is_kept(channels)) == ((2, 1), True)
    assert f"load_classifier({TINY!r})" in shown.code
    assert "skimage.data.chelsea()" in shown.code


def test_choices_of_another_picture_are_replaced_by_the_first_ones_of_this_one(page: _Page, subject: Subject) -> None:
    now = last(page.look_at_sample("Coffee", TINY, subject, None))
    (first, second), coffee = now["classes"].value, now["subject"]
    assert now["look"] == coffee.look != subject.look
    *_, shown = explained(page, coffee, look=subject.look, classes=[3 - first, 3 - second], other=0)
    assert shown.classes == (first, second)
    assert "('score_cam', 'features', None)" in shown.code  # the layers of the same model stay chosen
    *_, shown = explained(page, coffee, look="1 another model", classes=[0], layers=["gone"])
    assert (shown.classes, shown.columns[0].layer) == ((first, second), "features")


def test_what_the_page_sends_is_not_compared_with_choices_that_may_have_changed(page: _Page) -> None:
    functions = {function.name: function for function in built(page).fns.values()}
    assert not functions["explain"].preprocess
    assert not functions["look_at_upload"].preprocess  # would leave another file


@pytest.mark.parametrize("changes", [{"classes": [0, 4, -1, "x"]}, {"classes": [0], "methods": ["score_cam", "gone"]}])
def test_classes_and_methods_that_do_not_exist_are_left_out(
    page: _Page, subject: Subject, changes: dict[str, Any]
) -> None:
    *_, shown = explained(page, subject, **changes)
    assert (shown.classes, [column.method for column in shown.columns]) == ((0,), ["score_cam"])


def test_a_cancelled_run_keeps_its_maps_with_their_downloads(page: _Page, subject: Subject) -> None:
    updates = explaining(page, subject, methods=["score_cam", "grad_cam", "mask"], max_forwards=3, exact=False)
    for _, maps, _, shown in updates:  # noqa: B007
        if not is_kept(shown) and all(column.maps is not None for column in shown.columns[:2]):
            break
    updates.close()
    assert (".npy" in maps, "maps.py" in maps) == (False, False)
    status, maps, shown = page.cancelled(subject, TINY, shown)
    assert "Cancelled. Maps that are finished stay." in status
    assert (maps.count('.npy"'), maps.count('maps.py"')) == (6, 1)
    assert "aria-busy" not in maps
    assert maps.count("The run ended before this map.") == 3
    assert (
        "for method, layer_name, max_forwards in [('score_cam', 'features', 3), ('grad_cam', 'features', None)]:"
        in (shown.code)
    )
    again, *others = page.cancelled(subject, TINY, shown)
    assert "No run of yours is going on or waiting." in again
    assert all(map(is_kept, others))
    assert page.cancelled(None, TINY, None)[0] == again
    assert "resnet50 is still loading." in page.cancelled(subject, "resnet50", shown)[0]


def test_a_second_click_makes_no_map_again_unless_choices_differ_or_the_run_was_cancelled(
    page: _Page, subject: Subject
) -> None:
    *_, shown = explained(page, subject)
    status, *others = explained(page, subject, shown=shown)
    assert "Done." in status
    assert all(map(is_kept, others))
    for changes in ({"classes": [2]}, {"max_forwards": 4}, {"shown": replace(shown, complete_for=None)}):
        *_, again = explained(page, subject, **({"shown": shown} | changes))
        assert again.complete_for is not None
        assert again.columns is not shown.columns


def test_what_is_typed_is_not_completed_to_the_name_of_another_model() -> None:
    known = [*torchvision.models.list_models(), *DEMO_MODELS]
    assert [(name, more) for name in known for more in MORE_MODELS if name in more and name != more] == []


@pytest.mark.parametrize("name", ["cancelled", "look_at_upload", "look_at_sample", "change_model"])
def test_a_run_is_ended_before_what_ends_it_is_answered(page: _Page, name: str) -> None:
    functions = built(page).fns
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
    shown = next(shown for *_, shown in updates if not is_kept(shown))
    updates.close()
    (tmp_path / "text.png").write_text("text")
    given = {"look_at_upload": upload(tmp_path / "text.png"), "look_at_sample": "Cat", "change_model": "resnet81"}
    arguments = [subject] if name == "change_model" else [TINY, subject]
    first = dict(zip(_PARTS, next(getattr(page, name)(given[name], *arguments, shown)), strict=True))
    assert "The run was cancelled." in first["status"]
    assert "aria-busy" not in first["maps"]
    assert not first["shown"].running


def test_a_click_on_channels_leads_to_them(page: _Page) -> None:
    functions = built(page).fns
    (clicked,) = [number for number, function in functions.items() if function.name == "show_channels"]
    (then,) = [function for function in functions.values() if function.trigger_after == clicked]
    assert "prefers-reduced-motion" in str(then.js)


def test_a_class_that_is_chosen_twice_is_explained_once(page: _Page, subject: Subject) -> None:
    *_, shown = explained(page, subject, classes=[2, 1], other=1)
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
    status, maps, *_ = explained(page, subject, **changes)
    assert message in status
    assert is_kept(maps)


def test_without_a_picture_there_is_nothing_to_explain(page: _Page) -> None:
    assert "Choose a picture first." in explained(page, None)[0]


def test_channels_are_shown_on_a_click(page: _Page, subject: Subject) -> None:
    *_, shown = explained(page, subject)
    channels, status = page.show_channels(shown, SimpleNamespace(map="0:1"))  # type: ignore[arg-type]
    assert "Strongest channels of features <small>for blue" in channels
    whole = f"{float(shown.columns[0].scores.unmasked_scores[0, 1]):.4g}"
    assert f"picture it is {whole}. The weight" in channels
    assert is_kept(status)
    for given, event, message in [
        (None, SimpleNamespace(map="0:1"), "Explain a picture first."),
        (shown, SimpleNamespace(map="9:1"), "Choose a map of Score-CAM."),
    ]:
        channels, status = page.show_channels(given, event)  # type: ignore[arg-type]
        assert message in status
        assert is_kept(channels)


def test_the_page_tells_nobody_and_runs_one_model_at_a_time(page: _Page) -> None:
    blocks = built(page)
    assert not blocks.analytics_enabled
    limits = {function.concurrency_id: function.concurrency_limit for function in blocks.fns.values()}
    assert limits["model"] == 1
    assert sum(function.concurrency_id == "model" for function in blocks.fns.values()) == 5
    assert all(function.api_visibility == "private" for function in blocks.fns.values())
