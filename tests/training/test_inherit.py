"""A narrow network takes over what a wide one knows: exactly where it can, else what matters."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tilemap.errors import ModelError
from tilemap.models.networks import seeded
from tilemap.models.networks.plain import PlainUNet
from tilemap.training.inherit import (
    choose_channels,
    inherit,
    least_squares,
    normalised,
    principal_planes,
)

WIDE = "8 12 12 16 16"


def network(channels: str, norm: str, seed: int = 0, lean: bool = False) -> PlainUNet:
    """A random plain U-Net of 4 bands and 3 classes."""
    made = seeded(
        {"name": "plain_unet", "channels": channels, "norm": norm, "lean": lean}, 4, 3, seed
    )
    assert isinstance(made, PlainUNet)
    return made


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Images of smooth fields: at the coarsest level more pixels than a layer has weights."""
    random = np.random.default_rng(3)
    fields = np.kron(random.normal(size=(8, 4, 20, 24)), np.ones((8, 8)))
    noise = 0.3 * random.normal(size=fields.shape)
    return torch.from_numpy((fields + noise).astype(np.float32))


def everything(images: torch.Tensor) -> torch.Tensor:
    """Every pixel counts."""
    return torch.ones(len(images), *images.shape[2:], dtype=torch.bool)


@torch.no_grad()
def answers(one: PlainUNet, images: torch.Tensor) -> torch.Tensor:
    """Logits."""
    made: torch.Tensor = one(images)
    return made


def test_as_wide_a_network_inherits_everything(images: torch.Tensor) -> None:
    """Nothing is left to learn, though the student sees the images on another scale."""
    teacher, student = network(WIDE, "before"), network(WIDE, "none", seed=1)
    left = inherit(student, teacher, (images * 3, images), everything(images), ridge=1e-10)
    assert len(left) == 18 + 4 * 4 + 1
    # Of a unit that hardly ever fires little is seen, and a little is left.
    assert max(left[:6]) < 1e-9
    assert max(left) < 1e-3
    expected = answers(teacher, images)
    got = answers(student, images * 3)
    assert float((got - expected).var() / expected.var()) < 1e-4


@pytest.mark.parametrize("lean", [False, True])
def test_a_narrow_network_inherits_most(images: torch.Tensor, lean: bool) -> None:
    """On images it has not seen it answers nearly as its teacher; a random one does not at all."""
    teacher = network(WIDE, "after")
    student = network("6 8 8 8 8", "none", seed=1, lean=lean)
    noise = np.random.default_rng(5).normal(size=(1, 4, 64, 64)).astype("f4")
    other = torch.nn.functional.avg_pool2d(torch.from_numpy(noise), 5, 1, 2) * 4
    expected = answers(teacher, other)

    def wrong() -> float:
        away = answers(student, other) - expected
        return float(away.var(dim=(2, 3)).sum() / expected.var(dim=(2, 3)).sum())

    before = wrong()
    inherit(student, teacher, (images[:4], images[:4]), everything(images[:4]))
    assert wrong() < 0.4 < before


def test_what_does_not_count_is_not_looked_at(images: torch.Tensor) -> None:
    """An image without a counted pixel may hold anything: the same weights to the bit."""
    images = images[:3]
    counted = everything(images)
    counted[2] = False
    made = []
    for scale in (1.0, 100.0):
        shown = images.clone()
        shown[2] *= scale
        student = network("4 4 4 4 4", "none")
        inherit(student, network(WIDE, "after"), (shown, shown), counted)
        made.append(student.state_dict())
    assert all(torch.equal(made[0][key], made[1][key]) for key in made[0])


def test_normalisations_change_nothing(images: torch.Tensor) -> None:
    """The same logits; before each ReLU the numbers that came have mean 0 and deviation 1."""
    plain, images = network("4 6 8 8 8", "none", lean=True), images[:2]
    made = normalised(plain, images)
    expected = answers(plain, images)
    scale = float(expected.abs().max())
    np.testing.assert_allclose(answers(made, images), expected, atol=1e-5 * scale)
    first = made.down[0][0]  # type: ignore[index]
    seen = first[0](images)
    np.testing.assert_allclose(seen.mean((0, 2, 3)).detach(), first[1].running_mean, atol=1e-5)
    np.testing.assert_allclose(seen.var((0, 2, 3)).detach(), first[1].running_var, rtol=1e-4)


def test_chosen_channels_tell_the_others() -> None:
    """Of channels that are mixtures of three, any choice of three tells the rest exactly."""
    random = np.random.default_rng(0)
    values = random.normal(size=(500, 3)) @ random.normal(size=(3, 9)) + random.normal(size=9)
    chosen = choose_channels(values, np.ones(9), 3)
    assert list(chosen) == sorted(set(chosen.tolist()))
    assert least_squares(values[:, chosen], values, 1e-12)[2] < 1e-9
    twin = np.concatenate([values[:, :2], values[:, :2]], axis=1)
    assert {int(c) % 2 for c in choose_channels(twin, np.ones(4), 2)} == {0, 1}


def test_a_channel_that_nobody_reads_is_not_chosen() -> None:
    """However much it varies."""
    values = np.random.default_rng(0).normal(size=(300, 4)) * [1, 100, 1, 1]
    assert choose_channels(values, np.array([1.0, 0.0, 1.0, 1.0]), 3).tolist() == [0, 2, 3]


def test_least_squares_against_numpy() -> None:
    """Weights, intercept and the share left, as numpy's lstsq finds them."""
    random = np.random.default_rng(1)
    inputs = random.normal(2, 3, (400, 5))
    targets = inputs @ random.normal(size=(5, 2)) + [4, -7] + random.normal(size=(400, 2))
    design = np.concatenate([inputs, np.ones((400, 1))], axis=1)
    expected, residual, _, _ = np.linalg.lstsq(design, targets, rcond=None)
    weight, intercept, left = least_squares(inputs, targets, 0.0)
    np.testing.assert_allclose(weight, expected[:5], atol=1e-10)
    np.testing.assert_allclose(intercept, expected[5], atol=1e-10)
    assert left == pytest.approx(residual.sum() / (targets.var(axis=0).sum() * 400), rel=1e-9)


def test_principal_planes_against_the_svd() -> None:
    """They span what the leading singular vectors span."""
    values = np.random.default_rng(2).normal(size=(200, 6)) @ np.diag([5, 4, 3, 1, 0.5, 0.1])
    weight = np.array([1.0, 2.0, 0.5, 1.0, 1.0, 3.0])
    found = principal_planes(values, weight, 3)
    away = (values - values.mean(axis=0)) * weight
    leading = np.linalg.svd(away, full_matrices=False)[2][:3].T
    own = found / weight[:, None]
    np.testing.assert_allclose(own @ own.T, leading @ leading.T, atol=1e-10)


@pytest.mark.parametrize(
    ("student", "counted", "message"),
    [
        (("4 4 4 4 4", "before"), True, 'norm "none"'),
        (("9 4 4 4 4", "none"), True, "not be wider than its teacher"),
        (("4 4 4 4 4", "none"), False, "must have pixels that count"),
    ],
)
def test_what_does_not_fit_is_refused(
    images: torch.Tensor, student: tuple[str, str], counted: bool, message: str
) -> None:
    """In words."""
    with pytest.raises(ModelError, match=message):
        inherit(
            network(*student), network(WIDE, "after"), (images, images),
            everything(images) & counted,
        )  # fmt: skip
