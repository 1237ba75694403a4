"""How light, air and season vary: pure kernels on physical values, before standardising.

None of them looks at labels or touches what was not observed. What they are drawn from stands in
``AugmentConfig``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tilemap.training.config import AugmentConfig

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

WAVELENGTH = {
    "coastal": 0.443, "blue": 0.49, "green": 0.56, "yellow": 0.6, "pan": 0.6, "red": 0.665,
    "rededge": 0.72, "rededge1": 0.705, "rededge2": 0.74, "rededge3": 0.783,
    "nir": 0.842, "nir08": 0.865, "nir09": 0.945, "cirrus": 1.375, "swir16": 1.61, "swir22": 2.19,
}  # fmt: skip
"""Micrometres at the middle of a band, by its common name."""
_GREENER = {
    "red": -0.7, "swir16": -0.7, "swir22": -0.7, "rededge": 1.0, "rededge2": 1.0,
    "rededge3": 1.0, "nir": 1.0, "nir08": 1.0, "nir09": 1.0,
}  # fmt: skip
"""What more vegetation does to a band: its leaves absorb red, their water the short-wave infrared,
and they reflect beyond the red edge."""
_HAZE_POWER = 2.0  # of the wavelength; Chavez (1988) has -4 for very clear and -0.5 for hazy air
_SHADE = (0.2, 0.6)  # share of the light that a shadow takes
_GROWTH = (0.05, 0.3)  # relative change of a band that vegetation makes


def brighten(image: FloatArray, gain: FloatArray, offset: FloatArray) -> FloatArray:
    """Other light, other calibration: ``image * gain + offset``, one number each per band.

    Args:
        image: (band, y, x).
        gain: (band,), 1 is none.
        offset: (band,), in units of the image.
    """
    return image * gain[:, None, None] + offset[:, None, None]


def add_haze(image: FloatArray, amount: FloatArray, thickness: FloatArray) -> FloatArray:
    """Light that the air scatters into the view.

    Args:
        image: (band, y, x).
        amount: (band,), where it is thickest, in units of the image.
        thickness: (y, x), 0..1.
    """
    return image + amount[:, None, None] * thickness


def haze_by_band(bands: Sequence[str], std: FloatArray, strength: float) -> FloatArray:
    """How much haze each band gets: by the inverse square of its wavelength.

    Args:
        bands: common names; those without a wavelength get none.
        std: of each band, in units of the image.
        strength: of the shortest wave, in its standard deviations.

    Returns:
        float32 (band,), in units of the image.
    """
    waves = [WAVELENGTH.get(name) for name in bands]
    known = [(wave, index) for index, wave in enumerate(waves) if wave is not None]
    amount = np.zeros(len(bands), dtype=np.float32)
    if known:
        shortest, first = min(known)
        for wave, index in known:
            amount[index] = strength * std[first] * (shortest / wave) ** _HAZE_POWER
    return amount


def cast_shadow(image: FloatArray, shaded: BoolArray, depth: FloatArray) -> FloatArray:
    """The shadow of a cloud takes light away.

    Args:
        image: (band, y, x).
        shaded: (band,), those that see sunlight.
        depth: (y, x), share of the light that is taken, 0..1.
    """
    return image * np.where(shaded[:, None, None], 1 - depth, np.float32(1))


def turn_season(image: FloatArray, change: FloatArray, growth: FloatArray) -> FloatArray:
    """Vegetation is greener or drier than it was.

    Args:
        image: (band, y, x).
        change: (band,), relative, where it grew most.
        growth: (y, x), 0..1.
    """
    return image * (1 + change[:, None, None] * growth)


def add_noise(image: FloatArray, std: FloatArray, random: np.random.Generator) -> FloatArray:
    """Noise of the sensor, by itself in every pixel and band.

    Args:
        image: (band, y, x).
        std: (band,), in units of the image.
        random: where chance comes from.
    """
    noise = random.standard_normal(image.shape, dtype=np.float32)
    noise *= std[:, None, None]
    noise += image
    return noise


def smooth_field(random: np.random.Generator, shape: tuple[int, int], cells: int) -> FloatArray:
    """Chance that is smooth in space.

    Args:
        random: where chance comes from.
        shape: (y, x).
        cells: hills and hollows across.

    Returns:
        float32 (y, x), 0..1.
    """
    knots = random.random((cells + 1, cells + 1))
    down, across = (_weights(length, cells) for length in shape)
    return np.clip(down @ knots @ across.T, 0, 1).astype(np.float32)


def _weights(length: int, cells: int) -> npt.NDArray[np.float64]:
    """Of each knot at each pixel, (pixel, knot): cubic between knots, flat at them."""
    place = (np.arange(length) + 0.5) / length * cells
    at = np.floor(place).astype(np.intp)
    share = smooth_step(place - at)
    weights = np.zeros((length, cells + 1))
    index = np.arange(length)
    weights[index, at] = 1 - share
    weights[index, at + 1] = share
    return weights


def smooth_step(share: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """From 0 to 1 without a corner: ``3 s^2 - 2 s^3``, flat beyond both."""
    held = np.clip(share, 0, 1)
    return np.asarray(held * held * (3 - 2 * held))


def vary(
    image: FloatArray,
    valid: BoolArray,
    bands: Sequence[str],
    std: FloatArray,
    config: AugmentConfig,
    random: np.random.Generator,
) -> FloatArray:
    """All of it, drawn by chance.

    Args:
        image: physical values, float32 (band, y, x).
        valid: (y, x); elsewhere the image stays as it is.
        bands: common names; what haze, shadow and season do depends on them.
        std: standard deviation of each band, float32 (band,), in units of the image.
        config: how much; every amount at 0 gives the image back.
        random: where chance comes from.

    Returns:
        float32 (band, y, x).
    """
    out = _with_season(image, bands, config, random)
    out = _with_shadow(out, bands, config, random)
    if config.haze:
        strength = float(random.uniform(0, config.haze))
        thickness = smooth_field(random, valid.shape, 2)
        out = add_haze(out, haze_by_band(bands, std, strength), thickness)
    if config.gain or config.band_gain or config.offset:
        whole = random.normal(0, config.gain) if config.gain else 0.0
        each = random.normal(0, 1, len(bands)) * config.band_gain
        shift = random.normal(0, 1, len(bands)) * config.offset * std
        gain = np.exp(whole + each).astype(np.float32)
        out = brighten(out, gain, shift.astype(np.float32))
    if config.noise:
        out = add_noise(out, (std * config.noise).astype(np.float32), random)
    if out is not image:
        np.copyto(out, image, where=~valid)
    return out


def _with_season(
    image: FloatArray, bands: Sequence[str], config: AugmentConfig, random: np.random.Generator
) -> FloatArray:
    if not config.season or random.random() >= config.season:
        return image
    sign = 1 if random.integers(2) else -1
    strength = sign * random.uniform(*_GROWTH)
    change = np.array([_GREENER.get(name, 0.0) for name in bands]) * strength
    growth = smooth_field(random, (image.shape[1], image.shape[2]), 4)
    return turn_season(image, change.astype(np.float32), growth)


def _with_shadow(
    image: FloatArray, bands: Sequence[str], config: AugmentConfig, random: np.random.Generator
) -> FloatArray:
    if not config.shadow or random.random() >= config.shadow:
        return image
    field = smooth_field(random, (image.shape[1], image.shape[2]), 3)
    edge = random.uniform(0.4, 0.7)
    depth = smooth_step((field - edge) / 0.15) * random.uniform(*_SHADE)
    shaded = np.array([name in WAVELENGTH for name in bands])
    return cast_shadow(image, shaded | ~shaded.any(), depth.astype(np.float32))
