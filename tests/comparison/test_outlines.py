"""Outlines against the regions they are of, burnt back; the same for any cut."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from rasterio.features import rasterize
from rasterio.features import shapes as rasterio_shapes

from tilemap.comparison.outlines import core_edges, polygons, straighten, trace
from tilemap.comparison.regions import totals

from .test_regions import CHANGED, cut, keys_of, made_codes

CASES = [(1, 0.0), (2, 0.7), (3, 2.5)]


def _whole(codes: np.ndarray) -> dict[int, shapely.Polygon]:
    """Polygon by key of the uncut map."""
    cols, keys = codes.shape[1], keys_of(codes)
    edges, pixels = core_edges(np.pad(codes, 1), keys >= 0, (0, 0), cols)
    rings = trace(edges, keys.ravel()[pixels], cols)
    found = np.unique(keys[keys >= 0]).tolist()
    return dict(zip(found, polygons(rings, cols), strict=True))


@pytest.mark.parametrize(("seed", "smooth"), CASES)
def test_every_polygon_is_valid_and_is_its_region(seed: int, smooth: float) -> None:
    """Burnt back it covers its pixels and no others; its area is their number."""
    codes = made_codes(seed, (47, 71), smooth)
    found, keys = _whole(codes), keys_of(codes)
    for key, shape in found.items():
        assert shape.is_valid, shapely.is_valid_reason(shape)
        assert shape.area == np.count_nonzero(keys == key)
    burnt = rasterize(
        [(shape, index + 1) for index, shape in enumerate(found.values())],
        out_shape=codes.shape, dtype="int32",
    )  # fmt: skip
    order = np.array([-1, *found])
    assert np.array_equal(order[burnt], keys)


@pytest.mark.parametrize(("seed", "smooth"), CASES)
def test_polygons_are_those_of_gdal(seed: int, smooth: float) -> None:
    """Polygonised by GDAL, 4-connected: the same shapes with the same corners."""
    codes = made_codes(seed, (31, 45), smooth)
    theirs = [
        shapely.normalize(shapely.geometry.shape(shape))
        for shape, _ in rasterio_shapes(codes, mask=CHANGED[codes], connectivity=4)
    ]
    ours = [shapely.normalize(shape) for shape in _whole(codes).values()]
    assert sorted(map(shapely.to_wkb, ours)) == sorted(map(shapely.to_wkb, theirs))


@pytest.mark.parametrize(("seed", "smooth"), CASES)
def test_rings_have_one_form(seed: int, smooth: float) -> None:
    """Outer rings against the clock as a map is seen, holes with it; each begins at its first
    corner in raster order, and holes follow by theirs.
    """
    holes = 0
    for shape in _whole(made_codes(seed, (47, 71), smooth)).values():
        assert not shape.exterior.is_ccw  # rows run down, so what shapely sees is turned over
        assert all(hole.is_ccw for hole in shape.interiors)
        first = []
        for ring in (shape.exterior, *shape.interiors):
            corners = [(row, col) for col, row in ring.coords]
            assert corners[0] == min(corners)
            first.append(corners[0])
        assert first == sorted(first)
        holes += len(shape.interiors)
    assert holes > 0


def test_no_vertex_without_a_bend() -> None:
    """A rectangle has four corners, a frame eight; an L has six."""
    codes = np.zeros((9, 12), np.uint8)
    codes[1:8, 2:11] = 2
    codes[3:5, 4:7] = 0
    (shape,) = _whole(codes).values()
    assert len(shape.exterior.coords) == 5
    assert [len(hole.coords) for hole in shape.interiors] == [5]
    codes[1:2, 2:5] = 0
    (shape,) = _whole(codes).values()
    assert len(shape.exterior.coords) == 7


def test_a_bridge_by_corners_is_a_hole_that_touches() -> None:
    """A ring of pixels closed by a corner alone: the outer ring passes it, the hole touches it."""
    codes = np.zeros((6, 7), np.uint8)
    codes[1:5, 1:6] = 2
    codes[2:4, 2:5] = 0
    codes[1, 1] = 0  # what it enclosed now touches the outside by a corner
    (shape,) = _whole(codes).values()
    assert shape.is_valid
    assert shape.area == 13
    assert len(shape.interiors) == 1
    assert (2.0, 2.0) in shape.exterior.coords
    assert (2.0, 2.0) in shape.interiors[0].coords


@pytest.mark.parametrize("core", [64, 60, 31, 7, 5, 1])
@pytest.mark.parametrize("smooth", [0.0, 1.2])
def test_any_cut_gives_the_same(core: int, smooth: float) -> None:
    """Edges of all tiles strung together, straightened in each or not: the same bytes."""
    codes = made_codes(9, (43, 61), smooth)
    want = {key: shapely.to_wkb(shape) for key, shape in _whole(codes).items()}
    grid, local, joined = cut(codes, core)
    cols = grid.scene[1]
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    for tile, regions in local.items():
        window = grid.core_window(tile)
        codes_around = np.pad(codes, 1)[window.top : window.bottom + 2]
        codes_around = codes_around[:, window.left : window.right + 2]
        origin = (window.top, window.left)
        edges, pixel = core_edges(codes_around, regions.number > 0, origin, cols)
        key, _ = totals(regions, joined[tile])
        parts.append((edges, key[regions.number.ravel()[pixel]]))
    straight = [straighten(edges, owner, cols) for edges, owner in parts]
    for some in (parts, straight, straight[::-1]):
        every = np.concatenate([p[0] for p in some]), np.concatenate([p[1] for p in some])
        found = polygons(trace(*every, cols), cols)
        assert dict(zip(sorted(want), map(shapely.to_wkb, found), strict=True)) == want
    if core == 64:
        assert len(straight[0][0]) < len(parts[0][0])


def test_straight_edges_have_bends_at_both_ends() -> None:
    """Of a rectangle four are left; two regions in one line stay two; of nothing, nothing."""
    codes = np.zeros((7, 9), np.uint8)
    codes[2:5, 1:7] = 3
    edges, pixel = core_edges(np.pad(codes, 1), codes > 0, (0, 0), 9)
    assert len(edges) == 18
    straight, owner = straighten(edges, np.zeros_like(pixel), 9)
    corners = [row * 10 + col for row, col in ((2, 1), (5, 1), (5, 7), (2, 7))]
    assert sorted(map(tuple, straight.tolist())) == sorted(
        zip(corners, corners[1:] + corners[:1], strict=True)
    )
    assert owner.tolist() == [0] * 4
    line = np.array([[14, 13], [13, 12], [12, 11]])  # the last is of another region
    straight, owner = straighten(line, np.array([4, 4, 6]), 9)
    assert straight.tolist() == [[14, 12], [12, 11]]
    assert owner.tolist() == [4, 6]
    none, nobody = straighten(edges[:0], owner[:0], 9)
    assert none.shape == (0, 2)
    assert nobody.shape == (0,)
    rings = trace(none, nobody, 9)
    assert len(rings.owner) == len(rings.corner) == 0
    assert len(polygons(rings, 9)) == 0
