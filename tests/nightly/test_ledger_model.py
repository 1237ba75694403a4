"""The ledger says what a plain Python model of it says, whatever is called in whatever order."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tilemap.nightly.facts import Found, Product, Quarantine
from tilemap.nightly.ledger import (
    LEDGER_FILE,
    Ledger,
    quarantine_from_json,
)
from tilemap.nightly.lock import acquire
from tilemap.nightly.pardon import forget, retry

from .facts import MEMORY, NOW, found, product, quarantine

KEYS = st.sampled_from(["1985", "1990", "change"])
AREAS = st.sampled_from(["pucallpa", "ucayali"])
KINDS = st.sampled_from(["map", "change"])
DIGESTS = st.sampled_from(["d1", "d2"])
Work = tuple[str, str, str]


@dataclass
class Try:
    """An attempt in the model."""

    number: int
    pass_id: str
    work: Work
    digest: str
    status: str = "running"
    counts: bool = True
    steps: dict[str, float] = field(default_factory=dict)


class Model(RuleBasedStateMachine):
    """Any calls in any order, any clock, reopened at any time: the ledger says what dicts say."""

    @initialize()
    def begin(self) -> None:
        """An empty ledger and an empty model."""
        self.folder = TemporaryDirectory(dir=MEMORY)
        self.path = Path(self.folder.name) / LEDGER_FILE
        self.scenes: dict[tuple[str, str], tuple[Found, str, datetime, datetime, str]] = {}
        self.tries: list[Try] = []
        self.products: dict[str, Product] = {}
        self.forgotten: set[str] = set()
        self.mirrored: set[str] = set()
        self.left_over: set[str] = set()
        self.quarantined: dict[Work, Quarantine] = {}
        self.passes: list[str] = []
        self._open()
        self._next_pass()

    def _open(self) -> None:
        self.ledger = Ledger.open(self.path)
        self.context = acquire(self.ledger, command="a test")
        self.lock = self.context.__enter__()

    def _next_pass(self) -> None:
        self.passes.append(f"p{len(self.passes)}")
        self.ledger.begin_pass(self.passes[-1], self.lock.holder, NOW)

    def teardown(self) -> None:
        """Close the file."""
        if hasattr(self, "folder"):
            self.context.__exit__(None, None, None)
            self.ledger.close()
            self.folder.cleanup()

    @rule()
    def reopen(self) -> None:
        """The process ends without a word of what was under way; the next one begins."""
        self.context.__exit__(None, None, None)
        self.ledger.close()
        self._open()
        under_way = [one for one in self.tries if one.status == "running"]
        assert self.ledger.interrupted(NOW) == len(under_way)
        for one in under_way:
            one.status = "interrupted"
        self._next_pass()

    @rule(area=AREAS, key=KEYS, mtime=st.integers(1, 2), hours=st.integers(-50, 50))
    def see(self, area: str, key: str, mtime: int, hours: int) -> None:
        """The same files count as seen from the next pass on, whatever the clock says."""
        scene, now = found(key, mtime, area=area), NOW + timedelta(hours=hours)
        before = self.scenes.get((area, key))
        same = before is not None and before[0].fingerprint == scene.fingerprint
        expected = before is not None and same and before[4] != self.passes[-1]
        assert self.ledger.see(scene, now) is expected
        first = now if before is None else before[2]
        since = before[4] if before is not None and same else self.passes[-1]
        self.scenes[area, key] = (scene, scene.state, first, now, since)

    @rule(area=AREAS, there=st.sets(KEYS))
    def gone(self, area: str, there: set[str]) -> None:
        """What was not seen is gone, and known still."""
        self.ledger.gone(area, there, NOW)
        for (where, key), (scene, _, first, last, since) in self.scenes.items():
            if where == area and key not in there:
                self.scenes[where, key] = (scene, "gone", first, last, since)

    @rule(area=AREAS, kind=KINDS, key=KEYS, digest=DIGESTS)
    def start(self, area: str, kind: Any, key: str, digest: str) -> None:
        """Numbers only grow."""
        number = self.ledger.start(self.passes[-1], area, kind, key, digest, NOW)
        assert all(number > one.number for one in self.tries)
        self.tries.append(Try(number, self.passes[-1], (area, kind, key), digest))

    @precondition(lambda self: self.tries)
    @rule(
        data=st.data(),
        status=st.sampled_from(["ok", "partial", "failed", "quarantined"]),
        steps=st.dictionaries(st.sampled_from(["tile", "segment"]), st.floats(0, 9)),
    )
    def finish(self, data: st.DataObject, status: Any, steps: dict[str, float]) -> None:
        """What has ended stays as it ended."""
        one = data.draw(st.sampled_from(self.tries))
        self.ledger.finish(one.number, status, NOW, "e", 65, 1.5, 7, steps)
        if one.status == "running":
            one.status, one.steps = status, steps

    @rule(area=AREAS, kind=KINDS, key=KEYS, version=st.sampled_from(["v1", "v2"]))
    def publish(self, area: str, kind: Any, key: str, version: str) -> None:
        """One is listed of each work; the one before is given back."""
        folder = f"{area}/{kind}-{key}/{version}"
        made = product(key, version, area=area, kind=kind, folder=folder)
        before = [p for p in self.products.values() if p.listed and _work(p) == (area, kind, key)]
        with self.ledger.publishing(self.lock) as publication:
            replaced = publication.add(made)
            assert made in publication.products()
        expected = [replace(p, listed=False, unlisted=NOW) for p in before if p.folder != folder]
        assert replaced == next(iter(map(self._told, expected)), None)
        self.products.update({p.folder: p for p in expected})
        self.products[folder] = made
        self.forgotten.discard(folder)
        self.mirrored.discard(folder)
        self.left_over.discard(folder)

    @precondition(lambda self: self.products)
    @rule(
        data=st.data(),
        what=st.sampled_from(["unlist", "removed", "mirrored", "unmirrored"]),
        fails=st.booleans(),
    )
    def change_product(self, data: st.DataObject, what: str, fails: bool) -> None:
        """Each change of what is published, or none of it if an error comes after."""
        one = data.draw(st.sampled_from(list(self.products.values())))
        try:
            with self.ledger.publishing(self.lock) as publication:
                if what == "unlist":
                    publication.unlist(one, NOW)
                else:
                    getattr(publication, what)(one)
                if fails:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            return
        if what == "unlist" and one.listed:
            self.products[one.folder] = replace(one, listed=False, unlisted=NOW)
        if what == "mirrored":
            self.mirrored.add(one.folder)
        if what == "unmirrored":
            self.mirrored.discard(one.folder)
        if what == "removed":
            del self.products[one.folder]
            if one.folder in self.mirrored:
                self.left_over.add(one.folder)

    @precondition(lambda self: self.left_over)
    @rule(data=st.data())
    def forget_left_over(self, data: st.DataObject) -> None:
        """Once it is gone where it was mirrored to, nothing is left."""
        folder = data.draw(st.sampled_from(sorted(self.left_over)))
        (one,) = [p for p in self.ledger.left_over() if p.folder == folder]
        with self.ledger.publishing(self.lock) as publication:
            publication.unmirrored(one)
        self.left_over.remove(folder)
        self.mirrored.discard(folder)

    @rule(area=AREAS, kind=KINDS, key=KEYS, digest=DIGESTS)
    def set_aside(self, area: str, kind: Any, key: str, digest: str) -> None:
        """The last one counts."""
        if kind == "change":
            key = "change"
        elif key == "change":
            return  # discovery gives no such id
        one = quarantine(key, area=area, kind=kind, digest=digest)
        self.ledger.quarantine(one)
        self.quarantined[area, kind, key] = one

    @rule(area=AREAS, kind=KINDS, key=KEYS)
    def release(self, area: str, kind: Any, key: str) -> None:
        """Whether there was something to release."""
        was = self.quarantined.pop((area, kind, key), None) is not None
        if (kind == "change") is (key == "change"):
            assert self.ledger.release(area, kind, key) is was

    @rule(area=AREAS | st.none(), key=KEYS | st.none())
    def retry(self, area: str | None, key: str | None) -> None:
        """Failures count no more, and nothing is set aside."""
        key = None if area is None else key

        def meant(work: Work) -> bool:
            return (area is None or work[0] == area) and (key is None or work[2] == key)

        failed = [
            one for one in self.tries
            if meant(one.work) and one.counts and one.status in ("failed", "partial")
        ]  # fmt: skip
        aside = [work for work in self.quarantined if meant(work)]
        assert retry(self.ledger, area, key) == sorted({*aside, *(one.work for one in failed)})
        for one in failed:
            one.counts = False
        for work in aside:
            del self.quarantined[work]

    @rule(area=AREAS, key=KEYS)
    def forget(self, area: str, key: str) -> None:
        """Nothing is known any more but what is published, as the work of nobody."""
        listed = [p for p in self.products.values() if p.listed and (p.area, p.id) == (area, key)]
        aside = [work for work in self.quarantined if (work[0], work[2]) == (area, key)]
        tries = [one for one in self.tries if (one.work[0], one.work[2]) == (area, key)]
        scene = self.scenes.pop((area, key), None)
        assert forget(self.ledger, area, key) is bool(listed or aside or tries or scene)
        self.forgotten |= {p.folder for p in listed}
        for work in aside:
            del self.quarantined[work]
        self.tries = [one for one in self.tries if one not in tries]

    @invariant()
    def agree(self) -> None:
        """Every question has the model's answer, and a copy has the same."""
        if not hasattr(self, "ledger"):
            return
        with Ledger.peek(self.path) as copy:
            for ledger in (self.ledger, copy):
                self._agree(ledger)

    def _agree(self, ledger: Ledger) -> None:
        rows = {(r.found.area, r.found.id): r for r in ledger.scenes()}
        assert {
            key: (row.found, row.state, row.first_seen, row.last_seen) for key, row in rows.items()
        } == {key: value[:4] for key, value in self.scenes.items()}
        tries = [
            (r.number, r.pass_id, (r.area, r.kind, r.id), r.digest, r.status, r.counts, r.steps)
            for r in reversed(ledger.attempts(last=10**6))
        ]
        assert tries == [
            (t.number, t.pass_id, t.work, t.digest, t.status, t.counts, t.steps) for t in self.tries
        ]
        for work in {one.work for one in self.tries}:
            for digest in ("d1", "d2"):
                failures = [
                    one for one in self.tries
                    if (one.work, one.digest) == (work, digest)
                    and one.counts and one.status in ("failed", "partial")
                ]  # fmt: skip
                assert ledger.failures(*work, digest) == len(failures)  # type: ignore[arg-type]
        products = {p.folder: p for p in ledger.products(listed=None)}
        assert products == {p.folder: self._told(p) for p in self.products.values()}
        assert {p.folder for p in ledger.left_over()} == self.left_over
        listed = {p.folder for p in self.products.values() if p.listed}
        assert {p.folder for p in ledger.unmirrored()} == listed - self.mirrored
        assert {_work(q): q for q in ledger.quarantines()} == self.quarantined
        files = self.path.parent.glob("quarantine/*/*.json")
        values = [quarantine_from_json(json.loads(path.read_text())) for path in files]
        assert {_work(q): q for q in values} == self.quarantined
        assert [row.id for row in reversed(ledger.passes(10**6))] == self.passes

    def _told(self, one: Product) -> Product:
        return replace(one, digest="") if one.folder in self.forgotten else one


def _work(one: Product | Quarantine) -> Work:
    return one.area, one.kind, one.id


TestModel = Model.TestCase
TestModel.settings = settings(stateful_step_count=25)
