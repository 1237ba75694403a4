"""``tiles.zarr``: the overlapping patches of a scene, one chunk each."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tilemap.geometry import Tile, TileGrid
from tilemap.scene import Scene
from tilemap.stores import georeference as geo
from tilemap.stores.chunks import (
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
    import xarray as xr

    from tilemap.stores.remote.place import Place


class TileStore:
    """Patches of one scene: ``image`` (row, col, band, y, x), ``valid`` (row, col, y, x), ``done``.

    Numbers are stored as they came; ``scale`` and ``offset`` stand in the attributes. The patch of
    a last row or column may be smaller than its chunk; the rest of the chunk is 0 and not valid.
    """

    def __init__(self, path: Place) -> None:
        group = open_group(path)
        self.path = path
        self.attributes: dict[str, Any] = dict(group.attrs)
        self._image, self._valid = array_of(group, "image"), array_of(group, "valid")
        self.marks = Marks(group)

    @classmethod
    def create(cls, path: Place, scene: Scene, grid: TileGrid, digest: str) -> TileStore:
        """A new store without patches.

        Args:
            digest: of the run it belongs to.
        """
        group = create_group(
            path,
            {
                "Conventions": "CF-1.11",
                "tilemap:digest": digest,
                "tilemap:grid": asdict(grid),
                "tilemap:bands": [asdict(band) for band in scene.bands],
                "tilemap:scene": scene.name,
                "tilemap:date": scene.date.isoformat() if scene.date else None,
                **geo.geobox_attributes(scene.geobox),
            },
        )
        bands, side = len(scene.bands), grid.patch
        coordinates = {"coordinates": "scene_row scene_col", "grid_mapping": geo.GRID_MAPPING}
        add_array(
            group, "image", (*grid.shape, bands, side, side), (1, 1, bands, side, side),
            scene.dtype, ("row", "col", "band", "y", "x"), coordinates,
        )  # fmt: skip
        add_array(
            group, "valid", (*grid.shape, side, side), (1, 1, side, side), np.bool_,
            ("row", "col", "y", "x"), coordinates,
        )  # fmt: skip
        geo.add_grid_mapping(group, scene.geobox)
        geo.add_patch_coordinates(group, scene.geobox, grid)
        Marks.create(group, grid.shape)
        finish_group(path)
        return cls(path)

    def write(self, tile: Tile, image: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> None:
        """Write one patch, flush it, mark it done.

        Args:
            image: (band, y, x), at most one chunk large.
            valid: (y, x), True = observed.
        """
        bands, side = self._image.shape[2], self._image.shape[3]
        if image.shape != (bands, side, side):
            full = np.zeros((bands, side, side), dtype=image.dtype)
            full[:, : image.shape[1], : image.shape[2]] = image
            full_valid = np.zeros((side, side), dtype=np.bool_)
            full_valid[: valid.shape[0], : valid.shape[1]] = valid
            image, valid = full, full_valid
        index, valid_index = (*tile, 0, 0, 0), (*tile, 0, 0)
        write_chunk(self._image, index, image[None, None])
        write_chunk(self._valid, valid_index, valid[None, None])
        sync_chunk(self._image, index)
        sync_chunk(self._valid, valid_index)
        self.marks.set(tile, Mark.DONE)

    def read(
        self, tile: Tile, shape: tuple[int, int]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """One patch: image (band, y, x) and valid (y, x), cut to ``shape``.

        Raises:
            StoreError: if it was never written or is damaged.
        """
        image = read_chunk(self._image, (*tile, 0, 0, 0))[0, 0]
        valid = read_chunk(self._valid, (*tile, 0, 0))[0, 0]
        return image[:, : shape[0], : shape[1]], valid[: shape[0], : shape[1]]

    def has(self, tile: Tile) -> bool:
        """Whether a patch is marked done and its chunks exist."""
        return (
            self.marks.get(tile) is Mark.DONE
            and has_chunk(self._image, (*tile, 0, 0, 0))
            and has_chunk(self._valid, (*tile, 0, 0))
        )


def open_tiles(path: Path | str) -> xr.Dataset:
    """A tile store as a lazy xarray dataset with band names and coordinates.

    Returns:
        ``image`` (row, col, band, y, x) and ``valid`` (row, col, y, x); ``scene_row`` and
        ``scene_col`` say where each pixel lies, ``yc`` and ``xc`` the same in the CRS.
    """
    import xarray as xr

    dataset: xr.Dataset = xr.open_zarr(str(path), consolidated=False)
    names = [band["name"] for band in dataset.attrs["tilemap:bands"]]
    auxiliary = [name for name in ("yc", "xc", geo.GRID_MAPPING) if name in dataset]
    return dataset.set_coords(auxiliary).assign_coords(band=("band", names))


__all__ = ["TileStore", "open_tiles"]
