"""The page of a pass: whole, self-contained, and nothing in it can break it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilemap.errors import StoreError
from tilemap.nightly.facts import Found, PassOutcome, Problem, Quarantine, Waiting
from tilemap.nightly.telling.record import outcome_record
from tilemap.nightly.telling.summary import product_links, read_history, write_summary
from tilemap.nightly.telling.summary_charts import (
    Column,
    columns_chart,
    number,
    speed_columns,
    work_columns,
)
from tilemap.nightly.telling.summary_page import render_summary

Make = Callable[..., PassOutcome]
EVIL = "<script>alert('x')</script> & \"quotes\" javascript:alert(1)"


class Checker(HTMLParser):
    """Collects text and addresses; fails on a tag left open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []
        self.rows: list[int] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember it; no attribute may be a handler of events."""
        if tag not in ("meta", "br"):
            self.open.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        self.addresses += [v or "" for name, v in attrs if name in ("src", "href", "srcset")]
        if tag == "tr":
            self.rows.append(0)
        if tag in ("td", "th"):
            self.rows[-1] += 1

    def handle_endtag(self, tag: str) -> None:
        """It must be the one opened last."""
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An SVG element without content."""

    def handle_data(self, data: str) -> None:
        """Remember it."""
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def check(page: str) -> Checker:
    """The page, after looking at its tags: no script, nothing loaded, nothing left open."""
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    for word in ("<script", "<img", "<link", "@import", "url(", "http-equiv"):
        assert word not in page.replace("&lt;script", "")
    return checker


def words(page: str) -> str:
    """What a person reads."""
    return " ".join(" ".join(check(page).text).split())


def test_everything_is_told(night: PassOutcome) -> None:
    """Status, figures, work, failures, quarantine with its command, what waits, what was run."""
    text = words(render_summary(outcome_record(night)))
    for expected in (
        "done in part, exit code 3", "5 done (1 in part), 2 failed, 1 source not read",
        "Pass 20261126T021500Z on maps-01, began 2026-11-26 02:15 UTC, took 6 min 32 s",
        "paraguay, https://stac.example/api: the API answered 502", "1 change compared; 212 done",
        "1.62 Mpx/s", "482.2 million pixels", "38,575 km²", "0.35 USD cost of the pass",
        "0.00902 USD per 1,000 km²; 3.20 USD an hour",
        "paraguay new 3 2026-11-20, 2026-11-25, 2026-11-22", "inputs changed 1 2026-11-24",
        "virginia/ 2026-11-23 failed the host answered 503 four times 74",
        "2026-11-26 1 scene.tif: strip 12 cannot be decoded", "Set aside 2",
        "tilemap ledger retry virginia/2026-09-02", "1 min 11 s 1.69 9,644",
        "Seconds by step", "1,611.6 s", "virginia/ change 2026-11-23 a date is new",
        "b4.tif is 12 s old", "ucayali/2026-10-02/91c04d7e3f2a", "died on maps-02", "2.7.1",
        "logs/20261126T021500Z.jsonl",
    ):  # fmt: skip
        assert expected in text, expected


def test_a_quiet_night(quiet: PassOutcome) -> None:
    """What is empty leaves its part out."""
    text = words(render_summary(outcome_record(replace(quiet, price_per_hour=None))))
    for expected in ("all is well, exit code 0", "Nothing was new", "no price given"):
        assert expected in text
    for absent in ("failed", "Set aside", "passes", "by step", "waits", "Removed", "Notes"):
        assert absent not in text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"status": "failed", "exit_code": 74, "error": "no room"}, "ended early, exit code 74"),
        ({"status": "over", "exit_code": 0}, "time was up, exit code 0"),
        ({"dry": True, "done": ()}, "What would be done"),
    ],
)
def test_other_ends(make: Make, changes: dict[str, Any], told: str) -> None:
    """Ended early, out of time, a dry run."""
    assert told in words(render_summary(outcome_record(make(**changes))))


def test_hostile_names_stay_words(make: Make, night: PassOutcome) -> None:
    """Every text of every fact is markup that wants to be run; none is."""
    when = night.started
    done = replace(night.done[0], area=EVIL, id=EVIL, why=EVIL, error=EVIL, folder=EVIL,
                   steps={EVIL: 1.0})  # fmt: skip
    evil = make(
        id=EVIL, root=EVIL, config=EVIL, host=EVIL, error=EVIL, currency=EVIL,
        done=(done, replace(done, status="failed")),
        copying=(Found(EVIL, EVIL, None, (), (), reason=EVIL),),
        waiting=(Waiting(EVIL, "map", EVIL, None, EVIL),),
        quarantined=(Quarantine(EVIL, "map", EVIL, "", when, EVIL, 65),),
        problems=(Problem(EVIL, EVIL, EVIL),), removed=(EVIL,), notes=(EVIL,),
        versions={EVIL: EVIL},
    )  # fmt: skip
    record = outcome_record(evil)
    history = [record | {"started": EVIL, "counts": EVIL, "mpx_per_s": EVIL}]
    page = render_summary(record, history, {EVIL: {"report": EVIL, "map": EVIL}})
    assert "alert('x')" in words(page)


def test_history_is_drawn(night: PassOutcome, quiet: PassOutcome) -> None:
    """A column for each pass, this one last; the first pass of all has no chart."""
    before = [outcome_record(quiet), outcome_record(night), {}]
    page = render_summary(outcome_record(night), before)
    assert "The last 4 passes" in words(page)
    assert page.count("5 done, 2 failed</title>") == 2
    assert page.count("<title>None: 0 done, 0 failed</title>") == 1
    assert "passes" not in words(render_summary(outcome_record(night)))


@given(st.lists(st.one_of(st.none(), st.integers(), st.floats(), st.text())))
def test_a_record_of_before_may_hold_anything(values: list[Any]) -> None:
    """A file that another version or another hand wrote cannot break the page."""
    records = [{"counts": {"ok": v, "failed": v}, "mpx_per_s": v, "started": v} for v in values]
    for columns in (work_columns(records), speed_columns(records)):
        check(f"<main>{columns_chart(columns, 'label', (('good', 'done'),))}</main>")
    assert all(number(value) >= 0 for value in values)


def test_columns_are_as_high_as_their_values() -> None:
    """Heights in proportion, on a common base, each part upon the one before."""
    columns = [Column("2026-01-01", (("good", 2.0), ("bad", 1.0)), "a"),
               Column("2026-01-02", (("good", 6.0),), "b")]  # fmt: skip
    page = columns_chart(columns, "work", ())
    found = []

    class Rects(HTMLParser):
        def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag == "rect":
                found.append({k: float(v or 0) for k, v in attrs if k in ("y", "height", "x")})

    Rects().feed(page)
    two, one, six = found
    assert two["height"] * 3 == pytest.approx(six["height"], abs=0.2)
    assert one["height"] * 6 == pytest.approx(six["height"], abs=0.5)
    assert two["y"] + two["height"] == pytest.approx(six["y"] + six["height"], abs=0.2)
    assert one["y"] + one["height"] == pytest.approx(two["y"], abs=0.2)
    assert columns_chart([], "work", ()) == columns_chart(columns[:0], "work", ()) == ""


def test_long_lists_fold_and_end(make: Make, night: PassOutcome) -> None:
    """Work stays open, what waits is folded; beyond a thousand rows they are counted."""
    done = tuple(replace(night.done[0], id=f"s{i}") for i in range(1200))
    waiting = tuple(Waiting("a", "map", f"w{i}", None, "new") for i in range(300))
    page = render_summary(outcome_record(make(done=done, waiting=waiting)))
    text = words(page)
    assert "What was done 1,200" in text
    assert "and 200 more, see summary.json" in text
    assert "ucayali new 1,200 s0, s1, s2, s3, s4, s5 and 1,194 more" in text
    assert "<details><summary>All 300</summary>" in page
    assert set(check(page).rows) <= {2, 3, 4, 5, 7}  # nothing to open, no column of files


def test_files_and_their_links(tmp_path: Path, night: PassOutcome) -> None:
    """Every link leads, from where the page lies, to a file that is there."""
    products = tmp_path / "pro ducts" / "a#b?c%"
    names = {"map": "landcover.tif", "change": "change.tif"}
    for done in night.done[:2] + night.done[-1:]:
        assert done.folder is not None
        (products / done.folder).mkdir(parents=True)
        for name in ("report.html", names[done.kind]):
            (products / done.folder / name).write_text("")
    page = write_summary(tmp_path / "passes" / night.id, night, (), products)
    addresses = check(page.read_text()).addresses
    assert len(addresses) == 6
    assert all((page.parent / unquote(address)).is_file() for address in addresses)
    assert not any(":" in address or address.startswith("/") for address in addresses)


def test_no_links_to_what_is_not_there(tmp_path: Path, night: PassOutcome) -> None:
    """A product that is published elsewhere only has no link."""
    assert product_links(night, tmp_path, tmp_path / "products") == {}


def test_the_record_beside_it(tmp_path: Path, night: PassOutcome) -> None:
    """The same as JSON; nothing half-written stays."""
    page = write_summary(tmp_path / "a" / "b", night)
    assert page == tmp_path / "a" / "b" / "summary.html"
    assert json.loads(page.with_name("summary.json").read_text()) == outcome_record(night)
    assert {path.name for path in page.parent.iterdir()} == {"summary.html", "summary.json"}


def test_what_stands_there_stays_if_it_cannot_be_written(
    tmp_path: Path, night: PassOutcome, quiet: PassOutcome
) -> None:
    """A page is replaced whole or not at all."""
    write_summary(tmp_path, quiet)
    before = (tmp_path / "summary.html").read_text()
    (tmp_path / "summary.html.partial").mkdir()
    (tmp_path / "summary.html.partial" / "x").write_text("")
    with pytest.raises(OSError, match=r"summary\.html"):
        write_summary(tmp_path, night)
    assert (tmp_path / "summary.html").read_text() == before
    assert issubclass(StoreError, OSError)


def test_history_from_disk(tmp_path: Path, make: Make) -> None:
    """The newest before this pass, oldest first; damaged records and other folders are left out."""
    for day in range(1, 10):
        write_summary(tmp_path / f"2026110{day}T020000Z", make(id=f"2026110{day}T020000Z"))
    (tmp_path / "20261103T020000Z" / "summary.json").write_text('{"pass": "2026')
    (tmp_path / "20261104T020000Z" / "summary.json").write_text("[1]")
    (tmp_path / "20261105T020000Z" / "summary.json").write_bytes(b"\xff\xfe")
    (tmp_path / "20261106T020000Z" / "summary.json").unlink()
    (tmp_path / "notes").mkdir()
    (tmp_path / "20261107T020000Z.txt").write_text("")
    found = read_history(tmp_path, before="20261109T020000Z", most=7)
    assert [record["pass"][6:8] for record in found] == ["02", "07", "08"]
    assert read_history(tmp_path / "none") == []
