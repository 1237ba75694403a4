"""Regions of change: what hangs together by edges and has one code, whatever the cut.

A core knows its own pixels and what touches its border. Regions that reach a border are joined
with those of the tiles beside it; all others are whole already. So every region is the same for
any cut, and memory grows with the borders only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilemap.comparison.compiled import compiled
from tilemap.geometry import Tile, TileGrid

ByteArray = npt.NDArray[np.uint8]
NumberArray = npt.NDArray[np.int32]
LongArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LocalRegions:
    """Regions of one core, numbered in raster order from 1; 0 is no change.

    Args:
        number: int32 (y, x).
        code: change code by number, uint8 (R + 1,); 0 at 0.
        pixels: by number, int64 (R + 1,).
        first: place of the first pixel in the whole map, row * columns + column, int64 (R + 1,).
    """

    number: NumberArray
    code: ByteArray
    pixels: LongArray
    first: LongArray

    @property
    def edges(self) -> dict[str, NumberArray]:
        """Numbers along the sides of the core."""
        return {
            "top": self.number[0], "bottom": self.number[-1],
            "left": self.number[:, 0], "right": self.number[:, -1],
        }  # fmt: skip

    def at_border(self) -> npt.NDArray[np.bool_]:
        """Which of them touch a side of the core, bool (R + 1,)."""
        found = np.zeros(len(self.code), dtype=np.bool_)
        for side in self.edges.values():
            found[side] = True
        found[0] = False
        return found


def local_regions(
    codes: ByteArray, changed: npt.NDArray[np.bool_], origin: tuple[int, int], columns: int
) -> LocalRegions:
    """Regions of one core.

    Args:
        codes: change codes, uint8 (y, x).
        changed: which codes are changes, bool (256,).
        origin: row and column of the core's first pixel in the map.
        columns: of the map.
    """
    number, code, pixels, where = _label(np.ascontiguousarray(codes), changed)
    row, col = np.divmod(where, codes.shape[1])
    first = (origin[0] + row) * columns + origin[1] + col
    first[0] = 0
    return LocalRegions(number, code, pixels, first)


@compiled
def _root(parent, node):  # type: ignore[no-untyped-def]
    """The first pixel that a pixel is known to hang together with."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@compiled
def _label(codes, changed):  # type: ignore[no-untyped-def]
    """Numbers of 4-connected equal codes in raster order; code, pixels and first pixel of each."""
    rows, cols = codes.shape
    parent = np.zeros(rows * cols, dtype=np.int32)
    count = 0
    for row in range(rows):
        for col in range(cols):
            here = row * cols + col
            parent[here] = here
            code = codes[row, col]
            if not changed[code]:
                continue
            count += 1
            if row and codes[row - 1, col] == code:
                parent[here] = _root(parent, here - cols)
                count -= 1
            if col and codes[row, col - 1] == code:
                one, two = _root(parent, here - 1), _root(parent, here)
                if one != two:
                    count -= 1
                parent[max(one, two)] = min(one, two)
    number = np.zeros((rows, cols), dtype=np.int32)
    code_of = np.zeros(count + 1, dtype=np.uint8)
    pixels = np.zeros(count + 1, dtype=np.int64)
    where = np.zeros(count + 1, dtype=np.int64)
    count = 0
    for row in range(rows):
        for col in range(cols):
            code = codes[row, col]
            if not changed[code]:
                continue
            here = row * cols + col
            root = _root(parent, here)
            if root == here:
                count += 1
                number[row, col] = count
                code_of[count] = code
                where[count] = here
            else:
                number[row, col] = number[root // cols, root % cols]
            pixels[number[row, col]] += 1
    return number, code_of, pixels, where


@dataclass(frozen=True, slots=True)
class BorderRegions:
    """What a core tells of its regions that touch its border.

    Args:
        number: int32 (B,), ascending.
        code: uint8 (B,).
        pixels: int64 (B,).
        first: int64 (B,).
        edges: numbers along the sides "top", "bottom", "left", "right".
    """

    number: NumberArray
    code: ByteArray
    pixels: LongArray
    first: LongArray
    edges: Mapping[str, NumberArray]

    @staticmethod
    def of(regions: LocalRegions) -> BorderRegions:
        """Those of a core."""
        number = np.flatnonzero(regions.at_border()).astype(np.int32)
        return BorderRegions(
            number, regions.code[number], regions.pixels[number], regions.first[number],
            regions.edges,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class JoinedRegions:
    """What the border regions of one core belong to.

    Args:
        number: in the core, int32 (B,), ascending.
        key: of the whole region: the place of its first pixel in the map, int64 (B,).
        pixels: of the whole region, int64 (B,).
    """

    number: NumberArray
    key: LongArray
    pixels: LongArray


def join_regions(
    grid: TileGrid, borders: Mapping[Tile, BorderRegions]
) -> dict[Tile, JoinedRegions]:
    """Join what touches across the borders of cores and has one code.

    Each entry of ``borders`` is asked for once, in raster order, so it may be read when it is
    asked for: held are 17 bytes for each region that reaches a border, the sides of one row of
    tiles, and the pairs that touch.

    Args:
        grid: the cut.
        borders: of every tile.

    Returns:
        What the border regions of every tile belong to.
    """
    tiles, counts = list(grid.tiles()), []
    numbers, firsts, sizes, pairs = [], [], [], [np.zeros((0, 2), dtype=np.int64)]
    above: dict[int, _Side] = {}
    beside, base = _Side.none(), 0
    for tile in tiles:
        border = borders[tile]
        if tile.row:
            pairs.append(_touching(above[tile.col], _Side.of(border, "top", base)))
        if tile.col:
            pairs.append(_touching(beside, _Side.of(border, "left", base)))
        above[tile.col] = _Side.of(border, "bottom", base)
        beside = _Side.of(border, "right", base)
        numbers.append(border.number)
        firsts.append(border.first)
        sizes.append(border.pixels)
        counts.append(len(border.number))
        base += len(border.number)
    key, pixels = _merge(np.concatenate(pairs), np.concatenate(firsts), np.concatenate(sizes))
    ends = np.cumsum(counts)[:-1]
    parts = zip(numbers, np.split(key, ends), np.split(pixels, ends), strict=True)
    found = (JoinedRegions(*part) for part in parts)
    return dict(zip(tiles, found, strict=True))


@dataclass(frozen=True, slots=True)
class _Side:
    """One side of a core: of each pixel the region among those of all tiles, -1 if none; code."""

    region: LongArray
    code: ByteArray

    @staticmethod
    def none() -> _Side:
        return _Side(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.uint8))

    @staticmethod
    def of(border: BorderRegions, name: str, base: int) -> _Side:
        numbers = border.edges[name]
        if not len(border.number):
            return _Side(np.full(len(numbers), -1), np.zeros(len(numbers), dtype=np.uint8))
        place = np.minimum(np.searchsorted(border.number, numbers), len(border.number) - 1)
        region = np.where(numbers > 0, base + place, -1)
        return _Side(region.astype(np.int64), border.code[place])


def _touching(one: _Side, two: _Side) -> LongArray:
    """Regions of one code that lie beside each other, int64 (pair, 2)."""
    same = (one.region >= 0) & (two.region >= 0) & (one.code == two.code)
    found: LongArray = np.unique(np.stack([one.region[same], two.region[same]], axis=1), axis=0)
    return found


def _merge(pairs: LongArray, first: LongArray, pixels: LongArray) -> tuple[LongArray, LongArray]:
    """First place and pixels of the whole that each region belongs to, int64 (region,) each."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(first)
    if not len(pairs):
        return first, pixels
    weight = np.ones(len(pairs), dtype=np.int8)
    graph = coo_array((weight, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    wholes, whole = connected_components(graph, directed=False)
    key = np.full(wholes, np.iinfo(np.int64).max)
    np.minimum.at(key, whole, first)
    total = np.zeros(wholes, dtype=np.int64)
    np.add.at(total, whole, pixels)
    return key[whole], total[whole]


def totals(regions: LocalRegions, joined: JoinedRegions) -> tuple[LongArray, LongArray]:
    """Key and pixels of the whole region of each number, int64 (R + 1,) each."""
    key, pixels = regions.first.copy(), regions.pixels.copy()
    key[joined.number] = joined.key
    pixels[joined.number] = joined.pixels
    return key, pixels


def sieve(
    codes: ByteArray, regions: LocalRegions, pixels: LongArray, mmu_px: int, classes: int
) -> tuple[ByteArray, npt.NDArray[np.bool_]]:
    """Map regions below the minimum mapping unit as no change of the class before.

    Args:
        codes: change codes, (y, x).
        regions: of the core.
        pixels: of the whole region of each number, see ``totals``.
        mmu_px: the smallest region that is kept, pixels.
        classes: how many there are.

    Returns:
        Codes, and where they were changed.
    """
    small = pixels < mmu_px
    small[0] = False
    hidden = small[regions.number]
    before = (codes.astype(np.int64) - 1) // classes
    stays = (1 + classes * before + before).astype(np.uint8)
    return np.where(hidden, stays, codes), hidden
