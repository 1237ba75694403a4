"""Scenes from files: any number of rasters resolved to one grid, read window by window."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import numpy as np
import rasterio

from tilemap.errors import SceneError
from tilemap.geometry import Window
from tilemap.scene import Scene, SceneRequest
from tilemap.stores.fingerprint import Inputs
from tilemap.stores.inputs import find_inputs
from tilemap.stores.layers import Arranged, Layer, arrange
from tilemap.stores.mosaic import Handles
from tilemap.stores.opening import GDAL_SETTINGS
from tilemap.stores.rasters import AnyArray, BoolArray
from tilemap.stores.remote.blocks import RemoteFile
from tilemap.stores.remote.limits import MEMORY

__all__ = ["SceneReader", "SceneRequest", "SceneSource", "open_scene"]

BEFORE, AFTER = PREFIXES = ("before_", "after_")
"""How the names of bands begin where two scenes of one place are read as one."""


@dataclass(frozen=True)
class SceneSource:
    """A scene that can be opened anywhere its files can be reached; small, travels to workers.

    Args:
        scene: its grid and bands.
        layers: which files give which bands, and how they come onto the grid.
        files: absolute paths and addresses that are read.
        warnings: what the user should know, one line each.
    """

    scene: Scene
    layers: tuple[Layer, ...]
    files: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    def inputs(self) -> Inputs:
        """The content of the files as it is now.

        Raises:
            SceneError: if a file is gone.
            StoreError: if one cannot be read.
        """
        return Inputs.of(self.files, self.remote)

    @property
    def remote_bytes(self) -> int:
        """Memory that a worker needs besides, to read what is not on this disk."""
        return MEMORY if self.remote else 0

    @property
    def remote(self) -> dict[str, RemoteFile]:
        """The files that are not on this disk, by address."""
        rasters = (raster for layer in self.layers for raster in layer.rasters)
        return {raster.path: raster.remote for raster in rasters if raster.remote is not None}

    def open(self) -> SceneReader:
        """A reader, to be used in a ``with`` statement, by one thread."""
        return SceneReader(self)


class SceneReader:
    """Reads windows of a scene; opens files as they are needed; for one thread.

    Args:
        source: what to read.
    """

    def __init__(self, source: SceneSource) -> None:
        self._source = source
        self._handles = Handles()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every file; a later read opens them again."""
        self._handles.close()

    @property
    def scene(self) -> Scene:
        """What is read."""
        return self._source.scene

    @property
    def open_files(self) -> list[str]:
        """Paths on this disk that the open files touch."""
        return self._handles.files

    def read(self, window: Window) -> tuple[AnyArray, BoolArray]:
        """The stored numbers of a window, unscaled; the same however windows are cut.

        Args:
            window: inside the scene.

        Returns:
            image (band, y, x) of ``scene.dtype`` in the order of ``scene.bands``, 0 where not
            valid; valid bool (y, x), True where every band was observed.

        Raises:
            SceneError: if the window is not inside the scene.
            StoreError: if a file cannot be read.
        """
        scene = self.scene
        if not Window(0, 0, *scene.shape).contains(window):
            raise SceneError(
                f"a window must lie in the scene of {scene.shape} pixels, got {window}"
            )
        with rasterio.Env(**GDAL_SETTINGS):
            return self._read(window)

    def _read(self, window: Window) -> tuple[AnyArray, BoolArray]:
        scene, layers = self.scene, self._source.layers
        if len(layers) == 1 and layers[0].bands == tuple(range(len(scene.bands))):
            image, valid = layers[0].read(self._handles, window)
            return image.astype(scene.dtype, copy=False), valid
        image = np.empty((len(scene.bands), *window.shape), dtype=scene.dtype)
        valid = np.ones(window.shape, dtype=np.bool_)
        for layer in layers:
            pixels, seen = layer.read(self._handles, window)
            image[list(layer.bands)] = pixels
            valid &= seen
        if not valid.all():
            np.copyto(image, 0, where=~valid)
        return image, valid


def open_scene(request: SceneRequest) -> SceneSource:
    """Find the files, name the bands, settle the grid; reads headers, no pixels.

    Raises:
        SceneError: if a file cannot be read or a band is missing.
        SceneMismatchError: if the files do not fit together.
    """
    with rasterio.Env(**GDAL_SETTINGS):
        arranged = _pair(request) if request.before else arrange(find_inputs(request), request)
    files = dict.fromkeys(
        file for layer in arranged.layers for raster in layer.rasters for file in raster.files
    )
    return SceneSource(arranged.scene, arranged.layers, tuple(files), arranged.warnings)


def _pair(request: SceneRequest) -> Arranged:
    """Two scenes of one place as one, on the grid of the later one.

    Raises:
        SceneError: if a wanted band belongs to neither.
    """
    wanted = request.bands
    parts = {}
    for prefix in PREFIXES:
        names = None
        if wanted is not None:
            if odd := [name for name in wanted if not name.startswith(PREFIXES)]:
                raise SceneError(
                    f"the model must take two dates, with bands before_... and after_..., it takes "
                    f"{', '.join(odd)}; leave out `before`"
                )
            names = tuple(n.removeprefix(prefix) for n in wanted if n.startswith(prefix))
        parts[prefix] = replace(request, bands=names, before=())
    after = parts[AFTER]
    later = arrange(find_inputs(after), after)
    before = replace(parts[BEFORE], sources=request.before, like=None, resolution=None)
    earlier = arrange(find_inputs(before), before, later.scene.geobox)
    both = ((BEFORE, earlier), (AFTER, later))
    named = {f"{p}{band.name}": replace(band, name=f"{p}{band.name}")
             for p, part in both for band in part.scene.bands}  # fmt: skip
    order = wanted or tuple(named)
    layers = tuple(
        Layer(
            tuple(order.index(f"{p}{part.scene.bands[n].name}") for n in layer.bands), layer.parts
        )
        for p, part in both
        for layer in part.layers
    )
    bands = tuple(named[name] for name in order)
    scene = replace(later.scene, bands=bands, name=f"{earlier.scene.name}-{later.scene.name}")
    notes = dict.fromkeys((*earlier.warnings, *later.warnings))
    return Arranged(scene, layers, tuple(notes))
