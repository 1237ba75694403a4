"""Segment: a patch to labels of its core and probabilities of its frame."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tilemap.errors import ModelError
from tilemap.geometry import Tile, TileGrid
from tilemap.models.card import ModelCard
from tilemap.models.protocol import FloatArray, Model
from tilemap.probability import quantise
from tilemap.scene import Scene, check_fills
from tilemap.stores.predictions import Prediction, Uncertainty, frame_windows

NODATA = 255
ROUNDING = 1e-3
"""How far a probability may lie outside 0..1 by rounding alone: one step of float16 below 1."""
_ONE = int(np.float16(1.0).view(np.uint16))
_PERCENT = np.full(_ONE + 1, 0, dtype=np.uint8)
_PERCENT[:] = np.rint(
    np.arange(_ONE + 1, dtype=np.uint16).view(np.float16).astype(np.float64) * 100
).astype(np.uint8)
_HALVES = np.arange(_ONE + 1, dtype=np.uint16).view(np.float16).astype(np.float64)
_ENTROPY = (-_HALVES * np.log(np.maximum(_HALVES, np.finfo(np.float64).tiny))).astype(np.float32)
"""-p log p of every float16 number from 0 to 1, by its bits."""

HalfArray = npt.NDArray[np.float16]
ByteArray = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]


def standardise(
    image: npt.NDArray[Any], valid: BoolArray, scene: Scene, card: ModelCard
) -> FloatArray:
    """Stored numbers to what the model takes.

    ``(stored * scale + offset - mean) / std`` per band; a pixel that was not observed becomes 0,
    the mean of the training data, so it neither spoils nor tilts what lies around it.

    Args:
        image: as stored (band, y, x), bands in the order of ``card.bands``.
        valid: (y, x), True = observed.

    Returns:
        float32 (band, y, x), finite wherever ``valid``; 0 elsewhere.

    Raises:
        SceneError: if the model takes reflectance and the image holds undeclared fill numbers.
    """
    bands = len(card.bands)
    scale, offset = np.ones(bands, np.float32), np.zeros(bands, np.float32)
    if card.units == "reflectance":
        scale, offset = scene.scaling()
        check_fills(scene, image, valid)
    mean = np.array(card.mean or (0.0,) * bands, dtype=np.float32)
    std = np.array(card.std or (1.0,) * bands, dtype=np.float32)
    out = np.empty(image.shape, dtype=np.float32)
    for band in range(bands):
        np.multiply(image[band], scale[band] / std[band], out=out[band], dtype=np.float32)
        shift = (offset[band] - mean[band]) / std[band]
        if shift:
            out[band] += shift
    if not valid.all():
        out[:, ~valid] = 0.0
    return out


def round_probability(probability: FloatArray) -> HalfArray:
    """Round to float16, once, before anything is decided.

    What lies outside 0..1 by ``ROUNDING`` at most, -0.0 included, is clipped.

    Raises:
        ModelError: if the model gave something that is no probability.
    """
    half = _to_half(probability)
    if half.size and int(half.view(np.uint16).max()) > _ONE:
        if probability.min() >= -ROUNDING and probability.max() <= 1 + ROUNDING:  # not with NaN
            return _to_half(np.clip(probability, 0, 1) + np.float32(0))  # -0.0 + 0 is 0
        raise ModelError(
            "a model must give probabilities between 0 and 1, got "
            f"{np.nanmin(probability):.3g} to {np.nanmax(probability):.3g}, "
            f"{np.count_nonzero(~np.isfinite(probability))} of them not finite"
        )
    return half


def _to_half(values: FloatArray) -> HalfArray:
    # Both round to nearest even; torch does so 2.5 times as fast, and is there if it made them.
    torch = sys.modules.get("torch")
    if torch is None:
        return values.astype(np.float16)
    half: HalfArray = torch.from_numpy(values).half().numpy()
    return half


def classify(probability: HalfArray) -> tuple[ByteArray, ByteArray]:
    """Most probable class and its probability.

    Float16 numbers from 0 to 1 keep their order when their bits are read as integers, which is
    many times faster to compare. Of equals the first class wins.

    Args:
        probability: float16 (class, y, x), 0..1.

    Returns:
        Class index and percent, uint8 (y, x) each.
    """
    bits = probability.view(np.uint16)
    best = bits[0].copy()
    label = np.zeros(best.shape, dtype=np.uint8)
    for index in range(1, bits.shape[0]):
        above = bits[index] > best
        np.copyto(label, np.uint8(index), where=above)
        np.maximum(best, bits[index], out=best)
    return label, _PERCENT[best]


def measure_uncertainty(probability: HalfArray, measure: Uncertainty) -> ByteArray:
    """How undecided the model is, in percent.

    Args:
        probability: float16 (class, y, x), 0..1, two classes or more.
        measure: "entropy", Shannon's, of the largest there is (``-sum p log p / log K``), 0 where
            one class is certain and 100 where all are equal; "margin", the largest probability
            less the second, 0 where two are equal and 100 where one is certain.

    Returns:
        uint8 (y, x), 0..100.
    """
    bits = probability.view(np.uint16)
    if measure == "entropy":
        total = _ENTROPY[bits[0]]
        for plane in bits[1:]:
            total += _ENTROPY[plane]
        total *= np.float32(100 / np.log(len(bits)))
        return _as_percent(total)
    first, second = np.maximum(bits[0], bits[1]), np.minimum(bits[0], bits[1])
    for plane in bits[2:]:
        np.maximum(second, np.minimum(first, plane), out=second)
        np.maximum(first, plane, out=first)
    # Exact: float32 holds the difference of any two float16 numbers between 0 and 1.
    gap = first.view(np.float16).astype(np.float32) - second.view(np.float16)
    return _as_percent(gap * np.float32(100))


def _as_percent(values: FloatArray) -> ByteArray:
    percent: ByteArray = np.minimum(np.rint(values), np.float32(100)).astype(np.uint8)
    return percent


def segment_patch(
    grid: TileGrid,
    tile: Tile,
    image: FloatArray,
    valid: BoolArray,
    model: Model,
    uncertainty: Sequence[Uncertainty] = (),
    probabilities: bool = False,
) -> Prediction:
    """Run the model on one patch and keep what the stitch needs.

    Args:
        image: standardised patch, float32 (band, y, x).
        valid: (y, x) of the patch.
        uncertainty: measures that are to be kept.
        probabilities: keep those of the core too.

    Returns:
        Labels and confidence of the core, 255 where not observed; probabilities of the frame.

    Raises:
        ModelError: if the model gives something that is no probability.
    """
    patch, outer, core = grid.patch_window(tile), grid.blend_window(tile), grid.core_window(tile)
    rows, cols = outer.within(patch)
    crop = type(patch)(rows.start, cols.start, rows.stop, cols.stop)
    half = round_probability(model.predict(image, crop))
    inner = half[:, *core.within(outer)]
    label, confidence = classify(inner)
    measured = {name: measure_uncertainty(inner, name) for name in uncertainty}
    hidden = ~valid[core.within(patch)]
    for layer in (label, confidence, *measured.values()):
        layer[hidden] = NODATA
    quantised = None
    if probabilities:
        quantised = quantise(inner)
        quantised[:, hidden] = NODATA
    frame = {
        side: np.ascontiguousarray(half[:, *window.within(outer)])
        for side, window in frame_windows(grid, tile).items()
    }
    return Prediction(label, confidence, frame, measured, quantised)
