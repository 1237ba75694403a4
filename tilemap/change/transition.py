"""How classes follow each other: matrices per year, and over gaps of any length."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tilemap.errors import ConfigError, UsageError

FloatArray = npt.NDArray[np.float64]
YEAR_DAYS = 365.2425
SUM_TOLERANCE = 1e-6


def from_rate(rate: float, classes: int) -> FloatArray:
    """One rate for all classes: ``1 - s`` on the diagonal, ``s / (K - 1)`` off it, per year.

    Args:
        rate: share of pixels that change class in a year, 0 <= s < 1.
        classes: how many there are, at least 2.

    Returns:
        Row = before, column = after, float64 (K, K).

    Raises:
        UsageError: if the rate is out of range.
    """
    if not 0 <= rate < 1:
        raise UsageError(f"a rate of change must lie in 0 <= rate < 1 a year, got {rate:g}")
    annual = np.full((classes, classes), rate / (classes - 1))
    np.fill_diagonal(annual, 1 - rate)
    return annual


def read_transitions(path: str | Path, names: Sequence[str]) -> FloatArray:
    """A matrix per year from a CSV: header ``from,<classes>``, a row per class, in any order.

    Args:
        path: of the file.
        names: classes, in the order of the matrix that is returned.

    Raises:
        ConfigError: if classes are missing or unknown, a number is none, or a row does not add up
            to 1.
    """
    try:
        with Path(path).open(newline="") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if any(row)]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the transitions {path}: {error}") from error
    if not rows or len(rows[0]) < 2:
        raise ConfigError(f"{path} must begin with a header from,{','.join(names)}")
    columns, table = rows[0][1:], {row[0]: row[1:] for row in rows[1:]}
    for what, found in (("columns", columns), ("rows", list(table))):
        if sorted(found) != sorted(names) or len(rows) - 1 != len(names):
            raise ConfigError(
                f"the {what} of {path} must be the classes {', '.join(names)}, each once, got "
                f"{', '.join(found)}"
            )
    matrix = np.empty((len(names), len(names)))
    for row, name in enumerate(names):
        for column, other in zip(table[name], columns, strict=False):
            try:
                matrix[row, list(names).index(other)] = float(column)
            except ValueError as error:
                raise ConfigError(
                    f"{path}: {name} to {other} must be a number, got {column!r}"
                ) from error
        if len(table[name]) != len(columns):
            raise ConfigError(f"{path}: the row {name} must have {len(columns)} numbers")
        total = matrix[row].sum()
        if (matrix[row] < 0).any() or not abs(total - 1) <= SUM_TOLERANCE:
            raise ConfigError(
                f"{path}: the row {name} must have shares of at least 0 that add up to 1, they "
                f"add up to {total:g}"
            )
    return matrix / matrix.sum(axis=1, keepdims=True)


def power(annual: FloatArray, years: float) -> FloatArray:
    """The matrix of a gap: ``A^d`` for a gap of d years, rows add up to 1.

    A matrix of one rate has a closed form: with ``g = 1 - s K / (K - 1)``, the off-diagonal is
    ``(1 - g^d) / K``. Any other is taken to whole powers by multiplication, and the fraction
    that is left is interpolated between the powers on either side of it, which keeps every entry
    a probability and every forbidden step forbidden below one year; a root need not.

    Args:
        annual: per year, float64 (K, K).
        years: d > 0.
    """
    classes = len(annual)
    off = annual[~np.eye(classes, dtype=bool)]
    if off.size and np.ptp(off) <= 1e-15 and annual[0, 0] > off[0]:
        shrink = (annual[0, 0] - off[0]) ** years
        matrix = np.full((classes, classes), (1 - shrink) / classes)
        np.fill_diagonal(matrix, shrink + (1 - shrink) / classes)
        return matrix
    whole = int(np.floor(years))
    low = np.linalg.matrix_power(annual, whole)
    rest = years - whole
    matrix = low if rest == 0 else (1 - rest) * low + rest * (low @ annual)
    matrix = np.maximum(matrix, 0.0)
    return np.asarray(matrix / matrix.sum(axis=1, keepdims=True))


def steps(annual: FloatArray, days: npt.NDArray[np.int64]) -> FloatArray:
    """The matrix of each gap between dates, float64 (date - 1, K, K).

    Args:
        annual: per year.
        days: of the dates, ascending.
    """
    gaps = np.diff(days) / YEAR_DAYS
    return np.stack([power(annual, float(gap)) for gap in gaps])
