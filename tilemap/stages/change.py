"""Change: the probabilities of all dates in one core to what changed there, how surely and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilemap.comparison.hmm import smooth
from tilemap.comparison.outcome import CountArray, count_dtype, describe
from tilemap.comparison.pairs import cvaps, pcc
from tilemap.comparison.qa import Qa
from tilemap.comparison.registration import move
from tilemap.comparison.slivers import slivers
from tilemap.comparison.smoothed import MethodName, Smoothed
from tilemap.geometry import Window
from tilemap.stores.core_store import LayerSpec

MARGIN = 2
"""Pixels read around a core: one to move a date, one to look for slivers."""
NODATA = 255

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]
Move = tuple[float, float]


@dataclass(frozen=True)
class Method:
    """How the dates of a pixel are compared.

    Args:
        name: "hmm", "pcc" or "cvaps".
        days: of the dates, days since 1970-01-01, int64 (date,).
        classes: how many there are, K.
        initial: hmm: probability of each class before the first date, float64 (K,).
        transitions: hmm: between each date and the next, float64 (date - 1, K, K).
        table: hmm: evidence of each stored probability, float64 (K, 256).
        threshold: cvaps: smallest change vector that counts, 0..1.
        annual: hmm: transitions per year, as given or as fitted, float64 (K, K); None else.
    """

    name: MethodName
    days: npt.NDArray[np.int64]
    classes: int
    initial: FloatArray
    transitions: FloatArray
    table: FloatArray
    threshold: float = 0.5
    annual: FloatArray | None = None

    def record(self) -> dict[str, Any]:
        """What was found from the series itself, for ``run.json``."""
        if self.name == "cvaps":
            return {"threshold": self.threshold}
        if self.annual is None:
            return {}
        return {"annual": self.annual.tolist(), "initial": self.initial.tolist()}

    def run(self, quantised: ByteArray) -> Smoothed:
        """Classes and change of pixels, from uint8 (date, class, pixel)."""
        if self.name == "hmm":
            return smooth(quantised, self.initial, self.transitions, self.table)
        if self.name == "pcc":
            return pcc(quantised)
        return cvaps(quantised, self.threshold)


@dataclass(frozen=True, slots=True)
class ChangedCore:
    """Change of one core, before anything is sieved.

    Args:
        code: ``1 + classes * from + to``, 0 where no change can be told, uint8 (y, x).
        p_change: percent that there was a change at all, 255 where none can be told, uint8 (y, x).
        date: of the last change, days since 1970-01-01, int32 (y, x).
        gap: days from the last look before it, int32 (y, x).
        n_valid: observed dates, of ``count_dtype`` (y, x).
        n_changes: likewise.
        qa: bits of ``Qa``, uint8 (y, x).
        labels: class index of each date, uint8 (date, y, x).
    """

    code: ByteArray
    p_change: ByteArray
    date: npt.NDArray[np.int32]
    gap: npt.NDArray[np.int32]
    n_valid: CountArray
    n_changes: CountArray
    qa: ByteArray
    labels: ByteArray

    @property
    def layers(self) -> dict[str, npt.NDArray[np.generic]]:
        """All of them by name."""
        return {
            "code": self.code, "p_change": self.p_change, "date": self.date, "gap": self.gap,
            "n_valid": self.n_valid, "n_changes": self.n_changes, "qa": self.qa,
            "labels": self.labels,
        }  # fmt: skip


def layer_specs(dates: int) -> dict[str, LayerSpec]:
    """What a store of changed cores holds."""
    byte, days = LayerSpec("uint8"), LayerSpec("int32")
    count = LayerSpec(count_dtype(dates).name)
    return {
        "code": byte, "p_change": byte, "date": days, "gap": days, "n_valid": count,
        "n_changes": count, "qa": byte, "labels": LayerSpec("uint8", dates),
    }  # fmt: skip


def change_core(
    dates: Sequence[ByteArray],
    moves: Sequence[Move | None],
    method: Method,
    always: Qa = Qa(0),  # noqa: B008 - a flag is a constant
) -> ChangedCore:
    """Compare the dates of one core.

    Every number depends on the pixel and the two around it alone, so the cut leaves no trace.

    Args:
        dates: quantised probability of each date, uint8 (class, y, x), the core and ``MARGIN``
            pixels around it; 255 where not observed or beyond the map.
        moves: how far each date lies off, (rows, columns) pixels; None leaves it as it is.
        method: how they are compared.
        always: bits that hold for every pixel.
    """
    fitted = [
        date[:, 1:-1, 1:-1] if off is None else move(date, *off)
        for date, off in zip(dates, moves, strict=True)
    ]
    classes, height, width = fitted[0].shape
    stack = np.stack([date.reshape(classes, -1) for date in fitted])  # (date, class, pixel)
    smoothed = method.run(stack)
    labels = smoothed.labels.reshape(-1, height, width)
    inner = np.s_[..., 1:-1, 1:-1]
    core = (height - 2, width - 2)

    def cut(values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        shaped = values.reshape(*values.shape[:-1], height, width)[inner]
        return np.ascontiguousarray(shaped).reshape(*values.shape[:-1], -1)

    observed = cut(stack[:, 0] != NODATA)
    found = describe(cut(smoothed.labels), observed, method.days, method.classes)  # type: ignore[arg-type]
    sliver = slivers(*_ends(labels)).ravel() & (found.n_changes > 0)
    qa = found.qa | np.uint8(always) | np.where(sliver, np.uint8(Qa.SLIVER), np.uint8(0))
    percent = np.rint(np.asarray(cut(smoothed.p_change), dtype=np.float64) * 100)
    p_change = np.where(found.code == 0, NODATA, np.clip(percent, 0, 100)).astype(np.uint8)
    return ChangedCore(
        code=found.code.reshape(core),
        p_change=p_change.reshape(core),
        date=found.date.reshape(core),
        gap=found.gap.reshape(core),
        n_valid=found.n_valid.reshape(core),
        n_changes=found.n_changes.reshape(core),
        qa=qa.astype(np.uint8).reshape(core),
        labels=np.ascontiguousarray(labels[inner]),
    )


def _ends(labels: ByteArray) -> tuple[ByteArray, ByteArray]:
    """First and last label of each pixel, uint8 (y, x); 255 where there is none."""
    known = labels != NODATA
    first = np.argmax(known, axis=0)[None]
    last = (len(labels) - 1 - np.argmax(known[::-1], axis=0))[None]
    return (
        np.take_along_axis(labels, first, axis=0)[0],
        np.take_along_axis(labels, last, axis=0)[0],
    )


def grown(window: Window) -> Window:
    """What is read of every date for a core; may reach beyond the map."""
    return Window(
        window.top - MARGIN, window.left - MARGIN, window.bottom + MARGIN, window.right + MARGIN
    )


def nothing_known(shape: tuple[int, int], dates: int) -> ChangedCore:
    """The core of a quarantined tile."""
    none = np.zeros(shape, dtype=np.uint8)
    blank = np.full(shape, NODATA, dtype=np.uint8)
    no_date = np.full(shape, np.iinfo(np.int32).min, dtype=np.int32)
    never = np.zeros(shape, dtype=count_dtype(dates))
    few = np.full(shape, Qa.FEW | Qa.FIRST | Qa.LAST, dtype=np.uint8)
    labels = np.full((dates, *shape), NODATA, dtype=np.uint8)
    return ChangedCore(none, blank, no_date, no_date, never, never, few, labels)
