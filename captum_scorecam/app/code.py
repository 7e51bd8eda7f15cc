"""The Python code that makes a visitor's maps."""

from __future__ import annotations

from collections.abc import Mapping

import captum_scorecam
from captum_scorecam.app.loaded_models import Prepared
from captum_scorecam.app.pictures import SAMPLES, Picture
from captum_scorecam.app.runs import OPTIONS, Choices
from captum_scorecam.evaluation.methods import SCORE_CAM

_ENGINES = {"onnxruntime": "onnx_runtime", "openvino": "openvino"}

_CODE = '''"""Maps of {model}, as the app of captum-scorecam {version} drew them."""

{imports}

classifier = load_classifier({load})
inputs = classifier.inputs({picture})
pixels = seen_pixels(inputs, classifier.preprocess)
prediction = classifier.predict(inputs)
twin = {twin}
options = {options}
classes = {classes}
for method, layer_name in {maps}:
    request = ExplanationRequest(
        classifier.model,
        find_layer(classifier.model, inputs, layer_name) if layer_name else ExplainedLayer("none", classifier.model),
        inputs,
        list(classes),
        prediction.score,
        options,
        unbounded=not prediction.has_probabilities,
        masked_forward_func=twin,
    )
    maps, _ = run_method(method, request)
    for (index, class_name), of_class in zip(classes.items(), maps, strict=True):
        name = "-".join(filter(None, [method, layer_name.replace(":", "_"), str(index)]))
        np.save(f"{{name}}.npy", of_class.numpy())
        overlay(pixels, of_class).save(f"{{name}}.png")
        print(f"{{name}}: {{class_name}}")
'''


def python_code(
    picture: Picture, load: Mapping[str, str], prepared: Prepared, choices: Choices, names: Mapping[int, str]
) -> str:
    """Returns code that writes the maps as .npy files, and pictures of them.

    Args:
        picture (Picture): The picture. An uploaded file is read from the current directory.
        load (mapping of str to str): Arguments of `load_classifier`.
        prepared (Prepared): The model's engine.
        choices (Choices): The classes, layers and methods.
        names (mapping of int to str): The names of the classes.
    """
    is_sample, engine = picture.content is None, _ENGINES.get(prepared.engine)
    budget = None if choices.exact or SCORE_CAM not in choices.methods else choices.max_forwards
    given = {"n_masks": OPTIONS.n_masks, "mask_iterations": OPTIONS.mask_iterations, "max_forwards": budget}
    return _CODE.format(
        model=load["name"],
        version=captum_scorecam.__version__,
        imports="\n".join(_imports(is_sample, engine)),
        load=", ".join(repr(value) if key == "name" else f"{key}={value!r}" for key, value in load.items()),
        picture=(
            f"Image.fromarray(skimage.data.{SAMPLES[picture.name]}())"
            if is_sample
            else f"read_image(Path({picture.name!r}))"
        ),
        twin="None" if engine is None else f"{engine}(classifier.model, inputs)",
        options=f"MethodOptions({', '.join(f'{key}={value}' for key, value in given.items() if value is not None)})",
        classes={index: names[index] for index in choices.classes},
        maps=[(column.method, column.layer) for column in choices.columns()],
    )


def _imports(is_sample: bool, engine: str | None) -> list[str]:
    return [
        *([] if is_sample else ["from pathlib import Path", ""]),
        "import numpy as np",
        *(["import skimage.data", "from PIL import Image"] if is_sample else []),
        "",
        "from captum_scorecam import overlay",
        *([] if is_sample else ["from captum_scorecam.datasets import read_image"]),
        *([] if engine is None else [f"from captum_scorecam.engines import {engine}"]),
        "from captum_scorecam.evaluation import ExplanationRequest, MethodOptions, run_method",
        "from captum_scorecam.models import ExplainedLayer, find_layer, load_classifier, seen_pixels",
    ]
