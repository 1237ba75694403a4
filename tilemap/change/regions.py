"""Regions of change: what hangs together by edges and has one code, whatever the cut.

A core knows its own pixels and what touches its border. Regions that reach a border are joined
with those of the tiles beside it by union-find; all others are whole already. So every region is
the same for any cut, and memory grows with the borders only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

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
        codes: change codes, (y, x).
        changed: which codes are changes, bool (256,).
        origin: row and column of the core's first pixel in the map.
        columns: of the map.
    """
    number, count = _label(np.ascontiguousarray(codes), changed)
    flat = number.ravel()
    pixels = np.bincount(flat, minlength=count + 1)
    pixels[0] = 0
    _, where = np.unique(flat, return_index=True)
    if len(where) == count:  # no pixel without change
        where = np.concatenate([[0], where])
    row, col = np.divmod(where, codes.shape[1])
    first = (origin[0] + row) * columns + origin[1] + col
    code = codes.ravel()[where].astype(np.uint8)
    code[0] = 0
    return LocalRegions(number, code, pixels.astype(np.int64), first.astype(np.int64))


@numba.njit(cache=True, nogil=True)
def _label(codes, changed):  # type: ignore[no-untyped-def]
    """Numbers of 4-connected equal codes in raster order, and how many there are."""
    rows, cols = codes.shape
    parent = np.zeros(rows * cols, dtype=np.int32)
    for row in range(rows):
        for col in range(cols):
            here = row * cols + col
            parent[here] = here
            code = codes[row, col]
            if not changed[code]:
                continue
            if row and codes[row - 1, col] == code:
                root = here - cols
                while parent[root] != root:
                    parent[root] = parent[parent[root]]
                    root = parent[root]
                parent[here] = root
            if col and codes[row, col - 1] == code:
                one = here - 1
                while parent[one] != one:
                    parent[one] = parent[parent[one]]
                    one = parent[one]
                two = parent[here]
                while parent[two] != two:
                    parent[two] = parent[parent[two]]
                    two = parent[two]
                low, high = min(one, two), max(one, two)
                parent[high] = low
                parent[here] = low
    number = np.zeros((rows, cols), dtype=np.int32)
    count = 0
    for row in range(rows):
        for col in range(cols):
            if not changed[codes[row, col]]:
                continue
            root = row * cols + col
            while parent[root] != root:
                root = parent[root]
            if root == row * cols + col:
                count += 1
                number[row, col] = count
            else:
                number[row, col] = number[root // cols, root % cols]
    return number, count


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

    Args:
        grid: the cut.
        borders: of every tile.
    """
    parent: dict[tuple[Tile, int], tuple[Tile, int]] = {}

    def root(node: tuple[Tile, int]) -> tuple[Tile, int]:
        top = node
        while parent.get(top, top) != top:
            top = parent[top]
        while parent.get(node, node) != top:
            parent[node], node = top, parent.get(node, node)
        return top

    codes = {
        (tile, int(n)): int(c)
        for tile, border in borders.items()
        for n, c in zip(border.number, border.code, strict=True)
    }
    for tile in grid.tiles():
        for other, mine, theirs in (
            (Tile(tile.row, tile.col + 1), "right", "left"),
            (Tile(tile.row + 1, tile.col), "bottom", "top"),
        ):
            if other not in borders:
                continue
            pairs = np.stack([borders[tile].edges[mine], borders[other].edges[theirs]], axis=1)
            for one, two in np.unique(pairs[(pairs > 0).all(axis=1)], axis=0).tolist():
                a, b = (tile, one), (other, two)
                if codes[a] == codes[b]:
                    parent[root(b)] = root(a)
    key: dict[tuple[Tile, int], int] = {}
    pixels: dict[tuple[Tile, int], int] = {}
    for tile, border in borders.items():
        for n, size, first in zip(border.number, border.pixels, border.first, strict=True):
            top = root((tile, int(n)))
            key[top] = min(key.get(top, int(first)), int(first))
            pixels[top] = pixels.get(top, 0) + int(size)
    return {
        tile: JoinedRegions(
            border.number,
            np.array([key[root((tile, int(n)))] for n in border.number], dtype=np.int64),
            np.array([pixels[root((tile, int(n)))] for n in border.number], dtype=np.int64),
        )
        for tile, border in borders.items()
    }


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
