"""Figures of one core of a change map: what the tables and the report are added up from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilemap.comparison.qa import Qa

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]
CODES, PERCENTS, TIMES = 256, 101, 16


@dataclass(frozen=True)
class ChangeFigures:
    """Sums over pixels; those of several cores are added with ``+``.

    Args:
        pixels: by change code, float64 (256,).
        km2: true area by change code, float64 (256,); NaN where it is not known.
        interval_km2: true area whose last change is found at each date, float64 (date,); 0 at the
            first.
        classes_km2: true area by date and class index, float64 (date, 256); 255 is not observed.
        p_change: pixels per percent, float64 (101,).
        times: pixels by number of changes, the last one "or more", float64 (16,).
        qa: pixels by bit, float64 (8,).
        provisional_km2: true area of provisional change, float64 (1,).
    """

    pixels: FloatArray
    km2: FloatArray
    interval_km2: FloatArray
    classes_km2: FloatArray
    p_change: FloatArray
    times: FloatArray
    qa: FloatArray
    provisional_km2: FloatArray

    @staticmethod
    def size(dates: int) -> int:
        """Numbers in all."""
        return 2 * CODES + dates + dates * CODES + PERCENTS + TIMES + len(Qa) + 1

    def pack(self) -> FloatArray:
        """All numbers in one row, float64 (size,)."""
        parts = (self.pixels, self.km2, self.interval_km2, self.classes_km2.ravel(),
                 self.p_change, self.times, self.qa, self.provisional_km2)  # fmt: skip
        return np.concatenate(parts)

    @staticmethod
    def unpack(row: FloatArray, dates: int) -> ChangeFigures:
        """The inverse of ``pack``."""
        ends = np.cumsum([CODES, CODES, dates, dates * CODES, PERCENTS, TIMES, len(Qa)])
        pixels, km2, interval, classes, p_change, times, qa, late = np.split(row, ends)
        return ChangeFigures(
            pixels, km2, interval, classes.reshape(dates, CODES), p_change, times, qa, late
        )

    def __add__(self, other: ChangeFigures) -> ChangeFigures:
        return ChangeFigures.unpack(self.pack() + other.pack(), len(self.interval_km2))


def is_change(code: ByteArray, classes: int) -> npt.NDArray[np.bool_]:
    """Where a change code is of two different classes, bool, of the same shape."""
    numbers = np.arange(CODES) - 1
    table = (
        (numbers >= 0) & (numbers < classes * classes) & (numbers // classes != numbers % classes)
    )
    found: npt.NDArray[np.bool_] = table[code]
    return found


def core_figures(
    layers: Mapping[str, npt.NDArray[Any]],
    days: npt.NDArray[np.int64],
    classes: int,
    cell_km2: FloatArray,
) -> ChangeFigures:
    """Count one core.

    Args:
        layers: "code" (sieved), "qa", "p_change", "n_changes", "date" (y, x) and "labels"
            (date, y, x), as ``ChangedCore`` has them.
        days: of the dates, days since 1970-01-01.
        classes: how many there are.
        cell_km2: true area of each pixel, broadcast to (y, x).
    """
    code, qa, percent = (layers[name].ravel() for name in ("code", "qa", "p_change"))
    area = np.broadcast_to(cell_km2, layers["code"].shape).ravel()
    moved = is_change(code, classes)
    late = moved & ((qa & np.uint8(Qa.PROVISIONAL)) > 0)
    step = np.searchsorted(days, layers["date"].ravel()[moved])
    labels, times = layers["labels"], np.minimum(layers["n_changes"].ravel(), TIMES - 1)
    return ChangeFigures(
        pixels=np.bincount(code, minlength=CODES).astype(np.float64),
        km2=np.bincount(code, area, minlength=CODES).astype(np.float64),
        interval_km2=np.bincount(step, area[moved], minlength=len(days)).astype(np.float64),
        classes_km2=np.stack([np.bincount(t.ravel(), area, minlength=CODES) for t in labels]),
        p_change=np.bincount(percent[percent < PERCENTS], minlength=PERCENTS).astype(np.float64),
        times=np.bincount(times, minlength=TIMES).astype(np.float64),
        qa=np.array([np.count_nonzero(qa & np.uint8(bit)) for bit in Qa], dtype=np.float64),
        provisional_km2=np.array([area[late].sum()]),
    )
