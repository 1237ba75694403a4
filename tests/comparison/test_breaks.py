"""Breaks in dense series; pixels are drawn with fixed seeds."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tilemap.comparison.breaks import LEAST, BreakSettings, detect_breaks
from tilemap.comparison.outcome import NO_DATE
from tilemap.errors import ConfigError, UnavailableError

Array = npt.NDArray[Any]
DAYS = np.arange(13_000, 13_000 + 16 * 161, 16, dtype=np.int64)  # seven years from 2005


@pytest.fixture
def package() -> None:
    """The optional package, or the test is skipped."""
    pytest.importorskip("pyxccd")


def series(pixels: int, seed: int = 0) -> Array:
    """NDVI with seasons and noise, no break: float (date, pixel)."""
    random = np.random.default_rng(seed)
    season = 0.1 * np.cos(2 * np.pi * DAYS / 365.2425)
    return np.asarray(0.6 + season[:, None] + random.normal(0, 0.03, (DAYS.size, pixels)))


@pytest.mark.usefixtures("package")
def test_breaks_are_found_where_they_are_and_nowhere_else() -> None:
    """Of 60 pixels that lose a third all are dated to a step, clouds or not; of 60 others none."""
    values = series(120)
    steps = np.random.default_rng(1).integers(50, 110, 60)
    for pixel, step in enumerate(steps):
        values[step:, pixel] -= 0.2
    values[np.random.default_rng(2).random(values.shape) < 0.2] = np.nan
    found = detect_breaks(DAYS, values)
    assert found.fitted.all()
    first = [DAYS[step:][np.isfinite(values[step:, p])][0] for p, step in enumerate(steps)]
    late = (found.date[:60] - np.array(first)) / 16
    assert (found.n_breaks[:60] >= 1).all()
    assert np.mean(np.abs(late) <= 1) >= 0.95
    assert (found.n_breaks[60:] == 0).mean() >= 0.98
    assert (found.date[found.n_breaks == 0] == NO_DATE).all()
    assert (found.probability[found.n_breaks == 0] == 0).all()
    assert found.date.dtype == np.int32
    assert found.n_breaks.dtype == np.uint8


@pytest.mark.usefixtures("package")
def test_of_several_breaks_the_last_is_told() -> None:
    """Cleared and grown again, below zero too: two breaks."""
    values = series(3) - 0.5
    values[50:100] -= 0.3
    found = detect_breaks(DAYS, values)
    np.testing.assert_array_equal(found.n_breaks, 2)
    np.testing.assert_allclose(found.date, DAYS[100], atol=16)
    np.testing.assert_array_equal(found.probability, 1)


@pytest.mark.usefixtures("package")
def test_a_break_at_the_end_is_not_confirmed() -> None:
    """Four observations of six say so; with six it is certain."""
    values = series(2)
    values[-4:, 0] -= 0.4
    values[-8:, 1] -= 0.4
    found = detect_breaks(DAYS, values)
    np.testing.assert_array_equal(found.n_breaks, 1)
    assert found.probability[0] == pytest.approx(4 / 6, abs=0.02)
    assert found.probability[1] == 1


@pytest.mark.usefixtures("package")
def test_series_that_are_too_short_are_left_alone() -> None:
    """What would end the process is not passed on: too few observed, none at all, no date."""
    values = series(4)
    values[LEAST - 1 :, 0] = np.nan
    values[LEAST - 1 :, 1] = 1.5  # no NDVI
    values[:, 2] = np.nan
    found = detect_breaks(DAYS, values)
    assert found.fitted.tolist() == [False, False, False, True]
    assert not found.n_breaks[:3].any()
    assert (found.date[:3] == NO_DATE).all()
    assert not detect_breaks(DAYS[:12], values[:12]).fitted.any()
    assert detect_breaks(DAYS[:0], values[:0]).date.shape == (4,)
    assert detect_breaks(DAYS, values[:, :0]).date.shape == (0,)


@pytest.mark.usefixtures("package")
def test_units_do_not_matter() -> None:
    """MODIS stores NDVI times 10,000; pixels have nothing to do with each other."""
    values = series(5)
    values[80:, 1:3] -= 0.25
    plain = detect_breaks(DAYS, values)
    stored = detect_breaks(DAYS, values[:, ::-1] * 10_000, BreakSettings(low=-1e4, high=1e4))
    for name in ("date", "n_breaks", "probability", "fitted"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(stored, name)[::-1])
    assert plain.n_breaks.tolist() == [0, 1, 1, 0, 0]


@pytest.mark.usefixtures("package")
def test_a_stricter_chance_finds_less() -> None:
    """A small step is one at 90 %, none at 99.99 %."""
    values = series(40)
    values[80:] -= 0.09
    loose, strict = (
        detect_breaks(DAYS, values, BreakSettings(chance=chance)).n_breaks.astype(bool).mean()
        for chance in (0.9, 0.9999)
    )
    assert loose > 0.8
    assert strict < 0.1


@pytest.mark.parametrize(
    ("days", "shape", "message"),
    [
        (DAYS, (160, 3), r"must be \(date, pixel\) .* got the shapes \(160, 3\) and \(161,\)"),
        (DAYS, (161,), r"must be \(date, pixel\)"),
        (DAYS[::-1], (161, 3), "days must ascend"),
        (np.zeros(30), (30, 3), "days must ascend, each once"),
        (DAYS - 800_000, (161, 3), "must lie in the common era"),
    ],
)
def test_days_and_values_belong_together(days: Array, shape: tuple[int, ...], message: str) -> None:
    """Else it is one line, with or without the package."""
    with pytest.raises(ConfigError, match=message):
        detect_breaks(days, np.zeros(shape))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"low": 1.0, "high": 1.0}, "low must lie below high, got 1 and 1"),
        ({"low": float("nan")}, "low must lie below high"),
        ({"chance": 1.0}, "chance must lie between 0 and 1, got 1"),
        ({"confirm": 0}, "confirm must be 1 to 8 observations, got 0"),
        ({"smoothing": -1.0}, "smoothing must be at least 0, got -1"),
    ],
)
def test_settings_that_cannot_hold(settings: dict[str, Any], message: str) -> None:
    """Each number says what it must be."""
    with pytest.raises(ConfigError, match=message):
        BreakSettings(**settings)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install stands in the error."""
    monkeypatch.setitem(sys.modules, "pyxccd", None)
    with pytest.raises(UnavailableError, match=r"pip install 'tilemap\[breaks\]'"):
        detect_breaks(DAYS, series(1))


@pytest.mark.usefixtures("package")
def test_another_failure_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only that nothing could be fitted is an answer."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("pyxccd.cold_detect_flex", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        detect_breaks(DAYS, series(1))
