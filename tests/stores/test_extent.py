"""Where and when a collection lies: the narrowest box, also across the antimeridian."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilemap.stores.extent import Bbox, item_bbox, item_interval, union_bbox, whole_interval


@st.composite
def boxes(draw: st.DrawFn) -> Bbox:
    """Boxes on whole degrees, some across the antimeridian."""
    west = draw(st.integers(-180, 179))
    east = west + draw(st.integers(0, 200))
    south = draw(st.integers(-90, 89))
    north = draw(st.integers(south, 90))
    return (west, south, east if east <= 180 else east - 360, north)


def covered(box: Bbox) -> set[int]:
    """Degrees of the circle, each from its west to its east, that a box holds."""
    west, east = int(box[0]), int(box[2])
    return {lon % 360 for lon in range(west, east if west <= east else east + 360)}


def width(box: Bbox) -> float:
    """Of a box, in degrees."""
    return box[2] - box[0] if box[0] <= box[2] else box[2] - box[0] + 360


@given(st.lists(boxes(), min_size=1, max_size=6))
def test_narrowest_box_that_holds_all(found: list[Bbox]) -> None:
    """It holds every box, and the widest gap that they leave is what it leaves."""
    whole = union_bbox(found)
    assert whole is not None
    assert all(covered(box) <= covered(whole) for box in found)
    assert whole[1] == min(box[1] for box in found)
    assert whole[3] == max(box[3] for box in found)
    assert -180 <= whole[0] <= 180
    assert -180 <= whole[2] <= 180
    # Boxes without width cover no degree, but stand between others all the same.
    ends = {int(lon) % 360 for box in found for lon in (box[0], box[2])}
    taken = set().union(*(covered(box) for box in found))
    gap = widest = 0
    for lon in [*range(360), *range(360)]:
        gap = 1 if lon in ends else gap + 1
        gap = 0 if lon in taken else gap
        widest = max(widest, min(gap, 360))
    assert width(whole) == 360 - widest


@given(st.lists(boxes(), max_size=6))
def test_order_does_not_matter(found: list[Bbox]) -> None:
    """The same boxes give the same box, however often each comes."""
    assert union_bbox(found) == union_bbox([*found[::-1], *found])


@pytest.mark.parametrize(
    ("found", "whole"),
    [
        ([], None),
        ([(5, 1, 6, 2)], (5, 1, 6, 2)),
        ([(178, -20, -179, -10)], (178, -20, -179, -10)),
        ([(170, -5, 175, 5), (-178, -9, -175, 0)], (170, -9, -175, 5)),
        ([(-90, 0, -80, 1), (90, 0, 100, 1)], (-90, 0, 100, 1)),
        ([(-100, 0, -90, 1), (95, 0, 100, 1)], (95, 0, -90, 1)),
        ([(-180, -90, 180, 90), (5, 1, 6, 2)], (-180, -90, 180, 90)),
        ([(-180, 0, 0, 1), (0, 0, 180, 2)], (-180, 0, 180, 2)),
        ([(-180, 60, 180, 90), (178, -20, -179, -10)], (-180, -20, 180, 90)),
    ],
)
def test_boxes(found: list[Bbox], whole: Bbox | None) -> None:
    """Named cases; of two that are equally narrow, not the one across the antimeridian."""
    assert union_bbox(found) == whole


def test_item_box_without_heights() -> None:
    """Heights go; an item without a place has no box."""
    assert item_bbox({"bbox": [1, 2, 100, 3, 4, 200]}) == (1, 2, 3, 4)
    assert item_bbox({"bbox": [1, 2, 3, 4]}) == (1, 2, 3, 4)
    assert item_bbox({}) is None


def test_intervals() -> None:
    """A moment is an interval; the whole goes from the first start to the last end."""
    one = {"properties": {"datetime": "2020-05-18T10:00:00+02:00"}}
    two = {
        "properties": {
            "datetime": None,
            "start_datetime": "1985-07-01T00:00:00Z",
            "end_datetime": "2001-07-01T23:59:59Z",
        }
    }
    moment = datetime(2020, 5, 18, 8, tzinfo=UTC)
    assert item_interval(one) == (moment, moment)
    assert whole_interval([one, two]) == (datetime(1985, 7, 1, tzinfo=UTC), moment)
    assert whole_interval([]) is None
