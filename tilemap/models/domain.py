"""Whether a scene looks like what a model was trained on, told from a sample before the run.

A network says something of any numbers. Where they lie beyond those it has seen, what it says is a
guess, and no figure of the run shows it: confidence is often high there.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilemap.errors import ModelError
from tilemap.models.card import QUANTILES, BandStatistics, ModelCard

OUTSIDE = 0.2
"""Share of a band's pixels beyond the training's 1-99 % range from which on it is warned of.

Measured on real scenes: at most 0.04 of a scene that was in the training, 0.01 of its neighbour of
the same pass; 0.34 or more of every band with a scale ten times too large or small, 1.00 of one of
them; 0.97 for another sensor's scene of another country. Quarters of one scene of coast and fields,
each against another, have 0.04 to 0.40: less ground than that is not enough to train on.
"""
GSD_FACTOR = 1.5
"""How far the pixel size may lie beyond the training's, up or down."""
_LOW, _Q1, _MEDIAN, _Q3, _HIGH = (QUANTILES.index(q) for q in (0.01, 0.25, 0.5, 0.75, 0.99))
_NAMED = 3

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class BandDomain:
    """One band of a scene against the training data, in the units of the card.

    Args:
        outside: share of the scene's pixels beyond the training's 1-99 % range, 0..1.
        distance: of the medians, in interquartile ranges of the training; None where that is 0.
        training: at ``QUANTILES``.
        scene: at ``QUANTILES``.
    """

    name: str
    outside: float
    distance: float | None
    training: tuple[float, ...]
    scene: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class DomainReport:
    """A scene against what one model was trained on.

    Args:
        model: its name.
        units: of the bands, as the card has them.
        bands: those of the card; none where the card has no statistics.
        gsd_m: pixel of the scene, metres; None where it is not known.
        trained_gsd_m: smallest and largest pixel of the training; None where it is not known.
    """

    model: str
    units: str
    bands: tuple[BandDomain, ...]
    gsd_m: float | None
    trained_gsd_m: tuple[float, float] | None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know, a line each; nothing where all is as in the training."""
        found = (self._of_bands(), self._of_pixels())
        return tuple(text for text in found if text)

    def _of_bands(self) -> str:
        far = sorted((b for b in self.bands if b.outside > OUTSIDE), key=lambda b: -b.outside)
        if not far:
            return ""
        names = ", ".join(band.name for band in far[:_NAMED])
        if len(far) > _NAMED:
            names += f" and {len(far) - _NAMED} more"
        each = "at most " if len(far) > 1 else ""
        share = f"{each}{100 * far[0].outside:.0f} %"
        return (
            f"{names} {'lie' if len(far) > 1 else 'lies'} outside what {self.model} was trained on "
            f"({share} of the pixels beyond its 1-99 % range); are scale and units right? "
            "Expect errors"
        )

    def _of_pixels(self) -> str:
        if self.gsd_m is None or self.trained_gsd_m is None:
            return ""
        least, most = self.trained_gsd_m
        if least / GSD_FACTOR <= self.gsd_m <= most * GSD_FACTOR:
            return ""
        known = f"{least:.3g} m" if least == most else f"{least:.3g} to {most:.3g} m"
        return (
            f"pixels are {self.gsd_m:.3g} m, {self.model} was trained on {known}; expect errors, "
            "or bring the scene to that with `resolution`"
        )

    def record(self) -> dict[str, Any]:
        """For ``run.json``."""
        return {**asdict(self), "warnings": list(self.warnings)}


def check_domain(card: ModelCard, sample: FloatArray, gsd_m: float | None) -> DomainReport | None:
    """Compare a sample of a scene with what the card says of the training data.

    Args:
        card: with ``statistics``, ``gsd_m``, or neither.
        sample: observed pixels, float32 (band, n), bands and units as the card has them; n may
            be 0, then nothing is said of the bands.
        gsd_m: side of a pixel on the ground, metres; None if it is not known.

    Returns:
        None where the card says nothing, or nothing can be compared.

    Raises:
        ModelError: if the sample has other bands.
    """
    if sample.ndim != 2 or len(sample) != len(card.bands):
        raise ModelError(
            f"a sample for {card.name} must be (band, n) with {len(card.bands)} bands, "
            f"got {sample.shape}"
        )
    bands: tuple[BandDomain, ...] = ()
    if card.statistics is not None and sample.shape[1]:
        bands = tuple(
            _compare(name, known, plane)
            for name, known, plane in zip(card.bands, card.statistics, sample, strict=True)
        )
    comparable = gsd_m is not None and card.gsd_m is not None
    if not bands and not comparable:
        return None
    return DomainReport(card.name, card.units, bands, gsd_m, card.gsd_m)


def _compare(name: str, known: BandStatistics, plane: FloatArray) -> BandDomain:
    training = known.quantiles
    outside = np.count_nonzero((plane < training[_LOW]) | (plane > training[_HIGH])) / plane.size
    scene = tuple(float(value) for value in np.quantile(plane, QUANTILES))
    spread = training[_Q3] - training[_Q1]
    distance = (scene[_MEDIAN] - training[_MEDIAN]) / spread if spread > 0 else None
    return BandDomain(name, outside, distance, training, scene)
