"""Cuts a crop out of a scene's samples: what training may see of it, on physical numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilemap.geometry import Window
from tilemap.scene import Scene
from tilemap.stages.tile import read_patch
from tilemap.training.drawing import Spot
from tilemap.training.labels import IGNORE
from tilemap.training.split import Part
from tilemap.training.tally import SceneParts

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
ByteArray = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Crop:
    """A piece of a scene.

    Args:
        image: physical numbers, float32 (band, y, x), 0 where not valid.
        valid: bool (y, x), True = observed and not held out.
        label: class index, uint8 (y, x), IGNORE where it is not trained on.
        teacher: probability, float32 (class, y, x); None without a teacher.
    """

    image: FloatArray
    valid: BoolArray
    label: ByteArray
    teacher: FloatArray | None


class TrainingView:
    """A scene as training may see it: what is held out was not observed; a ``WindowReader``.

    Args:
        parts: the scene and what each pixel is for.
    """

    def __init__(self, parts: SceneParts) -> None:
        self._parts = parts

    @property
    def scene(self) -> Scene:
        """What is read."""
        return self._parts.store.scene

    def read(self, window: Window) -> tuple[npt.NDArray[Any], BoolArray]:
        """Stored numbers (band, y, x), 0 where not valid, and valid (y, x)."""
        image, valid = self._parts.store.read(window)
        part = self._parts.read(window)
        valid &= (part != Part.VALIDATION) & (part != Part.TEST)
        np.copyto(image, 0, where=~valid)
        return image, valid


def place_window(spot: Spot, scene: tuple[int, int], height: int, width: int) -> Window:
    """The window with a pixel at its centre, moved into the scene as far as it fits."""
    tops = []
    for centre, side, length in zip((spot.row, spot.col), (height, width), scene, strict=True):
        start = centre - side // 2
        if side <= length:
            start = min(max(start, 0), length - side)
        tops.append(start)
    return Window(tops[0], tops[1], tops[0] + height, tops[1] + width)


def cut(parts: SceneParts, window: Window, physical: bool) -> Crop:
    """What training sees in a window, which may overhang the scene: there it is reflected.

    Args:
        parts: the scene and what each pixel is for.
        window: in pixels of the scene.
        physical: scale the stored numbers.

    Returns:
        Labels are IGNORE beyond the scene: a reflection teaches nothing new.
    """
    store = parts.store
    stored, valid = read_patch(TrainingView(parts), window)
    image = stored.astype(np.float32)
    if physical:
        scale, offset = store.scene.scaling()
        image *= scale[:, None, None]
        image += offset[:, None, None]
        np.copyto(image, 0, where=~valid)
    inside = window.intersect(Window(0, 0, *store.scene.shape))
    index = inside.within(window)
    label = np.full(window.shape, IGNORE, dtype=np.uint8)
    label[index] = parts.label(inside, Part.TRAIN)
    teacher = None
    if store.taught:
        half = store.teacher(inside)
        teacher = np.zeros((half.shape[0], *window.shape), dtype=np.float32)
        teacher[:, *index] = half
    return Crop(image, valid, label, teacher)
