"""Small pictures: a scene in display colours beside its class map."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

from tilemap.geometry import Window
from tilemap.stores.opening import open_dataset
from tilemap.stores.sidecars import write_bytes

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
ReadWindow = Callable[[Window], tuple[npt.NDArray[Any], BoolArray]]

BACKGROUND = 244
GAP = 16
CELL = 512
DISPLAYS = (("red", "green", "blue"), ("nir", "red", "green"), ("swir16", "nir", "red"))


def display_bands(names: Sequence[str]) -> tuple[int, ...]:
    """Positions of the bands to show as red, green and blue, or of one band to show in gray.

    True colour if there is, else the usual false colours, else the first three bands, else the
    first.

    >>> display_bands(("blue", "green", "red", "nir"))
    (2, 1, 0)
    """
    for display in DISPLAYS:
        if all(name in names for name in display):
            return tuple(names.index(name) for name in display)
    return (0, 1, 2) if len(names) >= 3 else (0,)


def preview_step(shape: tuple[int, int], longest: int = 800) -> int:
    """Scene pixels per preview pixel, at least 1, so that neither side exceeds ``longest``."""
    return max(1, -(-max(shape) // longest))


def preview(
    read: ReadWindow,
    shape: tuple[int, int],
    band_indices: Sequence[int],
    longest: int = 800,
    seconds: float = 5.0,
) -> tuple[FloatArray, BoolArray]:
    """Shrink a scene without ever holding it: one window of about 512 x 512 pixels at a time.

    Windows far apart come first and stand in for their surroundings until those are read, so a
    scene too large to be read in time gives a coarser picture of the whole.

    Args:
        read: stored numbers (band, y, x) and valid (y, x) of a window of the scene.
        shape: rows and columns of the scene.
        band_indices: positions of the bands wanted.
        longest: bound of the longer side of the picture, pixels.
        seconds: when to stop reading; at least one window is read.

    Returns:
        float32 (band, y, x) and valid (y, x): means over the valid pixels of each square of
        ``preview_step`` pixels; 0 where nothing is valid.
    """
    step = preview_step(shape, longest)
    size = max(1, CELL // step)
    rows, cols = (-(-side // step) for side in shape)
    picture = np.zeros((len(band_indices), rows, cols), dtype=np.float32)
    valid = np.zeros((rows, cols), dtype=np.bool_)
    deadline = time.monotonic() + seconds
    for top, left, reach in coarse_to_fine(-(-rows // size), -(-cols // size)):
        window = Window(*(size * step * edge for edge in (top, left, top + 1, left + 1)))
        values, known = read(window.intersect(Window(0, 0, *shape)))
        means, some = _shrink(values[list(band_indices)], known, step)
        here = np.s_[top * size : (top + 1) * size, left * size : (left + 1) * size]
        if reach > 1 and some.any():
            around = np.s_[top * size : (top + reach) * size, left * size : (left + reach) * size]
            picture[:, *around] = means[:, some].mean(axis=1)[:, None, None]
            valid[around] = True
        picture[:, *here], valid[here] = means, some
        if time.monotonic() > deadline:
            break
    return picture, valid


def coarse_to_fine(rows: int, cols: int) -> Iterator[tuple[int, int, int]]:
    """Every cell of a lattice once: (row, col, reach), first those far apart.

    ``reach`` is the side of the square of cells, from this one on downwards and to the right,
    none of whose others has come yet.

    >>> list(coarse_to_fine(2, 2))
    [(0, 0, 2), (0, 1, 1), (1, 0, 1), (1, 1, 1)]
    """
    reach = 1 << (max(rows, cols) - 1).bit_length()
    done: int | None = None
    while reach >= 1:
        for row in range(0, rows, reach):
            for col in range(0, cols, reach):
                if done is None or row % done or col % done:
                    yield row, col, reach
        done, reach = reach, reach // 2


def _shrink(values: npt.NDArray[Any], valid: BoolArray, step: int) -> tuple[FloatArray, BoolArray]:
    """Means over squares of ``step`` pixels; those at the end may be cut short."""
    values = np.where(valid, values, 0).astype(np.float32)
    edges = [np.arange(0, side, step) for side in valid.shape]

    def total(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        for axis, edge in zip((-2, -1), edges, strict=True):
            array = np.add.reduceat(array, edge, axis=axis)
        return array

    count = total(valid.astype(np.float32))
    return total(values) / np.maximum(count, 1), count > 0


def class_preview(path: Path, longest: int = 800) -> ByteArray:
    """A class map shrunk through its overviews, uint8 (y, x), of the same shape as ``preview``."""
    with open_dataset(str(path.absolute())) as file:
        step = preview_step(file.shape, longest)
        shape = tuple(-(-side // step) for side in file.shape)
        pixels = file.read(1, out_shape=shape, resampling=Resampling.nearest)
    return np.asarray(pixels, dtype=np.uint8)


def stretch(rgb: npt.NDArray[Any], valid: BoolArray) -> ByteArray:
    """Stored numbers to display colours: the 2nd to 98th percentile of each band to 0..255.

    Args:
        rgb: (band, y, x) of three bands; of any other number, the first is shown in gray.
        valid: (y, x); the rest becomes light gray.

    Returns:
        uint8 (3, y, x).
    """
    bands = rgb if rgb.shape[0] == 3 else rgb[:1]
    result = np.full((3, *valid.shape), BACKGROUND, dtype=np.uint8)
    if valid.any():
        for index in range(3):
            values = bands[index % len(bands)][valid].astype(np.float64)
            low, high = np.percentile(values, (2, 98))
            scale = 255 / (high - low) if high > low else 1.0
            result[index, valid] = np.clip((values - low) * scale, 0, 255)
    return result


def paint(
    classes: ByteArray, palette: Mapping[int, tuple[int, int, int]], nodata: int = 255
) -> ByteArray:
    """A class map in its colours, uint8 (3, y, x); nodata becomes light gray."""
    table = np.zeros((256, 3), dtype=np.uint8)
    for value, color in palette.items():
        table[value] = color
    table[nodata] = BACKGROUND
    return np.ascontiguousarray(np.moveaxis(table[classes], -1, 0))


def quicklook(
    scene_rgb: ByteArray,
    classes: ByteArray,
    palette: Mapping[int, tuple[int, int, int]],
    nodata: int = 255,
) -> ByteArray:
    """A scene and its class map side by side.

    Args:
        scene_rgb: display colours, uint8 (3, y, x).
        classes: class map of the same size, uint8 (y, x).
        palette: colour per stored number.
        nodata: stored number that means "not observed".

    Returns:
        uint8 (3, y, 2 * x + 16), a white gap between.
    """
    gap = np.full((3, classes.shape[0], GAP), 255, dtype=np.uint8)
    return np.concatenate([scene_rgb, gap, paint(classes, palette, nodata)], axis=2)


def draw(
    read: ReadWindow,
    band_names: Sequence[str],
    class_map: Path,
    palette: Mapping[int, tuple[int, int, int]],
    nodata: int = 255,
) -> ByteArray:
    """The quicklook of a run, from its scene and its finished class map.

    Args:
        read: as ``preview`` takes it.
        band_names: common names of the bands that ``read`` returns, in order.
        class_map: a COG on the scene's grid.
        palette: colour per stored number.
        nodata: stored number that means "not observed".

    Returns:
        uint8 (3, y, x), each half at most 800 pixels a side.
    """
    with open_dataset(str(class_map.absolute())) as file:
        shape = (int(file.height), int(file.width))
    picture, valid = preview(read, shape, display_bands(band_names))
    return quicklook(stretch(picture, valid), class_preview(class_map), palette, nodata)


def png_bytes(rgb: ByteArray) -> bytes:
    """Encode uint8 (3, y, x) as PNG."""
    count, height, width = rgb.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with MemoryFile() as memory:
            with memory.open(
                driver="PNG", width=width, height=height, count=count, dtype="uint8"
            ) as file:
                file.write(rgb)
            return bytes(memory.read())


def save_png(path: Path, rgb: ByteArray) -> None:
    """Write uint8 (3, y, x) as PNG, whole or not at all.

    Raises:
        StoreError: if it cannot be written.
    """
    write_bytes(path, png_bytes(rgb))
