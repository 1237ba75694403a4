"""What a stored probability says for a class."""

from __future__ import annotations

import numpy as np
import pytest

from tilemap.comparison.emission import emission_table, emissions
from tilemap.errors import ConfigError
from tilemap.probability import VALUES


def test_evidence_of_a_stored_number() -> None:
    """(p / prior)^tau; 0 is never impossible; 255 says nothing."""
    table = emission_table(np.array([0.25, 0.75]), 0.5)
    assert table.shape == (2, 256)
    assert table[0, 254] == pytest.approx(2.0)
    assert table[1, 202] == pytest.approx(np.sqrt(0.5 / 0.75), rel=0.005)
    assert table[0, 0] == pytest.approx(np.sqrt(2.0**-26 / 0.25))
    assert table[:, 255].tolist() == [1, 1]


def test_no_trust_no_evidence() -> None:
    """With tau of 0 every class is as good as any other."""
    assert np.array_equal(emission_table(np.array([0.1, 0.9]), 0.0), np.ones((2, 256)))


@pytest.mark.parametrize("tau", [0.0, 0.6, 1.0, 2.0])
def test_probabilities_add_up_before_they_count(tau: float) -> None:
    """Stored numbers that rounding left at another sum than 1 are brought to it."""
    prior = np.array([0.2, 0.5, 0.3])
    quantised = np.array([[[254, 100, 0, 255], [1, 100, 250, 255], [1, 57, 1, 255]]], np.uint8)
    found = emissions(quantised, emission_table(prior, tau))
    stored = VALUES[quantised[0, :, :3]]
    p = stored / stored.sum(axis=0)
    assert np.allclose(found[0, :, :3], (p / prior[:, None]) ** tau, rtol=1e-12)
    assert (found[0, :, 3] == 1).all()


@pytest.mark.parametrize(
    "prior", [[], [0.5, 0.6], [1.0, 0.0], [1.2, -0.2], [[0.5, 0.5]], [float("nan"), 1.0]]
)
def test_a_prior_is_a_distribution(prior: list[float]) -> None:
    """Without zeros, for evidence is divided by it."""
    with pytest.raises(ConfigError, match="prior must be above 0"):
        emission_table(np.array(prior), 1.0)


@pytest.mark.parametrize("tau", [-0.1, float("nan"), float("inf")])
def test_tau_is_a_power(tau: float) -> None:
    """Nothing negative, nothing endless."""
    with pytest.raises(ConfigError, match="tau must be"):
        emission_table(np.array([0.5, 0.5]), tau)


def test_what_does_not_fit() -> None:
    """Another type, another count of classes, a table that is none."""
    table = emission_table(np.array([0.5, 0.5]), 1.0)
    with pytest.raises(ConfigError, match="must be uint8"):
        emissions(np.zeros((3, 2, 5), dtype=np.int64), table)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"of 3 classes must be \(3, 256\)"):
        emissions(np.zeros((3, 3, 5), dtype=np.uint8), table)
    with pytest.raises(ConfigError, match="1 where not observed"):
        emissions(np.zeros((3, 2, 5), dtype=np.uint8), table * 2)
