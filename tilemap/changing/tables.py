"""Tables of a change run: what became what, and what there was at each date, in hectares.

Rows come from the sums by code and by class that the cores were counted into
(``tilemap.stages.figures``); where areas are not known (no CRS) their cells are empty.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilemap.changing.palette import code_of
from tilemap.errors import StoreError
from tilemap.stores.sidecars import write_text

FloatArray = npt.NDArray[np.float64]
HECTARES = 100.0
"""In one square kilometre."""


@dataclass(frozen=True)
class Transitions:
    """From which class to which, added up.

    Args:
        names: of the classes, in order.
        pixels: row = class before, column = class after, float64 (K, K).
        area_ha: true area likewise, hectares; None where it is not known.
    """

    names: tuple[str, ...]
    pixels: FloatArray
    area_ha: FloatArray | None

    @property
    def observed(self) -> float:
        """Pixels whose change can be told."""
        return float(self.pixels.sum())

    @property
    def shares(self) -> FloatArray:
        """Of the observed area, or of the pixels where areas are not known; (K, K), 0..1."""
        weights = self.pixels if self.area_ha is None else self.area_ha
        return np.asarray(weights / (weights.sum() or 1.0), dtype=np.float64)

    @property
    def changed_ha(self) -> float:
        """Area that ends in another class than it began in; NaN where it is not known."""
        if self.area_ha is None:
            return math.nan
        return float(self.area_ha.sum() - np.trace(self.area_ha))


def transitions(
    names: Sequence[str], pixels: Sequence[float], areas_km2: Sequence[float] | None
) -> Transitions:
    """Sort sums by change code into a matrix.

    Args:
        names: of the classes, in order.
        pixels: by change code, 256 of them; code 0, where no change can be told, is left out.
        areas_km2: true area likewise; None or NaN where it is not known.

    Raises:
        StoreError: if pixels have a code that is no pair of these classes.
    """
    classes = len(names)
    counts = np.asarray(pixels, dtype=np.float64)
    end = code_of(classes - 1, classes - 1, classes) + 1
    if counts.shape != (256,) or counts[end:].any():
        raise StoreError(f"codes of {classes} classes must lie below {end}, others came")
    area = None
    if areas_km2 is not None:
        cells = HECTARES * np.asarray(areas_km2, dtype=np.float64)[1:end]
        area = cells.reshape(classes, classes) if np.isfinite(cells).all() else None
    return Transitions(tuple(names), counts[1:end].reshape(classes, classes), area)


def transitions_csv(found: Transitions) -> str:
    """One row per pair of classes: ``from,to,pixels,area_ha,share``."""
    shares = found.shares
    rows = [
        (
            before, after, int(found.pixels[i, j]),
            "" if found.area_ha is None else _number(found.area_ha[i, j]),
            f"{shares[i, j]:.9f}",
        )
        for i, before in enumerate(found.names)
        for j, after in enumerate(found.names)
    ]  # fmt: skip
    return _csv([("from", "to", "pixels", "area_ha", "share"), *rows])


def transitions_wide_csv(found: Transitions) -> str:
    """A matrix in hectares, or pixels where areas are not known.

    Row sums are what each class had first, column sums what it had last.
    """
    if found.area_ha is not None:
        cells, unit, written = found.area_ha, "ha", _number
    else:
        cells, unit, written = found.pixels, "pixels", _whole
    rows = [
        (name, *map(written, row), written(row.sum()))
        for name, row in zip(found.names, cells, strict=True)
    ]
    sums = ("sum", *map(written, cells.sum(axis=0)), written(cells.sum()))
    return _csv([(f"from/to ({unit})", *found.names, "sum"), *rows, sums])


def areas_csv(names: Sequence[str], dates: Sequence[str], classes_km2: FloatArray) -> str:
    """Hectares by class and date, one row per class and one of what was not observed.

    Args:
        names: of the classes, in order.
        dates: ISO days.
        classes_km2: true area by date and class index, (date, 256), 255 not observed; NaN where
            it is not known.
    """
    indices = [*range(len(names)), 255]
    rows = [
        (name, *(_number(HECTARES * row[index]) for row in classes_km2))
        for index, name in zip(indices, [*names, "not observed"], strict=True)
    ]
    return _csv([("class (ha)", *dates), *rows])


def write_tables(
    folder: Path, found: Transitions, dates: Sequence[str], classes_km2: FloatArray
) -> tuple[Path, ...]:
    """Write ``transitions.csv``, ``transitions_wide.csv`` and ``areas.csv``, each whole.

    Returns:
        The files written.

    Raises:
        StoreError: if they cannot be written.
    """
    texts = {
        folder / "transitions.csv": transitions_csv(found),
        folder / "transitions_wide.csv": transitions_wide_csv(found),
        folder / "areas.csv": areas_csv(found.names, dates, classes_km2),
    }
    for path, text in texts.items():
        write_text(path, text)
    return tuple(texts)


def _number(value: float) -> str:
    """Hectares to the square metre; empty where not known."""
    return f"{value:.4f}" if math.isfinite(value) else ""


def _whole(value: float) -> str:
    return f"{value:.0f}"


def _csv(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
