"""Tile: read a patch, reflecting the scene at its edges."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tilemap.geometry import Window
from tilemap.scene import Scene

BoolArray = npt.NDArray[np.bool_]


class WindowReader(Protocol):
    """Anything that reads windows of one scene."""

    @property
    def scene(self) -> Scene:
        """What is read."""
        ...

    def read(self, window: Window) -> tuple[npt.NDArray[Any], BoolArray]:
        """Image (band, y, x) and valid (y, x) of a window inside the scene."""
        ...


def reflect_index(start: int, stop: int, length: int) -> npt.NDArray[np.intp]:
    """Pixels of an axis of ``length`` that stand at ``start..stop - 1`` when it is reflected.

    The edge pixel is not repeated, as in ``numpy.pad(mode="reflect")``: -1 shows pixel 1. The
    reflection goes on for ever, so a scene smaller than its patch works.

    >>> reflect_index(-2, 6, 4).tolist()
    [2, 1, 0, 1, 2, 3, 2, 1]
    """
    if length == 1:
        return np.zeros(stop - start, dtype=np.intp)
    period = 2 * (length - 1)
    index = np.arange(start, stop, dtype=np.intp) % period
    return np.minimum(index, period - index)


def read_patch(reader: WindowReader, window: Window) -> tuple[npt.NDArray[Any], BoolArray]:
    """Read a window that may overhang the scene, which is reflected there.

    Only the part inside the scene is read, once.

    Returns:
        Image as stored (band, y, x) and valid (y, x), both of the window's shape.
    """
    rows = reflect_index(window.top, window.bottom, reader.scene.shape[0])
    cols = reflect_index(window.left, window.right, reader.scene.shape[1])
    inside = Window(int(rows.min()), int(cols.min()), int(rows.max()) + 1, int(cols.max()) + 1)
    image, valid = reader.read(inside)
    if inside == window:
        return image, valid
    rows, cols = rows - inside.top, cols - inside.left
    return image[:, rows[:, None], cols[None, :]], valid[rows[:, None], cols[None, :]]
