"""Calibration from counts against one pixel at a time, in fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilemap.errors import SceneError, UsageError
from tilemap.evaluation.calibration import calibration, confidence_counts
from tilemap.evaluation.metrics import IGNORE


def _gap(pixels: list[tuple[Fraction, bool]]) -> Fraction:
    """How far the share that is right lies from the mean confidence; 0 without pixels."""
    if not pixels:
        return Fraction(0)
    right = Fraction(sum(ok for _, ok in pixels), len(pixels))
    return abs(right - sum((sure for sure, _ in pixels), Fraction(0)) / len(pixels))


@given(st.integers(0, 2**32), st.integers(1, 300), st.sampled_from([1, 7, 10, 15, 20, 100]))
def test_errors_are_those_of_single_pixels(seed: int, size: int, bins: int) -> None:
    """ECE, MCE and the curve equal a sum over pixels, each put into its bin by a comparison."""
    rng = np.random.default_rng(seed)
    percent = rng.integers(0, 101, size).astype(np.uint8)
    percent[rng.random(size) < 0.1] = IGNORE
    reference = rng.choice([0, 1, IGNORE], size).astype(np.uint8)
    predicted = rng.choice([0, 1, IGNORE], size).astype(np.uint8)
    got = calibration(confidence_counts(percent, reference, predicted), bins)
    held: list[list[tuple[Fraction, bool]]] = [[] for _ in range(bins)]
    for p, r, m in zip(percent.tolist(), reference.tolist(), predicted.tolist(), strict=True):
        if IGNORE in (p, r, m):
            continue
        sure = Fraction(p, 100)
        for index in range(bins):
            low, high = Fraction(index, bins), Fraction(index + 1, bins)
            if low < sure <= high or (index == 0 and sure == 0):
                held[index].append((sure, r == m))
    total = sum(map(len, held))
    gaps = [_gap(pixels) for pixels in held]
    assert got.pixels.tolist() == [len(pixels) for pixels in held]
    if not total:
        assert got.ece is None
        assert got.mce is None
        return
    ece = sum((g * len(p) for g, p in zip(gaps, held, strict=True)), Fraction(0)) / total
    assert got.ece == pytest.approx(float(ece), abs=1e-12)
    assert got.mce == pytest.approx(float(max(gaps)), abs=1e-12)


def test_counts_of_parts_add_up() -> None:
    """Any cut gives the same counts in the sum."""
    rng = np.random.default_rng(3)
    percent = rng.integers(0, 101, (9, 40)).astype(np.uint8)
    reference, predicted = rng.integers(0, 3, (2, 9, 40)).astype(np.uint8)
    whole = confidence_counts(percent, reference, predicted)
    parts = sum(
        confidence_counts(percent[:, c : c + 7], reference[:, c : c + 7], predicted[:, c : c + 7])
        for c in range(0, 40, 7)
    )
    np.testing.assert_array_equal(parts, whole)
    assert whole.sum() == 360


def test_an_honest_map_has_no_error() -> None:
    """80 right of 100 at 80 % is an error of 0; all right at 80 % is one of 0.2."""
    counts = np.zeros((101, 2), dtype=np.int64)
    counts[80] = 20, 80
    assert calibration(counts).ece == pytest.approx(0, abs=1e-15)
    counts[80] = 0, 100
    assert calibration(counts).ece == pytest.approx(0.2, abs=1e-15)


def test_what_is_no_percent_is_refused() -> None:
    """101 to 254 are neither a percent nor "none"; bins are 1 to 100."""
    one = np.zeros(1, dtype=np.uint8)
    with pytest.raises(SceneError, match="percent, 0 to 100"):
        confidence_counts(one + 101, one, one)
    assert confidence_counts(one + 255, one, one).sum() == 0
    with pytest.raises(UsageError, match="1 to 100 bins"):
        calibration(np.zeros((101, 2)), 0)
