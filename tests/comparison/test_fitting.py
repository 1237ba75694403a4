"""Transitions found again in pixels that were made with them."""

from __future__ import annotations

import numpy as np
import pytest

from tilemap.comparison.fitting import fit_rate, fit_transitions, log_evidence
from tilemap.comparison.transition import from_rate, steps
from tilemap.errors import ConfigError

DAYS = np.array([0, 400, 700, 1500, 1900, 2600])
OWN = np.array([[0.96, 0.03, 0.01], [0.005, 0.985, 0.01], [0.0, 0.0, 1.0]])


def _sample(annual: np.ndarray, days: np.ndarray, pixels: int, seed: int) -> np.ndarray:
    """Evidence of pixels that follow a matrix, a tenth of the dates not observed."""
    random = np.random.default_rng(seed)
    classes = len(annual)
    state = random.integers(0, classes, pixels)
    logits = random.normal(size=(len(days), classes, pixels))
    for date in range(len(days)):
        if date:
            matrix = steps(annual, days)[date - 1]
            drawn = random.random(pixels)[:, None] > matrix[state].cumsum(axis=1)
            state = np.minimum(drawn.sum(axis=1), classes - 1)
        logits[date, state, np.arange(pixels)] += 3.0
    evidence = np.exp(3.0 * logits)
    evidence /= evidence.sum(axis=1, keepdims=True)
    evidence.transpose(0, 2, 1)[random.random((len(days), pixels)) < 0.1] = 1.0
    return evidence


@pytest.mark.parametrize("rate", [0.004, 0.03])
def test_a_rate_is_found_again(rate: float) -> None:
    """Within its own uncertainty, about one over the root of the pixels that changed."""
    evidence = _sample(from_rate(rate, 4), DAYS, 20_000, seed=7)
    found = fit_rate(evidence, DAYS, np.full(4, 0.25))
    changed = 20_000 * rate * DAYS[-1] / 365
    assert found == pytest.approx(rate, rel=4 / np.sqrt(changed))


def test_a_whole_matrix_is_found_again() -> None:
    """Unequal gaps and all; what never happens at once is never said to."""
    evidence = _sample(OWN, DAYS, 20_000, seed=11)
    start = np.array([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.0, 0.0, 1.0]])
    initial = np.full(3, 1 / 3)
    found = fit_transitions(evidence, start, DAYS, initial)
    assert np.allclose(found.sum(axis=1), 1, rtol=0, atol=1e-12)
    assert np.abs(found - OWN).max() < 0.003
    assert found[2].tolist() == [0, 0, 1]
    assert log_evidence(evidence, initial, steps(found, DAYS)) > log_evidence(
        evidence, initial, steps(OWN, DAYS)
    )


def test_each_round_explains_more() -> None:
    """Likelihood never falls, which expectation and maximisation promise."""
    evidence = _sample(OWN, DAYS, 2000, seed=12)
    initial = np.full(3, 1 / 3)
    before = -np.inf
    for rounds in range(6):
        found = fit_transitions(evidence, from_rate(0.2, 3), DAYS, initial, rounds)
        now = log_evidence(evidence, initial, steps(found, DAYS))
        assert now > before
        before = now


def test_likelihood_of_a_pixel() -> None:
    """Two dates of two classes, summed by hand."""
    emission = np.array([[[0.8], [0.2]], [[0.3], [0.7]]])
    matrix = np.array([[0.9, 0.1], [0.4, 0.6]])
    total = 0.25 * 0.8 * (0.9 * 0.3 + 0.1 * 0.7) + 0.75 * 0.2 * (0.4 * 0.3 + 0.6 * 0.7)
    found = log_evidence(emission, np.array([0.25, 0.75]), matrix[None])
    assert found == pytest.approx(np.log(total), abs=1e-14)


def test_a_start_without_a_logarithm() -> None:
    """A singular matrix and one that swaps classes are starts like others."""
    evidence = _sample(from_rate(0.03, 2), DAYS, 5000, seed=13)
    for start in (np.full((2, 2), 0.5), np.array([[0.1, 0.9], [0.9, 0.1]])):
        found = fit_transitions(evidence, start, DAYS, np.full(2, 0.5))
        assert found[0, 1] == pytest.approx(0.03, abs=0.01)


def test_what_cannot_be_fitted() -> None:
    """Pixels seen once tell of no change; dates must be in order, one for each."""
    once = np.ones((2, 3, 50))
    once[0, 1, :25] = 2.0
    once[1, 2, 25:] = 2.0
    initial = np.full(3, 1 / 3)
    with pytest.raises(ConfigError, match="at two dates, none of the 50"):
        fit_rate(once, np.array([0, 400]), initial)
    with pytest.raises(ConfigError, match="differ in probability at two dates"):
        fit_transitions(once, from_rate(0.1, 3), np.array([0, 400]), initial)
    once[1, 0] = 3.0
    for days in ([0], [0, 1, 2], [5, 5]):
        with pytest.raises(ConfigError, match="in order"):
            fit_transitions(once, from_rate(0.1, 3), np.array(days), initial)
