"""Sphinx configuration.

To build: sphinx-build -W -n -b html docs docs/_build/html; with -D plot_gallery=0, no tutorial is run.
"""

from __future__ import annotations

import sys
from pathlib import Path

from captum_scorecam import __version__

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "captum-scorecam"
author = "The captum-scorecam authors"
copyright = author  # noqa: A001 (Sphinx's name)
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "canonical_names",
    "command_line_page",
    "llms_txt",
    "mathml",
    "notebooks",
]
templates_path = ["_templates"]  # of the pages of classes
exclude_patterns = ["_build", "inventories", "results", "tutorials/GALLERY_HEADER.rst"]
default_role = "code"
nitpicky = True

# API reference. Signatures carry the annotations, linked; the text carries the types as Captum's docstrings word them.
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
ALIASES = {
    **dict.fromkeys(
        (
            *("BaselineFunction", "BaselineType", "ChannelWeighting", "ForwardFunction", "PerturbationKind"),
            *("Score", "TargetType"),
        ),
        "captum_scorecam",
    ),
    "PerturbFunction": "captum_scorecam.metrics.functional",
}
autodoc_type_aliases = {name: f"~{module}.{name}" for name, module in ALIASES.items()}
nitpick_ignore = [
    *(("py:class", name) for name in ("Maps", "Options")),  # aliases in a NamedTuple, which Sphinx does not evaluate
    # Parts of classes whose attributes their own pages describe:
    ("py:class", "captum_scorecam.evaluation.shared_scores.SharedScores"),
    ("py:class", "captum_scorecam.masking.channel_masks.ChannelMasks"),
    ("py:class", "captum_scorecam.budget.channel_scores.Prediction"),
]
napoleon_numpy_docstring = False
napoleon_use_param = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Attributes", "params_style")]
python_maximum_signature_line_length = 88
python_display_short_literal_types = True
add_module_names = False

# Links to other projects: the names that are used here, in files beside this one, so that a build needs no network.
intersphinx_mapping = {
    "captum": ("https://captum.ai/api/", "inventories/captum.inv"),
    "matplotlib": ("https://matplotlib.org/stable/", "inventories/matplotlib.inv"),
    "numpy": ("https://numpy.org/doc/stable/", "inventories/numpy.inv"),
    "pillow": ("https://pillow.readthedocs.io/en/stable/", "inventories/pillow.inv"),
    "python": ("https://docs.python.org/3/", "inventories/python.inv"),
    "torch": ("https://docs.pytorch.org/docs/stable/", "inventories/torch.inv"),
    "torchmetrics": ("https://lightning.ai/docs/torchmetrics/stable/", "inventories/torchmetrics.inv"),
    "torchvision": ("https://docs.pytorch.org/vision/stable/", "inventories/torchvision.inv"),
}

# Tutorials: scripts, run when the pages are built.
sphinx_gallery_conf = {
    "examples_dirs": "../tutorials",
    "gallery_dirs": "tutorials",
    "filename_pattern": r"/\w+\.py$",
    "within_subsection_order": "tutorial_order.position",
    "abort_on_example_error": True,
    "reset_modules": ("matplotlib", "reproducible.reset"),
    "reset_modules_order": "before",
    "remove_config_comments": True,
    "write_computation_times": False,
    "parallel": True,  # as many as sphinx-build's -j says
    "show_signature": False,
    "first_notebook_cell": "# reserved: `notebooks` writes it",
    "min_reported_time": 1,
    "image_srcset": ["2x"],
    "doc_module": ("captum_scorecam",),
    "reference_url": {"captum_scorecam": None},
    "download_all_examples": False,
}

html_theme = "furo"
html_title = "captum-scorecam"
html_static_path = ["_static"]
html_favicon = "_static/icon.svg"
html_css_files = ["pages.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#b4400f", "color-brand-content": "#b4400f"},
    "dark_css_variables": {"color-brand-primary": "#ff9f6b", "color-brand-content": "#ff9f6b"},
}

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
myst_heading_anchors = 3
