"""Which pixel of one grid holds the centre of each pixel of another.

The answer for a pixel never depends on the window it is asked for in: between two CRS it is
worked out on a lattice that lies still, so that counts do not depend on how a map is cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from tilemap.geometry import Window
from tilemap.stores.grids import pixel_affine, pixel_map

CELL = 32  # pixels of the target between two nodes of the lattice
BENT = 0.02  # pixels of the source; a cell that is bent more is worked out pixel by pixel
_ON_EDGE = 1e-6  # pixels; a centre on an edge belongs to the pixel to the right, or below
_NOWHERE = -1

_Floats = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Placing:
    """Pixels of a source under the centres of a target's.

    Args:
        target: the grid that asks.
        source: the grid that answers.
    """

    target: GeoBox
    source: GeoBox

    def indices(self, window: Window) -> tuple[Index, Index]:
        """Rows and columns in the source, -1 where the source has no pixel.

        Args:
            window: of the target.

        Returns:
            int64, broadcasting to (y, x) of the window: (y, 1) and (1, x) where the axes of both
            grids run alike.
        """
        y = np.arange(window.top, window.bottom, dtype=np.float64) + 0.5
        x = np.arange(window.left, window.right, dtype=np.float64) + 0.5
        affine = pixel_affine(self.target, self.source)
        if affine is None:
            col, row = self._warped(window)
        elif affine.b == 0 and affine.d == 0:
            row, col = (affine.e * y + affine.f)[:, None], (affine.a * x + affine.c)[None, :]
        else:
            row = affine.d * x[None, :] + affine.e * y[:, None] + affine.f
            col = affine.a * x[None, :] + affine.b * y[:, None] + affine.c
        rows, cols = self.source.shape
        return _within(row, int(rows)), _within(col, int(cols))

    def _warped(self, window: Window) -> tuple[_Floats, _Floats]:
        """Columns and rows of the source, float64 (y, x); infinite where there is none."""
        top, left = window.top // CELL, window.left // CELL
        cells = Window(top, left, -(-window.bottom // CELL), -(-window.right // CELL))
        nodes_y = np.arange(cells.top, cells.bottom + 1) * float(CELL)
        nodes_x = np.arange(cells.left, cells.right + 1) * float(CELL)
        nodes = self._exact(nodes_x, nodes_y)
        middle = self._exact(nodes_x[:-1] + CELL / 2, nodes_y[:-1] + CELL / 2)
        fraction: _Floats = (np.arange(CELL) + 0.5) / CELL
        with np.errstate(invalid="ignore"):
            away = [
                np.abs(m - (n[:-1, :-1] + n[:-1, 1:] + n[1:, :-1] + n[1:, 1:]) / 4)
                for n, m in zip(nodes, middle, strict=True)
            ]
            straight = (away[0] <= BENT) & (away[1] <= BENT)  # False where it is not a number
            planes = [_between(plane, fraction) for plane in nodes]
        offset = window.top - top * CELL, window.left - left * CELL
        for row, col in np.argwhere(~straight):
            x, y = (
                (start + index) * CELL + np.arange(CELL) + 0.5
                for start, index in ((left, col), (top, row))
            )
            here = np.s_[row * CELL : (row + 1) * CELL, col * CELL : (col + 1) * CELL]
            for plane, exact in zip(planes, self._exact(x, y), strict=True):
                plane[here] = exact
        part = np.s_[offset[0] : offset[0] + window.height, offset[1] : offset[1] + window.width]
        return planes[0][part], planes[1][part]

    def _exact(self, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> list[_Floats]:
        """Columns and rows of the source at every pair of x and y, float64 (y, x) each."""
        across, down = np.meshgrid(x, y)
        found = pixel_map(self.target, self.source, across.ravel(), down.ravel())
        return [np.asarray(plane, dtype=np.float64).reshape(across.shape) for plane in found]


def _between(nodes: _Floats, fraction: _Floats) -> _Floats:
    """Bilinear between the nodes: (row + 1, col + 1) to (row * CELL, col * CELL)."""
    along = nodes[:-1, None, :] * (1 - fraction)[:, None] + nodes[1:, None, :] * fraction[:, None]
    along = along.reshape(-1, nodes.shape[1])
    both = along[:, :-1, None] * (1 - fraction) + along[:, 1:, None] * fraction
    return np.asarray(both.reshape(along.shape[0], -1))


def _within(position: _Floats, count: int) -> Index:
    """Index of the pixel that holds each position; -1 outside."""
    with np.errstate(invalid="ignore"):
        index: Any = np.floor(position + _ON_EDGE)
        inside = (index >= 0) & (index < count)
    return np.where(inside, index, _NOWHERE).astype(np.int64)
