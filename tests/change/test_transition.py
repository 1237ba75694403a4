"""Transition matrices: stochastic, of the right power, and readable from a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tilemap.change.transition import from_rate, power, read_transitions, steps
from tilemap.errors import ConfigError, UsageError

NAMES = ("water", "forest", "town")


def test_one_rate() -> None:
    """Rows add up to 1; what leaves is spread evenly."""
    matrix = from_rate(0.03, 4)
    assert np.allclose(matrix.sum(axis=1), 1, atol=1e-15)
    assert matrix[1, 1] == 0.97
    assert matrix[2, 0] == 0.01
    with pytest.raises(UsageError, match=r"0 <= rate < 1"):
        from_rate(1.0, 3)


@pytest.mark.parametrize("years", [1, 2, 5, 35])
def test_whole_powers_are_products(years: int) -> None:
    """The closed form and the general way are the matrix multiplied by itself."""
    random = np.random.default_rng(2)
    for matrix in (from_rate(0.02, 5), random.dirichlet(np.ones(4), size=4)):
        assert np.allclose(
            power(matrix, years), np.linalg.matrix_power(matrix, years), rtol=0, atol=1e-12
        )


def test_fractions_of_years() -> None:
    """Two half years of one rate are a year; any matrix stays stochastic, and forbids."""
    matrix = from_rate(0.2, 3)
    assert np.allclose(power(matrix, 0.5) @ power(matrix, 0.5), matrix, atol=1e-12)
    odd = np.array([[0.1, 0.9, 0.0], [0.8, 0.1, 0.1], [0.0, 0.0, 1.0]])
    for years in (0.04, 0.5, 1.5, 7.3):
        found = power(odd, years)
        assert np.allclose(found.sum(axis=1), 1, atol=1e-12)
        assert found.min() >= 0
    assert power(odd, 0.5)[0, 2] == 0
    assert power(odd, 1.5)[0, 2] > 0  # by way of forest


def test_unequal_gaps() -> None:
    """Each gap has its own power."""
    days = np.array([0, 365, 365 + 1826], dtype=np.int64)
    found = steps(from_rate(0.01, 3), days)
    assert found.shape == (2, 3, 3)
    assert found[0, 0, 0] == pytest.approx(0.99, abs=1e-5)
    assert found[1, 0, 0] == pytest.approx(0.951, abs=1e-3)


def test_a_table_in_any_order(tmp_path: Path) -> None:
    """Rows and columns are found by name."""
    path = tmp_path / "rates.csv"
    path.write_text("from,town,water,forest\nforest,0.02,0.01,0.97\ntown,1,0,0\nwater,0,0.9,0.1\n")
    found = read_transitions(path, NAMES)
    assert found.tolist() == [[0.9, 0.1, 0.0], [0.01, 0.97, 0.02], [0.0, 0.0, 1.0]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must begin with a header"),
        ("from,water,forest\nwater,1,0\nforest,0,1\n", "columns .* must be the classes"),
        ("from,water,forest,town\nwater,1,0,0\nforest,0,1,0\n", "must be the classes"),
        ("from,water,forest,town\nwater,1,0,x\nforest,0,1,0\ntown,0,0,1\n", "must be numbers: .*x"),
        ("from,water,forest,town\nwater,1,0,0\nforest,0,1\ntown,0,0,1\n", "must have 3 numbers"),
        ("from,water,forest,town\nwater,1,0,0\nforest,0,.9,0\ntown,0,0,1\n", "add up to 0.9"),
        ("from,water,forest,town\nwater,2,-1,0\nforest,0,1,0\ntown,0,0,1\n", "at least 0"),
    ],
)
def test_a_bad_table_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """Saying what is wrong, and where."""
    path = tmp_path / "rates.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_transitions(path, NAMES)


def test_no_table(tmp_path: Path) -> None:
    """A file that is not there."""
    with pytest.raises(ConfigError, match="cannot read the transitions"):
        read_transitions(tmp_path / "none.csv", NAMES)
