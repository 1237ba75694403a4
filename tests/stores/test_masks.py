"""Rules of masks: named ones, values, bits, and what is none."""

from __future__ import annotations

import numpy as np
import pytest

from tilemap.errors import SceneError, UsageError
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
    assert not Rule.parse("values:3").masked(np.array([64, 322])).any()
    pixels = np.array([[7, 8, 200], [1, 1 << 15, 6]], dtype=np.uint16)
    assert rule.masked(pixels).tolist() == [[True, False, True], [True, True, False]]


@pytest.mark.parametrize("text", ["", "clouds", "values:", "bits:a", "bits:70", "scl:3", "x:1"])
def test_what_is_no_rule_is_refused(text: str) -> None:
    """Naming what there is."""
    with pytest.raises(UsageError, match=r"bits"):
        Rule.parse(text)


@pytest.mark.parametrize(
    ("rule", "codes"),
    [
        ("fmask", [64, 66, 194, 72]),  # of HLS
        ("fmask", [322, 352]),  # pixel_qa of Landsat collection 1
        ("landsat-qa", [322, 324, 328, 352]),
        ("landsat-qa", [2720, 2724]),  # BQA of Landsat collection 1
        ("landsat-qa", [4, 9]),  # Sentinel-2's SCL
        ("landsat-c1-qa", [21824, 22280]),
        ("scl", [64, 96]),
        ("hls-fmask", [322, 21824]),
    ],
)
def test_codes_of_another_product_are_refused(rule: str, codes: list[int]) -> None:
    """A rule that would mask clear land, or no cloud at all, names the numbers it does not know."""
    with pytest.raises(SceneError, match=f"mask of the rule {rule}.*got {codes[0]}"):
        Rule.parse(rule).masked(np.array([0, *codes], np.uint16))


def test_rules_of_the_products_that_are_mistaken_for_others() -> None:
    """Fmask of HLS, and Landsat collection 1: cloud, shadow and fill; clear land and water stay."""
    hls = Rule.parse("hls-fmask").masked(np.array([64, 66, 194, 72, 68, 96, 255], np.uint8))
    assert hls.tolist() == [False, True, True, True, True, False, True]
    first = Rule.parse("landsat-c1-qa").masked(np.array([322, 324, 328, 352, 480, 1], np.uint16))
    assert first.tolist() == [False, False, True, True, True, True]
    assert Rule.parse("hls-fmask+4").masked(np.array([80], np.uint8)).all()
    assert Rule.parse("fmask+7").masked(np.array([7, 1], np.uint8)).tolist() == [True, False]
