"""Accuracy and area from a stratified random sample, with their standard errors.

Two estimators. Where the strata are the map's classes: Olofsson et al. 2014, "Good practices for
estimating area and assessing accuracy of land change", Remote Sensing of Environment 148
(equations 1 to 11). Where they are not: Stehman 2014, "Estimating area and map accuracy for
stratified random sampling when the strata are different from the map classes", International
Journal of Remote Sensing 35, whose variances carry the finite-population factor.
"""

from __future__ import annotations

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


def from_matrix(counts: npt.ArrayLike, mapped: npt.ArrayLike) -> Estimates:
    """Estimates where the strata are the map's classes.

    With ``n_i.`` the row sums, ``W_i`` the mapped shares and ``p_ij = W_i n_ij / n_i.``:
    ``O = sum p_jj``, ``U_i = n_ii / n_i.``, ``P_j = p_jj / p_.j``, ``A_j = A p_.j``; the variances
    are equations 5, 6, 7 and 10 of Olofsson et al. 2014.

    Args:
        counts: sample counts, (K, K), row = mapped class, column = reference class.
        mapped: mapped area of each class, (K,), in any unit.

    Raises:
        SceneError: if a mapped class has fewer than two sampled units, or a number cannot be.
    """
    n, area = np.asarray(counts, dtype=np.float64), np.asarray(mapped, dtype=np.float64)
    _check(n, area)
    rows, total = n.sum(axis=1), float(area.sum())
    weight = area / total
    used = rows > 0
    divide = np.where(used, rows, 1.0)
    spread = np.where(used, np.maximum(rows - 1, 1), 1.0)
    within = n / divide[:, None]  # share of reference classes in each stratum
    p = weight[:, None] * within
    column = p.sum(axis=0)
    diagonal = np.diagonal(p)
    users = np.where(used, np.diagonal(within), np.nan)
    users_var = users * (1 - users) / spread
    overall = float(diagonal.sum())
    overall_var = float(np.nansum(weight**2 * users_var))
    share_var = (weight[:, None] ** 2 * within * (1 - within) / spread[:, None]).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        producers = np.where(column > 0, diagonal / column, np.nan)
        off = area[:, None] ** 2 * within * (1 - within) / spread[:, None]
        others = off.sum(axis=0) - np.diagonal(off)
        own = area**2 * (1 - producers) ** 2 * np.nan_to_num(users_var)
        producers_var = (own + producers**2 * others) / (total * column) ** 2
    return Estimates(
        overall, overall_var**0.5, users, np.sqrt(users_var), producers, np.sqrt(producers_var),
        column, np.sqrt(share_var), total * column, total * np.sqrt(share_var),
    )  # fmt: skip


def from_units(
    stratum: npt.ArrayLike, mapped: npt.ArrayLike, reference: npt.ArrayLike, sizes: npt.ArrayLike
) -> Estimates:
    """Estimates where the strata may be anything.

    Each figure is a mean or a ratio of means of indicator variables (Stehman 2014, equations 3,
    14, 25 to 29); variances carry ``1 - n_h / N_h``.

    Args:
        stratum: number of each unit's stratum, 0..H - 1, (n,).
        mapped: number of its mapped class, 0..K - 1, (n,).
        reference: number of its reference class, 0..K - 1, (n,).
        sizes: units of each stratum in the map, N_h, (H,); areas are in units.

    Raises:
        SceneError: if a stratum has fewer than two sampled units.
    """
    h = np.asarray(stratum, dtype=np.int64)
    m, r = np.asarray(mapped, dtype=np.int64), np.asarray(reference, dtype=np.int64)
    size = np.asarray(sizes, dtype=np.float64)
    count = np.bincount(h, minlength=len(size)).astype(np.float64)
    if (short := np.flatnonzero((count < 2) & (size > 0))).size:
        raise SceneError(
            f"each stratum must have two sampled units or more, stratum {short[0]} has "
            f"{count[short[0]]:.0f}"
        )
    design = _Design(h, size, count)
    classes = int(max(m.max(), r.max())) + 1
    whole = np.ones(len(h))
    overall = design.ratio((m == r).astype(float), whole)
    users, producers, shares = [], [], []
    for k in range(classes):
        both = ((m == k) & (r == k)).astype(float)
        users.append(design.ratio(both, (m == k).astype(float)))
        producers.append(design.ratio(both, (r == k).astype(float)))
        shares.append(design.ratio((r == k).astype(float), whole))
    u, p, s = (np.array(parts, dtype=np.float64).T for parts in (users, producers, shares))
    total = float(size.sum())
    return Estimates(
        overall[0], overall[1], u[0], u[1], p[0], p[1], s[0], s[1], total * s[0], total * s[1]
    )


@dataclass(frozen=True)
class _Design:
    """A stratified random sample.

    Args:
        stratum: of each unit, int64 (n,).
        size: units of each stratum, N_h.
        count: sampled units of each stratum, n_h.
    """

    stratum: IntArray
    size: FloatArray
    count: FloatArray

    def ratio(self, y: FloatArray, x: FloatArray) -> tuple[float, float]:
        """Estimate of total(y) / total(x) and its standard error; NaN where total(x) is 0."""
        used = self.count > 0
        divide = np.where(used, self.count, 1)
        means = [np.bincount(self.stratum, v, minlength=len(self.size)) / divide for v in (y, x)]
        top, bottom = (float((self.size * mean).sum()) for mean in means)
        if bottom == 0:
            return np.nan, np.nan
        found = top / bottom
        rest = y - found * x
        mean = np.bincount(self.stratum, rest, minlength=len(self.size)) / divide
        square = np.bincount(
            self.stratum, (rest - mean[self.stratum]) ** 2, minlength=len(self.size)
        )
        variance = square / np.maximum(self.count - 1, 1)
        factor = np.where(self.size > 0, 1 - self.count / np.maximum(self.size, 1), 0)
        total = (self.size**2 * factor * variance / divide).sum()
        return found, float(np.sqrt(max(total, 0.0)) / bottom)


def sample_size(shares: npt.ArrayLike, expected: npt.ArrayLike, standard_error: float) -> int:
    """Units in all that reach a standard error of the overall accuracy.

    ``n = (sum W_i S_i / S(O))^2`` with ``S_i = sqrt(U_i (1 - U_i))`` (Olofsson et al. 2014,
    equation 13, for a population far larger than the sample), rounded up.

    Args:
        shares: mapped share of each stratum, summing to 1.
        expected: user's accuracy that is expected of each, 0..1.
        standard_error: wanted, above 0.
    """
    return int(np.ceil(exact_sample_size(shares, expected, standard_error) - 1e-9))


def exact_sample_size(
    shares: npt.ArrayLike, expected: npt.ArrayLike, standard_error: float
) -> float:
    """The same before it is rounded up."""
    u = np.asarray(expected, dtype=np.float64)
    spread = (np.asarray(shares, dtype=np.float64) * np.sqrt(u * (1 - u))).sum()
    return float((spread / standard_error) ** 2)


def allocate(sizes: Sequence[int], total: int, least: int) -> list[int]:
    """Units of each stratum: ``least`` to each, the rest in proportion to its size.

    Never more than there are; small strata keep a share that tells something of them (Olofsson
    et al. 2014, section 5.1.2).

    Args:
        sizes: units of each stratum in the map.
        total: units wanted in all.
        least: of each stratum.
    """
    given = [min(size, least) for size in sizes]
    rest, pool = max(total - sum(given), 0), float(sum(sizes))
    for index, size in enumerate(sizes):
        given[index] = min(size, max(given[index], round(rest * size / pool) if pool else 0))
    return given


def _check(n: FloatArray, area: FloatArray) -> None:
    if n.ndim != 2 or n.shape[0] != n.shape[1] or area.shape != (n.shape[0],):
        raise SceneError(
            f"counts must be as many rows as columns, each row with its mapped area, got {n.shape} "
            f"and {area.shape}"
        )
    if not (np.isfinite(n).all() and (n >= 0).all() and np.isfinite(area).all()):
        raise SceneError("counts and areas must be numbers of at least 0")
    if (area < 0).any() or area.sum() <= 0:
        raise SceneError("mapped areas must be at least 0 and not all 0")
    few = np.flatnonzero((area > 0) & (n.sum(axis=1) < 2))
    if few.size:
        raise SceneError(
            f"each mapped class must have two sampled units or more, class {few[0] + 1} of "
            f"{len(area)} has {n[few[0]].sum():.0f}"
        )
