"""The numbers that a method of change needs, some of them from a sample of the series itself."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tilemap.comparison.emission import emission_table, emissions
from tilemap.comparison.fitting import fit_rate
from tilemap.comparison.pairs import magnitudes, otsu
from tilemap.comparison.transition import from_rate, steps
from tilemap.probability import NODATA, VALUES
from tilemap.stages.change import Method

if TYPE_CHECKING:
    from tilemap.changing.prepare import PreparedSeries
    from tilemap.stores.series import DateStore

SAMPLE_TILES, SAMPLE_PIXELS = 16, 20_000
SEED = 0


def method_of(prepared: PreparedSeries, stores: list[DateStore]) -> Method:
    """Everything a core needs to be compared; the sample is the same each time."""
    settings, days, classes = prepared.settings, prepared.days, len(prepared.classes)
    uniform = np.full(classes, 1 / classes)
    blank = np.zeros((len(days) - 1, classes, classes))
    if settings.method == "pcc":
        table = np.ones((classes, 256))
        return Method("pcc", days, classes, uniform, blank, table)
    if settings.method == "cvaps":
        threshold = settings.threshold
        if threshold is None:
            spread = sample(prepared, stores)
            lengths = [magnitudes(one, two) for one, two in pairwise(spread)]
            threshold = float(otsu(np.concatenate(lengths)))
        return Method("cvaps", days, classes, uniform, blank, np.ones((classes, 256)), threshold)
    prior = uniform
    pixels: npt.NDArray[np.uint8] | None = None
    if settings.prior == "series" or settings.rate == "fit":
        pixels = sample(prepared, stores)
    if settings.prior == "series" and pixels is not None:
        seen = pixels[:, :1] != NODATA
        total = np.where(seen, VALUES[pixels], 0).sum(axis=(0, 2))
        prior = np.maximum(total / max(total.sum(), 1.0), 1e-3)
        prior /= prior.sum()
    table = emission_table(prior, settings.tau)
    assert prepared.transitions is not None
    annual = prepared.transitions
    if settings.rate == "fit" and settings.transitions is None and pixels is not None:
        annual = from_rate(fit_rate(emissions(pixels, table), days, prior), classes)
    return Method("hmm", days, classes, prior, steps(annual, days), table, annual=annual)


def sample(prepared: PreparedSeries, stores: list[DateStore]) -> npt.NDArray[np.uint8]:
    """Pixels spread over the map, drawn with a fixed seed: uint8 (date, class, pixel)."""
    grid = prepared.grid
    tiles = list(grid.tiles())
    random = np.random.default_rng(SEED)
    chosen = random.permutation(len(tiles))[:SAMPLE_TILES]
    parts = []
    for index in sorted(chosen):
        window = grid.core_window(tiles[index])
        stack = np.stack([store.read_window(window) for store in stores])
        flat = stack.reshape(*stack.shape[:2], -1)
        count = min(flat.shape[-1], SAMPLE_PIXELS // len(chosen) + 1)
        parts.append(flat[..., np.sort(random.permutation(flat.shape[-1])[:count])])
    return np.ascontiguousarray(np.concatenate(parts, axis=-1))
