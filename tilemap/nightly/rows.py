"""Rows of the ledger as value objects, and value objects as JSON."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime
from typing import Any, get_args

from tilemap.errors import StoreError
from tilemap.files import decode_json
from tilemap.nightly.database import REBUILD, DamagedLedgerError
from tilemap.nightly.facts import Found, Kind, Product, Quarantine


@dataclass(frozen=True, slots=True)
class SceneRow:
    """A scene as the ledger knows it.

    Args:
        found: what discovery told when it was there last.
        state: ready or copying, as it was then; gone if it was not found the last time.
        first_seen: by which pass it was found first.
        last_seen: by which it was found last.
    """

    found: Found
    state: str
    first_seen: datetime
    last_seen: datetime


@dataclass(frozen=True, slots=True)
class PassRow:
    """A pass as the ledger knows it.

    Args:
        id: as in ``PassOutcome``.
        token: of the lock under which it ran.
        holder: fields of the ``Holder`` that drove it.
        began: when.
        ended: when; None if it runs, or was killed.
        status: running; interrupted; else as in ``PassOutcome``.
        exit_code: of the command; None if it did not end.
        summary: what it told at its end.
    """

    id: str
    token: int
    holder: Mapping[str, Any]
    began: datetime
    ended: datetime | None
    status: str
    exit_code: int | None
    summary: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One attempt at one piece of work.

    Args:
        number: its own; a later attempt has a larger one, whatever clocks say.
        pass_id: of the pass that made it.
        area: name of the area.
        kind: map or change.
        id: of the scene; ``CHANGE_ID`` for the series.
        digest: of inputs, model and options.
        began: when.
        ended: when; None if it runs, or was killed.
        status: running; else as in ``Done``.
        error: for a person.
        exit_code: of the error; None if it did not end.
        seconds: wall time.
        pixels: newly mapped.
        counts: whether a failure counts; not any more once a person said to try again.
        steps: seconds by step.
    """

    number: int
    pass_id: str
    area: str
    kind: Kind
    id: str
    digest: str
    began: datetime
    ended: datetime | None
    status: str
    error: str | None
    exit_code: int | None
    seconds: float
    pixels: int
    counts: bool
    steps: Mapping[str, float] = field(default_factory=dict)


def to_text(moment: datetime) -> str:
    """A time as it is stored: UTC, ISO 8601 with offset."""
    if moment.tzinfo is None:
        raise ValueError(f"a time must have an offset, got {moment}")
    return moment.astimezone(UTC).isoformat()


def to_json(value: object) -> str:
    """A structured value as it is stored."""
    return json.dumps(value, separators=(",", ":"), default=_plain)


def fingerprint_text(fingerprint: tuple[Mapping[str, Any], ...]) -> str:
    """A fingerprint as it is stored; equal ones give equal text."""
    return json.dumps(fingerprint, sort_keys=True, separators=(",", ":"), default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


def to_moment(text: str | None) -> datetime | None:
    """A stored time.

    Raises:
        ValueError, TypeError: if it is none.
    """
    return None if text is None else _moment(text)


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"a time must have an offset, got {text}")
    return moment


def _day(text: str | None) -> date | None:
    return None if text is None else date.fromisoformat(text)


@contextmanager
def _row_of(table: str) -> Iterator[None]:
    """SQLite checks pages, not what stands in a row: one that cannot be read is damaged."""
    try:
        yield
    except (LookupError, TypeError, ValueError, OverflowError, StoreError) as error:
        raise DamagedLedgerError(
            f"a row of the ledger's table {table} cannot be read: {error!s:.200}; {REBUILD}"
        ) from None


Types = Mapping[str, type | tuple[type, ...]]
_NUMBER = (int, float)
_TEXT, _INTEGER = (str, type(None)), (int, type(None))  # or nothing
_SCENE_TYPES: Types = {
    **dict.fromkeys(("area", "id", "state", "reason"), str),
    **{"sources": list, "fingerprint": list, "newest": (*_NUMBER, type(None))},
}
_PASS_TYPES: Types = {
    **{"id": str, "token": int, "holder": dict, "summary": dict},
    **{"status": str, "exit_code": _INTEGER},
}
_ATTEMPT_TYPES: Types = {
    **dict.fromkeys(("pass_id", "area", "kind", "id", "digest", "status"), str),
    **{"error": _TEXT, "exit_code": _INTEGER, "seconds": _NUMBER, "pixels": int},
}


@_row_of("scene")
def scene_of(row: sqlite3.Row) -> SceneRow:
    """A row of ``scene``."""
    structured = {name: decode_json(row[name]) for name in ("sources", "fingerprint")}
    expect({**dict(row), **structured}, _SCENE_TYPES)
    found = Found(
        area=row["area"],
        id=row["id"],
        day=_day(row["day"]),
        sources=tuple(structured["sources"]),
        fingerprint=tuple(structured["fingerprint"]),
        newest=row["newest"],
        state=row["state"],
        reason=row["reason"],
    )
    return SceneRow(
        found=found,
        state="gone" if row["gone"] else row["state"],
        first_seen=_moment(row["first_seen"]),
        last_seen=_moment(row["last_seen"]),
    )


def scene_values(found: Found) -> dict[str, Any]:
    """Columns of ``scene`` that discovery tells."""
    return {
        "area": found.area,
        "id": found.id,
        "day": None if found.day is None else found.day.isoformat(),
        "sources": to_json(found.sources),
        "fingerprint": fingerprint_text(found.fingerprint),
        "newest": found.newest,
        "state": found.state,
        "reason": found.reason,
    }


@_row_of("pass")
def pass_of(row: sqlite3.Row) -> PassRow:
    """A row of ``pass``."""
    structured = {name: decode_json(row[name]) for name in ("holder", "summary")}
    expect({**dict(row), **structured}, _PASS_TYPES)
    return PassRow(
        id=row["id"],
        token=row["token"],
        holder=structured["holder"],
        began=_moment(row["began"]),
        ended=to_moment(row["ended"]),
        status=row["status"],
        exit_code=row["exit_code"],
        summary=structured["summary"],
    )


@_row_of("attempt")
def attempt_of(row: sqlite3.Row | Mapping[str, Any], steps: Mapping[str, float]) -> AttemptRow:
    """A row of ``attempt`` joined with the id of its pass."""
    expect(row, _ATTEMPT_TYPES)
    expect(steps, dict.fromkeys(steps, float))
    return AttemptRow(
        number=row["seq"],
        pass_id=row["pass_id"],
        area=row["area"],
        kind=row["kind"],
        id=row["id"],
        digest=row["digest"],
        began=_moment(row["began"]),
        ended=to_moment(row["ended"]),
        status=row["status"],
        error=row["error"],
        exit_code=row["exit_code"],
        seconds=row["seconds"],
        pixels=row["pixels"],
        counts=bool(row["counts"]),
        steps=steps,
    )


# --- products ----------------------------------------------------------------------------------

_STRUCTURED = ("item", "sources", "fingerprint")


def product_to_json(product: Product) -> dict[str, Any]:
    """All of a product that does not change once it is published: the content of ``work.json``."""
    value: dict[str, Any] = {f.name: getattr(product, f.name) for f in fields(product)}
    del value["listed"], value["unlisted"]
    value["day"] = None if product.day is None else product.day.isoformat()
    value["published"] = to_text(product.published)
    value.update({name: decode_json(to_json(value[name])) for name in _STRUCTURED})
    return value


def product_from_json(value: Any) -> Product:
    """The product that ``product_to_json`` was given, as a listed one.

    Raises:
        StoreError: a field is missing or is not what it must be.
    """
    with _reading("a product"):
        known = {f.name: value[f.name] for f in fields(Product) if f.name not in _LISTING}
        expect(known, _PRODUCT_TYPES)
        known["day"] = _day(known["day"])
        known["published"] = _moment(known["published"])
        known["fingerprint"] = tuple(known["fingerprint"])
        if known["kind"] not in get_args(Kind) or known["status"] not in ("ok", "partial"):
            raise ValueError(f"kind cannot be {known['kind']} with status {known['status']}")
        return Product(**known)


_LISTING = ("listed", "unlisted")
_PRODUCT_TYPES: Types = {
    **dict.fromkeys(("area", "kind", "id", "version", "digest", "result", "status"), str),
    **dict.fromkeys(("folder", "run", "published"), str),
    **{"day": (str, type(None)), "item": dict, "sources": dict, "fingerprint": list},
    **{"pixels": int, "km2": (*_NUMBER, type(None)), "seconds": _NUMBER},
}


def product_values(product: Product) -> dict[str, Any]:
    """Columns of ``product`` that tell what it is."""
    value = product_to_json(product)
    return {**value, **{name: to_json(value[name]) for name in _STRUCTURED}}


@_row_of("product")
def product_of(row: sqlite3.Row) -> Product:
    """A row of ``product``; of a forgotten one no work has the digest."""
    value = {name: decode_json(row[name]) for name in _STRUCTURED}
    known = {name: row[name] for name in _PRODUCT_TYPES if name not in _STRUCTURED} | value
    expect(known, _PRODUCT_TYPES)
    if row["listed"] and row["removed"]:
        raise ValueError("a product cannot be both listed and removed")
    return Product(
        area=row["area"],
        kind=row["kind"],
        id=row["id"],
        version=row["version"],
        digest="" if row["forgotten"] else row["digest"],
        result=row["result"],
        day=_day(row["day"]),
        status=row["status"],
        folder=row["folder"],
        run=row["run"],
        item=value["item"],
        published=_moment(row["published"]),
        pixels=row["pixels"],
        km2=row["km2"],
        seconds=row["seconds"],
        sources=value["sources"],
        fingerprint=tuple(value["fingerprint"]),
        listed=bool(row["listed"]),
        unlisted=to_moment(row["unlisted"]),
    )


# --- quarantines -------------------------------------------------------------------------------


def quarantine_to_json(quarantine: Quarantine) -> dict[str, Any]:
    """All of it: the content of a file of ``root/quarantine``."""
    value = {f.name: getattr(quarantine, f.name) for f in fields(quarantine)}
    return {**value, "since": to_text(quarantine.since)}


def quarantine_from_json(value: Any) -> Quarantine:
    """The quarantine that ``quarantine_to_json`` was given.

    Raises:
        StoreError: a field is missing or is not what it must be.
    """
    with _reading("a quarantine"):
        known = {f.name: value[f.name] for f in fields(Quarantine)}
        expect(known, dict.fromkeys(known, str) | {"exit_code": int, "attempts": int})
        if known["kind"] not in get_args(Kind):
            raise ValueError(f"kind cannot be {known['kind']}")
        return Quarantine(**{**known, "since": _moment(known["since"])})


@_row_of("quarantine")
def quarantine_of(row: sqlite3.Row) -> Quarantine:
    """A row of ``quarantine``."""
    return quarantine_from_json(dict(row))


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """What a wrong JSON value raises, as one error that names it."""
    try:
        yield
    except KeyError as error:
        raise StoreError(f"{what} must have {error}") from None
    except (TypeError, ValueError) as error:
        raise StoreError(f"{what} cannot be read: {error}") from None


def expect(value: Mapping[str, Any] | sqlite3.Row, types: Types) -> None:
    """Check what kinds of values there are.

    Raises:
        ValueError: naming the first that is of another kind.
    """
    for name, kind in types.items():
        if not isinstance(value[name], kind) or isinstance(value[name], bool):
            raise ValueError(f"{name} cannot be {value[name]!r}")
