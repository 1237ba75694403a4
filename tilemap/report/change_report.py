"""The report of a change: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from tilemap.report.change_charts import intervals, likelihood, stacked, target, verdict_color
from tilemap.report.change_figures import dates_figure, ends_figure
from tilemap.report.change_flows import Turnover, sankey
from tilemap.report.change_tables import by_class, largest, transitions
from tilemap.report.charts import percent, percentile
from tilemap.report.drawing import MINUS, amount
from tilemap.report.html import ReportData, _alerts, _details, _header
from tilemap.report.page import page, small_print
from tilemap.stores.sidecars import write_text

QA_TEXT = {
    "few": "Fewer than two dates observed: no change can be told.",
    "first": "Not observed at the first date; its class there follows from later dates.",
    "last": "Not observed at the last date; its class there follows from earlier dates.",
    "shifted": "Some date was moved to fit, or was accepted though it does not.",
    "sliver": "Changed, but a shift of one pixel can explain it.",
    "provisional": "Changed, seen on one date only, the last: a later date will confirm it or not.",
    "sieved": "Change on less than the minimum mapping unit, mapped as no change.",
    "hard": "Of some date there were labels only, no probabilities.",
}
_VERDICTS = {
    "reference": "reference",
    "ok": "fits",
    "shift": "moved",
    "accepted": "accepted",
    "unknown": "not measured",
}


@dataclass(frozen=True)
class ChangeReport:
    """Everything a report of a change shows; whatever is empty or None leaves its part out.

    Args:
        title: of the page.
        subtitle: one line below it.
        facts: by name, such as size, pixel, CRS, method.
        dates: ISO days, in order.
        class_names: of the K classes.
        class_colors: of the classes, ``#rrggbb``.
        matrix_ha: K x K areas, row = class at the first date, column = class at the last.
        areas_ha: by date, the area of each class.
        changed_ha: area that changed in each interval, one less than dates.
        p_change: pixels per percent of the probability of change, 101 of them.
        registration: a row per date: ``date``, ``row``, ``col`` (pixels or None), ``blocks``,
            ``verdict`` ("reference", "ok", "shift", "accepted", "unknown").
        qa: share of the pixels, 0..1, by the name of the bit of ``qa.tif``.
        pictures: "change" of ``change_picture`` and "multiples" of ``multiples``, PNG.
        polygons: how many the file of polygons holds; None where there is none.
        provisional_ha: area of the change that only the last date has seen.
        p_change_title: what the numbers are, in a few words.
        p_change_note: what the numbers are, where they are not probabilities of a model.
        unit: of all areas; "pixels" where they are not known in hectares.
        area_note: how the areas were computed.
        settings: by name.
        model: facts of the model card by name.
        versions: by package.
        inputs: what was compared.
        products: (file, bytes, sha256) of each product.
        warnings: for people, a sentence each.
        quarantined: tiles left out, with the reason.
    """

    title: str
    subtitle: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)
    dates: Sequence[str] = ()
    class_names: Sequence[str] = ()
    class_colors: Sequence[str] = ()
    matrix_ha: Sequence[Sequence[float]] = ()
    areas_ha: Sequence[Sequence[float]] = ()
    changed_ha: Sequence[float] = ()
    p_change: Sequence[int] = ()
    registration: Sequence[Mapping[str, Any]] = ()
    qa: Mapping[str, float] = field(default_factory=dict)
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    polygons: int | None = None
    provisional_ha: float | None = None
    p_change_title: str = "Probability of change"
    p_change_note: str = ""
    unit: str = "ha"
    area_note: str = ""
    settings: Mapping[str, object] = field(default_factory=dict)
    model: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, object] = field(default_factory=dict)
    inputs: Sequence[str] = ()
    products: Sequence[tuple[str, int, str]] = ()
    warnings: Sequence[str] = ()
    quarantined: Sequence[str] = ()

    @property
    def flow(self) -> Turnover | None:
        """What became what; None where it is not known or nothing was observed twice."""
        flow = Turnover(self.class_names, self.class_colors, self.matrix_ha, self.unit)
        whole = len(self.class_names) == len(self.class_colors) == len(self.matrix_ha)
        return flow if whole and flow.known and flow.total > 0 else None


def render_change(data: ChangeReport) -> str:
    """The page: self-contained, without scripts, readable in a mail."""
    shell = ReportData(
        title=data.title,
        subtitle=data.subtitle,
        scene=data.facts,
        settings=data.settings,
        model=data.model,
        versions=data.versions,
        inputs=data.inputs,
        products=data.products,
        warnings=data.warnings,
        quarantined=data.quarantined,
    )
    flow = data.flow
    body = "".join(
        [
            _header(shell),
            _alerts(shell),
            _headline(data, flow),
            ends_figure(
                data.pictures.get("change", b""), data.dates, data.class_names, data.class_colors
            ),
            _became(data, flow),
            _pair(_areas(data), _when(data)),
            dates_figure(data.pictures.get("multiples", b""), len(data.dates)),
            _pair(_likelihood(data), _notes_on_pixels(data)),
            _registration(data.registration),
            _details(shell),
        ]
    )
    return page(data.title, body, kind="change")


def write_change_report(path: Path, data: ChangeReport) -> None:
    """Render and write the page, whole or not at all.

    Raises:
        StoreError: if it cannot be written.
    """
    write_text(path, render_change(data))


def _headline(data: ChangeReport, flow: Turnover | None) -> str:
    if flow is None:
        return ""
    unit = escape(data.unit)
    cards = [
        (
            f"{escape(amount(flow.changed))} <small>{unit}</small>",
            f"changed between {_ends(data, ' and ')}",
            f"{percent(flow.changed / flow.total)} of the {amount(flow.total)} {data.unit} "
            "that can be told at both ends",
        )
    ]
    if flow.largest:
        a, b, area = flow.largest[0]
        cards.append(
            (
                f"{escape(amount(area))} <small>{unit}</small>",
                "the largest change",
                f"{flow.names[a]} to {flow.names[b]}, {percent(area / flow.changed)} of all change",
            )
        )
    if data.provisional_ha is not None and flow.changed:
        sure = max(flow.changed - data.provisional_ha, 0.0)
        cards.append(
            (
                escape(percent(sure / flow.changed)),
                "of the change is confirmed",
                f"{amount(data.provisional_ha)} {data.unit} were seen on the last date only "
                "and stay provisional",
            )
        )
    if data.polygons is not None:
        many = "polygon" if data.polygons == 1 else "polygons"
        cards.append((f"{data.polygons:,}", f"{many} of change", "with date, classes and area"))
    told = "".join(
        f'<div><p class="figure">{figure}</p><p class="unit">{escape(what)}</p>'
        f'<p class="note">{escape(text)}</p></div>'
        for figure, what, text in cards
    )
    return f'<div class="cards">{told}</div>'


def _became(data: ChangeReport, flow: Turnover | None) -> str:
    if flow is None:
        return ""
    first, last = (data.dates[0], data.dates[-1]) if data.dates else ("first", "last")
    counted = small_print(
        f"{data.area_note} These areas are counted on the map, with its errors; tilemap sample and "
        "tilemap area estimate them from a labelled sample, with an interval.".strip()
    )
    return (
        f"<section><h2>What became what</h2>{sankey((first, last), flow)}"
        + small_print(
            "Pale: the class stayed. In colour: it changed, in the colour of the class that it "
            "became. Percent in brackets: growth of the class."
        )
        + "</section>"
        f"{largest(flow)}"
        f"<section><h2>Gains and losses by class</h2>"
        f"{by_class(flow, data.dates, data.areas_ha)}{counted}</section>"
        f"<section><h2>Transitions, {escape(data.unit)}</h2>{transitions(flow, first, last)}"
        + small_print(
            f"Rows: class on {first}; columns: class on {last}. The diagonal stayed; the stronger "
            "a cell, the larger the change. Sums of rows are the areas at the first date, sums of "
            "columns those at the last."
        )
        + "</section>"
    )


def _areas(data: ChangeReport) -> str:
    if len(data.areas_ha) < 2 or len(data.areas_ha) != len(data.dates):
        return ""
    chart = stacked(data.dates, data.class_names, data.class_colors, data.areas_ha, data.unit)
    if not chart:
        return ""
    text = small_print("Areas of the class maps of all dates, at their distance in time.")
    return f"<section><h2>Area by class and date</h2>{chart}{text}</section>"


def _when(data: ChangeReport) -> str:
    if not data.changed_ha or len(data.changed_ha) != len(data.dates) - 1:
        return ""
    chart = intervals(data.dates, data.changed_ha, data.unit)
    if not chart:
        return ""
    text = (
        "Each column is as wide as its interval and as high as the change a year, so its area is "
        "the area that changed (the number above, where there is room). Changes there and back "
        "count twice here. The last interval is open: one date alone has seen its change."
    )
    return f"<section><h2>When it changed</h2>{chart}{small_print(text)}</section>"


def _likelihood(data: ChangeReport) -> str:
    counts, title, about = data.p_change, data.p_change_title, data.p_change_note
    total = sum(counts)
    if not total:
        return ""
    mean = sum(index * count for index, count in enumerate(counts)) / total / 100
    unsure = sum(counts[20:81]) / total
    what = about or (
        "Probability that the class changed at least once: its mean is the share of the pixels "
        "expected to have changed."
    )
    text = (
        f"{what} Percent of pixels per 5 %. Median {percentile(counts, 0.5)} %, mean "
        f"{percent(mean)}; {percent(unsure)} lie between 20 and 80 %, where the dates leave it "
        "open."
    )
    return (
        f"<section><h2>{escape(title)}</h2>{likelihood(counts, title)}{small_print(text)}</section>"
    )


def _notes_on_pixels(data: ChangeReport) -> str:
    if not data.qa:
        return ""
    shares = {name.lower(): share for name, share in data.qa.items()}
    lines = "".join(
        f'<tr><td class="number">{escape(percent(share))}</td><td><strong>{escape(name)}</strong>'
        f'<p class="note">{escape(QA_TEXT.get(name, ""))}</p></td></tr>'
        for name, share in sorted(shares.items(), key=lambda item: -item[1])
        if share
    )
    none = ", ".join(name for name, share in shares.items() if not share)
    text = "Share of the pixels that carry each bit of qa.tif." + (
        f" No pixel carries: {none}." if none else ""
    )
    table = f'<table class="qa">{lines}</table>' if lines else ""
    return f"<section><h2>Notes on pixels</h2>{table}{small_print(text)}</section>"


def _registration(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    lines = "".join(_registered(row) for row in rows)
    table = (
        '<table class="registration"><thead><tr><th>Date</th><th class="number">Rows</th>'
        '<th class="number">Columns</th><th class="number">Shift, px</th>'
        f'<th class="number">Blocks</th><th>Verdict</th></tr></thead><tbody>{lines}</tbody></table>'
    )
    if len(rows) > 16:
        table = f"<details><summary>All {len(rows)} dates</summary>{table}</details>"
    text = small_print(
        "Shift of each date against the first, pixels; positive lies further down or to the right. "
        "Up to 0.2 px it fits; up to 0.5 px its probabilities were moved by as much; beyond that "
        "a date is refused unless it is accepted on purpose."
    )
    return (
        '<section><h2>How the dates lie on each other</h2><div class="aim">'
        f"<div>{target(rows)}</div><div>{table}{text}</div></div></section>"
    )


def _registered(row: Mapping[str, Any]) -> str:
    verdict = str(row.get("verdict", ""))
    down, right = row.get("row"), row.get("col")
    if down is None or right is None:
        cells = '<td class="number">-</td>' * 3
    else:
        size = (down**2 + right**2) ** 0.5
        cells = "".join(
            f'<td class="number">{value}</td>'
            for value in (_offset(down), _offset(right), f"{size:.2f}")
        )
    blocks = row.get("blocks")
    return (
        f"<tr><td>{escape(str(row.get('date', '')))}</td>{cells}"
        f'<td class="number">{blocks if blocks else "-"}</td>'
        f'<td><em style="background:{verdict_color(verdict)}"></em>'
        f"{escape(_VERDICTS.get(verdict, verdict))}</td></tr>"
    )


def _offset(value: float) -> str:
    return f"{value:+.2f}".replace("-", MINUS)


def _ends(data: ChangeReport, between: str) -> str:
    return f"{data.dates[0]}{between}{data.dates[-1]}" if data.dates else "the dates"


def _pair(*parts: str) -> str:
    body = "".join(parts)
    return f'<div class="pair">{body}</div>' if body else ""
