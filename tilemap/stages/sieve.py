"""Sieve: regions of change joined across tiles, the small ones mapped as none, the rest outlined.

How a run calls it, everything between the steps going through stores:

1. ``survey_core`` on each tile, in any order: reads the codes of its core, tells of the regions
   that reach its border (``BorderRegions``: the numbers along four sides, 21 bytes a region).
2. ``tilemap.comparison.regions.join_regions`` once, when all of 1 are done: joins these. In memory:
   the border regions of the whole map, one row of sides, the pairs that touch; nothing of a region
   that lies inside a tile. It tells each tile what its border regions belong to.
3. ``finish_core`` on each tile, in any order: reads the codes with a margin of one pixel
   (``around``) and the layers of its core, counts the same regions again, so that nothing of 1 is
   needed but what 2 told; sieves, counts, outlines the regions inside the core. Of those that
   reach its border it tells the edges between pixels, joined where they go straight on.
4. ``outline_regions`` once, when all of 3 are done: strings the edges together, polygons in the
   order of their first pixels. In memory: the edges of regions that reach a border, 24 bytes each,
   and all polygons.

``sieve_map`` runs all of it in one process, for small maps and tests. The result is the same for
any cut, to the last bit: pixels are counted, and areas are added up as whole multiples of a small
unit, so that their sum does not hang on its order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from tilemap.comparison.outlines import Rings, core_edges, polygons, straighten, trace
from tilemap.comparison.qa import Qa
from tilemap.comparison.regions import (
    BorderRegions,
    JoinedRegions,
    LocalRegions,
    join_regions,
    local_regions,
    sieve,
    totals,
)
from tilemap.geometry import TileGrid, Window
from tilemap.stages.figures import CODES, ChangeFigures, core_figures, is_change

ByteArray = npt.NDArray[np.uint8]
LongArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
PIXELS, KM2, P_SUM, PROVISIONAL, SLIVER = range(5)
LAYERS = ("qa", "p_change", "n_changes", "date", "labels")
SUMS = 5
"""Numbers summed over a region, before its pixels by date."""

COARSE, FINE = 2.0**20, 2.0**47
"""Units of area in a km2, about 1 m2 and 0.007 mm2: in these a float64 adds up the whole Earth, and
the rest of each of 10^8 pixels, without rounding."""


@dataclass(frozen=True, slots=True)
class Regions:
    """Parts of regions that one core has, kept ones only.

    Args:
        key: of the region: the place of its first pixel in the map, row * columns + column,
            int64 (R,).
        code: change code, uint8 (R,).
        sums: float64 (R, SUMS + dates): pixels, true area in km2, percent of change, provisional
            pixels, slivers; then pixels by the date of their last change. The area is a multiple
            of 1 / COARSE.
        rest: what the areas leave beside ``sums``, km2, a multiple of 1 / FINE, float64 (R,).
        rings: of regions that lie inside the core; their owner is a place in this list.
        edges: of the others, int64 (edge, 2), see ``tilemap.comparison.outlines``.
        owner: of each edge, a place in this list, int64 (edge,).
    """

    key: LongArray
    code: ByteArray
    sums: FloatArray
    rest: FloatArray
    rings: Rings
    edges: LongArray
    owner: LongArray

    def pack(self) -> dict[str, npt.NDArray[Any]]:
        """As plain arrays."""
        return {
            "key": self.key, "code": self.code, "sums": self.sums, "rest": self.rest,
            "ring_owner": self.rings.owner, "ring_length": self.rings.length,
            "ring_corner": self.rings.corner, "edges": self.edges, "owner": self.owner,
        }  # fmt: skip

    @staticmethod
    def unpack(parts: Mapping[str, npt.NDArray[Any]]) -> Regions:
        """The inverse of ``pack``."""
        rings = Rings(parts["ring_owner"], parts["ring_length"], parts["ring_corner"])
        return Regions(
            parts["key"], parts["code"], parts["sums"], parts["rest"], rings, parts["edges"],
            parts["owner"],
        )  # fmt: skip


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


@dataclass(frozen=True, slots=True)
class ChangePolygon:
    """One region of change.

    Args:
        key: place of its first pixel in the map, row * columns + column.
        code: change code.
        sums: see ``Regions``, the rest of the area included, float64 (SUMS + dates,).
        shape: outline in (column, row) of the map, outer ring against the clock as a map is seen.
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
    return FinishedCore(code, qa, figures, _parts(codes, final, local, key, kept, window, rule))


def _parts(
    codes: ByteArray,
    layers: Mapping[str, npt.NDArray[Any]],
    local: LocalRegions,
    key: LongArray,
    kept: npt.NDArray[np.bool_],
    window: Window,
    rule: SieveRule,
) -> Regions:
    """What a core has of the regions that are kept."""
    columns, chosen = rule.columns, np.flatnonzero(kept)
    edges, pixel = core_edges(codes, kept[local.number], (window.top, window.left), columns)
    number = local.number.ravel()[pixel]
    place = np.cumsum(kept) - 1
    across = local.at_border()[number]
    rings = trace(edges[~across], place[number[~across]], columns)
    straight, owner = straighten(edges[across], place[number[across]], columns)
    sums, rest = _sums(layers, local, rule)
    return Regions(
        key[chosen], local.code[chosen], sums[chosen], rest[chosen], rings, straight, owner
    )


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
        parts: of every core, in any order; asked for one after another.
        columns: of the map.
    """
    keys, codes, sums, rests, edges, owners = [], [], [], [], [], []
    shapes: dict[int, shapely.Polygon] = {}
    for part in parts:
        keys.append(part.key)
        codes.append(part.code)
        sums.append(part.sums)
        rests.append(part.rest)
        edges.append(part.edges)
        owners.append(part.key[part.owner])
        shapes.update(_shapes(part.rings, part.key, columns))
    if not keys:
        return []
    key, first, whole = np.unique(np.concatenate(keys), return_index=True, return_inverse=True)
    every = np.concatenate(edges), np.searchsorted(key, np.concatenate(owners))
    shapes.update(_shapes(trace(*every, columns), key, columns))
    total = np.zeros((len(key), sums[0].shape[1]))
    rest = np.zeros(len(key))
    np.add.at(total, whole, np.concatenate(sums))
    np.add.at(rest, whole, np.concatenate(rests))
    total[:, KM2] += rest
    code = np.concatenate(codes)[first].tolist()
    return [ChangePolygon(k, code[i], total[i], shapes[k]) for i, k in enumerate(key.tolist())]


def _shapes(rings: Rings, key: LongArray, columns: int) -> Iterator[tuple[int, shapely.Polygon]]:
    """Key and polygon of every region that owns a ring."""
    owners = key[rings.owner[np.diff(rings.owner, prepend=-1) > 0]]
    return zip(owners.tolist(), polygons(rings, columns), strict=True)


@dataclass(frozen=True, slots=True)
class SievedMap:
    """The final change of a whole map.

    Args:
        code: change codes, sieved, uint8 (y, x).
        qa: bits, uint8 (y, x).
        figures: sums over all pixels.
        polygons: regions that were kept, in the order of their first pixels.
    """

    code: ByteArray
    qa: ByteArray
    figures: ChangeFigures
    polygons: list[ChangePolygon]


Read = Callable[[str, Window], npt.NDArray[Any]]
"""Gives a layer of ``ChangedCore`` by its name, in a window inside the map."""


def sieve_map(grid: TileGrid, read: Read, rule: Callable[[Window], SieveRule]) -> SievedMap:
    """All steps in one process: for small maps, and as what a run is measured by.

    Args:
        grid: the cut.
        read: layers "code", "qa", "p_change", "n_changes", "date" and "labels".
        rule: what decides about the core of a window.
    """
    columns = grid.scene[1]
    windows = {tile: grid.core_window(tile) for tile in grid.tiles()}
    borders = {
        tile: survey_core(read("code", window), window, columns, rule(window).classes)
        for tile, window in windows.items()
    }
    joined = join_regions(grid, borders)
    code, qa = np.zeros(grid.scene, dtype=np.uint8), np.zeros(grid.scene, dtype=np.uint8)
    parts, figures = [], []
    for tile, window in windows.items():
        layers = {name: read(name, window) for name in LAYERS}
        codes = around(read, window, grid.scene_window)
        done = finish_core(codes, layers, window, joined[tile], rule(window))
        code[window.slices()], qa[window.slices()] = done.code, done.qa
        parts.append(done.regions)
        figures.append(done.figures)
    total = sum(figures[1:], figures[0])
    return SievedMap(code, qa, total, outline_regions(parts, columns))


def around(read: Read, window: Window, scene: Window) -> ByteArray:
    """Codes of a core with a margin of one pixel, 0 beyond the map, uint8 (y + 2, x + 2)."""
    wide = window.grow(1)
    inside = wide.intersect(scene)
    codes = np.zeros(wide.shape, dtype=np.uint8)
    codes[inside.within(wide)] = read("code", inside)
    return codes


def _local(codes: ByteArray, window: Window, columns: int, classes: int) -> LocalRegions:
    changed = is_change(np.arange(CODES, dtype=np.uint8), classes)
    return local_regions(codes, changed, (window.top, window.left), columns)


def _sums(
    layers: Mapping[str, npt.NDArray[Any]], local: LocalRegions, rule: SieveRule
) -> tuple[FloatArray, FloatArray]:
    """``sums`` and ``rest`` of each number, see ``Regions``."""
    flat, size, dates = local.number.ravel(), len(local.code), len(rule.days)
    qa = layers["qa"].ravel()
    percent = np.where(layers["p_change"] <= 100, layers["p_change"], 0).ravel()
    area = np.broadcast_to(rule.cell_km2, local.number.shape).ravel()
    coarse = np.rint(area * COARSE) / COARSE
    fine = np.rint((area - coarse) * FINE) / FINE
    weights = (
        np.ones(flat.size),
        coarse,
        percent.astype(np.float64),
        (qa & np.uint8(Qa.PROVISIONAL)) > 0,
        (qa & np.uint8(Qa.SLIVER)) > 0,
    )
    columns = [np.bincount(flat, weight, minlength=size) for weight in weights]
    inside = flat > 0
    step = np.searchsorted(rule.days, layers["date"].ravel()[inside])
    by_date = np.bincount(flat[inside] * dates + step, minlength=size * dates)
    sums = np.column_stack([*columns, by_date.reshape(size, dates)]).astype(np.float64)
    return sums, np.bincount(flat, fine, minlength=size).astype(np.float64)
