"""How many units, and of which stratum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilemap.errors import UsageError
from tilemap.evaluation.estimation import from_matrix
from tilemap.evaluation.sample_size import allocate, exact_sample_size, sample_size

SHARES, EXPECTED = [0.02, 0.015, 0.32, 0.645], [0.7, 0.6, 0.9, 0.95]


def test_olofsson_2014() -> None:
    """640.54 units, so 641."""
    assert round(exact_sample_size(SHARES, EXPECTED, 0.01), 2) == 640.54
    assert sample_size(SHARES, EXPECTED, 0.01) == 641


def test_a_sample_of_that_size_reaches_the_error() -> None:
    """Shared out as the formula assumes, by W_i S_i, the estimator finds the error asked for."""
    spread = np.array(SHARES) * np.sqrt(np.array(EXPECTED) * (1 - np.array(EXPECTED)))
    units = 1e5 * exact_sample_size(SHARES, EXPECTED, 0.01) * spread / spread.sum()
    right = units * EXPECTED
    counts = np.diag(right) + np.roll(np.diag(units - right), 1, axis=1)
    error = from_matrix(counts, SHARES).overall_se * np.sqrt(1e5)
    assert error == pytest.approx(0.01, rel=1e-5)


def test_it_is_rounded_up_but_not_for_rounding() -> None:
    """(0.5 / 0.05)^2 is 100, whatever the last bit says."""
    assert sample_size([1.0], [0.5], 0.05) == 100
    assert sample_size([1.0], [0.5], 0.0499) == 101


@pytest.mark.parametrize(
    ("error", "expected", "said"),
    [(0, 0.8, "standard error"), (0.5, 0.8, "standard error"), (0.1, 1.2, "between 0 and 1"),
     (0.1, -0.1, "between 0 and 1"), (float("nan"), 0.8, "standard error")],
)  # fmt: skip
def test_what_cannot_be(error: float, expected: float, said: str) -> None:
    """Refused with a reason."""
    with pytest.raises(UsageError, match=said):
        sample_size([1.0], [expected], error)


def test_small_strata_keep_enough() -> None:
    """At least so many of each, the others share the rest, and the sum is what was asked for."""
    assert allocate([200, 150, 3200, 6450], 641, 75) == [75, 75, 163, 328]
    assert allocate([1_000_000, 20_000, 30], 641, 50) == [561, 50, 30]
    assert allocate([10, 10], 100, 5) == [10, 10]
    assert allocate([1000, 1000, 5], 10, 50) == [50, 50, 5]


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=8)
    | st.lists(st.integers(1, 10**10), min_size=1, max_size=8),
    total=st.integers(0, 3000),
    least=st.integers(0, 90),
)
def test_shares_of_a_sample(sizes: list[int], total: int, least: int) -> None:
    """Never below the least nor above what there is; the sum; the larger stratum has no fewer."""
    given_ = allocate(sizes, total, least)
    lowest = [min(size, least) for size in sizes]
    assert all(low <= units <= size for low, units, size in zip(lowest, given_, sizes, strict=True))
    assert sum(given_) == max(min(total, sum(sizes)), sum(lowest))
    for one, units in zip(sizes, given_, strict=True):
        assert all(units >= u - 1 for s, u in zip(sizes, given_, strict=True) if s <= one)
