"""The summary of a pass as one HTML page that needs nothing else."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

from tilemap.nightly.facts import CHANGE_ID
from tilemap.nightly.telling.summary_charts import columns_chart, speed_columns, work_columns
from tilemap.nightly.telling.words import money
from tilemap.report.charts import bars
from tilemap.report.drawing import amount, short
from tilemap.report.page import duration, fact_table, listed, many, page, small_print

STYLE = Path(__file__).with_name("summary.css")
HISTORY = 30
"""Passes in a chart."""
_ROWS_MOST, _ROWS_OPEN, _IDS_MOST = 1000, 40, 6
_WORDS = {
    "ok": "all is well",
    "partial": "done in part",
    "failed": "ended early",
    "over": "time was up",
}
Record = Mapping[str, Any]
Links = Mapping[str, Mapping[str, str]]
"""Of a product's folder: what lies in it, by its word, as addresses relative to the page."""


@dataclass(frozen=True, slots=True)
class _Cell:
    """One cell of a table: markup, its class, and what it is called where there is no head."""

    markup: str
    kind: str = ""
    called: str = ""


def render_summary(
    record: Record, history: Sequence[Record] = (), links: Links | None = None
) -> str:
    """The page.

    Args:
        record: of the pass, see ``outcome_record``.
        history: records of earlier passes, the oldest first.
        links: what can be opened, by folder of a product.
    """
    links = links or {}
    parts = (
        _header(record),
        _alerts(record),
        _cards(record),
        _new(record),
        _failed(record),
        _quarantined(record),
        _done(record, links),
        _times(record),
        _history([*history, record]),
        _left(record),
        _details(record),
    )
    title = f"{record['headline']} - tilemap {record['pass']}"
    return page(title, "".join(parts), style=STYLE.read_text(), kind="pass")


def _header(record: Record) -> str:
    status = str(record["status"])
    word = "dry run" if record["dry"] else _WORDS.get(status, status)
    began = str(record["started"])[:16].replace("T", " ")
    told = (
        f"Pass {record['pass']} on {record['host']}, began {began} UTC, "
        f"took {duration(record['seconds'])}"
    )
    return (
        f'<header><p class="status {escape(status)}">{escape(word)}, exit code '
        f"{record['exit_code']}</p><h1>{escape(record['headline'])}</h1>"
        f'<p class="subtitle">{escape(told)}</p></header>'
    )


def _alerts(record: Record) -> str:
    parts = []
    if record["error"]:
        parts.append(
            '<div class="alert bad"><strong>The pass ended early.</strong> '
            f"{escape(record['error'])}</div>"
        )
    if record["problems"]:
        lines = [f"{p['area']}, {p['source']}: {p['text']}" for p in record["problems"]]
        parts.append(
            '<div class="alert"><strong>Not everything could be looked through.</strong>'
            f"{listed(lines, 20, 'see summary.json')}</div>"
        )
    return "".join(parts)


def _cards(record: Record) -> str:
    counts, currency = record["counts"], record["currency"]
    maps = [w for w in record["work"] if w["kind"] == "map" and w["status"] in ("ok", "partial")]
    changes = [w for w in record["work"] if w["kind"] == "change" and w["folder"] is not None]
    before = f"{counts['skipped']:,} done before"
    cards = [
        (f"{len(maps):,}", "scene mapped" if len(maps) == 1 else "scenes mapped",
         f"{many(len(changes), 'change')} compared; {before}" if changes else before),
        (f"{record['mpx_per_s']:,.2f} <small>Mpx/s</small>", "while mapping",
         f"{record['pixels'] / 1e6:,.1f} million pixels"),
        (f"{escape(amount(record['km2']))} <small>km²</small>", "mapped",
         "true area of the scenes"),
    ]  # fmt: skip
    if record["cost"] is None:
        cards.append(("-", "no price given", "price_per_hour in [tell] gives the cost"))
    else:
        figure, _, _ = money(record["cost"], currency).partition(" ")
        each = record["cost_per_1000_km2"]
        told = "no area to share it" if each is None else f"{money(each, currency)} per 1,000 km²"
        rate = f"{money(record['price_per_hour'], currency)} an hour"
        cost = f"{figure} <small>{escape(currency)}</small>"
        cards.append((cost, "cost of the pass", f"{told}; {rate}"))
    body = "".join(
        f'<div><p class="figure">{figure}</p><p class="unit">{escape(what)}</p>'
        f"{small_print(text)}</div>"
        for figure, what, text in cards
    )
    return f'<div class="cards">{body}</div>'


def _new(record: Record) -> str:
    """Work by area and reason, its names behind it."""

    def key(work: Record) -> tuple[str, str, str]:
        return work["area"], "series" if work["kind"] == "change" else "scenes", work["why"]

    rows = []
    for (area, what, why), group in groupby(sorted(record["work"], key=key), key):
        works = list(group)
        days = sorted(w["day"] for w in works if w["day"] not in (None, w["id"]))
        told = _names([w["id"] for w in works])
        if what == "series":
            told, days = f"its dates, up to {days[-1]}" if days else "its dates", []
        count = "" if what == "series" else f"{len(works):,}"
        rows.append([
            _Cell(escape(area), "name"), _Cell(escape(why)), _Cell(count, "number", "scenes"),
            _Cell(escape(told), "reason"), _Cell(_span(days), "short"),
        ])  # fmt: skip
    if not rows:
        word = "would be done next" if record["dry"] else "was to be done"
        told = f"Nothing {word}." if not record["waiting"] else "See what waits, below."
        return f"<section><h2>What was new</h2>{small_print(told)}</section>"
    head = ("Area", "Why", "Scenes", "Which", "Days")
    return f"<section><h2>What was new</h2>{_table(head, rows)}</section>"


def _names(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _IDS_MOST:,} more" if len(ids) > _IDS_MOST else ""
    return ", ".join(short(one, 40) for one in ids[:_IDS_MOST]) + more


def _span(days: Sequence[str]) -> str:
    if not days:
        return ""
    return escape(days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}")


def _failed(record: Record) -> str:
    bad = [w for w in record["work"] if w["error"] is not None and w["status"] != "interrupted"]
    rows = [
        [_name(w), _result(w["status"]), _Cell(escape(w["error"]), "reason"),
         _Cell(str(w["exit_code"]), "number", "exit code")]
        for w in bad
    ]  # fmt: skip
    return _section("What failed, and why", ("Scene", "Result", "Why", "Code"), rows)


def _quarantined(record: Record) -> str:
    rows = [
        [_name(q), _Cell(escape(str(q["since"])[:10]), "short", "since"),
         _Cell(f"{q['attempts']}", "number", "tries"), _Cell(escape(q["reason"]), "reason"),
         _Cell(f"<code>{escape(_release(q))}</code>", "whole")]
        for q in record["quarantined"]
    ]  # fmt: skip
    head = ("Scene", "Since", "Tries", "Why", "To try it again")
    root = shlex.quote(record["root"])
    note = (
        "Not tried again until its files change or the command releases it, given the root: "
        f"--root {root}"
    )
    return _section("Set aside", head, rows, note)


def _release(one: Record) -> str:
    key = CHANGE_ID if one["kind"] == "change" else one["id"]
    name = f"{one['area']}/{key}"
    return f"tilemap ledger retry {shlex.quote(name)}"


def _done(record: Record, links: Links) -> str:
    rows = []
    for work in record["work"]:
        if work["status"] not in ("ok", "partial", "interrupted"):
            continue
        found = links.get(work["folder"] or "", {})
        speed = f"{work['mpx_per_s']:.2f}" if work["pixels"] else ""
        area = amount(work["km2"]) if work["km2"] is not None else ""
        rows.append([
            _name(work, found.get("report")), _Cell(escape(work["day"] or ""), "short"),
            _Cell(escape(work["why"])), _result(work["status"]),
            _Cell(escape(duration(work["seconds"])), "number"),
            _Cell(speed, "number", "Mpx/s"), _Cell(escape(area), "number", "km²"),
            _Cell(_files(found)),
        ])  # fmt: skip
    head = ("Scene", "Day", "Why", "Result", "Time", "Mpx/s", "km²", "Files")
    return _section("What was done", head, rows)


def _files(found: Mapping[str, str]) -> str:
    return " ".join(
        f'<a href="{escape(address)}">{escape(word)}</a>'
        for word, address in found.items()
        if word != "report"
    )


def _times(record: Record) -> str:
    steps = record["seconds_by_step"]
    if not steps:
        return ""
    chart = bars({short(name, 16): seconds for name, seconds in steps.items()}, "s")
    told = small_print("Of all workers together, of all work of this pass.")
    return f'<section class="steps"><h2>Seconds by step</h2>{chart}{told}</section>'


def _history(records: Sequence[Record]) -> str:
    """The passes before this one and this one; nothing where it is the first."""
    shown = [record for record in records if not record.get("dry")][-HISTORY:]
    if len(shown) < 2:
        return ""
    work = columns_chart(
        work_columns(shown), "Work done and failed by pass", (("good", "done"), ("bad", "failed"))
    )
    speed = columns_chart(speed_columns(shown), "Mpx/s by pass", (("speed", "Mpx/s"),))
    charts = "".join(f"<div>{chart}</div>" for chart in (work, speed) if chart)
    if not charts:
        return ""
    title = f"The last {len(shown)} passes"
    return f'<section><h2>{title}</h2><div class="pair">{charts}</div></section>'


def _left(record: Record) -> str:
    """What is left for the next pass, and what was taken away."""
    copying = [
        [_name(f), _Cell(escape(f["day"] or ""), "short"), _Cell(escape(f["reason"]), "reason")]
        for f in record["copying"]
    ]
    waiting = [
        [_name(w), _Cell(escape(w["day"] or ""), "short"), _Cell(escape(w["why"]), "reason")]
        for w in record["waiting"]
    ]
    title = "What would be done" if record["dry"] else "What waits for the next pass"
    parts = [
        _section(title, ("Scene", "Day", "Why"), waiting),
        _section("Still being copied", ("Scene", "Day", "Why it is left"), copying),
    ]
    for name, lines in (("Removed by retention", record["removed"]), ("Notes", record["notes"])):
        if lines:
            body = listed(lines, 50, "see summary.json")
            parts.append(f'<section class="full"><h2>{name}</h2>{body}</section>')
    return "".join(parts)


def _details(record: Record) -> str:
    facts = {
        "configuration": record["config"],
        "root": record["root"],
        "host": record["host"],
        "began": record["started"],
        "ended": record["ended"],
        "log": f"logs/{record['pass']}.jsonl",
    }
    body = fact_table("Pass", facts) + fact_table("Versions", record["versions"])
    return f'<h2>What was run</h2><div class="details">{body}</div>'


def _section(
    title: str, head: Sequence[str], rows: Sequence[Sequence[_Cell]], note: str = ""
) -> str:
    """A heading with its table, which is folded if it is long and not the work itself."""
    if not rows:
        return ""
    shown, more = rows[:_ROWS_MOST], len(rows) - _ROWS_MOST
    body = _table(head, shown)
    if more > 0:
        body += small_print(f"and {more:,} more, see summary.json")
    if len(rows) > _ROWS_OPEN and "Result" not in head:
        body = f"<details><summary>All {len(rows):,}</summary>{body}</details>"
    count = f" <small>{len(rows):,}</small>"
    return f"<section><h2>{escape(title)}{count}</h2>{body}{small_print(note)}</section>"


def _table(head: Sequence[str], rows: Sequence[Sequence[_Cell]]) -> str:
    """Columns in which nothing stands are left out."""
    columns = list(zip(head, zip(*rows, strict=True), strict=True))
    kept = [(name, cells) for name, cells in columns if any(cell.markup for cell in cells)]
    names = "".join(f"<th{_kind(cells[0].kind)}>{escape(name)}</th>" for name, cells in kept)
    turned = zip(*(cells for _, cells in kept), strict=True)
    lines = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in turned)
    return f'<table class="stack"><thead><tr>{names}</tr></thead><tbody>{lines}</tbody></table>'


def _cell(cell: _Cell) -> str:
    called = f' data-is="{escape(cell.called)}"' if cell.called and cell.markup else ""
    return f"<td{_kind(cell.kind)}{called}>{cell.markup}</td>"


def _kind(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def _name(one: Record, address: str | None = None) -> _Cell:
    """``area/scene``, with a link to its report where there is one."""
    key = "change" if one.get("kind") == "change" else one["id"]
    name = escape(key)
    if address is not None:
        name = f'<a href="{escape(address)}">{name}</a>'
    return _Cell(f"<span>{escape(one['area'])}/</span>{name}", "name")


def _result(status: str) -> _Cell:
    return _Cell(f'<em class="{escape(status)}"></em>{escape(status)}', "short")
