"""Maps that are 90 % right, 8 years of them: subtracting them is useless, a memory is not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm

from tilemap.comparison.emission import emission_table, emissions
from tilemap.comparison.fitting import fit_rate
from tilemap.comparison.hmm import smooth, smooth_emissions
from tilemap.comparison.pairs import pcc
from tilemap.comparison.smoothed import Smoothed
from tilemap.comparison.transition import from_rate, steps
from tilemap.probability import quantise

K, T, N, RATE, MISSING, RIGHT = 6, 8, 60_000, 0.01, 0.1, 0.9
DAYS = np.array([round(year * 365.2425) for year in range(T)])
UNIFORM = np.full(K, 1 / K)


@dataclass(frozen=True)
class Simulation:
    """Truth (date, pixel), posterior (date, class, pixel), observed (date, pixel)."""

    truth: np.ndarray
    posterior: np.ndarray
    observed: np.ndarray

    @property
    def evidence(self) -> np.ndarray:
        """Posterior over a uniform prior, 1 where not observed."""
        return np.where(self.observed[:, None], self.posterior * K, 1.0)

    @property
    def quantised(self) -> np.ndarray:
        """As it is stored."""
        stored = quantise(self.posterior)
        return np.where(self.observed[:, None], stored, np.uint8(255))


def _margin() -> float:
    """What raises the true class so that it is the largest of all RIGHT of the time."""

    def right(margin: float) -> float:
        found, _ = quad(lambda x: norm.pdf(x - margin) * norm.cdf(x) ** (K - 1), -8, 16)
        return float(found)

    return float(brentq(lambda margin: right(margin) - RIGHT, 0.0, 8.0))


def _simulate(pixels: int, seed: int) -> Simulation:
    """A class that jumps with 1 % a year; unit Gaussian logits and a margin on the true one."""
    random = np.random.default_rng(seed)
    truth = np.empty((T, pixels), dtype=np.int64)
    truth[0] = random.integers(0, K, pixels)
    for date in range(1, T):
        jump = random.random(pixels) < RATE
        other = (truth[date - 1] + random.integers(1, K, pixels)) % K
        truth[date] = np.where(jump, other, truth[date - 1])
    margin = _margin()
    logits = random.normal(size=(T, K, pixels))
    dates, places = np.meshgrid(np.arange(T), np.arange(pixels), indexing="ij")
    logits[dates, truth, places] += margin
    posterior = np.exp(margin * logits)
    posterior /= posterior.sum(axis=1, keepdims=True)
    return Simulation(truth, posterior, random.random((T, pixels)) >= MISSING)


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    """The landscape that all figures are of."""
    return _simulate(N, seed=20)


@pytest.fixture(scope="module")
def smoothed(simulation: Simulation) -> Smoothed:
    """What the hidden Markov model makes of it, tau = 1."""
    return smooth_emissions(simulation.evidence, UNIFORM, steps(from_rate(RATE, K), DAYS))


def _scores(labels: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """User's and producer's accuracy of yearly change, from and to both right.

    Steps with a date that has no label say nothing: they are no change for the user, and missed
    ones where the truth changed.
    """
    said = (labels[1:] != labels[:-1]) & (labels[1:] != 255) & (labels[:-1] != 255)
    true = truth[1:] != truth[:-1]
    right = said & true & (labels[1:] == truth[1:]) & (labels[:-1] == truth[:-1])
    return right.sum() / said.sum(), right.sum() / true.sum()


def _assert_calibrated(said: np.ndarray, true: np.ndarray, least: int) -> None:
    """In five bins the share of true changes is within 0.05 of the mean probability."""
    for low in np.arange(5) / 5:
        inside = (said >= low) & (said <= 1 if low == 0.8 else said < low + 0.2)
        assert np.count_nonzero(inside) > least
        assert true[inside].mean() == pytest.approx(said[inside].mean(), abs=0.05)


def test_labels_are_right_nine_times_in_ten(simulation: Simulation) -> None:
    """What the margin was chosen for."""
    right = simulation.posterior.argmax(axis=1) == simulation.truth
    assert right.mean() == pytest.approx(RIGHT, abs=0.003)
    assert simulation.observed.mean() == pytest.approx(1 - MISSING, abs=0.003)
    jumps = simulation.truth[1:] != simulation.truth[:-1]
    assert jumps.mean() == pytest.approx(RATE, abs=0.0005)


def test_subtracted_maps_are_useless(simulation: Simulation) -> None:
    """Of the changes that `pcc` maps, 4 % are one; it calls a sixth of the landscape changed."""
    labels = pcc(simulation.quantised).labels
    users, _ = _scores(labels, simulation.truth)
    assert users == pytest.approx(0.04, abs=0.01)
    both = simulation.observed[1:] & simulation.observed[:-1]
    assert (labels[1:] != labels[:-1])[both].mean() > 0.17


def test_memory_makes_change_believable(simulation: Simulation, smoothed: Smoothed) -> None:
    """User's accuracy of yearly change above 75 %, producer's above 65 %."""
    users, producers = _scores(smoothed.labels, simulation.truth)
    assert users > 0.75
    assert producers > 0.65


def test_probability_of_change_is_what_it_says(simulation: Simulation, smoothed: Smoothed) -> None:
    """Of each yearly step."""
    truth = simulation.truth
    _assert_calibrated(smoothed.p_step.ravel(), (truth[1:] != truth[:-1]).ravel(), least=300)


def test_probability_over_the_series_is_what_it_says() -> None:
    """That it changed at all; few pixels are unsure of that, so four times as many are drawn."""
    many = _simulate(4 * N, seed=21)
    found = smooth_emissions(many.evidence, UNIFORM, steps(from_rate(RATE, K), DAYS))
    _assert_calibrated(found.p_change, (many.truth != many.truth[0]).any(axis=0), least=800)


def test_stored_as_bytes_it_is_as_good(simulation: Simulation, smoothed: Smoothed) -> None:
    """254 steps of probability cost nothing of all that, nor does a rate that has to be found."""
    table = emission_table(UNIFORM, 1.0)
    evidence = emissions(simulation.quantised[..., :20_000], table)
    rate = fit_rate(evidence, DAYS, UNIFORM)
    assert rate == pytest.approx(RATE, rel=0.1)
    found = smooth(simulation.quantised, UNIFORM, steps(from_rate(rate, K), DAYS), table)
    users, producers = _scores(found.labels, simulation.truth)
    assert users > 0.75
    assert producers > 0.69
    truth = simulation.truth
    _assert_calibrated(found.p_step.ravel(), (truth[1:] != truth[:-1]).ravel(), least=300)
    assert (found.labels != smoothed.labels).mean() < 0.001
