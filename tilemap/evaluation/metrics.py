"""How well a class map agrees with a reference: one matrix of counts, and all that follows from it.

Counts are integers, so the matrix of a whole is the sum of the matrices of its parts, in any
order; every figure is made from the sum, once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilemap.errors import SceneError

IGNORE = 255
_AT_ONCE = 1 << 20  # pixels; their pairs take 8 bytes each

IntArray = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Figures of one confusion matrix; none of them is ever NaN.

    A share of nothing is 0: the precision of a class that was never predicted, the recall of a
    class that the reference does not show (``zero_division=0`` in scikit-learn). Classes in
    neither map nor reference are left out of ``miou`` and ``macro_f1``.

    Args:
        iou: intersection over union per class, float64 (class,), 0..1.
        precision: user's accuracy per class, float64 (class,), 0..1: of the pixels mapped as
            the class, the share that the reference calls so.
        recall: producer's accuracy per class, float64 (class,), 0..1: of the reference's pixels
            of the class, the share that is mapped so.
        f1: harmonic mean of the two per class, float64 (class,), 0..1.
        support: the reference's pixels per class, int64 (class,).
        predicted: the map's pixels per class, int64 (class,).
        present: bool (class,), True where map or reference show the class.
        miou: mean of ``iou`` over the classes present.
        macro_f1: mean of ``f1`` over the classes present.
        fwiou: mean of ``iou`` weighted by ``support``.
        overall_accuracy: share of the pixels on which both agree.
        kappa: Cohen's kappa, at most 1; 0 where chance explains everything, so too where map and
            reference show one and the same class only.
        pixels: how many were compared.
    """

    iou: _Floats
    precision: _Floats
    recall: _Floats
    f1: _Floats
    support: IntArray
    predicted: IntArray
    present: npt.NDArray[np.bool_]
    miou: float
    macro_f1: float
    fwiou: float
    overall_accuracy: float
    kappa: float
    pixels: int


def confusion(
    reference: npt.NDArray[Any], predicted: npt.NDArray[Any], classes: int, ignore: int = IGNORE
) -> IntArray:
    """Count the pixels of every pair of classes.

    Args:
        reference: class indices 0..classes - 1, or ``ignore``; integers of any shape.
        predicted: the same, of the same shape.
        classes: how many there are.
        ignore: what is not observed; a pixel that has it on either side counts nowhere.

    Returns:
        int64 (class, class): row = reference, column = predicted.

    Raises:
        SceneError: if the shapes differ, or a value is neither a class nor ``ignore``.
    """
    if reference.shape != predicted.shape:
        raise SceneError(
            f"reference and map must have one shape, got {reference.shape} and {predicted.shape}"
        )
    counts = np.zeros(classes * classes, dtype=np.int64)
    rows, cols = reference.reshape(-1), predicted.reshape(-1)
    for start in range(0, rows.size, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        row, col = rows[part], cols[part]
        seen = (row != ignore) & (col != ignore)
        row, col = row[seen].astype(np.int64), col[seen].astype(np.int64)
        _check(row, classes, ignore, "reference")
        _check(col, classes, ignore, "map")
        counts += np.bincount(row * classes + col, minlength=classes * classes)
    return counts.reshape(classes, classes)


def _check(values: IntArray, classes: int, ignore: int, name: str) -> None:
    if values.size and (values.min() < 0 or values.max() >= classes):
        odd = values[(values < 0) | (values >= classes)][0]
        raise SceneError(
            f"the {name} must have class indices 0..{classes - 1} or {ignore} (ignored), got {odd}"
        )


def scores(matrix: npt.NDArray[Any]) -> Scores:
    """All figures of a confusion matrix.

    Args:
        matrix: counts (class, class) as ``confusion`` makes them, or a sum of such.

    Raises:
        SceneError: if no pixel was compared: there is nothing to say then.
    """
    counts = np.asarray(matrix, dtype=np.int64)
    pixels = int(counts.sum())
    if pixels == 0:
        raise SceneError("at least one pixel must be compared, map and reference share none")
    both = counts.diagonal()
    support, predicted = counts.sum(axis=1), counts.sum(axis=0)
    union = support + predicted - both
    present = union > 0
    iou = _share(both, union)
    f1 = _share(2 * both, support + predicted)
    accuracy = int(both.sum()) / pixels
    return Scores(
        iou=iou,
        precision=_share(both, predicted),
        recall=_share(both, support),
        f1=f1,
        support=support,
        predicted=predicted,
        present=present,
        miou=float(iou[present].mean()),
        macro_f1=float(f1[present].mean()),
        fwiou=float((support * iou).sum() / pixels),
        overall_accuracy=accuracy,
        kappa=_kappa(support, predicted, int(both.sum())),
        pixels=pixels,
    )


def _share(part: IntArray, whole: IntArray) -> _Floats:
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)


def _kappa(support: IntArray, predicted: IntArray, agreed: int) -> float:
    """(observed - chance) / (1 - chance), Cohen 1960, from whole numbers until the last division.

    Python's integers: the products of two counts of a large scene need more than 64 bits.
    """
    pixels = int(support.sum())
    chance = sum(int(r) * int(p) for r, p in zip(support, predicted, strict=True))
    rest = pixels * pixels - chance
    return (agreed * pixels - chance) / rest if rest else 0.0
