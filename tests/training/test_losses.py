"""Losses against torch's own, against loops in float64, and where nothing is labelled."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn import functional

from tilemap.errors import ConfigError
from tilemap.training.losses import (
    IGNORE,
    Losses,
    balanced_weights,
    batch_loss,
    dice_loss,
    distillation_loss,
    one_hot,
    pixel_loss,
)

WEIGHTS = (0.5, 2.0, 1.25)


def batch(seed: int = 0, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (2, class, 5, 7) that are mostly wrong, and labels, a quarter of them ignored."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 3, (2, classes, 5, 7)).astype(np.float32))
    label = rng.integers(0, classes, (2, 5, 7)).astype(np.uint8)
    label[rng.random(label.shape) < 0.25] = IGNORE
    return logits, torch.from_numpy(label)


def softmax(logits: torch.Tensor, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Probabilities in float64, (pixel, class)."""
    flat = logits.double().movedim(1, -1).reshape(-1, logits.shape[1]).numpy() / temperature
    e = np.exp(flat - flat.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_cross_entropy_is_torchs(seed: int, weighted: bool, smoothing: float) -> None:
    """With weights, smoothing and ignored pixels."""
    logits, label = batch(seed)
    weights = WEIGHTS if weighted else None
    expected = functional.cross_entropy(
        logits,
        label.long(),
        weight=torch.tensor(WEIGHTS) if weighted else None,
        ignore_index=IGNORE,
        label_smoothing=smoothing,
    )
    got = pixel_loss(logits, label, weights, 0.0, smoothing)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_focal_is_the_formula(gamma: float) -> None:
    """Pixel by pixel in float64, weighted."""
    logits, label = batch()
    total = weight = 0.0
    for p, y in zip(softmax(logits), label.reshape(-1).tolist(), strict=True):
        if y != IGNORE:
            total += -WEIGHTS[y] * (1 - p[y]) ** gamma * np.log(p[y])
            weight += WEIGHTS[y]
    got = pixel_loss(logits, label, WEIGHTS, gamma)
    assert float(got) == pytest.approx(total / weight, rel=1e-5)


def test_focal_of_a_sure_pixel_has_a_finite_gradient() -> None:
    """A probability that is 1 in float32 takes no root of 0."""
    logits = torch.tensor([200.0, 0.0]).reshape(1, 2, 1, 1).requires_grad_()
    pixel_loss(logits, torch.zeros(1, 1, 1, dtype=torch.uint8), None, 0.5).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_dice_is_the_formula() -> None:
    """Class by class over the batch, in float64; a class without labels is left out."""
    logits, label = batch(3, classes=4)
    label[label == 2] = IGNORE
    flat = label.reshape(-1).numpy()
    kept = flat != IGNORE
    p = softmax(logits)[kept]
    parts = []
    for one in (0, 1, 3):
        g = flat[kept] == one
        parts.append(1 - 2 * (p[:, one] * g).sum() / ((p[:, one] ** 2).sum() + g.sum()))
    assert float(dice_loss(logits, label)) == pytest.approx(np.mean(parts), rel=1e-5)


def test_dice_of_perfect_and_of_wrong() -> None:
    """0 where all is right and sure, 1 where all is wrong and sure."""
    label = torch.arange(12, dtype=torch.uint8).reshape(1, 3, 4) % 2
    sure = 60 * one_hot(label, 2) - 30
    assert float(dice_loss(sure, label)) == pytest.approx(0, abs=1e-6)
    assert float(dice_loss(-sure, label)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 1.5, 4.0])
def test_distillation_is_the_formula(temperature: float) -> None:
    """Kullback-Leibler in float64, over the labelled pixels."""
    logits, label = batch(1)
    teacher, _ = batch(2)
    probability = torch.softmax(teacher, dim=1)
    soft, own = softmax(teacher, temperature), softmax(logits, temperature)
    divergence = (soft * np.log(soft / own)).sum(axis=1)
    kept = label.reshape(-1).numpy() != IGNORE
    got = float(distillation_loss(logits, probability, label, temperature))
    # probabilities below 1e-6 are lifted to it
    assert got == pytest.approx(divergence[kept].mean() * temperature**2, rel=2e-4)
    same = distillation_loss(teacher, probability, label, temperature)
    assert float(same) == pytest.approx(0, abs=1e-5)


ALL = [
    Losses("cross_entropy", smoothing=0.1),
    Losses("focal", weights=WEIGHTS),
    Losses(None, dice=True),
    Losses("cross_entropy", dice=True),
    Losses("focal", dice=True),
]


@pytest.mark.parametrize("losses", ALL)
@pytest.mark.parametrize("taught", [False, True])
def test_nothing_labelled_is_nothing_lost(losses: Losses, taught: bool) -> None:
    """0 and a gradient of 0, never NaN."""
    logits, label = batch()
    logits.requires_grad_()
    teacher = torch.softmax(batch(5)[0], dim=1) if taught else None
    loss = batch_loss(logits, torch.full_like(label, IGNORE), teacher, losses)
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("losses", ALL)
def test_ignored_pixels_do_not_matter(losses: Losses) -> None:
    """Other logits there, same loss, and no gradient there."""
    logits, label = batch()
    teacher = torch.softmax(batch(5)[0], dim=1)
    ignored = (label == IGNORE)[:, None]
    other = torch.where(ignored, logits + 5 * torch.randn(2, 3, 5, 7), logits).requires_grad_()
    for one in (None, teacher):
        loss = batch_loss(other, label, one, losses)
        expected = batch_loss(logits, label, one, losses)
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-7)
        (slope,) = torch.autograd.grad(loss, other)
        assert not slope[ignored.expand_as(slope)].any()


def test_the_sum_of_a_batch() -> None:
    """Cross-entropy and Dice add up; the teacher takes its share of the whole."""
    logits, label = batch()
    teacher = torch.softmax(batch(5)[0], dim=1)
    hard = pixel_loss(logits, label, WEIGHTS) + dice_loss(logits, label)
    losses = Losses("cross_entropy", dice=True, weights=WEIGHTS, temperature=2.0, share=0.25)
    soft = distillation_loss(logits, teacher, label, 2.0)
    torch.testing.assert_close(batch_loss(logits, label, None, losses), hard)
    both = batch_loss(logits, label, teacher, losses)
    torch.testing.assert_close(both, 0.75 * hard + 0.25 * soft)


def test_losses_of_half_precision_are_made_in_full() -> None:
    """bfloat16 logits give a float32 loss, as good as the logits are."""
    logits, label = batch()
    half = logits.bfloat16()
    got = batch_loss(half, label, None, ALL[3])
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, batch_loss(half.float(), label, None, ALL[3]))


def test_balanced_weights_are_median_over_count() -> None:
    """The middle class has weight 1, a class ten times as frequent a tenth."""
    assert balanced_weights(np.array([1000, 100, 25])) == pytest.approx((0.1, 1.0, 4.0))
    with pytest.raises(ConfigError, match="class 1 has none"):
        balanced_weights(np.array([1000, 0]))


def test_a_loss_that_is_none() -> None:
    """Nothing to make small, or a name that is none."""
    with pytest.raises(ConfigError, match="cross_entropy, focal or dice"):
        Losses(None)
    with pytest.raises(ConfigError, match="'hinge'"):
        Losses("hinge")
