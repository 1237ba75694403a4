"""Maps that are 90 % right, 8 years of them: subtracting them is useless, a memory is not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.optimize import brentq

from tilemap.change.hmm import smooth_emissions
from tilemap.change.pairs import pcc
from tilemap.change.transition import from_rate, steps

K, T, N, RATE, MISSING, RIGHT = 6, 8, 60_000, 0.01, 0.1, 0.9


@dataclass(frozen=True)
class Simulation:
    """Truth (date, pixel), posterior (date, class, pixel), observed (date, pixel)."""

    truth: np.ndarray
    posterior: np.ndarray
    observed: np.ndarray


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    """Unit Gaussian logits and a margin on the true class: 90 % of the labels are right."""
    random = np.random.default_rng(20)
    truth = np.empty((T, N), dtype=np.int64)
    truth[0] = random.integers(0, K, N)
    for date in range(1, T):
        jump = random.random(N) < RATE
        other = (truth[date - 1] + random.integers(1, K, N)) % K
        truth[date] = np.where(jump, other, truth[date - 1])
    noise = random.normal(size=(200_000, K))
    others = noise[:, 1:].max(axis=1)
    margin = brentq(lambda m: np.mean(noise[:, 0] + m > others) - RIGHT, 0.0, 8.0)
    logits = random.normal(size=(T, K, N))
    dates, pixels = np.meshgrid(np.arange(T), np.arange(N), indexing="ij")
    logits[dates, truth, pixels] += margin
    posterior = np.exp(margin * logits)
    posterior /= posterior.sum(axis=1, keepdims=True)
    return Simulation(truth, posterior, random.random((T, N)) >= MISSING)


def _scores(labels: np.ndarray, truth: np.ndarray, told: np.ndarray) -> tuple[float, float]:
    """User's and producer's accuracy of yearly change, from and to both right.

    Args:
        labels: (date, pixel).
        truth: (date, pixel).
        told: steps of which the method says anything, (date - 1, pixel).
    """
    said = (labels[1:] != labels[:-1]) & told
    true = truth[1:] != truth[:-1]
    right = said & true & (labels[1:] == truth[1:]) & (labels[:-1] == truth[:-1])
    return right.sum() / said.sum(), right.sum() / true.sum()


def test_labels_are_right_nine_times_in_ten(simulation: Simulation) -> None:
    """What the margin was chosen for."""
    right = simulation.posterior.argmax(axis=1) == simulation.truth
    assert right.mean() == pytest.approx(RIGHT, abs=0.003)


def test_memory_makes_change_believable(simulation: Simulation) -> None:
    """User's accuracy of yearly change from 4 % to above 75 %, producer's above 65 %."""
    quantised = np.rint(simulation.posterior * 254).astype(np.uint8)
    quantised.transpose(0, 2, 1)[~simulation.observed] = 255
    labels = pcc(quantised).labels
    told = simulation.observed[1:] & simulation.observed[:-1]
    users, _ = _scores(labels, simulation.truth, told)
    assert 0.03 < users < 0.055
    evidence = np.where(simulation.observed[:, None], simulation.posterior, 1.0)
    matrices = steps(from_rate(RATE, K), np.arange(T) * 365)
    found = smooth_emissions(evidence, np.full(K, 1 / K), matrices)
    users, producers = _scores(found.labels, simulation.truth, np.ones((T - 1, N), dtype=bool))
    assert users > 0.75
    assert producers > 0.65


def test_probability_of_change_is_what_it_says(simulation: Simulation) -> None:
    """In five bins the share of true changes is within 0.05 of the mean probability."""
    evidence = np.where(simulation.observed[:, None], simulation.posterior, 1.0)
    matrices = steps(from_rate(RATE, K), np.arange(T) * 365)
    found = smooth_emissions(evidence, np.full(K, 1 / K), matrices)
    true = (simulation.truth[1:] != simulation.truth[:-1]).ravel()
    said = found.p_step.ravel()
    for low in np.arange(5) / 5:
        inside = (said >= low) & (said < low + 0.2 + (low == 0.8))
        assert np.count_nonzero(inside) > 300
        assert true[inside].mean() == pytest.approx(said[inside].mean(), abs=0.05)
