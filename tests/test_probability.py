"""A probability in one byte."""

from __future__ import annotations

import numpy as np
import pytest

from tilemap.probability import (
    LEAST_LABEL,
    LINEAR,
    LINEAR_LEAST,
    MOST,
    NODATA,
    VALUES,
    quantise,
    shares,
)

HALVES = np.arange(int(np.float16(1).view(np.uint16)) + 1, dtype=np.uint16).view(np.float16)
"""Every float16 from 0 to 1."""


def test_bytes_rise_with_the_probability() -> None:
    """0 is the first, 1 the last and alone; every byte is used, and is its own value's."""
    found = quantise(HALVES)
    assert (np.diff(found.astype(int)) >= 0).all()
    assert (found[0], found[-1]) == (0, MOST)
    assert np.array_equal(np.unique(found), np.arange(MOST + 1))
    assert np.array_equal(quantise(VALUES[: MOST + 1]), np.arange(MOST + 1))
    assert quantise(HALVES[None, :, None]).shape == (1, HALVES.size, 1)


@pytest.mark.parametrize(
    ("low", "high", "share"), [(1e-5, 1e-2, 0.06), (1e-2, 0.1, 0.044), (0.1, 0.5, 0.025)]
)
def test_a_small_probability_keeps_its_size(low: float, high: float, share: float) -> None:
    """Known to a few percent of itself; in the middle to half a percentage point."""
    p = HALVES[(low <= HALVES) & (high >= HALVES)].astype(float)
    away = np.abs(VALUES[quantise(p)] - p)
    assert (away / p).max() <= share
    assert np.abs(VALUES[quantise(HALVES)] - HALVES.astype(float)).max() <= 0.0052


def test_comparisons_decide_as_with_float64() -> None:
    """P(change) of two dates, sure models and rare changes: what equal steps could not tell."""
    random = np.random.default_rng(0)
    z = random.normal(size=(2, 5, 100_000)) * 4
    before = random.integers(5, size=100_000)
    after = np.where(random.random(100_000) < 0.9, before, random.integers(5, size=100_000))
    for date, truth in zip(z, (before, after), strict=True):
        date[truth, np.arange(truth.size)] += 8
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)

    def changed(p: np.ndarray, prior: float) -> np.ndarray:
        same = (p[0] * p[1]).sum(axis=0)
        other = (p[0].sum(axis=0) * p[1].sum(axis=0) - same) * prior / 4
        found: np.ndarray = other / ((1 - prior) * same + other)
        return found

    steps = np.maximum(np.rint(p * 254), 0.1) / 254
    for prior in (0.1, 1e-3, 2e-5):
        want = changed(p, prior)
        away = np.abs(changed(VALUES[quantise(p)], prior) - want)
        coarse = np.abs(changed(steps, prior) - want)
        assert away.mean() < 0.001
        assert 0 < (want > 0.5).mean() < 1  # there is something to decide
        wrong = ((changed(VALUES[quantise(p)], prior) > 0.5) != (want > 0.5)).mean()
        assert wrong < 0.001
        assert coarse.mean() > 4 * away.mean()


def test_stores_of_equal_steps_are_read() -> None:
    """To the nearest byte; 0 counts as the tenth of a step that it did."""
    assert LINEAR[NODATA] == NODATA
    away = np.abs(VALUES[LINEAR[1:255]] - np.arange(1, 255) / 254)
    assert away.max() <= 0.0052
    assert LINEAR[MOST] == MOST
    assert VALUES[LINEAR[0]] == pytest.approx(LINEAR_LEAST, rel=0.05)
    assert LINEAR[0] == LEAST_LABEL


def test_shares_sum_to_one() -> None:
    """Over the classes, 0 where not observed."""
    bytes_ = np.array([[254, 0, 255], [72, 0, 255]], np.uint8)
    found = shares(bytes_)
    assert found.dtype == np.float32
    assert found[:, :2].sum(axis=0) == pytest.approx([1, 1])
    assert found[:, 1] == pytest.approx([0.5, 0.5])
    assert found[1, 0] == pytest.approx(VALUES[72] / (1 + VALUES[72]))
    assert (found[:, 2] == 0).all()
