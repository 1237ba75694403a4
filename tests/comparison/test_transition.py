"""Transition matrices: stochastic, of the right power, and readable from a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilemap.comparison.transition import (
    check_stochastic,
    from_rate,
    power,
    read_transitions,
    steps,
)
from tilemap.errors import ConfigError, UsageError

NAMES = ("water", "forest", "town")
MILD = np.array([[0.9, 0.07, 0.03], [0.02, 0.95, 0.03], [0.01, 0.04, 0.95]])
ODD = np.array([[0.1, 0.9, 0.0], [0.8, 0.1, 0.1], [0.0, 0.0, 1.0]])


def test_one_rate() -> None:
    """Rows add up to 1; what leaves is spread evenly; a single class stays."""
    matrix = from_rate(0.03, 4)
    assert np.allclose(matrix.sum(axis=1), 1, atol=1e-15)
    assert matrix[1, 1] == 0.97
    assert matrix[2, 0] == 0.01
    assert np.array_equal(from_rate(0.0, 3), np.eye(3))
    assert from_rate(0.4, 1).tolist() == [[1.0]]


@pytest.mark.parametrize("rate", [-0.01, 1.0, float("nan")])
def test_a_rate_is_a_share_below_one(rate: float) -> None:
    """Nothing else is taken."""
    with pytest.raises(UsageError, match=r"0 <= rate < 1"):
        from_rate(rate, 3)
    with pytest.raises(UsageError, match="at least one class"):
        from_rate(0.1, 0)


@pytest.mark.parametrize("years", [1, 2, 5, 35])
def test_whole_powers_are_products(years: int) -> None:
    """The closed form and the general way are the matrix multiplied by itself."""
    random = np.random.default_rng(2)
    for matrix in (from_rate(0.02, 5), from_rate(0.9, 2), random.dirichlet(np.ones(4), size=4)):
        product = np.eye(len(matrix))
        for _ in range(years):
            product = product @ matrix
        assert np.allclose(power(matrix, years), product, rtol=0, atol=1e-12)


@pytest.mark.parametrize("matrix", [from_rate(0.2, 3), MILD], ids=["one rate", "any"])
@pytest.mark.parametrize("parts", [2, 3, 12])
def test_parts_of_a_year_make_a_year(matrix: np.ndarray, parts: int) -> None:
    """Twelve months multiplied are the matrix of the year."""
    month = power(matrix, 1 / parts)
    assert np.allclose(np.linalg.matrix_power(month, parts), matrix, rtol=0, atol=1e-9)
    assert np.allclose(power(matrix, 2.5) @ power(matrix, 0.25), power(matrix, 2.75), atol=1e-9)


@given(st.integers(1, 5), st.integers(0, 10_000), st.floats(0.001, 40), st.floats(0.05, 3))
def test_any_power_is_stochastic(classes: int, seed: int, years: float, even: float) -> None:
    """Whether or not the matrix has a stochastic root."""
    random = np.random.default_rng(seed)
    found = power(random.dirichlet(np.full(classes, even), size=classes), years)
    assert np.allclose(found.sum(axis=1), 1, rtol=0, atol=1e-12)
    assert found.min() >= 0


def test_matrices_without_a_root() -> None:
    """Swapped, singular and forbidding ones: what was forbidden within a year stays so."""
    swap = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert np.allclose(power(swap, 0.5), 0.5)
    assert np.array_equal(power(swap, 3), swap)
    singular = np.array([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    assert np.allclose(power(singular, 1.25)[:2, :2], 0.5)
    assert power(singular, 1.25)[0, 2] == 0
    for years in (0.04, 0.5, 0.9993):
        assert power(ODD, years)[0, 2] == 0
        assert power(ODD, years)[2].tolist() == [0, 0, 1]
    assert power(ODD, 1.5)[0, 2] > 0  # by way of forest


def test_a_rate_too_high_for_a_root() -> None:
    """Above (K - 1) / K a class rather leaves than be drawn anew; still whole years are exact."""
    matrix = from_rate(0.9, 3)
    assert np.allclose(power(matrix, 2), matrix @ matrix, atol=1e-15)
    assert np.allclose(power(matrix, 1.5).sum(axis=1), 1, atol=1e-12)


def test_almost_a_year_is_almost_the_matrix() -> None:
    """365 days against 365.2425 move nothing by more than the share that is missing."""
    for matrix in (MILD, ODD, from_rate(0.05, 4)):
        whole = power(matrix, 1)
        for days in (365, 366):
            assert np.abs(power(matrix, days / 365.2425) - whole).max() < 0.01


@pytest.mark.parametrize("years", [0.0, -1.0, float("inf"), float("nan")])
def test_time_must_pass(years: float) -> None:
    """Equal dates have no matrix."""
    with pytest.raises(ConfigError, match="above 0 years"):
        power(MILD, years)


@pytest.mark.parametrize(
    "matrix",
    [np.ones((2, 3)) / 3, np.array([[0.9, 0.2], [0, 1]]), np.array([[1.1, -0.1], [0, 1]])],
)
def test_rows_are_probabilities(matrix: np.ndarray) -> None:
    """Shapes, sums and signs are looked at."""
    with pytest.raises(ConfigError, match="transitions per year must"):
        power(matrix, 1)
    with pytest.raises(ConfigError, match="here must"):
        check_stochastic(matrix, "here")


def test_unequal_gaps() -> None:
    """Each gap has its own power; a single date has none."""
    days = np.array([-200, 165, 165 + 1826], dtype=np.int64)
    found = steps(from_rate(0.01, 3), days)
    assert found.shape == (2, 3, 3)
    assert np.array_equal(found[0], power(from_rate(0.01, 3), 365 / 365.2425))
    assert np.array_equal(found[1], power(from_rate(0.01, 3), 1826 / 365.2425))
    assert found[1, 0, 0] == pytest.approx(0.951, abs=1e-3)
    assert steps(MILD, [12]).shape == (0, 3, 3)


@pytest.mark.parametrize("days", [[], [3, 3], [9, 4, 20]])
def test_dates_in_order(days: list[int]) -> None:
    """None, equal ones and ones out of order are refused."""
    with pytest.raises(ConfigError, match="in order"):
        steps(MILD, days)


def test_a_table_in_any_order(tmp_path: Path) -> None:
    """Rows and columns are found by name; a byte order mark, spaces and blank lines are borne."""
    path = tmp_path / "rates.csv"
    path.write_text(
        "\ufefffrom, town ,water,forest\n\nforest,0.02,0.01,0.97\ntown,1,0,0\n"
        "water,0,0.9,0.1000001\n,,,\n",
        encoding="utf-8",
    )
    found = read_transitions(path, NAMES)
    assert np.allclose(found, [[0.9, 0.1, 0.0], [0.01, 0.97, 0.02], [0.0, 0.0, 1.0]], atol=1e-6)
    assert np.allclose(found.sum(axis=1), 1, rtol=0, atol=1e-15)
    assert found[0, 2] == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must begin with a header from,water,forest,town"),
        ("to,water,forest,town\nwater,1,0,0\n", "must begin with a header"),
        ("from,water,forest\nwater,1,0\nforest,0,1\n", "columns .* must be the classes"),
        ("from,water,forest,town\nwater,1,0,0\nforest,0,1,0\n", "rows .* must be the classes"),
        ("from,water,water,town\nwater,1,0,0\nforest,0,1,0\n", "each once, got water, water"),
        ("from,water,forest,town\nwater,1,0,x\nforest,0,1,0\ntown,0,0,1\n", "must be numbers: .*x"),
        ("from,water,forest,town\nwater,1,0,0\nforest,0,1\ntown,0,0,1\n", "must have 3 numbers"),
        ("from,water,forest,town\nwater,1,0,0\nforest,0,.9,0\ntown,0,0,1\n", "add up to 0.9"),
        ("from,water,forest,town\nwater,2,-1,0\nforest,0,1,0\ntown,0,0,1\n", "at least 0"),
        ("from,water,forest,town\nwater,nan,1,0\nforest,0,1,0\ntown,0,0,1\n", "at least 0"),
    ],
)
def test_a_bad_table_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """Saying what is wrong, and where."""
    path = tmp_path / "rates.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_transitions(path, NAMES)


def test_no_table(tmp_path: Path) -> None:
    """A file that is not there, or is none of text."""
    with pytest.raises(ConfigError, match="cannot read the transitions"):
        read_transitions(tmp_path / "none.csv", NAMES)
    (tmp_path / "odd.csv").write_bytes(b"from,\xff\xfe")
    with pytest.raises(ConfigError, match="cannot read the transitions"):
        read_transitions(tmp_path / "odd.csv", NAMES)
