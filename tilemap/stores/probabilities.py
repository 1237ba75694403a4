"""``probabilities.zarr``: what a run said of every class, kept for those who compare dates."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from tilemap.errors import DamagedError, DamagedInputError, StoreError
from tilemap.geometry import Tile, TileGrid
from tilemap.stores import georeference as geo
from tilemap.stores.chunks import DamagedStoreError, open_group, read_chunk
from tilemap.stores.series import DateStore, create_planes

if TYPE_CHECKING:
    from tilemap.stores.remote.place import Place

FILE = "probabilities.zarr"
MENDS = "the same `tilemap segment` on that directory mends it"
MAKES = (
    "an earlier version made it; `tilemap segment` with `fresh` on that directory makes it again"
)
ByteArray = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class StoredClass:
    """One class of the map: value, name and colour as ``#rrggbb``."""

    value: int
    name: str
    color: str


class ProbabilityStore(DateStore):
    """A ``DateStore`` that says what its classes are, which model it is of, and of which day.

    ``classes`` are in the order of the array; ``date`` is that of the scene, None if not known.
    """

    def __init__(self, path: Place) -> None:
        self.path = path
        try:
            attributes = open_group(path).attrs.asdict()
        except DamagedStoreError as error:
            raise DamagedStoreError(f"{error}; {MENDS}") from error
        try:
            cut: Any = attributes["tilemap:grid"]
            kinds: Any = attributes["tilemap:classes"]
            grid = TileGrid(**{**cut, "scene": tuple(cut["scene"])})
            self.geobox: GeoBox = geo.geobox_from_attributes(attributes)
            self.classes = tuple(StoredClass(**kind) for kind in kinds)
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
        path: Place,
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
            "tilemap:classes": [asdict(kind) for kind in kinds],
            **{f"tilemap:{name}": value for name, value in about.items()},
        }
        create_planes(path, grid, geobox, len(kinds), attributes)
        return cls(path)

    def verify(self) -> bool:
        """Read every core; those that are missing or damaged lose their mark, to be made again.

        Returns:
            Whether all are there and done.
        """
        lost = sum(not self.verify_core(tile) for tile in self.grid.tiles())
        return lost == 0

    def verify_core(self, tile: Tile) -> bool:
        """The same of one core."""
        if not self.has(tile):
            return False
        try:
            super().read_core(tile)
        except DamagedError:
            return False
        return True

    def read_core(self, tile: Tile) -> ByteArray:
        """One core, uint8 (class, y, x); a store that is read for others stays as it is.

        Raises:
            DamagedInputError: if it was never written or is damaged; says what to do.
        """
        try:
            return self._as_now(read_chunk(self._array, (0, *tile)))
        except StoreError as error:
            way_out = MAKES if self.is_linear else MENDS
            raise DamagedInputError(f"{self.path}: {error}; {way_out}") from error
