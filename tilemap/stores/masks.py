"""Which numbers of a mask band mean that a pixel was not observed: clouds, shadows, fill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilemap.errors import UsageError

NAMED: dict[str, tuple[str, tuple[int, ...]]] = {
    # Sentinel-2 level 2A scene classification: no data, saturated, cloud shadow, clouds of medium
    # and high probability, thin cirrus (ESA, Sentinel-2 Level-2A algorithm overview)
    "scl": ("values", (0, 1, 3, 8, 9, 10)),
    # QA_PIXEL of Landsat collection 2: fill, dilated cloud, cirrus, cloud, cloud shadow
    # (USGS LSDS-1619, table 6-3)
    "landsat-qa": ("bits", (0, 1, 2, 3, 4)),
    # Fmask: cloud shadow, cloud, fill (Zhu and Woodcock 2012)
    "fmask": ("values", (2, 4, 255)),
}


@dataclass(frozen=True, slots=True)
class Rule:
    """Numbers that are masked.

    Args:
        values: masked if the number is one of these.
        bits: masked if any of these is set, 0 being the lowest.
    """

    values: tuple[int, ...] = ()
    bits: tuple[int, ...] = ()

    @staticmethod
    def parse(text: str) -> Rule:
        """A rule such as ``scl``, ``values:3,8,9``, ``bits:0,1,3`` or ``scl+11``.

        >>> Rule.parse("fmask+3").values
        (2, 3, 4, 255)

        Raises:
            UsageError: if it is none.
        """
        found: dict[str, set[int]] = {"values": set(), "bits": set()}
        kind = "values"
        for part in text.strip().lower().split("+"):
            name, _, numbers = part.strip().partition(":")
            if name in NAMED and not numbers:
                kind, several = NAMED[name]
                found[kind] |= set(several)
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
        return Rule(tuple(sorted(found["values"])), tuple(sorted(found["bits"])))

    def masked(self, pixels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Where pixels of whole numbers are masked, bool, of the same shape."""
        hidden: npt.NDArray[np.bool_] = np.isin(pixels, self.values)
        if self.bits:
            pattern = sum(1 << bit for bit in self.bits)
            hidden |= (pixels.astype(np.uint64) & np.uint64(pattern)) != 0
        return hidden


def _no_rule(text: str) -> UsageError:
    return UsageError(
        f"a mask rule must be {', '.join(NAMED)}, values:3,8,9 or bits:0,1,3, more with +, got "
        f"{text!r}"
    )
