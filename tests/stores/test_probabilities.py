"""What a run keeps of every class: rounded once, told whose it is, never changed by a reader."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox

from tilemap.errors import StoreError
from tilemap.geometry import Tile, TileGrid, Window
from tilemap.probability import VALUES
from tilemap.stores.chunks import finish_group
from tilemap.stores.marks import Mark
from tilemap.stores.probabilities import ProbabilityStore, StoredClass

GRID = TileGrid((29, 43), 16, 8, 4)
GEOBOX = GeoBox(GRID.scene, Affine(0.01, 0, -75, 0, -0.01, 3), "EPSG:4326")
KINDS = (StoredClass(3, "water", "#0000ff"), StoredClass(7, "land", "#00ff00"))
ABOUT = {"digest": "d", "model": "m", "model_sha256": "s", "scene": "n", "date": None}
WHOLE = np.random.default_rng(6).integers(0, 255, (2, *GRID.scene)).astype(np.uint8)


def _store(path: Path, date: str | None = None) -> ProbabilityStore:
    store = ProbabilityStore.make(path, GRID, GEOBOX, KINDS, {**ABOUT, "date": date})
    for tile in GRID.tiles():
        store.write(tile, WHOLE[:, *GRID.core_window(tile).slices()])
    return ProbabilityStore(path)


def test_it_tells_whose_it_is(tmp_path: Path) -> None:
    """Cut, grid, classes, model and day, from the file alone."""
    store = _store(tmp_path / "p.zarr", "2020-05-18T00:00:00+00:00")
    assert store.grid == GRID
    assert store.geobox == GEOBOX
    assert store.classes == KINDS
    assert (store.model_sha256, store.digest) == ("s", "d")
    assert store.date == datetime(2020, 5, 18, tzinfo=UTC)
    assert store.count == 2
    np.testing.assert_array_equal(store.read_window(Window(3, 5, 29, 43)), WHOLE[:, 3:, 5:])
    assert _store(tmp_path / "q.zarr").date is None


def test_what_is_no_such_store_is_refused(tmp_path: Path) -> None:
    """A group without its attributes; no group at all."""
    zarr.create_group(str(tmp_path / "other.zarr"), zarr_format=3)
    with pytest.raises(StoreError, match="must be what `segment --probabilities` left"):
        ProbabilityStore(tmp_path / "other.zarr")
    with pytest.raises(StoreError, match="cannot open"):
        ProbabilityStore(tmp_path / "none.zarr")


def test_a_reader_changes_nothing_and_a_verifier_finds_what_is_damaged(tmp_path: Path) -> None:
    """Reading a damaged core says what to do; only ``verify`` takes its mark away."""
    store = _store(tmp_path / "p.zarr")
    assert store.verify()
    chunk = tmp_path / "p.zarr" / "probability" / "c" / "0" / "1" / "2"
    content = bytearray(chunk.read_bytes())
    content[-9] ^= 1
    chunk.write_bytes(bytes(content))
    with pytest.raises(StoreError, match="the same `tilemap segment` on that directory mends it"):
        store.read_window(Window(10, 30, 20, 40))
    assert store.marks.get(Tile(1, 2)) is Mark.DONE
    assert not store.verify()
    assert store.marks.get(Tile(1, 2)) is Mark.MISSING
    assert store.marks.get(Tile(1, 1)) is Mark.DONE
    store.write(Tile(1, 2), WHOLE[:, 16:, 32:])
    assert store.verify()
    store.write_blank(Tile(0, 0))
    assert not store.verify()


def test_a_store_of_equal_steps_is_read_as_one_of_today(tmp_path: Path) -> None:
    """Stores used to hold ``rint(254 p)`` and did not say so; their numbers mean the same."""
    _store(tmp_path / "p.zarr")
    begun = (tmp_path / "p.zarr").rename(tmp_path / "p.zarr.partial")
    group = zarr.open_group(str(begun), mode="r+")
    assert group.attrs["tilemap:probability_of_byte"] == VALUES[:255].tolist()
    del group.attrs["tilemap:probability_of_byte"]
    finish_group(tmp_path / "p.zarr")
    store = ProbabilityStore(tmp_path / "p.zarr")
    got = store.read_window(Window(3, 5, 29, 43))
    assert np.abs(VALUES[got] - WHOLE[:, 3:, 5:] / 254).max() <= 0.0052
    (tmp_path / "p.zarr" / "probability" / "c" / "0" / "1" / "2").unlink()
    with pytest.raises(
        StoreError, match="an earlier version made it; `tilemap segment` with `fresh`"
    ):
        store.read_window(Window(10, 30, 20, 40))
