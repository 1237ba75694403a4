"""Stitch: a core and the frames around it to the final class map of the core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tilemap.errors import GridError
from tilemap.geometry import Tile, TileGrid, Window
from tilemap.probability import quantise
from tilemap.stages.segment import NODATA, classify, measure_uncertainty
from tilemap.stores.maps import CoreStats, Layer, Seam
from tilemap.stores.predictions import HalfArray, PredictionStore, Side, Uncertainty, frame_windows

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
Frames = Mapping[Tile, Mapping[Side, HalfArray]]


@dataclass(frozen=True, slots=True)
class StitchedCore:
    """The final map of one core.

    Args:
        landcover: map value (not class index), 255 = not observed, uint8 (y, x).
        confidence: percent, 255 = not observed, uint8 (y, x).
        stats: figures of this core.
        uncertainty: percent by measure, 255 = not observed, uint8 (y, x).
        quantised: probabilities, where they are kept, uint8 (class, y, x).
    """

    landcover: ByteArray
    confidence: ByteArray
    stats: CoreStats
    uncertainty: dict[Uncertainty, ByteArray] = field(default_factory=dict)
    quantised: ByteArray | None = None

    @property
    def layers(self) -> dict[Layer, ByteArray]:
        """Everything the map store keeps of a core."""
        known: dict[Layer, ByteArray] = {
            "landcover": self.landcover,
            "confidence": self.confidence,
        }
        for name, layer in self.uncertainty.items():
            known[name] = layer
        return known


def strips(grid: TileGrid, tile: tuple[int, int]) -> dict[Side, Window]:
    """Parts of a core in which neighbours have weight too: its frame without what overhangs."""
    core = grid.core_window(tile)
    return {side: window.intersect(core) for side, window in frame_windows(grid, tile).items()}


def needed_bands(grid: TileGrid, tile: Tile) -> list[tuple[Tile, Side]]:
    """Which bands of which neighbours reach into the strips of a core."""
    wanted = [window for window in strips(grid, tile).values() if window.size]
    return [
        (neighbour, side)
        for neighbour in grid.neighbours(tile)
        for side, window in frame_windows(grid, neighbour).items()
        if window.size and any(window.intersect(strip).size for strip in wanted)
    ]


def blend_window(grid: TileGrid, window: Window, frames: Frames, classes: int) -> HalfArray:
    """Weighted mean of every tile's probabilities in a window.

    Where a tile is missing from ``frames`` (it was quarantined) the others share its weight. The
    mean is rounded to float16 as its parts were: where all tiles agree, it is what they say, so
    the cut leaves no trace.

    Args:
        frames: bands by tile; between them they cover the window.

    Returns:
        Probability, float16 (class, y, x).

    Raises:
        GridError: if no tile has weight at some pixel.
    """
    total = np.zeros((classes, *window.shape), dtype=np.float32)
    weight_sum = np.zeros(window.shape, dtype=np.float64)
    for tile, bands in frames.items():
        windows = frame_windows(grid, tile)
        for side, band in bands.items():
            part = windows[side].intersect(window)
            if not part.size:
                continue
            weight = grid.weight(tile, part)
            weight_sum[part.within(window)] += weight
            share = band[:, *part.within(windows[side])] * weight.astype(np.float32)
            total[:, *part.within(window)] += share
    if weight_sum.min(initial=1.0) <= 0:
        raise GridError(f"every pixel of {window} must lie in the frame of a tile, some do not")
    if weight_sum.min(initial=1.0) < 1 - 1e-9:
        total /= weight_sum.astype(np.float32)
    return total.astype(np.float16)


def _seam(grid: TileGrid, tile: Tile, frames: Frames, observed: npt.NDArray[np.bool_]) -> Seam:
    """Own bands against those of the tile above and the tile to the left, in the own core."""
    core = grid.core_window(tile)
    seam = Seam()
    pairs: tuple[tuple[Side, Tile], ...] = (
        ("top", Tile(tile.row - 1, tile.col)),
        ("left", Tile(tile.row, tile.col - 1)),
    )
    for side, other in pairs:
        if min(other) < 0 or other not in frames:
            continue
        strip = strips(grid, tile)[side]
        own, theirs = (_gather(grid, who, frames[who], strip) for who in (tile, other))
        seen = observed[strip.within(core)]
        differ = (classify(own)[0] != classify(theirs)[0]) & seen
        gap = np.abs(own.astype(np.float32) - theirs.astype(np.float32)).max(axis=0, initial=0.0)
        largest = float(gap[seen].max(initial=0.0))
        seam += Seam(int(np.count_nonzero(seen)), int(np.count_nonzero(differ)), largest)
    return seam


def _gather(
    grid: TileGrid, tile: Tile, bands: Mapping[Side, HalfArray], window: Window
) -> HalfArray:
    """One tile's probabilities in a window that its frame covers."""
    classes = next(iter(bands.values())).shape[0]
    out = np.zeros((classes, *window.shape), dtype=np.float16)
    for side, place in frame_windows(grid, tile).items():
        part = place.intersect(window)
        if part.size and side in bands:
            out[:, *part.within(window)] = bands[side][:, *part.within(place)]
    return out


def stitch_core(
    grid: TileGrid,
    tile: Tile,
    core: tuple[ByteArray, ByteArray],
    frames: Frames,
    values: tuple[int, ...],
    uncertainty: Mapping[Uncertainty, ByteArray] | None = None,
    quantised: ByteArray | None = None,
) -> StitchedCore:
    """Blend every frame that reaches into one core.

    Args:
        core: the tile's own class index and confidence, uint8 (y, x); None never: a tile without a
            prediction is not stitched.
        frames: the bands of ``needed_bands``, by tile.
        values: map value of each class index.
        uncertainty: the tile's own measures, uint8 (y, x) each.
        quantised: the tile's own probabilities, where they are kept, uint8 (class, y, x).

    Returns:
        The final core.

    Raises:
        GridError: if a band is missing where no other tile has weight.
    """
    label, confidence = core[0].copy(), core[1].copy()
    measured = {name: own.copy() for name, own in (uncertainty or {}).items()}
    whole = None if quantised is None else quantised.copy()
    observed = label != NODATA
    window = grid.core_window(tile)
    for strip in strips(grid, tile).values():
        if not strip.size:
            continue
        blended = blend_window(grid, strip, frames, len(values))
        inside = strip.within(window)
        label[inside], confidence[inside] = classify(blended)
        for name, layer in measured.items():
            layer[inside] = measure_uncertainty(blended, name)
        if whole is not None:
            whole[:, *inside] = quantise(blended)
    for layer in (label, confidence, *measured.values()):
        layer[~observed] = NODATA
    if whole is not None:
        whole[:, ~observed] = NODATA
    lookup = np.full(256, NODATA, dtype=np.uint8)
    lookup[: len(values)] = values
    landcover = lookup[label]
    stats = CoreStats(
        np.bincount(landcover.ravel(), minlength=256),
        np.bincount(confidence.ravel(), minlength=256),
        _seam(grid, tile, frames, observed),
    )
    return StitchedCore(landcover, confidence, stats, measured, whole)


def nothing_observed(
    grid: TileGrid, tile: Tile, uncertainty: Sequence[Uncertainty] = (), classes: int = 0
) -> StitchedCore:
    """The core of a quarantined tile: all nodata.

    Args:
        classes: how many probabilities are kept of each pixel, 0 for none.
    """
    blank = np.full(grid.core_window(tile).shape, NODATA, dtype=np.uint8)
    counts = np.zeros(256, dtype=np.int64)
    counts[NODATA] = blank.size
    measured = dict.fromkeys(uncertainty, blank)
    quantised = np.full((classes, *blank.shape), NODATA, np.uint8) if classes else None
    return StitchedCore(blank, blank, CoreStats(counts, counts, Seam()), measured, quantised)


def stitch_tile(
    grid: TileGrid,
    tile: Tile,
    store: PredictionStore,
    values: tuple[int, ...],
    missing: frozenset[Tile] = frozenset(),
) -> StitchedCore:
    """Read what a core needs from the prediction store and stitch it.

    Args:
        missing: neighbours that were quarantined.

    Raises:
        DamagedError: if a prediction that is not ``missing`` is not there or is damaged.
    """
    if tile in missing:
        classes = len(values) if store.keeps_probabilities else 0
        return nothing_observed(grid, tile, store.uncertainty, classes)
    frames: dict[Tile, dict[Side, HalfArray]] = {}
    for neighbour, side in needed_bands(grid, tile):
        if neighbour not in missing:
            frames.setdefault(neighbour, {})[side] = store.read_band(neighbour, side)
    own, measured = store.read_core(tile), store.read_uncertainty(tile)
    quantised = store.read_quantised(tile)
    return stitch_core(grid, tile, own, frames, values, measured, quantised)


__all__ = [
    "StitchedCore",
    "blend_window",
    "needed_bands",
    "nothing_observed",
    "stitch_core",
    "stitch_tile",
    "strips",
]
