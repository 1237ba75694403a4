"""Outlines of regions as rings of pixel corners, from the edges between pixels.

An edge lies between a pixel of a region and one that is not. Every core knows those of its own
pixels, so the edges of a region are the same for any cut, and so are its rings: no vertex is left
where a tile line crossed. Edges run with the region on their right as a map is seen (rows down),
so outer rings run clockwise there and holes the other way.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt
import shapely

ByteArray = npt.NDArray[np.uint8]
LongArray = npt.NDArray[np.int64]


def core_edges(
    codes: ByteArray, wanted: npt.NDArray[np.bool_], origin: tuple[int, int], columns: int
) -> tuple[LongArray, LongArray]:
    """Unit edges of the wanted pixels of a core.

    Args:
        codes: change codes with a margin of one pixel, 0 beyond the map, (y + 2, x + 2).
        wanted: pixels of the core whose regions are outlined, bool (y, x).
        origin: row and column of the core's first pixel in the map.
        columns: of the map; a corner is ``row * (columns + 1) + column``.

    Returns:
        Start and end corner of each edge, int64 (edge, 2), and the pixel it belongs to as
        ``y * x_size + x`` in the core, int64 (edge,).
    """
    own = codes[1:-1, 1:-1]
    width = columns + 1
    parts, pixels = [], []
    # side: neighbour, start and end corner relative to the pixel, region on the right hand
    for beside, start, end in (
        (codes[:-2, 1:-1], (0, 0), (0, 1)),  # top, to the right
        (codes[1:-1, 2:], (0, 1), (1, 1)),  # right, down
        (codes[2:, 1:-1], (1, 1), (1, 0)),  # bottom, to the left
        (codes[1:-1, :-2], (1, 0), (0, 0)),  # left, up
    ):
        rows, cols = np.nonzero(wanted & (beside != own))
        row, col = rows + origin[0], cols + origin[1]
        corners = [(row + r) * width + col + c for r, c in (start, end)]
        parts.append(np.stack(corners, axis=1))
        pixels.append(rows * own.shape[1] + cols)
    return np.concatenate(parts).astype(np.int64), np.concatenate(pixels).astype(np.int64)


def trace(edges: LongArray, columns: int) -> list[LongArray]:
    """Rings of one region from all its edges, corners only, in a fixed order.

    Where two pixels of the region touch by a corner alone, each ring turns left, away from its own
    pixel: so no ring meets itself, and a hole may touch the ring around it in a point, which is
    what a valid polygon may do.

    Args:
        edges: start and end corner, int64 (edge, 2).
        columns: of the map.

    Returns:
        Rings, int64 (vertex, 2) of (column, row), the first vertex not repeated.
    """
    order = np.lexsort((edges[:, 1], edges[:, 0]))
    sorted_edges = np.ascontiguousarray(edges[order])
    ring, place = _follow(sorted_edges, columns + 1)
    order = np.lexsort((place, ring))
    ends = np.flatnonzero(np.diff(ring[order])) + 1
    rings = []
    for part in np.split(order, ends):
        places = sorted_edges[part, 0]
        row, col = np.divmod(places, columns + 1)
        points = np.stack([col, row], axis=1)
        before, after = np.roll(points, 1, axis=0), np.roll(points, -1, axis=0)
        bends = ((points - before) != (after - points)).any(axis=1)
        rings.append(points[bends])
    return rings


@numba.njit(cache=True, nogil=True)
def _next(edges, edge, width):  # type: ignore[no-untyped-def]
    """The edge that goes on from another; of two the one that turns left."""
    corner = edges[edge, 1]
    low = np.searchsorted(edges[:, 0], corner)
    if low + 1 == len(edges) or edges[low + 1, 0] != corner:
        return low
    step = corner - edges[edge, 0]
    if step == 1:
        turn = -width
    elif step == width:
        turn = 1
    elif step == -1:
        turn = width
    else:
        turn = -1
    return low if edges[low, 1] - corner == turn else low + 1


@numba.njit(cache=True, nogil=True)
def _follow(edges, width):  # type: ignore[no-untyped-def]
    """Number of the ring of each edge, and its place in the ring, int64 (edge,) each."""
    ring = np.full(len(edges), -1, dtype=np.int64)
    place = np.zeros(len(edges), dtype=np.int64)
    count = 0
    for start in range(len(edges)):
        if ring[start] >= 0:
            continue
        edge, step = start, 0
        while ring[edge] < 0:
            ring[edge], place[edge] = count, step
            edge = _next(edges, edge, width)
            step += 1
        count += 1
    return ring, place


def polygon(rings: list[LongArray]) -> shapely.Polygon:
    """One polygon of (column, row) from the rings of one region.

    A region hangs together by edges, so it has one outer ring, the one around all others.
    """
    outer = max(range(len(rings)), key=lambda i: _area(rings[i]))
    holes = [ring for index, ring in enumerate(rings) if index != outer]
    return shapely.normalize(shapely.Polygon(rings[outer], holes))


def _area(ring: LongArray) -> float:
    x, y = ring[:, 0].astype(np.float64), ring[:, 1].astype(np.float64)
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
