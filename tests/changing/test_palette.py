"""Colours of change: none alike, what stayed pale, what changed near its new class."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilemap.changing.palette import (
    Color,
    change_names,
    change_palette,
    code_of,
    pair_of,
    to_oklab,
    to_rgb,
)
from tilemap.errors import UsageError

COLORS = st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))
LAND: list[Color] = [(47, 111, 181), (0, 100, 0), (240, 150, 255), (250, 0, 0), (240, 240, 240)]


def far(one: Color, two: Color) -> float:
    """Distance of two colours in Oklab."""
    return sum((a - b) ** 2 for a, b in zip(to_oklab(one), to_oklab(two), strict=True)) ** 0.5


@pytest.mark.parametrize("classes", [1, 2, 6, 15])
def test_codes_are_those_of_pairs(classes: int) -> None:
    """Every pair has one code, from 1 on without gaps."""
    pairs = list(product(range(classes), repeat=2))
    codes = [code_of(before, after, classes) for before, after in pairs]
    assert codes == list(range(1, classes * classes + 1))
    assert [pair_of(code, classes) for code in codes] == pairs


def test_names_say_from_and_to() -> None:
    """The order of from and to is that of the codes."""
    names = change_names(["water", "forest", "built-up"])
    assert names[code_of(1, 2, 3)] == "forest to built-up"
    assert names[code_of(2, 1, 3)] == "built-up to forest"
    assert names[code_of(0, 0, 3)] == "water, no change"
    assert len(set(names.values())) == 9


@given(st.lists(COLORS, min_size=2, max_size=15))
def test_no_two_codes_look_alike(colors: list[Color]) -> None:
    """Any class colours, equal ones too, give as many colours as codes; what stayed is lighter."""
    palette = change_palette(colors)
    assert sorted(palette) == list(range(1, len(colors) ** 2 + 1))
    assert len(set(palette.values())) == len(palette)
    assert all(0 <= part <= 255 for color in palette.values() for part in color)
    light: dict[bool, list[float]] = {True: [], False: []}
    for code, color in palette.items():
        before, after = pair_of(code, len(colors))
        light[before == after].append(to_oklab(color)[0])
    assert min(light[True]) > max(light[False]) + 0.04


def test_change_looks_like_what_came() -> None:
    """The class after decides the colour, the class before only tints it."""
    palette = change_palette(LAND)
    for before, after in product(range(5), repeat=2):
        if before == after:
            continue
        color = palette[code_of(before, after, 5)]
        others = [n for n in range(5) if n not in (before, after)]
        same = [palette[code_of(n, after, 5)] for n in others]
        assert min(far(color, other) for other in same) > 0
        stayed = [palette[code_of(n, n, 5)] for n in range(5)]
        assert min(far(color, other) for other in stayed) > 0.15
        # its hue is nearer to the new class than to the old one
        _, a, b = to_oklab(color)
        distances = [
            (a - lab[1]) ** 2 + (b - lab[2]) ** 2
            for lab in (to_oklab(LAND[after]), to_oklab(LAND[before]))
        ]
        assert distances[0] < distances[1]


@given(COLORS)
def test_oklab_and_back(color: Color) -> None:
    """Colours of a screen come back as they were."""
    assert to_rgb(to_oklab(color)) == color


def test_oklab_is_oklab() -> None:
    """White, and pure red as its author prints them."""
    assert to_oklab((255, 255, 255)) == pytest.approx((1, 0, 0), abs=1e-4)
    assert to_oklab((255, 0, 0)) == pytest.approx((0.627955, 0.224863, 0.125846), abs=1e-4)


def test_too_many_classes() -> None:
    """Sixteen do not fit into a byte."""
    with pytest.raises(UsageError, match="at most 15 classes, got 16"):
        change_names([str(n) for n in range(16)])
    with pytest.raises(UsageError, match="at most 15 classes, got 16"):
        change_palette([(n, n, n) for n in range(16)])
