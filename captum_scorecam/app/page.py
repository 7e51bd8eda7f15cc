"""The page, and what happens when a visitor uses it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import gradio as gr
from gradio.components import Component
from torch import Tensor

from captum_scorecam.app.code import python_code
from captum_scorecam.app.loaded_models import LoadedModel, Models
from captum_scorecam.app.messages import noted_warnings, text_of
from captum_scorecam.app.parts import Parts
from captum_scorecam.app.pictures import Picture, taken_from
from captum_scorecam.app.runs import OFFERED, Choices, Run
from captum_scorecam.app.view import (
    Shown,
    channels_html,
    maps_html,
    progress_html,
    score_text,
    seen_html,
    status_html,
    top_classes,
)
from captum_scorecam.models import Prediction, class_name, seen_pixels

SHOW_CHANNELS = """() => requestAnimationFrame(() => {
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  document.getElementById("strongest-channels")?.scrollIntoView({behavior: still ? "instant" : "smooth"});
})"""
CSS = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
# Models run one at a time.
_IN_TURN = _QUIET | {"show_progress": "minimal", "concurrency_id": "model", "concurrency_limit": 1}
_Update: TypeAlias = dict[Component, Any]  # new values of the page's parts; the others stay


@dataclass(frozen=True, eq=False)
class Subject:
    """A picture, a model's prediction for it, and their HTML; ``look`` is unique for each."""

    look: str
    picture: Picture
    model_name: str
    model: LoadedModel
    inputs: Tensor
    prediction: Prediction
    seen: str


def build_page(models: Models) -> gr.Blocks:
    """Builds the page.

    Args:
        models (Models): The models to choose among.
    """
    return _Page(models).blocks


class _Page(Parts):
    """The page, and what happens when a visitor uses it."""

    def __init__(self, models: Models) -> None:
        self.models = models
        self.blocks = gr.Blocks(title="Score-CAM", analytics_enabled=False, fill_width=True)
        self._looks = count(1)
        with self.blocks:
            super().__init__(models)
            self._listen()

    def _listen(self) -> None:
        offered = [self.classes, self.other, self.layers]
        results = [self.status, self.maps, self.channels, self.shown]
        in_turn = _IN_TURN | {"show_progress_on": [self.status]}
        running = self.start.click(
            self.explain,
            [self.subject, self.look, self.shown, *offered, self.methods, self.budget, self.exact],
            results,
            trigger_mode="always_last",  # also while a run that was cancelled comes to its end
            preprocess=False,  # the choices may be those of a picture that another one takes the place of
            **in_turn,
        )
        # A run ends with its picture. Listeners are called in their order, each after the one before has ended.
        ends = [self.cancel.click, self.upload.upload, self.sample.input, self.model.input]
        gr.on(ends, None, cancels=[running], **_QUIET)
        visit = [self.model, self.subject, self.shown]
        self.cancel.click(self.cancelled, visit, [self.status, self.maps, self.shown], queue=False, **_QUIET)
        looked = in_turn | {
            "outputs": [self.subject, self.look, self.seen, self.sample, self.model, *offered, *results]
        }
        self.blocks.load(self.first_look, [self.sample, self.model], **looked)
        # Not preprocessed, an upload comes with its own name, and leaves no other file behind.
        uploaded = self.upload.upload(self.look_at_upload, [self.upload, *visit], preprocess=False, **looked)
        uploaded.then(lambda: None, None, [self.upload], **_QUIET)
        self.sample.input(self.look_at_sample, [self.sample, *visit], **looked)
        self.model.input(self.change_model, visit, **looked)
        clicked = self.maps.click(self.show_channels, [self.shown], [self.channels, self.status], **_QUIET)
        clicked.then(None, None, None, js=SHOW_CHANNELS, **_QUIET)

    def first_look(self, sample: str | None, model: str) -> Iterator[_Update]:
        """Shows the first sample; without scikit-image there is none."""
        if sample is None:
            yield {self.status: status_html("Drop a picture to begin.")}
        else:
            yield from self._look_at(Picture(sample), model, None)

    def look_at_upload(
        self, file: Mapping[str, Any] | None, model: str, subject: Subject | None, shown: Shown | None
    ) -> Iterator[_Update]:
        """Reads an upload."""
        yield self._stopped(shown)
        if file is None:
            return
        try:
            picture = taken_from(Path(file["path"]), file.get("orig_name") or "")
        except (ValueError, OSError) as error:
            yield {self.status: status_html(text_of(error), "problem")}
            return
        yield from self._look_at(picture, model, subject)

    def look_at_sample(
        self, sample: str, model: str, subject: Subject | None, shown: Shown | None
    ) -> Iterator[_Update]:
        """Shows a sample."""
        yield self._stopped(shown)
        yield from self._look_at(Picture(sample), model, subject)

    def change_model(self, model: str, subject: Subject | None, shown: Shown | None) -> Iterator[_Update]:
        """Shows what another model says of the same picture."""
        yield self._stopped(shown)
        if subject is None or model == subject.model_name:
            return
        yield from self._look_at(subject.picture, model, subject)

    def _stopped(self, shown: Shown | None) -> _Update:
        """Ends the run that another picture or model has cancelled."""
        return self._ended(shown, "The run was cancelled.") if shown and shown.running else gr.skip()

    def _ended(self, shown: Shown, text: str) -> _Update:
        return self._results(status_html(text), replace(shown, running=False))

    def _results(self, status: str, shown: Shown) -> _Update:
        return {self.status: status, self.maps: maps_html(shown), self.shown: shown}

    def _look_at(self, picture: Picture, name: str, before: Subject | None) -> Iterator[_Update]:
        """Loads the model, classifies the picture and offers the classes and layers."""
        loading = status_html(f"Loading {name} and looking for its layers …")
        yield {self.status: loading, self.seen: loading}  # on a phone, the status is far below the picture
        try:
            with self.models.running, noted_warnings() as notes:
                model = self.models.get(name or "")
                inputs = model.classifier.inputs(picture.image())
                prediction = model.classifier.predict(inputs)
                prepared = model.prepared(inputs)
        except Exception as error:  # of the user's model
            yield {
                self.status: status_html(text_of(error), "problem"),
                self.seen: before.seen if before else "",
                self.model: before.model_name if before else next(iter(self.models.offered)),
            }
            return
        classifier, top = model.classifier, top_classes(prediction)
        names = [class_name(index, classifier.class_names) for index in range(len(prediction.scores))]
        is_same_model = before is not None and before.model is model
        layer_names = [layer.name for layer in prepared.layers]
        if not layer_names:
            notes.append(
                "No layer was found that holds maps of the picture: RISE and Mask explain the model without one."
            )
        look = f"{next(self._looks)} {name}"
        seen = seen_html(seen_pixels(inputs, classifier.preprocess), classifier, prediction, prepared.engine)
        yield {
            self.subject: Subject(look, picture, name, model, inputs, prediction, seen),
            self.look: look,
            self.seen: seen,
            self.classes: gr.CheckboxGroup(
                [(f"{names[index]} · {score_text(prediction, index)}", index) for index in top], value=top[:2]
            ),
            self.other: gr.Dropdown([(name, index) for index, name in enumerate(names)], value=None),
            self.layers: gr.skip() if is_same_model else gr.CheckboxGroup(layer_names, value=layer_names[:1]),
            self.status: status_html("Choose what to explain.", notes=notes),
            self.maps: "",
            self.channels: "",
            self.sample: picture.name if picture.content is None else None,
            self.shown: None,
        }

    def explain(
        self, subject: Subject | None, look: str | None, shown: Shown | None, *chosen: Any
    ) -> Iterator[_Update]:
        """Runs the methods and shows maps as they come.

        ``chosen`` is passed to `_choices`. No map is made again if those that are shown are the chosen ones, as after a
        double click.
        """
        if subject is None:
            yield {self.status: status_html("Choose a picture first.", "problem")}
            return
        try:
            with self.models.running:
                prepared = subject.model.prepared(subject.inputs)
            choices = _choices(subject, look, [layer.name for layer in prepared.layers], *chosen)
        except ValueError as error:
            yield {self.status: status_html(text_of(error), "problem")}
            return
        chosen_now = (subject.look, choices)
        if shown is not None and shown.complete_for == chosen_now:
            yield {self.status: status_html("Done.")}
            return
        classifier, prediction = subject.model.classifier, subject.prediction
        run = Run(classifier, prepared, subject.inputs, prediction, choices, self.models.running, self.models.closing)
        names = {index: class_name(index, classifier.class_names) for index in choices.classes}
        notes = {index: score_text(prediction, index) for index in choices.classes}
        load = {"name": subject.model_name, **self.models.shown_arguments(subject.model_name)}
        seen = seen_pixels(subject.inputs, classifier.preprocess)
        shown = Shown(seen, choices.classes, names, notes, (), running=True)
        with closing(run.updates()) as updates:
            for progress in updates:
                columns = run.columns
                if columns is shown.columns:
                    yield {self.status: progress_html(progress)}
                else:
                    code = python_code(subject.picture, load, prepared, columns, names)
                    shown = replace(shown, columns=columns, code=code)
                    yield self._results(progress_html(progress), shown) | {self.channels: ""}
        code = python_code(subject.picture, load, prepared, run.columns, names)
        complete_for = None if run.failure else chosen_now
        shown = replace(shown, columns=run.columns, code=code, running=False, complete_for=complete_for)
        yield self._results(status_html(run.failure or "Done.", "problem" if run.failure else "", run.notes), shown)

    def cancelled(self, model: str, subject: Subject | None, shown: Shown | None) -> _Update:
        """Says that the run is cancelled; the queue removes it, and it stops before its next forward pass."""
        if shown is not None and shown.running:
            return self._ended(shown, "Cancelled. Maps that are finished stay.")
        is_loading = subject is not None and model != subject.model_name
        text = f"{model} is still loading." if is_loading else "No run of yours is going on or waiting."
        return {self.status: status_html(text)}

    def show_channels(self, shown: Shown | None, event: gr.EventData) -> _Update:
        """Shows the strongest channels of the map that was clicked."""
        try:
            if shown is None:
                raise ValueError("Explain a picture first.")
            return {self.channels: channels_html(shown, str(event.map))}
        except (AttributeError, ValueError) as error:
            return {self.status: status_html(text_of(error), "problem")}


def _choices(
    subject: Subject,
    look: str | None,
    known_layers: list[str],
    classes: list[int],
    other: int | None,
    layers: list[str],
    methods: list[str],
    max_forwards: int,
    exact: bool,
) -> Choices:
    """Returns the choices that exist; those made for another picture or model are replaced by the first ones.

    Raises:
        ValueError: If they make no run.
    """
    if look != subject.look:
        classes, other = top_classes(subject.prediction)[:2], None
    if (look or "").partition(" ")[2] != subject.model_name:
        layers = known_layers[:1]
    wanted = dict.fromkeys([*classes, *([] if other is None else [other])])
    choices = Choices(
        tuple(index for index in wanted if index in range(len(subject.prediction.scores))),
        tuple(layer for layer in layers if layer in known_layers),
        tuple(method for method in methods if method in OFFERED),
        int(max_forwards),
        exact,
    )
    choices.check()
    return choices
