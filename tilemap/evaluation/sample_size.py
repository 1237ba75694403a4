"""How many units a sample needs, and how they are shared out among the strata."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tilemap.errors import UsageError

FORMULA = "n = (sum W_i sqrt(U_i (1 - U_i)) / S(O))^2 (Olofsson et al. 2014, equation 13)"


def exact_sample_size(
    shares: npt.ArrayLike, expected: npt.ArrayLike, standard_error: float
) -> float:
    """Units in all that reach a standard error of the overall accuracy, not rounded.

    ``n = (sum W_i S_i / S(O))^2`` with ``S_i = sqrt(U_i (1 - U_i))``: equation 13 of Olofsson et
    al. 2014 (Cochran 1977, equation 5.25) for a population far larger than the sample.

    Args:
        shares: mapped share of each stratum, W_i, (H,), summing to 1.
        expected: user's accuracy that is expected of each, U_i, (H,), 0..1.
        standard_error: of the overall accuracy, S(O), above 0 and below 0.5.

    Raises:
        UsageError: if a number cannot be.
    """
    weight, u = np.asarray(shares, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    if not 0 < standard_error < 0.5:
        raise UsageError(f"the standard error must lie between 0 and 0.5, got {standard_error:g}")
    if not ((u >= 0) & (u <= 1)).all():
        raise UsageError(f"expected accuracies must lie between 0 and 1, got {u.tolist()}")
    spread = float((weight * np.sqrt(u * (1 - u))).sum())
    return (spread / standard_error) ** 2


def sample_size(shares: npt.ArrayLike, expected: npt.ArrayLike, standard_error: float) -> int:
    """``exact_sample_size``, rounded up."""
    return math.ceil(exact_sample_size(shares, expected, standard_error) - 1e-9)


def allocate(sizes: Sequence[int], total: int, least: int) -> list[int]:
    """Share units out in proportion to the strata, but at least so many to each.

    A stratum whose proportional share is below ``least`` gets that many, and the others share the
    rest (Olofsson et al. 2014, section 5.1.2: 50 to 100 for a rare class). No stratum gets more
    than it has. The sum is ``total``, or more where the least of each are more already, or fewer
    where there are not as many.

    Args:
        sizes: units of each stratum in the map, each above 0.
        total: units wanted in all.
        least: of each stratum.

    Returns:
        Units of each stratum, in the order of ``sizes``.

    >>> allocate([200, 150, 3200, 6450], 641, 75)
    [75, 75, 163, 328]
    """
    given = [0] * len(sizes)
    open_ = list(range(len(sizes)))
    while open_:
        rest = total - sum(given)
        pool = sum(sizes[i] for i in open_)
        small = [i for i in open_ if rest * sizes[i] < min(least, sizes[i]) * pool]
        if not small:
            break
        for i in small:
            given[i] = min(least, sizes[i])
        open_ = [i for i in open_ if i not in small]
    shared = _rounded([sizes[i] for i in open_], total - sum(given))
    for i, units in zip(open_, shared, strict=True):
        given[i] = units
    return given


def _rounded(sizes: Sequence[int], total: int) -> list[int]:
    """Proportional whole numbers that sum to the total, by largest remainders."""
    pool = sum(sizes)
    if total >= pool:
        return list(sizes)
    parts = [divmod(total * size, pool) for size in sizes]
    units = [whole for whole, _ in parts]
    order = sorted(range(len(sizes)), key=lambda i: (-parts[i][1], i))
    for i in order[: total - sum(units)]:
        units[i] += 1
    return units
