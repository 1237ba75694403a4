"""Gather: what a date says of every class, on the grid of the series, clouds taken out."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from tilemap.errors import SceneError
from tilemap.geometry import Window
from tilemap.probability import LEAST_LABEL, MOST, NODATA, quantise, shares
from tilemap.stores.fingerprint import Inputs
from tilemap.stores.grids import pixel_offset, whole
from tilemap.stores.masks import Rule
from tilemap.stores.mosaic import Handles, join
from tilemap.stores.placing import Placing
from tilemap.stores.probabilities import ProbabilityStore
from tilemap.stores.rasters import Raster, describe
from tilemap.stores.warp import Warp, make_warp

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


def to_quantised(probability: FloatArray, valid: BoolArray) -> ByteArray:
    """Bytes of what is made to sum to 1, uint8 (class, y, x); 255 where not valid."""
    total = probability.sum(axis=0)
    share = probability / np.where(total > 0, total, 1)
    quantised = quantise(share)
    quantised[:, ~valid | (total <= 0)] = NODATA
    return quantised


def from_labels(index: ByteArray, classes: int) -> ByteArray:
    """Labels as if they were sure: uint8 (class, y, x), 255 where not observed.

    The other classes have a probability of 0.0004 each, so that one label is not beyond doubt.

    Args:
        index: class index, 255 = not observed, (y, x).
        classes: how many there are.
    """
    planes = np.arange(classes, dtype=np.uint8)[:, None, None]
    quantised = np.where(index[None] == planes, np.uint8(MOST), np.uint8(LEAST_LABEL))
    quantised[:, index == NODATA] = NODATA
    return quantised


class _Source:
    """A probability store as ``Warp`` reads its source."""

    def __init__(self, store: ProbabilityStore) -> None:
        self.store, self.geobox = store, store.geobox
        self.window = whole(store.geobox)
        self.count, self.dtype = store.count, np.dtype(np.float32)

    def read(self, _: Handles, window: Window) -> tuple[FloatArray, BoolArray]:
        """Probability of a window that may overhang the store, and where it is observed."""
        quantised = self.store.read_window(window)
        return shares(quantised), quantised[0] != NODATA


@dataclass(frozen=True)
class GatherReader:
    """What a date says of every class in any window of the series' grid; travels to workers.

    Every window gives the same bytes for a pixel, however the map is cut.

    Args:
        probabilities: store of the date; None if there are labels only.
        labels: class map with the numbers of ``values``, where there are no probabilities.
        values: map value of each class.
        geobox: grid of the series.
        mask: raster of clouds and the like, on any grid; None for none.
        rule: which of its numbers were not observed.
        mask_band: of the mask, its number in the file.
        digest: of the run, so that one made anew in its place is opened anew.
        inputs: mask and labels, which must stay what they are.
    """

    probabilities: Path | None
    labels: Path | None
    values: tuple[int, ...]
    geobox: GeoBox
    mask: Path | None = None
    rule: Rule | None = None
    digest: str = ""
    inputs: Inputs = Inputs()
    mask_band: int = 1

    def read(self, window: Window) -> ByteArray:
        """Quantised probability, uint8 (class, y, x) of a window inside the grid.

        Raises:
            InputChangedError: if the mask or the labels are not what they were.
            StoreError: if it cannot be read.
            SceneError: if a label is no class.
        """
        opened = _opened(self)
        quantised = opened.read(window)
        hidden = opened.masked(window)
        opened.inputs = opened.inputs.confirm()
        if hidden is not None:
            quantised[:, hidden] = NODATA
        return quantised


class _Opened:
    """The files of a reader in one thread."""

    def __init__(self, reader: GatherReader) -> None:
        self._reader, self._handles = reader, Handles()
        self.inputs = reader.inputs.confirm()
        self._store: ProbabilityStore | None = None
        self._offset: tuple[int, int] | None = None
        self._warp: Warp | None = None
        self._raster: Raster | None = None
        target = reader.geobox
        if reader.probabilities is not None:
            self._store = ProbabilityStore(reader.probabilities)
            self._offset = pixel_offset(target, self._store.geobox)
            if self._offset is None:
                source: Any = _Source(self._store)
                self._warp = make_warp(source, target, str(reader.probabilities))
        else:
            self._raster = describe(str(reader.labels))
            self._place = Placing(target, self._raster.geobox)
            self._index = np.full(256, NODATA - 1, dtype=np.uint8)
            self._index[list(reader.values)] = np.arange(len(reader.values))
        if reader.mask is not None:
            mask = describe(str(reader.mask)).opaque()
            band = next(b for b in mask.bands if b.index == reader.mask_band)
            self._mask = replace(mask, bands=(band,))
            self._mask_place = Placing(target, self._mask.geobox)

    def read(self, window: Window) -> ByteArray:
        if self._store is None:
            return self._from_labels(window)
        if self._offset is not None:
            top, left = self._offset
            moved = Window(
                window.top + top, window.left + left, window.bottom + top, window.right + left
            )
            return self._store.read_window(moved)
        assert self._warp is not None
        probability, valid = self._warp.read(self._handles, window)
        return to_quantised(probability.astype(np.float32, copy=False), valid)

    def _from_labels(self, window: Window) -> ByteArray:
        assert self._raster is not None
        pixels, valid = self._nearest(self._raster, self._place, window)
        index = self._index[pixels.astype(np.uint8)]
        if (index[valid] == NODATA - 1).any():
            odd = sorted(set(pixels[valid & (index == NODATA - 1)].tolist()))[:8]
            known = ", ".join(map(str, self._reader.values))
            raise SceneError(f"{self._raster.path} must hold the classes {known}, got {odd}")
        index[~valid] = NODATA
        return from_labels(index, len(self._reader.values))

    def masked(self, window: Window) -> BoolArray | None:
        """Where the mask hides a pixel: by the rule, and wherever it says nothing itself."""
        if self._reader.mask is None or self._reader.rule is None:
            return None
        pixels, valid = self._nearest(self._mask, self._mask_place, window)
        return self._reader.rule.masked(pixels) | ~valid

    def _nearest(
        self, raster: Raster, place: Placing, window: Window
    ) -> tuple[npt.NDArray[Any], BoolArray]:
        """Pixels under the centres, and where there are any."""
        rows, cols = place.indices(window)
        inside = np.broadcast_to((rows >= 0) & (cols >= 0), window.shape)
        if not inside.any():
            return np.zeros(window.shape, np.uint8), np.zeros(window.shape, np.bool_)
        both = [np.broadcast_to(axis, window.shape) for axis in (rows, cols)]
        top, left = (int(axis[inside].min()) for axis in both)
        bottom, right = (int(axis[inside].max()) + 1 for axis in both)
        mosaic = join([(raster, (0,))])
        assert mosaic is not None
        image, valid = mosaic.read(self._handles, Window(top, left, bottom, right))
        at = tuple(
            np.where(inside, axis - low, 0) for axis, low in zip(both, (top, left), strict=True)
        )
        return image[0][at], valid[at] & inside


_local = threading.local()


def _opened(reader: GatherReader) -> _Opened:
    """The open files of this thread; a few readers at a time."""
    known: dict[GatherReader, _Opened] = getattr(_local, "known", {})
    _local.known = known
    if reader not in known:
        if len(known) >= 16:
            known.pop(next(iter(known)))
        known[reader] = _Opened(reader)
    return known[reader]
