"""One pass: what is new is found, done once, published whole, and told."""

from __future__ import annotations

import contextlib
import socket
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from tilemap.errors import (
    EXIT_OK,
    EXIT_PARTIAL,
    BusyError,
    ModelError,
    OutputError,
    SceneError,
    TilemapError,
    UnavailableError,
    UsageError,
)
from tilemap.nightly.cataloging import PARQUET, sync_catalog, sync_parquet
from tilemap.nightly.config import AreaTable, NightlyConfig
from tilemap.nightly.doing import PassCluster, do_work
from tilemap.nightly.facts import CHANGE_ID, Done, PassOutcome, Product, Quarantine, Waiting
from tilemap.nightly.ledger import Ledger
from tilemap.nightly.lock import Lock, LostLockError, acquire
from tilemap.nightly.mirroring import mirror
from tilemap.nightly.places import Places, title_of
from tilemap.nightly.publishing import publish
from tilemap.nightly.recovery import recover
from tilemap.nightly.retention import remove_run, retain, stale_runs
from tilemap.nightly.surveying import Survey, survey, survey_series
from tilemap.nightly.telling import PassLog, outcome_record, tell_all
from tilemap.nightly.trial import Trial, ends_pass
from tilemap.nightly.works import Work
from tilemap.record import versions

if TYPE_CHECKING:
    from rich.console import Console

    from tilemap.progress import Progress

End = Literal["ok", "partial", "failed", "over"]


@dataclass(frozen=True)
class PassRequest:
    """What a person asks of one pass, besides the configuration.

    Args:
        config: of the passes.
        file: where it stands, for reports.
        areas: names of the areas to look at; empty for all.
        budget_s: seconds after which nothing new is begun; None for the configuration's.
        dry: only tell what would be done.
        console: for the human log; None for standard error.
        bar: shows one run on it, such as ``ConsoleProgress``; None for a line now and then.
    """

    config: NightlyConfig
    file: str
    areas: tuple[str, ...] = ()
    budget_s: float | None = None
    dry: bool = False
    console: Console | None = field(default=None, repr=False)
    bar: Callable[[Console], Progress] | None = field(default=None, repr=False)

    @property
    def chosen(self) -> tuple[AreaTable, ...]:
        """The areas to look at.

        Raises:
            UsageError: if there is none of that name.
        """
        known = {area.name: area for area in self.config.areas}
        if odd := [name for name in self.areas if name not in known]:
            raise UsageError(f"--area must be one of {', '.join(known)}, got {odd[0]!r}")
        return tuple(area for name, area in known.items() if not self.areas or name in self.areas)


def run_pass(request: PassRequest) -> PassOutcome:
    """One pass over what is new; twice in a row, the second does nothing.

    Returns:
        What was done. A scene that cannot be mapped is no error: it is told, and the rest is done.

    Raises:
        BusyError: if another pass holds the lock.
        ConfigError: if the ledger is of a newer version.
        OutputError: if the root cannot be made.
    """
    places = Places(request.config.root.absolute())
    areas = request.chosen
    if request.dry:
        return _dry(request, places, areas)
    try:
        places.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot create {places.root}: {error.strerror}") from error
    with (
        Ledger.open(places.ledger) as ledger,
        acquire(ledger, request.config.nightly.lease) as lock,
    ):
        return _Pass(request, places, areas, ledger, lock).run()


def _dry(request: PassRequest, places: Places, areas: Sequence[AreaTable]) -> PassOutcome:
    started, clock = datetime.now(UTC), time.monotonic()
    with Ledger.peek(places.ledger) as ledger:
        found = survey(request.config, areas, ledger, started, write=False)
        waiting = [work.waiting for work in found.maps]
        busy = {work.area for work in found.maps}
        set_aside = ledger.quarantines()
        for area in areas:
            if area.name in busy and area.series:
                waiting.append(Waiting(area.name, "change", CHANGE_ID, None, "after its scenes"))
                continue
            with contextlib.suppress(ModelError):  # told among the problems
                work = survey_series(request.config, area, ledger, places, found)
                if isinstance(work, Work):
                    waiting.append(work.waiting)
    return PassOutcome(
        id=_stamp(started), root=str(places.root), config=request.file, host=socket.gethostname(),
        started=started, ended=datetime.now(UTC), seconds=time.monotonic() - clock, status="ok",
        exit_code=EXIT_OK, skipped=found.skipped, copying=tuple(found.copying),
        waiting=tuple(waiting), quarantined=tuple(set_aside), problems=tuple(found.problems),
        notes=tuple(found.notes), dry=True,
    )  # fmt: skip


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y%m%dT%H%M%SZ")


class _OverError(Exception):
    """The time budget has ended."""


class _Pass:
    """The parts of one pass, one after another, with what they have in common."""

    def __init__(
        self,
        request: PassRequest,
        places: Places,
        areas: Sequence[AreaTable],
        ledger: Ledger,
        lock: Lock,
    ) -> None:
        self.request, self.config, self.places = request, request.config, places
        self.areas, self.ledger, self.lock = areas, ledger, lock
        self.started, self.clock = datetime.now(UTC), time.monotonic()
        self.id = free_id(places, self.started)
        log = places.logs / f"{self.id}.jsonl"
        self.log = PassLog(log, self.id, request.console, request.bar)
        self.survey = Survey()
        self.pending: list[Work] = []
        self.done: list[Done] = []
        self.removed: list[str] = []
        budget = request.budget_s
        self.budget = self.config.nightly.budget if budget is None else budget
        self.cluster = PassCluster(self.config)

    def run(self) -> PassOutcome:
        """All of it; whatever happens, it is told."""
        self.places.logs.mkdir(exist_ok=True)
        self.ledger.begin_pass(self.id, self.lock.holder, self.started)
        status: End = "ok"
        error: TilemapError | None = None
        with self.log:
            try:
                recover(self.config, self.places, self.ledger, self.lock, self.log)
                self._look()
                status = self._work()
                self.removed = retain(
                    self.config, self.areas, self.places, self.ledger, self.lock, self.log
                )
                self._tabulate()
                self._mirror()
            except TilemapError as problem:
                status, error = "failed", problem
                self.log.event("failed", "error", f"error: {problem}", code=problem.exit_code)
            except BaseException as problem:
                self.log.event("stopped", "error", f"stopped: {type(problem).__name__} {problem}")
                raise
            outcome = self._outcome(status, error)
            if not isinstance(error, LostLockError):  # else another pass is the one that tells
                self._tell(outcome)
        return outcome

    # --- before ------------------------------------------------------------------------------

    def _look(self) -> None:
        """Find what there is and what is to be done."""
        found = survey(self.config, self.areas, self.ledger, self.started, write=True)
        self.survey, self.pending = found, list(found.maps)
        for problem in found.problems:
            text = f"{problem.area}: {problem.text}"
            self.log.event("problem", "warning", text, area=problem.area, source=problem.source)
        for scene in found.copying:
            text = f"{scene.area}/{scene.id} is left for the next pass: {scene.reason}"
            self.log.event("copying", text=text, area=scene.area, id=scene.id)
        for one in found.set_aside:
            text = f"{one.area}/{one.id} is in quarantine: {one.reason}"
            self.log.event("set_aside", text=text, area=one.area, kind=one.kind, id=one.id)
        self.log.event(
            "found",
            text=f"{len(found.maps)} scenes to map, {found.skipped} done before, "
            f"{len(found.copying)} still being copied, {len(found.set_aside)} in quarantine",
            new=len(found.maps), skipped=found.skipped, copying=len(found.copying),
        )  # fmt: skip

    # --- the work ----------------------------------------------------------------------------

    def _work(self) -> End:
        """Do it, until it is done or the time budget ends."""
        try:
            with self.cluster:
                self._do_all()
        except _OverError:
            self.log.event("over", text="the time budget has ended; the rest waits")
            return "over"
        return "ok"

    def _do_all(self) -> None:
        """Map the scenes; each area's dates are compared as soon as its scenes are done."""
        left = Counter(work.area for work in self.pending)
        waiting = {area.name: area for area in self.areas}
        while self.pending:
            work = self.pending[0]
            self._do(work)
            self.pending.remove(work)
            left[work.area] -= 1
            if not left[work.area]:
                self._series(waiting.pop(work.area))
        for area in waiting.values():
            self._series(area)

    def _series(self, area: AreaTable) -> None:
        try:
            work = survey_series(self.config, area, self.ledger, self.places, self.survey)
        except ModelError:
            return  # told when its scenes were looked for
        if isinstance(work, Quarantine):
            self.survey.set_aside.append(work)
        elif work is None:
            self.survey.skipped += self.ledger.product(area.name, "change", CHANGE_ID) is not None
        else:
            self.pending.append(work)
            self._do(work)
            self.pending.remove(work)

    def _do(self, work: Work) -> None:
        """One piece of work, from begun to published; one that fails is told, the rest goes on.

        Raises:
            TilemapError: if nothing else could be done either: no cluster, no room, no lock.
        """
        if self.budget is not None and time.monotonic() - self.clock >= self.budget:
            raise _OverError
        self.lock.verify()
        trial = Trial(work, datetime.now(UTC), time.monotonic())
        attempt = self.ledger.start(
            self.id, work.area, work.kind, work.id, work.digest, trial.started
        )
        name = title_of(work.kind, work.area, work.id)
        self.log.event(
            "begin", text=f"{name}: {work.why}", area=work.area, kind=work.kind, id=work.id,
            digest=work.digest, why=work.why,
        )  # fmt: skip
        told = self.log.progress(work.area, work.kind, work.id)
        try:
            made = do_work(work, self.config, self.places, self.cluster, told)
            product = publish(work, made, self.config, self.places, self.ledger, self.lock)
        except TilemapError as error:
            if ends_pass(error):
                self._finish(attempt, trial.done("interrupted", error))
                raise
            self._failed(attempt, trial, error)
        except Exception as error:
            self.log.event("bug", "error", traceback=traceback.format_exc())
            text = f"a bug in tilemap: {type(error).__name__}: {error}"
            self._failed(attempt, trial, TilemapError(text))
        except BaseException as error:
            self._finish(attempt, trial.done("interrupted", error))
            raise
        else:
            self.ledger.release(work.area, work.kind, work.id)
            self._finish(attempt, trial.made(made, product))
            self._clear(work, product)

    def _failed(self, attempt: int, trial: Trial, error: TilemapError) -> None:
        """Tell of work that failed; set it aside where another try would be in vain."""
        work = trial.work
        before = self.ledger.failures(work.area, work.kind, work.id, work.digest)
        in_vain = isinstance(error, SceneError) or before + 1 >= self.config.nightly.attempts
        if isinstance(error, UnavailableError | BusyError) or not in_vain:
            self._finish(attempt, trial.done("failed", error))
            return
        self._finish(attempt, trial.done("quarantined", error))
        self.ledger.quarantine(
            Quarantine(
                work.area,
                work.kind,
                work.id,
                work.digest,
                datetime.now(UTC),
                str(error),
                error.exit_code,
                before + 1,
            )
        )

    def _finish(self, attempt: int, done: Done) -> None:
        self.done.append(done)
        self.ledger.finish(
            attempt, done.status, datetime.now(UTC), done.error, done.exit_code, done.seconds,
            done.pixels, done.steps,
        )  # fmt: skip
        name = title_of(done.kind, done.area, done.id)
        text = f"{name}: {done.status}, {done.seconds:.0f} s"
        if done.pixels:
            text += f", {done.mpx_per_s:.2f} Mpx/s"
        self.log.event(
            "end", "info" if done.error is None else "error",
            text if done.error is None else f"{text}: {done.error}",
            area=done.area, kind=done.kind, id=done.id, status=done.status, error=done.error,
            code=done.exit_code, seconds=round(done.seconds, 3), pixels=done.pixels,
            folder=done.folder,
        )  # fmt: skip

    def _clear(self, work: Work, product: Product) -> None:
        """Remove the runs of a scene that its new product has replaced."""
        kept = {product.run, *(p.run for p in self.ledger.products(area=work.area))}
        for folder in stale_runs(self.places, work.area, work.id, kept):
            remove_run(folder, self.config.remote.allow_hosts)

    # --- after -------------------------------------------------------------------------------

    def _tabulate(self) -> None:
        """Bring the tables of items up to date, where they are asked for and something changed."""
        tables = [self.places.products / area.name / PARQUET for area in self.areas]
        changed = any(done.folder for done in self.done) or self.removed
        if self.config.catalog.geoparquet and (changed or not any(t.is_file() for t in tables)):
            with self.ledger.publishing(self.lock):
                listed = self.ledger.products()
                if sync_parquet(self.places, listed):
                    sync_catalog(self.config, self.places, listed)

    def _mirror(self) -> None:
        """Bring products and catalog to where they are published besides."""
        if self.config.publish.to is not None:
            sent = mirror(self.config, self.places, self.ledger, self.lock)
            if sent:
                text = f"{sent} objects sent to {self.config.publish.to}"
                self.log.event("mirrored", text=text, objects=sent)

    def _outcome(self, status: End, error: TilemapError | None) -> PassOutcome:
        failures = any(done.status != "ok" for done in self.done) or self.survey.problems
        code = EXIT_PARTIAL if failures else EXIT_OK
        if status == "ok" and failures:
            status = "partial"
        tell = self.config.tell
        return PassOutcome(
            id=self.id,
            root=str(self.places.root),
            config=self.request.file,
            host=self.lock.holder.host,
            started=self.started,
            ended=datetime.now(UTC),
            seconds=time.monotonic() - self.clock,
            status=status,
            exit_code=code if error is None else error.exit_code,
            error=None if error is None else str(error),
            done=tuple(self.done),
            skipped=self.survey.skipped,
            copying=tuple(self.survey.copying),
            waiting=tuple(w.waiting for w in self.pending if not self._tried(w)),
            quarantined=tuple(self.ledger.quarantines()),
            problems=tuple(self.survey.problems),
            removed=tuple(self.removed),
            notes=tuple(self.survey.notes),
            versions=versions(),
            price_per_hour=tell.price_per_hour,
            currency=tell.currency,
        )

    def _tried(self, work: Work) -> bool:
        return any(
            (d.area, d.kind, d.id) == (work.area, work.kind, work.id) and d.status != "interrupted"
            for d in self.done
        )

    def _tell(self, outcome: PassOutcome) -> None:
        record = outcome_record(outcome)
        try:
            self.ledger.end_pass(self.id, outcome.status, outcome.exit_code, outcome.ended, record)
        except TilemapError as error:  # such as a full disk, of which all others are told still
            self.log.event("ledger_failed", "error", f"error: {error}")
        tell_all(outcome, self.config.tell, self.places, self.log)


def free_id(places: Places, started: datetime) -> str:
    """The time it began; with a number if a clock that jumped back has brought it before."""
    stamp, number = _stamp(started), 1
    found = stamp
    while (places.logs / f"{found}.jsonl").exists():
        number += 1
        found = f"{stamp}-{number}"
    return found
