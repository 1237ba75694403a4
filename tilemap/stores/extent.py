"""Where and when a collection of items lies: the narrowest box around boxes, the whole interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

Bbox = tuple[float, float, float, float]
"""West, south, east, north in degrees; west is larger than east across the antimeridian."""
WORLD: Bbox = (-180.0, -90.0, 180.0, 90.0)


def union_bbox(boxes: Iterable[Bbox]) -> Bbox | None:
    """The narrowest box that holds all; None of none.

    Longitudes lie on a circle: the box begins at the west of one of the boxes and ends at the
    east of another. Where two are equally narrow, it is not the one across the antimeridian.

    >>> union_bbox([(170, -5, 175, 5), (-178, -9, -175, 0)])
    (170, -9, -175, 5)
    """
    found = sorted(set(boxes))
    if not found:
        return None
    wests = [box[0] for box in found]
    easts = [box[2] if box[0] <= box[2] else box[2] + 360 for box in found]
    # From the west of box k eastwards: the boxes from k on, then a turn later those before it.
    farthest = list(accumulate(reversed(easts), max))[::-1]
    before = [-math.inf, *accumulate(easts, max)]
    widths = [
        max(east, earlier + 360) - west
        for west, east, earlier in zip(wests, farthest, before, strict=False)
    ]
    width = min(widths)
    west, east = -180.0, 180.0
    if width < 360:
        start = widths.index(width)
        west = wests[start]
        end = max(farthest[start], before[start] + 360)
        east = end if end <= 180 else end - 360
    return (west, min(box[1] for box in found), east, max(box[3] for box in found))


def item_bbox(item: Mapping[str, Any]) -> Bbox | None:
    """Of an item, heights left out; None where it lies nowhere."""
    box = item.get("bbox")
    if box is None:
        return None
    half = len(box) // 2
    return (float(box[0]), float(box[1]), float(box[half]), float(box[half + 1]))


def item_interval(item: Mapping[str, Any]) -> tuple[datetime, datetime]:
    """First and last moment of an item, in UTC."""
    properties = item["properties"]
    one = properties.get("datetime")
    start, end = properties.get("start_datetime") or one, properties.get("end_datetime") or one
    return _parsed(start), _parsed(end)


def whole_interval(items: Sequence[Mapping[str, Any]]) -> tuple[datetime, datetime] | None:
    """From the earliest start to the latest end; None of none."""
    spans = [item_interval(item) for item in items]
    if not spans:
        return None
    return min(start for start, _ in spans), max(end for _, end in spans)


def _parsed(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
