"""How likely a class is to become another: per year, and between two dates."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, fractional_matrix_power

from tilemap.errors import ConfigError, UsageError
from tilemap.files import read_file

FloatArray = npt.NDArray[np.float64]

DAYS_PER_YEAR = 365.2425
_SUM_TOLERANCE = 1e-6
_LEAST_SUM = 0.5
"""A row of a root that keeps less once its impossible entries are gone is not to be trusted."""


def from_rate(rate: float, classes: int) -> FloatArray:
    """Transitions of a landscape where every class changes alike.

    Args:
        rate: share of the pixels that change class in a year, 0 <= rate < 1.
        classes: how many there are, K.

    Returns:
        Per year, float64 (from, to): ``1 - rate`` on the diagonal, ``rate / (K - 1)`` off it.

    Raises:
        UsageError: if the rate is no such share, or there is no class.
    """
    if not 0 <= rate < 1:
        raise UsageError(f"a rate of change must lie in 0 <= rate < 1 a year, got {rate:g}")
    if classes < 1:
        raise UsageError(f"change needs at least one class, got {classes}")
    if classes == 1:
        return np.ones((1, 1))
    annual = np.full((classes, classes), rate / (classes - 1))
    np.fill_diagonal(annual, 1 - rate)
    return annual


def read_transitions(path: str | Path, names: Sequence[str]) -> FloatArray:
    """Read transitions per year from a table.

    The header is ``from,<class>,<class>...``; then a row for each class, its name first and the
    probability that it becomes each class of the header. Rows and columns may stand in any order.

    Args:
        path: CSV, UTF-8.
        names: of the classes, in the order wanted.

    Returns:
        Per year, float64 (from, to), rows sum to 1. A zero forbids the transition.

    Raises:
        ConfigError: if the file cannot be read, a class is missing, unknown or there twice, a
            number is none or lies outside 0..1, or a row does not sum to 1 within 1e-6.
    """
    try:
        lines = read_file(path).decode("utf-8-sig").splitlines()
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines) if "".join(row).strip()]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"cannot read the transitions {path}: {error}") from error
    if not rows or rows[0][0].lower() != "from":
        raise ConfigError(f"{path} must begin with a header from,{','.join(names)}")
    columns = _places(rows[0][1:], names, f"the columns of {path}")
    places = _places([row[0] for row in rows[1:]], names, f"the rows of {path}")
    return np.stack([_shares(path, rows[1 + place], len(names))[columns] for place in places])


def _places(found: Sequence[str], names: Sequence[str], what: str) -> list[int]:
    """Where each class stands."""
    if sorted(found) != sorted(names):
        raise ConfigError(
            f"{what} must be the classes {', '.join(names)}, each once, got {', '.join(found)}"
        )
    return [found.index(name) for name in names]


def _shares(path: str | Path, row: Sequence[str], classes: int) -> FloatArray:
    """Numbers of one row, made to add up to 1."""
    name, *cells = row
    if len(cells) != classes:
        raise ConfigError(f"{path}: the row {name} must have {classes} numbers, got {len(cells)}")
    try:
        values = np.array([float(cell) for cell in cells])
    except ValueError as error:
        raise ConfigError(f"{path}: the row {name} must be numbers: {error}") from error
    total = values.sum()
    if not (np.all(values >= 0) and abs(total - 1) <= _SUM_TOLERANCE):
        raise ConfigError(
            f"{path}: the row {name} must have shares of at least 0 that add up to 1, they add "
            f"up to {total:.7g}"
        )
    shares: FloatArray = values / total
    return shares


def power(annual: FloatArray, years: float) -> FloatArray:
    """Transitions over a time of any length.

    Where all classes change alike, ``annual = (1 - u) I + u J / K`` with J all ones, and the power
    is ``(1 - u)^d I + (1 - (1 - u)^d) J / K``. Else the whole years are multiplied out exactly, and
    the rest of a year is the principal fractional power (Higham and Lin, 2011, Linear Algebra and
    its Applications 435(3), 448-463). Few stochastic matrices have one that is stochastic too: its
    real part is taken, entries that are negative or forbidden in a year become 0, and the rows
    are scaled to sum to 1. A matrix without any (a singular one can be) is interpolated
    between no change and a year.

    Args:
        annual: per year, float64 (from, to), rows sum to 1.
        years: above 0.

    Returns:
        float64 (from, to), a stochastic matrix.

    Raises:
        ConfigError: if the matrix is not stochastic, or the time is not above 0.
    """
    annual = check_stochastic(annual, "transitions per year")
    if not (years > 0 and math.isfinite(years)):
        raise ConfigError(f"the time between two dates must be above 0 years, got {years}")
    whole, part = math.floor(years), years - math.floor(years)
    classes, stay = len(annual), _alike(annual)
    if stay is not None and (stay >= 0 or part == 0):
        kept = stay**years
        result = np.full((classes, classes), (1 - kept) / classes)
        np.fill_diagonal(result, (1 + (classes - 1) * kept) / classes)
        return result
    result = np.linalg.matrix_power(annual, whole)
    if part > 0:
        result = result @ _part(annual, part)
    scaled: FloatArray = result / result.sum(axis=1, keepdims=True)
    return scaled


def _alike(annual: FloatArray) -> float | None:
    """The eigenvalue ``1 - u`` where all classes change alike, None where they do not."""
    classes = len(annual)
    if classes == 1:
        return 1.0
    expected = np.full_like(annual, annual[0, 1])
    np.fill_diagonal(expected, annual[0, 0])
    alike = np.allclose(annual, expected, rtol=1e-12, atol=1e-15)
    return 1 - classes * float(annual[0, 1]) if alike else None


def _part(annual: FloatArray, part: float) -> FloatArray:
    """Transitions over a part of a year, 0 < part < 1."""
    try:
        with np.errstate(all="ignore"):
            root = np.asarray(fractional_matrix_power(annual, part)).real
    except (LinAlgError, ValueError):
        root = np.full_like(annual, np.nan)
    allowed = (annual > 0) | np.eye(len(annual), dtype=bool)
    root = np.where(allowed, np.maximum(root, 0), 0)
    if not np.all(root.sum(axis=1) > _LEAST_SUM):  # so also where it is no number
        root = (1 - part) * np.eye(len(annual)) + part * annual
    result: FloatArray = root / root.sum(axis=1, keepdims=True)
    return result


def steps(annual: FloatArray, days: npt.ArrayLike) -> FloatArray:
    """Transitions between each date and the next.

    Args:
        annual: per year, float64 (from, to).
        days: of the dates, whole days from any origin, (T,), rising.

    Returns:
        float64 (T - 1, from, to); a year has 365.2425 days.

    Raises:
        ConfigError: if there is no date, or they are not in order.
    """
    numbers = np.asarray(days, dtype=np.int64)
    if numbers.ndim != 1 or not len(numbers) or np.any(np.diff(numbers) <= 0):
        raise ConfigError("the dates of a series must be in order, each once, and one at least")
    annual = check_stochastic(annual, "transitions per year")
    powers = {int(gap): power(annual, gap / DAYS_PER_YEAR) for gap in np.unique(np.diff(numbers))}
    result = np.empty((len(numbers) - 1, *annual.shape))
    for index, gap in enumerate(np.diff(numbers)):
        result[index] = powers[int(gap)]
    return result


def check_stochastic(matrix: npt.ArrayLike, what: str) -> FloatArray:
    """Take a matrix, or several, if the rows are probabilities that sum to 1 within 1e-6.

    Args:
        matrix: (..., from, to).
        what: named by the error.

    Raises:
        ConfigError: if they are not.
    """
    values = np.asarray(matrix, dtype=np.float64)
    if values.ndim < 2 or values.shape[-1] != values.shape[-2] or not values.shape[-1]:
        raise ConfigError(f"{what} must be square, one row a class, got shape {values.shape}")
    sound = np.isfinite(values).all() and np.all(values >= 0)
    if not (sound and np.all(np.abs(values.sum(axis=-1) - 1) <= _SUM_TOLERANCE)):
        raise ConfigError(f"{what} must be 0 or more and sum to 1 in each row")
    return values
