"""Charts of passes as inline SVG; their colours are classes, so that the page can be dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from tilemap.report.charts import FONT, ticks
from tilemap.report.drawing import svg

_LEFT, _RIGHT, _TOP, _BASE = 44, 548, 30, 168
_WIDEST = 34


@dataclass(frozen=True, slots=True)
class Column:
    """One pass in a chart.

    Args:
        day: below it, ISO.
        parts: (class of the colour, value) from the axis up.
        hint: shown under the pointer.
    """

    day: str
    parts: tuple[tuple[str, float], ...]
    hint: str


def work_columns(records: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Done and failed of each pass."""
    columns = []
    for record in records:
        counts = record.get("counts")
        counts = counts if isinstance(counts, Mapping) else {}
        good = number(counts.get("ok")) + number(counts.get("partial"))
        bad = number(counts.get("failed")) + number(counts.get("quarantined"))
        hint = f"{record.get('pass')}: {good:.0f} done, {bad:.0f} failed"
        columns.append(Column(_day(record), (("good", good), ("bad", bad)), hint))
    return columns


def speed_columns(records: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Million pixels a second of each pass."""
    columns = []
    for record in records:
        speed = number(record.get("mpx_per_s"))
        hint = f"{record.get('pass')}: {speed:.2f} Mpx/s"
        columns.append(Column(_day(record), (("speed", speed),), hint))
    return columns


def number(value: object) -> float:
    """A number of a record of before, whatever stands there; not below 0.

    >>> number(3), number("x"), number(None), number(-1), number(True)
    (3.0, 0.0, 0.0, 0.0, 0.0)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return float(value) if 0 <= value < 1e15 else 0.0


def _day(record: Mapping[str, Any]) -> str:
    return str(record.get("started", ""))[:10]


def columns_chart(columns: Sequence[Column], label: str, legend: Sequence[tuple[str, str]]) -> str:
    """Columns side by side in their order, the parts of each upon each other.

    Args:
        columns: the last is this pass.
        label: for those who do not see it.
        legend: (class of the colour, word).
    """
    top = max((sum(value for _, value in column.parts) for column in columns), default=0.0)
    if not columns or top <= 0:
        return ""
    step = (_RIGHT - _LEFT) / len(columns)
    wide = min(step * 0.72, _WIDEST)
    scale = (_BASE - _TOP) / top
    parts = [*_legend(legend)]
    whole = all(value == int(value) for column in columns for _, value in column.parts)
    for value in ticks(0.0, top, 4):
        if whole and value != int(value):
            continue
        y = _BASE - value * scale
        parts.append(f'<line class="rule" x1="{_LEFT}" y1="{y:.1f}" x2="{_RIGHT}" y2="{y:.1f}"/>')
        parts.append(_text(_LEFT - 8, y + 4, f"{value:g}", "end"))
    for index, column in enumerate(columns):
        x, y = _LEFT + step * (index + 0.5) - wide / 2, float(_BASE)
        drawn = []
        for name, value in column.parts:
            tall = value * scale
            y -= tall
            if tall > 0:
                drawn.append(
                    f'<rect class="{name}" x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" '
                    f'height="{max(tall, 1):.1f}"/>'
                )
        parts.append(f"<g><title>{escape(column.hint)}</title>{''.join(drawn)}</g>")
    return svg(560, 196, label, [*parts, *_days(columns, step)])


def _legend(legend: Sequence[tuple[str, str]]) -> list[str]:
    parts, x = [], float(_LEFT)
    for name, word in legend:
        parts.append(f'<rect class="{name}" x="{x:.1f}" y="4" width="11" height="11" rx="2"/>')
        parts.append(_text(x + 17, 14, word, "start"))
        x += 34 + 7.5 * len(word)
    return parts


def _days(columns: Sequence[Column], step: float) -> list[str]:
    """The first day and the last; one in between where there is room."""
    last = len(columns) - 1
    shown = sorted({0, last, last // 2} if last >= 6 else {0, last})
    parts = []
    for index in shown:
        x = _LEFT + step * (index + 0.5)
        anchor = "middle"
        if last > 0:
            anchor = "start" if index == 0 else "end" if index == last else "middle"
            x += {"start": -step / 2, "end": step / 2}.get(anchor, 0.0)
        parts.append(_text(x, _BASE + 20, columns[index].day, anchor))
    return parts


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return (
        f'<text class="word" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="13" '
        f"{FONT}>{escape(text)}</text>"
    )
