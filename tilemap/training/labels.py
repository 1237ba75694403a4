"""What is known of each pixel of a scene: its class, and where the area says so its part.

Labels are a raster on any grid or polygons in any CRS. They are read by windows of the scene, so
that memory does not grow with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from odc.geo.geobox import GeoBox

from tilemap.errors import ConfigError, SceneError
from tilemap.geometry import Window
from tilemap.scene import Scene
from tilemap.stores.grids import apply, whole
from tilemap.stores.mosaic import Handles, Mosaic, Piece
from tilemap.stores.opening import GDAL_SETTINGS
from tilemap.stores.rasters import describe
from tilemap.stores.vectors import Features, burn, is_vector, onto, read_features
from tilemap.training.config import SceneConfig, TrainingConfig
from tilemap.training.nearest import describe_change, nearest
from tilemap.training.split import Part

ByteArray = npt.NDArray[np.uint8]

IGNORE = 255
"""Class index of a pixel that is not learned from."""
_UNKNOWN = 254  # no class index: there are at most 254 classes
_PARTS = {
    "train": Part.TRAIN, "training": Part.TRAIN,
    "val": Part.VALIDATION, "valid": Part.VALIDATION, "validation": Part.VALIDATION,
    "test": Part.TEST, "testing": Part.TEST,
}  # fmt: skip
_MOST_NAMED = 5  # values that an error lists


def label_key(value: Any) -> int | str:
    """A label value as a configuration writes it: whole numbers without a point, plain text.

    >>> label_key(3.0), label_key(" field "), label_key(None), label_key(0.5)
    (3, 'field', '', '0.5')
    """
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return int(value)
    if isinstance(value, int | float | np.integer | np.floating):
        return int(value) if float(value).is_integer() else str(value)
    return str(value).strip()


class ClassTable:
    """Which class a label value means.

    Args:
        config: its classes, their labels, and the values that are ignored.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self.names = tuple(c.name for c in config.classes)
        self._index = {label_key(value): IGNORE for value in config.ignore_labels}
        for index, one in enumerate(config.classes):
            self._index |= {label_key(value): index for value in one.meanings}

    def index(self, value: Any) -> int:
        """Class index of a label value, IGNORE if it is ignored, 254 if it is of no class."""
        return self._index.get(label_key(value), _UNKNOWN)

    def check(self, unknown: Counter[int | str], where: str, what: str) -> None:
        """No label value is of no class.

        Args:
            unknown: how often each such value came.
            where: name of the labels.
            what: what is counted, such as "pixels".

        Raises:
            SceneError: naming values and counts.
        """
        if not unknown:
            return
        told = ", ".join(f"{v!r} ({n} {what})" for v, n in unknown.most_common(_MOST_NAMED))
        more = f" and {len(unknown) - _MOST_NAMED} more" if len(unknown) > _MOST_NAMED else ""
        raise SceneError(
            f"every label value must be of a class, {where} has {told}{more}; add it to the "
            "labels of a class or to ignore_labels"
        )


class Labels(Protocol):
    """Class indices of one scene."""

    def read(self, window: Window) -> ByteArray:
        """Class index of each pixel, uint8 (y, x), IGNORE where there is none."""
        ...

    def check(self) -> None:
        """Called after every window was read: nothing unknown came."""
        ...


class RasterLabels:
    """Labels from a raster, brought onto the scene's grid by nearest neighbour.

    Args:
        path: with one band.
        scene: whose pixels are labelled.
        table: of the classes.
        background: class index of what the raster says nothing about, inside its extent.

    Raises:
        SceneError: if it cannot be read, has several bands, or lies elsewhere.
    """

    def __init__(self, path: Path, scene: Scene, table: ClassTable, background: int) -> None:
        raster = describe(str(path))
        if len(raster.bands) != 1:
            raise SceneError(f"labels must have one band, {path} has {len(raster.bands)}")
        self._name, self._table, self._background = path.name, table, background
        self._here, self._there = scene.geobox, raster.geobox
        self._mosaic = Mosaic(raster.geobox, (Piece(raster, (0,)),))
        self._handles = Handles()
        self._unknown: Counter[int | str] = Counter()
        dtype = np.dtype(raster.bands[0].dtype)
        self._by_number = self._lookup(dtype) if dtype.kind in "ui" else None
        change = describe_change(self._there, self._here, path.name, scene.name)
        self.notes = (change,) if change else ()

    def _lookup(self, dtype: np.dtype[Any]) -> ByteArray | None:
        """Class index of every number there can be, in the order of its bits."""
        if dtype.itemsize > 2:
            return None
        bits = np.arange(1 << (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}")
        return np.array([self._table.index(v) for v in bits.view(dtype)], dtype=np.uint8)

    def read(self, window: Window) -> ByteArray:
        """See ``Labels``; values of no class are counted and become IGNORE."""
        with rasterio.Env(**GDAL_SETTINGS):
            found = nearest(self._mosaic, self._handles, self._here, window)
        out = np.full(window.shape, IGNORE, dtype=np.uint8)
        out[found.inside] = self._background
        values = found.image[found.valid]
        if self._by_number is not None:
            told = self._by_number[values.view(f"u{values.itemsize}")]
        else:
            distinct, back = np.unique(values, return_inverse=True)
            told = np.array([self._table.index(v) for v in distinct], dtype=np.uint8)[back]
        strange = told == _UNKNOWN
        if strange.any():
            for value, count in zip(*np.unique(values[strange], return_counts=True), strict=True):
                self._unknown[label_key(value)] += int(count)
            told = np.where(strange, np.uint8(IGNORE), told)
        out[found.valid] = told
        return out

    def check(self) -> None:
        """See ``Labels``.

        Raises:
            SceneError: if a value of no class came.
        """
        self._handles.close()
        self._table.check(self._unknown, self._name, "pixels")


class Burned:
    """Values of polygons on a grid, window by window; later polygons lie on top.

    Args:
        features: in the CRS of the grid.
        values: one per geometry, 0..255.
        geobox: the grid.
        fill: of pixels in no polygon.

    Raises:
        SceneError: if no polygon touches the grid.
    """

    def __init__(
        self, features: Features, values: Sequence[int], geobox: GeoBox, fill: int
    ) -> None:
        self._geometries, self._values = features.geometries, tuple(values)
        self._geobox, self._fill = geobox, fill
        self._tree = shapely.STRtree(list(features.geometries))
        if not self._touched(whole(geobox)).size:
            raise SceneError(
                f"polygons of {features.name} must lie in the scene, none of "
                f"{len(features.geometries)} does: they cover {_extent(self._geometries)}, "
                f"the scene {_extent([_outline(geobox, whole(geobox))])} ({geobox.crs})"
            )

    @property
    def polygons(self) -> tuple[tuple[Any, int], ...]:
        """Each geometry in the CRS of the grid, with its value."""
        return tuple(zip(self._geometries, self._values, strict=True))

    def _touched(self, window: Window) -> npt.NDArray[np.int64]:
        found = self._tree.query(_outline(self._geobox, window), predicate="intersects")
        return np.asarray(np.sort(found), dtype=np.int64)

    def read(self, window: Window) -> ByteArray:
        """Values of a window of the grid, uint8 (y, x)."""
        touched = self._touched(window)
        geometries = [self._geometries[i] for i in touched]
        values = [self._values[i] for i in touched]
        return burn(geometries, values, self._geobox, window, self._fill)

    def check(self) -> None:
        """Nothing unknown can come: every value is known from the start."""


@dataclass(frozen=True)
class SceneLabels:
    """What is known of a scene.

    Args:
        labels: class indices.
        area: 0 outside the area, else 1 + ``Part`` where the area tells it, else 1; None if
            the labels hold everywhere.
        by_area: whether the area tells the parts.
        notes: what the user should know.
    """

    labels: Labels
    area: Burned | None
    by_area: bool
    notes: tuple[str, ...]

    def read(self, window: Window) -> tuple[ByteArray, ByteArray | None]:
        """Class index, IGNORE where none is known, and ``Part`` where the area tells it."""
        label = self.labels.read(window)
        if self.area is None:
            return label, None
        area = self.area.read(window)
        label[area == 0] = IGNORE
        if not self.by_area:
            return label, None
        return label, np.where(area == 0, np.uint8(Part.NONE), area - np.uint8(1))


def open_labels(scene: Scene, wanted: SceneConfig, config: TrainingConfig) -> SceneLabels:
    """The labels of one scene; reads headers and polygons, no pixels.

    Args:
        scene: whose pixels are labelled.
        wanted: must have labels.
        config: the whole.

    Raises:
        SceneError: if a file cannot be read, lies elsewhere, or has values of no class.
        ConfigError: if the configuration does not fit the files.
    """
    assert wanted.labels is not None
    table = ClassTable(config)
    background = IGNORE if wanted.background is None else table.names.index(wanted.background)
    path = Path(wanted.labels)
    notes: list[str] = []
    labels: Labels
    if is_vector(path):
        features = _placed(read_features(path, wanted.layer), scene, notes)
        indices = _class_of_each(features, wanted, config, table)
        labels = Burned(features, indices, scene.geobox, background)
    else:
        for key in ("layer", "column"):
            if getattr(wanted, key) is not None:
                raise ConfigError(f"{key} is of polygons, but {path.name} is read as a raster")
        labels = RasterLabels(path, scene, table, background)
        notes += labels.notes
    area = None if wanted.area is None else _open_area(scene, wanted, notes)
    return SceneLabels(labels, area, wanted.area_split is not None, tuple(notes))


def _placed(features: Features, scene: Scene, notes: list[str]) -> Features:
    if features.nulls:
        number = "1 feature has" if features.nulls == 1 else f"{features.nulls} features have"
        notes.append(f"{features.name}: {number} no geometry, which labels nothing")
    if (features.crs is None) != (scene.geobox.crs is None):
        lacking = features.name if features.crs is None else scene.name
        notes.append(f"{lacking} has no CRS: its coordinates are taken as they are")
    return onto(features, scene.geobox)


def _class_of_each(
    features: Features, wanted: SceneConfig, config: TrainingConfig, table: ClassTable
) -> list[int]:
    if wanted.column is None:
        meant = [c.name for c in config.classes if c.name != wanted.background and c.labels != ()]
        if len(meant) != 1:
            raise ConfigError(
                f"polygons of {features.name} must say their class, they could be any of "
                f"{', '.join(meant)}; name the attribute that holds it as `column`"
            )
        return [table.names.index(meant[0])] * len(features.geometries)
    values = features.column(wanted.column)
    indices = [table.index(value) for value in values]
    pairs = zip(values, indices, strict=True)
    unknown = Counter(label_key(value) for value, index in pairs if index == _UNKNOWN)
    table.check(unknown, features.name, "polygons")
    return indices


def _open_area(scene: Scene, wanted: SceneConfig, notes: list[str]) -> Burned:
    assert wanted.area is not None
    features = _placed(read_features(wanted.area, wanted.area_layer), scene, notes)
    if wanted.area_split is None:
        return Burned(features, [1] * len(features.geometries), scene.geobox, 0)
    values = [str(label_key(v)) for v in features.column(wanted.area_split)]
    if strange := [v for v in values if v.lower() not in _PARTS]:
        raise SceneError(
            f"{wanted.area_split} of {features.name} must be train, validation or test, "
            f"got {strange[0]!r}"
        )
    parts = [_PARTS[value.lower()] for value in values]
    # what is held out lies on top: a pixel that two polygons claim is not trained on
    order = sorted(range(len(parts)), key=lambda i: parts[i])
    sorted_ = Features(
        features.name, features.crs, tuple(features.geometries[i] for i in order), {}, 0
    )
    return Burned(sorted_, [1 + parts[i] for i in order], scene.geobox, 0)


def _outline(geobox: GeoBox, window: Window) -> Any:
    corners = (
        (window.left, window.top), (window.right, window.top),
        (window.right, window.bottom), (window.left, window.bottom),
    )  # fmt: skip
    return shapely.Polygon([apply(geobox.affine, x, y) for x, y in corners])


def _extent(geometries: Iterable[Any]) -> str:
    bounds = shapely.total_bounds(list(geometries))
    return "x {:.6g} to {:.6g}, y {:.6g} to {:.6g}".format(*bounds[[0, 2, 1, 3]])
