"""Parity: how far two forms of one model agree, on the same patches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilemap.errors import ModelError
from tilemap.models.protocol import FloatArray, Model

EXACT_LIMIT = 0.005
"""Share of the labels that the same weights may change in another engine."""
INT8_LIMIT = 0.02
"""Share of the labels that rounding the weights and features to 8 bits may change."""


@dataclass(frozen=True)
class Parity:
    """How far another form of a model is from the reference.

    Args:
        pixels: number compared.
        labels_differ: share of the labels that differ, 0..1. What is not finite differs.
        largest: largest difference of one probability, 0..1; infinite where not finite.
        mean: mean over pixels and classes of the difference of the probability.
        classes: number of classes among the labels of the reference.
        confusion: pixels by label of the reference and of the other, in the order of the card's
            classes; those that are not finite are left out.
    """

    pixels: int
    labels_differ: float
    largest: float
    mean: float
    classes: int
    confusion: tuple[tuple[int, ...], ...]

    @property
    def miou(self) -> float:
        """Mean intersection over union of the labels, the reference's taken as true, 0..1."""
        return mean_iou(np.array(self.confusion))


def mean_iou(confusion: npt.NDArray[np.int64]) -> float:
    """Mean over classes of intersection over union.

    Args:
        confusion: pixels (true class, other class).

    Returns:
        0..1, over the classes that occur in either; NaN if there are none.
    """
    both = np.diag(confusion).astype(np.float64)
    either = confusion.sum(axis=0) + confusion.sum(axis=1) - both
    there = either > 0
    return float((both[there] / either[there]).mean()) if there.any() else math.nan


def count_labels(
    true: npt.NDArray[np.integer], other: npt.NDArray[np.integer], classes: int
) -> npt.NDArray[np.int64]:
    """Pixels by true and other class.

    Args:
        true: class index, any shape; pixels outside 0..classes - 1 are left out.
        other: class index of the same pixels.

    Returns:
        (true class, other class).
    """
    known = (true >= 0) & (true < classes) & (other >= 0) & (other < classes)
    pairs = true[known].astype(np.int64) * classes + other[known]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def labels_of(probability: FloatArray) -> npt.NDArray[np.intp]:
    """Labels as a run gives them: of probabilities rounded to float16, the first of equals.

    Args:
        probability: (class, y, x).

    Returns:
        Class index (y, x); -1 where a probability is not finite.
    """
    label: npt.NDArray[np.intp] = probability.astype(np.float16).argmax(axis=0)
    label[~np.isfinite(probability).all(axis=0)] = -1
    return label


def compare(reference: Model, other: Model, patches: Sequence[FloatArray]) -> Parity:
    """Run two forms of a model on the same patches.

    Args:
        reference: taken as right.
        other: of the same classes.
        patches: standardised, float32 (band, y, x), such as both models take.

    Raises:
        ModelError: if there is no patch, a model does not take one, the two differ in classes, or
            the reference gives numbers that are not finite.
    """
    if not patches:
        raise ModelError("to compare two forms of a model takes at least one patch, got none")
    classes = len(reference.card.classes)
    pixels, differ, largest, total = 0, 0, 0.0, 0.0
    confusion = np.zeros((classes, classes), np.int64)
    seen: set[int] = set()
    for patch in patches:
        one, two = reference.predict(patch), other.predict(patch)
        if one.shape != two.shape:
            raise ModelError(
                f"both forms must give an array of one shape, got {one.shape} and {two.shape}"
            )
        first, second = labels_of(one), labels_of(two)
        if first.min() < 0:
            raise ModelError(f"{reference.card.name} gives probabilities that are not finite")
        seen.update(np.unique(first).tolist())
        gap = np.abs(one - two)
        gap[~np.isfinite(gap)] = np.inf
        pixels += first.size
        differ += int(np.count_nonzero(first != second))
        largest = max(largest, float(gap.max()))
        total += float(gap.sum(dtype=np.float64))
        confusion += count_labels(first, second, classes)
    rows = tuple(tuple(int(count) for count in row) for row in confusion)
    mean = total / (pixels * classes)
    return Parity(pixels, differ / pixels, largest, mean, len(seen), rows)


def check_parity(parity: Parity, limit: float, what: str) -> None:
    """The gate: few enough labels differ, and the labels could have shown it.

    Args:
        limit: largest share of the labels that may differ, 0..1.
        what: the other form, for the error.

    Raises:
        ModelError: if more differ, or the crops show one class only.
    """
    if parity.classes < 2:
        raise ModelError(
            "the crops show one class only, so that agreement proves nothing; "
            "take a scene with several"
        )
    if not parity.labels_differ <= limit:
        raise ModelError(
            f"{what} must give the labels of the original on all but {limit:.2%} of "
            f"{parity.pixels} pixels, {parity.labels_differ:.2%} differ "
            f"(probabilities by up to {parity.largest:.2g}); nothing is kept"
        )
