"""The ledger in lines for people, and as records for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import date, datetime
from typing import Any, Literal

from tilemap.nightly.facts import CHANGE_ID, Product, Quarantine
from tilemap.nightly.ledger import AttemptRow, Ledger, PassRow, SceneRow

What = Literal["scenes", "passes", "attempts", "products", "quarantine"]


def listing(ledger: Ledger, what: What, area: str | None, last: int) -> list[str]:
    """One line for each row, columns aligned."""
    if what == "scenes":
        fates = _fates(ledger)
        scenes = ledger.scenes(area)
        return aligned([_scene(row, fates.get((row.found.area, row.found.id))) for row in scenes])
    if what == "passes":
        return aligned([_pass(row) for row in ledger.passes(last)])
    if what == "attempts":
        return aligned([_attempt(row) for row in ledger.attempts(area, last=last)])
    if what == "products":
        return aligned([_product(row) for row in ledger.products(None, area)])
    return aligned([_quarantine(row) for row in _of(area, ledger.quarantines())])


def records(ledger: Ledger, what: What, area: str | None, last: int) -> list[dict[str, Any]]:
    """The same rows with all their fields but STAC items, of types that JSON has."""
    rows = _rows(ledger, what, area, last)
    return [_plain({k: v for k, v in asdict(row).items() if k != "item"}) for row in rows]


def area(ledger: Ledger, name: str) -> list[str]:
    """An area: its scenes, its series, what is set aside."""
    lines = listing(ledger, "scenes", name, 0)
    series = ledger.product(name, "change", CHANGE_ID)
    if series is not None:
        lines += aligned([_product(series)])
    set_aside = listing(ledger, "quarantine", name, 0)
    return [*lines, *(f"in quarantine: {line}" for line in set_aside)]


def about(ledger: Ledger, name: str, key: str) -> list[str]:
    """Everything about a scene, or about an area's series."""
    lines = [
        line for row in ledger.scenes(name) if row.found.id == key for line in _about_scene(row)
    ]
    for product in ledger.products(None, name):
        if product.id == key:
            lines += _about_product(product)
    for one in _of(name, ledger.quarantines()):
        if one.id == key:
            text = f"since {_when(one.since)}, {one.attempts} attempts, code {one.exit_code}"
            lines += _field("quarantine", f"{text}: {_one_line(one.reason)}")
    attempts = ledger.attempts(name, key=key)
    rows = aligned([_attempt(row)[1:] for row in attempts])
    for line, row in zip(rows, attempts, strict=True):
        steps = ", ".join(f"{step} {seconds:.1f}" for step, seconds in row.steps.items())
        lines += _field("attempt", line)
        lines += _field("", f"seconds: {steps}") if steps else []
    return lines


def _rows(ledger: Ledger, what: What, area: str | None, last: int) -> Sequence[Any]:
    match what:
        case "scenes":
            return ledger.scenes(area)
        case "passes":
            return ledger.passes(last)
        case "attempts":
            return ledger.attempts(area, last=last)
        case "products":
            return ledger.products(None, area)
        case "quarantine":
            return _of(area, ledger.quarantines())


# --- columns -----------------------------------------------------------------------------------


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest value, the last one as it is.

    >>> aligned([("a", "bc", "d"), ("aaa", "b", "")])
    ['a    bc  d', 'aaa  b']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _scene(row: SceneRow, fate: str | None) -> tuple[str, ...]:
    found = row.found
    name, day = f"{found.area}/{found.id}", _day(found.day)
    return name, day, row.state, fate or "", _one_line(found.reason)


def _pass(row: PassRow) -> tuple[str, ...]:
    ended = "" if row.ended is None else _when(row.ended)
    code = "" if row.exit_code is None else str(row.exit_code)
    return row.id, _when(row.began), ended, row.status, code, str(row.holder.get("host", ""))


def _attempt(row: AttemptRow) -> tuple[str, ...]:
    return (
        f"{row.area}/{row.id}",
        row.kind,
        _when(row.began),
        row.status,
        f"{row.seconds:.1f} s",
        _one_line(row.error or ""),
    )


def _product(row: Product) -> tuple[str, ...]:
    listed = "listed" if row.listed else f"until {_when(row.unlisted)}"
    return row.folder, row.kind, _day(row.day), row.status, _when(row.published), listed


def _quarantine(row: Quarantine) -> tuple[str, ...]:
    return (
        f"{row.area}/{row.id}",
        row.kind,
        _when(row.since),
        str(row.exit_code),
        _one_line(row.reason),
    )


def _fates(ledger: Ledger) -> dict[tuple[str, str], str]:
    """What became of each scene."""
    mapped = {(p.area, p.id): p.status for p in ledger.products() if p.kind == "map"}
    set_aside = {(q.area, q.id): "quarantine" for q in ledger.quarantines() if q.kind == "map"}
    return {**mapped, **set_aside}


# --- fields of one subject ---------------------------------------------------------------------


def _about_scene(row: SceneRow) -> list[str]:
    found = row.found
    state = row.state if not found.reason or row.state == "gone" else f"{row.state}: {found.reason}"
    return [
        *_field("scene", f"{found.area}/{found.id}"),
        *_field("day", _day(found.day)),
        *_field("state", state),
        *_field("seen", f"first {_when(row.first_seen)}, last {_when(row.last_seen)}"),
        *(line for source in found.sources for line in _field("source", source)),
    ]


def _about_product(product: Product) -> list[str]:
    listed = "listed" if product.listed else f"listed until {_when(product.unlisted)}"
    digest = product.digest[:12] or "forgotten"
    km2 = "" if product.km2 is None else f", {product.km2:,.1f} km2"
    made = f"{product.pixels / 1e6:,.2f} Mpx{km2}, {product.seconds:.1f} s"
    return [
        *_field("product", f"{product.folder}, {product.kind}, {product.status}, {listed}"),
        *_field("", f"published {_when(product.published)}, {made}, work {digest}"),
    ]


def _field(name: str, text: str) -> list[str]:
    return [f"{name:<12}{text}"]


def _when(moment: datetime | None) -> str:
    return "?" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


def _day(day: date | None) -> str:
    return "no day" if day is None else day.isoformat()


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _of(name: str | None, rows: Iterable[Quarantine]) -> list[Quarantine]:
    return [row for row in rows if name is None or row.area == name]


def _plain(value: Any) -> Any:
    """Dates as text, tuples as lists, all the way down."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value.isoformat() if isinstance(value, (date, datetime)) else value
