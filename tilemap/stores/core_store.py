"""Layers of one map by core: any number of them, of any type, and the figures of each core."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from tilemap.errors import DamagedError
from tilemap.geometry import Tile, TileGrid, Window
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

FIGURES = "figures"
DIGEST, LAYERS = "tilemap:digest", "tilemap:layers"
AnyArray = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One layer of a store.

    Args:
        dtype: NumPy name of its numbers.
        planes: None for (y, x); else (plane, y, x) of that many planes, all in one chunk.
    """

    dtype: str
    planes: int | None = None


class CoreStore:
    """Named layers (y, x) or (plane, y, x) by core; ``figures`` (row, col, figure); ``done``."""

    def __init__(self, path: Path, grid: TileGrid) -> None:
        group = open_group(path)
        self.grid = grid
        self.digest = str(group.attrs.get(DIGEST, ""))
        names: Any = group.attrs.get(LAYERS, [])
        self._layers = {str(name): array_of(group, str(name)) for name in names}
        self._figures = array_of(group, FIGURES)
        self.marks = Marks(group)

    @classmethod
    def create(
        cls,
        path: Path,
        grid: TileGrid,
        geobox: GeoBox,
        digest: str,
        layers: Mapping[str, LayerSpec],
        figures: int,
    ) -> CoreStore:
        """A new store without cores.

        Args:
            digest: whose it is; another digest is another store.
            figures: how many numbers are kept of each core, float64.
        """
        group = create_group(
            path,
            {
                "Conventions": "CF-1.11",
                DIGEST: digest,
                LAYERS: list(layers),
                "tilemap:grid": asdict(grid),
                **geo.geobox_attributes(geobox),
            },
        )
        for name, spec in layers.items():
            full: tuple[int, ...] = grid.scene
            size: tuple[int, ...] = (grid.core, grid.core)
            dims: tuple[str, ...] = ("y", "x")
            if spec.planes is not None:
                full, size = (spec.planes, *full), (spec.planes, *size)
                dims = (f"{name}_plane", *dims)
            add_array(
                group, name, full, size, np.dtype(spec.dtype), dims,
                {"grid_mapping": geo.GRID_MAPPING},
            )  # fmt: skip
        add_array(
            group, FIGURES, (*grid.shape, figures), (1, 1, figures), np.float64,
            ("row", "col", "figure"),
        )  # fmt: skip
        geo.add_grid_mapping(group, geobox)
        geo.add_map_coordinates(group, geobox)
        Marks.create(group, grid.shape)
        finish_group(path)
        return cls(path, grid)

    def _index(self, name: str, tile: tuple[int, int]) -> tuple[int, ...]:
        array = self._layers[name]
        return (0, *tile) if array.ndim == 3 else tuple(tile)

    def write(
        self,
        tile: Tile,
        layers: Mapping[str, AnyArray],
        figures: npt.NDArray[np.float64],
        mark: Mark = Mark.DONE,
    ) -> None:
        """Write every layer of one core, flush it, mark it.

        Raises:
            StoreError: if it cannot be written.
        """
        for name, array in self._layers.items():
            write_chunk(array, self._index(name, tile), layers[name])
        write_chunk(self._figures, (*tile, 0), figures[None, None])
        for name, array in self._layers.items():
            sync_chunk(array, self._index(name, tile))
        sync_chunk(self._figures, (*tile, 0))
        self.marks.set(tile, mark)

    def read_core(self, name: str, tile: Tile) -> AnyArray:
        """One layer of one core, (y, x) or (plane, y, x).

        Raises:
            DamagedError: if it was never written or is damaged; it is missing from then on.
        """
        try:
            return read_chunk(self._layers[name], self._index(name, tile))
        except DamagedChunkError as error:
            self.marks.set(tile, Mark.MISSING)  # the same command mends it
            raise DamagedError(str(error), tile) from error

    def read_figures(self, tile: Tile) -> npt.NDArray[np.float64]:
        """The figures of one core, float64 (figure,)."""
        try:
            figures: npt.NDArray[np.float64] = read_chunk(self._figures, (*tile, 0))[0, 0]
        except DamagedChunkError as error:
            self.marks.set(tile, Mark.MISSING)
            raise DamagedError(str(error), tile) from error
        return figures

    def read_window(self, name: str, window: Window) -> AnyArray:
        """One layer of any window inside the map, (y, x) or (plane, y, x).

        Raises:
            DamagedError: if a core it needs was never written or is damaged.
        """
        array, core = self._layers[name], self.grid.core
        planes = array.shape[:-2]
        out = np.empty((*planes, *window.shape), dtype=array.dtype)
        for row in range(window.top // core, -(-window.bottom // core)):
            for col in range(window.left // core, -(-window.right // core)):
                owned = self.grid.core_window((row, col))
                part = owned.intersect(window)
                if part.size:
                    chunk = self.read_core(name, Tile(row, col))
                    out[..., *part.within(window)] = chunk[..., *part.within(owned)]
        return out

    def state(self, tile: Tile) -> Mark:
        """Mark of a core; missing if a chunk it vouches for is not there."""
        mark = self.marks.get(tile)
        if mark is Mark.MISSING:
            return mark
        whole = has_chunk(self._figures, (*tile, 0)) and all(
            has_chunk(array, self._index(name, tile)) for name, array in self._layers.items()
        )
        return mark if whole else Mark.MISSING
