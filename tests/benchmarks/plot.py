"""Horizontal bars as SVG, written by hand: a picture of this size needs no library."""

from __future__ import annotations

from html import escape

from .report import Spread
from .running import Measured

__all__ = ["as_svg"]

#: The rows that are shown, in this order, as far as they were measured.
_SHOWN = ["engine-64k", "engine-1m", "write-64k", "read-64k", "rpc-16"]

_WIDTH, _LABEL, _VALUE = 720, 190, 110
_BAR, _GAP, _TITLE = 16, 6, 34


def as_svg(measured: dict[str, Measured]) -> str:
    """Return the picture: bars are medians, the thin line is the spread; ours are darker."""
    parts: list[str] = []
    y = 8
    for name in _SHOWN:
        result = measured.get(name)
        if result is None or not result.samples:
            continue
        unit = result.row.unit
        labels = [each.label for each in result.row.contestants if each.label in result.samples]
        spreads = {label: Spread.of(figures[unit] for figures in result.samples[label]) for label in labels}
        scale = (_WIDTH - _LABEL - _VALUE) / max(spread.greatest for spread in spreads.values())
        y += _TITLE
        parts.append(f'<text x="8" y="{y - 10}" class="title">{escape(result.row.title)}, {escape(unit)}</text>')
        for label in labels:
            parts += _bar(label, spreads[label], scale, y)
            y += _BAR + _GAP
    style = (
        "text{font:12px sans-serif;fill:#333}.title{font-weight:bold}"
        ".ours{fill:#1f6feb}.other{fill:#b6bcc4}.spread{stroke:#555;stroke-width:1.5}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y + 8}" viewBox="0 0 {_WIDTH} {y + 8}">'
        f'<style>{style}</style><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _bar(label: str, spread: Spread, scale: float, y: int) -> list[str]:
    kind = "ours" if label.startswith("ours") else "other"
    middle, text = y + _BAR / 2, y + _BAR - 4
    left, right = _LABEL + spread.least * scale, _LABEL + spread.greatest * scale
    return [
        f'<text x="{_LABEL - 8}" y="{text}" text-anchor="end">{escape(label)}</text>',
        f'<rect class="{kind}" x="{_LABEL}" y="{y}" width="{spread.median * scale:.1f}" height="{_BAR}"/>',
        f'<line class="spread" x1="{left:.1f}" x2="{right:.1f}" y1="{middle}" y2="{middle}"/>',
        f'<text x="{right + 6:.1f}" y="{text}">{spread.median:,.0f}</text>',
    ]
