"""The report of a run: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from html import escape
from pathlib import Path
from typing import Any

from tilemap.report.charts import BoxRow, bars, boxes, histogram, percent, percentile
from tilemap.report.page import duration, fact_table, listed, many, page, small_print
from tilemap.stores.maps import Seam
from tilemap.stores.sidecars import ClassRow, write_text

WIDEST, TALLEST = 1064, 720  # a picture on the page, CSS pixels


@dataclass(frozen=True)
class Throughput:
    """How fast a run was.

    Args:
        pixels: of the scene.
        seconds: wall time of the run.
        tiles: done in this run.
        workers: processes.
        resumed: tiles found done already.
    """

    pixels: int
    seconds: float
    tiles: int
    workers: int
    resumed: int = 0

    @property
    def mpx_per_s(self) -> float:
        """Million scene pixels per second; 0 where no time passed."""
        return self.pixels / self.seconds / 1e6 if self.seconds > 0 else 0.0


@dataclass(frozen=True)
class ReportData:
    """Everything a report shows; whatever is empty or None leaves its part out.

    Args:
        title: of the page, usually the scene's name.
        subtitle: one line below it.
        quicklook: PNG, scene and class map side by side.
        scene: facts by name, such as size, pixel, CRS, date.
        classes: what the class map holds.
        area_note: how the areas were computed.
        not_observed: share of the scene without a class, 0..1.
        confidence_histogram: pixels per percent, 101 of them.
        uncertainty: pixels per percent, 101 of them, by measure ("entropy", "margin").
        seam: disagreement of neighbouring tiles.
        domain: for each model whose card tells, the bands of the scene against its training, as
            ``DomainReport.record`` has it.
        throughput: of the run.
        stages: seconds by stage.
        settings: by name.
        model: facts of the model card by name.
        versions: by package.
        inputs: files read.
        products: (file, bytes, sha256) of each product.
        warnings: for people, a sentence each.
        quarantined: tiles left out, with the reason.
    """

    title: str
    subtitle: str = ""
    quicklook: bytes = b""
    scene: Mapping[str, object] = field(default_factory=dict)
    classes: Sequence[ClassRow] = ()
    area_note: str = ""
    not_observed: float = 0.0
    confidence_histogram: Sequence[int] = ()
    uncertainty: Mapping[str, Sequence[int]] = field(default_factory=dict)
    seam: Seam | None = None
    domain: Sequence[Mapping[str, Any]] = ()
    throughput: Throughput | None = None
    stages: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    model: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, object] = field(default_factory=dict)
    inputs: Sequence[str] = ()
    products: Sequence[tuple[str, int, str]] = ()
    warnings: Sequence[str] = ()
    quarantined: Sequence[str] = ()


def render(data: ReportData) -> str:
    """The page: self-contained, without scripts, readable in a mail."""
    body = "".join(
        [
            _header(data),
            _alerts(data),
            _quicklook(data),
            _classes(data),
            '<div class="pair">',
            _confidence(data.confidence_histogram),
            _seam(data.seam),
            *(_uncertainty(name, counts) for name, counts in data.uncertainty.items()),
            *(_domain(report) for report in data.domain),
            "</div>",
            _speed(data),
            _details(data),
        ]
    )
    return page(data.title, body)


def write_report(path: Path, data: ReportData) -> None:
    """Render and write the page, whole or not at all.

    Raises:
        StoreError: if it cannot be written.
    """
    write_text(path, render(data))


def _header(data: ReportData) -> str:
    subtitle = f'<p class="subtitle">{escape(data.subtitle)}</p>' if data.subtitle else ""
    facts = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>"
        for name, value in data.scene.items()
    )
    facts = f'<dl class="facts">{facts}</dl>' if facts else ""
    return f"<header><h1>{escape(data.title)}</h1>{subtitle}{facts}</header>"


def _alerts(data: ReportData) -> str:
    parts = []
    if data.quarantined:
        count = len(data.quarantined)
        what = "1 tile is" if count == 1 else f"{count:,} tiles are"
        parts.append(
            f'<div class="alert bad"><strong>{what} missing from this map.</strong>'
            f"{listed(data.quarantined)}</div>"
        )
    if data.warnings:
        parts.append(f'<div class="alert">{listed(data.warnings)}</div>')
    return "".join(parts)


def _quicklook(data: ReportData) -> str:
    if not data.quicklook:
        return ""
    picture = base64.b64encode(data.quicklook).decode()
    width, height = struct.unpack(">II", data.quicklook[16:24])  # of the PNG's header
    shown = max(round(TALLEST * width / height), 1)
    crisp = ' class="crisp"' if 2 * width < min(shown, WIDEST) else ""
    return (
        f'<figure style="max-width:{max(shown, 200)}px">'
        '<div class="sides"><span>Scene</span><span>Class map</span></div>'
        f'<img{crisp} style="max-width:{shown}px" alt="Scene and class map" '
        f'src="data:image/png;base64,{picture}">'
        f"</figure>{_legend(data.classes)}"
    )


def _legend(rows: Sequence[ClassRow]) -> str:
    items = "".join(
        f'<li><i style="background:{row.hex}"></i>{escape(row.name)}</li>' for row in rows
    )
    return f'<ul class="legend">{items}</ul>' if items else ""


def _classes(data: ReportData) -> str:
    if not data.classes:
        return ""
    known = all(row.area_km2 is not None for row in data.classes)
    lines = [_class_line(row, known) for row in data.classes]
    area = '<th class="number">Area, km²</th>' if known else ""
    total = ""
    if known:
        whole = sum(row.area_km2 or 0 for row in data.classes)
        pixels = sum(row.pixels for row in data.classes)
        total = (
            '<tr class="total"><td></td><td>observed</td><td></td>'
            f'<td class="number"></td><td class="number">{_km2(whole)}</td>'
            f'<td class="number">{pixels:,}</td></tr>'
        )
    notes = [data.area_note] if data.area_note else []
    if data.not_observed > 0:
        notes.append(f"{percent(data.not_observed)} of the scene was not observed.")
    return (
        f"<section><h2>{'Area' if known else 'Pixels'} by class</h2>"
        '<table class="classes"><thead><tr><th></th><th>Class</th><th class="wide"></th>'
        f'<th class="number">Share</th>{area}<th class="number">Pixels</th></tr></thead>'
        f"<tbody>{''.join(lines)}{total}</tbody></table>{small_print(' '.join(notes))}</section>"
    )


def _class_line(row: ClassRow, known: bool) -> str:
    area = f'<td class="number">{_km2(row.area_km2 or 0)}</td>' if known else ""
    bar = f'<b style="width:{100 * row.share:.2f}%;background:{row.hex}"></b>' if row.pixels else ""
    return (
        f'<tr><td><i style="background:{row.hex}"></i></td><td>{escape(row.name)}</td>'
        f'<td class="wide">{bar}</td>'
        f'<td class="number">{percent(row.share)}</td>{area}'
        f'<td class="number">{row.pixels:,}</td></tr>'
    )


def _km2(area: float) -> str:
    """Three or more significant digits, without an exponent.

    >>> _km2(123456.7), _km2(12.345), _km2(0.00123), _km2(0)
    ('123,456.7', '12.3', '0.00123', '0')
    """
    return f"{area:,.1f}" if area >= 10 else format(Decimal(f"{area:.3g}"), "f")


def _confidence(counts: Sequence[int]) -> str:
    total = sum(counts)
    if not total:
        return ""
    low = sum(counts[:50]) / total
    mean = sum(index * count for index, count in enumerate(counts)) / total
    return (
        f"<section><h2>Confidence</h2>{histogram(counts)}"
        + small_print(
            f"Probability of the class chosen, percent of pixels per 5 %. Median "
            f"{percentile(counts, 0.5)} %, mean {mean:.0f} %; {percent(low)} of the pixels are "
            "below 50 %."
        )
        + "</section>"
    )


def _uncertainty(measure: str, counts: Sequence[int]) -> str:
    if not sum(counts):
        return ""
    half = percentile(counts, 0.5)
    text = {
        "entropy": "Entropy of the classes, percent of the largest there is, percent of pixels per "
        f"5 %: 0 % is certain, 100 % says nothing. Median {half} %; {_beyond(counts, 50, 101)} "
        "of the pixels are at 50 % or above.",
        "margin": "Probability of the class chosen less that of the next, percent of pixels per "
        f"5 %: near 0 % it might as well be the other. Median {half} %; {_beyond(counts, 0, 10)} "
        "of the pixels are below 10 %.",
    }
    chart = histogram(counts, name=measure)
    note = small_print(text.get(measure, ""))
    return f"<section><h2>{escape(measure.capitalize())}</h2>{chart}{note}</section>"


def _beyond(counts: Sequence[int], low: int, high: int) -> str:
    return percent(sum(counts[low:high]) / sum(counts))


def _seam(seam: Seam | None) -> str:
    if seam is None:
        return ""
    if not seam.pixels:
        alone = small_print("One tile covers the scene: it has no seams.")
        return f"<section><h2>Seams</h2>{alone}</section>"
    text = (
        f"Where two tiles meet, both predict: {seam.differ:,} of {seam.pixels:,} pixels compared "
        "would get another label from the other tile. The largest difference of a probability is "
        f"{seam.largest:.4f}. The map blends both."
    )
    return (
        f'<section><h2>Seams</h2><p class="figure">{percent(seam.differ / seam.pixels)}</p>'
        f'<p class="unit">of labels disagree between tiles</p>{small_print(text)}</section>'
    )


def _domain(report: Mapping[str, Any]) -> str:
    """Of each band the training's box above the scene's."""
    bands = report["bands"]
    if not bands:
        return ""
    rows = []
    for band in bands:
        for who, accent in (("training", False), ("scene", True)):
            one, _, q1, middle, q3, _, last = band[who]
            hint = f"{band['name']}, {who}: median {middle:.4g}, 1-99 % {one:.4g} to {last:.4g}"
            name = "" if accent else f"{band['name']}"
            rows.append(BoxRow(name, (one, q1, middle, q3, last), accent, hint))
    far = max(bands, key=lambda band: band["outside"])
    unit = "reflectance" if report["units"] == "reflectance" else "stored numbers"
    note = small_print(
        f"In {unit}: line 1 to 99 %, box 25 to 75 %, mark 50 % of the pixels; gray what "
        f"{report['model']} was trained on, in colour this scene. Farthest out is {far['name']}: "
        f"{percent(far['outside'])} of its pixels lie beyond the training's line."
    )
    chart = boxes(rows, "Bands of the training data and of the scene")
    return f"<section><h2>Scene and training data</h2>{chart}{note}</section>"


def _speed(data: ReportData) -> str:
    speed = data.throughput
    if speed is None and not data.stages:
        return ""
    parts = ['<section><h2>Time</h2><div class="pair">']
    if speed is not None:
        again = f", {speed.resumed:,} were done before" if speed.resumed else ""
        parts.append(
            f'<div><p class="figure">{speed.mpx_per_s:,.2f}</p>'
            '<p class="unit">million pixels per second</p>'
            + small_print(
                f"{speed.pixels / 1e6:,.1f} million pixels in {duration(speed.seconds)}, "
                f"{many(speed.tiles, 'tile')} on {many(speed.workers, 'worker')}{again}."
            )
            + "</div>"
        )
    if data.stages:
        parts.append(f"<div>{bars(data.stages, 's')}</div>")
    return "".join(parts) + "</div></section>"


def _details(data: ReportData) -> str:
    parts = [
        fact_table("Model", data.model),
        fact_table("Settings", data.settings),
        fact_table("Versions", data.versions),
    ]
    if data.inputs:
        parts.append(f'<section class="full"><h3>Inputs</h3>{listed(data.inputs)}</section>')
    if data.products:
        lines = "".join(
            f'<tr><td>{escape(name)}</td><td class="number">{size / 1e6:,.2f} MB</td>'
            f"<td><code>{escape(digest)}</code></td></tr>"
            for name, size, digest in data.products
        )
        parts.append(
            f'<section class="full"><h3>Products</h3><table class="products">{lines}</table>'
            "</section>"
        )
    body = "".join(parts)
    return f'<h2>What was run</h2><div class="details">{body}</div>' if body else ""
