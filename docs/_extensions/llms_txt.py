"""``llms.txt``: every page with its first paragraph, for tools that read documentation (https://llmstxt.org)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import desc_content
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

LONGEST = 300


def write(app: Sphinx, exception: Exception | None) -> None:
    """Writes the file beside the pages, section by section as in the sidebar."""
    if exception is not None or app.builder.format != "html":
        return
    root = app.config.root_doc
    lines = [f"# {app.config.project}", "", f"> {summary(app, root)}"]
    for section in children(app, root):
        pages = [section, *children(app, section)]
        lines += ["", f"## {title(app, section)}", "", *(entry(app, page) for page in pages)]
    Path(app.outdir, "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def children(app: Sphinx, page: str) -> Iterator[str]:
    """Yields the pages below a page, in order."""
    for child in app.env.toctree_includes.get(page, []):
        yield child
        if page != app.config.root_doc:
            yield from children(app, child)


def entry(app: Sphinx, page: str) -> str:
    """Returns the line of a page: a link and what the page says first."""
    address = os.environ.get("READTHEDOCS_CANONICAL_URL", "") + app.builder.get_target_uri(page)
    said = summary(app, page)
    return f"- [{title(app, page)}]({address})" + (f": {said}" if said else "")


def title(app: Sphinx, page: str) -> str:
    """Returns a page's title."""
    return app.env.titles[page].astext()


def summary(app: Sphinx, page: str) -> str:
    """Returns the first paragraph of a page, shortened at the end of a sentence; empty if it has none."""
    section = next(iter(app.env.get_and_resolve_doctree(page, app.builder).findall(nodes.section)))
    own = [node for node in section.children if isinstance(node, nodes.paragraph)]
    described = [node for content in section.findall(desc_content) for node in content.findall(nodes.paragraph)]
    texts = (" ".join(node.astext().split()) for node in [*own, *described, *section.findall(nodes.paragraph)])
    text = next((text for text in texts if not text.startswith("Bases:")), "")
    return text if len(text) <= LONGEST else text[: text.rfind(". ", 0, LONGEST) + 1] or f"{text[:LONGEST]}…"


def setup(app: Sphinx) -> ExtensionMetadata:
    """Registers the extension."""
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
