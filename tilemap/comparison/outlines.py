"""Outlines of regions as rings of pixel corners, from the edges between pixels.

An edge lies between a pixel of a region and one that is not. Every core knows those of its own
pixels, so the edges of a region are the same for any cut, and so are its rings: no vertex is left
where a tile line crossed. Edges run with the region on their left as a map is seen (rows down), so
outer rings run against the clock there and holes with it.

A corner is one number, its place: ``row * (columns + 1) + column`` of the map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from tilemap.comparison.compiled import compiled

ByteArray = npt.NDArray[np.uint8]
LongArray = npt.NDArray[np.int64]
Edges = LongArray


@dataclass(frozen=True, slots=True)
class Rings:
    """Rings of several regions, one after another.

    Args:
        owner: region of each ring, ascending, int64 (ring,); of one region the outer ring is the
            first, holes follow by their first corners.
        length: corners of each ring, int64 (ring,).
        corner: places of the corners, int64 (corner,). A ring begins at its first corner in raster
            order, which is not repeated at its end; all are bends.
    """

    owner: LongArray
    length: LongArray
    corner: LongArray


def core_edges(
    codes: ByteArray, wanted: npt.NDArray[np.bool_], origin: tuple[int, int], columns: int
) -> tuple[Edges, LongArray]:
    """Unit edges of the wanted pixels of a core.

    Args:
        codes: change codes with a margin of one pixel, 0 beyond the map, uint8 (y + 2, x + 2).
        wanted: pixels of the core whose regions are outlined, bool (y, x).
        origin: row and column of the core's first pixel in the map.
        columns: of the map.

    Returns:
        Start and end corner of each edge, int64 (edge, 2), and the pixel it belongs to as
        ``y * x_size + x`` in the core, int64 (edge,).
    """
    own = codes[1:-1, 1:-1]
    width = columns + 1
    parts, pixels = [], []
    # neighbour, start and end corner relative to the pixel, region on the left hand
    for beside, start, end in (
        (codes[:-2, 1:-1], (0, 1), (0, 0)),  # top, to the left
        (codes[1:-1, :-2], (0, 0), (1, 0)),  # left, down
        (codes[2:, 1:-1], (1, 0), (1, 1)),  # bottom, to the right
        (codes[1:-1, 2:], (1, 1), (0, 1)),  # right, up
    ):
        rows, cols = np.nonzero(wanted & (beside != own))
        row, col = rows + origin[0], cols + origin[1]
        corners = [(row + r) * width + col + c for r, c in (start, end)]
        parts.append(np.stack(corners, axis=1))
        pixels.append(rows * own.shape[1] + cols)
    return np.concatenate(parts).astype(np.int64), np.concatenate(pixels).astype(np.int64)


def straighten(edges: Edges, owner: LongArray, columns: int) -> tuple[Edges, LongArray]:
    """Join edges of one region that follow each other straight on: fewer to keep and to send.

    Where two pixels of a region touch by a corner alone all edges turn, so nothing is decided here.

    Args:
        edges: start and end corner, int64 (edge, 2).
        owner: region of each edge, int64 (edge,).
        columns: of the map.

    Returns:
        The same for the longer edges, in a fixed order.
    """
    if not len(edges):
        return edges, owner
    heading = _heading(edges[:, 0], edges[:, 1], columns + 1)
    low, high = edges.min(axis=1), edges.max(axis=1)
    line = np.where(heading % 2 == 0, low // (columns + 1), low % (columns + 1))
    order = np.lexsort((low, line, heading, owner))
    heading, low, high, own = heading[order], low[order], high[order], owner[order]
    same = (heading[1:] == heading[:-1]) & (own[1:] == own[:-1])
    bends = ~(same & (low[1:] == high[:-1]))
    begin = np.flatnonzero(np.concatenate([[True], bends]))
    finish = np.flatnonzero(np.concatenate([bends, [True]]))
    low, high, ahead = low[begin], high[finish], heading[begin] < 2  # to the right, or down
    ends = np.stack([np.where(ahead, low, high), np.where(ahead, high, low)], axis=1)
    return ends.astype(np.int64), own[begin]


def trace(edges: Edges, owner: LongArray, columns: int) -> Rings:
    """Rings of regions from all their edges, corners only, in a fixed order.

    Where two pixels of a region touch by a corner alone, each ring turns away from its own pixel:
    so no ring meets itself, and a hole may touch the ring around it in a point, which is what a
    valid polygon may do. The first corner of a region in raster order is that of its first pixel
    and no hole reaches it, so the outer ring is the first one traced.

    Args:
        edges: start and end corner, int64 (edge, 2), straight on over any number of pixels.
        owner: region of each edge, int64 (edge,), not negative.
        columns: of the map.
    """
    order = np.lexsort((edges[:, 1], edges[:, 0], owner))
    start, end = (np.ascontiguousarray(edges[order, side]) for side in (0, 1))
    sorted_owner = owner[order]
    first = np.flatnonzero(np.diff(sorted_owner, prepend=-1))
    heading = _heading(start, end, columns + 1)
    length, number, corner = _follow(start, end, heading, np.append(first, len(order)))
    return Rings(sorted_owner[first][number], length, corner)


def _heading(start: LongArray, end: LongArray, width: int) -> LongArray:
    """Direction of edges as a map is seen: 0 right, 1 down, 2 left, 3 up; int64 (edge,)."""
    heading = np.where(np.abs(end - start) < width, 0, 1) + np.where(end > start, 0, 2)
    return heading.astype(np.int64)


@compiled
def _next(start, heading, low, high, corner, turn):  # type: ignore[no-untyped-def]
    """The edge of low..high - 1 that begins at a corner; of two the one with a heading."""
    last = high
    while low < last:
        middle = (low + last) // 2
        if start[middle] < corner:
            low = middle + 1
        else:
            last = middle
    if low + 1 == high or start[low + 1] != corner:
        return low
    return low if heading[low] == turn else low + 1


@compiled
def _follow(start, end, heading, bounds):  # type: ignore[no-untyped-def]
    """Length and region of each ring, and all their corners, in the order they are met."""
    count = len(start)
    seen = np.zeros(count, dtype=np.bool_)
    length = np.zeros(count, dtype=np.int64)
    number = np.zeros(count, dtype=np.int64)
    corner = np.zeros(count, dtype=np.int64)
    rings = 0
    corners = 0
    for region in range(len(bounds) - 1):
        low, high = bounds[region], bounds[region + 1]
        for begin in range(low, high):
            if seen[begin]:
                continue
            before = corners
            edge = begin
            came = -1  # a ring begins at a bend
            while not seen[edge]:
                seen[edge] = True
                if heading[edge] != came:
                    corner[corners] = start[edge]
                    corners += 1
                came = heading[edge]
                right = (came + 1) % 4
                edge = _next(start, heading, low, high, end[edge], right)
            length[rings] = corners - before
            number[rings] = region
            rings += 1
    return length[:rings].copy(), number[:rings].copy(), corner[:corners].copy()


def polygons(rings: Rings, columns: int) -> npt.NDArray[Any]:
    """One valid polygon for each region, of (column, row), in the order of the rings.

    Args:
        rings: of whole regions; each hangs together by edges, so it has one outer ring.
        columns: of the map.

    Returns:
        ``shapely.Polygon`` objects (region,): the first point repeated at the end of each ring,
        outer rings against the clock as a map is seen.
    """
    count = len(rings.length)
    if not count:
        return np.zeros(0, dtype=object)
    closed = rings.length + 1
    ends = np.cumsum(closed)
    begins = np.cumsum(rings.length) - rings.length
    place = np.zeros(ends[-1], dtype=np.int64)
    last = np.zeros(len(place), dtype=np.bool_)
    last[ends - 1] = True
    place[~last] = rings.corner
    place[last] = rings.corner[begins]
    row, col = np.divmod(place, columns + 1)
    points = np.stack([col, row], axis=1).astype(np.float64)
    first = np.flatnonzero(np.diff(rings.owner, prepend=-1))
    offsets = (np.concatenate([[0], ends]), np.append(first, count))
    made: npt.NDArray[Any] = shapely.from_ragged_array(
        shapely.GeometryType.POLYGON, points, offsets
    )
    return made
