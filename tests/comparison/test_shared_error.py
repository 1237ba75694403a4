"""Dates that share their errors: what becomes of P(change), and what `epochs` make of it."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from tilemap.comparison.emission import emission_table, emissions
from tilemap.comparison.hmm import smooth, smooth_emissions
from tilemap.comparison.pairs import pcc
from tilemap.comparison.shared_error import SharedError, decorrelate, discourage, estimate
from tilemap.comparison.smoothed import Smoothed
from tilemap.comparison.transition import from_rate, steps
from tilemap.errors import ConfigError
from tilemap.testing import ERRORS, TrueSeries, simulate_change

K = 5
UNIFORM = np.full(K, 1 / K)
RATE = 0.01
NAMES = ("sensor 1",) * 4 + ("sensor 2",) * 4


@cache
def _series(errors: str) -> TrueSeries:
    return simulate_change(errors, shape=(150, 210), seed=3)


def _seen(series: TrueSeries) -> np.ndarray:
    return np.ones(series.truth.shape, dtype=bool)


def _evidence(series: TrueSeries) -> np.ndarray:
    return emissions(series.quantised, emission_table(UNIFORM, 1.0))


@cache
def _plain(errors: str) -> Smoothed:
    """The dates taken as independent."""
    series = _series(errors)
    matrices = steps(from_rate(RATE, K), series.days)
    return smooth(series.quantised, UNIFORM, matrices, emission_table(UNIFORM, 1.0))


@cache
def _shared(errors: str, epochs: tuple[str, ...] = NAMES) -> Smoothed:
    """The dates of an epoch taken to share what they are found to share."""
    series = _series(errors)
    evidence, seen = _evidence(series), _seen(series)
    shared = estimate(evidence, seen, epochs)
    matrices = discourage(steps(from_rate(RATE, K), series.days), shared)
    return smooth_emissions(decorrelate(evidence, seen, shared), UNIFORM, matrices)


def _sure(found: Smoothed, series: TrueSeries) -> tuple[float, float]:
    """Of the pixels with P(change) of 0.8 or more: its mean, and the share that did change."""
    sure = found.p_change >= 0.8
    assert np.count_nonzero(sure) > 300
    return float(found.p_change[sure].mean()), float(series.changed[sure].mean())


def _accuracy(labels: np.ndarray, series: TrueSeries) -> tuple[float, float]:
    """User's and producer's accuracy of change between the ends, both classes right."""
    said, true = labels[0] != labels[-1], series.truth[0] != series.truth[-1]
    right = said & true & (labels[0] == series.truth[0]) & (labels[-1] == series.truth[-1])
    return right.sum() / said.sum(), right.sum() / true.sum()


@pytest.mark.parametrize("errors", ERRORS)
def test_each_date_alone_is_calibrated(errors: str) -> None:
    """The kinds differ in what dates share: one date is 80 % right, as its confidence says."""
    series = _series(errors)
    confidence, right = series.posterior.max(axis=1), series.posterior.argmax(axis=1)
    right = right == series.truth
    assert right.mean() == pytest.approx(0.81, abs=0.015)
    for low in (0.4, 0.6, 0.8):
        inside = (confidence >= low) & (confidence < low + 0.2)
        assert right[inside].mean() == pytest.approx(confidence[inside].mean(), abs=0.02)
    assert (series.truth[1:] != series.truth[:-1]).mean() == pytest.approx(RATE, abs=0.002)


@pytest.mark.parametrize("errors", ["independent", "seasons", "misregistration"])
def test_sure_change_is_true_where_no_run_of_dates_shares_errors(errors: str) -> None:
    """Also with each second date 0.3 pixels off, or with errors that come back each second date."""
    said, true = _sure(_plain(errors), _series(errors))
    assert true == pytest.approx(said, abs=0.05)


def test_errors_of_all_dates_make_it_a_little_too_sure() -> None:
    """A fifth of the variance that no date is free of: 97 % said is about 90 % true."""
    said, true = _sure(_plain("static"), _series("static"))
    assert 0.03 < said - true < 0.12


@pytest.mark.parametrize("errors", ["epochs", "all"])
def test_errors_of_a_run_of_dates_are_taken_for_change(errors: str) -> None:
    """Half of the variance shared by the dates of a sensor: 96 % said is 50 to 65 % true."""
    said, true = _sure(_plain(errors), _series(errors))
    assert said > 0.93
    assert 0.45 < true < 0.68


@pytest.mark.parametrize("errors", ["epochs", "all"])
def test_epochs_make_it_true_again(errors: str) -> None:
    """Sure change is true within 0.05, and both accuracies of the map are better than without."""
    series, found = _series(errors), _shared(errors)
    said, true = _sure(found, series)
    assert true == pytest.approx(said, abs=0.05)
    users, producers = _accuracy(found.labels, series)
    users_before, producers_before = _accuracy(_plain(errors).labels, series)
    assert users > users_before + 0.3
    assert producers > producers_before


def test_epochs_cost_nothing_where_errors_are_independent() -> None:
    """The share is found to be nearly 0, so that hardly a label differs."""
    series, found = _series("independent"), _shared("independent")
    assert estimate(_evidence(series), _seen(series), NAMES).rho < 0.05
    assert (found.labels != _plain("independent").labels).mean() < 0.005
    said, true = _sure(found, series)
    assert true == pytest.approx(said, abs=0.05)


def test_labels_compared_are_no_better_for_it() -> None:
    """Nine of ten changes of `pcc` are none, whatever the dates share."""
    for errors in ERRORS:
        assert _accuracy(pcc(_series(errors).quantised).labels, _series(errors))[0] < 0.15


@pytest.mark.parametrize(
    ("errors", "epochs", "share"),
    [("epochs", NAMES, 0.5), ("seasons", tuple("abababab"), 0.5), ("independent", NAMES, 0.0)],
)
def test_the_share_is_found(errors: str, epochs: tuple[str, ...], share: float) -> None:
    """As it was simulated, and the signal of 2.2 squared less what mixed pixels take."""
    found = estimate(_evidence(_series(errors)), _seen(_series(errors)), epochs)
    assert found.rho == pytest.approx(share, abs=0.04)
    assert 3.5 < found.signal < 4.9


def test_paths_are_as_likely_as_the_normal_distribution_says() -> None:
    """Of paths of one change: evidence and transitions together, against densities of SciPy."""
    random = np.random.default_rng(5)
    names, rho, margin = ("a", "a", "a", "b", "b"), 0.4, 1.7
    alike = np.array(names)[:, None] == np.array(names)
    noise = np.where(alike, rho, 0) + (1 - rho) * np.eye(5)
    x = random.normal(size=(5, 3, 1))
    x[:2, 1] += margin
    evidence = np.exp(margin * x)
    shared = SharedError(names, rho, margin**2)
    weighed = np.log(decorrelate(evidence, np.ones((5, 1), dtype=bool), shared))[..., 0]
    matrices = np.stack([from_rate(0.02, 3)] * 4)
    less = np.log(discourage(matrices, shared) / matrices)
    ours, exact = [], []
    for before in range(3):
        for after in range(3):
            for step in range(4):
                path = np.where(np.arange(5) <= step, before, after)
                score = weighed[np.arange(5), path].sum()
                ours.append(score + (less[step, before, after] if before != after else 0))
                mean = margin * (path == np.arange(3)[:, None])
                exact.append(
                    sum(multivariate_normal(mean[k], noise).logpdf(x[:, k, 0]) for k in range(3))
                )
    apart = np.array(ours) - np.array(exact)
    np.testing.assert_allclose(apart, apart[0], atol=0.03)  # a diagonal takes what others lose


def test_dates_that_were_not_observed_say_nothing() -> None:
    """Evidence of the others is that of an epoch of fewer dates."""
    random = np.random.default_rng(6)
    evidence = random.uniform(0.1, 2, (4, 3, 50))
    seen = np.ones((4, 50), dtype=bool)
    seen[1] = False
    evidence[1] = 1
    found = decorrelate(evidence, seen, SharedError(("a", "a", "a", "b"), 0.5, 4.0))
    fewer = decorrelate(evidence[[0, 2, 3]], seen[[0, 2, 3]], SharedError(("a", "a", "b"), 0.5, 4))
    np.testing.assert_allclose(found[[0, 2, 3]], fewer, rtol=1e-12)
    assert (found[1] == 1).all()


def test_one_epoch_or_one_date_each_tells_nothing() -> None:
    """What all dates share cannot be told from the class."""
    series = _series("static")
    for names in (("a",) * 8, tuple("abcdefgh")):
        found = estimate(_evidence(series), _seen(series), names)
        assert found.rho == 0
        same = decorrelate(_evidence(series), _seen(series), found)
        assert (same.argmax(axis=1) == series.quantised.argmax(axis=1)).mean() > 0.99


def test_an_epoch_for_each_date_is_needed() -> None:
    """Names that do not fit, and shares that cannot be, are refused."""
    series = _series("independent")
    with pytest.raises(ConfigError, match="an epoch for each of 8 dates"):
        estimate(_evidence(series), _seen(series), ("a", "b"))
    with pytest.raises(ConfigError, match="share of 0 to 1"):
        SharedError(("a",), 1.0, 3.0)
