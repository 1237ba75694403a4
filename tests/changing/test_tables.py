"""Tables of change: every pixel once, sums that agree, and honest blanks."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tilemap.changing.palette import code_of
from tilemap.changing.tables import (
    Transitions,
    areas_csv,
    transitions,
    transitions_csv,
    transitions_wide_csv,
    write_tables,
)
from tilemap.errors import StoreError

NAMES = ["water", 'rock, "bare"', "forest"]
DATES = ["1990-07-01", "2001-05-04"]
FIRST = np.array([0, 0, 2, 2, 2, 1, 255], dtype=np.uint8)
LAST = np.array([0, 2, 1, 1, 2, 1, 1], dtype=np.uint8)
KM2 = np.array([0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64])
"""Of each pixel: no two sums are alike. The last one was seen once only."""

Floats = npt.NDArray[np.float64]


def sums() -> tuple[Floats, Floats, Floats]:
    """Pixels and areas by code, areas by date and class."""
    pixels, areas = np.zeros(256), np.zeros(256)
    classes = np.zeros((2, 256))
    for before, after, km2 in zip(FIRST, LAST, KM2, strict=True):
        code = 0 if before == 255 else code_of(int(before), int(after), 3)
        pixels[code] += 1
        areas[code] += km2
        classes[0, before] += km2
        classes[1, after] += km2
    return pixels, areas, classes


def found() -> Transitions:
    """The matrix of the toy."""
    pixels, areas, _ = sums()
    return transitions(NAMES, list(pixels), list(areas))


def read(text: str) -> list[list[str]]:
    """Cells of a table."""
    return list(csv.reader(io.StringIO(text)))


def test_matrix_rows_are_before() -> None:
    """Row = class before, column = class after; code 0 is in no cell."""
    got = found()
    assert got.pixels.tolist() == [[1, 0, 1], [0, 1, 0], [0, 2, 1]]
    assert got.area_ha is not None
    np.testing.assert_allclose(got.area_ha, [[1, 0, 2], [0, 32, 0], [0, 12, 16]])
    assert got.observed == 6
    assert got.changed_ha == pytest.approx(14)
    np.testing.assert_allclose(got.shares.sum(), 1)
    assert got.shares[2, 1] == pytest.approx(12 / 63)


def test_long_table() -> None:
    """One row per pair, names with commas and quotes come back."""
    header, *rows = read(transitions_csv(found()))
    assert header == ["from", "to", "pixels", "area_ha", "share"]
    assert len(rows) == 9
    assert ["forest", 'rock, "bare"', "2", "12.0000", f"{12 / 63:.9f}"] in rows
    assert sum(int(row[2]) for row in rows) == 6


def test_wide_table_sums_are_the_dates() -> None:
    """Row sums are the areas of the first date, column sums those of the last, where both seen."""
    header, *rows, last = read(transitions_wide_csv(found()))
    assert header == ["from/to (ha)", *NAMES, "sum"]
    both = (FIRST != 255) & (LAST != 255)
    before = [100 * KM2[both & (k == FIRST)].sum() for k in range(3)]
    after = [100 * KM2[both & (k == LAST)].sum() for k in range(3)]
    assert [float(row[-1]) for row in rows] == pytest.approx(before)
    assert [float(cell) for cell in last[1:]] == pytest.approx([*after, 63])
    assert [row[0] for row in [*rows, last]] == [*NAMES, "sum"]


def test_areas_by_class_and_date() -> None:
    """What was not observed has a row of its own."""
    header, *rows = read(areas_csv(NAMES, DATES, sums()[2]))
    assert header == ["class (ha)", *DATES]
    assert rows == [
        ["water", "3.0000", "1.0000"],
        ['rock, "bare"', "32.0000", "108.0000"],
        ["forest", "28.0000", "18.0000"],
        ["not observed", "64.0000", "0.0000"],
    ]


@pytest.mark.parametrize("unknown", [None, [math.nan] * 256])
def test_areas_that_are_not_known(unknown: list[float] | None) -> None:
    """Cells stay empty; shares and the matrix are of pixels then, and it says so."""
    got = transitions(NAMES, list(sums()[0]), unknown)
    assert math.isnan(got.changed_ha)
    rows = read(transitions_csv(got))
    assert [row[3] for row in rows[1:]] == [""] * 9
    assert float(rows[-1][4]) == pytest.approx(1 / 6)
    wide = read(transitions_wide_csv(got))
    assert wide[0][0] == "from/to (pixels)"
    assert wide[-1][1:] == ["1", "3", "2", "6"]
    blank = read(areas_csv(NAMES, DATES, np.full((2, 256), math.nan)))
    assert blank[1] == ["water", "", ""]


def test_nothing_observed() -> None:
    """An empty map has shares of 0, not NaN."""
    got = transitions(NAMES, [9.0, *[0.0] * 255], [0.5, *[0.0] * 255])
    assert got.shares.tolist() == np.zeros((3, 3)).tolist()


def test_codes_of_other_classes_are_refused() -> None:
    """A pixel that no pair explains is never dropped in silence."""
    with pytest.raises(StoreError, match="codes of 3 classes must lie below 10"):
        transitions(NAMES, [0.0] * 10 + [1.0] + [0.0] * 245, None)
    with pytest.raises(StoreError, match="must lie below 10"):
        transitions(NAMES, [0.0] * 255, None)


def test_tables_are_written(tmp_path: Path) -> None:
    """Three files, each as its text."""
    written = write_tables(tmp_path, found(), DATES, sums()[2])
    assert [path.name for path in written] == [
        "transitions.csv", "transitions_wide.csv", "areas.csv",
    ]  # fmt: skip
    assert written[0].read_text() == transitions_csv(found())
    assert written[1].read_text() == transitions_wide_csv(found())
    assert sorted(tmp_path.iterdir()) == sorted(written)
