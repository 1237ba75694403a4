"""What each class became, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate, product

from tilemap.report.charts import INK, MUTED, percent
from tilemap.report.drawing import amount, apart, relative, short, svg, text

_LINE = 17


@dataclass(frozen=True)
class Turnover:
    """What each class became, between two dates.

    Args:
        names: of the classes.
        colors: of the classes, ``#rrggbb``.
        matrix: area, row = class at the first date, column = class at the last.
        unit: of the areas.
    """

    names: Sequence[str]
    colors: Sequence[str]
    matrix: Sequence[Sequence[float]]
    unit: str = "ha"

    @property
    def before(self) -> list[float]:
        """Area of each class at the first date."""
        return [math.fsum(row) for row in self.matrix]

    @property
    def after(self) -> list[float]:
        """Area of each class at the last date."""
        return [math.fsum(column) for column in zip(*self.matrix, strict=True)]

    @property
    def lost(self) -> list[float]:
        """Area of each class that became another."""
        return [_but(k, row) for k, row in enumerate(self.matrix)]

    @property
    def gained(self) -> list[float]:
        """Area of each class that was another."""
        return [_but(k, column) for k, column in enumerate(zip(*self.matrix, strict=True))]

    @property
    def total(self) -> float:
        """Area that has a class at both dates."""
        return math.fsum(self.before)

    @property
    def changed(self) -> float:
        """Area whose class at the last date is another than at the first."""
        return math.fsum(area for _, _, area in self.largest)

    @property
    def known(self) -> bool:
        """Whether every area is a number."""
        return all(math.isfinite(area) for row in self.matrix for area in row)

    @property
    def largest(self) -> list[tuple[int, int, float]]:
        """(from, to, area) of the changes that occur, the largest first."""
        found = [
            (a, b, area)
            for a, row in enumerate(self.matrix)
            for b, area in enumerate(row)
            if a != b and area > 0
        ]
        return sorted(found, key=lambda change: -change[2])


def sankey(ends: tuple[str, str], flow: Turnover) -> str:
    """Bands from what was at the first date (left) to what is at the last (right).

    What stayed is pale; what changed has the colour of the class that it became.

    Args:
        ends: names of the first and the last date.
        flow: what became what.
    """
    before, after, total = flow.before, flow.after, flow.total
    used = [k for k in range(len(flow.names)) if before[k] or after[k]]
    if not total:
        return ""
    top, left, right, gap = 34, 206, 846, 16
    high = max(380, 30 * len(used))
    scale = high / total
    starts = [_stacked([side[k] for k in used], top, scale, gap) for side in (before, after)]
    places = [dict(zip(used, start, strict=True)) for start in starts]
    parts = _flows(flow, (left + 14, right - 14), places, scale)
    bottom = max(place[k] for place in places for k in used)
    for side, (areas, where) in enumerate(zip((before, after), places, strict=True)):
        x, anchor = ((left, "end"), (right, "start"))[side]
        parts.append(text(x, 14, ends[side], INK, anchor, size=15, weight=600))
        shown = [k for k in used if areas[k]]
        middles = [where[k] + areas[k] * scale / 2 for k in shown]
        for k, y in zip(shown, apart(middles, 2 * _LINE, top), strict=True):
            parts.append(
                f'<rect x="{left if side == 0 else right - 14}" y="{where[k]:.1f}" width="14" '
                f'height="{max(areas[k] * scale, 1.5):.1f}" fill="{flow.colors[k]}" '
                'stroke="#000" stroke-opacity=".25" stroke-width=".6"/>'
            )
            bottom = max(bottom, y + _LINE, where[k] + areas[k] * scale)
            at = x - 10 if side == 0 else x + 10
            told = f"{amount(areas[k])} {flow.unit}, {percent(areas[k] / total)}"
            if side == 1 and before[k]:
                told += f" ({relative(after[k] / before[k] - 1)})"
            parts.append(text(at, y - 1, short(flow.names[k], 24), INK, anchor, weight=600))
            parts.append(text(at, y + 14, told, MUTED, anchor, size=12))
    return svg(1064, round(bottom) + 4, f"Areas by class, {ends[0]} to {ends[1]}", parts)


def _flows(
    flow: Turnover, edge: tuple[int, int], places: Sequence[Mapping[int, float]], scale: float
) -> list[str]:
    """Bands in the order of the classes at both ends, those that changed above the pale ones."""
    left, right = edge
    mid = (left + right) / 2
    out, into = dict(places[0]), dict(places[1])
    pale: list[str] = []
    strong: list[str] = []
    for a, b in product(out, into):
        area = flow.matrix[a][b]
        if not area:
            continue
        tall = area * scale
        y, z = out[a], into[b]
        out[a], into[b] = y + tall, z + tall
        extra = max(0.8 - tall, 0) / 2  # a thin band stays visible
        y, z, tall = y - extra, z - extra, tall + 2 * extra
        told = f"{flow.names[a]} to {flow.names[b]}" if a != b else f"{flow.names[a]}, no change"
        band = (
            f'<path d="M{left},{y:.2f}C{mid},{y:.2f} {mid},{z:.2f} {right},{z:.2f}'
            f"V{z + tall:.2f}C{mid},{z + tall:.2f} {mid},{y + tall:.2f} "
            f'{left},{y + tall:.2f}Z" fill="{flow.colors[b]}" '
            f'fill-opacity="{".16" if a == b else ".82"}">'
            f"<title>{escape(f'{told}: {amount(area)} {flow.unit}')}</title></path>"
        )
        (pale if a == b else strong).append(band)
    return pale + strong


def _but(index: int, areas: Sequence[float]) -> float:
    return math.fsum(area for k, area in enumerate(areas) if k != index)


def _stacked(areas: Sequence[float], top: float, scale: float, gap: float) -> list[float]:
    ends = [top + area * scale + gap * i for i, area in enumerate(accumulate(areas))]
    return [end - area * scale for end, area in zip(ends, areas, strict=True)]
