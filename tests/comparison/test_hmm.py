"""The hidden Markov model against all paths, and its two engines against each other."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest

from tilemap.comparison import hmm
from tilemap.comparison.compiled import compiled
from tilemap.comparison.emission import emission_table, emissions
from tilemap.comparison.hmm import smooth, smooth_emissions
from tilemap.comparison.hmm_numpy import scores
from tilemap.comparison.transition import from_rate, steps
from tilemap.errors import ConfigError
from tilemap.probability import quantise


def _all_paths(classes: int, dates: int) -> np.ndarray:
    """Each path once, those first that win among equals: lower at the last date, then before."""
    paths = np.array(list(itertools.product(range(classes), repeat=dates)))
    return paths[:, ::-1]


def _brute(
    emission: np.ndarray, initial: np.ndarray, matrices: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weight of every path of every case, P(any change), P(change of each step)."""
    dates, classes, _ = emission.shape
    paths = _all_paths(classes, dates)
    weight = initial[paths[:, 0], None] * emission[0, paths[:, 0]]
    for t in range(1, dates):
        step = matrices[t - 1, paths[:, t - 1], paths[:, t], None]
        weight = weight * step * emission[t, paths[:, t]]
    share = weight / weight.sum(axis=0)
    never = (paths == paths[:, :1]).all(axis=1)
    step = [share[paths[:, t] != paths[:, t + 1]].sum(axis=0) for t in range(dates - 1)]
    p_step = np.array(step).reshape(dates - 1, emission.shape[2])
    return weight, 1 - share[never].sum(axis=0), p_step


def _stored(dates: int, classes: int, pixels: int, hidden: float, seed: int) -> np.ndarray:
    """Quantised probabilities, some dates of some pixels not observed."""
    random = np.random.default_rng(seed)
    p = random.dirichlet(np.full(classes, 0.4), (dates, pixels)).transpose(0, 2, 1)
    quantised = quantise(p)
    quantised.transpose(0, 2, 1)[random.random((dates, pixels)) < hidden] = 255
    return quantised


def test_a_hundred_thousand_cases_against_all_paths() -> None:
    """K <= 3, T <= 5, missing dates, forbidden steps: labels, P(change) to 1e-9."""
    random = np.random.default_rng(4)
    cases = unclear = 0
    for _ in range(250):
        classes, dates = int(random.integers(1, 4)), int(random.integers(1, 6))
        emission = random.random((dates, classes, 400)) ** random.choice([1, 4]) + 1e-12
        emission.transpose(0, 2, 1)[random.random((dates, 400)) < 0.15] = 1.0
        even = np.full(classes, random.choice([0.3, 3]))
        matrices = random.dirichlet(even, (dates - 1, classes))
        if classes > 1 and random.random() < 0.3:
            matrices[:, 0, 1] = 0
            matrices /= matrices.sum(axis=2, keepdims=True)
        initial = random.dirichlet(np.ones(classes))
        found = smooth_emissions(emission, initial, matrices)
        weight, p_change, p_step = _brute(emission, initial, matrices)
        best = weight.max(axis=0)
        clear = (weight > best * (1 - 1e-8)).sum(axis=0) == 1
        expected = _all_paths(classes, dates)[weight.argmax(axis=0)].T
        assert np.array_equal(found.labels[:, clear], expected[:, clear])
        assert np.abs(found.p_change - p_change).max() < 1e-9
        assert found.p_step.shape == p_step.shape
        assert dates == 1 or np.abs(found.p_step - p_step).max() < 1e-9
        cases += 400
        unclear += np.count_nonzero(~clear)
    assert cases == 100_000
    assert unclear < 500


@pytest.mark.parametrize("engine", ["numba", "numpy"])
def test_of_equal_paths_the_lowest_class_wins(engine: hmm.Engine) -> None:
    """At the last date first, then at each one before, where evidence makes thousands of ties."""
    random = np.random.default_rng(8)
    for classes, dates in ((2, 4), (3, 3), (3, 5)):
        emission = random.choice([1.0, 2.5], (dates, classes, 500))
        matrices = np.stack([from_rate(0.1, classes)] * (dates - 1))
        initial = np.full(classes, 1 / classes)
        paths = _all_paths(classes, dates)
        # whole numbers, so that equal paths are equal here too
        unit = 2.0**32
        part = np.rint(scores(emission) * unit).astype(np.int64)
        move = np.rint(scores(matrices) * unit).astype(np.int64)
        total = sum(part[t, paths[:, t]] for t in range(dates))
        total += sum(move[t, paths[:, t], paths[:, t + 1]] for t in range(dates - 1))[:, None]
        ties = (total == total.max(axis=0)).sum(axis=0) > 1
        assert ties.sum() > 50
        found = smooth_emissions(emission, initial, matrices, engine)
        assert np.array_equal(found.labels, paths[total.argmax(axis=0)].T)


@pytest.mark.parametrize("engine", ["numba", "numpy"])
def test_a_change_around_a_cloudy_date(engine: hmm.Engine) -> None:
    """Before or after it is equally likely, whatever the evidence: never a matter of rounding."""
    random = np.random.default_rng(9)
    emission = np.ones((3, 2, 2000))
    high = 200 + 100 * random.random((2, 1000))
    emission[0, 0, :1000], emission[2, 1, :1000] = high
    emission[0, 1, 1000:], emission[2, 0, 1000:] = high
    matrices = np.stack([from_rate(0.0137, 2)] * 2)
    found = smooth_emissions(emission, np.array([0.3, 0.7]), matrices, engine)
    assert (found.labels[:, :1000] == [[0], [0], [1]]).all()
    assert (found.labels[:, 1000:] == [[1], [0], [0]]).all()


def test_both_engines_say_the_same() -> None:
    """Labels of NumPy and numba are equal, ties included; probabilities to rounding."""
    random = np.random.default_rng(5)
    for classes, dates in ((1, 3), (2, 1), (3, 2), (6, 8), (15, 4)):
        emission = np.round(random.random((dates, classes, 3001)), 1) + 0.1  # many ties
        emission.transpose(0, 2, 1)[random.random((dates, 3001)) < 0.2] = 1.0
        matrices = steps(from_rate(0.05, classes), np.arange(dates) * 500)
        initial = random.dirichlet(np.ones(classes))
        one = smooth_emissions(emission, initial, matrices)
        two = smooth_emissions(emission, initial, matrices, engine="numpy")
        assert np.array_equal(one.labels, two.labels)
        assert np.allclose(one.p_change, two.p_change, rtol=0, atol=1e-12)
        assert np.allclose(one.p_step, two.p_step, rtol=0, atol=1e-12)


def test_stored_probabilities_are_evidence() -> None:
    """The path over bytes is that over floats; a pixel that was never observed has no label."""
    quantised = _stored(5, 4, 1999, 0.3, seed=6)
    quantised[:, :, [0, 7, 1998]] = 255
    never = (quantised[:, 0] == 255).all(axis=0)
    prior = np.array([0.1, 0.2, 0.3, 0.4])
    table = emission_table(prior, 0.7)
    matrices = steps(from_rate(0.02, 4), np.array([0, 300, 800, 1100, 3000]))
    found = smooth(quantised, prior, matrices, table)
    expected = smooth_emissions(emissions(quantised, table), prior, matrices)
    assert never.sum() >= 3
    assert (found.labels[:, never] == 255).all()
    assert not found.p_change[never].any()
    assert not found.p_step[:, never].any()
    seen = ~never
    assert np.array_equal(found.labels[:, seen], expected.labels[:, seen])
    assert np.allclose(found.p_change[seen], expected.p_change[seen], rtol=0, atol=1e-6)
    assert np.allclose(found.p_step[:, seen], expected.p_step[:, seen], rtol=0, atol=1e-6)


def test_two_dates_are_the_bayesian_pair() -> None:
    """P(change) of two dates, written out."""
    p1, p2, rate = np.array([0.8, 0.2]), np.array([0.3, 0.7]), 0.1
    found = smooth_emissions(
        np.stack([p1, p2])[:, :, None] / 0.5, np.full(2, 0.5), from_rate(rate, 2)[None]
    )
    same = (1 - rate) * (0.8 * 0.3 + 0.2 * 0.7)
    other = rate * (0.8 * 0.7 + 0.2 * 0.3)
    assert found.p_change[0] == pytest.approx(other / (same + other), abs=1e-15)
    assert found.p_step[0, 0] == pytest.approx(other / (same + other), abs=1e-15)


def test_a_pixel_does_not_know_its_neighbours() -> None:
    """However many come along, in whatever part of the memory: the same bytes."""
    quantised = _stored(7, 5, 1777, 0.2, seed=3)
    prior = np.full(5, 0.2)
    table, matrices = emission_table(prior, 0.9), steps(from_rate(0.03, 5), np.arange(7) * 400)
    whole = smooth(quantised, prior, matrices, table)
    for part in (np.s_[..., :1], np.s_[..., 13:600], np.s_[..., ::3], np.s_[..., :0]):
        cut = quantised[part]
        for array in (cut, prior, matrices, table):  # as they come from another process
            array.flags.writeable = False
        found = smooth(cut, prior, matrices, table)
        assert np.array_equal(found.labels, whole.labels[part])
        assert np.array_equal(found.p_change, whole.p_change[part])
        assert np.array_equal(found.p_step, whole.p_step[part])
    assert len(hmm._smooth_stored.signatures) == 1


def test_a_long_series_that_contradicts_itself() -> None:
    """600 dates for the one class, then for the other, and a way that is forbidden: no overflow."""
    dates = 1200
    emission = np.full((dates, 3, 2), 1e-5)
    emission[:600, 0, 0] = emission[600:, 1, 0] = 1e-2  # 0 may become 1
    emission[:600, 1, 1] = emission[600:, 0, 1] = 1e-2  # 1 may not become 0
    matrix = np.array([[0.98, 0.02, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    initial = np.array([0.5, 0.5, 0.0])
    for engine in ("numba", "numpy"):
        found = smooth_emissions(emission, initial, np.stack([matrix] * (dates - 1)), engine)
        assert (found.labels[:600, 0] == 0).all()
        assert (found.labels[600:, 0] == 1).all()
        assert found.p_change[0] == pytest.approx(1.0)
        assert found.p_step[599, 0] == pytest.approx(1.0, abs=0.01)
        assert np.isfinite(found.p_step).all()
        assert len(np.unique(found.labels[:, 1])) == 1
        assert found.p_step[:, 1].max() < 0.5


def test_without_evidence_the_model_speaks() -> None:
    """Labels are those of the start; P(change) is that of the matrices."""
    matrices = steps(from_rate(0.01, 3), np.array([0, 400, 900]))
    found = smooth_emissions(np.ones((3, 3, 2)), np.full(3, 1 / 3), matrices)
    assert not found.labels.any()
    stays = matrices[0, 0, 0] * matrices[1, 0, 0]
    assert np.allclose(found.p_change, 1 - stays, rtol=0, atol=1e-15)
    found = smooth_emissions(np.ones((3, 3, 2)), np.array([0.2, 0.5, 0.3]), matrices)
    assert (found.labels == 1).all()


HALF, STAY = np.full(2, 0.5), np.eye(2)[None]


@pytest.mark.parametrize(
    ("shape", "initial", "transitions", "said"),
    [
        ((3, 2, 5), HALF, STAY, "3 dates of 2 classes need 2 initial .* 2 matrices"),
        ((2, 3, 5), HALF, STAY, "2 dates of 3 classes need"),
        ((2, 2, 5), np.array([0.5, 0.6]), STAY, "initial probabilities must"),
        ((2, 2, 5), np.array([1.5, -0.5]), STAY, "initial probabilities must"),
        ((2, 2, 5), HALF, STAY * 0.9, "transitions must be 0 or more"),
        ((2, 2, 5), HALF, STAY * np.nan, "transitions must be 0 or more"),
        ((2, 5), HALF, STAY, "evidence must be"),
        ((0, 2, 5), HALF, STAY[:0], "evidence must be"),
        ((1, 256, 1), np.full(256, 1 / 256), np.ones((0, 256, 256)), "up to 255 classes"),
    ],
)
def test_arrays_must_fit(
    shape: tuple[int, ...], initial: np.ndarray, transitions: np.ndarray, said: str
) -> None:
    """Shapes and sums are looked at before anything is computed."""
    with pytest.raises(ConfigError, match=said):
        smooth_emissions(np.ones(shape), initial, transitions)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_evidence_is_above_zero(value: float) -> None:
    """A class without any would leave no path at all."""
    emission = np.ones((2, 2, 5))
    emission[1, 0, 3] = value
    with pytest.raises(ConfigError, match="above 0"):
        smooth_emissions(emission, HALF, STAY)


def test_a_kernel_is_compiled_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation that cannot be written, a home that cannot either."""
    real = numba.njit

    def without_cache(*arguments: Any, cache: bool = False, **options: Any) -> Callable[..., Any]:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return real(*arguments, **options)  # type: ignore[no-any-return]

    monkeypatch.setattr(numba, "njit", without_cache)

    def double(values: np.ndarray) -> np.ndarray:
        return values * 2

    assert compiled(double)(np.arange(3)).tolist() == [0, 2, 4]
