"""A pass as JSON and as lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace

import pytest

from tilemap.nightly.facts import Done, PassOutcome, Waiting
from tilemap.nightly.telling.record import (
    ended_well,
    headline,
    mpx_per_s,
    outcome_record,
    pixels,
    summary_lines,
)

Make = Callable[..., PassOutcome]


def test_everything_of_an_outcome_is_in_the_record(night: PassOutcome) -> None:
    """No field of the outcome or of its work is forgotten, and it is JSON as it stands."""
    record = outcome_record(night)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    named = {"id": "pass", "done": "work", "skipped": "counts"}
    assert {named.get(f.name, f.name) for f in fields(PassOutcome)} <= record.keys()
    assert {f.name for f in fields(Done)} <= record["work"][0].keys()
    assert record["started"] == "2026-11-26T02:15:00Z"
    assert record["quarantined"][0]["since"] == "2026-11-26T02:18:00Z"
    assert record["copying"][0]["reason"].startswith("b4.tif is 12 s old")


def test_figures(night: PassOutcome) -> None:
    """Pixels and area of scenes once, speed while mapping, cost of the whole time."""
    record = outcome_record(night)
    seconds = 71.3 + 68.8 + 80.2 + 77.5
    assert record["pixels"] == pixels(night) == 4 * 120_560_000
    assert record["mpx_per_s"] == pytest.approx(4 * 120.56 / seconds)
    assert record["km2"] == pytest.approx(4 * 9643.7)
    assert record["cost"] == pytest.approx(3.2 * 391.5 / 3600)
    assert record["cost_per_1000_km2"] == pytest.approx(record["cost"] / 38.5748)
    assert record["seconds_by_step"]["tile"] == pytest.approx(3 * 31.2 + 77.0)
    assert record["seconds_by_step"]["change"] == 61.0
    counts = record["counts"]
    assert (counts["ok"], counts["partial"], counts["failed"], counts["quarantined"]) == (
        4,
        1,
        1,
        1,
    )
    assert (counts["maps"], counts["changes"], counts["skipped"]) == (6, 1, 212)


def test_nothing_done(quiet: PassOutcome) -> None:
    """No figure divides by nothing."""
    record = outcome_record(quiet)
    assert mpx_per_s(quiet) == 0.0
    assert record["cost_per_1000_km2"] is None
    assert outcome_record(replace(quiet, price_per_hour=None))["cost"] is None
    assert summary_lines(quiet) == ["Nothing was new; 212 done before; 0.00276 USD; 3.1 s"]


def test_no_secret_is_in_the_record(make: Make) -> None:
    """Neither of errors nor of notes nor of sources."""
    address = "https://me:hunter2@host/a.tif?sig=hunter2"
    night = make(error=f"{address}: 403", notes=(address,))
    told = json.dumps(outcome_record(night)) + "\n".join(summary_lines(night))
    assert "hunter2" not in told
    assert "https://host/a.tif?..." in told


@pytest.mark.parametrize(
    ("changes", "well"),
    [
        ({}, False),
        ({"status": "ok", "done": ()}, False),
        ({"status": "ok", "done": (), "problems": ()}, True),
        ({"status": "over", "done": (), "problems": ()}, True),
        ({"status": "over", "problems": ()}, False),
        ({"status": "failed", "done": (), "problems": ()}, False),
    ],
)
def test_what_ended_well(make: Make, changes: dict[str, object], well: bool) -> None:
    """A budget that ended is no failure; work that failed and sources not read are."""
    assert ended_well(make(**changes)) is well


def test_headlines(make: Make, quiet: PassOutcome) -> None:
    """Every end has its sentence."""
    assert headline(make()) == "5 done (1 in part), 2 failed, 1 source not read"
    assert headline(make(status="failed")) == "Ended early, 5 done, 2 failed"
    assert headline(replace(quiet, status="over")) == "The time was up: nothing was new, 0 waiting"
    assert headline(replace(quiet, dry=True)) == "Dry run: 0 pieces of work to do"


def test_lines_of_a_night(night: PassOutcome) -> None:
    """What went wrong comes first, what was set aside before is there, the total is last."""
    lines = summary_lines(night)
    assert lines[0] == "problem      paraguay: the API answered 502"
    assert lines[1].startswith("failed       virginia/2026-11-23, new, 1.9 s: the host answered")
    assert lines[2].startswith("quarantined  paraguay/2026-11-22")
    assert "ok           ucayali, change, a date is new, 44.1 s, 8.19 Mpx/s" in lines
    assert sum("2026-11-22" in line for line in lines) == 1
    assert any(line.startswith("set aside    virginia/2026-09-02: bands must") for line in lines)
    assert lines[-1] == (
        "5 done (1 in part), 2 failed, 1 source not read; 212 done before; 1.62 Mpx/s; "
        "38,575 km2; 0.35 USD; 0.00902 USD per 1,000 km2; 6 min 32 s"
    )


def test_many_lines_are_counted(make: Make) -> None:
    """At most so many, and how many more there are; failures are never among those."""
    waiting = tuple(Waiting("a", "map", f"s{i}", None, "new") for i in range(300))
    lines = summary_lines(make(waiting=waiting, error="no room"))
    assert len(lines) == 23
    assert lines[20] == "and 290 more"
    assert lines[21] == "ended early: no room"
    assert any("virginia/2026-11-23" in line for line in lines)


def test_a_terminal_is_not_steered(make: Make) -> None:
    """Escape sequences and line ends in what others named."""
    night = make(error="\x1b]0;owned\x07\nline two")
    assert all(line.isprintable() for line in summary_lines(night))
    assert "ended early: ?]0;owned? line two" in summary_lines(night)


def test_a_dry_run_says_what_it_would_do(make: Make) -> None:
    """The words differ: nothing waits, nothing was done."""
    lines = summary_lines(make(dry=True, done=(), problems=(), quarantined=(), copying=()))
    assert lines[0] == "would do     virginia, change: a date is new"
