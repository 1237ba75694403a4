"""Charts of an evaluation as inline SVG: figures in, markup out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tilemap.report.charts import ACCENT, FONT, INK, MUTED, RULE

_LONGEST_NAME = 22
_CELL = (96, 40)


def heat_map(names: Sequence[str], matrix: Sequence[Sequence[int]]) -> str:
    """A confusion matrix: shade by share of the row, counts in the cells.

    Args:
        names: of the classes.
        matrix: counts, row = reference, column = map.
    """
    wide, high = _CELL
    left, top = 170, 58
    width, height = left + wide * len(names) + 96, top + high * len(names) + 8
    parts = [
        _text(left + wide * len(names) / 2, 16, "map", MUTED),
        _text(0, top - 10, "reference", MUTED, "start"),
        _text(width, top - 10, "pixels", MUTED, "end"),
    ]
    for index, name in enumerate(names):
        parts.append(_text(left + wide * (index + 0.5), top - 10, _short(name, 13), INK))
        parts.append(_text(0, top + high * (index + 0.5) + 5, _short(name), INK, "start"))
    for row, counts in enumerate(matrix):
        total = sum(counts)
        y = top + high * row
        for col, count in enumerate(counts):
            share = count / total if total else 0.0
            x = left + wide * col
            told = f"{names[row]} mapped as {names[col]}: {count:,} pixels, {100 * share:.2f} %"
            parts.append(
                f'<rect x="{x + 1}" y="{y + 1}" width="{wide - 2}" height="{high - 2}" rx="2" '
                f'fill="{_shade(share)}"><title>{escape(told)}</title></rect>'
            )
            ink = "#ffffff" if share > 0.55 else INK if count else MUTED
            parts.append(_text(x + wide / 2, y + high / 2 + 5, compact(count), ink))
        parts.append(_text(width, y + high / 2 + 5, compact(total), MUTED, "end"))
    return _svg(width, height, "Confusion matrix", parts, widest=min(width, 1064))


def compact(count: int) -> str:
    """A count in at most seven characters.

    >>> compact(0), compact(183124), compact(1234567), compact(98765432100)
    ('0', '183,124', '1.23 M', '98.8 G')
    """
    if count < 1_000_000:
        return f"{count:,}"
    for unit, size in (("M", 1e6), ("G", 1e9)):
        if count < 999.5 * size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e12:.3g} T"


def reliability(bins: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy over confidence; the area of a point's disk grows with its pixels.

    Args:
        bins: with ``low``, ``high``, ``pixels``, ``confidence`` and ``accuracy``.
    """
    left, base, side = 52, 326, 290
    most = max((b["pixels"] for b in bins), default=0) or 1

    def at(sure: float, right: float) -> tuple[float, float]:
        return left + side * sure, base - side * right

    parts = []
    for tick in range(0, 101, 20):
        x, y = at(tick / 100, tick / 100)
        parts.append(f'<line x1="{left}" y1="{y}" x2="{left + side}" y2="{y}" stroke="{RULE}"/>')
        parts.append(f'<line x1="{x}" y1="{base}" x2="{x}" y2="{base - side}" stroke="{RULE}"/>')
        parts.append(_text(x, base + 18, f"{tick}", INK))
        parts.append(_text(left - 8, y + 4, f"{tick}", INK, "end"))
    parts.append(
        f'<line x1="{left}" y1="{base}" x2="{left + side}" y2="{base - side}" '
        f'stroke="{MUTED}" stroke-dasharray="4 4"/>'
    )
    some = [b for b in bins if b["pixels"]]
    line = " ".join("{:.1f},{:.1f}".format(*at(b["confidence"], b["accuracy"])) for b in some)
    parts.append(f'<polyline points="{line}" fill="none" stroke="{ACCENT}" stroke-width="1.5"/>')
    for b in some:
        x, y = at(b["confidence"], b["accuracy"])
        radius = 3 + 9 * (b["pixels"] / most) ** 0.5
        told = (
            f"{100 * b['low']:.0f} to {100 * b['high']:.0f} %: {b['pixels']:,} pixels, "
            f"{100 * b['accuracy']:.1f} % right at a confidence of {100 * b['confidence']:.1f} %"
        )
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{ACCENT}" '
            f'fill-opacity=".65"><title>{escape(told)}</title></circle>'
        )
    parts.append(_text(left + side / 2, base + 38, "confidence, %", MUTED))
    parts.append(_text(left - 34, base - side - 18, "right, %", MUTED, "start"))
    return _svg(left + side + 22, base + 46, "Reliability curve", parts, widest=460)


def _shade(share: float) -> str:
    """White to the accent colour."""
    target = [int(ACCENT[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(247 + (part - 247) * share):02x}" for part in target)


def _short(name: str, most: int = _LONGEST_NAME) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _text(x: float, y: float, text: str, color: str, anchor: str = "middle") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="13" {FONT} '
        f'fill="{color}">{escape(text)}</text>'
    )


def _svg(width: float, height: float, label: str, parts: Sequence[str], widest: float) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" style="max-width:{widest:g}px" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
