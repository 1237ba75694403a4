"""Pictures of a change: the map of what changed beside its ends, and all dates side by side."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from pyproj import CRS, Transformer
from rasterio.enums import Resampling

from tilemap.report.quicklook import GAP, paint, png_bytes
from tilemap.stores.grids import apply
from tilemap.stores.opening import open_dataset

ByteArray = npt.NDArray[np.uint8]
Palette = Mapping[int, tuple[int, int, int]]

LONGEST = 1400  # of the large panel: twice what a page shows, for screens that are that fine
MOST_PANELS = 24
_ROW_WIDTH = 2088
_SIGNATURE = 8  # bytes before the first chunk of a PNG


@dataclass(frozen=True)
class Panel:
    """Where one map lies in a picture, pixels of the picture."""

    left: int
    top: int
    width: int
    height: int


def change_picture(
    first: Path, last: Path, change: Path, classes: Palette, changes: Palette
) -> bytes:
    """The change map, and to its right the first date above the last, PNG.

    The maps are read through their overviews, nearest. A map on the ground carries how wide it is
    there, so that a page can draw a scale: ``note(png, "metres")``.

    Args:
        first: class map of the first date, nodata 255.
        last: class map of the last date, on the same grid.
        change: map of change codes on the same grid, nodata 0.
        classes: colour per stored number of the class maps.
        changes: colour per change code.

    Raises:
        RasterioIOError: if a map cannot be read.
    """
    with open_dataset(str(change.absolute())) as file:
        shape = (int(file.height), int(file.width))
        metres = _metres_across(file)
    large, small = change_panels(*_sizes(shape))
    height, width = large.height, small.left + small.width
    picture = np.full((3, height, width), 255, dtype=np.uint8)
    _put(picture, large, paint(_read(change, large), changes, nodata=0))
    _put(picture, small, paint(_read(first, small), classes))
    below = Panel(small.left, height - small.height, small.width, small.height)
    _put(picture, below, paint(_read(last, below), classes))
    png = png_bytes(picture)
    return png if metres is None else with_note(png, "metres", f"{metres:.6g}")


def change_panels(height: int, width: int) -> tuple[Panel, Panel]:
    """The large panel of ``change_picture``, and the upper of the two small ones.

    Args:
        height: of the large panel, pixels.
        width: of the large panel, pixels.
    """
    short = max((height - GAP) // 2, 1)
    narrow = max(round(width * short / height), 1)
    return Panel(0, 0, width, height), Panel(width + GAP, 0, narrow, short)


def panels_of(height: int, width: int) -> tuple[Panel, Panel]:
    """The panels of a whole ``change_picture`` of this size.

    >>> large, small = change_panels(754, 1394)
    >>> panels_of(754, small.left + small.width) == (large, small)
    True
    """
    short = max((height - GAP) // 2, 1)
    guess = round((width - GAP) / (1 + short / height))
    wide = next(
        (w for w in (guess, guess - 1, guess + 1) if _whole_width(height, w) == width), guess
    )
    return change_panels(height, max(wide, 1))


def multiples(
    labels: Sequence[Path], captions: Sequence[str], classes: Palette, nodata: int = 255
) -> bytes:
    """The class maps of all dates in rows, PNG; of many dates, 24 spread evenly.

    A page writes the captions over the panels: they travel with the picture,
    ``note(png, "captions")``, one a line.

    Args:
        labels: class maps on one grid, in order, read through their overviews, nearest.
        captions: one for each.
        classes: colour per stored number.
        nodata: stored number that means "not observed".

    Raises:
        ValueError: if there is no map, or not one caption for each.
        RasterioIOError: if a map cannot be read.
    """
    if not labels or len(captions) != len(labels):
        raise ValueError(f"each map needs a caption: got {len(labels)} and {len(captions)}")
    chosen = _spread(len(labels), MOST_PANELS)
    with open_dataset(str(labels[0].absolute())) as file:
        shape = (int(file.height), int(file.width))
    across = columns(len(chosen))
    longest = (_ROW_WIDTH - GAP * (across - 1)) // across
    cell = _fit(shape, longest)
    down = -(-len(chosen) // across)
    size = [count * (side + GAP) - GAP for count, side in zip((down, across), cell, strict=True)]
    picture = np.full((3, *size), 255, dtype=np.uint8)
    for place, index in enumerate(chosen):
        panel = multiple(place, across, cell)
        _put(picture, panel, paint(_read(labels[index], panel), classes, nodata))
    return with_note(png_bytes(picture), "captions", "\n".join(captions[i] for i in chosen))


def columns(count: int) -> int:
    """How many of ``count`` small maps stand in one row.

    >>> [columns(count) for count in (1, 2, 3, 4, 5, 6, 8, 9, 12, 13, 24)]
    [1, 2, 3, 4, 3, 3, 4, 3, 4, 6, 6]
    """
    if count <= 4:
        return count
    if count > 12:
        return 6
    return 3 if count in (5, 6, 9) else 4


def multiple(place: int, across: int, cell: tuple[int, int]) -> Panel:
    """Where the map number ``place`` lies in ``multiples``; ``cell`` is (height, width)."""
    row, col = divmod(place, across)
    height, width = cell
    return Panel(col * (width + GAP), row * (height + GAP), width, height)


def size_of(png: bytes) -> tuple[int, int]:
    """Height and width of a PNG."""
    width, height = struct.unpack(">II", png[16:24])
    return height, width


def with_note(png: bytes, keyword: str, text: str) -> bytes:
    """The same picture with a text of its own (an iTXt chunk)."""
    data = keyword.encode("latin-1") + b"\0\0\0\0\0" + text.encode()
    body = b"iTXt" + data
    chunk = struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
    end = _SIGNATURE + 12 + 13  # after IHDR, which comes first and is 13 bytes long
    return png[:end] + chunk + png[end:]


def note(png: bytes, keyword: str) -> str:
    """The text that ``with_note`` put there; empty if there is none."""
    at, head = _SIGNATURE, keyword.encode("latin-1") + b"\0\0\0\0\0"
    while at + 8 <= len(png):
        (long,) = struct.unpack(">I", png[at : at + 4])
        if png[at + 4 : at + 8] == b"iTXt" and png[at + 8 :].startswith(head):
            return png[at + 8 + len(head) : at + 8 + long].decode()
        at += 12 + long
    return ""


def _sizes(shape: tuple[int, int]) -> tuple[int, int]:
    return _fit(shape, LONGEST)


def _fit(shape: tuple[int, int], longest: int) -> tuple[int, int]:
    """Shrunk to fit, or each pixel drawn as a square of whole pixels."""
    scale = longest / max(shape)
    if scale >= 1:
        scale = int(scale)
    height, width = (max(round(side * scale), 1) for side in shape)
    return height, width


def _whole_width(height: int, width: int) -> int:
    small = change_panels(height, max(width, 1))[1]
    return small.left + small.width


def _spread(count: int, most: int) -> list[int]:
    if count <= most:
        return list(range(count))
    return [round(place * (count - 1) / (most - 1)) for place in range(most)]


def _put(picture: ByteArray, panel: Panel, rgb: ByteArray) -> None:
    rows = slice(panel.top, panel.top + panel.height)
    picture[:, rows, panel.left : panel.left + panel.width] = rgb


def _read(path: Path, panel: Panel) -> ByteArray:
    with open_dataset(str(path.absolute())) as file:
        shape = (panel.height, panel.width)
        return np.asarray(file.read(1, out_shape=shape, resampling=Resampling.nearest))


def _metres_across(file: rasterio.DatasetReader) -> float | None:
    """Ground width of the middle row; None without a CRS of a globe, or where it ends beyond it."""
    crs = None if file.crs is None else CRS(file.crs.to_wkt())
    geod = None if crs is None or crs.geodetic_crs is None else crs.get_geod()
    if crs is None or geod is None:
        return None
    row = file.height / 2
    # a hundredth of the width: across a whole globe the ends would be the same point
    ends = [apply(file.transform, file.width * share, row) for share in (0.495, 0.505)]
    to_degrees = Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    xs, ys = to_degrees.transform([x for x, _ in ends], [y for _, y in ends])
    metres = 100 * geod.inv(xs[0], ys[0], xs[1], ys[1])[2]
    return metres if np.isfinite(metres) and metres > 0 else None
