"""A pass as JSON, for machines, and as a few lines, for the person at the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tilemap.nightly.facts import Done, PassOutcome
from tilemap.nightly.places import title_of
from tilemap.nightly.telling.words import clean, jsonable, money, printable
from tilemap.report.drawing import amount
from tilemap.report.page import duration

FORMAT = 1
"""Of the record; counts on when a key changes its meaning."""
STATUSES = ("ok", "partial", "failed", "quarantined", "interrupted")
BAD = ("failed", "quarantined", "partial")
MOST_LINES = 20


def pixels(outcome: PassOutcome) -> int:
    """Pixels of scenes that were newly mapped; what a series compares is not counted again."""
    return sum(done.pixels for done in outcome.done if done.kind == "map")


def mpx_per_s(outcome: PassOutcome) -> float:
    """Millions of pixels mapped in a second of mapping; 0 where nothing was mapped."""
    seconds = sum(done.seconds for done in outcome.done if done.kind == "map" and done.pixels)
    return pixels(outcome) / seconds / 1e6 if seconds > 0 else 0.0


def ended_well(outcome: PassOutcome) -> bool:
    """Whether nobody has to be told: it did not fail, and no work of it did."""
    bad = any(done.status in BAD for done in outcome.done)
    return outcome.status in ("ok", "over") and not bad and not outcome.problems


def outcome_record(outcome: PassOutcome) -> dict[str, Any]:
    """A pass as JSON can hold it, without secrets.

    Keys of an outcome are there under their own names (``id`` as ``pass``, ``done`` as ``work``),
    times in UTC; besides them ``counts``, ``pixels``, ``mpx_per_s``, ``km2``, ``cost``,
    ``cost_per_1000_km2`` and ``seconds_by_step``.
    """
    steps: Counter[str] = Counter()
    for done in outcome.done:
        steps.update({name: seconds for name, seconds in done.steps.items() if seconds > 0})
    record = {
        "format": FORMAT,
        "pass": outcome.id,
        "status": outcome.status,
        "exit_code": outcome.exit_code,
        "error": outcome.error,
        "headline": headline(outcome),
        "dry": outcome.dry,
        "started": outcome.started,
        "ended": outcome.ended,
        "seconds": outcome.seconds,
        "root": outcome.root,
        "config": outcome.config,
        "host": outcome.host,
        "counts": _counts(outcome),
        "pixels": pixels(outcome),
        "mpx_per_s": mpx_per_s(outcome),
        "km2": outcome.km2,
        "price_per_hour": outcome.price_per_hour,
        "currency": outcome.currency,
        "cost": outcome.cost,
        "cost_per_1000_km2": outcome.cost_per_1000_km2,
        "seconds_by_step": dict(steps),
        "work": [{**jsonable(done), "mpx_per_s": done.mpx_per_s} for done in outcome.done],
        "copying": [
            {"area": f.area, "id": f.id, "day": f.day, "reason": f.reason} for f in outcome.copying
        ],
        "waiting": outcome.waiting,
        "quarantined": outcome.quarantined,
        "problems": outcome.problems,
        "removed": outcome.removed,
        "notes": outcome.notes,
        "versions": outcome.versions,
    }
    return {key: jsonable(value) for key, value in record.items()}


def _counts(outcome: PassOutcome) -> dict[str, int]:
    """Of this pass by status, and of all that stands beside it."""
    by_status = Counter[str](done.status for done in outcome.done)
    return {
        **{status: by_status[status] for status in STATUSES},
        "maps": sum(done.kind == "map" for done in outcome.done),
        "changes": sum(done.kind == "change" for done in outcome.done),
        "skipped": outcome.skipped,
        "copying": len(outcome.copying),
        "waiting": len(outcome.waiting),
        "in_quarantine": len(outcome.quarantined),
        "problems": len(outcome.problems),
        "removed": len(outcome.removed),
    }


def headline(outcome: PassOutcome) -> str:
    """The pass in one sentence, without a full stop."""
    good = sum(done.status in ("ok", "partial") for done in outcome.done)
    bad = sum(done.status in ("failed", "quarantined") for done in outcome.done)
    waits = len(outcome.waiting)
    if outcome.dry:
        return f"Dry run: {_count(waits, 'piece')} of work to do"
    if outcome.status == "failed":
        return f"Ended early, {good} done" + (f", {bad} failed" if bad else "")
    part = sum(done.status == "partial" for done in outcome.done)
    told = f"{good} done" + (f" ({part} in part)" if part else "")
    parts = [told if outcome.done else "Nothing was new"]
    if bad:
        parts.append(f"{bad} failed")
    if outcome.problems:
        parts.append(f"{_count(len(outcome.problems), 'source')} not read")
    if outcome.status == "over":
        return f"The time was up: {', '.join(parts).lower()}, {waits} waiting"
    return ", ".join(parts)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def summary_lines(outcome: PassOutcome, most: int = MOST_LINES) -> list[str]:
    """A pass for the person at the terminal, what went wrong first.

    Args:
        outcome: of the pass.
        most: lines of work, sources and scenes; those beyond are counted.
    """
    lines = [f"problem      {p.area}: {p.text}" for p in outcome.problems]
    lines += [_work_line(done) for done in _worst_first(outcome.done)]
    tried = {(done.area, done.kind, done.id) for done in outcome.done}
    lines += [
        f"set aside    {title_of(q.kind, q.area, q.id)}: {q.reason}"
        for q in outcome.quarantined
        if (q.area, q.kind, q.id) not in tried
    ]
    lines += [f"copying      {found.area}/{found.id}: {found.reason}" for found in outcome.copying]
    word = "would do" if outcome.dry else "waiting"
    lines += [f"{word:<12} {title_of(w.kind, w.area, w.id)}: {w.why}" for w in outcome.waiting]
    if len(lines) > most:
        lines = [*lines[:most], f"and {len(lines) - most:,} more"]
    if outcome.error is not None:
        lines.append(f"ended early: {outcome.error}")
    return [printable(clean(line)) for line in (*lines, _total(outcome))]


def _worst_first(done: Sequence[Done]) -> list[Done]:
    order = ("failed", "quarantined", "interrupted", "partial", "ok")
    return sorted(done, key=lambda one: order.index(one.status))


def _work_line(done: Done) -> str:
    told = [done.why, f"{done.seconds:.1f} s"]
    if done.pixels:
        told.append(f"{done.mpx_per_s:.2f} Mpx/s")
    why = "" if done.error is None else f": {done.error}"
    return f"{done.status:<12} {title_of(done.kind, done.area, done.id)}, {', '.join(told)}{why}"


def _total(outcome: PassOutcome) -> str:
    """The last line: all in numbers."""
    told = [headline(outcome)]
    if outcome.skipped:
        told.append(f"{outcome.skipped:,} done before")
    if pixels(outcome):
        told.append(f"{mpx_per_s(outcome):.2f} Mpx/s")
    if outcome.km2:
        told.append(f"{amount(outcome.km2)} km2")
    if outcome.cost is not None:
        told.append(money(outcome.cost, outcome.currency))
    if outcome.cost_per_1000_km2 is not None:
        told.append(f"{money(outcome.cost_per_1000_km2, outcome.currency)} per 1,000 km2")
    return f"{'; '.join(told)}; {duration(outcome.seconds)}"
