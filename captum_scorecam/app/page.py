"""The page: its parts, and what happens when a visitor uses them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import gradio as gr
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
SHOW_CHANNELS = """() => requestAnimationFrame(() => {
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  document.getElementById("strongest-channels")?.scrollIntoView({behavior: still ? "instant" : "smooth"});
})"""
CSS = Path(__file__).with_name("page.css").read_text()
# The box completes what is typed to a name that contains it, so none may contain the name of another model.
MORE_MODELS = ("resnet50", "convnext_tiny", "vit_b_16", "swin_t", "timm/mobilenetv4_conv_small")
_MODEL = "model"  # the queue of everything that runs a model: one at a time
_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
_SAVED = 3600  # seconds after which what a visitor left open is forgotten


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
    blocks = gr.Blocks(title="Score-CAM", analytics_enabled=False, fill_width=True)
    with blocks:
        _Page(models).build(blocks)
    return blocks


class _Page:
    def __init__(self, models: Models) -> None:
        self.models = models
        self._looks = count(1)

    def build(self, blocks: gr.Blocks) -> None:
        """Adds the parts, and listens to them."""
        gr.HTML(TITLE)
        subject, shown = gr.State(None, time_to_live=_SAVED), gr.State(None, time_to_live=_SAVED)
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                upload = gr.File(label="Your picture", file_count="single", height=160, elem_id="upload")
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
                look = gr.Textbox(visible="hidden")  # of the choices that the visitor sees
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
            "outputs": [subject, seen, classes, other, layers, status, maps, channels, sample, model, shown, look],
            "concurrency_id": _MODEL,
            "concurrency_limit": 1,
            "show_progress_on": [status],
            **(_QUIET | {"show_progress": "minimal"}),
        }
        running = explain.click(
            self.explain,
            [subject, look, shown, classes, other, layers, methods, budget, exact],
            [status, maps, channels, shown],
            concurrency_id=_MODEL,
            concurrency_limit=1,
            trigger_mode="always_last",  # also while a run that was cancelled comes to its end
            preprocess=False,  # the choices may be those of a picture that another one takes the place of
            show_progress_on=[status],
            **(_QUIET | {"show_progress": "minimal"}),
        )
        # A run ends with its picture. Listeners are called in their order, each after the one before has ended.
        gr.on([cancel.click, upload.upload, sample.input, model.input], None, cancels=[running], **_QUIET)
        cancel.click(self.cancelled, [subject, model, shown], [status, maps, shown], queue=False, **_QUIET)
        blocks.load(self.first_look, [sample, model], **looked)
        # Not preprocessed, an upload comes with its own name, and leaves no other file behind.
        uploaded = upload.upload(self.look_at_upload, [upload, model, subject, shown], preprocess=False, **looked)
        uploaded.then(lambda: None, None, [upload], **_QUIET)
        sample.input(self.look_at_sample, [sample, model, subject, shown], **looked)
        model.input(self.change_model, [model, subject, shown], **looked)
        clicked = maps.click(self.show_channels, [shown], [channels, status], **_QUIET)
        clicked.then(None, None, None, js=SHOW_CHANNELS, **_QUIET)

    def first_look(self, sample: str | None, model: str) -> Iterator[Any]:
        """Shows the first sample; without scikit-image there is none."""
        if sample is None:
            yield _looked(status=status_html("Drop a picture to begin."))
        else:
            yield from self._look(Picture(sample), model, None)

    def look_at_upload(
        self, file: Mapping[str, Any] | None, model: str, subject: Subject | None, shown: Shown | None
    ) -> Iterator[Any]:
        """Reads an upload."""
        yield _stopped(shown)
        if file is None:
            return
        try:
            picture = taken_from(Path(file["path"]), file.get("orig_name") or "")
        except (ValueError, OSError) as error:
            yield _looked(status=status_html(text_of(error), "problem"))
            return
        yield from self._look(picture, model, subject)

    def look_at_sample(self, sample: str, model: str, subject: Subject | None, shown: Shown | None) -> Iterator[Any]:
        """Shows a sample."""
        yield _stopped(shown)
        yield from self._look(Picture(sample), model, subject)

    def change_model(self, model: str, subject: Subject | None, shown: Shown | None) -> Iterator[Any]:
        """Shows what another model says of the same picture."""
        yield _stopped(shown)
        if subject is None or model == subject.model_name:
            return
        yield from self._look(subject.picture, model, subject)

    def _look(self, picture: Picture, name: str, before: Subject | None) -> Iterator[tuple[Any, ...]]:
        """Loads the model, classifies the picture and offers the classes and layers."""
        loading = status_html(f"Loading {name} and looking for its layers …")
        yield _looked(status=loading, seen=loading)  # on a phone, the status is far below the picture
        try:
            with self.models.running, noted_warnings() as notes:
                model = self.models.get(name or "")
                inputs = model.classifier.inputs(picture.image())
                prediction = model.classifier.predict(inputs)
                prepared = model.prepared(inputs)
        except Exception as error:  # of the user's model
            name_before = before.model_name if before else next(iter(self.models.offered))
            seen = before.seen if before else ""
            yield _looked(status=status_html(text_of(error), "problem"), seen=seen, model=name_before)
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
        yield _looked(
            subject=Subject(look, picture, name, model, inputs, prediction, seen),
            look=look,
            seen=seen,
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
        look: str | None,
        shown: Shown | None,
        classes: list[int],
        other: int | None,
        layers: list[str],
        methods: list[str],
        max_forwards: int,
        exact: bool,
    ) -> Iterator[Any]:
        """Runs the methods and shows maps as they come.

        Classes and layers that were chosen for another picture or model are replaced by the first ones. No map
        is made again if those that are shown are the chosen ones, as after a double click.
        """
        if subject is None:
            yield status_html("Choose a picture first.", "problem"), gr.skip(), gr.skip(), gr.skip()
            return
        classifier, prediction = subject.model.classifier, subject.prediction
        if look != subject.look:
            classes, other = top_classes(prediction)[:2], None
        wanted = [*classes, *([] if other is None else [other])]
        indices = tuple(index for index in dict.fromkeys(wanted) if index in range(len(prediction.scores)))
        try:
            with self.models.running:
                prepared = subject.model.prepared(subject.inputs)
            known = [layer.name for layer in prepared.layers]
            is_other_model = (look or "").partition(" ")[2] != subject.model_name
            chosen = tuple(known[:1] if is_other_model else [layer for layer in layers if layer in known])
            choices = Choices(
                indices, chosen, tuple(each for each in methods if each in OFFERED), int(max_forwards), exact
            )
            choices.check()
        except ValueError as error:
            yield status_html(text_of(error), "problem"), gr.skip(), gr.skip(), gr.skip()
            return
        chosen_now = (subject.look, choices)
        if shown is not None and shown.complete_for == chosen_now:
            yield status_html("Done."), gr.skip(), gr.skip(), gr.skip()
            return
        models = self.models
        run = Run(classifier, prepared, subject.inputs, prediction, choices, models.running, models.closing)
        names = {index: class_name(index, classifier.class_names) for index in indices}
        notes = {index: score_text(prediction, index) for index in indices}
        load = {"name": subject.model_name, **self.models.offered.get(subject.model_name, {})}
        seen = seen_pixels(subject.inputs, classifier.preprocess)
        shown = Shown(seen, indices, names, notes, (), running=True)
        with closing(run.updates()) as updates:
            for progress in updates:
                if run.columns is shown.columns:
                    yield progress_html(progress), gr.skip(), gr.skip(), gr.skip()
                    continue
                columns = run.columns
                code = python_code(subject.picture, load, prepared, columns, names)
                shown = replace(shown, columns=columns, code=code)
                yield progress_html(progress), maps_html(shown), "", shown
        code = python_code(subject.picture, load, prepared, run.columns, names)
        complete_for = None if run.failure else chosen_now
        shown = replace(shown, columns=run.columns, code=code, running=False, complete_for=complete_for)
        kind = "problem" if run.failure else ""
        yield status_html(run.failure or "Done.", kind, run.notes), maps_html(shown), gr.skip(), shown

    def cancelled(self, subject: Subject | None, model: str, shown: Shown | None) -> tuple[Any, Any, Any]:
        """Says that the run is cancelled; the queue removes it, and it stops before its next forward pass."""
        if shown is None or not shown.running:
            is_loading = subject is not None and model != subject.model_name
            text = f"{model} is still loading." if is_loading else "No run of yours is going on or waiting."
            return status_html(text), gr.skip(), gr.skip()
        shown = replace(shown, running=False)
        return status_html("Cancelled. Maps that are finished stay."), maps_html(shown), shown

    def show_channels(self, shown: Shown | None, event: gr.EventData) -> tuple[Any, Any]:
        """Shows the strongest channels of the map that was clicked."""
        try:
            if shown is None:
                raise ValueError("Explain a picture first.")
            return channels_html(shown, str(event.map)), gr.skip()
        except (AttributeError, ValueError) as error:
            return gr.skip(), status_html(text_of(error), "problem")


_PARTS = (
    "subject",
    "seen",
    "classes",
    "other",
    "layers",
    "status",
    "maps",
    "channels",
    "sample",
    "model",
    "shown",
    "look",
)


def _looked(**changes: Any) -> tuple[Any, ...]:
    """Returns the outputs of a look at a picture; those that are not given stay as they are."""
    return tuple(changes.get(name, gr.skip()) for name in _PARTS)


def _stopped(shown: Shown | None) -> tuple[Any, ...]:
    """Returns the outputs of a run that another picture or model has cancelled."""
    if shown is None or not shown.running:
        return _looked()
    shown = replace(shown, running=False)
    return _looked(maps=maps_html(shown), shown=shown, status=status_html("The run was cancelled."))
