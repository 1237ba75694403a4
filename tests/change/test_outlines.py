"""Outlines against the regions they are of, burnt back; the same for any cut."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from rasterio.features import rasterize
from scipy import ndimage

from tilemap.change.outlines import core_edges, polygon, trace
from tilemap.change.regions import BorderRegions, join_regions, local_regions, sieve, totals
from tilemap.geometry import TileGrid
from tilemap.stages.figures import is_change

K = 3
CHANGED = is_change(np.arange(256, dtype=np.uint8), K)


def _codes(seed: int, shape: tuple[int, int], smooth: float) -> np.ndarray:
    """Codes of a made-up change map: blobs, thin bridges, corners that touch."""
    random = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(random.normal(size=(1 + K * K, *shape)), (0, smooth, smooth))
    return np.asarray(field.argmax(axis=0), dtype=np.uint8)


def _padded(codes: np.ndarray) -> np.ndarray:
    return np.pad(codes, 1)


def _whole(codes: np.ndarray) -> tuple[dict[int, shapely.Polygon], np.ndarray]:
    """Polygon by key of the uncut map, and the key of each pixel, -1 without change."""
    cols = codes.shape[1]
    regions = local_regions(codes, CHANGED, (0, 0), cols)
    edges, pixels = core_edges(_padded(codes), regions.number > 0, (0, 0), cols)
    owner = regions.number.ravel()[pixels]
    found = {
        int(regions.first[n]): polygon(trace(edges[owner == n], cols))
        for n in range(1, len(regions.code))
    }
    return found, np.where(regions.number > 0, regions.first[regions.number], -1)


@pytest.mark.parametrize(("seed", "smooth"), [(1, 0.0), (2, 0.7), (3, 2.5)])
def test_numbers_are_those_of_scipy(seed: int, smooth: float) -> None:
    """Code by code, 4-connected."""
    codes = _codes(seed, (47, 71), smooth)
    regions = local_regions(codes, CHANGED, (0, 0), 71)
    count = 0
    for code in np.flatnonzero(CHANGED):
        want, number = ndimage.label(codes == code)
        count += number
        for one in range(1, number + 1):
            here = np.unique(regions.number[want == one])
            assert len(here) == 1
            assert regions.pixels[here[0]] == np.count_nonzero(want == one)
            assert regions.code[here[0]] == code
            assert regions.first[here[0]] == np.flatnonzero((want == one).ravel())[0]
    assert len(regions.code) == count + 1


@pytest.mark.parametrize(("seed", "smooth"), [(1, 0.0), (2, 0.7), (3, 2.5)])
def test_every_polygon_is_valid_and_is_its_region(seed: int, smooth: float) -> None:
    """Burnt back it covers its pixels and no others; its area is their number."""
    codes = _codes(seed, (47, 71), smooth)
    polygons, keys = _whole(codes)
    for key, shape in polygons.items():
        assert shape.is_valid, shapely.is_valid_reason(shape)
        assert shape.area == np.count_nonzero(keys == key)
    burnt = rasterize(
        [(shape, index + 1) for index, shape in enumerate(polygons.values())],
        out_shape=codes.shape, dtype="int32",
    )  # fmt: skip
    order = np.array([-1, *polygons])
    assert np.array_equal(order[burnt], keys)


def test_no_vertex_without_a_bend() -> None:
    """A rectangle has four corners, a frame eight; an L has six."""
    codes = np.zeros((9, 12), np.uint8)
    codes[1:8, 2:11] = 2
    codes[3:5, 4:7] = 0
    (shape,) = _whole(codes)[0].values()
    assert len(shape.exterior.coords) == 5
    assert [len(hole.coords) for hole in shape.interiors] == [5]
    codes[1:2, 2:5] = 0
    (shape,) = _whole(codes)[0].values()
    assert len(shape.exterior.coords) == 7


@pytest.mark.parametrize("core", [64, 31, 7, 5, 1])
@pytest.mark.parametrize("smooth", [0.0, 1.2])
def test_any_cut_gives_the_same(core: int, smooth: float) -> None:
    """Keys, pixels, sieved codes and polygons of 1 to thousands of tiles, ragged ones too."""
    codes = _codes(9, (43, 61), smooth)
    polygons, keys = _whole(codes)
    sizes = {int(k): int(n) for k, n in zip(*np.unique(keys, return_counts=True), strict=True)}
    rows, cols = codes.shape
    grid = TileGrid((rows, cols), core, 0, 0)
    local, borders = {}, {}
    for tile in grid.tiles():
        window = grid.core_window(tile)
        origin = (window.top, window.left)
        local[tile] = local_regions(codes[window.slices()], CHANGED, origin, cols)
        borders[tile] = BorderRegions.of(local[tile])
    joined = join_regions(grid, borders)
    sieved = np.empty_like(codes)
    edges: dict[int, list[np.ndarray]] = {}
    for tile in grid.tiles():
        window = grid.core_window(tile)
        key, pixels = totals(local[tile], joined[tile])
        number = local[tile].number
        assert np.array_equal(np.where(number > 0, key[number], -1), keys[window.slices()])
        assert all(pixels[n] == sizes[int(key[n])] for n in range(1, len(key)))
        sieved[window.slices()], _ = sieve(codes[window.slices()], local[tile], pixels, 4, K)
        around = _padded(codes)[window.top : window.bottom + 2, window.left : window.right + 2]
        found, owner = core_edges(around, number > 0, (window.top, window.left), cols)
        for n in np.unique(number.ravel()[owner]):
            edges.setdefault(int(key[n]), []).append(found[number.ravel()[owner] == n])
    assert sorted(edges) == sorted(polygons)
    for one, parts in edges.items():
        shape = polygon(trace(np.concatenate(parts), cols))
        assert shapely.to_wkb(shape) == shapely.to_wkb(polygons[one])
    small = (keys >= 0) & (np.vectorize(sizes.get)(keys) < 4)
    before = (codes[small].astype(int) - 1) // K
    assert small.any()
    assert np.array_equal(sieved[small], 1 + K * before + before)
    assert np.array_equal(sieved[~small], codes[~small])
