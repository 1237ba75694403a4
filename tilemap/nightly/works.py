"""What is to be done: pure, from what was found and what the ledger knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Protocol

from tilemap.directory import digest_of
from tilemap.nightly.facts import CHANGE_ID, Found, Kind, Product, Quarantine, Waiting

FORMAT = 1
"""Of what a work's digest is made of; another one does all work anew."""


@dataclass(frozen=True, slots=True)
class Work:
    """One scene to map, or one series to compare.

    Args:
        area: name of the area.
        kind: map or change.
        id: of the scene; ``CHANGE_ID`` for the series.
        digest: of inputs, model and options; names the run and its product.
        day: of the scene; of a change its last date.
        why: for a person, see ``facts.Done``.
        priority: of the area.
        sources: of a map, what ``tilemap.segment`` takes.
        fingerprint: of a map, see ``facts.Found``.
        dates: of a change, the products that are compared, the oldest first.
    """

    area: str
    kind: Kind
    id: str
    digest: str
    day: date | None
    why: str
    priority: int = 0
    sources: tuple[str, ...] = ()
    fingerprint: tuple[Mapping[str, Any], ...] = ()
    dates: tuple[Product, ...] = ()

    @property
    def waiting(self) -> Waiting:
        """The same, told."""
        return Waiting(self.area, self.kind, self.id, self.day, self.why)


class Known(Protocol):
    """What planning asks the ledger."""

    def product(self, area: str, kind: Kind, key: str, /) -> Product | None:
        """The listed product."""

    def failures(self, area: str, kind: Kind, key: str, digest: str, /) -> int:
        """Attempts at this very work that did not end well."""

    def quarantined(self, area: str, kind: Kind, key: str, /) -> Quarantine | None:
        """Whether it is set aside."""


def map_digest(
    fingerprint: Sequence[Mapping[str, Any]],
    models: Sequence[Mapping[str, Any]],
    options: Mapping[str, Any],
) -> str:
    """Name of the work of mapping one scene: what was done under it need not be done again.

    Args:
        fingerprint: of the scene's files.
        models: ``ModelCard.identity()`` of each.
        options: of ``tilemap.segment``; files by content.
    """
    return digest_of(
        {
            "format": FORMAT,
            "inputs": [dict(file) for file in fingerprint],
            "models": list(models),
            "options": _plain(options),
        }
    )


def change_digest(
    dates: Sequence[Product],
    options: Mapping[str, Any],
    masks: Any = None,
    lacks: Sequence[str] = (),
) -> str:
    """Name of the work of comparing these maps.

    Args:
        dates: the maps, the oldest first.
        options: of ``tilemap.change``; files by content.
        masks: content of the masks of the dates, if there are any.
        lacks: digest of the tiles that each map lacks, empty if it is whole.
    """
    work = {
        "format": FORMAT,
        "dates": [[product.id, str(product.day), product.result] for product in dates],
        "options": _plain(options),
        "masks": masks,
    }
    return digest_of(work | ({"lacks": list(lacks)} if any(lacks) else {}))


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in sorted(options.items())
    }


def decide(work: Work, known: Known, attempts: int) -> Work | Quarantine | None:
    """Whether a piece of work is to be done now.

    Args:
        work: with its ``why`` still open.
        known: the ledger.
        attempts: passes that try it before it is given up.

    Returns:
        The work with its ``why``; or what set it aside; or None if it was done before.
    """
    set_aside = known.quarantined(work.area, work.kind, work.id)
    if set_aside is not None and set_aside.digest == work.digest:
        return set_aside
    before = known.product(work.area, work.kind, work.id)
    failures = known.failures(work.area, work.kind, work.id, work.digest)
    if before is not None and before.digest == work.digest:
        if before.status == "ok" or failures >= attempts:
            return None
        return replace(work, why="some tiles were missing")
    if failures:
        return replace(work, why="tried again")
    if before is None:
        return replace(work, why="new")
    return replace(work, why=_what_changed(work, before))


def _what_changed(work: Work, before: Product) -> str:
    if not before.digest:
        return "forgotten"
    if work.kind == "map":
        same = [dict(f) for f in work.fingerprint] == [dict(f) for f in before.fingerprint]
        return "model or options changed" if same else "inputs changed"
    names = set(before.sources)
    now = {str(product.day) for product in work.dates}
    if new := sorted(now - names):
        return f"new date {new[-1]}" if len(new) == 1 else f"{len(new)} new dates"
    if names - now:
        return "dates left"
    return "dates or options changed"


def in_order(works: Sequence[Work]) -> list[Work]:
    """Areas of higher priority first, then the oldest day, then by name."""
    return sorted(
        works, key=lambda w: (-w.priority, w.day is None, w.day or date.min, w.area, w.id)
    )


def wanted(found: Sequence[Found], listed: Sequence[Product], keep_dates: int | None) -> set[str]:
    """Ids of an area's scenes that are within the dates to be kept.

    Args:
        found: scenes of the area.
        listed: its maps in the catalog.
        keep_dates: newest dates that stay; None keeps all.
    """
    days = {scene.id: scene.day for scene in found}
    days.update({product.id: product.day for product in listed if product.kind == "map"})
    if keep_dates is None:
        return set(days)
    newest = sorted({day for day in days.values() if day is not None})[-keep_dates:]
    first = newest[0] if newest else date.min
    return {key for key, day in days.items() if day is None or day >= first}


def dates_of(listed: Sequence[Product]) -> tuple[tuple[Product, ...], list[str]]:
    """The dates of a series, the oldest first, and notes for people on maps that are left out.

    Args:
        listed: maps of one area in the catalog.
    """
    notes: list[str] = []
    chosen: dict[date, Product] = {}
    for product in sorted(listed, key=lambda p: p.id):
        if product.day is None:
            notes.append(f"{product.area}/{product.id} is in no series: its day is not known")
        elif product.day in chosen:
            other = chosen[product.day]
            notes.append(
                f"{product.area}/{product.id} is in no series: {other.id} is of the same day"
            )
        else:
            chosen[product.day] = product
    return tuple(chosen[day] for day in sorted(chosen)), notes


def change_work(
    area: str,
    dates: Sequence[Product],
    options: Mapping[str, Any],
    priority: int,
    masks: Any,
    lacks: Sequence[str] = (),
) -> Work:
    """Comparing an area's dates; its ``why`` is still open."""
    digest = change_digest(dates, options, masks, lacks)
    return Work(area, "change", CHANGE_ID, digest, dates[-1].day, "", priority, dates=tuple(dates))
