"""Three published tables, to the digits printed in them; and what an interval is worth."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilemap.errors import SceneError
from tilemap.evaluation.estimation import Z95, Strata, from_matrix, from_units


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


def test_olofsson_2013() -> None:
    """Areas and accuracies of the earlier paper."""
    found = from_matrix([[97, 0, 3], [3, 279, 18], [2, 1, 97]], [22353, 1122543, 610228])
    assert round(found.overall, 6) == 0.944417
    assert round(found.producers[0], 6) == 0.480631
    assert round(found.area[0], 1) == 45112.4
    assert round(Z95 * found.area_se[0], 1) == 21072.8
    assert round(found.area[1], 2) == 1050067.27
    assert round(found.area[2], 2) == 659944.33


STRATUM = np.repeat(np.arange(4), 10)
MAPPED = "AAAAAAABBB" + "ABBBBBBBBB" + "BBCCCCCCBB" + "DDDDDDDDDD"
REFERENCE = "AAAAACBABC" + "ABBBBBAABB" + "CCCCCDDBBA" + "DDDDDDDCCB"
UNITS = np.array([40000.0, 30000, 20000, 10000])


def _letters(text: str) -> list[int]:
    return ["ABCD".index(letter) for letter in text]


def test_stehman_2014() -> None:
    """Strata that are not the map's classes; variances with the finite-population factor."""
    m, r = _letters(MAPPED), _letters(REFERENCE)
    found = from_units(STRATUM, m, r, Strata(UNITS, UNITS))
    assert (round(found.share[0], 2), round(found.share_se[0], 3)) == (0.35, 0.082)
    assert (round(found.share[2], 2), round(found.share_se[2], 3)) == (0.20, 0.064)
    assert (round(found.overall, 2), round(found.overall_se, 3)) == (0.63, 0.085)
    assert (round(found.users[1], 3), round(found.users_se[1], 3)) == (0.574, 0.125)
    assert (round(found.producers[1], 3), round(found.producers_se[1], 3)) == (0.794, 0.117)
    assert round(found.matrix[1, 2], 2) == 0.08
    assert found.area[0] == pytest.approx(35_000)


def test_olofsson_2014_unit_by_unit() -> None:
    """The equations as they are printed, written out once more; another path to each figure."""
    n = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]], dtype=float)
    area = np.array([200_000, 150_000, 3_200_000, 6_450_000]) * 0.09
    found = from_matrix(n, area)
    rows, weight, within = n.sum(1), area / area.sum(), n / n.sum(1)[:, None]
    p = weight[:, None] * within
    u, there = np.diagonal(within), p.sum(0)
    spread = within * (1 - within) / (rows - 1)[:, None]
    np.testing.assert_allclose(found.matrix, p, rtol=1e-12)
    np.testing.assert_allclose(found.users_se, np.sqrt(np.diagonal(spread)), rtol=1e-12)
    overall = (weight**2 * u * (1 - u) / (rows - 1)).sum()
    assert found.overall_se == pytest.approx(math.sqrt(overall), rel=1e-12)
    np.testing.assert_allclose(
        found.share_se, np.sqrt((weight[:, None] ** 2 * spread).sum(0)), rtol=1e-12
    )
    right = np.diagonal(p) / there
    for j in range(4):
        others = sum(area[i] ** 2 * spread[i, j] for i in range(4) if i != j)
        own = area[j] ** 2 * (1 - right[j]) ** 2 * u[j] * (1 - u[j]) / (rows[j] - 1)
        variance = (own + right[j] ** 2 * others) / (area.sum() * there[j]) ** 2
        assert found.producers_se[j] == pytest.approx(math.sqrt(variance), rel=1e-12)


@given(st.integers(0, 10**6))
def test_a_table_and_its_units_agree(seed: int) -> None:
    """Where the strata are the classes, and pixels without number, both ways give one answer."""
    random = np.random.default_rng(seed)
    classes = int(random.integers(1, 5))
    counts = random.integers(0, 12, (classes, classes)) + 2 * np.eye(classes, dtype=int)
    sizes = random.uniform(1, 50, classes)
    m, r = np.repeat(np.indices(counts.shape).reshape(2, -1), counts.ravel(), axis=1)
    order = random.permutation(m.size)
    one = from_matrix(counts, sizes)
    two = from_units(m[order], m[order], r[order], Strata(sizes), classes=classes)
    for name in vars(one):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), atol=1e-12)
    assert one.share.sum() == pytest.approx(1)


# --- what an interval is worth -----------------------------------------------------------------

SEEDS = 3000
FOUR_SIGMA = 4 * math.sqrt(0.95 * 0.05 / SEEDS)
"""How far a share of 95 % may lie off by chance."""


def _population() -> tuple[npt.NDArray[np.int64], ...]:
    """6,000 pixels in three strata: stratum, mapped class, true class."""
    random = np.random.default_rng(8)
    stratum = np.repeat([0, 1, 2], [900, 1600, 3500])
    truth = np.empty(6000, dtype=np.int64)
    for h, shares in enumerate([(0.75, 0.15, 0.1), (0.1, 0.8, 0.1), (0.04, 0.08, 0.88)]):
        truth[stratum == h] = random.choice(3, np.count_nonzero(stratum == h), p=shares)
    mapped = np.where(random.random(6000) < 0.8, stratum, random.integers(0, 3, 6000))
    return stratum, mapped, truth


def _drawn(random: np.random.Generator, counts: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Pixels of a stratified random sample of the population."""
    stratum = np.repeat([0, 1, 2], [900, 1600, 3500])
    key = stratum + random.random(6000)
    starts, order = (0, 900, 2500), np.argsort(key)
    return np.concatenate([order[s : s + n] for s, n in zip(starts, counts, strict=True)])


@pytest.mark.parametrize("unequal", [False, True], ids=["equal pixels", "unequal pixels"])
def test_an_interval_holds_what_it_promises(unequal: bool) -> None:
    """Of 3,000 samples 95 % have the truth in their intervals, and on average they hit it.

    A third of the pixels is drawn, so intervals without the finite-population factor hold 98 %;
    where pixels are the larger the more there is of class 0, counting them alike misses it.
    """
    stratum, mapped, truth = _population()
    size = np.ones(6000)
    if unequal:
        size = 1 + 0.5 * (truth == 0) + np.random.default_rng(9).random(6000)
    area = np.bincount(stratum, size)
    strata = Strata(area, np.array([900.0, 1600, 3500]))
    true = np.array(
        [
            size[truth == 0].sum(), size[truth == 1].sum(), size[truth == 2].sum(),
            size[mapped == truth].sum() / size.sum(),
            size[(mapped == truth) & (mapped == 1)].sum() / size[mapped == 1].sum(),
            size[(mapped == truth) & (truth == 0)].sum() / size[truth == 0].sum(),
        ]
    )  # fmt: skip
    random = np.random.default_rng(10)
    found, error = np.empty((SEEDS, true.size)), np.empty((SEEDS, true.size))
    for seed in range(SEEDS):
        drawn = _drawn(random, (300, 500, 1200))
        e = from_units(
            stratum[drawn], mapped[drawn], truth[drawn], strata, size[drawn] if unequal else None
        )
        found[seed] = *e.area, e.overall, e.users[1], e.producers[0]
        error[seed] = *e.area_se, e.overall_se, e.users_se[1], e.producers_se[0]
    held = (np.abs(found - true) <= Z95 * error).mean(axis=0)
    assert (np.abs(held - 0.95) < FOUR_SIGMA).all(), held
    spread = found.std(axis=0)
    assert (np.abs(found.mean(axis=0) - true) < 4 * spread / math.sqrt(SEEDS) + 1e-3 * true).all()
    np.testing.assert_allclose(np.sqrt((error**2).mean(axis=0)), spread, rtol=0.06)


def test_a_vanishing_sample_of_a_large_map() -> None:
    """Without the factor: 2,000 tables of 5,000 units a class, 95 % of them hold the true area.

    Of 1,000 units 20 tell of the largest mistake, which is too few for a normal distribution: 93 %.
    """
    random = np.random.default_rng(6)
    within = np.array([[0.85, 0.1, 0.05], [0.1, 0.8, 0.1], [0.02, 0.03, 0.95]])
    area = np.array([100.0, 200.0, 700.0])
    tables = np.stack([random.multinomial(5000, row, size=2000) for row in within], axis=1)
    estimates = [from_matrix(table, area) for table in tables]
    error = np.array([e.area_se for e in estimates])
    held = np.abs(np.array([e.area for e in estimates]) - area @ within) <= Z95 * error
    assert (np.abs(held.mean(axis=0) - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 2000)).all()


# --- odd samples -------------------------------------------------------------------------------


def test_a_class_that_is_not_mapped() -> None:
    """Its area comes from the others' mistakes; it has no user's accuracy."""
    found = from_matrix([[40, 2, 8], [1, 45, 4], [0, 0, 0]], [50.0, 50.0, 0.0])
    assert np.isnan(found.users[2])
    assert np.isnan(found.users_se[2])
    assert found.producers[2] == 0
    assert found.area[2] == pytest.approx(12.0)
    assert found.area.sum() == pytest.approx(100.0)


def test_a_class_that_is_not_there() -> None:
    """Mapped, never seen: no producer's accuracy, an area of 0."""
    found = from_matrix([[40, 0], [9, 0]], [50.0, 20.0])
    assert np.isnan(found.producers[1])
    assert found.users[1] == 0
    assert found.area.tolist() == [70, 0]
    assert found.area_se.tolist() == [0, 0]


def test_a_stratum_that_was_looked_at_whole() -> None:
    """It adds no doubt, even if it is a single pixel."""
    strata = Strata(np.array([1.0, 3, 96]), np.array([1.0, 3, 96]))
    found = from_units(
        [0, 1, 1, 1, 2, 2, 2, 2], [0, 1, 1, 1, 2, 2, 2, 2], [1, 1, 1, 0, 2, 2, 2, 2], strata
    )
    assert found.area.tolist() == [1, 3, 96]
    assert found.area_se.tolist() == [0, 0, 0]
    assert found.users[:2] == pytest.approx([0, 2 / 3])


@pytest.mark.parametrize(
    ("counts", "mapped", "said"),
    [
        ([[1, 0], [3, 9]], [5.0, 5.0], "two sampled units or more, stratum 1 of 2 has 1"),
        ([[5, -1], [3, 9]], [5.0, 5.0], "at least 0"),
        ([[5, math.nan], [3, 9]], [5.0, 5.0], "at least 0"),
        ([[5, 1, 1], [3, 9, 1]], [5.0, 5.0], "as many rows as columns"),
        ([[5, 1], [3, 9]], [5.0], "as many rows as columns"),
        ([[5, 1], [3, 9]], [0.0, 0.0], "not all of them 0"),
        ([[5, 1], [3, 9]], [5.0, -1.0], "at least 0"),
        ([[5, 1], [3, 9]], [5.0, math.inf], "must be numbers"),
    ],
)
def test_what_cannot_be(counts: list[list[int]], mapped: list[float], said: str) -> None:
    """Refused with a reason."""
    with pytest.raises(SceneError, match=said):
        from_matrix(counts, mapped)


def test_strata_that_cannot_be() -> None:
    """One unit of many, more units than there are, pixels of other strata; the names are told."""
    area = np.array([50.0, 50.0])
    with pytest.raises(SceneError, match="two sampled units or more, stratum town has 1"):
        from_units([0, 0, 1], [0, 1, 1], [0, 1, 1], Strata(area, area, ("water", "town")))
    few = Strata(area, np.array([50.0, 1.0]), ("water", "town"))
    with pytest.raises(SceneError, match="town has 1 and 2"):
        from_units([0, 0, 1, 1], [0, 1, 1, 1], [0, 1, 1, 0], few)
    with pytest.raises(SceneError, match="for each of 2 areas, got 3"):
        Strata(area, np.ones(3))
