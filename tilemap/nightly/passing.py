"""One pass: what is new is found, done once, published whole, and told."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from tilemap.errors import (
    EXIT_OK,
    EXIT_PARTIAL,
    BusyError,
    DamagedInputError,
    InputChangedError,
    ModelError,
    OutputError,
    SceneError,
    TilemapError,
    UnavailableError,
)
from tilemap.files import outside_error, storing
from tilemap.nightly.cataloging import PARQUET, sync_catalog, sync_parquet
from tilemap.nightly.config import AreaTable
from tilemap.nightly.doing import Made, PassCluster, do_work
from tilemap.nightly.facts import CHANGE_ID, Done, PassOutcome, Problem, Product, Quarantine
from tilemap.nightly.hands import Ended, Hands
from tilemap.nightly.ledger import Ledger
from tilemap.nightly.lock import Lock, LostLockError, acquire
from tilemap.nightly.mirroring import mirror
from tilemap.nightly.places import Places, free_id, title_of
from tilemap.nightly.publishing import publish
from tilemap.nightly.recovery import recover
from tilemap.nightly.request import PassRequest, tell_only
from tilemap.nightly.retention import remove_run, retain, stale_runs
from tilemap.nightly.surveying import Survey, survey, survey_series
from tilemap.nightly.telling import PassLog, outcome_record, tell_all
from tilemap.nightly.trial import Trial, ends_pass
from tilemap.nightly.works import Work
from tilemap.record import versions

if TYPE_CHECKING:
    pass

End = Literal["ok", "partial", "failed", "over"]


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
        return tell_only(request, places, areas)
    with storing(f"cannot create {places.root}", kind=OutputError):
        places.root.mkdir(parents=True, exist_ok=True)
    with (
        Ledger.open(places.ledger) as ledger,
        acquire(ledger, request.config.nightly.lease) as lock,
    ):
        return _Pass(request, places, areas, ledger, lock).run()


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
        bar = request.bar if self.config.nightly.together == 1 else None  # a terminal has one
        self.log = PassLog(log, self.id, request.console, bar)
        self.survey = Survey()
        self.pending: list[Work] = []
        self.running: dict[tuple[str, str, str], Trial] = {}
        self.waiting = {area.name: area for area in areas}
        """Areas whose series are still to be looked at."""
        self.mended: dict[str, set[str]] = {}
        """Ids of scenes that were mapped again for their series, by area."""
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
                lost = recover(self.config, self.places, self.ledger, self.lock, self.log)
                self._look(lost)
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

    def _look(self, lost: Sequence[Product]) -> None:
        """Find what there is and what is to be done.

        Args:
            lost: products that are to be made again.
        """
        found = survey(self.config, self.areas, self.ledger, self.started, write=True)
        self.survey, self.pending = found, list(found.maps)
        found.problems += [
            Problem(one.area, one.folder, f"{one.id} is damaged and its scene is not there: bring "
                    "it back, and the next night makes the map again")
            for one in lost
            if one.kind == "map" and one.id not in found.found.get(one.area, {one.id: None})
        ]  # fmt: skip
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
        with self.cluster, Hands(self.config.nightly.together, self._perform) as hands:
            try:
                self._do_all(hands)
            except BaseException as error:
                for trial in self.running.values():
                    with contextlib.suppress(TilemapError):  # the first error is the one to tell
                        self._finish(trial, trial.done("interrupted", error))
                raise
        if self.pending:
            self.log.event("over", text="the time budget has ended; the rest waits")
            return "over"
        return "ok"

    def _do_all(self, hands: Hands) -> None:
        """Map the scenes; each area's dates are compared as soon as its scenes are done."""
        while True:
            while self.pending and not self._over() and self._fits(self.pending[0], hands):
                self._begin(self.pending[0], hands)
                self.pending.pop(0)
            if hands.busy:
                ended = hands.wait()
                self._end(ended)
                area = ended.work.area
            elif self.waiting and not self.pending:
                area = next(iter(self.waiting))
            else:
                return
            if area in self.waiting and all(w.area != area for w in (*self.pending, *hands.busy)):
                self._series(self.waiting.pop(area))

    def _over(self) -> bool:
        return self.budget is not None and time.monotonic() - self.clock >= self.budget

    def _fits(self, work: Work, hands: Hands) -> bool:
        """Whether it can be begun beside what is being done, in the memory that was planned.

        Scenes share their workers if they share their model; a series has them for itself.
        """
        if not hands.busy:
            return True
        together = {self._model_of(one) for one in (work, *hands.busy)}
        return hands.free and len(together) == 1 and None not in together

    def _model_of(self, work: Work) -> tuple[Any, ...] | None:
        if work.kind == "change":
            return None
        area = self.config.area(work.area)
        options = self.config.segment_options(area)
        how = (options.get(name) for name in ("device", "precision", "engine", "tta"))
        return (self.config.models(area), *how)

    def _series(self, area: AreaTable) -> None:
        """See whether the dates of an area are to be compared now."""
        mended = self.mended.get(area.name, ())
        try:
            work = survey_series(self.config, area, self.ledger, self.places, self.survey, mended)
        except ModelError:
            return  # told when its scenes were looked for
        if isinstance(work, Quarantine):
            self.survey.set_aside.append(work)
        elif isinstance(work, list):
            self._map_again(area, work)
        elif work is None:
            self.survey.skipped += self.ledger.product(area.name, "change", CHANGE_ID) is not None
        else:
            self.pending.insert(0, work)

    def _map_again(self, area: AreaTable, works: Sequence[Work]) -> None:
        """Put scenes before the series of their area, whose runs are gone or damaged."""
        self.mended.setdefault(area.name, set()).update(work.id for work in works)
        self.pending[:0] = works
        self.waiting[area.name] = area

    def _begin(self, work: Work, hands: Hands) -> None:
        """Begin one piece of work.

        Raises:
            LostLockError: if the lock was taken over.
            ClusterLostError: if there is no cluster for several at a time.
        """
        self.lock.verify()
        if self.config.nightly.together > 1:
            self.cluster.client()  # Dask wants it opened by the thread that closes it
        now = datetime.now(UTC)
        attempt = self.ledger.start(self.id, work.area, work.kind, work.id, work.digest, now)
        self.running[work.area, work.kind, work.id] = Trial(attempt, work, now, time.monotonic())
        name = title_of(work.kind, work.area, work.id)
        self.log.event(
            "begin", text=f"{name}: {work.why}", area=work.area, kind=work.kind, id=work.id,
            digest=work.digest, why=work.why,
        )  # fmt: skip
        hands.begin(work)

    def _perform(self, work: Work) -> Made:
        """Do it; called in any thread, so that the ledger is left alone."""
        told = self.log.progress(work.area, work.kind, work.id)
        return do_work(work, self.config, self.places, self.cluster, told)

    def _end(self, ended: Ended) -> None:
        """Publish what was done; what failed is told, and the rest goes on.

        Raises:
            TilemapError: if nothing else could be done either: no cluster, no room, no lock.
        """
        work = ended.work
        trial = self.running[work.area, work.kind, work.id]
        try:
            if ended.made is None:
                assert ended.error is not None
                raise ended.error
            product = publish(work, ended.made, self.config, self.places, self.ledger, self.lock)
        except Exception as error:
            known = outside_error(error)
            if known is None:
                self.log.event("bug", "error", traceback=traceback.format_exc())
                text = f"a bug in tilemap: {type(error).__name__}: {error}"
                known = TilemapError(text)
            if ends_pass(known):
                if known is error:
                    raise
                raise known from error
            if not self._mends(trial, known):
                self._failed(trial, known)
        else:
            self.ledger.release(work.area, work.kind, work.id)
            self._finish(trial, trial.made(ended.made, product))
            self._clear(work, product)
        del self.running[work.area, work.kind, work.id]

    def _mends(self, trial: Trial, error: TilemapError) -> bool:
        """Have dates of a series mapped again if they are damaged; return False if none is."""
        work = trial.work
        if work.kind == "map" or not isinstance(error, DamagedInputError):
            return False
        area, mended = self.config.area(work.area), self.mended.get(work.area, ())
        again = survey_series(
            self.config, area, self.ledger, self.places, self.survey, mended, deep=True
        )
        if not isinstance(again, list):
            return False
        self._map_again(area, again)
        self.ledger.finish(trial.attempt, "interrupted", datetime.now(UTC), str(error))
        self.log.event("damaged", "warning", f"{work.area}, change: {error}", area=work.area)
        return True

    def _failed(self, trial: Trial, error: TilemapError) -> None:
        """Tell of work that failed; set it aside where another try would be in vain."""
        work = trial.work
        before = self.ledger.failures(work.area, work.kind, work.id, work.digest)
        in_vain = isinstance(error, SceneError) or before + 1 >= self.config.nightly.attempts
        if isinstance(error, UnavailableError | BusyError | InputChangedError) or not in_vain:
            self._finish(trial, trial.done("failed", error))
            return
        self._finish(trial, trial.done("quarantined", error))
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

    def _finish(self, trial: Trial, done: Done) -> None:
        self.done.append(done)
        self.ledger.finish(
            trial.attempt, done.status, datetime.now(UTC), done.error, done.exit_code, done.seconds,
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
            waiting=tuple(
                work.waiting
                for work in (*(trial.work for trial in self.running.values()), *self.pending)
            ),
            quarantined=tuple(self.ledger.quarantines()),
            problems=tuple(self.survey.problems),
            removed=tuple(self.removed),
            notes=tuple(self.survey.notes),
            versions=versions(),
            price_per_hour=tell.price_per_hour,
            currency=tell.currency,
        )

    def _tell(self, outcome: PassOutcome) -> None:
        record = outcome_record(outcome)
        try:
            self.ledger.end_pass(self.id, outcome.status, outcome.exit_code, outcome.ended, record)
        except TilemapError as error:  # such as a full disk, of which all others are told still
            self.log.event("ledger_failed", "error", f"error: {error}")
        tell_all(outcome, self.config.tell, self.places, self.log)
