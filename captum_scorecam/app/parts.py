"""The parts of the page."""

from __future__ import annotations

import gradio as gr

from captum_scorecam.app.loaded_models import Models
from captum_scorecam.app.pictures import SAMPLES
from captum_scorecam.app.runs import OFFERED, Choices
from captum_scorecam.evaluation.methods import SCORE_CAM
from captum_scorecam.evaluation.presentation import method_title

TITLE = """<div class="app-title"><h1>Score-CAM</h1>
<p>Which parts of a picture drive a class score? Choose classes, layers and methods; maps are refined while they
run. Pictures are kept in memory only, until the server stops.</p></div>"""
CLICKS = """element.addEventListener("click", (event) => {
  const chosen = event.target.closest("[data-map]");
  if (chosen) trigger("click", {map: chosen.dataset.map});
});"""
# The box completes what is typed to a name that contains it, so none may contain the name of another model.
MORE_MODELS = ("resnet50", "convnext_tiny", "vit_b_16", "swin_t", "timm/mobilenetv4_conv_small")
_SAVED = 3600  # seconds after which what a visitor left open is forgotten


class Parts:
    """Adds the parts of the page to the `Blocks` in whose context it is created.

    Args:
        models (Models): The models to choose among.
    """

    def __init__(self, models: Models) -> None:
        gr.HTML(TITLE)
        self.subject, self.shown = gr.State(None, time_to_live=_SAVED), gr.State(None, time_to_live=_SAVED)
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                self.upload = gr.File(label="Your picture", file_count="single", height=160, elem_id="upload")
                self.sample = gr.Radio(
                    list(SAMPLES), label="or a sample", value=next(iter(SAMPLES), None), elem_id="sample"
                )
                self.model = gr.Dropdown(
                    [*models.offered, *(MORE_MODELS if models.any_name else ())],
                    value=next(iter(models.offered)),
                    label="Model",
                    info="torchvision's names, timm/NAME or hf/NAME" if models.any_name else None,
                    allow_custom_value=models.any_name,
                    elem_id="model",
                )
                self.seen = gr.HTML(elem_id="seen")
                self.look = gr.Textbox(visible="hidden")  # of the choices that the visitor sees
            with gr.Column(scale=3, min_width=300):
                with gr.Row():
                    with gr.Column(min_width=260):
                        self.classes = gr.CheckboxGroup([], label="Classes", elem_id="classes")
                        self.other = gr.Dropdown([], label="and another class", elem_id="other")
                    with gr.Column(min_width=260):
                        self.layers = gr.CheckboxGroup([], label="Layers, the last first", elem_id="layers")
                        self.methods = gr.CheckboxGroup(
                            [(method_title(name), name) for name in OFFERED],
                            value=[SCORE_CAM, "grad_cam"],
                            label="Methods",
                            elem_id="methods",
                        )
                    with gr.Column(min_width=260):
                        self.budget = gr.Slider(
                            8,
                            512,
                            Choices.max_forwards,
                            step=8,
                            label="Masks for Score-CAM's first map",
                            elem_id="budget",
                        )
                        self.exact = gr.Checkbox(True, label="Then run all masks", elem_id="exact")
                        with gr.Row():
                            self.start = gr.Button("Explain", variant="primary", elem_id="explain", min_width=100)
                            self.cancel = gr.Button("Cancel", variant="stop", elem_id="cancel", min_width=100)
                self.status = gr.HTML(elem_id="status")
                self.maps = gr.HTML(elem_id="maps", js_on_load=CLICKS)
                self.channels = gr.HTML(elem_id="channels")
