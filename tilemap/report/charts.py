"""Charts as inline SVG: numbers in, markup out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

ACCENT = "#2f6f8f"
INK = "#22303a"
MUTED = "#6b7a86"
RULE = "#dfe5ea"
FONT = 'font-family="system-ui,-apple-system,Segoe UI,Roboto,sans-serif"'


def binned(counts: Sequence[int], width: int) -> list[int]:
    """Sums of ``width`` neighbours; what is left at the end joins the last bin.

    >>> binned([1, 2, 3, 4, 5], 2)
    [3, 12]
    """
    bins = max(1, len(counts) // width)
    edges = [*(index * width for index in range(bins)), len(counts)]
    return [sum(counts[low:high]) for low, high in pairwise(edges)]


def percentile(counts: Sequence[int], share: float) -> int:
    """Smallest index at which at least ``share`` (0..1) of the counts has come; 0 if none."""
    total, seen = sum(counts), 0
    for index, count in enumerate(counts):
        seen += count
        if seen >= share * total:
            return index
    return 0


def percent(share: float) -> str:
    """A share 0..1 for people: never "0 %" or "100 %" where it is not exactly that.

    >>> percent(0.0), percent(0.0000123), percent(0.05), percent(0.99999), percent(1.0)
    ('0 %', '0.0012 %', '5.0 %', '> 99.9 %', '100 %')
    """
    value = 100 * share
    if value in (0, 100):
        return f"{value:.0f} %"
    if value > 99.9:
        return "> 99.9 %"
    if value >= 0.1:
        return f"{value:.1f} %"
    return f"{value:.2g} %" if value >= 1e-4 else "< 0.0001 %"


def histogram(counts: Sequence[int], width: int = 5, name: str = "confidence") -> str:
    """Columns of ``width`` percent over the confidence of pixels, as SVG.

    Args:
        counts: pixels per percent, 0 to 100.
        width: percent per column.
        name: of what is counted, for those who do not see it.
    """
    bins = binned(counts, width)
    total = sum(bins) or 1
    top = max(*bins, 1)
    left, base, high, column = 8, 168, 136, 27.2
    parts = [f'<line x1="{left}" y1="{base}" x2="552" y2="{base}" stroke="{RULE}"/>']
    for index, count in enumerate(bins):
        tall = high * count / top
        x = left + index * column
        low = index * width
        end = 100 if index == len(bins) - 1 else low + width - 1
        parts.append(
            f'<rect x="{x + 1.5:.1f}" y="{base - tall:.1f}" width="{column - 3:.1f}" '
            f'height="{tall:.1f}" rx="2" fill="{ACCENT}">'
            f"<title>{low} to {end} %: {count:,} pixels</title></rect>"
        )
        if count / total >= 0.005:
            parts.append(
                _text(x + column / 2, base - tall - 6, f"{100 * count / total:.0f}", MUTED)
            )
    for tick in range(0, 101, 20):
        x = left + (len(bins) * column) * tick / 100
        anchor = "start" if tick == 0 else "end" if tick == 100 else "middle"
        parts.append(_text(x, base + 18, f"{tick} %", INK, anchor))
    return _svg(560, 196, f"Histogram of {name}", parts)


def bars(values: Mapping[str, float], unit: str) -> str:
    """One horizontal bar per entry with its number behind it, as SVG."""
    top = max([*values.values(), 1e-9])
    step, left, wide = 30, 130, 320
    parts = []
    for index, (name, value) in enumerate(values.items()):
        y = 6 + index * step
        long = max(wide * value / top, 1)
        parts.append(_text(0, y + 14, name, INK, "start"))
        parts.append(
            f'<rect x="{left}" y="{y}" width="{long:.1f}" height="18" rx="2" fill="{ACCENT}"/>'
        )
        parts.append(_text(left + long + 8, y + 14, f"{value:,.1f} {unit}", MUTED, "start"))
    return _svg(560, 6 + step * max(len(values), 1), f"Bars, {unit}", parts)


@dataclass(frozen=True, slots=True)
class BoxRow:
    """One line of ``boxes``.

    Args:
        name: shown to the left; empty for the second row of a pair.
        marks: five ascending numbers: ends of the line, ends of the box, the middle.
        accent: in the colour of what is looked at, else gray.
        hint: shown under the pointer.
    """

    name: str
    marks: tuple[float, float, float, float, float]
    accent: bool
    hint: str


def boxes(rows: Sequence[BoxRow], label: str) -> str:
    """A box with whiskers per row on one axis, as SVG; pairs of rows stand close together."""
    low = min((row.marks[0] for row in rows), default=0.0)
    high = max((row.marks[4] for row in rows), default=1.0)
    wide = (high - low) or 1.0
    left, long, step = 92, 440, 19

    def at(value: float) -> float:
        return left + long * (value - low) / wide

    parts = []
    bottom = 8 + step * len(rows) + 8 * (len(rows) // 2)
    for value in ticks(low, high):
        x = at(value)
        parts.append(f'<line x1="{x:.1f}" y1="4" x2="{x:.1f}" y2="{bottom}" stroke="{RULE}"/>')
        parts.append(_text(x, bottom + 16, f"{value:g}", INK))
    for index, row in enumerate(rows):
        y = 16 + step * index + 8 * (index // 2)
        first, q1, middle, q3, last = (at(value) for value in row.marks)
        color = ACCENT if row.accent else MUTED
        parts.append(
            f'<g stroke="{color}"><title>{escape(row.hint)}</title>'
            f'<line x1="{first:.1f}" y1="{y}" x2="{last:.1f}" y2="{y}" stroke-width="1.5"/>'
            f'<rect x="{q1:.1f}" y="{y - 6}" width="{max(q3 - q1, 1):.1f}" height="12" rx="2" '
            f'fill="{color}" fill-opacity=".35"/>'
            f'<line x1="{middle:.1f}" y1="{y - 6}" x2="{middle:.1f}" y2="{y + 6}" '
            'stroke-width="2.5"/></g>'
        )
        if row.name:
            parts.append(_text(0, y + step / 2 + 4, row.name, INK, "start"))
    return _svg(560, bottom + 24, label, parts)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from ``low`` to ``high``, 1, 2 or 5 times a power of ten apart.

    >>> ticks(0.03, 0.41), ticks(-120, 2700)
    ([0.1, 0.2, 0.3, 0.4], [0.0, 500.0, 1000.0, 1500.0, 2000.0, 2500.0])
    """
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low] if math.isfinite(low) else []
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * k for k in (1, 2, 5, 10, 20) if span / (power * k) <= most)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _text(x: float, y: float, text: str, color: str, anchor: str = "middle") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="13" {FONT} '
        f'fill="{color}">{escape(text)}</text>'
    )


def _svg(width: int, height: int, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )
