"""One date of a series: its probabilities by core, on the grid of the series."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from tilemap.errors import DamagedError
from tilemap.geometry import Tile, TileGrid, Window
from tilemap.probability import LINEAR, MOST, NODATA, VALUES
from tilemap.stores import georeference as geo
from tilemap.stores.chunks import (
    DamagedChunkError,
    add_array,
    array_of,
    create_group,
    finish_group,
    has_chunk,
    open_group,
    read_chunk,
    sync_chunk,
    write_chunk,
)
from tilemap.stores.marks import Mark, Marks

if TYPE_CHECKING:
    from tilemap.stores.remote.place import Place

NAME, BYTE_VALUES = "probability", "tilemap:probability_of_byte"
ByteArray = npt.NDArray[np.uint8]


def create_planes(
    path: Place, grid: TileGrid, geobox: GeoBox, count: int, attributes: dict[str, Any]
) -> None:
    """Make a store of ``count`` planes without cores, that xarray can open.

    Args:
        attributes: of the store, besides those of the grid.

    Raises:
        StoreError: if it cannot be made.
    """
    group = create_group(
        path,
        {
            "Conventions": "CF-1.11",
            "tilemap:grid": asdict(grid),
            BYTE_VALUES: VALUES[: MOST + 1].tolist(),
            **attributes,
            **geo.geobox_attributes(geobox),
        },
    )
    add_array(
        group, NAME, (count, *grid.scene), (count, grid.core, grid.core), np.uint8,
        ("class", "y", "x"), {"grid_mapping": geo.GRID_MAPPING, "nodata": NODATA},
    )  # fmt: skip
    geo.add_grid_mapping(group, geobox)
    geo.add_map_coordinates(group, geobox)
    Marks.create(group, grid.shape)
    finish_group(path)


class DateStore:
    """Array ``probability`` uint8 (class, y, x), one chunk per core; ``done``.

    Stored are the bytes of ``probability.quantise``; 255 in every class where the date was not
    observed. The attribute ``tilemap:probability_of_byte`` of the store says what each byte means;
    one without it has equal steps, and its bytes are brought to those of today as they are read.
    """

    def __init__(self, path: Place, grid: TileGrid) -> None:
        group = open_group(path)
        self.grid = grid
        self._array = array_of(group, NAME)
        self.is_linear = BYTE_VALUES not in group.attrs
        self.marks = Marks(group)

    @classmethod
    def create(
        cls, path: Place, grid: TileGrid, geobox: GeoBox, classes: int, digest: str
    ) -> DateStore:
        """A new store without cores.

        Args:
            path: of the store.
            grid: the cut of the series.
            geobox: the grid of the series.
            classes: how many there are.
            digest: of all that decides what it holds.
        """
        create_planes(path, grid, geobox, classes, {"tilemap:digest": digest})
        return cls(path, grid)

    @property
    def count(self) -> int:
        """How many classes there are."""
        return int(self._array.shape[0])

    def write(self, tile: Tile, quantised: ByteArray, mark: Mark = Mark.DONE) -> None:
        """Write one core, uint8 (class, y, x), flush it, mark it.

        Raises:
            StoreError: if it cannot be written.
        """
        assert not self.is_linear, "a store of equal steps is read, never written"
        write_chunk(self._array, (0, *tile), quantised)
        sync_chunk(self._array, (0, *tile))
        self.marks.set(tile, mark)

    def write_blank(self, tile: Tile) -> None:
        """A core that was not observed, because it could not be read; to be tried again."""
        shape = self.grid.core_window(tile).shape
        self.write(tile, np.full((self.count, *shape), NODATA, np.uint8), Mark.PROVISIONAL)

    def has(self, tile: Tile) -> bool:
        """Whether a core is marked done and its chunk exists."""
        return self.marks.get(tile) is Mark.DONE and self.has_chunk(tile)

    def has_chunk(self, tile: Tile) -> bool:
        """Whether the chunk of a core exists."""
        return has_chunk(self._array, (0, *tile))

    def read_window(self, window: Window) -> ByteArray:
        """Quantised probability, uint8 (class, y, x); 255 beyond the edge of the map.

        Raises:
            DamagedError: if a core it needs was never written or is damaged.
        """
        out = np.full((self.count, *window.shape), NODATA, dtype=np.uint8)
        inside = window.intersect(self.grid.scene_window)
        if not inside.size:
            return out
        core = self.grid.core
        for row in range(inside.top // core, -(-inside.bottom // core)):
            for col in range(inside.left // core, -(-inside.right // core)):
                owned = self.grid.core_window((row, col))
                part = owned.intersect(inside)
                if part.size:
                    chunk = self.read_core(Tile(row, col))
                    out[:, *part.within(window)] = chunk[:, *part.within(owned)]
        return out

    def _as_now(self, stored: ByteArray) -> ByteArray:
        """Bring the bytes of a store of equal steps to those of today."""
        return LINEAR[stored] if self.is_linear else stored

    def read_core(self, tile: Tile) -> ByteArray:
        """One core, uint8 (class, y, x).

        Raises:
            DamagedError: if it was never written or is damaged; its mark is taken away.
        """
        try:
            return self._as_now(read_chunk(self._array, (0, *tile)))
        except DamagedChunkError as error:
            self.marks.set(tile, Mark.MISSING)
            raise DamagedError(str(error), tile) from error
