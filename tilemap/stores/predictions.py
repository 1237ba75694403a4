"""``predictions.zarr``: what the model said of each tile.

Per tile the class index and confidence of its core, entropy and margin where they are asked for,
and the float16 probabilities of its frame: the
ring, ``2 * blend`` wide, in which neighbours have weight too. The frame is cut into four bands that
do not overlap::

    +--------------------+
    |        top         |      top, bottom: full width of the blend window
    +----+----------+----+
    |left| interior |right|     left, right: height of the interior
    +----+----------+----+
    |       bottom       |
    +--------------------+
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from tilemap.errors import DamagedError
from tilemap.geometry import Tile, TileGrid, Window
from tilemap.stores.chunks import (
    DamagedChunkError,
    Index,
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
    from tilemap.stores.remote.place import Place

Side = Literal["top", "bottom", "left", "right"]
SIDES: tuple[Side, ...] = ("top", "bottom", "left", "right")
Uncertainty = Literal["entropy", "margin"]
UNCERTAINTIES: tuple[Uncertainty, ...] = ("entropy", "margin")
"""What may be kept besides the confidence."""
MEASURES = "tilemap:uncertainty"
"""Attribute of a store that lists which of them it keeps."""
QUANTISED = "quantised"
HalfArray = npt.NDArray[np.float16]
ByteArray = npt.NDArray[np.uint8]


def frame_windows(grid: TileGrid, tile: tuple[int, int]) -> dict[Side, Window]:
    """Windows of the four bands of a tile's frame; empty where it has no neighbour."""
    outer, inner = grid.blend_window(tile), grid.interior_window(tile)
    return {
        "top": Window(outer.top, outer.left, inner.top, outer.right),
        "bottom": Window(inner.bottom, outer.left, outer.bottom, outer.right),
        "left": Window(inner.top, outer.left, inner.bottom, inner.left),
        "right": Window(inner.top, inner.right, inner.bottom, outer.right),
    }


def kept_measures(group: Any) -> list[Uncertainty]:
    """Measures of uncertainty that a store was made for."""
    wanted = group.attrs.get(MEASURES, ())
    return [name for name in UNCERTAINTIES if name in wanted]


@contextmanager
def _whose(tile: Tile) -> Iterator[None]:
    try:
        yield
    except DamagedChunkError as error:
        raise DamagedError(str(error), tile) from error


@dataclass(frozen=True, slots=True)
class Prediction:
    """One tile as the model saw it.

    Args:
        label: class index, 255 where not observed, uint8 (y, x) of the core.
        confidence: percent of the chosen class, 255 where not observed, uint8 (y, x) of the core.
        frame: probability, float16 (class, y, x) of each window of ``frame_windows``.
        uncertainty: percent by measure, 255 where not observed, uint8 (y, x) of the core.
        quantised: probabilities of the core, uint8 (class, y, x), where they are kept.
    """

    label: ByteArray
    confidence: ByteArray
    frame: dict[Side, HalfArray]
    uncertainty: dict[Uncertainty, ByteArray] = field(default_factory=dict)
    quantised: ByteArray | None = None


class PredictionStore:
    """Arrays ``label``, ``confidence`` (y, x) by core; the bands of each side; ``done``.

    And one array (y, x) for each measure of uncertainty it was created with.
    """

    def __init__(self, path: Place, grid: TileGrid) -> None:
        group = open_group(path)
        self.grid = grid
        self._label, self._confidence = array_of(group, "label"), array_of(group, "confidence")
        self._uncertainty = {n: array_of(group, n) for n in kept_measures(group)}
        self._quantised = array_of(group, QUANTISED) if QUANTISED in group else None
        self._bands: dict[Side, Any] = {}
        if grid.blend:
            self._bands = {side: array_of(group, side) for side in SIDES}
        self.marks = Marks(group)

    @classmethod
    def create(
        cls,
        path: Place,
        grid: TileGrid,
        classes: int,
        digest: str,
        uncertainty: Sequence[Uncertainty] = (),
        probabilities: bool = False,
    ) -> PredictionStore:
        """A new store without predictions."""
        attributes = {"tilemap:digest": digest, "tilemap:grid": asdict(grid)}
        group = create_group(path, {**attributes, MEASURES: list(uncertainty)})
        for name in ("label", "confidence", *uncertainty):
            add_array(group, name, grid.scene, (grid.core, grid.core), np.uint8, ("y", "x"))
        if probabilities:
            add_array(
                group, QUANTISED, (classes, *grid.scene), (classes, grid.core, grid.core),
                np.uint8, ("class", "y", "x"),
            )  # fmt: skip
        for side in SIDES if grid.blend else ():
            long, wide = grid.core + 2 * grid.blend, 2 * grid.blend
            shape = (classes, wide, long) if side in ("top", "bottom") else (classes, long, wide)
            add_array(
                group, side, (*grid.shape, *shape), (1, 1, *shape), np.float16,
                ("row", "col", "class", f"{side}_y", f"{side}_x"),
            )  # fmt: skip
        Marks.create(group, grid.shape)
        finish_group(path)
        return cls(path, grid)

    @property
    def uncertainty(self) -> tuple[Uncertainty, ...]:
        """Measures this store keeps."""
        return tuple(self._uncertainty)

    @property
    def keeps_probabilities(self) -> bool:
        """Whether the probabilities of every pixel are kept, not of the frames alone."""
        return self._quantised is not None

    def write(self, tile: Tile, prediction: Prediction) -> None:
        """Write one prediction, flush it, mark it done."""
        written: list[tuple[Any, Index]] = []
        for array, value in (
            (self._label, prediction.label),
            (self._confidence, prediction.confidence),
            *((self._uncertainty[n], prediction.uncertainty[n]) for n in self._uncertainty),
        ):
            write_chunk(array, tile, value)
            written.append((array, tile))
        if self._quantised is not None:
            assert prediction.quantised is not None
            write_chunk(self._quantised, (0, *tile), prediction.quantised)
            written.append((self._quantised, (0, *tile)))
        for side, array in self._bands.items():
            band = prediction.frame[side]
            if band.size == 0:
                continue
            chunk = np.zeros(array.shape[2:], dtype=np.float16)
            chunk[:, : band.shape[1], : band.shape[2]] = band
            place: Index = (*tile, 0, 0, 0)
            write_chunk(array, place, chunk[None, None])
            written.append((array, place))
        for array, index in written:
            sync_chunk(array, index)
        self.marks.set(tile, Mark.DONE)

    def read_core(self, tile: Tile) -> tuple[ByteArray, ByteArray]:
        """Label and confidence of one core, uint8 (y, x).

        Raises:
            DamagedError: if they were never written or are damaged.
        """
        with _whose(tile):
            return read_chunk(self._label, tile), read_chunk(self._confidence, tile)

    def read_uncertainty(self, tile: Tile) -> dict[Uncertainty, ByteArray]:
        """Percent of each measure kept, uint8 (y, x) of one core.

        Raises:
            DamagedError: if one was never written or is damaged.
        """
        with _whose(tile):
            return {name: read_chunk(array, tile) for name, array in self._uncertainty.items()}

    def read_quantised(self, tile: Tile) -> ByteArray | None:
        """Quantised probability of one core, uint8 (class, y, x); None if they are not kept.

        Raises:
            DamagedError: if it was never written or is damaged.
        """
        if self._quantised is None:
            return None
        with _whose(tile):
            return read_chunk(self._quantised, (0, *tile))

    def read_band(self, tile: Tile, side: Side) -> HalfArray:
        """One band of a tile's frame, float16 (class, y, x), cut to its window.

        Raises:
            DamagedError: if it was never written or is damaged.
        """
        window = frame_windows(self.grid, tile)[side]
        with _whose(tile):
            chunk: HalfArray = read_chunk(self._bands[side], (*tile, 0, 0, 0))[0, 0]
        return chunk[:, : window.height, : window.width]

    def has(self, tile: Tile) -> bool:
        """Whether a prediction is marked done and its chunks exist."""
        if self.marks.get(tile) is not Mark.DONE:
            return False
        windows = frame_windows(self.grid, tile)
        return (
            has_chunk(self._label, tile)
            and has_chunk(self._confidence, tile)
            and all(has_chunk(array, tile) for array in self._uncertainty.values())
            and (self._quantised is None or has_chunk(self._quantised, (0, *tile)))
            and all(
                has_chunk(array, (*tile, 0, 0, 0))
                for side, array in self._bands.items()
                if windows[side].size
            )
        )
