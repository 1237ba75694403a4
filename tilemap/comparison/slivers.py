"""Changes along edges that a shift of one pixel can explain."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tilemap.errors import GridError
from tilemap.probability import NODATA

ByteArray = npt.NDArray[np.uint8]


def slivers(first: ByteArray, last: ByteArray) -> npt.NDArray[np.bool_]:
    """Changed pixels whose both classes lie within one pixel on the other date.

    Where an edge between two classes moves by up to a pixel, the class a pixel turned into was
    already beside it, and the class it lost still is. A change without both is none of the edge's.

    Args:
        first: class index, uint8 (y, x), with a margin of one pixel; 255 where not observed.
        last: the same of the other date.

    Returns:
        Boolean (y - 2, x - 2). False where either date is not observed.

    Raises:
        GridError: if the shapes differ, or there is no pixel inside the margin.
    """
    if first.shape != last.shape or first.ndim != 2 or min(first.shape) < 3:
        raise GridError(
            "labels of two dates must share one shape of at least 3 x 3 pixels, got "
            f"{first.shape} and {last.shape}"
        )
    before, after = first[1:-1, 1:-1], last[1:-1, 1:-1]
    rows, cols = before.shape
    came = np.zeros(before.shape, dtype=bool)
    stays = np.zeros(before.shape, dtype=bool)
    for down in range(3):
        for right in range(3):
            around = np.s_[down : down + rows, right : right + cols]
            came |= first[around] == after
            stays |= last[around] == before
    known = (before != NODATA) & (after != NODATA)
    result: npt.NDArray[np.bool_] = known & (before != after) & came & stays
    return result
