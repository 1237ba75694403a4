"""Regions against scipy's labels of the whole map, code by code; the same for any cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from scipy import ndimage

from tilemap.comparison.regions import (
    BorderRegions,
    JoinedRegions,
    LocalRegions,
    join_regions,
    local_regions,
    sieve,
    totals,
)
from tilemap.geometry import Tile, TileGrid
from tilemap.stages.figures import is_change

K = 3
CHANGED = is_change(np.arange(256, dtype=np.uint8), K)


def made_codes(seed: int, shape: tuple[int, int], smooth: float) -> np.ndarray:
    """Codes of a made-up change map: blobs, holes, thin bridges, corners that touch."""
    random = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(random.normal(size=(1 + K * K, *shape)), (0, smooth, smooth))
    field[2] += 1.8 * field.std()  # six pixels of ten, so that it encloses others
    return np.asarray(field.argmax(axis=0), dtype=np.uint8)


def keys_of(codes: np.ndarray) -> np.ndarray:
    """First pixel of the region of each pixel as scipy finds it on the whole; -1 without change."""
    keys = np.full(codes.shape, -1)
    for code in np.flatnonzero(CHANGED):
        number, count = ndimage.label(codes == code)
        if count:
            first = ndimage.minimum(
                np.arange(codes.size).reshape(codes.shape), number, range(1, count + 1)
            )
            keys[number > 0] = first[number[number > 0] - 1].astype(int)
    return keys


def cut(
    codes: np.ndarray, core: int
) -> tuple[TileGrid, dict[Tile, LocalRegions], dict[Tile, JoinedRegions]]:
    """A map in tiles, their regions joined."""
    grid = TileGrid((codes.shape[0], codes.shape[1]), core, 0, 0)
    local = {}
    for tile in grid.tiles():
        window = grid.core_window(tile)
        origin = (window.top, window.left)
        local[tile] = local_regions(codes[window.slices()], CHANGED, origin, grid.scene[1])
    borders = {tile: BorderRegions.of(regions) for tile, regions in local.items()}
    return grid, local, join_regions(grid, borders)


@pytest.mark.parametrize(("seed", "smooth"), [(1, 0.0), (2, 0.7), (3, 2.5)])
def test_numbers_are_those_of_scipy(seed: int, smooth: float) -> None:
    """Code by code, 4-connected, in the order of their first pixels."""
    codes = made_codes(seed, (47, 71), smooth)
    regions = local_regions(codes, CHANGED, (0, 0), 71)
    keys = keys_of(codes)
    want, sizes = np.unique(keys[keys >= 0], return_counts=True)
    assert np.array_equal(regions.first[1:], want)
    assert np.array_equal(regions.pixels[1:], sizes)
    assert np.array_equal(regions.code[1:], codes.ravel()[want])
    assert np.array_equal(np.where(regions.number > 0, regions.first[regions.number], -1), keys)


def test_a_core_tells_places_in_the_map() -> None:
    """Not in itself: row * columns + column of the whole."""
    codes = np.zeros((3, 4), np.uint8)
    codes[1, 2:] = 2
    regions = local_regions(codes, CHANGED, (10, 20), 100)
    assert regions.first.tolist() == [0, 11 * 100 + 22]
    assert regions.pixels.tolist() == [0, 2]
    assert regions.at_border().tolist() == [False, True]


@pytest.mark.parametrize("code", [0, 1, 5, 9, 10, 255])
def test_what_is_no_change_is_no_region(code: int) -> None:
    """Not observed, from a class to itself, a code beyond the last."""
    regions = local_regions(np.full((5, 3), code, np.uint8), CHANGED, (0, 0), 3)
    assert len(regions.code) == 1
    assert not regions.number.any()
    assert len(BorderRegions.of(regions).number) == 0


def test_corners_do_not_connect() -> None:
    """A chessboard of two changes is as many regions as it has pixels."""
    codes = np.where(np.indices((5, 7)).sum(axis=0) % 2, 2, 3).astype(np.uint8)
    assert len(local_regions(codes, CHANGED, (0, 0), 7).code) == 36


@pytest.mark.parametrize("core", [64, 60, 31, 7, 5, 1])
@pytest.mark.parametrize("smooth", [0.0, 1.2])
def test_any_cut_gives_the_same(core: int, smooth: float) -> None:
    """Keys, pixels and sieved codes of 1 to thousands of tiles, a column of one pixel too."""
    codes = made_codes(9, (43, 61), smooth)
    keys = keys_of(codes)
    sizes = np.bincount(keys[keys >= 0], minlength=codes.size)
    small = (keys >= 0) & (sizes[keys] < 4)
    before = (codes.astype(int) - 1) // K
    want = np.where(small, 1 + K * before + before, codes)
    assert small.any()
    grid, local, joined = cut(codes, core)
    for tile, regions in local.items():
        window = grid.core_window(tile).slices()
        key, pixels = totals(regions, joined[tile])
        number = regions.number
        assert np.array_equal(np.where(number > 0, key[number], -1), keys[window])
        assert np.array_equal(pixels[number[number > 0]], sizes[keys[window][number > 0]])
        sieved, hidden = sieve(codes[window], regions, pixels, 4, K)
        assert np.array_equal(sieved, want[window])
        assert np.array_equal(hidden, small[window])


def test_a_snake_through_all_tiles_is_one() -> None:
    """One pixel wide, to and fro over every tile line; its two ends lie in the first tile row."""
    codes = np.zeros((41, 37), np.uint8)
    codes[1::2, 1:-1] = 4
    codes[2:-2:4, -2] = 4
    codes[4:-2:4, 1] = 4
    assert ndimage.label(codes)[1] == 1
    grid, local, joined = cut(codes, 4)
    assert grid.size == 110
    for tile, regions in local.items():
        key, pixels = totals(regions, joined[tile])
        assert set(key[1:]) <= {1 * 37 + 1}
        assert set(pixels[1:]) <= {np.count_nonzero(codes)}


def test_two_parts_of_a_core_may_meet_elsewhere() -> None:
    """A U whose legs lie in one tile and whose bow in another: each leg is told of the whole."""
    codes = np.zeros((8, 7), np.uint8)
    codes[1:6, [1, 3]] = 7
    codes[5, 1:4] = 7
    _, local, joined = cut(codes, 4)
    key, pixels = totals(local[Tile(0, 0)], joined[Tile(0, 0)])
    assert key.tolist() == [0, 8, 8]
    assert pixels.tolist() == [0, 11, 11]


def test_regions_of_one_size_as_the_unit_are_kept() -> None:
    """The minimum mapping unit is the smallest that is kept; a unit of 1 keeps all."""
    codes = np.zeros((3, 9), np.uint8)
    codes[1, 1:4], codes[1, 5:7] = 2, 4
    regions = local_regions(codes, CHANGED, (0, 0), 9)
    sieved, hidden = sieve(codes, regions, regions.pixels, 3, K)
    assert sieved[1].tolist() == [0, 2, 2, 2, 0, 5, 5, 0, 0]  # 4 is from the second class
    assert hidden[1].tolist() == [False] * 5 + [True] * 2 + [False] * 2
    same, none = sieve(codes, regions, regions.pixels, 1, K)
    assert np.array_equal(same, codes)
    assert not none.any()


class _Once(Mapping[Tile, BorderRegions]):
    """Borders that are read when they are asked for, and say in which order."""

    def __init__(self, borders: dict[Tile, BorderRegions]) -> None:
        self.borders, self.asked = borders, list[Tile]()

    def __getitem__(self, tile: Tile) -> BorderRegions:
        self.asked.append(tile)
        return self.borders[tile]

    def __iter__(self) -> Iterator[Tile]:
        raise AssertionError

    def __len__(self) -> int:
        raise AssertionError


def test_borders_are_asked_for_once() -> None:
    """In raster order, so that they need not all be held."""
    codes = made_codes(4, (19, 23), 0.5)
    grid, local, joined = cut(codes, 6)
    asked = _Once({tile: BorderRegions.of(regions) for tile, regions in local.items()})
    again = join_regions(grid, asked)
    assert asked.asked == list(grid.tiles())
    for tile, found in again.items():
        assert np.array_equal(found.key, joined[tile].key)
        assert np.array_equal(found.pixels, joined[tile].pixels)
