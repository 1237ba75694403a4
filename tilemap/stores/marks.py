"""Which tiles of a store are finished: one tiny chunk per tile, written last."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from tilemap.geometry import Tile
from tilemap.stores.chunks import (
    DamagedChunkError,
    add_array,
    array_of,
    has_chunk,
    read_chunk,
    remove_chunk,
    write_chunk,
)

NAME = "done"


class Mark(IntEnum):
    """State of one tile in one store."""

    MISSING = 0
    DONE = 1
    PROVISIONAL = 2
    """Finished without a neighbour that was quarantined; done again when that one is there."""


class Marks:
    """The done array of a store, (row, col)."""

    def __init__(self, group: zarr.Group) -> None:
        self._array = array_of(group, NAME)

    @staticmethod
    def create(group: zarr.Group, shape: tuple[int, int]) -> None:
        """Add an empty done array to a new store."""
        add_array(group, NAME, shape, (1, 1), np.uint8, ("row", "col"))

    def get(self, tile: Tile) -> Mark:
        """State of one tile; missing if its mark is damaged, as a power cut may leave it."""
        if not has_chunk(self._array, tile):
            return Mark.MISSING
        try:
            return Mark(int(read_chunk(self._array, tile)[0, 0]))
        except (DamagedChunkError, ValueError):
            return Mark.MISSING

    def set(self, tile: Tile, mark: Mark) -> None:
        """Record the state of one tile; what it vouches for must be flushed before."""
        if mark is Mark.MISSING:
            remove_chunk(self._array, tile)
            return
        write_chunk(self._array, tile, np.array([[mark]], dtype=np.uint8))

    def read(self) -> npt.NDArray[np.uint8]:
        """All states, uint8 (row, col) of ``Mark`` values."""
        states: npt.NDArray[Any] = np.zeros(self._array.shape, dtype=np.uint8)
        for row, col in np.ndindex(*states.shape):
            states[row, col] = self.get(Tile(row, col))
        return states
