"""Which numbers of a mask band mean that a pixel was not observed: clouds, shadows, fill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tilemap.errors import SceneError, UsageError

Pixels = npt.NDArray[Any]
Known = Callable[[Pixels], npt.NDArray[np.bool_]]


class _Named(NamedTuple):
    """The numbers a product masks, and which numbers it may have at all (0 is "no pixel")."""

    values: tuple[int, ...]
    bits: tuple[int, ...]
    known: Known


NAMED: dict[str, _Named] = {
    # Sentinel-2 level 2A scene classification: no data, saturated, cloud shadow, clouds of medium
    # and high probability, thin cirrus (ESA, Sentinel-2 Level-2A algorithm overview)
    "scl": _Named((0, 1, 3, 8, 9, 10), (), lambda v: (v >= 0) & (v <= 11)),
    # QA_PIXEL of Landsat collection 2: fill, dilated cloud, cirrus, cloud, cloud shadow
    # (USGS LSDS-1619, table 6-3). Every pixel but fill has a confidence of snow, bits 12 and 13.
    "landsat-qa": _Named(
        (), (0, 1, 2, 3, 4), lambda v: np.isin(v, (0, 1)) | ((v.astype(np.int64) & 0x3000) != 0)
    ),
    # pixel_qa of Landsat collection 1: fill, cloud shadow, cloud (USGS LSDS-1873, table 6-1)
    "landsat-c1-qa": _Named((), (0, 3, 5), lambda v: (v >= 0) & (v < 2048)),
    # Fmask: cloud shadow, cloud, fill (Zhu and Woodcock 2012)
    "fmask": _Named((2, 4, 255), (), lambda v: np.isin(v, (0, 1, 2, 3, 4, 255))),
    # Fmask of HLS 2: cloud, beside cloud or shadow, shadow; fill (HLS User Guide 2.0, table 9)
    "hls-fmask": _Named((255,), (1, 2, 3), lambda v: (v >= 0) & (v <= 255)),
}


def mask_file(text: str) -> tuple[str, str]:
    """File and band of a mask as a person names it, ``FILE`` or ``FILE:BAND``.

    A file whose name has a colon in it is taken as it is.

    >>> mask_file("no-such-folder/clouds.tif:8")
    ('no-such-folder/clouds.tif', '8')
    """
    file, colon, band = text.rpartition(":")
    return (file, band.strip()) if colon and band and not Path(text).exists() else (text, "")


@dataclass(frozen=True, slots=True)
class Rule:
    """Numbers that are masked.

    Args:
        values: masked if the number is one of these.
        bits: masked if any of these is set, 0 being the lowest.
        products: keys of ``NAMED`` whose numbers these are; other numbers are refused.
    """

    values: tuple[int, ...] = ()
    bits: tuple[int, ...] = ()
    products: tuple[str, ...] = ()

    @staticmethod
    def parse(text: str) -> Rule:
        """A rule such as ``scl``, ``values:3,8,9``, ``bits:0,1,3`` or ``scl+11``.

        >>> Rule.parse("fmask+3").values
        (2, 3, 4, 255)

        Raises:
            UsageError: if it is none.
        """
        found: dict[str, set[int]] = {"values": set(), "bits": set()}
        products: list[str] = []
        kind = "values"
        for part in text.strip().lower().split("+"):
            name, _, numbers = part.strip().partition(":")
            if name in NAMED and not numbers:
                products.append(name)
                found["values"] |= set(NAMED[name].values)
                found["bits"] |= set(NAMED[name].bits)
                kind = "bits" if NAMED[name].bits else "values"
                continue
            if name in found and numbers:
                kind = name
            elif not numbers:
                numbers = name
            else:
                raise _no_rule(text)
            try:
                found[kind] |= {int(number) for number in numbers.split(",")}
            except ValueError as error:
                raise _no_rule(text) from error
        if any(not 0 <= bit < 64 for bit in found["bits"]):
            raise UsageError(f"bits must lie between 0 and 63, got {text!r}")
        return Rule(tuple(sorted(found["values"])), tuple(sorted(found["bits"])), tuple(products))

    def masked(self, pixels: Pixels) -> npt.NDArray[np.bool_]:
        """Where pixels of whole numbers are masked, bool, of the same shape.

        Raises:
            SceneError: if some are no numbers of the products that the rule is for.
        """
        self._check(pixels)
        hidden: npt.NDArray[np.bool_] = np.isin(pixels, self.values)
        if self.bits:
            pattern = sum(1 << bit for bit in self.bits)
            hidden |= (pixels.astype(np.uint64) & np.uint64(pattern)) != 0
        return hidden

    def _check(self, pixels: Pixels) -> None:
        if not self.products:
            return
        known = np.isin(pixels, (0, *self.values))
        for name in self.products:
            known |= NAMED[name].known(pixels)
        if not known.all():
            odd = ", ".join(map(str, np.unique(pixels[~known])[:5].tolist()))
            name = "+".join(self.products)
            raise SceneError(
                f"a mask of the rule {name} must hold its codes only, got {odd}; "
                f"the rules of other products are {', '.join(NAMED)}, values:3,8,9 and bits:0,1,3"
            )


def _no_rule(text: str) -> UsageError:
    return UsageError(
        f"a mask rule must be {', '.join(NAMED)}, values:3,8,9 or bits:0,1,3, more with +, got "
        f"{text!r}"
    )
