"""Rules of masks: named ones, values, bits, and what is none."""

from __future__ import annotations

import numpy as np
import pytest

from tilemap.errors import UsageError
from tilemap.stores.masks import Rule


def test_named_rules_mask_what_their_makers_say() -> None:
    """Clouds, shadows and fill; clear land, water and snow stay."""
    scl = Rule.parse("scl").masked(np.arange(12))
    assert np.flatnonzero(scl).tolist() == [0, 1, 3, 8, 9, 10]
    assert np.flatnonzero(Rule.parse("scl+11").masked(np.arange(12))).tolist()[-1] == 11
    fmask = Rule.parse("fmask").masked(np.array([0, 1, 2, 3, 4, 255], np.uint8))
    assert fmask.tolist() == [False, False, True, False, True, True]
    # 21824 is clear land, 21952 water, 22280 cloud, 23888 shadow, 1 fill, 30048 snow
    landsat = Rule.parse("landsat-qa")
    found = landsat.masked(np.array([21824, 21952, 22280, 23888, 1, 30048], np.uint16))
    assert found.tolist() == [False, False, True, True, True, False]
    assert landsat.masked(np.array([30048])).item() is False
    assert Rule.parse("landsat-qa+5").masked(np.array([30048])).item() is True


def test_any_numbers_and_bits() -> None:
    """Both may be joined; whole shapes are kept."""
    rule = Rule.parse("values:7,200 + bits:0,15")
    pixels = np.array([[7, 8, 200], [1, 1 << 15, 6]], dtype=np.uint16)
    assert rule.masked(pixels).tolist() == [[True, False, True], [True, True, False]]


@pytest.mark.parametrize("text", ["", "clouds", "values:", "bits:a", "bits:70", "scl:3", "x:1"])
def test_what_is_no_rule_is_refused(text: str) -> None:
    """Naming what there is."""
    with pytest.raises(UsageError, match=r"bits"):
        Rule.parse(text)
