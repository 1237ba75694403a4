"""Colours and names of change codes: what stayed is pale, what changed is strong.

Colours are mixed in Oklab (Ottosson 2020, "A perceptual color space for image processing"), where
equal steps look equal: what stayed lies above one lightness, what changed below another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from tilemap.errors import UsageError

Color = tuple[int, int, int]
Oklab = tuple[float, float, float]

MOST_CLASSES = 15
"""1 + 15 * 15 codes fit into a byte."""
PALEST, PALE, STRONG, DARKEST = 0.97, 0.87, 0.77, 0.32
"""Lightness: what stayed lies between the first two, what changed between the last two."""
FADED = 0.4
"""Share of colourfulness that what stayed keeps."""
SHADE, TINT = 0.4, 0.18
"""Share of the class before in what changed: of the lightness, of the colour."""
_DARKER = sorted(product(range(9), repeat=3), key=lambda step: (sum(step), step))


def code_of(before: int, after: int, classes: int) -> int:
    """Change code of two class indices: ``1 + classes * before + after``.

    >>> code_of(2, 1, classes=6)
    14
    """
    return 1 + classes * before + after


def pair_of(code: int, classes: int) -> tuple[int, int]:
    """Class indices before and after of a change code; the inverse of ``code_of``.

    >>> pair_of(14, classes=6)
    (2, 1)
    """
    return divmod(code - 1, classes)


def change_names(names: Sequence[str]) -> dict[int, str]:
    """Name of every change code.

    Args:
        names: of the classes, in order; at most 15.

    Raises:
        UsageError: if there are too many.

    >>> change_names(["forest", "built-up"])
    {1: 'forest, no change', 2: 'forest to built-up', 3: 'built-up to forest', \
4: 'built-up, no change'}
    """
    return {
        code: f"{names[before]}, no change"
        if before == after
        else f"{names[before]} to {names[after]}"
        for code, before, after in _codes(len(names))
    }


def change_palette(colors: Sequence[Color]) -> dict[int, Color]:
    """Colour of every change code; no two are equal.

    No change: the class's colour, pale. Change: the colour of the class after, a little of that of
    the class before in it, never pale.

    Args:
        colors: of the classes, in order, three numbers 0..255 each; at most 15.

    Raises:
        UsageError: if there are too many.
    """
    labs = [to_oklab(color) for color in colors]
    palette: dict[int, Color] = {}
    for code, before, after in _codes(len(colors)):
        wanted = _pale(labs[after]) if before == after else _strong(labs[before], labs[after])
        palette[code] = _unused(to_rgb(wanted), set(palette.values()))
    return palette


def _codes(classes: int) -> Iterator[tuple[int, int, int]]:
    if classes > MOST_CLASSES:
        raise UsageError(f"change has codes for at most {MOST_CLASSES} classes, got {classes}")
    for before, after in product(range(classes), repeat=2):
        yield code_of(before, after, classes), before, after


def _pale(color: Oklab) -> Oklab:
    light, a, b = color
    return PALE + (PALEST - PALE) * light, FADED * a, FADED * b


def _strong(before: Oklab, after: Oklab) -> Oklab:
    light = SHADE * before[0] + (1 - SHADE) * after[0]
    a, b = (TINT * x + (1 - TINT) * y for x, y in zip(before[1:], after[1:], strict=True))
    return DARKEST + (STRONG - DARKEST) * light, a, b


def _unused(color: Color, used: set[Color]) -> Color:
    """The colour, or the nearest darker one that is free."""
    for red, green, blue in _DARKER:
        near = (max(color[0] - red, 0), max(color[1] - green, 0), max(color[2] - blue, 0))
        if near not in used:
            return near
    raise AssertionError("226 codes never fill the 729 colours next to one")


def to_oklab(color: Color) -> Oklab:
    """Lightness 0..1 and two opponent colours of an sRGB colour."""
    r, g, b = (_linear(part / 255) for part in color)
    roots = (
        (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b) ** (1 / 3),
        (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b) ** (1 / 3),
        (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b) ** (1 / 3),
    )
    long, medium, short = roots
    return (
        0.2104542553 * long + 0.7936177850 * medium - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * medium + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * medium - 0.8086757660 * short,
    )


def to_rgb(color: Oklab) -> Color:
    """The sRGB colour; one that no screen shows gives the nearest of less colourfulness."""
    light, a, b = color
    for share in range(20, -1, -1):
        parts = _rgb(light, a * share / 20, b * share / 20)
        if all(-0.002 <= part <= 1.002 for part in parts):
            break
    red, green, blue = (round(255 * min(max(part, 0.0), 1.0)) for part in parts)
    return red, green, blue


def _rgb(light: float, a: float, b: float) -> tuple[float, float, float]:
    long = (light + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (light - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (light - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        _gamma(4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short),
        _gamma(-1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short),
        _gamma(-0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short),
    )


def _linear(part: float) -> float:
    """sRGB 0..1 to light (IEC 61966-2-1)."""
    return part / 12.92 if part <= 0.04045 else float(((part + 0.055) / 1.055) ** 2.4)


def _gamma(part: float) -> float:
    """The inverse of ``_linear``; below 0 it goes on straight."""
    return 12.92 * part if part <= 0.0031308 else float(1.055 * part ** (1 / 2.4) - 0.055)
