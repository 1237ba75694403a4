"""The sieved map and its polygons: against scipy on the whole, and the same for any cut."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize
from scipy import ndimage

from tilemap.area import CellArea
from tilemap.comparison.outlines import Rings
from tilemap.comparison.qa import Qa
from tilemap.geometry import TileGrid, Window
from tilemap.stages.figures import is_change
from tilemap.stages.sieve import (
    KM2,
    LAYERS,
    P_SUM,
    PIXELS,
    PROVISIONAL,
    SLIVER,
    SUMS,
    Regions,
    SievedMap,
    SieveRule,
    around,
    finish_core,
    outline_regions,
    sieve_map,
    survey_core,
)
from tilemap.stores.polygons import write_polygons

DAYS = np.array([-40, 200, 350, 900], dtype=np.int64)
MMU = 6
K = 3


def made_codes(seed: int, shape: tuple[int, int], smooth: float) -> np.ndarray:
    """Codes of a made-up change map: blobs, holes, thin bridges, corners that touch."""
    random = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(random.normal(size=(1 + K * K, *shape)), (0, smooth, smooth))
    field[2] += 1.8 * field.std()  # six pixels of ten, so that it encloses others
    return np.asarray(field.argmax(axis=0), dtype=np.uint8)


def keys_of(codes: np.ndarray) -> np.ndarray:
    """First pixel of the region of each pixel as scipy finds it on the whole; -1 without change."""
    keys, places = np.full(codes.shape, -1), np.arange(codes.size).reshape(codes.shape)
    for before, after in np.ndindex(K, K):
        number, count = ndimage.label((codes == 1 + K * before + after) & (before != after))
        if count:
            first = ndimage.minimum(places, number, range(1, count + 1)).astype(int)
            keys[number > 0] = first[number[number > 0] - 1]
    return keys


@dataclass
class Made:
    """A change map in memory."""

    layers: dict[str, np.ndarray]
    geobox: GeoBox
    mmu_px: int = MMU

    @property
    def codes(self) -> np.ndarray:
        """Change codes, not sieved."""
        return self.layers["code"]

    def read(self, name: str, window: Window) -> np.ndarray:
        """One layer in a window."""
        assert window.top >= 0
        assert window.left >= 0
        return self.layers[name][(..., *window.slices())]

    def rule(self, window: Window) -> SieveRule:
        """With true areas."""
        area = CellArea(self.geobox).cell_km2(window)
        return SieveRule(self.mmu_px, self.codes.shape[1], K, DAYS, area)

    def sieved(self, core: int) -> SievedMap:
        """In tiles."""
        return sieve_map(self.grid(core), self.read, self.rule)

    def grid(self, core: int) -> TileGrid:
        """A cut."""
        return TileGrid((self.codes.shape[0], self.codes.shape[1]), core, 0, 0)


def _layers(codes: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    qa = random.choice(
        [0, Qa.PROVISIONAL, Qa.SLIVER, Qa.SLIVER | Qa.SHIFTED | Qa.HARD], codes.shape
    )
    labels = random.choice([0, 1, 2, 255], (len(DAYS), *codes.shape))
    return {
        "code": codes,
        "qa": qa.astype(np.uint8),
        "p_change": random.integers(0, 101, codes.shape).astype(np.uint8),
        "n_changes": random.integers(0, 4, codes.shape).astype(np.uint8),
        "date": random.choice(DAYS[1:], codes.shape).astype(np.int32),
        "labels": labels.astype(np.uint8),
    }


@pytest.fixture(scope="module", params=[0.0, 0.8, 2.0])
def made(request: pytest.FixtureRequest) -> Made:
    """Random maps, from noise to blobs, on a grid of metres that is not square."""
    codes = made_codes(5, (113, 118), request.param)
    geobox = GeoBox(codes.shape, Affine(20, 0, 3e5, 0, -30, 4.2e6), "EPSG:32633")
    return Made(_layers(codes, 8), geobox)


@pytest.fixture(scope="module")
def pucallpa(data: Path) -> Made:
    """What changed there from 1985 to 2020: water, green, bare by two indices, pixel by pixel."""
    labels = []
    for year in (1985, 2020):
        with rasterio.open(data / "change" / "pucallpa_landsat" / f"{year}.tif") as file:
            _, nir, red, green = file.read().astype(np.float64)
            geobox = GeoBox(file.shape, file.transform, file.crs.to_wkt())
        water = green - nir > 0
        green_ = (nir - red) / np.maximum(nir + red, 1) > 0.3
        labels.append(np.where(nir == 0, 255, np.where(water, 0, np.where(green_, 1, 2))))
    first, last = labels
    codes = np.where((first == 255) | (last == 255), 0, 1 + K * first + last).astype(np.uint8)
    return Made(_layers(codes, 9), geobox)


def _files(sieved: SievedMap, made: Made, folder: Path) -> bytes:
    """Everything of the polygon file: geometries, attributes, order, and the bytes themselves."""
    rows = sieved.polygons
    columns = {
        "id": [row.key for row in rows],
        "code": [row.code for row in rows],
        "area_ha": [float(row.sums[KM2] * 100) for row in rows],
        **{f"sum{i}": [float(row.sums[i]) for row in rows] for i in range(SUMS + len(DAYS))},
    }
    path = folder / "changes.gpkg"
    write_polygons(path, [row.shape for row in rows], columns, made.geobox)
    _, _, shapes, values = pyogrio.raw.read(path)
    assert len(shapes) == len(rows) > 10
    for column, want in zip(values, columns.values(), strict=True):
        assert column.tolist() == want
    return path.read_bytes()


def _check_same(made: Made, cores: dict[int, int], folder: Path) -> None:
    """The same from every cut; ``cores`` gives the number of tiles of each."""
    want: tuple[SievedMap, bytes] | None = None
    for core, tiles in cores.items():
        assert made.grid(core).size == tiles
        sieved = made.sieved(core)
        file = _files(sieved, made, folder)
        if want is None:
            want = sieved, file
        assert np.array_equal(sieved.code, want[0].code)
        assert np.array_equal(sieved.qa, want[0].qa)
        assert np.array_equal(sieved.figures.pixels, want[0].figures.pixels)
        assert np.array_equal(sieved.figures.qa, want[0].figures.qa)
        assert file == want[1]
        for row, other in zip(sieved.polygons, want[0].polygons, strict=True):
            assert shapely.to_wkb(row.shape) == shapely.to_wkb(other.shape)
            assert row.sums.tobytes() == other.sums.tobytes()
            assert (row.key, row.code) == (other.key, other.code)


def test_any_cut_gives_the_same(made: Made, tmp_path: Path) -> None:
    """1, 4 and 100 tiles; a last row, a last column, and both of one pixel."""
    cores = {118: 1, 59: 4, 12: 100, 112: 4, 117: 2, 39: 12, 14: 81}
    _check_same(made, cores, tmp_path)


def test_any_cut_of_a_real_change_gives_the_same(pucallpa: Made, tmp_path: Path) -> None:
    """Pucallpa on degrees; 1, 4, about a hundred tiles, a row and a column of one pixel."""
    assert pucallpa.codes.shape == (377, 697)
    _check_same(pucallpa, {697: 1, 349: 4, 52: 112, 376: 4, 58: 91}, tmp_path)


def _check_oracle(made: Made, sieved: SievedMap) -> None:
    """Codes, bits, polygons and what is summed, from scipy's labels of the whole map."""
    codes, keys = made.codes, keys_of(made.codes)
    sizes = np.bincount(keys[keys >= 0], minlength=codes.size)
    small = (keys >= 0) & (sizes[keys] < made.mmu_px)
    before = (codes.astype(int) - 1) // K
    assert small.any()
    assert np.array_equal(sieved.code, np.where(small, 1 + K * before + before, codes))
    assert np.array_equal(sieved.qa, made.layers["qa"] | np.where(small, Qa.SIEVED, 0))
    assert sieved.figures.qa[6] == np.count_nonzero(small)
    kept = np.where(small, -1, keys)
    assert [row.key for row in sieved.polygons] == np.unique(kept[kept >= 0]).tolist()
    area = CellArea(made.geobox).cell_km2(Window(0, 0, *codes.shape))
    area = np.broadcast_to(area, codes.shape)
    burnt = rasterize(
        [(row.shape, index + 1) for index, row in enumerate(sieved.polygons)],
        out_shape=codes.shape, dtype="int32",
    )  # fmt: skip
    assert np.array_equal(np.array([-1, *(r.key for r in sieved.polygons)])[burnt], kept)
    qa, percent, date = (made.layers[name] for name in ("qa", "p_change", "date"))
    for row in sieved.polygons:
        here = kept == row.key
        assert row.code == codes[here][0]
        assert row.shape.is_valid
        assert row.shape.area == row.sums[PIXELS] == np.count_nonzero(here)
        assert row.sums[KM2] == pytest.approx(math.fsum(area[here]), rel=1e-10, abs=0)
        assert row.sums[P_SUM] == percent[here].sum(dtype=np.int64)
        assert row.sums[PROVISIONAL] == np.count_nonzero(qa[here] & Qa.PROVISIONAL)
        assert row.sums[SLIVER] == np.count_nonzero(qa[here] & Qa.SLIVER)
        assert row.sums[SUMS:].tolist() == [np.count_nonzero(date[here] == day) for day in DAYS]


@pytest.mark.parametrize("core", [118, 12])
def test_the_map_is_that_of_scipy(made: Made, core: int) -> None:
    """Of noise and of blobs, whole and in 100 tiles."""
    _check_oracle(made, made.sieved(core))


def test_a_real_map_is_that_of_scipy(pucallpa: Made) -> None:
    """Pucallpa in 112 tiles."""
    _check_oracle(pucallpa, pucallpa.sieved(52))


def test_tiles_may_be_done_in_any_order(made: Made) -> None:
    """Parts that come back last first give the same polygons; so do parts from a file."""
    grid = made.grid(31)
    want = made.sieved(31).polygons
    parts = _finished(made, grid)
    again = [Regions.unpack(part.pack()) for part in parts]
    for some in (parts[::-1], again):
        found = outline_regions(iter(some), grid.scene[1])
        assert [row.key for row in found] == [row.key for row in want]
        assert [row.shape.wkb for row in found] == [row.shape.wkb for row in want]
        assert all(a.sums.tobytes() == b.sums.tobytes() for a, b in zip(found, want, strict=True))


def _finished(made: Made, grid: TileGrid) -> list[Regions]:
    """Parts of all tiles, as a run gets them."""
    from tilemap.comparison.regions import join_regions

    windows = {tile: grid.core_window(tile) for tile in grid.tiles()}
    columns = grid.scene[1]
    borders = {
        tile: survey_core(made.read("code", window), window, columns, K)
        for tile, window in windows.items()
    }
    parts = []
    for tile, joined in join_regions(grid, borders).items():
        window = windows[tile]
        codes = around(made.read, window, grid.scene_window)
        layers = {name: made.read(name, window) for name in LAYERS}
        parts.append(finish_core(codes, layers, window, joined, made.rule(window)).regions)
    return parts


def test_regions_inside_a_tile_are_outlined_there(made: Made) -> None:
    """Only those that reach a border leave edges to the driver, fewer than a border is long."""
    grid = made.grid(59)
    for tile, part in zip(grid.tiles(), _finished(made, grid), strict=True):
        window = grid.core_window(tile)
        own = np.unique(part.rings.owner)
        assert not np.intersect1d(own, part.owner).size
        assert len(np.union1d(own, part.owner)) == len(part.key)
        row, col = np.divmod(part.rings.corner, grid.scene[1] + 1)
        assert (row > window.top).all()
        assert (row < window.bottom).all()
        assert (col > window.left).all()
        assert (col < window.right).all()


def test_nothing_changed() -> None:
    """No region, no polygon; the map as it was."""
    codes = np.full((9, 14), 5, np.uint8)
    codes[2:4, 3:9] = 0
    geobox = GeoBox(codes.shape, Affine(1, 0, 0, 0, -1, 0), None)
    sieved = Made(_layers(codes, 1), geobox).sieved(5)
    assert sieved.polygons == []
    assert np.array_equal(sieved.code, codes)
    assert outline_regions([], 14) == []


def test_without_a_crs_areas_are_not_known() -> None:
    """Not a number, for every polygon; all else is there."""
    codes = made_codes(2, (21, 34), 1.0)
    sieved = Made(_layers(codes, 1), GeoBox(codes.shape, Affine.identity(), None)).sieved(8)
    assert len(sieved.polygons) > 2
    assert all(math.isnan(row.sums[KM2]) for row in sieved.polygons)
    assert all(row.sums[PIXELS] >= MMU for row in sieved.polygons)


def test_sums_of_areas_do_not_hang_on_their_order() -> None:
    """Areas of very different size, added up by tile: exactly the same, and right."""
    random = np.random.default_rng(3)
    codes = np.full((40, 56), 2, np.uint8)
    area = 10.0 ** random.uniform(-9, 1, codes.shape)
    layers = _layers(codes, 1)
    found = set()
    for core in (56, 28, 7, 3):
        grid = TileGrid((40, 56), core, 0, 0)

        def rule(window: Window) -> SieveRule:
            return SieveRule(1, 56, K, DAYS, area[window.slices()])

        (row,) = sieve_map(grid, lambda name, w: layers[name][(..., *w.slices())], rule).polygons
        found.add(float(row.sums[KM2]))
    assert len(found) == 1
    assert found.pop() == pytest.approx(math.fsum(area.ravel()), rel=1e-12, abs=0)


def test_most_codes_there_can_be() -> None:
    """Fifteen classes: code 225 is the last class to itself, 224 a change."""
    changed = is_change(np.arange(256, dtype=np.uint8), 15)
    assert changed.sum() == 15 * 14
    codes = np.full((4, 9), 225, np.uint8)
    codes[1:3, 2:7] = 224
    codes[0, 8] = 2
    layers = _layers(codes, 4)
    sieved = sieve_map(
        TileGrid((4, 9), 4, 0, 0),
        lambda name, window: layers[name][(..., *window.slices())],
        lambda window: SieveRule(2, 9, 15, DAYS, np.ones((window.height, 1))),
    )
    (row,) = sieved.polygons
    assert (row.code, row.key, row.sums[PIXELS], row.sums[KM2]) == (224, 11, 10, 10)
    assert sieved.code[0, 8] == 1
    assert list(row.shape.exterior.coords) == [(2, 1), (2, 3), (7, 3), (7, 1), (2, 1)]


def test_rings_are_kept_whole_through_a_file() -> None:
    """What is packed comes back as it was, also of nothing."""
    none = np.zeros(0, np.int64)
    part = Regions(
        none, none.astype(np.uint8), np.zeros((0, SUMS + 2)), np.zeros(0), Rings(none, none, none),
        none.reshape(0, 2), none,
    )  # fmt: skip
    again = Regions.unpack(part.pack())
    assert outline_regions([again], 5) == []
