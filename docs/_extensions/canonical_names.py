"""Names as a reader imports them, where Python or Sphinx knows another.

The module that a class really stands in, a name that only type checkers import, a base class that is not public, an
alias within a union.
"""

# ruff: noqa: ARG001 (Sphinx passes what its callbacks do not need)

from __future__ import annotations

import re

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.inspect import TypeAliasForwardRef
from sphinx.util.typing import ExtensionMetadata

from captum_scorecam.evaluation import request
from captum_scorecam.evaluation.shared_scores import SharedScores

PUBLIC_MODULES = {
    "captum.attr._core.layer.grad_cam": "captum.attr",
    "captum.attr._utils.attribution": "captum.attr",
    "torch._C": "torch",
    "torch._C._distributed_c10d": "torch.distributed",
    "torch._tensor": "torch",
    "torch.distributed.distributed_c10d": "torch.distributed",
    "torch.nn.modules.module": "torch.nn",
    "torchmetrics.metric": "torchmetrics",
}
FULL_NAMES = {
    "Axes": "matplotlib.axes.Axes",
    "Figure": "matplotlib.figure.Figure",
    "SubFigure": "matplotlib.figure.SubFigure",
    "Tensor": "torch.Tensor",
}
NOT_PUBLIC = ("ExampleMean",)


def use_public_name(app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.TextElement) -> None:
    """Gives a reference that was not found the name that the inventories know, before intersphinx looks it up."""
    if node.get("refdomain") != "py":
        return
    target = FULL_NAMES.get(node["reftarget"], node["reftarget"])
    module, _, name = target.rpartition(".")
    node["reftarget"] = f"{PUBLIC_MODULES.get(module, module)}.{name}" if module else name


def show_public_bases(app: Sphinx, name: str, cls: type, options: object, bases: list[type]) -> None:
    """Shows, for a base class that is not public, the class that this one derives from."""
    bases[:] = [base.__base__ if base.__name__ in NOT_PUBLIC else base for base in bases]


def readable_fields(
    app: Sphinx, what: str, name: str, thing: object, options: object, signature: str | None, returned: str | None
) -> tuple[str, str | None] | None:
    """Shows a data class's fields without the limits in their annotations, and defaults that are made as dots."""
    if signature is None:
        return None
    return re.sub(r"~typing\.Annotated\[(\w+), [^]]*\]", r"\1", signature).replace("<factory>", "..."), returned


def setup(app: Sphinx) -> ExtensionMetadata:
    """Registers the extension."""
    app.connect("missing-reference", use_public_name, priority=100)
    app.connect("autodoc-process-bases", show_public_bases)
    app.connect("autodoc-process-signature", readable_fields)
    # Sphinx 9.0 writes an alias of `autodoc_type_aliases` that is part of a union by its repr.
    request.SharedScores = SharedScores  # type: ignore[attr-defined]  # imported for type checkers only
    TypeAliasForwardRef.__repr__ = lambda alias: alias.name  # type: ignore[method-assign]
    return {"parallel_read_safe": True, "parallel_write_safe": True}
