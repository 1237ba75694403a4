"""What differs is counted; what proves nothing is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import confusion_matrix, jaccard_score

from tilemap.errors import ModelError
from tilemap.models.card import ModelCard
from tilemap.models.parity import (
    Parity,
    check_parity,
    compare,
    count_labels,
    labels_of,
    mean_iou,
)
from tilemap.testing import toy_card


class Fixed:
    """Gives the probabilities it was given, in turn."""

    def __init__(self, *answers: np.ndarray) -> None:
        self.card: ModelCard = toy_card(classes=3)
        self.backend = "fixed"
        self._answers = list(answers)

    def predict(self, image: np.ndarray, crop: object = None) -> np.ndarray:
        """The next one."""
        return self._answers.pop(0)


def probabilities(seed: int, shape: tuple[int, int] = (7, 11)) -> np.ndarray:
    """Of three classes, float32."""
    planes = np.random.default_rng(seed).random((3, *shape)).astype(np.float32)
    result: np.ndarray = planes / planes.sum(axis=0)
    return result


PATCHES = [np.zeros((3, 7, 11), np.float32), np.zeros((3, 5, 4), np.float32)]


def test_equal_forms_do_not_differ() -> None:
    """Not in one label, not in one bit."""
    one, two = probabilities(1), probabilities(2, (5, 4))
    found = compare(Fixed(one, two), Fixed(one.copy(), two.copy()), PATCHES)
    assert (found.pixels, found.labels_differ, found.largest, found.mean) == (97, 0, 0, 0)
    assert found.miou == 1
    assert np.trace(found.confusion) == 97
    check_parity(found, 0.0, "it")


def test_differences_are_counted_over_all_patches() -> None:
    """Against the same sums by hand."""
    ones = [probabilities(1), probabilities(2, (5, 4))]
    others = [probabilities(3), probabilities(4, (5, 4))]
    found = compare(Fixed(*ones), Fixed(*others), PATCHES)
    first, second = (
        np.concatenate([p.astype(np.float16).argmax(axis=0).ravel() for p in planes])
        for planes in (ones, others)
    )
    gap = np.concatenate([np.abs(a - b).ravel() for a, b in zip(ones, others, strict=True)])
    assert found.labels_differ == (first != second).mean()
    assert found.largest == gap.max()
    assert abs(found.mean - gap.mean()) < 1e-7
    np.testing.assert_array_equal(found.confusion, confusion_matrix(first, second))
    assert abs(found.miou - jaccard_score(first, second, average="macro")) < 1e-12


def test_what_is_not_finite_differs() -> None:
    """In the label and in size, so that no gate lets it pass."""
    one = probabilities(1)
    other = one.copy()
    other[1, 2, 3] = np.nan
    other[0, 4, 5] = np.inf
    found = compare(Fixed(one), Fixed(other), PATCHES[:1])
    assert found.labels_differ == 2 / 77
    assert found.classes == 3
    assert np.sum(found.confusion) == 75
    assert found.largest == np.inf
    with pytest.raises(ModelError, match="nothing is kept"):
        check_parity(found, 0.005, "it")
    with pytest.raises(ModelError, match="not finite"):
        compare(Fixed(other), Fixed(one), PATCHES[:1])


def test_labels_are_those_of_a_run() -> None:
    """Numbers that float16 cannot tell apart are equal, and the first of equals wins."""
    planes = np.array([0.3333, 0.33331, 0.33332], np.float32)[:, None, None]
    assert labels_of(planes[::-1])[0, 0] == 0
    assert labels_of(planes)[0, 0] == 0


@pytest.mark.parametrize(("differ", "passes"), [(0.0049, True), (0.005, True), (0.0051, False)])
def test_the_gate_has_its_limit(differ: float, passes: bool) -> None:
    """Up to it and no further."""
    found = Parity(10_000, differ, 0.5, 0.001, 2, ((5000, 0), (0, 5000)))
    if passes:
        check_parity(found, 0.005, "it in openvino")
    else:
        with pytest.raises(ModelError, match=r"it in openvino must .* but 0\.50% of 10000 pixels"):
            check_parity(found, 0.005, "it in openvino")


def test_one_class_proves_nothing() -> None:
    """However well the forms agree."""
    with pytest.raises(ModelError, match="one class only"):
        check_parity(Parity(100, 0.0, 0.0, 0.0, 1, ((100, 0), (0, 0))), 0.005, "it")


def test_nothing_to_compare_is_an_error() -> None:
    """No patch, or forms of different shape."""
    with pytest.raises(ModelError, match="at least one patch"):
        compare(Fixed(), Fixed(), [])
    with pytest.raises(ModelError, match=r"\(3, 7, 11\) and \(2, 7, 11\)"):
        compare(Fixed(probabilities(1)), Fixed(probabilities(1)[:2]), PATCHES[:1])


@given(
    hnp.arrays(np.int64, 40, elements=st.integers(-1, 4)),
    hnp.arrays(np.int64, 40, elements=st.integers(-1, 4)),
)
def test_counts_and_mean_iou_agree_with_scikit_learn(true: np.ndarray, other: np.ndarray) -> None:
    """Over the classes that occur; pixels outside are left out."""
    counts = count_labels(true, other, 4)
    known = (true >= 0) & (true < 4) & (other >= 0) & (other < 4)
    if not known.any():
        assert counts.sum() == 0
        assert np.isnan(mean_iou(counts))
        return
    expected = confusion_matrix(true[known], other[known], labels=range(4))
    np.testing.assert_array_equal(counts, expected)
    there = np.unique(np.concatenate([true[known], other[known]]))
    score = jaccard_score(true[known], other[known], labels=there, average="macro")
    assert abs(mean_iou(counts) - score) < 1e-12
