"""What is to be done: new, changed, failed before, set aside, done; in which order; which dates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tilemap.nightly.facts import Kind, Product, Quarantine
from tilemap.nightly.works import (
    Work,
    change_digest,
    change_work,
    dates_of,
    decide,
    in_order,
    map_digest,
    wanted,
)

NOW = datetime(2026, 11, 26, 2, tzinfo=UTC)
FILE = {"name": "a.tif", "size": 10, "mtime_ns": 5}
WORK = Work("coast", "map", "a", "d1", date(2020, 1, 1), "", fingerprint=(FILE,))


def product(
    key: str = "a", digest: str = "d1", day: date | None = date(2020, 1, 1), **fields: Any
) -> Product:
    """A published map."""
    given_: dict[str, Any] = {
        "area": "coast", "kind": "map", "id": key, "version": digest, "digest": digest,
        "result": f"r-{digest}", "day": day, "status": "ok", "folder": f"coast/{key}/{digest}",
        "run": f"work/coast/{key}/{digest}", "item": {}, "published": NOW,
        "fingerprint": (FILE,), **fields,
    }  # fmt: skip
    return Product(**given_)


class Book:
    """A ledger in memory."""

    def __init__(
        self,
        listed: Product | None = None,
        failures: int = 0,
        aside: Quarantine | None = None,
    ) -> None:
        self._listed, self._failures, self._aside = listed, failures, aside

    def product(self, area: str, kind: Kind, key: str, /) -> Product | None:
        """The one."""
        return self._listed

    def failures(self, area: str, kind: Kind, key: str, digest: str, /) -> int:
        """As told."""
        return self._failures

    def quarantined(self, area: str, kind: Kind, key: str, /) -> Quarantine | None:
        """The one."""
        return self._aside


def why(decided: object) -> str:
    """Of work that is to be done."""
    assert isinstance(decided, Work)
    return decided.why


def test_new_is_done_and_done_is_left() -> None:
    """A scene nobody mapped is new; one with the same digest was done before."""
    assert why(decide(WORK, Book(), 3)) == "new"
    assert decide(WORK, Book(product()), 3) is None


def test_what_changed_is_told() -> None:
    """Other files, or the same files under another digest: another model, other options."""
    other = product(digest="d0", fingerprint=({**FILE, "size": 11},))
    assert why(decide(WORK, Book(other), 3)) == "inputs changed"
    assert why(decide(WORK, Book(product(digest="d0")), 3)) == "model or options changed"


def test_what_was_forgotten_is_done_again() -> None:
    """A person said so; the ledger tells it by an empty digest."""
    assert why(decide(WORK, Book(product(digest="")), 3)) == "forgotten"


def test_what_failed_is_tried_again() -> None:
    """Until it is set aside, which others do."""
    assert why(decide(WORK, Book(failures=2), 3)) == "tried again"


def test_partial_map_is_continued_a_few_times() -> None:
    """A map that lacks tiles is tried again as often as one that failed, then left as it is."""
    half = product(status="partial")
    assert why(decide(WORK, Book(half, failures=1), 3)) == "some tiles were missing"
    assert decide(WORK, Book(half, failures=3), 3) is None


def test_quarantine_holds_for_the_same_work_only() -> None:
    """With other files, another model or other options it is tried again."""
    aside = Quarantine("coast", "map", "a", "d1", NOW, "truncated", 65)
    assert decide(WORK, Book(aside=aside), 3) is aside
    assert why(decide(WORK, Book(aside=replace(aside, digest="d0")), 3)) == "new"


def test_digest_of_a_map_tells_files_models_and_options() -> None:
    """Each of them makes another digest; the order of options and lists against tuples do not."""
    model: Mapping[str, Any] = {"sha256": "m"}
    same = map_digest([FILE], [model], {"core": 64, "bands": ("red", "nir")})
    assert same == map_digest((FILE,), [model], {"bands": ["red", "nir"], "core": 64})
    others = [
        map_digest([{**FILE, "mtime_ns": 6}], [model], {"core": 64, "bands": ("red", "nir")}),
        map_digest([FILE], [{"sha256": "n"}], {"core": 64, "bands": ("red", "nir")}),
        map_digest([FILE], [model], {"core": 96, "bands": ("red", "nir")}),
        map_digest([FILE, FILE], [model], {"core": 64, "bands": ("red", "nir")}),
    ]
    assert len({same, *others}) == 5


def test_series_is_redone_with_its_dates() -> None:
    """A date more, a date mapped anew, a mask that is another: another digest."""
    one, two = product(), product("b", "d2", date(2021, 1, 1))
    digest = change_digest([one, two], {"rate": 0.01})
    assert digest != change_digest([one], {"rate": 0.01})
    assert digest != change_digest([one, replace(two, result="r-new")], {"rate": 0.01})
    assert digest != change_digest([one, two], {"rate": 0.02})
    assert digest != change_digest([one, two], {"rate": 0.01}, [[1, 2], []])
    assert digest == change_digest([one, two], {"rate": 0.01}, None, ["", ""])
    lacking = change_digest([one, two], {"rate": 0.01}, None, ["", "a"])
    assert lacking != digest
    assert lacking != change_digest([one, two], {"rate": 0.01}, None, ["", "b"])
    # where it lies does not matter, nor when it was published
    assert digest == change_digest([one, replace(two, folder="x", published=NOW)], {"rate": 0.01})


def test_new_dates_are_named() -> None:
    """One by its day, several by their number, a date that is gone as such."""
    dates = [product(str(n), f"d{n}", date(2020 + n, 1, 1)) for n in range(4)]
    before = product("change", "old", kind="change", sources={"2020-01-01": "", "2021-01-01": ""})
    work = change_work("coast", dates[:3], {}, 0, None)
    assert why(decide(work, Book(before), 3)) == "new date 2022-01-01"
    work = change_work("coast", dates, {}, 0, None)
    assert why(decide(work, Book(before), 3)) == "2 new dates"
    work = change_work("coast", dates[:1], {}, 0, None)
    assert why(decide(work, Book(before), 3)) == "dates left"


def test_a_series_has_one_map_a_day() -> None:
    """Maps without a day, and a second one of the same day, are left out and told."""
    maps = [
        product("late", "d3", date(2022, 1, 1)),
        product("b", "d2", date(2020, 1, 1)),
        product("a", "d1", date(2020, 1, 1)),
        product("undated", "d4", None),
    ]
    dates, notes = dates_of(maps)
    assert [p.id for p in dates] == ["a", "late"]
    assert notes == [
        "coast/b is in no series: a is of the same day",
        "coast/undated is in no series: its day is not known",
    ]


@given(st.permutations(range(6)))
def test_order_is_priority_then_age(order: list[int]) -> None:
    """However scenes were found; those without a day come last in their area's turn."""
    works = [
        Work("a", "map", "x", "", date(2021, 1, 1), "", 5),
        Work("b", "map", "x", "", date(2022, 1, 1), "", 5),
        Work("b", "map", "y", "", None, "", 5),
        Work("a", "map", "y", "", date(2019, 1, 1), "", 0),
        Work("c", "map", "x", "", date(2019, 1, 1), "", 0),
        Work("c", "map", "z", "", date(2020, 1, 1), "", -1),
    ]
    assert in_order([works[n] for n in order]) == works


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12, unique=True), st.integers(2, 6))
def test_newest_dates_are_kept(days: list[int], keep: int) -> None:
    """As many days as asked for, and no newer one left out for an older."""
    listed = [product(f"p{d}", day=date(2020, 1, 1) + timedelta(days=d)) for d in days]
    kept = wanted((), listed, keep)
    assert kept == {f"p{d}" for d in sorted(days)[-keep:]}
    assert wanted((), [*listed, product("undated", day=None)], keep) == kept | {"undated"}
    assert wanted((), listed, None) == {p.id for p in listed}
