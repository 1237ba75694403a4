"""Ledgers of older and of newer versions."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tilemap.errors import ConfigError
from tilemap.nightly import migrations
from tilemap.nightly.ledger import (
    LEDGER_FILE,
    Ledger,
)

HERE = Path(__file__).parent


def _schema(connection: sqlite3.Connection) -> str:
    """What the tables are, as one text."""
    rows = connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")
    return "".join(f"{row[0]};\n" for row in rows if not row[0].startswith("CREATE TABLE sqlite_"))


def _stored(version: int) -> Path:
    return HERE / "schemas" / f"version{version}.sql"


def _make(path: Path, version: int) -> None:
    """A ledger as tilemap of an older version left it, with a row in each table."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(_stored(version).read_text())


@pytest.mark.parametrize("version", range(1, len(migrations.MIGRATIONS) + 1))
def test_a_released_step_still_makes_what_it_made(version: int, tmp_path: Path) -> None:
    """Steps up to each version give the stored schema: what is released is not edited."""
    _make(tmp_path / "stored", version)
    with (
        closing(sqlite3.connect(tmp_path / "stored")) as stored,
        closing(sqlite3.connect(":memory:", isolation_level=None)) as made,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(migrations, "MIGRATIONS", migrations.MIGRATIONS[:version])
        migrations.migrate(made, tmp_path)
        assert _schema(made) == _schema(stored)
        for pragma in ("user_version", "application_id"):
            assert (
                made.execute(f"PRAGMA {pragma}").fetchall()
                == stored.execute(f"PRAGMA {pragma}").fetchall()
            )


@pytest.mark.parametrize("version", range(1, len(migrations.MIGRATIONS) + 1))
@pytest.mark.parametrize("how", ["open", "peek"])
def test_an_older_ledger_keeps_what_it_knows(version: int, how: str, tmp_path: Path) -> None:
    """Every stored version, opened and looked at; looking leaves the file as it was."""
    path = tmp_path / LEDGER_FILE
    _make(path, version)
    before = path.read_bytes()
    with getattr(Ledger, how)(path) as ledger:
        (scene,) = ledger.scenes()
        assert scene.found.id == "1985"
        assert [row.id for row in ledger.passes()] == ["p1"]
        assert [row.steps for row in ledger.attempts()] == [{"tile": 0.5}]
        assert [row.folder for row in ledger.products()] == ["pucallpa/1985/ab12"]
        assert [row.reason for row in ledger.quarantines()] == ["is no raster"]
    with closing(sqlite3.connect(path)) as connection:
        now = migrations.version_of(connection)
    if how == "open":
        assert now == len(migrations.MIGRATIONS)
    else:
        assert path.read_bytes() == before


def test_a_step_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that fails leaves the version before it, with its tables; one that works is kept."""
    path = tmp_path / LEDGER_FILE
    Ledger.open(path).close()
    old = migrations.MIGRATIONS
    good = ("ALTER TABLE scene ADD COLUMN note TEXT NOT NULL DEFAULT 'none'",)
    bad = ("ALTER TABLE scene ADD COLUMN other TEXT", "INSERT INTO nowhere VALUES (1)")
    monkeypatch.setattr(migrations, "MIGRATIONS", (*old, good, bad))
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        Ledger.open(path)
    with closing(sqlite3.connect(path)) as connection:
        assert migrations.version_of(connection) == len(old) + 1
        names = [row[1] for row in connection.execute("PRAGMA table_info(scene)")]
    assert "note" in names
    assert "other" not in names
    monkeypatch.setattr(migrations, "MIGRATIONS", (*old, good))
    with Ledger.open(path) as ledger:
        assert ledger.scenes() == []


@pytest.mark.parametrize("how", [Ledger.open, Ledger.peek])
def test_a_newer_ledger_is_refused_and_not_touched(how: Any, tmp_path: Path) -> None:
    """Both versions and what to do are named; no byte of the folder changes."""
    path = tmp_path / LEDGER_FILE
    Ledger.open(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
        connection.execute("PRAGMA journal_mode = DELETE")
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.iterdir()}
    with pytest.raises(
        ConfigError, match=r"is of version 99, this tilemap reads up to 2; use the tilemap"
    ):
        how(path)
    assert {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.iterdir()} == before
