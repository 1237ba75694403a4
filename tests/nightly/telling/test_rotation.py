"""Old logs go by their names."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tilemap.nightly.telling.rotation import began, old_passes, rotate

NOW = datetime(2026, 11, 26, 2, 15, tzinfo=UTC)
DAY = 86400.0


def name(days: int) -> str:
    """Id of a pass so many days ago."""
    return (NOW - timedelta(days=days)).strftime("%Y%m%dT%H%M%SZ")


@given(st.lists(st.integers(-50, 400), unique=True), st.floats(0, 300))
def test_only_what_is_old_and_never_the_newest(days: list[int], keep: float) -> None:
    """What goes is older than asked for; ten stay; what goes is older than all that stays."""
    ids = [name(day) for day in days]
    gone = old_passes(ids, keep * DAY, NOW)
    stay = set(ids) - set(gone)
    assert len(stay) >= min(10, len(ids))
    assert all(NOW - began(one)[0] > timedelta(days=keep) for one in gone)  # type: ignore[index]
    assert all(one < other for one in gone for other in stay)
    assert len(gone) == min(sum(day > keep for day in days), max(len(ids) - 10, 0))


def test_file_times_do_not_matter(tmp_path: Path) -> None:
    """All touched a moment ago, or in another century: names decide."""
    for index, days in enumerate(range(15)):
        path = tmp_path / f"{name(days)}.jsonl"
        path.write_text("{}")
        os.utime(path, (index, index) if days % 2 else None)
    (tmp_path / "notes.txt").write_text("kept")
    (tmp_path / "20000101T000000Z.txt").write_text("kept")
    (tmp_path / "20009901T000000Z.jsonl").write_text("no such month")
    removed = rotate(tmp_path, 11.5 * DAY, NOW)
    assert [path.name for path in removed] == [f"{name(days)}.jsonl" for days in (14, 13, 12)]
    assert len(list(tmp_path.iterdir())) == 12 + 3


def test_a_clock_that_jumped_back_removes_nothing(tmp_path: Path) -> None:
    """Every name lies in the future then."""
    for days in range(30):
        (tmp_path / f"{name(days)}.jsonl").write_text("{}")
    assert rotate(tmp_path, DAY, NOW - timedelta(days=1000)) == []
    assert rotate(tmp_path / "none", DAY, NOW) == []


def test_two_passes_in_one_second(tmp_path: Path) -> None:
    """The number at the end counts, as a number."""
    ids = [name(99), *(f"{name(99)}-{number}" for number in range(2, 13))]
    assert old_passes(ids, DAY, NOW) == ids[:2]


def test_summaries_of_old_passes(tmp_path: Path) -> None:
    """A folder goes with what a pass wrote; one in which somebody put a file stays."""
    for days in range(13):
        folder = tmp_path / name(days)
        folder.mkdir()
        (folder / "summary.html").write_text("")
        (folder / "summary.json").write_text("")
    (tmp_path / name(11) / "mine.txt").write_text("")
    removed = rotate(tmp_path, DAY, NOW)
    assert {path.name for path in removed} == {name(12), name(10)}
    assert (tmp_path / name(11) / "mine.txt").is_file()
