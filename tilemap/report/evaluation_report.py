"""The report of an evaluation: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilemap.geometry import Window
from tilemap.report.accuracy_charts import heat_map, reliability
from tilemap.report.charts import percent
from tilemap.report.html import TALLEST, WIDEST
from tilemap.report.page import page
from tilemap.report.quicklook import BACKGROUND, png_bytes, preview
from tilemap.stores.sidecars import write_text

AGREE, DISAGREE = (201, 221, 211), (178, 38, 30)
_MOST_REGIONS = 200

ReadErrors = Callable[[Window], tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]]


def error_map(read: ReadErrors, shape: tuple[int, int], seconds: float = 5.0) -> bytes:
    """A small picture of where map and reference disagree, PNG.

    Args:
        read: 1 where they disagree, else 0, (1, y, x), and compared (y, x) of a window.
        shape: rows and columns of the map.
        seconds: when to stop reading; a picture of less is coarser.
    """
    share, compared = preview(read, shape, (0,), seconds=seconds)
    low, high = (np.array(color, dtype=np.float64)[:, None, None] for color in (AGREE, DISAGREE))
    shaded = np.rint(low + (high - low) * share)
    return png_bytes(np.where(compared, shaded, BACKGROUND).astype(np.uint8))


def write_evaluation_report(path: Path, record: Mapping[str, Any], picture: bytes) -> None:
    """Render and write the page, whole or not at all.

    Args:
        path: of the page.
        record: contents of ``evaluation.json``.
        picture: of ``error_map``.

    Raises:
        StoreError: if it cannot be written.
    """
    write_text(path, render_evaluation(record, picture))


def render_evaluation(record: Mapping[str, Any], picture: bytes) -> str:
    """The page: self-contained, without scripts; see ``write_evaluation_report``."""
    figures, inputs = record["figures"], record["inputs"]
    title = f"{inputs['map']['name']} against {inputs['reference']['name']}"
    body = "".join(
        [
            f"<header><h1>{escape(title)}</h1>"
            f'<p class="subtitle">accuracy, {escape(record["finished"])}</p></header>',
            *(f'<div class="alert">{escape(t)}</div>' for t in record["warnings"]),
            f'<div class="alert">{escape(record["notes"][0])}</div>',
            _headline(figures),
            _classes(figures["classes"]),
            _confusion(figures),
            '<div class="pair">',
            _boundary(figures["boundary"], figures["classes"]),
            _calibration(figures["calibration"]),
            "</div>",
            _errors(picture),
            _regions(figures["regions"]),
            _details(record),
        ]
    )
    return page(title, body)


def _headline(figures: Mapping[str, Any]) -> str:
    told = (
        (percent(figures["overall_accuracy"]), "overall accuracy",
         f"Share of the {figures['pixels']:,} pixels compared on which map and reference agree."),
        (percent(figures["miou"]), "mean IoU",
         "Of the pixels that map or reference call a class, the share that both do; mean over the "
         "classes, each counting the same."),
        (percent(figures["macro_f1"]), "mean F1",
         "Harmonic mean of precision and recall; mean over the classes."),
        (f"{figures['kappa']:.3f}", "Cohen's kappa",
         "Agreement beyond what the sizes of the classes make by chance; 1 is all there can be."),
    )  # fmt: skip
    cells = "".join(
        f'<section style="margin-top:28px"><p class="figure">{escape(value)}</p>'
        f'<p class="unit">{name}</p>'
        f"{_note(text)}</section>"
        for value, name, text in told
    )
    return f'<div class="pair">{cells}</div>'


def _classes(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = (
        ("iou", "IoU"), ("precision", "Precision"), ("recall", "Recall"), ("f1", "F1"),
        ("boundary_f1", "Boundary F1"),
    )  # fmt: skip
    head = "".join(f'<th class="number">{name}</th>' for _, name in columns)
    lines = "".join(
        f'<tr><td><i style="background:{escape(row["color"])}"></i></td>'
        f"<td>{escape(row['name'])}</td>"
        + "".join(f'<td class="number">{_share(row[key])}</td>' for key, _ in columns)
        + f'<td class="number">{row["reference_pixels"]:,}</td>'
        f'<td class="number">{row["map_pixels"]:,}</td></tr>'
        for row in rows
    )
    return (
        '<section><h2>By class</h2><table class="classes"><thead><tr><th></th><th>Class</th>'
        f'{head}<th class="number">Reference, pixels</th><th class="number">Map, pixels</th></tr>'
        f"</thead><tbody>{lines}</tbody></table>"
        + _note(
            "Precision (user's accuracy): of the pixels mapped as the class, the share that the "
            "reference calls so. Recall (producer's accuracy): of the reference's pixels of the "
            "class, the share that is mapped so."
        )
        + "</section>"
    )


def _confusion(figures: Mapping[str, Any]) -> str:
    names = [c["name"] for c in figures["classes"]]
    note = "Pixels; each row is shaded by its own shares, so a pure diagonal is a perfect map."
    if len(names) > 16:
        return f"<section><h2>Confusion</h2>{_note('See confusion.csv.')}</section>"
    return (
        f"<section><h2>Confusion</h2>{heat_map(names, figures['confusion'])}{_note(note)}</section>"
    )


def _boundary(found: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    if found["mean_f1"] is None:
        return (
            "<section><h2>Boundaries</h2>"
            + _note("Neither map nor reference have a boundary where both were observed.")
            + "</section>"
        )
    unit = "pixels" if found["pixel"] == [1.0, 1.0] else "m"
    lines = "".join(
        f"<tr><td>{escape(row['name'])}</td>"
        f'<td class="number">{_share(row["boundary_precision"])}</td>'
        f'<td class="number">{_share(row["boundary_recall"])}</td></tr>'
        for row in rows
    )
    return (
        f'<section><h2>Boundaries</h2><p class="figure">{percent(found["mean_f1"])}</p>'
        '<p class="unit">mean Boundary F1</p>'
        + _note(
            f"Whether borders between classes lie where the reference has them, to within "
            f"{found['tolerance']:g} {unit}; mean over the classes that have a border."
        )
        + '<table style="margin-top:10px"><thead><tr><th>Class</th>'
        '<th class="number">Precision</th>'
        f'<th class="number">Recall</th></tr></thead><tbody>{lines}</tbody></table></section>'
    )


def _calibration(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    worst = max(found["bins"], key=lambda b: abs(b["accuracy"] - b["confidence"]))
    return (
        f"<section><h2>Calibration</h2>{reliability(found['bins'])}"
        + _note(
            f"Expected calibration error {percent(found['ece'])}; the largest of a bin, "
            f"{percent(found['mce'])} (pixels in it: {worst['pixels']:,}). "
            "On the dashed line a confidence of 80 % is right in 80 of 100 pixels; below it the "
            "map is too sure of itself. Larger points have more pixels."
        )
        + "</section>"
    )


def _errors(picture: bytes) -> str:
    if not picture:
        return ""
    width, height = struct.unpack(">II", picture[16:24])  # of the PNG's header
    shown = max(min(round(TALLEST * width / height), WIDEST), 1)
    crisp = ' class="crisp"' if 2 * width < shown else ""
    legend = "".join(
        f'<li><i style="background:rgb{color}"></i>{name}</li>'
        for color, name in (
            (AGREE, "agree"), (DISAGREE, "disagree"), ((BACKGROUND,) * 3, "not compared"),
        )
    )  # fmt: skip
    return (
        f'<section><h2>Where they disagree</h2><figure style="max-width:{max(shown, 200)}px">'
        f'<img{crisp} style="max-width:{shown}px" alt="Where map and reference disagree" '
        f'src="data:image/png;base64,{base64.b64encode(picture).decode()}"></figure>'
        f'<ul class="legend">{legend}</ul></section>'
    )


def _regions(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    columns = (
        ("overall_accuracy", "Overall accuracy"), ("miou", "Mean IoU"), ("macro_f1", "Mean F1"),
    )  # fmt: skip
    head = "".join(f'<th class="number">{name}</th>' for _, name in columns)
    lines = "".join(
        f"<tr><td>{escape(row['name'])}</td>"
        + "".join(f'<td class="number">{_share(row[key])}</td>' for key, _ in columns)
        + f'<td class="number">{row["pixels"]:,}</td></tr>'
        for row in rows[:_MOST_REGIONS]
    )
    more = len(rows) - _MOST_REGIONS
    return (
        f"<section><h2>By region</h2><table><thead><tr><th>Region</th>{head}"
        f'<th class="number">Pixels</th></tr></thead><tbody>{lines}</tbody></table>'
        + (_note(f"{more:,} more, see regions.csv.") if more > 0 else "")
        + "</section>"
    )


def _details(record: Mapping[str, Any]) -> str:
    notes = "".join(f"<li>{escape(note)}</li>" for note in record["notes"][1:])
    notes = f'<section class="full"><h3>Notes</h3><ul>{notes}</ul></section>' if notes else ""
    files = "".join(
        f"<tr><td>{escape(what)}: {escape(item['name'])}</td>"
        f'<td class="number">{item["bytes"] / 1e6:,.3f} MB</td>'
        f"<td><code>{escape(item['sha256'])} ({escape(item['of'])})</code></td></tr>"
        for what, item in record["inputs"].items()
    )
    settings = {k: v for k, v in record["settings"].items() if v is not None}
    return (
        '<h2>What was compared</h2><div class="details">'
        f'{notes}<section class="full"><h3>Inputs</h3><table class="products">{files}</table>'
        f"</section>{_facts('Settings', settings)}{_facts('Versions', record['versions'])}</div>"
    )


def _facts(title: str, facts: Mapping[str, object]) -> str:
    lines = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(_plain(value))}</td></tr>"
        for name, value in facts.items()
    )
    return f"<section><h3>{escape(title)}</h3><table>{lines}</table></section>"


def _plain(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value) or "none"
    return str(value)


def _share(value: float | None) -> str:
    return "-" if value is None else percent(value)


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'
