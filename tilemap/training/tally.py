"""What was counted of all samples: the split, labelled pixels by chunk, statistics of the bands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tilemap.errors import ConfigError
from tilemap.geometry import Window
from tilemap.models.card import QUANTILES, BandStatistics
from tilemap.training.labels import IGNORE
from tilemap.training.sample_store import CHUNK, SampleStore, chunk_grid, chunk_windows
from tilemap.training.split import Part, Split, assign_blocks, part_of_window

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_HELD = (Part.TRAIN, Part.VALIDATION, Part.TEST)
_MOST_SAMPLED = 2**20  # values of a band kept for the quantiles of numbers that cannot be counted


@dataclass(frozen=True)
class SceneParts:
    """What each pixel of one scene is for.

    Args:
        store: the scene.
        blocks: ``Part`` by block, uint8 (row, col); None where the store tells it by pixel.
        block: side of a block, pixels.
    """

    store: SampleStore
    blocks: npt.NDArray[np.uint8] | None
    block: int

    def read(self, window: Window) -> npt.NDArray[np.uint8]:
        """``Part`` of each pixel of a window inside the scene, uint8 (y, x)."""
        if self.blocks is None:
            return self.store.part(window)
        return part_of_window(self.blocks, self.block, window)

    def label(self, window: Window, part: Part) -> npt.NDArray[np.uint8]:
        """Class index of the pixels of one part, IGNORE elsewhere, uint8 (y, x)."""
        return np.where(self.read(window) == part, self.store.label(window), np.uint8(IGNORE))

    def block_window(self, row: int, col: int) -> Window:
        """Pixels of a block, clipped by the scene."""
        return chunk_grid(self.store.scene.shape, self.block).core_window((row, col))


@dataclass(frozen=True)
class SceneTally:
    """Labelled pixels of one scene.

    Args:
        chunks: of the training part, int64 (chunk, class), chunks row by row.
        blocks: of any class, int64 (block row, block col, part).
        counts: int64 (part, class).
    """

    chunks: Integers
    blocks: Integers
    counts: Integers


def block_tally(store: SampleStore, block: int, classes: int) -> Integers:
    """Labelled pixels by block, int64 (block row, block col, class)."""
    shape = chunk_grid(store.scene.shape, block).shape
    total = np.zeros((*shape, classes), dtype=np.int64)
    for _, _, window in chunk_windows(store.scene.shape):
        label = store.label(window)
        _add(total, window, block, label, label != IGNORE)
    return total


def _add(
    total: Integers, window: Window, block: int, kind: npt.NDArray[Any], counted: npt.NDArray[Any]
) -> None:
    """Count a window's pixels by block and kind into ``total`` (block row, block col, kind)."""
    rows = np.arange(window.top, window.bottom) // block
    cols = np.arange(window.left, window.right) // block
    top, left, kinds = int(rows[0]), int(cols[0]), total.shape[2]
    across = int(cols[-1]) - left + 1
    number = (rows - top)[:, None] * across + (cols - left)[None, :]
    flat = number[counted] * kinds + kind[counted]
    down = int(rows[-1]) - top + 1
    found = np.bincount(flat, minlength=down * across * kinds)
    total[top : top + down, left : left + across] += found.reshape(down, across, kinds)


def split_scenes(
    stores: Sequence[SampleStore], split: Split, classes: int
) -> tuple[tuple[SceneParts, ...], tuple[str, ...]]:
    """What each block of each scene is for, and notes for the user.

    Scenes are split one by one, in strata of the pixels of their rarest class. Those with too few
    blocks for that are split together. Where the area tells the parts there is nothing to decide.

    Raises:
        ConfigError: if there are fewer blocks than parts.
    """
    tallies = [None if s.has_parts else block_tally(s, split.block, classes) for s in stores]
    least = 2 * (1 + (split.validation > 0) + (split.test > 0))
    small = [
        i for i, t in enumerate(tallies) if t is not None and np.count_nonzero(t.sum(2)) < least
    ]
    assigned: dict[int, npt.NDArray[np.uint8]] = {}
    for i, tally in enumerate(tallies):
        if tally is not None and (i not in small or len(small) == 1):
            assigned[i] = assign_blocks(_stratum(tally), split)
    if len(small) > 1:
        kept = [t for i, t in enumerate(tallies) if i in small and t is not None]
        joined = np.concatenate([t.reshape(-1, classes) for t in kept])[:, None]
        parts = assign_blocks(_stratum(joined), split)[:, 0]
        ends = np.cumsum([t.shape[0] * t.shape[1] for t in kept])[:-1]
        for i, tally, mine in zip(small, kept, np.split(parts, ends), strict=True):
            assigned[i] = mine.reshape(tally.shape[:2])
    notes = (f"{len(small)} scenes of few blocks were split together",) if len(small) > 1 else ()
    return tuple(SceneParts(s, assigned.get(i), split.block) for i, s in enumerate(stores)), notes


def _stratum(tally: Integers) -> Integers:
    """What makes blocks alike: pixels of the rarest class first, then labelled pixels.

    Args:
        tally: int64 (row, col, class).

    Returns:
        int64 (row, col), above 0 where anything is labelled.
    """
    total, labelled = tally.sum(axis=(0, 1)), tally.sum(axis=2)
    rarest = int(np.argmin(np.where(total > 0, total, np.iinfo(np.int64).max)))
    return np.asarray(tally[:, :, rarest] * (int(labelled.max(initial=0)) + 1) + labelled)


def tally_scene(parts: SceneParts, classes: int) -> SceneTally:
    """Count the labelled pixels of a scene by chunk, by block and by part."""
    store = parts.store
    grid = chunk_grid(store.scene.shape, parts.block)
    blocks = np.zeros((*grid.shape, len(_HELD)), dtype=np.int64)
    counts = np.zeros((len(_HELD), classes), dtype=np.int64)
    chunks = []
    for _, _, window in chunk_windows(store.scene.shape):
        label, part = store.label(window), parts.read(window)
        counted = (label != IGNORE) & (part != Part.NONE)
        _add(blocks, window, parts.block, part, counted)
        flat = part[counted].astype(np.int64) * classes + label[counted]
        found = np.bincount(flat, minlength=counts.size).reshape(counts.shape)
        counts += found
        chunks.append(found[Part.TRAIN])
    return SceneTally(np.stack(chunks), blocks, counts)


@dataclass
class _BandTally:
    """Numbers of one band of one scene as they are stored."""

    dtype: np.dtype[Any]
    stride: int
    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    bins: Integers | None = None
    sampled: list[npt.NDArray[Any]] = field(default_factory=list)

    def add(self, values: npt.NDArray[Any]) -> None:
        """Take in some numbers (n,), by the parallel update of Chan, Golub and LeVeque (1979)."""
        if not values.size:
            return
        exact = values.astype(np.float64)
        mean = float(exact.mean())
        squares = float(np.square(exact - mean).sum())
        total = self.count + values.size
        away = mean - self.mean
        self.squares += squares + away * away * self.count * values.size / total
        self.mean += away * values.size / total
        self.count = total
        if self.dtype.kind in "ui" and self.dtype.itemsize <= 2:
            size = 1 << (8 * self.dtype.itemsize)
            low = np.iinfo(self.dtype).min
            found = np.bincount(values.astype(np.int64) - low, minlength=size)
            self.bins = found if self.bins is None else self.bins + found
        else:
            self.sampled.append(values[:: self.stride].copy())

    def weighted(self) -> tuple[Floats, Floats]:
        """Values and how many pixels each stands for."""
        if self.bins is not None:
            there = np.flatnonzero(self.bins)
            low = int(np.iinfo(self.dtype).min)
            return (there + low).astype(np.float64), self.bins[there].astype(np.float64)
        if not self.sampled:
            return np.empty(0), np.empty(0)
        values = np.concatenate(self.sampled).astype(np.float64)
        return values, np.full(values.size, self.count / values.size)


def band_statistics(
    scenes: Sequence[SceneParts], units: str, tell: Callable[[str], None]
) -> tuple[BandStatistics, ...]:
    """What each band looks like where it is trained on: observed pixels of training blocks.

    Args:
        scenes: all of them, with the same bands.
        units: "reflectance" scales the stored numbers, "stored" takes them as they are.
        tell: told of a band that is the same everywhere, whose deviation becomes 1.

    Returns:
        Mean, standard deviation (above 0) and quantiles per band; quantiles are exact for
        numbers of 8 and 16 bits, else of a regular sample.
    """
    scene_tallies = [_tally_bands(one) for one in scenes]
    out = []
    for band, name in enumerate(scenes[0].store.scene.band_names):
        pooled = _BandTally(np.dtype(np.float64), 1)
        values, weights = [], []
        for one, tallies in zip(scenes, scene_tallies, strict=True):
            told = one.store.scene.bands[band]
            scale, offset = (told.scale, told.offset) if units == "reflectance" else (1.0, 0.0)
            mine = tallies[band]
            if not mine.count:
                continue
            mean, total = mine.mean * scale + offset, pooled.count + mine.count
            away = mean - pooled.mean
            pooled.squares += mine.squares * scale * scale
            pooled.squares += away * away * pooled.count * mine.count / total
            pooled.mean += away * mine.count / total
            pooled.count = total
            value, weight = mine.weighted()
            values.append(value * scale + offset)
            weights.append(weight)
        if not pooled.count:
            raise ConfigError("training blocks must have observed pixels, there are none")
        std = float(np.sqrt(pooled.squares / pooled.count))
        if not std > 1e-12 * max(abs(pooled.mean), 1.0):
            tell(f"band {name} is {pooled.mean:g} everywhere in the training blocks")
            std = 1.0
        quantiles = _quantiles(np.concatenate(values), np.concatenate(weights))
        out.append(BandStatistics(mean=pooled.mean, std=std, quantiles=quantiles))
    return tuple(out)


def _tally_bands(parts: SceneParts) -> list[_BandTally]:
    scene = parts.store.scene
    chunks = chunk_grid(scene.shape).size
    stride = max(1, CHUNK * CHUNK * chunks // _MOST_SAMPLED)
    tallies = [_BandTally(scene.dtype, stride) for _ in scene.bands]
    for _, _, window in chunk_windows(scene.shape):
        trained = parts.read(window) == Part.TRAIN
        if not trained.any():
            continue
        image, valid = parts.store.read(window)
        for tally, plane in zip(tallies, image, strict=True):
            tally.add(plane[trained & valid])
    return tallies


def _quantiles(
    values: Floats, weights: Floats
) -> tuple[float, float, float, float, float, float, float]:
    """At ``QUANTILES``: the smallest value that at least so large a share does not exceed."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    at = np.searchsorted(reached, np.array(QUANTILES) * reached[-1] * (1 - 1e-12))
    a, b, c, d, e, f, g = (float(v) for v in values[order][np.minimum(at, values.size - 1)])
    return a, b, c, d, e, f, g
