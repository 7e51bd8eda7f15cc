"""The page: its parts, and what happens when a visitor uses them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData
from torch import Tensor

from captum_scorecam.app.code import python_code
from captum_scorecam.app.loaded_models import LoadedModel, Models
from captum_scorecam.app.messages import noted_warnings, text_of
from captum_scorecam.app.pictures import SAMPLES, Picture, taken_from
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
from captum_scorecam.evaluation.methods import SCORE_CAM
from captum_scorecam.evaluation.presentation import method_title
from captum_scorecam.models import Prediction, class_name, seen_pixels

TITLE = """<div class="app-title"><h1>Score-CAM</h1>
<p>Which parts of a picture drive a class score? Choose classes, layers and methods; maps are refined while they
run. Pictures stay in memory and are gone when you leave.</p></div>"""
CLICKS = """element.addEventListener("click", (event) => {
  const chosen = event.target.closest("[data-map]");
  if (chosen) trigger("click", {map: chosen.dataset.map});
});"""
CSS = Path(__file__).with_name("page.css").read_text()
MORE_MODELS = ("resnet50", "convnext_tiny", "vit_b_16", "swin_t", "timm/resnet18.a1_in1k")
_MODEL = "model"  # the queue of everything that runs a model: one at a time
_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
_SAVED = 3600  # seconds after which what a visitor left open is forgotten


@dataclass(frozen=True, eq=False)
class Subject:
    """A picture and what a model says of it."""

    picture: Picture
    model_name: str
    model: LoadedModel
    inputs: Tensor
    prediction: Prediction


def _upload() -> gr.File:
    """A field for one file, which is passed on as its path; Gradio's own way leaves another file behind each time."""
    field = gr.File(label="Your picture", file_count="single", height=110, elem_id="upload")

    def path_of(payload: Any) -> Any:
        return Path(payload.path) if isinstance(payload, FileData) else None

    # A subclass would write a file beside this one. An update of the field would make a new one without this.
    field.preprocess = path_of  # type: ignore[method-assign]
    return field


def build_page(models: Models) -> gr.Blocks:
    """Builds the page.

    Args:
        models (Models): The models to choose among.
    """
    blocks = gr.Blocks(title="Score-CAM", analytics_enabled=False, fill_width=True)
    with blocks:
        _Page(models).build(blocks)
    return blocks


class _Page:
    def __init__(self, models: Models) -> None:
        self.models = models

    def build(self, blocks: gr.Blocks) -> None:
        """Adds the parts, and listens to them."""
        gr.HTML(TITLE)
        subject, shown = gr.State(None, time_to_live=_SAVED), gr.State(None, time_to_live=_SAVED)
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                upload = _upload()
                sample = gr.Radio(list(SAMPLES), label="or a sample", value=next(iter(SAMPLES), None), elem_id="sample")
                model = gr.Dropdown(
                    [*self.models.offered, *(MORE_MODELS if self.models.any_name else ())],
                    value=next(iter(self.models.offered)),
                    label="Model",
                    info="torchvision's names, timm/NAME or hf/NAME" if self.models.any_name else None,
                    allow_custom_value=self.models.any_name,
                    elem_id="model",
                )
                seen = gr.HTML(elem_id="seen")
            with gr.Column(scale=3, min_width=300):
                with gr.Row():
                    with gr.Column(min_width=260):
                        classes = gr.CheckboxGroup([], label="Classes", elem_id="classes")
                        other = gr.Dropdown([], label="and another class", elem_id="other")
                    with gr.Column(min_width=260):
                        layers = gr.CheckboxGroup([], label="Layers, the last first", elem_id="layers")
                        methods = gr.CheckboxGroup(
                            [(method_title(name), name) for name in OFFERED],
                            value=[SCORE_CAM, "grad_cam"],
                            label="Methods",
                            elem_id="methods",
                        )
                    with gr.Column(min_width=260):
                        budget = gr.Slider(
                            8,
                            512,
                            Choices.max_forwards,
                            step=8,
                            label="Masks for Score-CAM's first map",
                            elem_id="budget",
                        )
                        exact = gr.Checkbox(True, label="Then run all masks", elem_id="exact")
                        with gr.Row():
                            explain = gr.Button("Explain", variant="primary", elem_id="explain", min_width=100)
                            cancel = gr.Button("Cancel", variant="stop", elem_id="cancel", min_width=100)
                status = gr.HTML(elem_id="status")
                maps = gr.HTML(elem_id="maps", js_on_load=CLICKS)
                channels = gr.HTML(elem_id="channels")

        looked: dict[str, Any] = {
            "outputs": [subject, seen, classes, other, layers, status, maps, channels, sample, model, shown],
            "concurrency_id": _MODEL,
            "concurrency_limit": 1,
            "show_progress_on": [status],
            **(_QUIET | {"show_progress": "minimal"}),
        }
        blocks.load(self.first_look, [sample, model], **looked)
        uploaded = upload.upload(self.look_at_upload, [upload, model, subject], **looked)
        uploaded.then(lambda: None, None, [upload], **_QUIET)
        sample.input(self.look_at_sample, [sample, model, subject], **looked)
        model.input(self.change_model, [model, subject], **looked)
        running = explain.click(
            self.explain,
            [subject, classes, other, layers, methods, budget, exact],
            [status, maps, channels, shown],
            concurrency_id=_MODEL,
            concurrency_limit=1,
            trigger_mode="once",
            show_progress_on=[status],
            **(_QUIET | {"show_progress": "minimal"}),
        )
        cancel.click(self.cancelled, None, [status], cancels=[running], queue=False, **_QUIET)
        maps.click(self.show_channels, [shown], [channels, status], **_QUIET)

    def first_look(self, sample: str | None, model: str) -> Iterator[Any]:
        """Shows the first sample; without scikit-image there is none."""
        if sample is None:
            yield _looked(status=status_html("Drop a picture to begin."))
        else:
            yield from self._look(Picture(sample), model, None)

    def look_at_upload(self, path: Path | None, model: str, subject: Subject | None) -> Iterator[Any]:
        """Reads an upload."""
        if path is None:
            yield _looked()
            return
        try:
            picture = taken_from(path)
        except (ValueError, OSError) as error:
            yield _looked(status=status_html(text_of(error), "problem"))
            return
        yield from self._look(picture, model, subject)

    def look_at_sample(self, sample: str, model: str, subject: Subject | None) -> Iterator[Any]:
        """Shows a sample."""
        yield from self._look(Picture(sample), model, subject)

    def change_model(self, model: str, subject: Subject | None) -> Iterator[Any]:
        """Shows what another model says of the same picture."""
        if subject is None or model == subject.model_name:
            yield _looked()
            return
        yield from self._look(subject.picture, model, subject)

    def _look(self, picture: Picture, name: str, before: Subject | None) -> Iterator[tuple[Any, ...]]:
        """Loads the model, classifies the picture and offers the classes and layers."""
        yield _looked(status=status_html(f"Loading {name} and looking for its layers …"))
        try:
            with self.models.running, noted_warnings() as notes:
                model = self.models.get(name or "")
                inputs = model.classifier.inputs(picture.image())
                prediction = model.classifier.predict(inputs)
                prepared = model.prepared(inputs)
        except Exception as error:  # of the user's model
            name_before = before.model_name if before else next(iter(self.models.offered))
            yield _looked(status=status_html(text_of(error), "problem"), model=name_before)
            return
        classifier, top = model.classifier, top_classes(prediction)
        names = [class_name(index, classifier.class_names) for index in range(len(prediction.scores))]
        is_same_model = before is not None and before.model is model
        layer_names = [layer.name for layer in prepared.layers]
        if not layer_names:
            notes.append(
                "No layer was found that holds maps of the picture: RISE and Mask explain the model without one."
            )
        yield _looked(
            subject=Subject(picture, name, model, inputs, prediction),
            seen=seen_html(seen_pixels(inputs, classifier.preprocess), classifier, prediction, prepared.engine),
            classes=gr.CheckboxGroup(
                [(f"{names[index]} · {score_text(prediction, index)}", index) for index in top], value=top[:2]
            ),
            other=gr.Dropdown([(name, index) for index, name in enumerate(names)], value=None),
            layers=gr.skip() if is_same_model else gr.CheckboxGroup(layer_names, value=layer_names[:1]),
            status=status_html("Choose what to explain.", notes=notes),
            maps="",
            channels="",
            sample=picture.name if picture.content is None else None,
            shown=None,
        )

    def explain(
        self,
        subject: Subject | None,
        classes: list[int],
        other: int | None,
        layers: list[str],
        methods: list[str],
        max_forwards: int,
        exact: bool,
    ) -> Iterator[Any]:
        """Runs the methods and shows maps as they come."""
        if subject is None:
            yield status_html("Choose a picture first.", "problem"), gr.skip(), gr.skip(), gr.skip()
            return
        classifier, prediction = subject.model.classifier, subject.prediction
        indices = tuple(dict.fromkeys([*classes, *([] if other is None else [other])]))
        try:
            with self.models.running:
                prepared = subject.model.prepared(subject.inputs)
            known = {layer.name for layer in prepared.layers}  # others are of a model that was chosen before
            chosen = tuple(layer for layer in layers if layer in known)
            choices = Choices(indices, chosen, tuple(methods), int(max_forwards), exact)
            choices.check()
        except ValueError as error:
            yield status_html(text_of(error), "problem"), gr.skip(), gr.skip(), gr.skip()
            return
        models = self.models
        run = Run(classifier, prepared, subject.inputs, prediction, choices, models.running, models.closing)
        names = {index: class_name(index, classifier.class_names) for index in indices}
        notes = {index: score_text(prediction, index) for index in indices}
        shown = Shown(seen_pixels(subject.inputs, classifier.preprocess), indices, names, notes, ())
        with closing(run.updates()) as updates:
            for progress in updates:
                if run.columns is shown.columns:
                    yield progress_html(progress), gr.skip(), gr.skip(), gr.skip()
                    continue
                shown = replace(shown, columns=run.columns)
                yield progress_html(progress), maps_html(shown), "", shown
        load = {"name": subject.model_name, **self.models.offered.get(subject.model_name, {})}
        shown = replace(shown, columns=run.columns, code=python_code(subject.picture, load, prepared, choices, names))
        kind = "problem" if run.failure else ""
        yield status_html(run.failure or "Done.", kind, run.notes), maps_html(shown), gr.skip(), shown

    def cancelled(self) -> str:
        """Says that the run is cancelled; the queue removes it, and it stops before its next forward pass."""
        return status_html("Cancelled. Maps that are finished stay.")

    def show_channels(self, shown: Shown | None, event: gr.EventData) -> tuple[Any, Any]:
        """Shows the strongest channels of the map that was clicked."""
        try:
            if shown is None:
                raise ValueError("Explain a picture first.")
            return channels_html(shown, str(event.map)), gr.skip()
        except (AttributeError, ValueError) as error:
            return gr.skip(), status_html(text_of(error), "problem")


_PARTS = ("subject", "seen", "classes", "other", "layers", "status", "maps", "channels", "sample", "model", "shown")


def _looked(**changes: Any) -> tuple[Any, ...]:
    """Returns the outputs of a look at a picture; those that are not given stay as they are."""
    return tuple(changes.get(name, gr.skip()) for name in _PARTS)
