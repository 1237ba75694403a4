"""Stores on S3 keep the promises of local ones: the same numbers, missing and damaged told."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from tilemap.errors import DamagedError, OutputError, StoreError
from tilemap.geometry import Tile, TileGrid
from tilemap.stores.chunks import (
    add_array,
    array_of,
    ask_each,
    create_group,
    finish_group,
    has_chunk,
    open_group,
    read_chunk,
    remove_chunk,
    snapshot,
    sync_chunk,
    write_chunk,
)
from tilemap.stores.geotiff import SceneRequest, open_scene
from tilemap.stores.maps import CoreStats, MapStore, Seam
from tilemap.stores.marks import Mark
from tilemap.stores.predictions import Prediction, PredictionStore, frame_windows
from tilemap.stores.remote.address import AllowList
from tilemap.stores.remote.claim import check_claim, claim, claimed, is_damaged, release
from tilemap.stores.remote.place import Place, RemotePlace
from tilemap.stores.series import DateStore
from tilemap.stores.tiles import TileStore
from tilemap.testing import random_scene, write_geotiff

from .conftest import Cloud
from .server import Fault, RangeServer

GRID = TileGrid(scene=(75, 110), core=32, halo=8, blend=4)


@pytest.fixture
def place(cloud: Cloud) -> RemotePlace:
    """A folder of the bucket."""
    return RemotePlace.parse(cloud.url("runs/one"), cloud.allow)


def array_at(place: Place) -> zarr.Array:
    """An array of 5 x 7 numbers in chunks of 2 x 3, without chunks."""
    group = create_group(place, {"a": 1})
    add_array(group, "x", (5, 7), (2, 3), np.int16, ("y", "x"))
    finish_group(place)
    return array_of(open_group(place), "x")


def test_chunks_on_s3(place: RemotePlace, cloud: Cloud):
    """Written, found, read, removed; one chunk is one object; ragged ones at the edge too."""
    array = array_at(place / "a.zarr")
    before = cloud.listing()
    for index, shape in (((0, 0), (2, 3)), ((2, 2), (1, 1))):
        value = np.arange(np.prod(shape), dtype=np.int16).reshape(shape) + 7
        assert not has_chunk(array, index)
        write_chunk(array, index, value)
        sync_chunk(array, index)
        assert has_chunk(array, index)
        np.testing.assert_array_equal(read_chunk(array, index), value)
    new = set(cloud.listing()) - set(before)
    assert new == {"runs/one/a.zarr/x/c/0/0", "runs/one/a.zarr/x/c/2/2"}
    remove_chunk(array, (0, 0))
    remove_chunk(array, (0, 0))
    assert not has_chunk(array, (0, 0))


def test_a_chunk_of_fill_is_written_too(place: RemotePlace):
    """Absence would prove nothing."""
    array = array_at(place / "a.zarr")
    write_chunk(array, (1, 1), np.zeros((2, 3), np.int16))
    assert has_chunk(array, (1, 1))


def test_a_missing_chunk_is_an_error(place: RemotePlace):
    """Never zeros."""
    array = array_at(place / "a.zarr")
    write_chunk(array, (0, 0), np.ones((2, 3), np.int16))
    with pytest.raises(StoreError, match=r"chunk \(1, 2\) of x must be written"):
        read_chunk(array, (1, 2))


def test_a_damaged_chunk_is_an_error(place: RemotePlace, cloud: Cloud):
    """A flipped bit fails the checksum."""
    array = array_at(place / "a.zarr")
    write_chunk(array, (0, 0), np.ones((2, 3), np.int16))
    key = "runs/one/a.zarr/x/c/0/0"
    body = bytearray(cloud.get(key))
    body[len(body) // 2] ^= 4
    cloud.put(key, bytes(body))
    with pytest.raises(StoreError, match="damaged"):
        read_chunk(array, (0, 0))


def test_a_group_that_was_never_finished(place: RemotePlace):
    """What a kill left in the middle of making it cannot be opened."""
    group = create_group(place / "a.zarr", {})
    add_array(group, "x", (5, 7), (2, 3), np.int16, ("y", "x"))
    with pytest.raises(StoreError, match="never completed"):
        open_group(place / "a.zarr")
    with pytest.raises(StoreError, match="cannot open the store s3://"):
        open_group(place / "nothing.zarr")


def test_many_questions_for_the_price_of_one(place: RemotePlace, cloud: Cloud):
    """A snapshot answers from its list; what came later is not in it."""
    array = array_at(place / "a.zarr")
    write_chunk(array, (0, 0), np.ones((2, 3), np.int16))
    listed = array_of(open_group(snapshot(place / "a.zarr")), "x")
    write_chunk(array, (0, 1), np.ones((2, 3), np.int16))
    assert list(ask_each(place, lambda i: has_chunk(listed, i), [(0, 0), (0, 1), (1, 1)])) == [
        True, False, False,
    ]  # fmt: skip
    assert has_chunk(array, (0, 1))
    assert snapshot(Path("here")) == Path("here")


def prediction(tile: Tile, grid: TileGrid = GRID) -> Prediction:
    """Something for one tile that no other tile has."""
    draw = np.random.default_rng(tile.row * 100 + tile.col)
    shape = grid.core_window(tile).shape
    frame = {
        side: draw.random((3, *window.shape)).astype(np.float16)
        for side, window in frame_windows(grid, tile).items()
    }
    return Prediction(
        draw.integers(0, 3, shape, dtype=np.uint8), draw.integers(0, 100, shape, dtype=np.uint8),
        frame, {"entropy": draw.integers(0, 100, shape, dtype=np.uint8)},
        draw.integers(0, 254, (3, *shape), dtype=np.uint8),
    )  # fmt: skip


def test_predictions_are_the_same_here_and_there(place: RemotePlace, tmp_path: Path):
    """Every array of every tile, ragged ones included."""
    both = []
    for where in (tmp_path / "p.zarr", place / "p.zarr"):
        PredictionStore.create(where, GRID, 3, "digest", ("entropy",), True)
        store = PredictionStore(pickle.loads(pickle.dumps(where)), GRID)
        for tile in GRID.tiles():
            assert not store.has(tile)
            store.write(tile, prediction(tile))
            assert store.has(tile)
        both.append(store)
    here, there = both
    for tile in GRID.tiles():
        for one, two in zip(here.read_core(tile), there.read_core(tile), strict=True):
            np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(here.read_quantised(tile), there.read_quantised(tile))
        for side, window in frame_windows(GRID, tile).items():
            if window.size:
                np.testing.assert_array_equal(
                    here.read_band(tile, side), there.read_band(tile, side)
                )


def test_damage_names_its_tile(place: RemotePlace, cloud: Cloud):
    """So that it is done again."""
    PredictionStore.create(place / "p.zarr", GRID, 3, "digest")
    store = PredictionStore(place / "p.zarr", GRID)
    tile = Tile(1, 2)
    store.write(tile, prediction(tile))
    cloud.client.delete_object(Bucket=cloud.bucket, Key="runs/one/p.zarr/label/c/1/2")
    assert store.marks.get(tile) is Mark.DONE
    assert not store.has(tile)
    with pytest.raises(DamagedError) as caught:
        store.read_core(tile)
    assert caught.value.tile == tile
    store.marks.set(tile, Mark.MISSING)
    assert store.marks.get(tile) is Mark.MISSING


def test_maps_tiles_and_dates(place: RemotePlace, tmp_path: Path):
    """The other stores of a run."""
    source = open_scene(
        SceneRequest((str(write_geotiff(tmp_path / "s.tif", random_scene(GRID.scene, 2))),))
    )
    tile, scene = Tile(2, 3), source.scene
    maps = MapStore.create(place / "m.zarr", GRID, scene.geobox, "digest", ())
    shape = GRID.core_window(tile).shape
    layers = {n: np.full(shape, 7, np.uint8) for n in ("landcover", "confidence")}
    stats = CoreStats(np.zeros(256, np.int64), np.ones(256, np.int64), Seam(5, 2, 0.25))
    maps.write(tile, layers, stats, Mark.PROVISIONAL)  # type: ignore[arg-type]
    again = MapStore(place / "m.zarr", GRID)
    assert again.state(tile) is Mark.PROVISIONAL
    assert again.read_stats(tile).seam == Seam(5, 2, 0.25)
    np.testing.assert_array_equal(again.read_window("landcover", GRID.core_window(tile)), 7)
    with pytest.raises(StoreError, match="missing"):
        again.read_window("landcover", GRID.core_window(Tile(0, 0)))
    tiles = TileStore.create(place / "t.zarr", scene, GRID, "digest")
    image = random_scene(GRID.patch_window(tile).shape, 2)
    valid = np.ones(image.shape[1:], np.bool_)
    tiles.write(tile, image, valid)
    assert TileStore(place / "t.zarr").has(tile)
    np.testing.assert_array_equal(tiles.read(tile, image.shape[1:])[0], image)
    dates = DateStore.create(place / "d.zarr", GRID, scene.geobox, 3, "digest")
    dates.write_blank(tile)
    assert dates.has_chunk(tile)
    assert not dates.has(tile)
    assert (dates.read_core(tile) == 255).all()


def test_what_passes_is_survived(
    cloud: Cloud, server: RangeServer, monkeypatch: pytest.MonkeyPatch
):
    """A busy host is asked again while a chunk is written and read; refusals are told."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{server.host}")
    place = RemotePlace.parse("s3://bucket-one/a.zarr", ("s3://bucket-one", server.host))
    modified = {"Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
    for name in ("zarr.json", "x/zarr.json", "x/c/0/0"):
        server.always[f"bucket-one/a.zarr/{name}"] = Fault(headers=modified)
    listed = "".join(
        f"<Contents><Key>a.zarr/{name}</Key><Size>9</Size>"
        "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
        for name in ("x/zarr.json", "zarr.json")
    )
    server.files["bucket-one"] = f"<ListBucketResult>{listed}</ListBucketResult>".encode()
    array = array_at(place)
    server.faults.extend([Fault(503), Fault(500)])
    write_chunk(array, (0, 0), np.ones((2, 3), np.int16))
    assert not server.faults
    server.faults.extend([None, Fault(503)])
    assert read_chunk(array, (0, 0)).sum() == 6
    server.always["bucket-one/a.zarr/x/c/0/0"] = Fault(403)
    with pytest.raises(StoreError, match=r"read a chunk of s3://bucket-one/a\.zarr.*AWS_"):
        read_chunk(array, (0, 0))


def test_a_claim(place: RemotePlace, cloud: Cloud, tmp_path: Path):
    """Each run has a folder of its own, known before anything lies there; that alone is removed."""
    allow = AllowList.of(cloud.allow)
    assert claimed(tmp_path, allow) is None
    other = claim(tmp_path, place, "d" * 64)
    mine = claim(tmp_path, place, "d" * 64)
    assert mine != other
    assert claimed(tmp_path, allow) == (mine, str(place))
    assert cloud.listing() == []
    for folder in (other, mine, place):
        (folder / "x").write(b"1")
    release(tmp_path, allow)
    assert claimed(tmp_path, allow) is None
    assert sorted(cloud.listing()) == sorted([f"{other.key}/x", "runs/one/x"])
    release(tmp_path, allow)


@pytest.mark.parametrize("damage", ["", "{", "{}", "other"])
def test_a_damaged_claim_names_no_folder(place: RemotePlace, tmp_path: Path, damage: str):
    """Whatever a damaged claim says is not followed: it could name somebody else's folder."""
    mine = claim(tmp_path, place, "d" * 64)
    assert not is_damaged(tmp_path)
    (mine / "x").write(b"1")
    path = tmp_path / "place.json"
    path.write_text(path.read_text().replace("run-d", "run-e") if damage == "other" else damage)
    assert is_damaged(tmp_path)
    assert claimed(tmp_path, place.allow) is None
    release(tmp_path, place.allow)
    assert not path.exists()
    assert (mine / "x").head() is not None


@pytest.mark.parametrize(
    "change", [lambda p: None, lambda p: p / "other"], ids=["local", "elsewhere"]
)
def test_a_run_stays_where_it_began(
    place: RemotePlace, tmp_path: Path, change: Callable[[RemotePlace], RemotePlace | None]
):
    """Another place for the stores of a run that is continued is an error."""
    claim(tmp_path, place, "d" * 64)
    check_claim(tmp_path, place, place.allow)
    with pytest.raises(OutputError, match=r"lie in s3://.*runs/one, not in .*`fresh`"):
        check_claim(tmp_path, change(place), place.allow)
