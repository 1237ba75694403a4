"""The ground that a map's model was trained on, on the grid of the map.

A pixel of the map takes the block that holds its centre, so equal grids agree to the pixel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from pydantic import ValidationError

from tilemap.errors import SceneError, UsageError
from tilemap.evaluation.reference import Shapes
from tilemap.geometry import Window
from tilemap.models.registry import file_sha256
from tilemap.models.trained_on import TAG, Part, TrainedOn, TrainedScene
from tilemap.report.charts import percent
from tilemap.stores.grids import crs_of, footprint
from tilemap.stores.opening import GDAL_SETTINGS, open_dataset
from tilemap.stores.placing import Placing
from tilemap.stores.vectors import Features, onto

SEEN = {"train": Part.TRAIN, "validation": Part.VALIDATION}
"""Parts of which a model has seen the labels, by the names that a user gives."""
_DAMAGED = (
    f"The tag {TAG} of the map is damaged. Its model may have learned from this reference, and the "
    "figures may be too good."
)
_LEARNED = (
    "The model learned from this reference and does not say from which blocks, so the figures are "
    "likely to be too good."
)
_WORDS = {"train": "training blocks", "validation": "validation blocks"}

ByteArray = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _Placed:
    """One scene under the map.

    Args:
        scene: with its blocks.
        placing: its grid under the map's.
        areas: the polygons that divide it, numbered by ``Part``; None if blocks do.
    """

    scene: TrainedScene
    placing: Placing
    areas: Shapes | None

    def read(self, window: Window) -> ByteArray:
        """``Part`` of each pixel of a window of the map, uint8 (y, x)."""
        rows, cols = self.placing.indices(window)
        inside = (rows >= 0) & (cols >= 0)
        if not inside.any():
            return np.full(window.shape, Part.NONE, dtype=np.uint8)
        if self.areas is not None:
            found = self.areas.burn(window)
            return np.where(inside & (found >= 0), found, Part.NONE).astype(np.uint8)
        side = self.scene.block
        parts = self.scene.parts()[np.maximum(rows, 0) // side, np.maximum(cols, 0) // side]
        return np.where(inside, parts, np.uint8(Part.NONE))


@dataclass(frozen=True)
class TrainedBlocks:
    """What each pixel of a map was for when its model was trained.

    Args:
        scenes: those that reach the map.
    """

    scenes: tuple[_Placed, ...]

    def read(self, window: Window) -> ByteArray:
        """``Part`` of each pixel of a window of the map, uint8 (y, x).

        Where scenes overlap a pixel is for training if any scene says so, then for validation.
        """
        out = np.full(window.shape, Part.NONE, dtype=np.uint8)
        for scene in self.scenes:
            np.minimum(out, scene.read(window), out=out)
        return out


def open_blocks(
    class_map: str, geobox: GeoBox, reference: str, leave_out: Sequence[str]
) -> tuple[TrainedBlocks | None, tuple[str, ...]]:
    """Place the blocks that the tag of a map names.

    Args:
        class_map: path of the map.
        geobox: of the map.
        reference: path of the reference; plain images have no place, so a scene without a CRS is
            known by the digest of its labels.
        leave_out: parts that the user leaves out.

    Returns:
        The blocks, None if the model does not say where they are; and why the figures may be too
        good nevertheless.

    Raises:
        SceneError: if blocks are to be left out, and nobody knows where they are.
        SceneMismatchError: if no way leads from the CRS of a scene to that of the map.
    """
    with rasterio.Env(**GDAL_SETTINGS), open_dataset(class_map) as dataset:
        text = dataset.tags().get(TAG)
    ground: TrainedOn | None = None
    warnings: tuple[str, ...] = ()
    if text is not None:
        try:
            ground = TrainedOn.model_validate_json(text)
        except ValidationError:
            warnings = (_DAMAGED,)
    if leave_out and (ground is None or not ground.scenes):
        raise SceneError(
            "`leave_out` needs a map whose model says on which blocks it was trained, "
            f"{Path(class_map).name} is of none; name what counts by `area` instead"
        )
    if ground is None:
        return None, warnings
    plain = any(scene.crs is None for scene in ground.scenes)
    digest = file_sha256(Path(reference)) if plain or ground.labels else ""
    placed = [
        found
        for scene in ground.scenes
        if (scene.crs is None) == (geobox.crs is None)
        and (scene.crs is not None or scene.labels == digest)
        and (found := _placed(scene, geobox)) is not None
    ]
    if digest in ground.labels:
        warnings = (_LEARNED,)
    return (TrainedBlocks(tuple(placed)) if ground.scenes else None), warnings


def _placed(scene: TrainedScene, geobox: GeoBox) -> _Placed | None:
    """A scene under a map; None if it does not reach the map."""
    crs = None if scene.crs is None else crs_of(scene.crs)
    own = GeoBox(scene.shape, Affine(*scene.transform), crs)
    if footprint(own, geobox).size == 0:
        return None
    areas = None
    if scene.areas:
        shapes = tuple(shapely.from_wkt(area.wkt) for area in scene.areas)
        features = onto(Features("the area of a training", crs, shapes, {}, 0), geobox)
        numbers = [int(Part[area.part.upper()]) for area in scene.areas]
        areas = Shapes(geobox, features.geometries, numbers)
    return _Placed(scene, Placing(geobox, own), areas)


def check_parts(parts: Sequence[str]) -> None:
    """Know every part that is to be left out.

    Raises:
        UsageError: naming one that there is not.
    """
    if odd := [part for part in parts if part not in SEEN]:
        raise UsageError(f"`leave_out` takes {' and '.join(SEEN)}, got {odd[0]!r}")


def blocks_record(
    pixels: npt.NDArray[np.int64], counted: int, leave_out: Sequence[str]
) -> dict[str, Any]:
    """How much of a comparison is ground that the model has seen, as JSON.

    Args:
        pixels: that map and reference know, by the parts in ``SEEN``, int64 (2,).
        counted: pixels of the figures.
        leave_out: parts that are not among them.

    Returns:
        By part: ``pixels``, their ``share`` of all pixels that map and reference know, and
        whether they are ``counted``.
    """
    found = dict(zip(SEEN, pixels.tolist(), strict=True))
    known = counted + sum(found[part] for part in set(leave_out))
    return {
        part: {
            "pixels": number,
            "share": number / known if known else 0.0,
            "counted": part not in leave_out,
        }
        for part, number in found.items()
    }


def seen_warning(record: Mapping[str, Any] | None, counted: int) -> list[str]:
    """A line if pixels of the figures are of blocks that the model has seen.

    Args:
        record: from ``blocks_record``.
        counted: pixels of the figures.
    """
    parts = record or {}
    seen = {k: one["pixels"] for k, one in parts.items() if one["counted"] and one["pixels"]}
    if not seen:
        return []
    told = " and ".join(
        f"{percent(number / counted)} are in the model's {_WORDS[part]}"
        for part, number in seen.items()
    )
    others = ",".join(part for part, one in parts.items() if part in seen or not one["counted"])
    return [
        f"Of the {counted:,} pixels counted, {told}, so the figures are likely to be too good. "
        f"`leave_out` {others} counts the others only."
    ]


def left_note(record: Mapping[str, Any] | None) -> list[str]:
    """A line of what was left out, if that was asked for."""
    left = {k: one for k, one in (record or {}).items() if not one["counted"]}
    if not left:
        return []
    told = " and ".join(
        f"{one['pixels']:,} pixels ({percent(one['share'])}) in the model's {_WORDS[part]}"
        for part, one in left.items()
    )
    return [f"Left out: {told}."]
