"""Facts that the tests of the ledger write into it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from tilemap.nightly.facts import Found, Product, Quarantine
from tilemap.nightly.ledger import Ledger
from tilemap.nightly.lock import Holder, Lock, acquire

NOW = datetime(2026, 11, 26, 2, 15, tzinfo=UTC)
ME = Holder.here("a test")
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where a sync costs nothing: thousands of them say no more than one."""


def found(key: str = "1985", mtime: int = 1, **changes: Any) -> Found:
    """A scene of one file."""
    scene = Found(
        "pucallpa", key, date(1985, 8, 1), (f"/in/{key}.tif",),
        ({"name": f"{key}.tif", "size": 9, "mtime_ns": mtime},), newest=12.5,
    )  # fmt: skip
    return replace(scene, **changes)


def product(key: str = "1985", version: str = "ab12", **changes: Any) -> Product:
    """A map of it."""
    made = Product(
        area="pucallpa", kind="map", id=key, version=version, digest=version * 16, result="r",
        day=date(1985, 8, 1), status="ok", folder=f"pucallpa/{key}/{version}",
        run=f"work/pucallpa/{key}/{version}", item={"id": key, "assets": {"b": 1, "a": 2}},
        published=NOW, pixels=12, km2=0.5, seconds=1.25, sources={"title": "/in/a.tif"},
        fingerprint=({"name": "a.tif", "size": 9},),
    )  # fmt: skip
    return replace(made, **changes)


def quarantine(key: str = "1985", **changes: Any) -> Quarantine:
    """What set it aside."""
    return replace(Quarantine("pucallpa", "map", key, "d", NOW, "is no raster", 65, 2), **changes)


@contextmanager
def held(ledger: Ledger) -> Iterator[Lock]:
    """Its lock, with a command that tests know."""
    with acquire(ledger, command="a test") as lock:
        yield lock
