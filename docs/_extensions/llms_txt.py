"""``llms.txt``: every page with what it says first, for tools that read documentation (https://llmstxt.org)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.util.typing import ExtensionMetadata

LONGEST = 300
_SENTENCE_END = re.compile(r"(?<=[.?!…])\s+(?=\S)")
_NO_SENTENCE = re.compile(r"(Bases|Class|Classes|Function|Functions|Options of [^:]+): ")  # lists of names


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
    """Returns what a page says first; empty if it has no paragraphs."""
    from docutils import nodes
    from sphinx.addnodes import desc_content

    section = next(iter(app.env.get_and_resolve_doctree(page, app.builder).findall(nodes.section)))
    own = [node for node in section.children if isinstance(node, nodes.paragraph)]
    described = [node for content in section.findall(desc_content) for node in content.findall(nodes.paragraph)]
    return first_sentences(node.astext() for node in [*own, *described, *section.findall(nodes.paragraph)])


def first_sentences(paragraphs: Iterable[str]) -> str:
    """Returns the first paragraph that has sentences, without one that only announces a list, code or a table.

    It is shortened at the end of a sentence.
    """
    for paragraph in paragraphs:
        text = " ".join(paragraph.split())
        sentences = [] if _NO_SENTENCE.match(text) else _SENTENCE_END.split(text)
        if sentences and not sentences[-1].endswith((".", "?", "!", "…")):
            sentences.pop()
        while len(sentences) > 1 and len(" ".join(sentences)) > LONGEST:
            sentences.pop()
        if sentences:
            return " ".join(sentences)
    return ""


def setup(app: Sphinx) -> ExtensionMetadata:
    """Registers the extension."""
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
