"""How a crop lies on its scene: mirrored, turned, magnified. Labels go where the image goes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilemap.training.config import AugmentConfig
from tilemap.training.cropping import Crop
from tilemap.training.labels import IGNORE

FloatArray = npt.NDArray[np.float32]
Places = npt.NDArray[np.floating[Any]]
_SEEN = 0.5  # least weight of observed pixels in a mixed one


@dataclass(frozen=True)
class Pose:
    """What is done to a crop, in this order.

    Args:
        scale: magnification about its centre, above 0.
        angle: turn about its centre, radians.
        quarters: quarter turns, 0..3.
        flipped: mirrored left to right.
    """

    scale: float = 1.0
    angle: float = 0.0
    quarters: int = 0
    flipped: bool = False

    @property
    def exact(self) -> bool:
        """Whether pixels only change places."""
        return self.scale == 1 and self.angle == 0

    def source_side(self, side: int) -> int:
        """Side of the square that must be read for a crop of ``side`` pixels."""
        if self.exact:
            return side
        reach = side / (2 * self.scale) * (abs(math.cos(self.angle)) + abs(math.sin(self.angle)))
        return 2 * math.ceil(reach + 1)


def draw_pose(random: np.random.Generator, config: AugmentConfig) -> Pose:
    """A pose by chance; half of the crops are neither magnified nor turned.

    Mixing pixels blurs them, and in production nothing is blurred.
    """
    low, high = config.scale
    mixed = random.random() < 0.5
    scale = math.exp(random.uniform(math.log(low), math.log(high))) if mixed else 1.0
    angle = random.uniform(0, 2 * math.pi) if mixed and config.turn else 0.0
    quarters = int(random.integers(4)) if config.rotate else 0
    flipped = bool(random.integers(2)) if config.flip else False
    return Pose(scale, angle, quarters, flipped)


def strike(crop: Crop, pose: Pose, side: int) -> Crop:
    """A crop in its pose.

    Args:
        crop: ``pose.source_side(side)`` pixels a side, 0 where not valid.
        pose: what is done to it.
        side: of what is returned.

    Returns:
        Where pixels are mixed: the mean of the observed ones among the four nearest, by their
        distance, valid where they weigh at least half; labels of the nearest.
    """
    if not pose.exact:
        crop = _resampled(crop, *_places(pose, side, crop.valid.shape[0]))
    return Crop(
        oriented(crop.image, pose),
        oriented(crop.valid, pose),
        oriented(crop.label, pose),
        None if crop.teacher is None else oriented(crop.teacher, pose),
    )


def oriented(planes: npt.NDArray[Any], pose: Pose) -> npt.NDArray[Any]:
    """Quarter turns and mirror of the last two axes, C-contiguous."""
    turned = np.rot90(planes, pose.quarters, axes=(-2, -1))
    return np.ascontiguousarray(turned[..., ::-1] if pose.flipped else turned)


def _places(pose: Pose, side: int, source: int) -> tuple[Places, Places]:
    """Where each pixel lies in the source, (row, col) from the centre of its first pixel.

    Returns:
        float64 (y, 1) and (1, x) without a turn, else (y, x) each.
    """
    away = (np.arange(side) + 0.5 - side / 2) / pose.scale
    middle = source / 2 - 0.5
    down, right = away[:, None], away[None, :]
    if pose.angle == 0:
        return down + middle, right + middle
    cos, sin = math.cos(pose.angle), math.sin(pose.angle)
    return cos * down - sin * right + middle, sin * down + cos * right + middle


def _resampled(crop: Crop, rows: Places, cols: Places) -> Crop:
    planes = [crop.image, crop.valid[None].astype(np.float32)]
    if crop.teacher is not None:
        planes.append(crop.teacher * (crop.label != IGNORE))
    mixed = bilinear(np.concatenate(planes), rows, cols)
    bands = crop.image.shape[0]
    weight = mixed[bands]
    valid = weight >= _SEEN
    safe = np.where(valid, weight, np.float32(1))
    image = np.where(valid, mixed[:bands] / safe, np.float32(0))
    near = np.rint(rows).astype(np.intp), np.rint(cols).astype(np.intp)
    label = np.where(valid, crop.label[near], np.uint8(IGNORE))
    teacher = None
    if crop.teacher is not None:
        teacher = mixed[bands + 1 :]
        total = teacher.sum(axis=0)
        teacher = np.asarray(teacher / np.where(total > 0, total, np.float32(1)), np.float32)
    return Crop(image, valid, label, teacher)


def bilinear(planes: FloatArray, rows: Places, cols: Places) -> FloatArray:
    """Planes at places between their pixels.

    Args:
        planes: float32 (plane, y, x).
        rows: places, from 0 to below y - 1; (y, 1) where they do not depend on the column.
        cols: likewise, from 0 to below x - 1; (1, x).

    Returns:
        float32 (plane, y, x) of the places.
    """
    top, left = np.floor(rows).astype(np.intp), np.floor(cols).astype(np.intp)
    low, right = (rows - top).astype(np.float32), (cols - left).astype(np.float32)
    if rows.shape[1] == 1:
        above = planes[:, top[:, 0]]
        above += low * (planes[:, top[:, 0] + 1] - above)
        across = np.take(above, left[0], axis=2)
        across += right * (np.take(above, left[0] + 1, axis=2) - across)
        return np.asarray(across, np.float32)
    width = planes.shape[2]
    pixels = np.ascontiguousarray(np.moveaxis(planes, 0, -1)).reshape(-1, planes.shape[0])
    first = (top * width + left).ravel()
    low, right = low.ravel()[:, None], right.ravel()[:, None]
    above = pixels[first]
    above += right * (pixels[first + 1] - above)
    below = pixels[first + width]
    below += right * (pixels[first + width + 1] - below)
    above += low * (below - above)
    return np.moveaxis(above.reshape(*rows.shape, -1), -1, 0)
