"""Charts of a change as inline SVG: areas and dates in, markup out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date
from html import escape
from itertools import accumulate, pairwise
from typing import Any

from tilemap.report.charts import ACCENT, INK, MUTED, RULE, binned, ticks
from tilemap.report.drawing import amount, apart, short, svg, text

CHANGE = "#b5522b"
MOVE_FROM, REFUSE_FROM = 0.2, 0.5
_LINE = 17  # two labels stand at least so far apart
_YEAR = 365.2425


def day_names(days: Sequence[str]) -> list[str]:
    """ISO days as short as they stay apart.

    >>> day_names(["1985-07-01", "1990-07-01"]), day_names(["2019-06-01", "2019-08-01"])
    (['1985', '1990'], ['2019-06', '2019-08'])
    """
    for length in (4, 7):
        names = [day[:length] for day in days]
        if len(set(names)) == len(names):
            return names
    return list(days)


def stacked(
    days: Sequence[str],
    names: Sequence[str],
    colors: Sequence[str],
    areas: Sequence[Sequence[float]],
    unit: str,
) -> str:
    """Area by class over time, classes upon each other, at true distances of the dates.

    Args:
        days: ISO, in order.
        names: of the classes.
        colors: of the classes, ``#rrggbb``.
        areas: by date, of each class.
        unit: of the areas.
    """
    left, right, top, base = 64, 412, 22, 282
    most = max((sum(row) for row in areas), default=0.0)
    if len(days) < 2 or not most:
        return ""
    xs = _times(days, left, right)

    def at(value: float) -> float:
        return base - (base - top) * value / most

    parts = _grid(most, at, (left, right), unit)
    sums = [[0.0, *accumulate(row)] for row in areas]
    for k, name in enumerate(names):
        upper = [f"{x:.1f},{at(row[k + 1]):.1f}" for x, row in zip(xs, sums, strict=True)]
        lower = [f"{x:.1f},{at(row[k]):.1f}" for x, row in zip(xs, sums, strict=True)]
        parts.append(
            f'<polygon points="{" ".join(upper + lower[::-1])}" fill="{colors[k]}" '
            f'stroke="#fff" stroke-width=".8"><title>{escape(name)}</title></polygon>'
        )
    shown = [k for k in range(len(names)) if areas[-1][k]]
    middles = [at((sums[-1][k] + sums[-1][k + 1]) / 2) for k in shown]
    for k, y in zip(shown, apart(middles[::-1], _LINE, top)[::-1], strict=True):
        told = f"{short(names[k], 17)}"
        parts.append(f'<rect x="{right + 8}" y="{y - 5:.1f}" width="10" height="10" rx="2" '
                     f'fill="{colors[k]}" stroke="#000" stroke-opacity=".25"/>')  # fmt: skip
        parts.append(text(right + 24, y + 4, told, INK, "start", size=12))
    parts += _day_axis(days, xs, base)
    return svg(560, base + 28, "Area by class and date", parts)


def intervals(days: Sequence[str], changed: Sequence[float], unit: str) -> str:
    """What changed between neighbouring dates: as wide as it is long, as high as a year's share.

    The area of a column is the area that changed. The last column is open: only one date has seen
    that change.

    Args:
        days: ISO, in order.
        changed: area by interval, one less than dates.
        unit: of the areas.
    """
    left, right, top, base = 64, 540, 22, 282
    years = [_years(a, b) for a, b in pairwise(days)]
    rates = [area / year for area, year in zip(changed, years, strict=True)]
    most = max(rates, default=0.0)
    if not most:
        return ""
    xs = _times(days, left, right)

    def at(value: float) -> float:
        return base - (base - top - 16) * value / most

    parts = _grid(most, at, (left, right), f"{unit} a year")
    for index, (area, rate) in enumerate(zip(changed, rates, strict=True)):
        x, wide = xs[index], xs[index + 1] - xs[index]
        last = index == len(changed) - 1
        look = (
            f'fill="{CHANGE}" fill-opacity=".22" stroke="{CHANGE}" stroke-dasharray="4 3"'
            if last
            else f'fill="{CHANGE}"'
        )
        told = (
            f"{days[index]} to {days[index + 1]}: {amount(area)} {unit}, "
            f"{amount(rate)} {unit} a year"
        )
        parts.append(
            f'<rect x="{x + 1:.1f}" y="{at(rate):.1f}" width="{max(wide - 2, 0.8):.1f}" '
            f'height="{base - at(rate):.1f}" {look}><title>{escape(told)}</title></rect>'
        )
        label = amount(area)
        if wide > 7 * len(label):
            parts.append(text(x + wide / 2, at(rate) - 6, label, MUTED, size=12))
    parts += _day_axis(days, xs, base)
    return svg(560, base + 28, "Area changed by interval", parts)


def likelihood(counts: Sequence[int], title: str = "probability of change", width: int = 5) -> str:
    """Columns over percent of change; a column far above all others is cut, and says so.

    Args:
        counts: pixels per percent, 101 of them.
        title: what the percents are.
        width: percent per column.
    """
    bins = binned(counts, width)
    total = sum(bins)
    if not total:
        return ""
    high = sorted(bins)[-2:]
    cut = high[1] > 2.5 * high[0] > 0
    most = 1.3 * high[0] if cut else high[1]
    left, base, tall, step = 8, 196, 158, 27.2
    parts = [f'<line x1="{left}" y1="{base}" x2="552" y2="{base}" stroke="{RULE}"/>']
    for index, count in enumerate(bins):
        y = base - tall * min(count / most, 1)
        x = left + index * step
        end = 100 if index == len(bins) - 1 else (index + 1) * width - 1
        color = CHANGE if index * width >= 50 else MUTED
        parts.append(
            f'<rect x="{x + 1.5:.1f}" y="{y:.1f}" width="{step - 3:.1f}" '
            f'height="{base - y:.1f}" rx="2" fill="{color}">'
            f"<title>{index * width} to {end} %: {count:,} pixels</title></rect>"
        )
        if cut and count > most:
            parts.append(
                f'<path d="M{x - 2:.1f},{y + 28}l{step + 4:.1f},-9" stroke="#fff" '
                f'stroke-width="5"/>'
            )
        if count / total >= 0.0005:
            share = 100 * count / total
            told = f"{share:.0f}" if share >= 9.95 else f"{share:.1f}"
            parts.append(text(x + step / 2, y - 6, told, MUTED, size=12))
    for tick in range(0, 101, 20):
        anchor = "start" if tick == 0 else "end" if tick == 100 else "middle"
        x = left + len(bins) * step * tick / 100
        parts.append(text(x, base + 18, f"{tick} %", INK, anchor))
    return svg(560, 224, f"Histogram: {title}", parts)


def target(rows: Sequence[Mapping[str, Any]]) -> str:
    """Each date's shift against the first, in the rings up to which it is left, moved, refused.

    Args:
        rows: with ``date``, ``row``, ``col`` (pixels, or None) and ``verdict``.
    """
    known = [row for row in rows if row.get("row") is not None and row.get("col") is not None]
    reach = max([0.6, *(1.15 * max(abs(r["row"]), abs(r["col"])) for r in known)])
    middle, radius = 150, 132
    scale = radius / reach
    parts = [
        f'<line x1="{middle - radius}" y1="{middle}" x2="{middle + radius}" y2="{middle}" '
        f'stroke="{RULE}"/>',
        f'<line x1="{middle}" y1="{middle - radius}" x2="{middle}" y2="{middle + radius}" '
        f'stroke="{RULE}"/>',
    ]
    for limit, fill in ((REFUSE_FROM, "#fdf3df"), (MOVE_FROM, "#e4f0e8")):
        parts.append(
            f'<circle cx="{middle}" cy="{middle}" r="{limit * scale:.1f}" fill="{fill}" '
            f'stroke="{MUTED}" stroke-opacity=".5" stroke-dasharray="3 3"/>'
        )
    for limit in (MOVE_FROM, REFUSE_FROM):
        parts.append(text(middle + 4, middle - limit * scale + 14, f"{limit:g} px", MUTED,
                           "start", size=11))  # fmt: skip
    for row in known:
        x, y = middle + row["col"] * scale, middle + row["row"] * scale
        color = verdict_color(row.get("verdict", ""))
        told = f"{row['date']}: {row['row']:+.2f} rows, {row['col']:+.2f} columns"
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{color}" stroke="#fff">'
            f"<title>{escape(told)}</title></circle>"
        )
        if math.hypot(row["row"], row["col"]) > MOVE_FROM:
            left = x > middle
            at, anchor = (x - 8, "end") if left else (x + 8, "start")
            parts.append(text(at, y + 4, str(row["date"]), INK, anchor, size=11))
    return svg(300, 300, "Shifts of the dates", parts, widest=340)


def verdict_color(verdict: str) -> str:
    """Of a point or a word: green left as it is, amber moved, red accepted all the same."""
    return {"ok": "#3f8f5f", "reference": ACCENT, "shift": "#c98a12", "accepted": "#b8382f"}.get(
        verdict, MUTED
    )


def trend(values: Sequence[float], days: Sequence[str], color: str, label: str) -> str:
    """A line as high as a word, from the smallest to the largest of the values."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    xs = _times(days, 4, 116)
    points = [
        (x, 22 - 18 * (value - low) / span if high > low else 13)
        for x, value in zip(xs, values, strict=True)
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    x, y = points[-1]
    return svg(120, 26, label, [
        f'<polyline points="{line}" fill="none" stroke="{INK}" stroke-width="1.4"/>',
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}" stroke="{INK}"/>',
    ])  # fmt: skip


def _times(days: Sequence[str], left: float, right: float) -> list[float]:
    numbers = [date.fromisoformat(day).toordinal() for day in days]
    span = (numbers[-1] - numbers[0]) or 1
    return [left + (right - left) * (number - numbers[0]) / span for number in numbers]


def _years(first: str, last: str) -> float:
    gap = date.fromisoformat(last) - date.fromisoformat(first)
    return max(gap.days, 1) / _YEAR


def _grid(most: float, at: Any, edge: tuple[float, float], unit: str) -> list[str]:
    parts = [text(0, 10, unit, MUTED, "start", size=12)]
    for value in ticks(0, most, 5):
        y = at(value)
        parts.append(
            f'<line x1="{edge[0]}" y1="{y:.1f}" x2="{edge[1]}" y2="{y:.1f}" stroke="{RULE}"/>'
        )
        parts.append(text(edge[0] - 8, y + 4, amount(value), INK, "end", size=12))
    return parts


def _day_axis(days: Sequence[str], xs: Sequence[float], base: float) -> list[str]:
    names = day_names(days)
    room = 7.5 * max(map(len, names)) + 8
    parts, end = [], -math.inf
    for index, (name, x) in enumerate(zip(names, xs, strict=True)):
        parts.append(f'<line x1="{x:.1f}" y1="{base}" x2="{x:.1f}" y2="{base + 4}" '
                     f'stroke="{MUTED}"/>')  # fmt: skip
        last = index == len(xs) - 1
        if x - end >= room and (last or xs[-1] - x >= room):
            middle = min(x, 560 - 3.7 * len(name))
            parts.append(text(middle, base + 19, name, INK, size=12))
            end = x
    return parts
