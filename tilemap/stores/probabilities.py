"""``probabilities.zarr``: what a run said of every class, kept for those who compare dates."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from tilemap.errors import StoreError
from tilemap.geometry import Tile, TileGrid, Window
from tilemap.stores import georeference as geo
from tilemap.stores.chunks import add_array, create_group, finish_group, open_group
from tilemap.stores.marks import Mark, Marks
from tilemap.stores.series import NAME, NODATA, DateStore

FILE = "probabilities.zarr"
_ONE = int(np.float16(1.0).view(np.uint16))
_QUANTISED = np.rint(
    np.arange(_ONE + 1, dtype=np.uint16).view(np.float16).astype(np.float64) * 254
).astype(np.uint8)
ByteArray = npt.NDArray[np.uint8]


def quantise(probability: npt.NDArray[np.float16]) -> ByteArray:
    """``rint(p * 254)`` of float16 probabilities 0..1, uint8, of the same shape."""
    return _QUANTISED[probability.view(np.uint16)]


@dataclass(frozen=True, slots=True)
class StoredClass:
    """One class of the map: value, name and colour as ``#rrggbb``."""

    value: int
    name: str
    color: str


class ProbabilityStore(DateStore):
    """A ``DateStore`` that says what its classes are, which model it is of, and of which day."""

    def __init__(self, path: Path) -> None:
        self.path = path
        attributes = open_group(path).attrs.asdict()
        try:
            cut: Any = attributes["tilemap:grid"]
            grid = TileGrid(**{**cut, "scene": tuple(cut["scene"])})
            self.geobox: GeoBox = geo.geobox_from_attributes(attributes)
            self.kinds = tuple(StoredClass(**kind) for kind in attributes["tilemap:classes"])
            self.model_sha256 = str(attributes["tilemap:model_sha256"])
            self.digest = str(attributes["tilemap:digest"])
            day: Any = attributes["tilemap:date"]
        except (KeyError, TypeError) as error:
            raise StoreError(f"{path} must be what `segment --probabilities` left") from error
        self.date = None if day is None else datetime.fromisoformat(day)
        super().__init__(path, grid)

    @classmethod
    def make(
        cls,
        path: Path,
        grid: TileGrid,
        geobox: GeoBox,
        kinds: tuple[StoredClass, ...],
        about: dict[str, Any],
    ) -> ProbabilityStore:
        """A new store without cores.

        Args:
            path: of the store.
            grid: the cut of the run.
            geobox: the grid of its scene.
            kinds: its classes, in the order of the array.
            about: digest, model_sha256, date (ISO or None).
        """
        attributes = {
            "Conventions": "CF-1.11",
            "tilemap:grid": asdict(grid),
            "tilemap:classes": [asdict(kind) for kind in kinds],
            **{f"tilemap:{name}": value for name, value in about.items()},
            **geo.geobox_attributes(geobox),
        }
        group = create_group(path, attributes)
        shape = (len(kinds), *grid.scene)
        add_array(
            group, NAME, shape, (len(kinds), grid.core, grid.core), np.uint8,
            ("class", "y", "x"), {"grid_mapping": geo.GRID_MAPPING, "nodata": NODATA},
        )  # fmt: skip
        geo.add_grid_mapping(group, geobox)
        geo.add_map_coordinates(group, geobox)
        Marks.create(group, grid.shape)
        finish_group(path)
        return cls(path)

    def whole(self) -> bool:
        """Whether every core is there."""
        return all(self.state(tile) is not Mark.MISSING for tile in self.grid.tiles())

    def state(self, tile: Tile) -> Mark:
        """Mark of a core; missing if its chunk is not there."""
        mark = self.marks.get(tile)
        return mark if self.has_chunk(tile) else Mark.MISSING

    def read_core(self, tile: Tile) -> ByteArray:
        """One core, uint8 (class, y, x)."""
        window: Window = self.grid.core_window(tile)
        return self.read_window(window)
