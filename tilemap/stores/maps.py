"""``map.zarr``: class map, confidence and uncertainty by core, and the figures of each tile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import zarr
from odc.geo.geobox import GeoBox

from tilemap.errors import DamagedError
from tilemap.geometry import Tile, TileGrid, Window
from tilemap.stores import georeference as geo
from tilemap.stores.chunks import (
    DamagedChunkError,
    Index,
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
from tilemap.stores.predictions import MEASURES, Uncertainty, kept_measures

if TYPE_CHECKING:
    from tilemap.stores.remote.place import Place

ByteArray = npt.NDArray[np.uint8]
Layer = Literal["landcover", "confidence", "entropy", "margin"]
_STATS = 256 + 256 + 3


@dataclass(frozen=True, slots=True)
class Seam:
    """How far neighbours disagree where both predict, measured where their bands meet.

    Args:
        pixels: pixels compared.
        differ: of those, pixels to which the two tiles would give different labels.
        largest: largest difference of one class's probability, 0..1.
    """

    pixels: int = 0
    differ: int = 0
    largest: float = 0.0

    def __add__(self, other: Seam) -> Seam:
        return Seam(
            self.pixels + other.pixels,
            self.differ + other.differ,
            max(self.largest, other.largest),
        )

    @property
    def share(self) -> float:
        """Share of compared pixels that differ, 0..1."""
        return self.differ / self.pixels if self.pixels else 0.0


@dataclass(frozen=True, slots=True)
class CoreStats:
    """Figures of one core.

    Args:
        labels: pixels per map value, int64 (256,).
        confidence: pixels per percent, int64 (256,); 255 is not observed.
        seam: against the tiles above and to the left.
    """

    labels: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.int64]
    seam: Seam


class MapStore:
    """Arrays ``landcover``, ``confidence``, ... uint8 (y, x) by core; ``stats``; ``done``."""

    def __init__(self, path: Place, grid: TileGrid) -> None:
        group = open_group(path)
        self.grid = grid
        self.uncertainty: tuple[Uncertainty, ...] = tuple(kept_measures(group))
        names: tuple[Layer, ...] = ("landcover", "confidence", *self.uncertainty)
        self._layers = {name: array_of(group, name) for name in names}
        self._stats = array_of(group, "stats")
        self.marks = Marks(group)

    @classmethod
    def create(
        cls,
        path: Place,
        grid: TileGrid,
        geobox: GeoBox,
        digest: str,
        uncertainty: Sequence[Uncertainty] = (),
    ) -> MapStore:
        """A new store without cores."""
        group = create_group(
            path,
            {
                "Conventions": "CF-1.11",
                "tilemap:digest": digest,
                "tilemap:grid": asdict(grid),
                MEASURES: list(uncertainty),
                **geo.geobox_attributes(geobox),
            },
        )
        for name in ("landcover", "confidence", *uncertainty):
            add_array(
                group, name, grid.scene, (grid.core, grid.core), np.uint8, ("y", "x"),
                {"grid_mapping": geo.GRID_MAPPING, "nodata": 255},
            )  # fmt: skip
        add_array(
            group,
            "stats",
            (*grid.shape, _STATS),
            (1, 1, _STATS),
            np.float64,
            ("row", "col", "figure"),
        )
        geo.add_grid_mapping(group, geobox)
        geo.add_map_coordinates(group, geobox)
        Marks.create(group, grid.shape)
        finish_group(path)
        return cls(path, grid)

    def write(
        self, tile: Tile, layers: Mapping[Layer, ByteArray], stats: CoreStats, mark: Mark
    ) -> None:
        """Write one core, flush it, mark it.

        Args:
            layers: every layer of the store, uint8 (y, x) of the core.
        """
        figures = np.concatenate(
            [
                stats.labels,
                stats.confidence,
                (stats.seam.pixels, stats.seam.differ, stats.seam.largest),
            ]
        ).astype(np.float64)
        for name, array in self._layers.items():
            write_chunk(array, tile, layers[name])
        write_chunk(self._stats, (*tile, 0), figures[None, None])
        for array in self._layers.values():
            sync_chunk(array, tile)
        sync_chunk(self._stats, (*tile, 0))
        self.marks.set(tile, mark)

    def read_core(self, layer: Layer, tile: Tile) -> ByteArray:
        """One layer of one core, uint8 (y, x).

        Raises:
            DamagedError: if it was never written or is damaged; it is missing from then on.
        """
        return self._read(self._layers[layer], tile, tile)

    def _read(self, array: zarr.Array[Any], index: Index, tile: Tile) -> npt.NDArray[Any]:
        try:
            return read_chunk(array, index)
        except DamagedChunkError as error:
            self.marks.set(tile, Mark.MISSING)  # the same command mends it
            raise DamagedError(str(error), tile) from error

    def read_window(self, layer: Layer, window: Window) -> ByteArray:
        """One layer of any window inside the scene, uint8 (y, x).

        Raises:
            DamagedError: if a chunk it needs was never written or is damaged.
        """
        out = np.empty(window.shape, dtype=np.uint8)
        core = self.grid.core
        for row in range(window.top // core, -(-window.bottom // core)):
            for col in range(window.left // core, -(-window.right // core)):
                owned = self.grid.core_window((row, col))
                part = owned.intersect(window)
                chunk = self.read_core(layer, Tile(row, col))
                out[part.within(window)] = chunk[part.within(owned)]
        return out

    def read_stats(self, tile: Tile) -> CoreStats:
        """Figures of one core.

        Raises:
            DamagedError: if they were never written or are damaged; they are missing from then on.
        """
        figures = self._read(self._stats, (*tile, 0), tile)[0, 0]
        counts = figures[:512].astype(np.int64)
        seam = Seam(int(figures[512]), int(figures[513]), float(figures[514]))
        return CoreStats(counts[:256], counts[256:], seam)

    def state(self, tile: Tile) -> Mark:
        """Mark of a core; missing if a chunk it vouches for is not there."""
        mark = self.marks.get(tile)
        whole = has_chunk(self._stats, (*tile, 0)) and all(
            has_chunk(array, tile) for array in self._layers.values()
        )
        return mark if whole else Mark.MISSING

    def verify(self, tile: Tile) -> bool:
        """Read all of one core.

        Returns:
            True if it is done and every chunk of it is whole.
        """
        if self.state(tile) is not Mark.DONE:
            return False
        try:
            self.read_stats(tile)
            for layer in self._layers:
                self.read_core(layer, tile)
        except DamagedError:
            return False
        return True
