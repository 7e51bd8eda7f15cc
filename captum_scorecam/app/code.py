"""The Python code that makes a visitor's maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import captum_scorecam
from captum_scorecam.app.loaded_models import Prepared
from captum_scorecam.app.pictures import SAMPLES, Picture
from captum_scorecam.app.runs import OPTIONS, Column

_ENGINES = {"onnxruntime": "onnx_runtime", "openvino": "openvino"}

_CODE = '''"""Maps as the app of captum-scorecam {version} drew them.{where}"""

{imports}

{seed}classifier = load_classifier({load})
inputs = classifier.inputs({picture})
pixels = seen_pixels(inputs, classifier.preprocess)
prediction = classifier.predict(inputs)
twin = {twin}
classes = {classes}
for method, layer_name, max_forwards in {maps}:
    request = ExplanationRequest(
        classifier.model,
        find_layer(classifier.model, inputs, layer_name) if layer_name else ExplainedLayer("none", classifier.model),
        inputs,
        list(classes),
        prediction.score,
        MethodOptions(n_masks={n_masks}, mask_iterations={mask_iterations}, max_forwards=max_forwards),
        unbounded=not prediction.has_probabilities,
        masked_forward_func=twin,
    )
    maps, _ = run_method(method, request)
    drawn = [(str(index), class_name, each) for (index, class_name), each in zip(classes.items(), maps, strict=True)]
{difference}    for stem, title, values in drawn:
        name = "-".join(filter(None, [method, layer_name.replace(":", "_"), stem]))
        np.save(f"{{name}}.npy", values.numpy())
        overlay(pixels, values).save(f"{{name}}.png")
        print(f"{{name}}: {{title}}")
'''

_DIFFERENCE = """    first, second = (each / each.abs().max().clamp_min(1e-30) for each in maps[:2])
    drawn.append(({stem!r}, {title!r}, first - second))
"""


def python_code(
    picture: Picture, load: Mapping[str, str], prepared: Prepared, columns: Sequence[Column], names: Mapping[int, str]
) -> str:
    """Returns code that writes the maps and the difference of the first two classes as .npy files and as pictures.

    Args:
        picture (Picture): The picture. An uploaded file is read from the current directory.
        load (mapping of str to str): Arguments of `load_classifier`.
        prepared (Prepared): The model's engine.
        columns (sequence of Column): The maps so far; the code makes those that are known.
        names (mapping of int to str): The names of the explained classes, in their order.

    Returns:
        str: The code; "" if no map is known.
    """
    finished = [column for column in columns if column.maps is not None]
    if not finished:
        return ""
    weights = load.get("weights", "DEFAULT").upper()
    may_be_random = weights == "NONE" or (weights == "DEFAULT" and _is_factory(load["name"]))
    is_sample, engine = picture.content is None, _ENGINES.get(prepared.engine)
    stem, title = "-minus-".join(map(str, [*names][:2])), " − ".join([*names.values()][:2])
    return _CODE.format(
        version=captum_scorecam.__version__,
        where="" if is_sample else " Run it in the folder of your picture.",
        imports="\n".join(_imports(is_sample, engine, may_be_random)),
        seed="torch.manual_seed(0)  # as in the app, for random weights\n" if may_be_random else "",
        load=", ".join(repr(value) if key == "name" else f"{key}={value!r}" for key, value in load.items()),
        picture=(
            f"Image.fromarray(skimage.data.{SAMPLES[picture.name]}())"
            if is_sample
            else f"read_image(Path({picture.name!r}))"
        ),
        twin="None" if engine is None else f"{engine}(classifier.model, inputs)",
        n_masks=OPTIONS.n_masks,
        mask_iterations=OPTIONS.mask_iterations,
        classes=dict(names),
        maps=[(column.method, column.layer, column.max_forwards) for column in finished],
        difference=_DIFFERENCE.format(stem=stem, title=title) if len(names) > 1 else "",
    )


def _is_factory(name: str) -> bool:
    return ":" in name and "/" not in name


def _imports(is_sample: bool, engine: str | None, may_be_random: bool) -> list[str]:
    return [
        *([] if is_sample else ["from pathlib import Path", ""]),
        "import numpy as np",
        *(["import skimage.data"] if is_sample else []),
        *(["import torch"] if may_be_random else []),
        *(["from PIL import Image"] if is_sample else []),
        "",
        "from captum_scorecam import overlay",
        *([] if is_sample else ["from captum_scorecam.datasets import read_image"]),
        *([] if engine is None else [f"from captum_scorecam.engines import {engine}"]),
        "from captum_scorecam.evaluation import ExplanationRequest, MethodOptions, run_method",
        "from captum_scorecam.models import ExplainedLayer, find_layer, load_classifier, seen_pixels",
    ]
