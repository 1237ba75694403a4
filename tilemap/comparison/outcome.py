"""From the classes of a series to one answer per pixel: what changed, when, how well seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from tilemap.comparison.qa import Qa
from tilemap.errors import ConfigError

ByteArray = npt.NDArray[np.uint8]
CountArray = npt.NDArray[np.uint8 | np.uint16]
DayArray = npt.NDArray[np.int32]

NONE = 255
NO_DATE = -2147483648
MOST_CLASSES = 15
"""So that ``1 + K * K`` codes fit in a byte."""

MOST_DATES = 65535
"""Where counts of 16 bits would run into their own "not known"."""

_FEW, _FIRST, _LAST = int(Qa.FEW), int(Qa.FIRST), int(Qa.LAST)
_PROVISIONAL = int(Qa.PROVISIONAL)


def count_dtype(dates: int) -> np.dtype[Any]:
    """Numbers that count up to ``dates`` and keep their largest for "not known".

    >>> count_dtype(254).name, count_dtype(255).name
    ('uint8', 'uint16')
    """
    return np.dtype(np.uint8 if dates < np.iinfo(np.uint8).max else np.uint16)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of N pixels between the first date and the last.

    Args:
        code: ``1 + classes * from + to``, uint8 (pixel,); 0 where no change can be told.
        date: first observed date that shows the last change, days since 1970-01-01, int32
            (pixel,); ``NO_DATE`` where no class changed.
        gap: days from the last observed date before the last change to ``date``, int32 (pixel,):
            the change happened within; ``NO_DATE`` where none changed or none was observed before.
        n_valid: observed dates, of ``count_dtype`` (pixel,).
        n_changes: how often the class changed, likewise.
        qa: bits FEW, FIRST, LAST and PROVISIONAL of ``Qa``, uint8 (pixel,).
    """

    code: ByteArray
    date: DayArray
    gap: DayArray
    n_valid: CountArray
    n_changes: CountArray
    qa: ByteArray


def describe(
    labels: ByteArray,
    observed: npt.NDArray[np.bool_],
    days: npt.NDArray[np.int64],
    classes: int,
) -> Outcome:
    """Say of every pixel what changed and when it was seen.

    A pixel goes from the class of its first label to that of its last. It may have changed in
    between and come back: then the code says no change, and ``n_changes`` and ``date`` tell of it.
    A change is provisional when no date after ``date`` was observed.

    Args:
        labels: class index, uint8 (date, pixel); 255 where there is none.
        observed: boolean (date, pixel). A method may label dates that were not observed.
        days: of the dates, days since 1970-01-01, int64 (date,), rising.
        classes: how many there are, 1..15.

    Raises:
        ConfigError: if shapes, days or classes are not as above, or dates are 65535 or more.
    """
    if len(labels) >= MOST_DATES:
        raise ConfigError(f"a series must have fewer than {MOST_DATES} dates, got {len(labels)}")
    if labels.ndim != 2 or labels.shape != observed.shape or len(days) != len(labels):
        raise ConfigError(
            "labels and observed must be (date, pixel) with a day for each date, got "
            f"{labels.shape}, {observed.shape} and {len(days)} days"
        )
    if not 1 <= classes <= MOST_CLASSES:
        raise ConfigError(f"a change code holds 1..{MOST_CLASSES} classes, got {classes}")
    if not len(days) or np.any(np.diff(days) <= 0):
        raise ConfigError("the dates of a series must be in order, each once")
    if abs(days[0]) >= -NO_DATE or abs(days[-1]) >= -NO_DATE:
        raise ConfigError("a day must lie within 2147483647 days of 1970-01-01")
    stray = labels[(labels >= classes) & (labels != NONE)]
    if stray.size:
        raise ConfigError(
            f"a class index must be below {classes}, or 255 for none, got {stray.max()}"
        )
    code, date, gap, seen, changes, qa = _describe(labels, observed, days.astype(np.int64), classes)
    counts = count_dtype(len(labels))
    return Outcome(code, date, gap, seen.astype(counts), changes.astype(counts), qa)


@numba.njit(nogil=True)
def _describe(  # type: ignore[no-untyped-def]
    labels, observed, days, classes
):  # pragma: no cover - compiled
    dates, pixels = labels.shape
    code = np.zeros(pixels, np.uint8)
    date = np.full(pixels, NO_DATE, np.int32)
    gap = np.full(pixels, NO_DATE, np.int32)
    n_valid = np.zeros(pixels, np.uint16)
    n_changes = np.zeros(pixels, np.uint16)
    qa = np.zeros(pixels, np.uint8)
    for i in range(pixels):
        seen, changes, step, latest = 0, 0, -1, -1
        first, last = NONE, NONE
        for t in range(dates):
            if observed[t, i]:
                seen += 1
                latest = t
            label = labels[t, i]
            if label == NONE:
                continue
            if last == NONE:
                first = label
            elif label != last:
                changes += 1
                step = t
            last = label
        n_valid[i] = seen
        bits = 0 if observed[0, i] else _FIRST
        bits |= 0 if observed[dates - 1, i] else _LAST
        if seen < 2 or first == NONE:
            qa[i] = bits | _FEW
            continue
        code[i] = 1 + classes * first + last
        n_changes[i] = changes
        if changes:
            shown = step
            while shown < dates and not observed[shown, i]:
                shown += 1
            if shown == dates:  # the class changed after the last look, by the model alone
                shown = step
            before = step - 1
            while before >= 0 and not observed[before, i]:
                before -= 1
            date[i] = days[shown]
            if before >= 0:
                gap[i] = days[shown] - days[before]
            if first != last and shown >= latest:
                bits |= _PROVISIONAL
        qa[i] = bits
    return code, date, gap, n_valid, n_changes, qa
