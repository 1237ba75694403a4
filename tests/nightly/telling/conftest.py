"""A night as it may be: work of all kinds, a broken file, one still being copied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from tilemap.nightly.facts import Done, Found, PassOutcome, Problem, Quarantine, Waiting

BEGAN = datetime(2026, 11, 26, 2, 15, tzinfo=UTC)
STEPS = {"tile": 31.2, "segment": 402.9, "stitch": 22.4, "export": 19.0}


def _map(area: str, day: str, seconds: float, **more: Any) -> Done:
    fields = {
        "pixels": 120_560_000, "km2": 9_643.7, "steps": STEPS, "why": "new", "status": "ok",
        "folder": f"{area}/{day}/3f2a91c04d7e",
    }  # fmt: skip
    return Done(area, "map", day, date.fromisoformat(day), started=BEGAN, seconds=seconds,
                **(fields | more))  # fmt: skip


def _bad(area: str, day: str, error: str, status: str, code: int) -> Done:
    return _map(area, day, 1.9, status=status, error=error, exit_code=code, pixels=0, km2=None,
                steps={}, folder=None)  # fmt: skip


def make_night(**changes: Any) -> PassOutcome:
    """Four scenes and two series done, two scenes failed, one in part; prices known."""
    done = (
        _map("ucayali", "2026-11-21", 71.3),
        _map("ucayali", "2026-11-24", 68.8, why="inputs changed"),
        _map("paraguay", "2026-11-20", 80.2, steps=STEPS | {"tile": 77.0}),
        _map("paraguay", "2026-11-25", 77.5, status="partial", exit_code=3,
             error="2 tiles failed, the first with: not enough memory"),
        _bad("paraguay", "2026-11-22", "scene.tif: strip 12 cannot be decoded: the file is cut off",
             "quarantined", 65),
        _bad("virginia", "2026-11-23", "the host answered 503 four times", "failed", 74),
        Done("ucayali", "change", "change", date(2026, 11, 24), "ok", "a date is new", BEGAN, 44.1,
             None, 0, 361_000_000, 9_643.7, "ucayali/change/77aa01bc9d2e", {"change": 61.0}),
    )  # fmt: skip
    night = PassOutcome(
        id="20261126T021500Z",
        root="/srv/maps",
        config="/etc/tilemap/nightly.toml",
        host="maps-01",
        started=BEGAN,
        ended=BEGAN + timedelta(seconds=391.5),
        seconds=391.5,
        status="partial",
        exit_code=3,
        done=done,
        skipped=212,
        copying=(
            Found("virginia", "2026-11-26", date(2026, 11, 26), ("/in/b4.tif",), (), None,
                  "copying", "b4.tif is 12 s old; a file must rest for 120 s"),
        ),
        waiting=(Waiting("virginia", "change", "change", date(2026, 11, 23), "a date is new"),),
        quarantined=(
            Quarantine("paraguay", "map", "2026-11-22", "ab" * 32, BEGAN + timedelta(minutes=3),
                       "scene.tif: strip 12 cannot be decoded: the file is cut off", 65, 1),
            Quarantine("virginia", "map", "2026-09-02", "cd" * 32, BEGAN - timedelta(85),
                       "bands must be blue, green, red, nir; the scene has three", 65, 3),
        ),
        problems=(Problem("paraguay", "https://stac.example/api", "the API answered 502"),),
        removed=("ucayali/2026-10-02/91c04d7e3f2a",),
        notes=("the lock of a pass that had died on maps-02 was taken over",),
        versions={"tilemap": "0.1.0", "python": "3.11.9", "torch": "2.7.1", "zarr": "3.1.0"},
        price_per_hour=3.2,
        currency="USD",
    )  # fmt: skip
    return replace(night, **changes)


@pytest.fixture
def night() -> PassOutcome:
    """One pass that ended in part."""
    return make_night()


@pytest.fixture
def quiet() -> PassOutcome:
    """One pass that found nothing new."""
    return make_night(
        status="ok", exit_code=0, done=(), copying=(), waiting=(), quarantined=(), problems=(),
        removed=(), notes=(), seconds=3.1, ended=BEGAN + timedelta(seconds=3.1),
    )  # fmt: skip


@pytest.fixture(scope="session")
def make() -> Callable[..., PassOutcome]:
    """Such a pass with other fields."""
    return make_night
