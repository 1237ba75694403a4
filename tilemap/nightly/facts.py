"""What the parts of a pass tell each other: a scene found, work done, a product, the whole pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal

from tilemap.errors import EXIT_OK

Kind = Literal["map", "change"]
CHANGE_ID = "change"
"""Of an area's series: there is one."""
State = Literal["ready", "copying"]
Status = Literal["ok", "partial", "failed", "quarantined", "interrupted"]


@dataclass(frozen=True, slots=True)
class Found:
    """A scene that discovery came upon.

    Args:
        area: name of its area.
        id: its own in the area, of letters, digits, ``.``, ``_`` and ``-``; the same each night.
        day: when it was observed; None if neither name nor item tell.
        sources: what ``tilemap.segment`` takes: files, one folder, one STAC item; or addresses.
        fingerprint: one record for each file (name, size, mtime_ns; of a remote one its ETag or
            what its item says), in order: another one is another input.
        newest: latest modification of any file, seconds since 1970; None where it is not known.
        state: "copying" if a file is not whole yet, as far as one look can tell.
        reason: why, for a person.
    """

    area: str
    id: str
    day: date | None
    sources: tuple[str, ...]
    fingerprint: tuple[Mapping[str, Any], ...]
    newest: float | None = None
    state: State = "ready"
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """A source that could not be looked through, or a scene that cannot be told from another.

    Args:
        area: name of the area.
        source: folder, glob or address.
        text: for a person.
    """

    area: str
    source: str
    text: str


@dataclass(frozen=True, slots=True)
class Product:
    """A published folder.

    Args:
        area: name of the area.
        kind: map or change.
        id: of the scene; ``CHANGE_ID`` for the series.
        version: name of the folder below the id; begins the digest.
        digest: of inputs, model and options: of the work that made it.
        result: digest of the run (``run.json``) that lies in it.
        day: of the scene; of a change its last date.
        status: ok or partial.
        folder: relative to the root's ``products``, as posix.
        run: folder of the run it was made by, relative to the root, as posix.
        item: its STAC item.
        published: when.
        pixels: that were mapped.
        km2: true area of them; None where it is not known.
        seconds: that the run took.
        sources: titles and addresses of what it was made of.
        fingerprint: of the inputs, as ``Found`` has it.
        listed: whether the catalog names it.
        unlisted: when the catalog ceased to.
    """

    area: str
    kind: Kind
    id: str
    version: str
    digest: str
    result: str
    day: date | None
    status: Literal["ok", "partial"]
    folder: str
    run: str
    item: Mapping[str, Any] = field(repr=False)
    published: datetime
    pixels: int = 0
    km2: float | None = None
    seconds: float = 0.0
    sources: Mapping[str, str] = field(default_factory=dict)
    fingerprint: tuple[Mapping[str, Any], ...] = ()
    listed: bool = True
    unlisted: datetime | None = None


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Work that is not tried again until its inputs change or a person says so.

    Args:
        area: name of the area.
        kind: map or change.
        id: of the scene; ``CHANGE_ID`` for the series.
        digest: of the work that failed; with another one it is tried again.
        since: when it was set aside.
        reason: for a person.
        exit_code: of the error.
        attempts: that were made.
    """

    area: str
    kind: Kind
    id: str
    digest: str
    since: datetime
    reason: str
    exit_code: int
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Waiting:
    """Work that is to be done: in a dry run, or because the pass ended before it.

    Args:
        area: name of the area.
        kind: map or change.
        id: of the scene; ``CHANGE_ID`` for the series.
        day: of the scene, of a change its last date.
        why: as in ``Done``.
    """

    area: str
    kind: Kind
    id: str
    day: date | None
    why: str


@dataclass(frozen=True, slots=True)
class Done:
    """One piece of work of a pass.

    Args:
        area: name of the area.
        kind: map or change.
        id: of the scene; ``CHANGE_ID`` for the series.
        day: of the scene, of a change its last date.
        status: what became of it.
        why: why it was done: "new", "inputs changed", "model or options changed", "continued",
            "tried again", "a date is new", ...
        error: for a person; None if all is well.
        exit_code: of the error; 0 if all is well, 3 partial.
        seconds: wall time.
        pixels: newly mapped.
        km2: true area of the scene; None where it is not known.
        folder: of the product, relative to ``products``; None if there is none.
        started: when.
        steps: seconds by step.
    """

    area: str
    kind: Kind
    id: str
    day: date | None
    status: Status
    why: str
    started: datetime
    seconds: float
    error: str | None = None
    exit_code: int = EXIT_OK
    pixels: int = 0
    km2: float | None = None
    folder: str | None = None
    steps: Mapping[str, float] = field(default_factory=dict)

    @property
    def mpx_per_s(self) -> float:
        """Millions of pixels a second; 0 where nothing was mapped."""
        return self.pixels / self.seconds / 1e6 if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class PassOutcome:
    """What a pass did, for all who are told.

    Args:
        id: of the pass: when it began, UTC, as ``20261126T021500Z``, and a number if need be.
        root: of all folders, as a person wrote it.
        config: file of the configuration.
        host: name of the machine that drove it.
        started: when.
        ended: when.
        seconds: between, by a clock that nobody sets.
        status: ok; partial; failed: it ended early, ``error`` says why; over: the time budget ended
            before the work.
        exit_code: of the command.
        error: why it ended early.
        done: work of this pass, in its order.
        skipped: scenes and series that were done before.
        copying: scenes that were left for the next pass, and why.
        waiting: work that was not begun, of the budget or an early end.
        quarantined: all that is set aside now, of earlier passes too.
        problems: sources that could not be looked through.
        removed: folders that retention removed.
        notes: for people.
        versions: of the software.
        dry: nothing was done: ``waiting`` is what would be.
        price_per_hour: of the cluster; None if it was not said.
        currency: of the price.
    """

    id: str
    root: str
    config: str
    host: str
    started: datetime
    ended: datetime
    seconds: float
    status: Literal["ok", "partial", "failed", "over"]
    exit_code: int
    error: str | None = None
    done: tuple[Done, ...] = ()
    skipped: int = 0
    copying: tuple[Found, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    quarantined: tuple[Quarantine, ...] = ()
    problems: tuple[Problem, ...] = ()
    removed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    dry: bool = False
    price_per_hour: float | None = None
    currency: str = "USD"

    @property
    def cost(self) -> float | None:
        """What the machines cost for the time of the pass; None without a price."""
        return None if self.price_per_hour is None else self.price_per_hour * self.seconds / 3600

    @property
    def km2(self) -> float:
        """True area that was mapped in this pass."""
        return sum(done.km2 or 0.0 for done in self.done if done.kind == "map")

    @property
    def cost_per_1000_km2(self) -> float | None:
        """Cost of 1,000 km2; None without a price or an area."""
        cost = self.cost
        return None if cost is None or self.km2 <= 0 else 1000 * cost / self.km2
