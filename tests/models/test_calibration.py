"""Temperature: exact where the answer is known, and never worse than none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilemap.errors import ModelError
from tilemap.models.calibration import HIGHEST, LOWEST, fit_temperature, negative_log_likelihood
from tilemap.models.onnx_model import to_probability
from tilemap.testing import toy_card

COUNTS = np.array([[5, 3, 2], [8, 1, 1], [1, 2, 7], [4, 4, 2]])


def _exact() -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax is exactly the share of each label among equal pixels."""
    logits = np.log(COUNTS / 10).astype(np.float32)
    rows, labels = [], []
    for row, counts in zip(logits, COUNTS, strict=True):
        for label, count in enumerate(counts):
            rows += [row] * count
            labels += [label] * count
    return np.stack(rows), np.array(labels)


def _sampled(n: int = 20_000, classes: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their softmax."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, classes)).astype(np.float32)
    powers = np.exp(logits.astype(np.float64))
    edges = np.cumsum(powers / powers.sum(axis=1, keepdims=True), axis=1)
    labels = (rng.random((n, 1)) > edges[:, :-1]).sum(axis=1)
    return logits, labels


def _calibration_error(probability: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017, eq. 3) of (n, class)."""
    confidence = probability.max(axis=1)
    correct = probability.argmax(axis=1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(correct[place == b].mean() - confidence[place == b].mean()) * np.mean(place == b)
        for b in range(bins)
        if (place == b).any()
    ]
    return float(sum(gaps))


@given(st.floats(0.2, 8.0))
def test_logits_scaled_by_s_give_s(scale: float) -> None:
    """Where labels come in exactly the shares of the softmax, to 1 in 1,000."""
    logits, labels = _exact()
    assert fit_temperature(logits * np.float32(scale), labels) == pytest.approx(scale, rel=1e-3)


def test_labels_drawn_from_the_softmax_give_their_scale() -> None:
    """Twice as large logits have twice the temperature, to 1 in 1,000; itself near 1."""
    logits, labels = _sampled()
    one = fit_temperature(logits, labels)
    assert one == pytest.approx(1.0, abs=0.03)  # the noise of the draw
    assert fit_temperature(logits * 3, labels) == pytest.approx(3 * one, rel=1e-3)


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(2, 6))
def test_never_worse_than_without(seed: int, n: int, classes: int) -> None:
    """Whatever the logits and labels, and never outside its bounds."""
    rng = np.random.default_rng(seed)
    logits = (rng.normal(size=(n, classes)) * rng.choice([0, 0.1, 1, 30])).astype(np.float32)
    labels = rng.integers(0, classes, n)
    fitted = fit_temperature(logits, labels)
    assert LOWEST <= fitted <= HIGHEST
    before = negative_log_likelihood(logits, labels, 1.0)
    assert negative_log_likelihood(logits, labels, fitted) <= before


def test_likelihood_is_that_of_its_formula() -> None:
    """Against a plain softmax in float64; blocks change nothing."""
    logits, labels = _sampled(70_000, 3)
    powers = np.exp(logits.astype(np.float64) / 1.7)
    chosen = powers[np.arange(len(labels)), labels] / powers.sum(axis=1)
    got = negative_log_likelihood(logits, labels, 1.7)
    assert got == pytest.approx(-np.log(chosen).mean(), rel=1e-12)


@pytest.mark.parametrize("backend", ["torch", "logits", "softmax"])
def test_inference_with_the_fitted_temperature_is_calibrated(backend: str) -> None:
    """A network three times too sure: the error of its confidence falls to the draw's noise."""
    logits, labels = _sampled()
    logits = logits * 3
    fitted = fit_temperature(logits, labels)
    planes = np.ascontiguousarray(logits.T)[:, None]  # (class, 1, n)

    def predict(temperature: float) -> np.ndarray:
        changes: dict[str, Any] = {"temperature": temperature, "activation": "logits"}
        card = toy_card(classes=5).model_copy(update=changes)
        if backend == "torch":
            torch = pytest.importorskip("torch")
            from tilemap.models.torch_model import _probability

            return _probability(torch.from_numpy(planes.copy()), temperature)[:, 0].T
        if backend == "logits":
            return to_probability(planes, card)[:, 0].T
        said = to_probability(planes, card.model_copy(update={"temperature": 1.0}))
        return to_probability(said, card.model_copy(update={"activation": "softmax"}))[:, 0].T

    before, after = predict(1.0), predict(fitted)
    assert _calibration_error(before, labels) > 0.1
    assert _calibration_error(after, labels) < 0.02
    assert np.mean(before.argmax(axis=1) != after.argmax(axis=1)) < 1e-3  # ties in float32 only


def test_a_card_keeps_it(tmp_path: Path) -> None:
    """What was fitted is what a run reads from the card."""
    from tilemap.models import mlm

    card = toy_card().model_copy(update={"temperature": 1.83})
    mlm.write_json(mlm.card_to_item(card), tmp_path / "model.json")
    assert mlm.read_card(tmp_path / "model.json").temperature == 1.83


@pytest.mark.parametrize(
    ("logits", "labels", "says"),
    [
        (np.zeros((0, 3)), np.zeros(0, int), "at least one pixel"),
        (np.zeros((4, 3)), np.zeros(5, int), r"got \(4, 3\) and \(5,\)"),
        (np.zeros((2, 3)), np.array([0, 3]), "0 to 2, got 0 to 3"),
        (np.full((2, 3), np.nan), np.array([0, 1]), "finite"),
    ],
)
def test_what_cannot_be_fitted_is_refused(
    logits: np.ndarray, labels: np.ndarray, says: str
) -> None:
    """In one line."""
    with pytest.raises(ModelError, match=says):
        fit_temperature(logits.astype(np.float32), labels)
