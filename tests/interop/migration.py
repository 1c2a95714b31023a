"""The README's table for those who come from the official Python SDK, read row by row."""

from __future__ import annotations

from typing import NamedTuple

import docutils.core
import docutils.nodes

from ..support.process import ROOT

TITLE = "From the official Python SDK"


class Row(NamedTuple):
    """What is done, with the official SDK and with ours."""

    what: str
    old: str
    new: str


def rows() -> list[Row]:
    """The table's."""
    text = (ROOT / "README.rst").read_text("utf-8")
    section = text[text.index(f"{TITLE}\n") : text.index("Where things live\n")]
    settings = {"syntax_highlight": "none", "report_level": 5}
    document = docutils.core.publish_doctree(section, settings_overrides=settings)
    table = next(iter(document.findall(docutils.nodes.table)))
    _, *found = table.findall(docutils.nodes.row)
    return [Row(*(_text(entry) for entry in row.findall(docutils.nodes.entry))) for row in found]


def _text(entry: docutils.nodes.entry) -> str:
    blocks = list(entry.findall(docutils.nodes.literal_block))
    return blocks[0].astext() if blocks else entry.astext()
