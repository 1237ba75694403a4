"""Figures of a confusion matrix against scikit-learn, and what holds for every matrix."""

from __future__ import annotations

import warnings
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from tilemap.errors import SceneError
from tilemap.evaluation.metrics import IGNORE, confusion, scores

Maps = tuple[int, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]


@st.composite
def pairs(draw: st.DrawFn) -> Maps:
    """A reference and a map of some classes; not all of them need occur, some pixels ignored."""
    classes = draw(st.integers(1, 7))
    shape = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shown = rng.integers(1, classes + 1)
    reference = rng.integers(0, shown, shape).astype(np.uint8)
    other = rng.integers(0, classes, shape).astype(np.uint8)
    predicted = np.where(rng.random(shape) < rng.random(), reference, other)
    reference[rng.random(shape) < draw(st.sampled_from([0.0, 0.3]))] = IGNORE
    predicted[rng.random(shape) < draw(st.sampled_from([0.0, 0.3]))] = IGNORE
    return classes, reference, predicted


@given(pairs())
def test_figures_are_those_of_scikit_learn(maps: Maps) -> None:
    """Every figure agrees with scikit-learn's on the pixels that both maps observe."""
    classes, reference, predicted = maps
    matrix = confusion(reference, predicted, classes)
    seen = (reference != IGNORE) & (predicted != IGNORE)
    true, found = reference[seen], predicted[seen]
    if not true.size:
        assert not matrix.any()
        return
    labels = list(range(classes))
    got = scores(matrix)
    close: Any = lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)  # noqa: E731
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one class only: scikit-learn's kappa is 0 / 0
        np.testing.assert_array_equal(matrix, sk.confusion_matrix(true, found, labels=labels))
        options = {"labels": labels, "average": None, "zero_division": 0}
        close(got.iou, sk.jaccard_score(true, found, **options))
        precision, recall, f1, support = sk.precision_recall_fscore_support(true, found, **options)
        close(got.miou, sk.jaccard_score(true, found, average="macro", zero_division=0))
        close(got.fwiou, sk.jaccard_score(true, found, average="weighted", zero_division=0))
        close(got.macro_f1, sk.f1_score(true, found, average="macro", zero_division=0))
        kappa = sk.cohen_kappa_score(true, found)
    close(got.precision, precision)
    close(got.recall, recall)
    close(got.f1, f1)
    np.testing.assert_array_equal(got.support, support)
    close(got.overall_accuracy, sk.accuracy_score(true, found))
    close(got.kappa, 0.0 if np.isnan(kappa) else kappa)
    assert got.pixels == true.size
    np.testing.assert_array_equal(got.present, np.isin(labels, np.union1d(true, found)))


@given(pairs(), st.integers(1, 9))
def test_the_matrix_of_a_whole_is_the_sum_over_its_parts(maps: Maps, rows: int) -> None:
    """Cut into strips of any height, the counts add up exactly."""
    classes, reference, predicted = maps
    parts = [
        confusion(reference[top : top + rows], predicted[top : top + rows], classes)
        for top in range(0, reference.shape[0], rows)
    ]
    np.testing.assert_array_equal(sum(parts), confusion(reference, predicted, classes))


def test_more_pixels_than_are_counted_at_once() -> None:
    """The pieces of a large array are counted once each."""
    rng = np.random.default_rng(0)
    reference, predicted = rng.integers(0, 3, (2, 1100, 1000)).astype(np.uint8)
    expected = sk.confusion_matrix(reference.ravel(), predicted.ravel())
    np.testing.assert_array_equal(confusion(reference, predicted, 3), expected)


@pytest.mark.parametrize("matrix", [[[5]], [[0, 0], [0, 7]], [[0, 3], [0, 0]], [[0, 0], [4, 0]]])
def test_no_figure_is_ever_nan(matrix: list[list[int]]) -> None:
    """Classes that do not occur, or are never right, give 0."""
    got = scores(np.array(matrix))
    for field in fields(got):
        assert np.isfinite(getattr(got, field.name)).all(), field.name
    assert got.kappa == 0


def test_an_absent_class_takes_no_part_in_a_mean() -> None:
    """The third class occurs nowhere: means are over two."""
    got = scores(np.array([[4, 0, 0], [2, 2, 0], [0, 0, 0]]))
    assert got.present.tolist() == [True, True, False]
    assert got.miou == pytest.approx((4 / 6 + 2 / 4) / 2, abs=1e-15)


def test_counts_of_a_continent_do_not_overflow() -> None:
    """Kappa of 10^13 pixels is that of the same matrix a million million times smaller."""
    small = np.array([[50, 10], [5, 35]])
    large = small * 10**11
    assert scores(large).kappa == pytest.approx(scores(small).kappa, abs=1e-15)


def test_unknown_values_and_shapes_are_errors() -> None:
    """The text names what came."""
    good = np.zeros((2, 3), dtype=np.uint8)
    with pytest.raises(SceneError, match=r"reference must have class indices 0..1 .*got 2"):
        confusion(good + 2, good, 2)
    with pytest.raises(SceneError, match=r"map must have class indices 0..1 .*got 9"):
        confusion(good, good + 9, 2)
    with pytest.raises(SceneError, match="got -1"):
        confusion(good.astype(int) - 1, good, 2)
    with pytest.raises(SceneError, match="one shape"):
        confusion(good, good.T, 2)
    with pytest.raises(SceneError, match="at least one pixel"):
        scores(np.zeros((2, 2)))
