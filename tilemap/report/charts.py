"""Charts as inline SVG: numbers in, markup out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
