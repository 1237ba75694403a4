"""Inside a worker: small receipts, finished tiles left alone, damaged patches read again."""

from __future__ import annotations

import asyncio
import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from distributed import Worker

from tilemap import worker
from tilemap.errors import StoreError
from tilemap.geometry import Tile, TileGrid, Window
from tilemap.models import registry
from tilemap.models.keeping import ModelShelf
from tilemap.models.protocol import Model
from tilemap.models.recipe import Recipe
from tilemap.models.registry import ModelRef
from tilemap.stages.segment import measure_uncertainty, standardise
from tilemap.stages.tile import read_patch
from tilemap.stores.chunks import chunk_path
from tilemap.stores.geotiff import SceneReader, SceneRequest, open_scene
from tilemap.stores.maps import MapStore
from tilemap.stores.marks import Mark
from tilemap.stores.predictions import PredictionStore
from tilemap.stores.tiles import TileStore
from tilemap.testing import load_toy, map_in_memory, random_scene, toy_card, write_geotiff
from tilemap.worker import (
    Backend,
    Receipt,
    RunContext,
    RunPlugin,
    RunSpec,
    context_of,
    peak_memory,
    run_task,
)

GRID = TileGrid((75, 110), core=40, halo=8, blend=4)
"""2 x 3 tiles."""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunSpec:
    """A run of a toy model over a small scene, its stores empty."""
    card = toy_card(context=3)
    path = write_geotiff(
        tmp_path / "scene.tif", random_scene(GRID.scene), names=card.bands, scale=1e-4
    )
    source = open_scene(SceneRequest((str(path),), bands=card.bands))
    stores = tmp_path / "stores"
    TileStore.create(stores / "tiles.zarr", source.scene, GRID, "d" * 64)
    PredictionStore.create(stores / "predictions.zarr", GRID, len(card.classes), "d" * 64)
    MapStore.create(stores / "map.zarr", GRID, source.scene.geobox, "d" * 64)
    monkeypatch.setattr(registry, "load", lambda ref, *_: load_toy(ref.card))
    ref = ModelRef(card, tmp_path / "toy.none", card.sha256, tmp_path / "model.json")
    recipe = Recipe((ref,))
    return RunSpec(
        "d" * 64,
        stores,
        source,
        source.inputs(),
        GRID,
        recipe,
        Backend(),
        keep_tiles=True,
        pin=False,
        memory_bytes=1 << 40,
    )


class Counted(SceneReader):
    """A reader that counts what is read."""

    reads = 0

    def read(self, window):  # type: ignore[no-untyped-def]  # noqa: D102
        Counted.reads += 1
        return super().read(window)


@pytest.fixture
def context(spec: RunSpec, monkeypatch: pytest.MonkeyPatch) -> RunContext:
    """The run as a worker holds it; reads of the scene are counted from 0."""
    Counted.reads = 0
    monkeypatch.setattr(type(spec.source), "open", lambda self: Counted(self))  # noqa: PLW0108  a class is not bound
    return RunContext(spec)


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    """What lies there, with inode and time, so that a rewrite of equal bytes shows."""
    return {
        str(p.relative_to(folder)): (p.stat().st_ino, p.stat().st_mtime_ns)
        for p in folder.rglob("*")
        if p.is_file()
    }


def _map_all(context: RunContext) -> None:
    for tile in GRID.tiles():
        context.segment(tile)
    for tile in GRID.tiles():
        context.stitch(tile, frozenset())


def test_receipts_and_tasks_are_small() -> None:
    """Under 1 kB pickled, at the far end of a large scene, with every step in it."""
    steps = ("tile", "wait", "segment", "store", "stitch")
    receipt = Receipt(
        "segment", Tile(99_999, 99_999), 4_000_000, 1 << 40, dict.fromkeys(steps, 0.1)
    )
    assert len(pickle.dumps(receipt)) < 1000
    missing = tuple((99_999 + row, 99_999 + col) for row in range(3) for col in range(3))
    assert len(pickle.dumps((run_task, "d" * 64, "stitch", (99_999, 99_999), missing))) < 1000


def test_a_run_is_small_too(spec: RunSpec) -> None:
    """What every worker gets once has no pixels in it."""
    text = pickle.dumps(RunPlugin(spec))
    assert len(text) < 20_000
    assert pickle.loads(text).spec == spec


def test_a_task_returns_where_and_how_long(context: RunContext, spec: RunSpec) -> None:
    """Both stages through the plugin, as Dask calls them."""
    plugin = RunPlugin(spec)
    worker = cast("Worker", SimpleNamespace(name="w", address="tcp://there:1", nanny=None))
    asyncio.run(plugin.setup(worker))
    try:
        assert context_of(spec.name).spec == spec
        for tile in GRID.tiles():
            receipt = run_task(spec.name, "segment", tuple(tile))
            assert (receipt.stage, receipt.tile) == ("segment", tile)
            assert receipt.worker == "tcp://there:1"
            assert {"tile", "segment", "store"} <= receipt.seconds.keys()
            assert receipt.peak_bytes > 1 << 20
            assert len(pickle.dumps(receipt)) < 1000
        assert run_task(spec.name, "stitch", (0, 1)).seconds.keys() == {"stitch"}
    finally:
        plugin.teardown(worker)
    with pytest.raises(StoreError, match="must be set up in this worker"):
        run_task(spec.name, "segment", (0, 0))


def test_a_finished_tile_is_left_alone(context: RunContext, spec: RunSpec) -> None:
    """Run again, both stages read nothing of the scene and write nothing."""
    _map_all(context)
    before, reads = _files(spec.stores), Counted.reads
    assert reads == GRID.size
    again = RunContext(spec)
    for tile in GRID.tiles():
        assert again.segment(tile) == {}
        assert again.stitch(tile, frozenset()) == {}
    assert _files(spec.stores) == before
    assert Counted.reads == reads


def test_patches_come_from_the_tile_store(context: RunContext, spec: RunSpec) -> None:
    """A prediction that is lost is made again of the stored patch, to the same bytes."""
    _map_all(context)
    before, reads = _contents(spec.stores / "predictions.zarr"), Counted.reads
    context.predictions.marks.set(Tile(1, 1), Mark.MISSING)
    context.segment(Tile(1, 1))
    assert _contents(spec.stores / "predictions.zarr") == before
    assert Counted.reads == reads


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("array", ["image", "valid"])
def test_a_damaged_patch_is_read_from_the_scene_again(
    context: RunContext, spec: RunSpec, array: str
) -> None:
    """A flipped bit in the tile store costs one more read, and is mended."""
    context.patch(Tile(0, 1))
    assert context.tiles is not None
    whole = _contents(spec.stores / "tiles.zarr")
    path = chunk_path(
        context.tiles._image if array == "image" else context.tiles._valid,
        (0, 1, 0, 0, 0) if array == "image" else (0, 1, 0, 0),
    )
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    path.write_bytes(damaged)
    image, valid = context.patch(Tile(0, 1))
    assert Counted.reads == 2
    assert _contents(spec.stores / "tiles.zarr") == whole
    again, _ = context.patch(Tile(0, 1))
    assert Counted.reads == 2
    np.testing.assert_array_equal(image, again)
    assert valid.all()


def test_without_a_tile_store_patches_are_read_from_the_scene(
    context: RunContext, spec: RunSpec
) -> None:
    """--discard-stores: the same predictions, and nothing of tiles on the disk."""
    _map_all(context)
    want = _contents(spec.stores / "predictions.zarr")
    other = spec.stores.parent / "other"
    PredictionStore.create(other / "predictions.zarr", GRID, 4, "d" * 64)
    MapStore.create(other / "map.zarr", GRID, spec.source.scene.geobox, "d" * 64)
    direct = RunContext(dataclasses.replace(spec, stores=other, keep_tiles=False))
    _map_all(direct)
    assert _contents(other / "predictions.zarr") == want
    assert {p.name for p in other.iterdir()} == {"predictions.zarr", "map.zarr"}


def test_cores_beside_a_lost_tile_are_provisional_until_it_is_there(context: RunContext) -> None:
    """Each retry stitches them anew with what is there then; DONE only when nothing is missing."""
    _map_all(context)
    want = {tile: context.maps.read_core("landcover", tile) for tile in GRID.tiles()}
    lost, other = Tile(0, 2), Tile(1, 2)
    for missing in (frozenset({lost, other}), frozenset({lost})):
        for tile in GRID.tiles():
            if missing.intersection(GRID.neighbours(tile)):
                assert context.stitch(tile, missing & set(GRID.neighbours(tile)))
                assert context.maps.state(tile) is Mark.PROVISIONAL
    assert (context.maps.read_core("landcover", lost) == 255).all()
    np.testing.assert_array_equal(context.maps.read_core("landcover", other), want[other])
    for tile in GRID.tiles():
        context.stitch(tile, frozenset())
        assert context.maps.state(tile) is Mark.DONE
        np.testing.assert_array_equal(context.maps.read_core("landcover", tile), want[tile])


def test_a_model_is_loaded_once_by_each_process(
    context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many tiles it maps."""
    monkeypatch.setattr(worker, "_shelf", ModelShelf())
    loads = []
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda ref, *rest: loads.append(rest) or load(ref, *rest))
    for tile in GRID.tiles():
        context.segment(tile)
    assert loads == [("auto", "float32", 1, "auto")]


def test_every_member_is_loaded_once_and_their_mean_is_mapped(
    spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two models, mirrored: one model for the tiles, with the cards of both."""
    loads = []
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda ref, *rest: loads.append(ref) or load(ref, *rest))
    (first,) = spec.model.members
    card = first.card.model_copy(update={"architecture": {"toy": "box", "context": 3, "seed": 7}})
    members = (first, dataclasses.replace(first, card=card))
    context = RunContext(dataclasses.replace(spec, model=Recipe(members, "flips")))
    _map_all(context)
    assert loads == list(members)
    got = context.maps.read_window("confidence", Window(0, 0, *GRID.scene))
    with spec.source.open() as reader:
        _, want = map_in_memory(reader, context.model().model, GRID)
        _, alone = map_in_memory(reader, load_toy(first.card), GRID)
    np.testing.assert_array_equal(got, want)
    assert (got != alone).any()


def test_uncertainty_is_kept_where_the_stores_have_room_for_it(spec: RunSpec) -> None:
    """All layers are done with the same tile; a lost core has none of them."""
    kept = ("entropy", "margin")
    stores = spec.stores.with_name("more")
    PredictionStore.create(stores / "predictions.zarr", GRID, 4, "d" * 64, kept)
    MapStore.create(stores / "map.zarr", GRID, spec.source.scene.geobox, "d" * 64, kept)
    context = RunContext(dataclasses.replace(spec, stores=stores, keep_tiles=False))
    for tile in GRID.tiles():
        context.segment(tile)
    lost = Tile(1, 1)
    for tile in GRID.tiles():
        context.stitch(tile, frozenset({lost} & set(GRID.neighbours(tile))))
    everything = Window(0, 0, *GRID.scene)
    with spec.source.open() as reader:
        want = uncertainty_in_memory(reader, load_toy(spec.model.card))
    hole = GRID.core_window(lost).slices()
    for name in kept:
        got = context.maps.read_window(name, everything)
        assert (got[hole] == 255).all()
        want[name][hole] = 255
        np.testing.assert_array_equal(got, want[name])
        assert np.unique(got).size > 10


def uncertainty_in_memory(reader: SceneReader, model: Model) -> dict[str, np.ndarray]:
    """Of one forward of the whole scene with all the toy looks at around it."""
    window = Window(0, 0, *GRID.scene).grow(8)
    image, valid = read_patch(reader, window)
    half = model.predict(standardise(image, valid, reader.scene, model.card), None)
    half = np.ascontiguousarray(half[:, 8:-8, 8:-8].astype(np.float16))
    return {name: measure_uncertainty(half, name) for name in ("entropy", "margin")}


PEAK = "from tilemap.worker import peak_memory; print(peak_memory())"


def test_the_peak_of_a_process_is_its_own() -> None:
    """A process that is started by a large one has not used what its parent has."""
    ballast = np.ones(100_000_000)  # 800 MB, touched
    ran = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, check=True)
    assert 20e6 < int(ran.stdout) < ballast.nbytes < peak_memory()
