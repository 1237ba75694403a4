"""Three published tables, to the digits printed in them; and what an interval is worth."""

from __future__ import annotations

import numpy as np
import pytest

from tilemap.errors import SceneError
from tilemap.evaluation.estimation import (
    Z95,
    allocate,
    exact_sample_size,
    from_matrix,
    from_units,
    sample_size,
)


def test_olofsson_2014() -> None:
    """The worked example of Remote Sensing of Environment 148, all of its figures."""
    counts = [[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]]
    mapped = np.array([200_000, 150_000, 3_200_000, 6_450_000]) * 0.09
    found = from_matrix(counts, mapped)
    assert round(found.overall, 6) == 0.946512
    assert round(Z95 * found.overall_se, 6) == 0.018484
    assert found.users.round(6).tolist() == [0.88, 0.733333, 0.927273, 0.963077]
    assert (Z95 * found.users_se).round(6).tolist() == [0.074041, 0.100757, 0.039745, 0.020534]
    assert found.producers.round(6).tolist() == [0.748661, 0.847156, 0.934509, 0.961609]
    assert (Z95 * found.producers_se).round(6).tolist() == [0.21331, 0.254408, 0.034324, 0.018362]
    assert found.share.round(6).tolist() == [0.023509, 0.012985, 0.317522, 0.645985]
    assert found.share_se.round(6).tolist() == [0.003491, 0.002129, 0.008792, 0.00923]
    assert found.area.round(1).tolist() == [21157.8, 11686.2, 285769.9, 581386.2]
    assert (Z95 * found.area_se).round(1).tolist() == [6157.6, 3755.8, 15509.8, 16281.7]
    assert round(found.area[0] / 0.09, 3) == 235086.247


def test_olofsson_2014_sample_size() -> None:
    """640.54 units, so 641."""
    shares, expected = [0.02, 0.015, 0.32, 0.645], [0.7, 0.6, 0.9, 0.95]
    assert round(exact_sample_size(shares, expected, 0.01), 2) == 640.54
    assert sample_size(shares, expected, 0.01) == 641


def test_olofsson_2013() -> None:
    """Areas and accuracies of the earlier paper."""
    found = from_matrix([[97, 0, 3], [3, 279, 18], [2, 1, 97]], np.array([22353, 1122543, 610228]))
    assert round(found.overall, 6) == 0.944417
    assert round(found.producers[0], 6) == 0.480631
    assert round(found.area[0], 1) == 45112.4
    assert round(Z95 * found.area_se[0], 1) == 21072.8
    assert round(found.area[1], 2) == 1050067.27
    assert round(found.area[2], 2) == 659944.33


def test_stehman_2014() -> None:
    """Strata that are not the map's classes; variances with the finite-population factor."""
    strata = np.repeat(np.arange(4), 10)
    mapped = "AAAAAAABBB" + "ABBBBBBBBB" + "BBCCCCCCBB" + "DDDDDDDDDD"
    reference = "AAAAACBABC" + "ABBBBBAABB" + "CCCCCDDBBA" + "DDDDDDDCCB"
    m, r = (np.array(["ABCD".index(letter) for letter in text]) for text in (mapped, reference))
    found = from_units(strata, m, r, [40000, 30000, 20000, 10000])
    assert (round(found.share[0], 2), round(found.share_se[0], 3)) == (0.35, 0.082)
    assert (round(found.share[2], 2), round(found.share_se[2], 3)) == (0.20, 0.064)
    assert (round(found.overall, 2), round(found.overall_se, 3)) == (0.63, 0.085)
    assert (round(found.users[1], 3), round(found.users_se[1], 3)) == (0.574, 0.125)
    assert (round(found.producers[1], 3), round(found.producers_se[1], 3)) == (0.794, 0.117)
    both = ((m == 1) & (r == 2)).astype(float)
    weights = np.repeat([0.4, 0.3, 0.2, 0.1], 10) / 10
    assert round(float((both * weights).sum()), 2) == 0.08


def test_both_estimators_agree() -> None:
    """On strata that are the classes they differ by the finite-population factor only."""
    random = np.random.default_rng(5)
    counts = random.integers(5, 60, (3, 3))
    sizes = np.array([10**9, 3 * 10**9, 2 * 10**9])
    pairs = [(i, j) for i in range(3) for j in range(3) for _ in range(counts[i, j])]
    m, r = np.array(pairs).T
    one, two = from_matrix(counts, sizes), from_units(m, m, r, sizes)
    for name in ("users", "users_se", "producers", "producers_se", "share", "share_se"):
        assert np.allclose(getattr(one, name), getattr(two, name), rtol=1e-6)
    assert one.overall_se == pytest.approx(two.overall_se, rel=1e-6)


def test_an_interval_holds_what_it_promises() -> None:
    """Of 2,000 large samples 95 % have the true area in their interval."""
    random = np.random.default_rng(6)
    within = np.array([[0.85, 0.1, 0.05], [0.1, 0.8, 0.1], [0.02, 0.03, 0.95]])
    area = np.array([100.0, 200.0, 700.0])
    truth = (area[:, None] * within).sum(axis=0)
    hits = np.zeros(3)
    for _ in range(2000):
        counts = np.stack([random.multinomial(1000, row) for row in within])
        found = from_matrix(counts, area)
        hits += np.abs(found.area - truth) <= Z95 * found.area_se
    assert (np.abs(hits / 2000 - 0.95) < 0.02).all()  # four standard errors of a binomial


def test_a_class_that_is_not_mapped() -> None:
    """Its area comes from the others' mistakes; it has no user's accuracy."""
    found = from_matrix([[40, 2, 8], [1, 45, 4], [0, 0, 0]], [50.0, 50.0, 0.0])
    assert np.isnan(found.users[2])
    assert found.producers[2] == 0
    assert found.area[2] == pytest.approx(12.0)
    assert found.area.sum() == pytest.approx(100.0)


@pytest.mark.parametrize(
    ("counts", "mapped", "said"),
    [
        ([[1, 0], [3, 9]], [5.0, 5.0], "two sampled units or more, class 1 of 2 has 1"),
        ([[5, -1], [3, 9]], [5.0, 5.0], "at least 0"),
        ([[5, 1, 1], [3, 9, 1]], [5.0, 5.0], "as many rows as columns"),
        ([[5, 1], [3, 9]], [0.0, 0.0], "not all 0"),
    ],
)
def test_what_cannot_be(counts: list[list[int]], mapped: list[float], said: str) -> None:
    """Refused with a reason."""
    with pytest.raises(SceneError, match=said):
        from_matrix(counts, mapped)
    with pytest.raises(SceneError, match="two sampled units"):
        from_units([0, 0, 1], [0, 1, 1], [0, 1, 1], [50, 50])


def test_small_strata_keep_enough() -> None:
    """At least so many of each, the rest by size, never more than there are."""
    given = allocate([1_000_000, 20_000, 30], 641, 50)
    assert given[1:] == [50, 30]
    assert 480 <= given[0] <= 511
    assert allocate([10, 10], 100, 5) == [10, 10]
