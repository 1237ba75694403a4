"""Tables of a change as HTML: areas in, markup out."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tilemap.report.change_charts import CHANGE, trend
from tilemap.report.change_flows import Turnover
from tilemap.report.charts import percent
from tilemap.report.drawing import amount, relative, short, signed

_MOST_CHANGES = 8
_MOST_LYING = 6  # names of columns; more than that stand upright


def largest(flow: Turnover) -> str:
    """The largest changes with their share of all change."""
    if not flow.largest:
        return ""
    most = flow.largest[0][2]
    told = flow.largest if len(flow.largest) == _MOST_CHANGES + 1 else flow.largest[:_MOST_CHANGES]
    lines = "".join(
        f'<tr><td><i style="background:{escape(flow.colors[a])}"></i>{escape(flow.names[a])}</td>'
        f'<td class="arrow">→</td>'
        f'<td><i style="background:{escape(flow.colors[b])}"></i>{escape(flow.names[b])}</td>'
        f'<td class="wide"><b style="width:{100 * area / most:.2f}%;'
        f'background:{escape(flow.colors[b])}"></b></td>'
        f'<td class="number">{escape(amount(area))}</td>'
        f'<td class="number">{escape(percent(area / flow.changed))}</td></tr>'
        for a, b, area in told
    )
    rest = flow.largest[len(told) :]
    if rest:
        area = sum(area for _, _, area in rest)
        lines += (
            f'<tr class="rest"><td colspan="3">{len(rest)} other kinds</td>'
            '<td class="wide"></td>'
            f'<td class="number">{escape(amount(area))}</td>'
            f'<td class="number">{escape(percent(area / flow.changed))}</td></tr>'
        )
    return (
        '<section><h2>Largest changes</h2><table class="changes"><thead><tr><th>From</th><th></th>'
        f'<th>To</th><th class="wide"></th><th class="number">Area, {escape(flow.unit)}</th>'
        f'<th class="number">Of all change</th></tr></thead><tbody>{lines}</tbody></table>'
        "</section>"
    )


def by_class(flow: Turnover, days: Sequence[str], areas: Sequence[Sequence[float]]) -> str:
    """What each class lost and gained, with its course over the dates.

    Args:
        flow: what became what.
        days: ISO, in order.
        areas: by date, of each class; of three or more dates the course is drawn.
    """
    before, after, lost, gained = flow.before, flow.after, flow.lost, flow.gained
    most = max([*lost, *gained]) or 1.0
    course = len(days) == len(areas) > 2 and any(map(any, areas))
    lines = []
    for k, name in enumerate(flow.names):
        color = escape(flow.colors[k])
        line = ""
        if course:
            chart = trend([row[k] for row in areas], days, color, f"Course of {name}")
            line = f'<td class="course">{chart}</td>'
        growth = relative(after[k] / before[k] - 1) if before[k] else "new" if after[k] else ""
        lines.append(
            f'<tr><td><i style="background:{color}"></i>{escape(short(name, 24))}</td>'
            f'<td class="number">{escape(amount(before[k]))}</td>'
            f'<td class="half left"><span>{escape(amount(lost[k]))}</span>'
            f'<b style="width:{60 * lost[k] / most:.2f}%"></b></td>'
            f'<td class="half"><b style="width:{60 * gained[k] / most:.2f}%;background:{color}">'
            f"</b><span>{escape(amount(gained[k]))}</span></td>"
            f'<td class="number">{escape(amount(after[k]))}</td>{line}'
            f'<td class="number">{escape(signed(gained[k] - lost[k]))}</td>'
            f'<td class="number">{escape(growth)}</td></tr>'
        )
    ends = (days[0], days[-1]) if days else ("First", "Last")
    return (
        '<div class="scroll"><table class="gains"><thead><tr><th>Class</th>'
        f'<th class="number">{escape(ends[0])}</th>'
        '<th class="half left">lost</th><th class="half">gained</th>'
        f'<th class="number">{escape(ends[1])}</th>'
        f"{'<th>course</th>' if course else ''}"
        '<th class="number">net</th><th class="number">growth</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def transitions(flow: Turnover, first: str, last: str) -> str:
    """The matrix of areas with its sums; changes are shaded by their size."""
    most = flow.largest[0][2] if flow.largest else 1.0
    dense = " dense" if len(flow.names) > _MOST_LYING else ""
    head = "".join(
        f'<th class="number"><span><i style="background:{escape(color)}"></i>'
        f"{escape(short(name, 18))}</span></th>"
        for name, color in zip(flow.names, flow.colors, strict=True)
    )
    lines = []
    for a, row in enumerate(flow.matrix):
        cells = []
        for b, area in enumerate(row):
            told = f"{flow.names[a]} to {flow.names[b]}: {percent(area / flow.total)} of all"
            look = ' class="number kept"' if a == b else f' class="number"{_shade(area / most)}'
            text = escape(amount(area)) if area else "·"
            cells.append(f'<td{look} title="{escape(told)}">{text}</td>')
        lines.append(
            f'<tr><th><i style="background:{escape(flow.colors[a])}"></i>'
            f"{escape(short(flow.names[a], 22))}</th>{''.join(cells)}"
            f'<td class="number sum">{escape(amount(flow.before[a]))}</td></tr>'
        )
    sums = "".join(f'<td class="number">{escape(amount(area))}</td>' for area in flow.after)
    return (
        f'<div class="scroll"><table class="matrix{dense}"><thead><tr><th>{escape(first)} ↓ '
        f'{escape(last)} →</th>{head}<th class="number">sum {escape(first)}</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody>"
        f'<tfoot><tr class="total"><td>sum {escape(last)}</td>{sums}'
        f'<td class="number">{escape(amount(flow.total))}</td></tr></tfoot></table></div>'
    )


def _shade(share: float) -> str:
    """A cell from white to the colour of change; by the root, so that small ones still show."""
    if share <= 0:
        return ""
    strength = 0.06 + 0.84 * share**0.5
    red, green, blue = (int(CHANGE[at : at + 2], 16) for at in (1, 3, 5))
    ink = ";color:#fff" if strength > 0.6 else ""
    return f' style="background:rgba({red},{green},{blue},{strength:.2f}){ink}"'
