r"""How a scene is cut: cores that partition it, patches that overlap, weights that blend.

::

    cores     |-----0-----|-----1-----|-----2-----|-----3-----|--4--|    partition the scene
    patch 2                       [---------+---------]                  core + 2 * halo
    weight 2                      00////11111111\\\\00                   ramp of half-width blend
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tilemap.errors import GridError
from tilemap.geometry.window import Window

LARGEST = 1 << 24
"""Pixels that a core or a halo may have a side; no patch of so many fits into any memory."""


class Tile(NamedTuple):
    """Address of a tile in its grid."""

    row: int
    col: int

    def __str__(self) -> str:
        return f"({self.row}, {self.col})"


def round_up(value: int, multiple: int) -> int:
    """Smallest multiple of ``multiple`` that is at least ``value``."""
    return -(-value // multiple) * multiple


@dataclass(frozen=True, slots=True)
class TileGrid:
    """The cut of one scene, in scene pixels; pure geometry.

    Args:
        scene: rows and columns of the scene, each at least 1.
        core: side of the square each tile owns; a multiple of ``stride``.
        halo: margin read on each side of the core; a multiple of ``stride``.
        blend: half-width of the ramp over each core border, ``blend <= halo`` and
            ``2 * blend <= core``.
        stride: step of the model's coarsest layer. Patches begin on multiples of it and the
            patches of the last row and column, which are only as large as the scene leaves
            them, are rounded up to it.
        fixed: every patch is ``core + 2 * halo``, also in the last row and column, for a model
            that takes no other size.

    Raises:
        GridError: if one of these does not hold.

    >>> grid = TileGrid(scene=(1000, 1500), core=448, halo=32, blend=16)
    >>> grid.shape, grid.patch
    ((3, 4), 512)
    >>> grid.core_window((2, 3))
    Window(top=896, left=1344, bottom=1000, right=1500)
    >>> grid.patch_window((0, 0))
    Window(top=-32, left=-32, bottom=480, right=480)
    >>> grid.patch_window((2, 3)).shape                # the last one is as small as the scene
    (168, 220)
    """

    scene: tuple[int, int]
    core: int
    halo: int
    blend: int
    stride: int = 1
    fixed: bool = False

    def __post_init__(self) -> None:
        if min(self.scene) < 1:
            raise GridError(f"a scene must have at least one row and one column, got {self.scene}")
        if self.stride < 1:
            raise GridError(f"stride must be at least 1 pixel, got {self.stride}")
        if self.core < 1 or self.core % self.stride:
            raise GridError(
                f"core must be a positive multiple of stride={self.stride} pixels, got {self.core}"
            )
        if self.halo < 0 or self.halo % self.stride:
            raise GridError(
                f"halo must be 0 or a multiple of stride={self.stride} pixels, got {self.halo}"
            )
        if max(self.core, self.halo) > LARGEST:
            raise GridError(
                f"core and halo must be at most {LARGEST} pixels, got core={self.core}, "
                f"halo={self.halo}"
            )
        if not 0 <= self.blend <= self.halo:
            raise GridError(
                f"blend must lie between 0 and halo={self.halo} pixels, got {self.blend}"
            )
        if 2 * self.blend > self.core:
            raise GridError(
                f"blend must be at most half of core={self.core} pixels, got {self.blend}"
            )

    @property
    def patch(self) -> int:
        """Side of a full patch, ``core + 2 * halo``."""
        return self.core + 2 * self.halo

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of tiles."""
        return -(-self.scene[0] // self.core), -(-self.scene[1] // self.core)

    @property
    def size(self) -> int:
        """Number of tiles."""
        return self.shape[0] * self.shape[1]

    @property
    def scene_window(self) -> Window:
        """The whole scene."""
        return Window(0, 0, *self.scene)

    def tiles(self) -> Iterator[Tile]:
        """All tiles, row by row."""
        rows, cols = self.shape
        return (Tile(row, col) for row in range(rows) for col in range(cols))

    def _check(self, tile: tuple[int, int]) -> None:
        rows, cols = self.shape
        if not (0 <= tile[0] < rows and 0 <= tile[1] < cols):
            raise GridError(f"a tile must lie in a grid of {rows} x {cols} tiles, got {tile}")

    def core_window(self, tile: tuple[int, int]) -> Window:
        """What the tile owns, clipped by the scene."""
        self._check(tile)
        top, left = tile[0] * self.core, tile[1] * self.core
        return Window(
            top, left, min(top + self.core, self.scene[0]), min(left + self.core, self.scene[1])
        )

    def patch_window(self, tile: tuple[int, int]) -> Window:
        """What the tile reads; overhangs the scene at its edges, where the reader reflects."""
        core = self.core_window(tile)
        height, width = core.shape
        if self.fixed:
            height = width = self.core
        bottom = core.top + round_up(height, self.stride)
        right = core.left + round_up(width, self.stride)
        return Window(core.top, core.left, bottom, right).grow(self.halo)

    def blend_window(self, tile: tuple[int, int]) -> Window:
        """Where the tile has any weight: its core and ``blend`` pixels around it, in the scene."""
        return self.core_window(tile).grow(self.blend).intersect(self.scene_window)

    def interior_window(self, tile: tuple[int, int]) -> Window:
        """Where only this tile has weight: its core less ``blend`` pixels beside each neighbour.

        Empty (of height or width 0) in a last row or column narrower than ``blend``.
        """
        core = self.core_window(tile)
        rows, cols = self.shape
        top = core.top + (self.blend if tile[0] > 0 else 0)
        left = core.left + (self.blend if tile[1] > 0 else 0)
        bottom = core.bottom - (self.blend if tile[0] < rows - 1 else 0)
        right = core.right - (self.blend if tile[1] < cols - 1 else 0)
        top, left = min(top, core.bottom), min(left, core.right)
        return Window(top, left, max(top, bottom), max(left, right))

    def neighbours(self, tile: tuple[int, int]) -> tuple[Tile, ...]:
        """The tile and those that touch it, itself included, in row order; 1 to 9 of them."""
        self._check(tile)
        rows, cols = self.shape
        return tuple(
            Tile(row, col)
            for row in range(max(tile[0] - 1, 0), min(tile[0] + 2, rows))
            for col in range(max(tile[1] - 1, 0), min(tile[1] + 2, cols))
        )

    def axis_weight(self, axis: int, index: int, start: int, stop: int) -> npt.NDArray[np.float64]:
        """Weight of tile row (axis 0) or column (axis 1) ``index`` at pixels ``start..stop - 1``.

        A linear ramp at pixel centres: 0 at ``blend`` before a border, 1 at ``blend`` after it,
        and 1 up to the scene's own edge. The weight of a pixel is the product of its two axes.

        Returns:
            float64 (stop - start,), 0..1; over all tiles of the axis they sum to 1.
        """
        centre = np.arange(start, stop, dtype=np.float64) + 0.5
        weight = np.ones(stop - start)
        begin, end = index * self.core, (index + 1) * self.core
        if index > 0:
            weight *= self._rise(centre, begin)
        if end < self.scene[axis]:
            weight *= 1.0 - self._rise(centre, end)
        return weight

    def _rise(self, centre: npt.NDArray[np.float64], border: int) -> npt.NDArray[np.float64]:
        if self.blend == 0:
            return (centre > border).astype(np.float64)
        return np.clip((centre - border + self.blend) / (2 * self.blend), 0.0, 1.0)

    def weight(self, tile: tuple[int, int], window: Window) -> npt.NDArray[np.float64]:
        """Weight of a tile at every pixel of a window, float64 (y, x), 0..1."""
        rows = self.axis_weight(0, tile[0], window.top, window.bottom)
        cols = self.axis_weight(1, tile[1], window.left, window.right)
        return rows[:, None] * cols[None, :]

    def patch_pixels(self) -> int:
        """Pixels of all patches together: what the model computes for the scene."""
        total = 1
        for axis in (0, 1):
            full, rest = divmod(self.scene[axis], self.core)
            side = full * self.patch
            if rest:
                side += self.patch if self.fixed else round_up(rest, self.stride) + 2 * self.halo
            total *= side
        return total

    @property
    def overhead(self) -> float:
        """Patch pixels over scene pixels, at least 1: the price of the halo."""
        return self.patch_pixels() / (self.scene[0] * self.scene[1])


def fit_core(scene: tuple[int, int], largest_patch: int, halo: int, stride: int) -> int:
    """The core, a multiple of stride, that makes the model compute the fewest pixels.

    Among all cores whose patch is at most ``largest_patch`` pixels; of equals the smallest, so
    that the last row and column are no slivers and tiles cost about the same.

    Raises:
        GridError: if not even a core of one stride fits into such a patch.

    >>> fit_core((4096, 4096), largest_patch=1152, halo=32, stride=32)
    1024
    """
    largest = (largest_patch - 2 * halo) // stride * stride
    if largest < stride:
        raise GridError(
            f"a patch must be at least stride + 2 * halo = {stride + 2 * halo} pixels, "
            f"got {largest_patch}"
        )
    largest = min(largest, round_up(max(scene), stride))
    smallest = max(stride, largest // 2 // stride * stride)
    candidates = range(smallest, largest + 1, stride)
    return min(candidates, key=lambda core: TileGrid(scene, core, halo, 0, stride).patch_pixels())
