"""Survey: a little of a scene from all over it, to know it before a run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from tilemap.area import CellArea
from tilemap.errors import TilemapError
from tilemap.geometry import Window
from tilemap.models.card import ModelCard
from tilemap.scene import Scene
from tilemap.stages.tile import WindowReader

WINDOWS, SIDE = 16, 256
THIN = 2
"""Every so many rows and columns of a window count; neighbours are much alike."""
FloatArray = npt.NDArray[np.float32]


def spread(shape: tuple[int, int], side: int, count: int) -> Iterator[Window]:
    """Square windows spread over a scene; they overhang a scene that is smaller than they are."""
    rows = max(1, int(np.sqrt(count)))
    cols = -(-count // rows)
    for index in range(count):
        row, col = divmod(index, cols)
        top = round((row + 0.5) / rows * max(shape[0] - side, 0))
        left = round((col + 0.5) / cols * max(shape[1] - side, 0))
        yield Window(top, left, top + side, left + side)


def survey(reader: WindowReader, card: ModelCard) -> FloatArray:
    """Observed pixels from windows all over a scene, in the units of a card.

    Args:
        reader: of a scene with the bands of the card, in its order.

    Returns:
        float32 (band, n), finite; n is 0 where nothing was observed.
    """
    scene = reader.scene
    pixels = sample(reader, spread(scene.shape, SIDE, WINDOWS), THIN)
    if card.units == "reflectance":
        scale, offset = scene.scaling()
        pixels = pixels * scale[:, None] + offset[:, None]
    return pixels[:, np.isfinite(pixels).all(axis=0)]


def sample(reader: WindowReader, windows: Iterable[Window], thin: int = 1) -> FloatArray:
    """The stored numbers of observed pixels in some windows.

    A window that cannot be read is left out: that is for the run to tell, tile by tile.

    Args:
        windows: parts outside the scene do not count.
        thin: of rows and columns, every so many count.

    Returns:
        float32 (band, n).
    """
    scene = reader.scene
    whole = Window(0, 0, *scene.shape)
    parts = [np.empty((len(scene.bands), 0), dtype=np.float32)]
    for window in sorted({window.intersect(whole) for window in windows}):
        try:
            image, valid = reader.read(window)
        except TilemapError:  # of the scene or of the disk
            continue
        parts.append(image[:, ::thin, ::thin][:, valid[::thin, ::thin]].astype(np.float32))
    return np.concatenate(parts, axis=1)


def ground_pixel_m(scene: Scene) -> float | None:
    """Side of a square of the true area of the scene's middle pixel, metres; None without a CRS."""
    row, col = scene.shape[0] // 2, scene.shape[1] // 2
    area = CellArea(scene.geobox).mean_km2(Window(row, col, row + 1, col + 1))
    return math.sqrt(area * 1e6) if math.isfinite(area) and area > 0 else None
