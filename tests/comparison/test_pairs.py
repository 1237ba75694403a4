from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from tilemap.comparison.pairs import cvaps, magnitudes, otsu, pcc
from tilemap.errors import ConfigError
from tilemap.probability import VALUES, quantise

ByteArray = npt.NDArray[np.uint8]


def series(seed: int, dates: int, classes: int, pixels: int) -> ByteArray:
    """Random probabilities, every fifth look missing."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(classes, 0.4), (dates, pixels))
    q = quantise(p)
    q[rng.random((dates, pixels)) < 0.2] = 255
    return np.ascontiguousarray(q.transpose(0, 2, 1))


def probability(column: ByteArray) -> npt.NDArray[np.float64] | None:
    """Of one look, float64 (class,), None if it was not observed."""
    return None if column[0] == 255 else VALUES[column] / VALUES[column].sum()


def test_pcc_is_argmax_and_independent_dates() -> None:
    """Labels, and change from all paths of independent dates, as counted pixel by pixel."""
    q = series(1, 4, 3, 53)
    result = pcc(q)
    for i in range(q.shape[2]):
        looks = [probability(q[t, :, i]) for t in range(4)]
        labels = [255 if p is None else int(np.argmax(p)) for p in looks]
        assert result.labels[:, i].tolist() == labels
        seen = [p for p in looks if p is not None]
        change = sum(
            float(np.prod([p[k] for p, k in zip(seen, path, strict=True)]))
            for path in itertools.product(range(3), repeat=len(seen))
            if len(set(path)) > 1
        )
        assert result.p_change[i] == pytest.approx(change, abs=1e-6)
        for t, (a, b) in enumerate(itertools.pairwise(looks)):
            step = 0.0 if a is None or b is None else 1 - float(a @ b)
            assert result.p_step[t, i] == pytest.approx(step, abs=1e-6)


def test_equal_classes_the_first_wins() -> None:
    """A tie goes to the lowest index, wherever it stands."""
    q = np.array([[[127, 20], [127, 117], [0, 117]]], dtype=np.uint8)
    assert pcc(q).labels.tolist() == [[0, 1]]


def test_one_date_and_no_look() -> None:
    """One date has no step and no change; a pixel never seen has no class."""
    q = np.array([[[200, 255], [54, 255]]], dtype=np.uint8)
    for result in (pcc(q), cvaps(q, 0.5)):
        assert result.labels.tolist() == [[0, 255]]
        assert result.p_step.shape == (0, 2)
        assert result.p_change[1] == 0
    assert cvaps(q, 0.5).p_change[0] == 0


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.6, 1.0])
def test_cvaps_against_plain_python(threshold: float) -> None:
    """Reference, vector and class of each date, pixel by pixel."""
    q = series(2, 6, 4, 97)
    result = cvaps(q, threshold)
    for i in range(q.shape[2]):
        reference, current, longest = None, 255, 0.0
        for t in range(len(q)):
            p = probability(q[t, :, i])
            if p is None:
                assert result.labels[t, i] == 255
                assert t == 0 or result.p_step[t - 1, i] == 0
                continue
            length = 0.0
            if reference is None:
                reference, current = p, int(np.argmax(p))
            else:
                length = float(np.linalg.norm(p - reference)) / np.sqrt(2)
                if length >= threshold and int(np.argmax(p)) != current:
                    reference, current = p, int(np.argmax(p))
            longest = max(longest, length)
            assert result.labels[t, i] == current
            assert t == 0 or result.p_step[t - 1, i] == pytest.approx(length, abs=1e-6)
        assert result.p_change[i] == pytest.approx(longest, abs=1e-6)


def test_cvaps_compares_with_the_last_accepted_date() -> None:
    """A slow drift adds up to a change, though no two dates differ by the threshold."""
    drift = np.array([0.94, 0.75, 0.55, 0.35, 0.16])
    q = quantise(np.stack([drift, 1 - drift], axis=1)[:, :, None])
    result = cvaps(q, 0.5)
    assert result.labels[:, 0].tolist() == [0, 0, 0, 1, 1]
    assert np.diff(drift).min() > -0.5


def test_cvaps_keeps_the_class_of_an_unsure_date() -> None:
    """The likeliest class flips by a hair: a change to pcc, none to cvaps."""
    q = quantise(np.array([[[0.51], [0.49]], [[0.49], [0.51]]]))
    assert pcc(q).labels[:, 0].tolist() == [0, 1]
    assert cvaps(q, 0.3).labels[:, 0].tolist() == [0, 0]


def test_certain_change_is_of_length_one() -> None:
    """Between two certain classes the vector is as long as it can be."""
    first = np.array([[254, 254, 0], [0, 0, 254], [0, 0, 0]], dtype=np.uint8)
    last = np.array([[0, 254, 255], [0, 0, 255], [254, 0, 255]], dtype=np.uint8)
    assert magnitudes(first, last).tolist() == pytest.approx([1.0, 0.0])


def test_otsu_parts_two_groups() -> None:
    """The threshold lies between them, not at either, whatever their sizes."""
    rng = np.random.default_rng(3)
    small, large = rng.normal(0.1, 0.03, 9000), rng.normal(0.8, 0.05, 1000)
    threshold = otsu(np.clip(np.concatenate([small, large, [np.nan]]), 0, 1))
    assert 0.25 < threshold < 0.65
    assert otsu(np.array([0.1, 0.1, 0.7])) == pytest.approx(0.4, abs=0.01)


def test_otsu_against_every_threshold() -> None:
    """No other edge of the bins gives groups that lie further apart."""
    values = np.random.default_rng(4).beta(0.6, 2.5, 5001)

    def between(edge: float) -> float:
        low, high = values[values < edge], values[values >= edge]
        return float(low.size * high.size * (low.mean() - high.mean()) ** 2)

    edges = np.arange(1, 256) / 256
    best = max(between(edge) for edge in edges if values.min() < edge <= values.max())
    assert between(otsu(values)) > 0.999 * best


@pytest.mark.parametrize("values", [[], [0.4, 0.4], [np.nan]])
def test_otsu_needs_two_lengths(values: list[float]) -> None:
    """Nothing parts what is alike."""
    with pytest.raises(ConfigError, match="give a threshold"):
        otsu(np.array(values))


def test_bad_input() -> None:
    """A threshold out of range and a wrong array say what must hold."""
    q = series(5, 2, 2, 7)
    with pytest.raises(ConfigError, match=r"must lie in 0\.\.1, got 1\.5"):
        cvaps(q, 1.5)
    with pytest.raises(ConfigError, match="must lie in"):
        cvaps(q, float("nan"))
    with pytest.raises(ConfigError, match=r"uint8 \(date, class, pixel\)"):
        pcc(q.astype(np.float32))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"got uint8 \(2, 2\)"):
        cvaps(q[..., 0], 0.5)


def test_a_change_vector_as_long_as_the_threshold_counts() -> None:
    """Between two certain classes the length is exactly 1, and 1 is a threshold."""
    q = np.array([[[254], [0]], [[0], [254]]], dtype=np.uint8)
    assert cvaps(q, 1.0).labels.tolist() == [[0], [1]]
