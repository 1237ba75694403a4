"""Sieve: regions of change joined across tiles, the small ones mapped as none, the rest outlined.

Three passes: every core tells of the regions that reach its border (``survey_core``); the driver
joins those (``tilemap.change.regions.join_regions``; memory grows with the borders only); every
core is finished (``finish_core``): codes sieved, pixels counted, regions inside it outlined, of the
others their edges between pixels, which the driver strings together (``outline_regions``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from tilemap.change.outlines import core_edges, polygon, trace
from tilemap.change.qa import Qa
from tilemap.change.regions import (
    BorderRegions,
    JoinedRegions,
    LocalRegions,
    local_regions,
    sieve,
    totals,
)
from tilemap.geometry import Window
from tilemap.stages.figures import CODES, ChangeFigures, core_figures, is_change

ByteArray = npt.NDArray[np.uint8]
LongArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
PIXELS, KM2, P_SUM, PROVISIONAL, SLIVER = range(5)
SUMS = 5
"""Numbers summed over a region, before its pixels by date."""


@dataclass(frozen=True)
class Regions:
    """Parts of regions that one core has, kept ones only.

    Args:
        key: of the region: the place of its first pixel in the map, int64 (R,).
        code: change code, uint8 (R,).
        sums: float64 (R, SUMS + dates): pixels, true area in km2, percent of change, provisional
            pixels, slivers; then pixels by the date of their last change.
        rings: of regions that lie inside the core: number of the region in this list and its
            corners (column, row) in the map.
        edges: of the others: number of the region in this list, start and end corner, int64
            (edge, 3).
    """

    key: LongArray
    code: ByteArray
    sums: FloatArray
    rings: tuple[tuple[int, LongArray], ...]
    edges: LongArray

    def pack(self) -> dict[str, npt.NDArray[Any]]:
        """As plain arrays."""
        lengths = np.array([len(ring) for _, ring in self.rings], dtype=np.int64)
        owners = np.array([owner for owner, _ in self.rings], dtype=np.int64)
        corners = np.concatenate([np.zeros((0, 2), np.int64), *(r for _, r in self.rings)])
        return {
            "key": self.key, "code": self.code, "sums": self.sums, "lengths": lengths,
            "owners": owners, "corners": corners, "edges": self.edges,
        }  # fmt: skip

    @staticmethod
    def unpack(parts: Mapping[str, npt.NDArray[Any]]) -> Regions:
        """The inverse of ``pack``."""
        ends = np.cumsum(parts["lengths"])[:-1]
        rings = np.split(parts["corners"], ends) if len(parts["lengths"]) else []
        owned = tuple(zip(parts["owners"].tolist(), rings, strict=True))
        return Regions(parts["key"], parts["code"], parts["sums"], owned, parts["edges"])


@dataclass(frozen=True)
class FinishedCore:
    """The final change of one core.

    Args:
        code: change codes, sieved, uint8 (y, x).
        qa: bits, uint8 (y, x).
        figures: what the core counts.
        regions: its parts of the regions that were kept.
    """

    code: ByteArray
    qa: ByteArray
    figures: ChangeFigures
    regions: Regions


@dataclass(frozen=True)
class ChangePolygon:
    """One region of change.

    Args:
        key: place of its first pixel in the map, row * columns + column.
        code: change code.
        sums: see ``Regions``.
        shape: outline in (column, row) of the map.
    """

    key: int
    code: int
    sums: FloatArray
    shape: shapely.Polygon


def survey_core(codes: ByteArray, window: Window, columns: int, classes: int) -> BorderRegions:
    """Regions of a core that reach its border.

    Args:
        codes: change codes of the core, (y, x).
        window: of the core in the map.
        columns: of the map.
        classes: how many there are.
    """
    return BorderRegions.of(_local(codes, window, columns, classes))


def finish_core(
    codes: ByteArray,
    layers: Mapping[str, npt.NDArray[Any]],
    window: Window,
    joined: JoinedRegions,
    rule: SieveRule,
) -> FinishedCore:
    """Sieve a core, count it, outline what it has of the regions.

    Args:
        codes: change codes with a margin of one pixel, 0 beyond the map, (y + 2, x + 2).
        layers: of the core, as ``ChangedCore`` has them; "code" is taken from ``codes``.
        window: of the core in the map.
        joined: what its border regions belong to.
        rule: what is kept.
    """
    own = np.ascontiguousarray(codes[1:-1, 1:-1])
    local = _local(own, window, rule.columns, rule.classes)
    key, pixels = totals(local, joined)
    code, hidden = sieve(own, local, pixels, rule.mmu_px, rule.classes)
    qa = np.where(hidden, layers["qa"] | np.uint8(Qa.SIEVED), layers["qa"]).astype(np.uint8)
    final = {**layers, "code": code, "qa": qa}
    area = rule.cell_km2
    figures = core_figures(final, rule.days, rule.classes, area)
    kept = pixels >= rule.mmu_px
    kept[0] = False
    sums = _sums(final, local, rule)
    at_border = local.at_border()
    edges, owner = core_edges(codes, kept[local.number], (window.top, window.left), rule.columns)
    number = local.number.ravel()[owner]
    chosen = np.flatnonzero(kept)
    place = np.zeros(len(kept), dtype=np.int64)
    place[chosen] = np.arange(len(chosen))
    across = at_border[number]
    rings = tuple(_rings(edges[~across], place[number[~across]], rule.columns))
    open_edges = np.column_stack([place[number[across]], edges[across]])
    regions = Regions(key[chosen], local.code[chosen], sums[chosen], rings, open_edges)
    return FinishedCore(code, qa, figures, regions)


@dataclass(frozen=True)
class SieveRule:
    """What decides about a core besides its own pixels.

    Args:
        mmu_px: the smallest region that is kept, pixels.
        columns: of the map.
        classes: how many there are.
        days: of the dates, days since 1970-01-01, int64 (date,).
        cell_km2: true area of each pixel of the core, broadcast to (y, x).
    """

    mmu_px: int
    columns: int
    classes: int
    days: LongArray
    cell_km2: FloatArray


def outline_regions(parts: Iterable[Regions], columns: int) -> list[ChangePolygon]:
    """All regions whole, in the order of their first pixels.

    Args:
        parts: of every core.
        columns: of the map.
    """
    codes: dict[int, int] = {}
    sums: dict[int, FloatArray] = {}
    rings: dict[int, list[LongArray]] = {}
    edges: dict[int, list[LongArray]] = {}
    for part in parts:
        for index, key in enumerate(part.key.tolist()):
            codes[key] = int(part.code[index])
            sums[key] = sums.get(key, 0.0) + part.sums[index]
        for owner, ring in part.rings:
            rings.setdefault(int(part.key[owner]), []).append(ring)
        for owner, own in _grouped(part.edges[:, 1:], part.edges[:, 0]):
            edges.setdefault(int(part.key[owner]), []).append(own)
    for key, several in edges.items():
        rings[key] = trace(np.concatenate(several), columns)
    return [ChangePolygon(key, codes[key], sums[key], polygon(rings[key])) for key in sorted(codes)]


def _local(codes: ByteArray, window: Window, columns: int, classes: int) -> LocalRegions:
    changed = is_change(np.arange(CODES, dtype=np.uint8), classes)
    return local_regions(codes, changed, (window.top, window.left), columns)


def _sums(
    layers: Mapping[str, npt.NDArray[Any]], local: LocalRegions, rule: SieveRule
) -> FloatArray:
    """What is summed over each number, float64 (R + 1, SUMS + dates)."""
    flat, size, dates = local.number.ravel(), len(local.code), len(rule.days)
    qa = layers["qa"].ravel()
    percent = np.where(layers["p_change"] <= 100, layers["p_change"], 0).ravel()
    weights = (
        np.ones(flat.size),
        np.broadcast_to(rule.cell_km2, local.number.shape).ravel(),
        percent.astype(np.float64),
        (qa & np.uint8(Qa.PROVISIONAL)) > 0,
        (qa & np.uint8(Qa.SLIVER)) > 0,
    )
    columns = [np.bincount(flat, weight, minlength=size) for weight in weights]
    inside = flat > 0
    step = np.searchsorted(rule.days, layers["date"].ravel()[inside])
    by_date = np.bincount(flat[inside] * dates + step, minlength=size * dates)
    return np.column_stack([*columns, by_date.reshape(size, dates)]).astype(np.float64)


def _rings(edges: LongArray, owner: LongArray, columns: int) -> Iterable[tuple[int, LongArray]]:
    for one, own in _grouped(edges, owner):
        for ring in trace(own, columns):
            yield one, ring


def _grouped(values: LongArray, owner: LongArray) -> Iterable[tuple[int, LongArray]]:
    """Rows by owner, in ascending order."""
    if not len(owner):
        return
    order = np.argsort(owner, kind="stable")
    ends = np.flatnonzero(np.diff(owner[order])) + 1
    for part in np.split(order, ends):
        yield int(owner[part[0]]), values[part]
