"""Accuracy and area from a stratified random sample, with their standard errors.

One estimator for both papers. A figure is a ratio ``R = sum_h A_h y_h / sum_h A_h x_h``, with
``A_h`` the area of a stratum and ``y_h``, ``x_h`` sample means of indicators; its variance is
``sum_h A_h^2 (1 - n_h / N_h) s_h^2 / n_h / (sum_h A_h x_h)^2``, with ``s_h^2`` the sample variance
of ``y - R x``: Stehman 2014, "Estimating area and map accuracy for stratified random sampling when
the strata are different from the map classes", International Journal of Remote Sensing 35. Where
the strata are the map's classes, and far larger than their samples, this is equations 1 to 11 of
Olofsson et al. 2014, "Good practices for estimating area and assessing accuracy of land change",
Remote Sensing of Environment 148.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilemap.errors import SceneError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Z95 = 1.96
"""Of a normal distribution, for an interval of 95 %, as both papers take it."""


@dataclass(frozen=True)
class Estimates:
    """Figures of a map; shares 0..1, standard errors likewise.

    Args:
        overall: overall accuracy.
        overall_se: its standard error.
        users: user's accuracy by class, float64 (K,); NaN of a class that is not mapped.
        users_se: likewise.
        producers: producer's accuracy by class; NaN of a class that the reference has not.
        producers_se: likewise.
        share: estimated share of the area by reference class, float64 (K,).
        share_se: likewise.
        area: ``share`` times the whole area, in its unit.
        area_se: likewise.
        matrix: estimated share of the area by mapped and reference class, float64 (K, K).
    """

    overall: float
    overall_se: float
    users: FloatArray
    users_se: FloatArray
    producers: FloatArray
    producers_se: FloatArray
    share: FloatArray
    share_se: FloatArray
    area: FloatArray
    area_se: FloatArray
    matrix: FloatArray


@dataclass(frozen=True)
class Strata:
    """What a sample was drawn from.

    Args:
        area: of each stratum, float64 (H,), at least 0, in any unit.
        units: pixels of each stratum, N_h, (H,); None where the sample is a vanishing part of them.
        names: for errors; default numbers.

    Raises:
        SceneError: if an area or a number of pixels cannot be.
    """

    area: FloatArray
    units: FloatArray | None = None
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (np.isfinite(self.area).all() and (self.area >= 0).all() and self.area.sum() > 0):
            raise SceneError("areas of strata must be numbers of at least 0, and not all of them 0")
        if self.units is not None and self.units.shape != self.area.shape:
            raise SceneError(
                f"strata must have pixels for each of {self.area.size} areas, got {self.units.size}"
            )

    def name(self, number: int) -> str:
        """Of one stratum, for an error."""
        return self.names[number] if self.names else f"{number + 1} of {self.area.size}"

    def unseen(self, count: FloatArray) -> FloatArray:
        """The finite-population factor ``1 - n_h / N_h`` for sampled units of each stratum, (H,).

        Raises:
            SceneError: if a stratum has fewer than two sampled units though it has more, or it has
                fewer pixels than were sampled.
        """
        rest = np.ones_like(self.area)
        if self.units is not None:
            if (more := np.flatnonzero(count > self.units)).size:
                raise SceneError(
                    f"a stratum must have at least as many pixels as sampled units, "
                    f"{self.name(more[0])} has {self.units[more[0]]:.0f} and {count[more[0]]:.0f}"
                )
            rest = 1 - count / np.maximum(self.units, 1)
        short = np.flatnonzero((count < 2) & (rest > 0) & (self.area > 0))
        if short.size:
            raise SceneError(
                "each stratum must have two sampled units or more, stratum "
                f"{self.name(short[0])} has {count[short[0]]:.0f}"
            )
        return rest


def from_matrix(
    counts: npt.ArrayLike, mapped: npt.ArrayLike, names: Sequence[str] = ()
) -> Estimates:
    """Estimates where the strata are the map's classes (Olofsson et al. 2014).

    With ``n_i.`` the row sums, ``W_i`` the mapped shares and ``p_ij = W_i n_ij / n_i.``:
    ``O = sum p_jj``, ``U_i = n_ii / n_i.``, ``P_j = p_jj / p_.j``, ``A_j = A p_.j``.

    Args:
        counts: sample counts, (K, K), row = mapped class, column = reference class.
        mapped: mapped area of each class, (K,), in any unit; 0 of a class that is not mapped.
        names: of the classes, for errors.

    Raises:
        SceneError: if a mapped class has fewer than two sampled units, or a number cannot be.
    """
    n, area = np.asarray(counts, dtype=np.float64), np.asarray(mapped, dtype=np.float64)
    if n.ndim != 2 or n.shape[0] != n.shape[1] or area.shape != (n.shape[0],):
        raise SceneError(
            f"counts must be as many rows as columns, each row with its mapped area, got {n.shape} "
            f"and {area.shape}"
        )
    if not (np.isfinite(n).all() and (n >= 0).all()):
        raise SceneError("sample counts must be numbers of at least 0")
    row, col = np.nonzero(n)
    strata = Strata(area, None, tuple(names))
    return _estimates(strata, _Cells(row, row, col, n[row, col], n[row, col]), n.sum(1), len(n))


def from_units(
    stratum: npt.ArrayLike,
    mapped: npt.ArrayLike,
    reference: npt.ArrayLike,
    strata: Strata,
    sizes: npt.ArrayLike | None = None,
    classes: int | None = None,
) -> Estimates:
    """Estimates where the strata may be anything, and pixels of unequal size (Stehman 2014).

    Args:
        stratum: number of each sampled unit's stratum, 0..H - 1, (n,).
        mapped: number of its mapped class, 0..K - 1, (n,).
        reference: number of its reference class, 0..K - 1, (n,).
        strata: what it was drawn from, pixels with equal chances within a stratum.
        sizes: area of each unit, (n,), above 0, in any unit; default equal ones.
        classes: K; default the largest number that occurs and one.

    Raises:
        SceneError: as ``Strata.unseen``.
    """
    h, m, r = (np.asarray(v, dtype=np.int64).reshape(-1) for v in (stratum, mapped, reference))
    size = np.ones(h.size) if sizes is None else np.asarray(sizes, dtype=np.float64)
    if classes is None:
        classes = 1 + max(int(v.max(initial=-1)) for v in (m, r))
    key, cell = np.unique((h * classes + m) * classes + r, return_inverse=True)
    cells = _Cells(
        key // classes**2, key // classes % classes, key % classes,
        np.bincount(cell, size).astype(np.float64), np.bincount(cell, size**2).astype(np.float64),
    )  # fmt: skip
    count = np.bincount(h, minlength=strata.area.size).astype(np.float64)
    return _estimates(strata, cells, count, classes)


@dataclass(frozen=True)
class _Cells:
    """Sampled units that are alike, added up; all arrays (c,).

    Args:
        stratum: number of their stratum.
        mapped: number of their mapped class.
        reference: number of their reference class.
        first: sum of their sizes.
        second: sum of the squares of their sizes.
    """

    stratum: IntArray
    mapped: IntArray
    reference: IntArray
    first: FloatArray
    second: FloatArray


def _estimates(strata: Strata, cells: _Cells, count: FloatArray, classes: int) -> Estimates:
    ratios = _Ratios(strata, cells, count)
    total = float(strata.area.sum())
    numbers = range(classes)
    right, whole = cells.mapped == cells.reference, np.ones(cells.first.size, dtype=np.bool_)
    is_mapped = [cells.mapped == k for k in numbers]
    is_there = [cells.reference == k for k in numbers]
    overall = ratios.ratio(right, whole)
    users = _columns([ratios.ratio(m & right, m) for m in is_mapped])
    producers = _columns([ratios.ratio(r & right, r) for r in is_there])
    share = _columns([ratios.ratio(r, whole) for r in is_there])
    matrix = np.zeros((classes, classes))
    np.add.at(matrix, (cells.mapped, cells.reference), ratios.area / total)
    return Estimates(
        *overall, *users, *producers, *share, total * share[0], total * share[1], matrix
    )


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[FloatArray, FloatArray]:
    both = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


class _Ratios:
    """Ratios of totals, and their standard errors.

    Args:
        strata: what was sampled.
        cells: what was found.
        count: sampled units of each stratum, n_h, (H,).
    """

    def __init__(self, strata: Strata, cells: _Cells, count: FloatArray) -> None:
        unseen = strata.unseen(count)
        n = count[cells.stratum]
        mean = np.bincount(cells.stratum, cells.first, minlength=count.size)[cells.stratum] / n
        self._stratum = cells.stratum
        self._share = cells.first / (mean * n)
        self._square = cells.second / mean**2 / (n * np.maximum(n - 1, 1))
        self._factor = strata.area**2 * unseen
        self.area = strata.area[cells.stratum] * self._share
        """Estimated area of each cell."""

    def ratio(self, y: npt.NDArray[np.bool_], x: npt.NDArray[np.bool_]) -> tuple[float, float]:
        """total(y) / total(x) and its standard error; NaN where total(x) is 0."""
        bottom = float(self.area[x].sum())
        if bottom == 0:
            return math.nan, math.nan
        found = float(self.area[y].sum()) / bottom
        rest = y - found * x
        mean = np.bincount(self._stratum, self._share * rest, minlength=self._factor.size)
        spread = self._square * (rest - mean[self._stratum]) ** 2
        variance = np.bincount(self._stratum, spread, minlength=self._factor.size)
        return found, math.sqrt(float((self._factor * variance).sum())) / bottom
