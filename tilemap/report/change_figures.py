"""Pictures of a change on a page: maps with words laid over them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from tilemap.report.change_pictures import Panel, columns, multiple, note, panels_of, size_of
from tilemap.report.charts import ticks
from tilemap.report.html import TALLEST, WIDEST
from tilemap.report.page import small_print
from tilemap.report.quicklook import GAP


def ends_figure(
    png: bytes, days: Sequence[str], names: Sequence[str], colors: Sequence[str]
) -> str:
    """The picture of ``change_picture`` with dates, scale and legend.

    Args:
        png: of ``change_picture``; empty leaves the part out.
        days: ISO, in order.
        names: of the classes.
        colors: of the classes, ``#rrggbb``.
    """
    if not png:
        return ""
    height, width = size_of(png)
    large, small = panels_of(height, width)
    first, last = (days[0], days[-1]) if days else ("first", "last")
    below = Panel(small.left, height - small.height, small.width, small.height)
    chips = [
        _chip(f"Change, {first} to {last}", large, (height, width)),
        _chip(first, small, (height, width)),
        _chip(last, below, (height, width)),
    ]
    metres = note(png, "metres")
    bar = _scale_bar(float(metres), large, width) if metres else ""
    legend = "".join(
        f'<li><i style="background:{escape(color)}"></i>{escape(name)}</li>'
        for name, color in zip(names, colors, strict=True)
    )
    return (
        f"<section>{_stage(png, ''.join(chips) + bar, 'What changed, and the dates at its ends')}"
        f'<ul class="legend">{legend}</ul>'
        + small_print(
            "Where the class changed, the large map has the strong colour of the class that it "
            "became; where it stayed, the pale colour of its class. Gray was not observed."
        )
        + "</section>"
    )


def dates_figure(png: bytes, total: int) -> str:
    """The picture of ``multiples`` with the day of each.

    Args:
        png: of ``multiples``; empty leaves the part out.
        total: dates there are; ``multiples`` shows at most 24.
    """
    captions = note(png, "captions").split("\n")
    if not png:
        return ""
    height, width = size_of(png)
    across = columns(len(captions))
    down = -(-len(captions) // across)
    cell = ((height + GAP) // down - GAP, (width + GAP) // across - GAP)
    chips = "".join(
        _chip(caption, multiple(place, across, cell), (height, width))
        for place, caption in enumerate(captions)
    )
    some = f" {len(captions)} of {total} dates are shown." if len(captions) < total else ""
    return (
        "<section><h2>The dates</h2>"
        f"{_stage(png, chips, 'Class maps of the dates', tallest=4 * TALLEST)}"
        + small_print(
            "The class maps that were compared, as labels_DATE.tif holds them; gray was not "
            f"observed.{some}"
        )
        + "</section>"
    )


def _stage(png: bytes, over: str, what: str, tallest: int = TALLEST) -> str:
    """A picture with words laid over it."""
    height, width = size_of(png)
    shown = max(min(round(tallest * width / height), WIDEST), 1)
    crisp = ' class="crisp"' if 2 * width < shown else ""
    return (
        f'<figure class="stage" style="max-width:{max(shown, 200)}px">'
        f'<img{crisp} alt="{escape(what)}" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode()}">{over}</figure>'
    )


def _chip(text: str, panel: Panel, size: tuple[int, int]) -> str:
    height, width = size
    return (
        f'<span style="left:{100 * panel.left / width:.3f}%;top:{100 * panel.top / height:.3f}%">'
        f"{escape(text)}</span>"
    )


def _scale_bar(metres: float, panel: Panel, width: int) -> str:
    """A round length, at most a quarter of the panel."""
    length = (ticks(0, metres / 4, 2) or [0.0])[-1]
    if not length:
        return ""
    long = 100 * (panel.width / width) * (length / metres)
    told = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    return f'<b class="bar" style="width:{long:.3f}%">{told}</b>'
