"""The probe: how far a model looks, and the smallest halo that hides it, measured on real pixels.

Two experiments. One pixel is moved, and the farthest probability that changes tells the context,
where there is a bound. Crops of a scene are predicted in a patch and again with far more around
them; the smallest margin beyond which both agree is the halo.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilemap.errors import ModelError
from tilemap.geometry import Window
from tilemap.models.protocol import FloatArray, Model

PATCH = 512
FAR = 256
"""Pixels of scene around a patch in the reference."""
LABEL_TOLERANCE = 1e-3
PROBABILITY_TOLERANCE = 0.01
STEP = 4


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What the probe found.

    Args:
        context: farthest pixel a moved pixel changes by more than 1e-6; None if it reached the
            edge of the patch, so that there may be no bound.
        halo: smallest margin at which the tolerances hold; None if none of those tried does.
        margins: margins tried, pixels.
        labels: share of labels that differ from the reference at each margin.
        probabilities: mean over pixels of the largest difference of one class at each, 0..1.
    """

    context: int | None
    halo: int | None
    margins: tuple[int, ...]
    labels: tuple[float, ...]
    probabilities: tuple[float, ...]


def patch_side(model: Model) -> int:
    """Side of the patches the probe tries."""
    card = model.card
    return card.patch or max(PATCH // card.stride, 1) * card.stride


def region_side(model: Model) -> int:
    """Side of the crops of a scene the probe needs: a patch with ``far`` around it."""
    return patch_side(model) + 2 * far_of(model)


def far_of(model: Model) -> int:
    """Pixels around a patch in the reference."""
    card = model.card
    if card.patch is None:
        return max(FAR // card.stride, 1) * card.stride
    # Three eighths: the reference then takes at most some 16 forwards, whatever the stride.
    return card.patch * 3 // 8 // card.stride * card.stride


def _reference(model: Model, region: FloatArray) -> FloatArray:
    """Probabilities of the patch in the middle of a region, each with all around it."""
    side, far, fixed = patch_side(model), far_of(model), model.card.patch
    if fixed is None:
        return model.predict(region, Window(far, far, far + side, far + side))
    core = fixed - 2 * far
    rows = []
    for top in range(0, side, core):
        row = [
            model.predict(
                np.ascontiguousarray(region[:, top : top + fixed, left : left + fixed]),
                Window(far, far, far + core, far + core),
            )
            for left in range(0, side, core)
        ]
        rows.append(np.concatenate(row, axis=2))
    return np.concatenate(rows, axis=1)[:, :side, :side]


def probe_halo(model: Model, regions: Sequence[FloatArray]) -> ProbeResult:
    """Measure context and halo.

    A margin is enough if at most 1 label in 1,000 differs from the reference, and probabilities
    differ by at most 0.01 in the mean.

    Args:
        regions: crops of a real scene, standardised, float32 (band, y, x), each
            ``region_side(model)`` pixels a side.

    Raises:
        ModelError: if there is no region, one has another size, or all of them show one class: no
            label can differ then, and any margin would do.
    """
    side, far, wanted = patch_side(model), far_of(model), region_side(model)
    if not regions or any(region.shape[1:] != (wanted, wanted) for region in regions):
        shapes = [region.shape for region in regions]
        raise ModelError(f"the probe needs crops of {wanted} x {wanted} pixels, got {shapes}")
    margins = tuple(range(0, side // 2 - max(side // 8, 1), STEP))
    labels, probabilities = np.zeros(len(margins)), np.zeros(len(margins))
    pixels = np.zeros(len(margins))
    classes: set[int] = set()
    for region in regions:
        near = model.predict(np.ascontiguousarray(region[:, far : far + side, far : far + side]))
        wide = _reference(model, region)
        label = wide.argmax(axis=0)
        classes.update(np.unique(label).tolist())
        other_label = near.argmax(axis=0) != label
        gap = np.abs(near - wide).max(axis=0)
        for index, margin in enumerate(margins):
            inner = slice(margin, side - margin)
            labels[index] += np.count_nonzero(other_label[inner, inner])
            probabilities[index] += gap[inner, inner].sum(dtype=np.float64)
            pixels[index] += (side - 2 * margin) ** 2
    if len(classes) < 2:
        name = model.card.classes[min(classes)].name
        raise ModelError(
            f"the crops show one class only ({name}), so that any halo would do; "
            "take a scene with several"
        )
    labels, probabilities = labels / pixels, probabilities / pixels
    good = (labels <= LABEL_TOLERANCE) & (probabilities <= PROBABILITY_TOLERANCE)
    # The smallest margin from which on every larger one is good too.
    bad = np.flatnonzero(~good)
    first = 0 if bad.size == 0 else int(bad[-1]) + 1
    halo = margins[first] if first < len(margins) else None
    context = probe_context(model, regions[0][:, far : far + side, far : far + side])
    return ProbeResult(
        context, halo, margins, tuple(labels.tolist()), tuple(probabilities.tolist())
    )


def probe_context(model: Model, patch: FloatArray, shifts: int = 4) -> int | None:
    """Farthest pixel whose probability changes by more than 1e-6 when one pixel is moved.

    A strided model looks farther from some pixels than from others, so pixels at several places
    within a stride are moved, each by three standard deviations up and down.

    Returns:
        Pixels, or None if a change reached the edge of the patch.
    """
    side, stride = patch.shape[1], model.card.stride
    before = model.predict(np.ascontiguousarray(patch))
    middle = side // 2 // stride * stride
    farthest = 0
    for shift in range(0, stride, max(stride // shifts, 1)):
        row, col = middle + shift, middle + (stride - 1 - shift)
        for move in (3.0, -3.0):
            moved = patch.copy()
            moved[:, row, col] += move
            changed = np.abs(model.predict(moved) - before).max(axis=0) > 1e-6
            reach = _reach(changed, row, col)
            if reach is None:
                return None
            farthest = max(farthest, reach)
    return farthest


def _reach(changed: npt.NDArray[np.bool_], row: int, col: int) -> int | None:
    rows, cols = np.nonzero(changed)
    if rows.size == 0:
        return 0
    last = changed.shape[0] - 1
    if min(rows.min(), cols.min()) == 0 or max(rows.max(), cols.max()) == last:
        return None
    return int(max(np.abs(rows - row).max(), np.abs(cols - col).max()))
