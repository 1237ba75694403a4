"""Breaks in dense series of an index, such as NDVI every 16 days: COLD, through ``pyxccd``.

A model of trend and seasons is fitted to each pixel's series; a break is where several
observations in a row leave what it foretells (Zhu et al. 2020, "Continuous monitoring of land
disturbance based on Landsat time series", Remote Sensing of Environment 238). It needs years of
observations, where the hidden Markov model needs two dates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilemap.comparison.outcome import NO_DATE
from tilemap.errors import ConfigError, UnavailableError

LEAST = 24
"""Observations that a fit needs; with fewer, pyxccd 1.1.0 ends the process (segmentation fault)."""
_EPOCH = 719163  # ordinal of 1970-01-01
_FULL = 10_000  # COLD takes numbers as Landsat's are: outside 0..10,000 they count as clouds


@dataclass(frozen=True, slots=True)
class BreakSettings:
    """What counts as a break.

    Args:
        low: smallest value of the index; below it a value is not observed.
        high: largest value of the index; above it a value is not observed.
        chance: probability at which a deviation counts, 0..1.
        confirm: observations in a row that must deviate, 1 to 8.
        smoothing: weight of the penalty on the model's coefficients, for an index that was brought
            to 0..10,000; 0 is least squares.

    Raises:
        ConfigError: if a number cannot hold.
    """

    low: float = -1.0
    high: float = 1.0
    chance: float = 0.99
    confirm: int = 6
    smoothing: float = 20.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ConfigError(
                f"low must lie below high, got {self.low:g} and {self.high:g}; they are the "
                "smallest and largest value of the index"
            )
        if not 0 < self.chance < 1:
            raise ConfigError(f"chance must lie between 0 and 1, got {self.chance:g}")
        if not 1 <= self.confirm <= 8:
            raise ConfigError(f"confirm must be 1 to 8 observations, got {self.confirm}")
        if not 0 <= self.smoothing < float("inf"):
            raise ConfigError(f"smoothing must be at least 0, got {self.smoothing:g}")


@dataclass(frozen=True, slots=True)
class Breaks:
    """What was found in the series of N pixels.

    Args:
        date: first observation after the last break, days since 1970-01-01, int32 (pixel,);
            ``NO_DATE`` where there is none.
        n_breaks: uint8 (pixel,).
        probability: of the last break, float32 (pixel,), 0..1: share of ``confirm`` observations
            that deviate. Below 1 the series ended too early to confirm it; 0 without a break.
        fitted: whether a model could be fitted, bool (pixel,): without one nothing is known.
    """

    date: npt.NDArray[np.int32]
    n_breaks: npt.NDArray[np.uint8]
    probability: npt.NDArray[np.float32]
    fitted: npt.NDArray[np.bool_]


def detect_breaks(
    days: npt.NDArray[np.int64],
    values: npt.NDArray[np.floating[Any]],
    settings: BreakSettings | None = None,
) -> Breaks:
    """Find the breaks of each pixel's series, one pixel at a time (about 1 ms each).

    Args:
        days: since 1970-01-01, ascending, int64 (date,).
        values: the index, float (date, pixel); NaN where not observed.
        settings: None for the defaults, which fit an index from -1 to 1.

    Returns:
        Where fewer than ``LEAST`` dates were observed, or COLD finds no stretch that it can model,
        ``fitted`` is False.

    Raises:
        ConfigError: if days and values do not belong together.
        UnavailableError: if ``pyxccd`` is not installed.
    """
    chosen = settings or BreakSettings()
    days = np.asarray(days, dtype=np.int64)
    _check(days, values)
    cold = _cold()
    pixels = values.shape[1]
    found = Breaks(
        np.full(pixels, NO_DATE, np.int32),
        np.zeros(pixels, np.uint8),
        np.zeros(pixels, np.float32),
        np.zeros(pixels, bool),
    )
    span = chosen.high - chosen.low
    for pixel in range(pixels):
        series = np.asarray(values[:, pixel], dtype=np.float64)
        observed = (series >= chosen.low) & (series <= chosen.high)  # NaN is neither
        if observed.sum() < LEAST:
            continue
        scaled = np.rint((series[observed] - chosen.low) / span * _FULL)
        # COLD takes 0 and 10,000 for clouds as well
        whole = np.clip(scaled, 1, _FULL - 1).astype(np.int64)
        segments = _segments(cold, days[observed] + _EPOCH, whole, chosen)
        if segments is None:
            continue
        found.fitted[pixel] = True
        broken = segments[segments["t_break"] > 0]
        if broken.size:
            found.date[pixel] = broken["t_break"][-1] - _EPOCH
            found.n_breaks[pixel] = min(broken.size, 255)
            found.probability[pixel] = broken["change_prob"][-1] / 100
    return found


def _segments(
    cold: Callable[..., Any],
    ordinals: npt.NDArray[np.int64],
    series: npt.NDArray[np.int64],
    settings: BreakSettings,
) -> Any:
    """COLD's segments of one series, in order of time; None if it could fit none."""
    clear = np.zeros_like(ordinals)
    try:
        return cold(
            ordinals, series[:, None], clear, lam=settings.smoothing, p_cg=settings.chance,
            conse=settings.confirm,
        )  # fmt: skip
    except Exception as error:
        if "no change records" in str(error):  # a bare Exception is how it says so
            return None
        raise


def _cold() -> Callable[..., Any]:
    try:
        from pyxccd import cold_detect_flex
    except ImportError as error:
        raise UnavailableError(
            "break detection is a package: pip install 'tilemap[breaks]'"
        ) from error
    found: Callable[..., Any] = cold_detect_flex
    return found


def _check(days: npt.NDArray[np.int64], values: npt.NDArray[Any]) -> None:
    if days.ndim != 1 or values.ndim != 2 or values.shape[0] != days.size:
        raise ConfigError(
            "values must be (date, pixel) with one date for each day, got the shapes "
            f"{values.shape} and {days.shape}"
        )
    if (np.diff(days) <= 0).any():
        raise ConfigError("days must ascend, each once; sort the dates and merge equal ones")
    if days.size and days[0] + _EPOCH < 1:
        raise ConfigError(f"days must lie in the common era, got {days[0]} before 1970-01-01")
