"""The hidden Markov model against all paths, and its two engines against each other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tilemap.change.emission import emission_table, emissions
from tilemap.change.fitting import fit_rate
from tilemap.change.hmm import smooth, smooth_emissions
from tilemap.change.transition import from_rate, steps
from tilemap.errors import ConfigError


def _brute(
    emission: np.ndarray, initial: np.ndarray, matrices: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Every path of every case: paths, their weights, P(any change), P(change of each step)."""
    dates, classes, _ = emission.shape
    paths = np.array(list(itertools.product(range(classes), repeat=dates)))
    weight = np.stack(
        [
            initial[path[0]]
            * np.prod([matrices[t - 1, path[t - 1], path[t]] for t in range(1, dates)])
            * np.prod([emission[t, path[t]] for t in range(dates)], axis=0)
            for path in paths
        ]
    )
    share = weight / weight.sum(axis=0)
    never = (paths == paths[:, :1]).all(axis=1)
    step = [share[paths[:, t] != paths[:, t + 1]].sum(axis=0) for t in range(dates - 1)]
    return paths, weight, 1 - share[never].sum(axis=0), np.array(step)


def test_a_hundred_thousand_cases_against_all_paths() -> None:
    """K <= 3, T <= 5, missing dates, forbidden steps: labels, P(change) to 1e-9."""
    random = np.random.default_rng(4)
    cases = ties = 0
    for _ in range(250):
        classes, dates = int(random.integers(2, 4)), int(random.integers(2, 6))
        emission = random.random((dates, classes, 400)) ** random.choice([1, 4])
        for date in range(dates):
            emission[date][:, random.random(400) < 0.15] = 1.0
        matrices = random.dirichlet(np.full(classes, random.choice([0.3, 3])), (dates - 1, classes))
        initial = random.dirichlet(np.ones(classes))
        found = smooth_emissions(emission, initial, matrices)
        paths, weight, p_change, p_step = _brute(emission, initial, matrices)
        best, second = np.sort(weight, axis=0)[[-1, -2]]
        clear = best > second * (1 + 1e-9)
        assert np.array_equal(found.labels[:, clear], paths[weight.argmax(axis=0)].T[:, clear])
        assert np.abs(found.p_change - p_change).max() < 1e-9
        assert np.abs(found.p_step - p_step).max() < 1e-9
        cases += 400
        ties += np.count_nonzero(~clear)
    assert cases == 100_000
    assert ties < 100


def test_both_engines_say_the_same() -> None:
    """Labels of NumPy and numba are equal, ties included; probabilities to rounding."""
    random = np.random.default_rng(5)
    for classes, dates in ((2, 1), (3, 2), (6, 8), (15, 4)):
        emission = np.round(random.random((dates, classes, 3000)), 1) + 0.1  # many ties
        matrices = (
            steps(from_rate(0.05, classes), np.arange(dates) * 500)[:dates]
            if (dates > 1)
            else np.empty((0, classes, classes))
        )
        initial = np.full(classes, 1 / classes)
        one = smooth_emissions(emission, initial, matrices)
        two = smooth_emissions(emission, initial, matrices, engine="numpy")
        assert np.array_equal(one.labels, two.labels)
        assert np.allclose(one.p_change, two.p_change, rtol=0, atol=1e-12)
        assert np.allclose(one.p_step, two.p_step, rtol=0, atol=1e-12)


def test_of_equals_the_lower_class_wins() -> None:
    """Without any evidence, and with the same for all."""
    matrices = steps(from_rate(0.01, 3), np.array([0, 400, 900]))
    found = smooth_emissions(np.ones((3, 3, 2)), np.full(3, 1 / 3), matrices)
    assert not found.labels.any()


def test_stored_probabilities_are_evidence() -> None:
    """The path over bytes is that over floats; a pixel that was never observed has no label."""
    random = np.random.default_rng(6)
    quantised = np.rint(random.dirichlet(np.ones(4), (5, 700)) * 254).astype(np.uint8)
    quantised = np.ascontiguousarray(quantised.transpose(0, 2, 1))
    hidden = random.random((5, 700)) < 0.3
    hidden[:, :3] = True
    quantised.transpose(0, 2, 1)[hidden] = 255
    prior = np.array([0.1, 0.2, 0.3, 0.4])
    table = emission_table(prior, 0.7)
    matrices = steps(from_rate(0.02, 4), np.array([0, 300, 800, 1100, 3000]))
    found = smooth(quantised, prior, matrices, table)
    evidence = emissions(quantised, table)
    assert (evidence.transpose(0, 2, 1)[hidden] == 1).all()
    want = smooth_emissions(evidence, prior, matrices)
    assert (found.labels[:, :3] == 255).all()
    assert not found.p_change[:3].any()
    assert np.array_equal(found.labels[:, 3:], want.labels[:, 3:])
    assert np.allclose(found.p_change[3:], want.p_change[3:], rtol=0, atol=1e-6)


def test_evidence_of_a_stored_number() -> None:
    """(p / prior)^tau; 0 is half a step; 255 says nothing."""
    table = emission_table(np.array([0.25, 0.75]), 0.5)
    assert table[0, 254] == pytest.approx(2.0)
    assert table[1, 127] == pytest.approx(np.sqrt(0.5 / 0.75))
    assert table[0, 0] == pytest.approx(np.sqrt(0.5 / 254 / 0.25))
    assert table[:, 255].tolist() == [1, 1]


def test_shapes_must_fit() -> None:
    """A matrix too few is an error."""
    with pytest.raises(ConfigError, match="3 dates of 2 classes need"):
        smooth_emissions(np.ones((3, 2, 5)), np.full(2, 0.5), np.ones((1, 2, 2)) / 2)


def test_a_rate_is_found_again() -> None:
    """Of simulated pixels, within its own uncertainty of some 5 %."""
    random = np.random.default_rng(7)
    classes, pixels, rate = 4, 20_000, 0.03
    days = np.array([0, 400, 700, 1500, 1900, 2600])
    matrices = steps(from_rate(rate, classes), days)
    state = random.integers(0, classes, pixels)
    states = [state]
    for matrix in matrices:
        draw = random.random(pixels)
        state = (draw[:, None] > matrix[state].cumsum(axis=1)).sum(axis=1)
        states.append(state)
    logits = random.normal(size=(len(days), classes, pixels))
    for date, now in enumerate(states):
        logits[date, now, np.arange(pixels)] += 3.0
    evidence = np.exp(3.0 * logits)
    evidence /= evidence.sum(axis=1, keepdims=True)
    found = fit_rate(evidence, days, np.full(classes, 1 / classes))
    assert found == pytest.approx(rate, rel=0.08)
