"""Figures of a changed core against plain loops."""

from __future__ import annotations

import numpy as np

from tilemap.comparison.qa import Qa
from tilemap.stages.figures import ChangeFigures, core_figures, is_change

DAYS = np.array([100, 200, 350], dtype=np.int64)
K = 3


def _layers(seed: int, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "code": random.integers(0, 1 + K * K, shape).astype(np.uint8),
        "qa": random.integers(0, 256, shape).astype(np.uint8),
        "p_change": random.choice([0, 7, 100, 255], shape).astype(np.uint8),
        "n_changes": random.integers(0, 20, shape).astype(np.uint8),
        "date": random.choice([200, 350], shape).astype(np.int32),
        "labels": random.choice([0, 1, 2, 255], (3, *shape)).astype(np.uint8),
    }


def test_codes_of_two_classes() -> None:
    """1 + K * from + to is a change where from and to differ; 0 and what is beyond is none."""
    codes = np.arange(256, dtype=np.uint8)
    for code, found in enumerate(is_change(codes, K)):
        pair = divmod(code - 1, K)
        assert found == (1 <= code <= K * K and pair[0] != pair[1])


def test_figures_are_those_of_loops() -> None:
    """Every sum, pixel by pixel, with areas that differ by row."""
    layers = _layers(3, (7, 11))
    cell = np.linspace(0.5, 1.5, 7)[:, None]
    found = core_figures(layers, DAYS, K, cell)
    km2, interval, classes = np.zeros(256), np.zeros(3), np.zeros((3, 256))
    provisional = 0.0
    for row, col in np.ndindex(7, 11):
        code = int(layers["code"][row, col])
        km2[code] += cell[row, 0]
        if code and (code - 1) // K != (code - 1) % K:
            interval[list(DAYS).index(layers["date"][row, col])] += cell[row, 0]
            provisional += cell[row, 0] * bool(layers["qa"][row, col] & Qa.PROVISIONAL)
        for date in range(3):
            classes[date, layers["labels"][date, row, col]] += cell[row, 0]
    assert np.allclose(found.km2, km2, atol=1e-12)
    assert np.allclose(found.interval_km2, interval, atol=1e-12)
    assert np.allclose(found.classes_km2, classes, atol=1e-12)
    assert 0 < provisional < interval.sum()
    assert np.allclose(found.provisional_km2, [provisional], atol=1e-12)
    assert found.pixels.sum() == 77
    assert found.p_change[7] == np.count_nonzero(layers["p_change"] == 7)
    assert found.times[15] == np.count_nonzero(layers["n_changes"] >= 15)
    assert found.qa[list(Qa).index(Qa.SLIVER)] == np.count_nonzero(layers["qa"] & 16)


def test_they_add_up_and_survive_packing() -> None:
    """Two cores together are the sum; a packed row is unpacked to the same."""
    parts = [core_figures(_layers(seed, (5, 9)), DAYS, K, np.ones((5, 1))) for seed in (1, 2)]
    both = parts[0] + parts[1]
    assert both.pixels.sum() == 90
    assert len(both.pack()) == ChangeFigures.size(3)
    again = ChangeFigures.unpack(both.pack(), 3)
    assert np.array_equal(again.classes_km2, parts[0].classes_km2 + parts[1].classes_km2)
