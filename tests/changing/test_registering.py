"""What becomes of each date: from the shifts of its blocks to a verdict."""

from __future__ import annotations

import pytest

from tilemap.changing.batch import Receipt
from tilemap.changing.registering import block_keys, block_side, register
from tilemap.comparison.qa import Qa
from tilemap.errors import SceneMismatchError

DAYS = ("2000-07-01", "2010-07-01", "2020-07-01")


def _receipts(*blocks: tuple[int, float, float, float]) -> list[Receipt]:
    """Of (date, row, col, quality)."""
    return [
        Receipt("register", (date, n, 0), 1, 1, 0.0, (row, col, quality))
        for n, (date, row, col, quality) in enumerate(blocks)
    ]


def test_each_date_has_its_verdict() -> None:
    """Small shifts go on, middle ones are moved and flagged, nothing measured is unknown."""
    small = [(1, 0.05, -0.02, 0.9)] * 4
    middle = [(2, 0.3, -0.2, 0.9)] * 4
    found = register(_receipts(*small, *middle), DAYS, False)
    assert found.verdicts == ("reference", "ok", "shift")
    assert found.moves == (None, None, pytest.approx((0.3, -0.2)))
    assert found.always == Qa.SHIFTED
    rows = found.record()
    assert [row["blocks"] for row in rows] == [0, 4, 4]
    blank = register(_receipts(*small), DAYS, False)
    assert blank.verdicts == ("reference", "ok", "unknown")
    assert blank.moves == (None, None, None)
    assert blank.always == 0
    assert blank.record()[2]["row"] is None


def test_too_far_is_refused_unless_accepted() -> None:
    """The date is named; accepted it stays as it is, and is flagged."""
    far = [(2, 1.1, 0.4, 0.9)] * 5
    with pytest.raises(SceneMismatchError, match=r"2020-07-01.*`accept_misregistration`"):
        register(_receipts(*far), DAYS, False)
    found = register(_receipts(*far), DAYS, True)
    assert found.verdicts[2] == "accepted"
    assert found.moves[2] is None
    assert found.always == Qa.SHIFTED


def test_two_doubtful_blocks_are_no_shift() -> None:
    """Fields that were sown meanwhile; the same from two blocks beyond doubt is one."""
    doubtful = [(1, 0.43, 0.74, 0.6), (1, 0.44, 0.73, 0.59)]
    assert register(_receipts(*doubtful), DAYS[:2], False).verdicts[1] == "unknown"
    sure = [(1, 0.23, 0.24, 0.97), (1, 0.24, 0.23, 0.96)]
    assert register(_receipts(*sure), DAYS[:2], False).verdicts[1] == "shift"


def test_blocks_cover_a_map_evenly() -> None:
    """At most 64 of a date, none of the first; smaller where the map is small."""
    assert block_side((147, 255)) == 73
    assert block_side((40, 90)) == 64
    assert block_side((5000, 9000)) == 256
    keys = block_keys((5000, 9000), 256, 3)
    assert {key[0] for key in keys} == {1, 2}
    assert len(keys) // 2 <= 64
    assert max(key[1] for key in keys) >= 15
    assert block_keys((40, 90), 64, 2) == [(1, 0, 0)]
