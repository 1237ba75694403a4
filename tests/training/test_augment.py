from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from tilemap.testing import random_scene
from tilemap.training import augment
from tilemap.training.config import AugmentConfig
from tilemap.training.cropping import Crop
from tilemap.training.labels import IGNORE
from tilemap.training.pose import Pose, bilinear, draw_pose, strike

BANDS = ("blue", "green", "red", "nir", "swir16", "dem")
OFF = AugmentConfig(
    flip=False, rotate=False, scale=(1, 1), gain=0, band_gain=0, offset=0, haze=0, shadow=0,
    season=0, noise=0,
)  # fmt: skip


def _crop(side: int, seed: int = 0, holes: bool = True, classes: int = 0) -> Crop:
    """A crop without symmetry; where it was not observed its image is 0 and its label unknown."""
    random = np.random.default_rng(seed)
    image = random_scene((side, side), 3, seed, np.float32).astype(np.float32)
    label = random.integers(0, 4, (side, side)).astype(np.uint8)
    valid = np.ones((side, side), dtype=bool)
    if holes:
        valid[side // 5 : side // 3, : side // 2] = False
        image[:, ~valid] = 0
        label[~valid] = IGNORE
    teacher = None
    if classes:
        teacher = random.dirichlet(np.ones(classes), (side, side)).transpose(2, 0, 1)
        teacher = teacher.astype(np.float32)
    return Crop(image, valid, label, teacher)


@given(st.integers(0, 3), st.booleans())
def test_labels_follow_the_image_under_turns_and_mirror(quarters: int, flipped: bool) -> None:
    """An image that is its own label stays that, pixel by pixel, and no pixel is lost."""
    crop = _crop(17, classes=3)
    twin = Crop(crop.label[None].astype(np.float32), crop.valid, crop.label, crop.teacher)
    pose = Pose(quarters=quarters, flipped=flipped)
    struck = strike(twin, pose, 17)
    assert (struck.image[0] == struck.label).all()
    expected = np.rot90(crop.label, quarters)
    assert (struck.label == (expected[:, ::-1] if flipped else expected)).all()
    assert struck.teacher is not None
    assert crop.teacher is not None
    assert np.sort(struck.teacher.ravel()).tolist() == np.sort(crop.teacher.ravel()).tolist()
    assert struck.image.flags.c_contiguous


@given(st.floats(0.5, 2), st.floats(0, 6.28), st.integers(0, 3))
def test_labels_follow_the_image_when_pixels_are_mixed(
    scale: float, angle: float, quarters: int
) -> None:
    """Of a smooth image made of the place itself, image and label tell the same place."""
    pose = Pose(scale, angle, quarters)
    side = pose.source_side(24)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    valid = np.ones((side, side), dtype=bool)
    number = (np.arange(side * side) % 251).astype(np.uint8).reshape(side, side)
    struck = strike(Crop(np.stack([y, x]), valid, number, None), pose, 24)
    assert struck.image.shape == (2, 24, 24)
    near = np.rint(struck.image).astype(int)
    clear = np.abs(struck.image - near).max(axis=0) < 0.49  # no tie
    at = near[0] * side + near[1]
    assert (struck.label[clear] == (at % 251)[clear]).all()
    # the middle stays the middle, and neighbours are 1 / scale apart
    centre = struck.image[:, 11:13, 11:13].mean(axis=(1, 2))
    np.testing.assert_allclose(centre, side / 2 - 0.5, atol=1e-3)
    step = np.hypot(*(struck.image[:, 0, 1] - struck.image[:, 0, 0]))
    assert step == pytest.approx(1 / scale, rel=1e-3)


@pytest.mark.parametrize("angle", [0.0, 0.7])
def test_mixing_agrees_with_scipy(angle: float) -> None:
    """Bilinear of an observed image, along axes and turned."""
    pose = Pose(1.27, angle)
    side = pose.source_side(32)
    crop = _crop(side, holes=False)
    struck = strike(crop, pose, 32)
    away = (np.arange(32) + 0.5 - 16) / 1.27  # no place between two pixels
    down, right = np.meshgrid(away, away, indexing="ij")
    rows = math.cos(angle) * down - math.sin(angle) * right + side / 2 - 0.5
    cols = math.sin(angle) * down + math.cos(angle) * right + side / 2 - 0.5
    for band in range(3):
        expected = ndimage.map_coordinates(crop.image[band], [rows, cols], order=1)
        np.testing.assert_allclose(struck.image[band], expected, rtol=1e-5, atol=1e-6)
    nearest = ndimage.map_coordinates(crop.label, [rows, cols], order=0)
    assert (struck.label == nearest).all()
    both = bilinear(crop.image, rows, cols), bilinear(crop.image, rows[:, :1], cols[:1])
    assert (angle != 0) or np.allclose(both[0], both[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pose", [Pose(0.8), Pose(1.25), Pose(1.1, 0.4), Pose(1.0, 2.0)])
def test_what_was_not_observed_is_never_mixed_in(pose: Pose) -> None:
    """Observed pixels of one value keep it up to the edge of a hole, whatever stands there."""
    side = pose.source_side(40)
    crop = _crop(side)
    flat = np.where(crop.valid, np.float32(5), np.float32(0))[None]
    struck = strike(Crop(flat, crop.valid, crop.label, None), pose, 40)
    assert 0 < (~struck.valid).sum() < struck.valid.sum()
    np.testing.assert_allclose(struck.image[0][struck.valid], 5, rtol=1e-5)
    assert (struck.image[0][~struck.valid] == 0).all()
    assert (struck.label[~struck.valid] == IGNORE).all()


def test_a_teacher_stays_a_probability() -> None:
    """It sums to 1 wherever there is a loss; what is unknown lends nothing to its neighbours."""
    pose = Pose(1.2, 0.3)
    side = pose.source_side(40)
    crop = _crop(side, classes=4)
    assert crop.teacher is not None
    struck = strike(crop, pose, 40)
    other = np.where(crop.label == IGNORE, np.float32(0.25), crop.teacher)
    same = strike(Crop(crop.image, crop.valid, crop.label, other), pose, 40)
    assert struck.teacher is not None
    assert same.teacher is not None
    counts = struck.label != IGNORE
    np.testing.assert_allclose(struck.teacher.sum(axis=0)[counts], 1, rtol=1e-5)
    assert (struck.teacher == same.teacher).all()


def test_poses_are_drawn_as_configured() -> None:
    """Half stay sharp, scales stay within their limits, all turns come; off means none."""
    config = AugmentConfig(scale=(0.5, 2.0), turn=True)
    poses = [draw_pose(np.random.default_rng(i), config) for i in range(400)]
    exact = sum(pose.exact for pose in poses)
    assert 150 < exact < 250
    scales = [pose.scale for pose in poses if not pose.exact]
    assert min(scales) >= 0.5
    assert max(scales) <= 2
    assert 0.3 < np.mean(np.array(scales) < 1) < 0.7  # even on a scale of logarithms
    assert {pose.quarters for pose in poses} == {0, 1, 2, 3}
    assert {pose.flipped for pose in poses} == {True, False}
    assert all(draw_pose(np.random.default_rng(i), OFF) == Pose() for i in range(20))


def _image(bands: int = 6) -> tuple[Any, Any, Any]:
    image = random_scene((40, 52), bands, 3, np.float32).astype(np.float32)
    valid = np.ones((40, 52), dtype=bool)
    valid[10:20, 5:30] = False
    image[:, ~valid] = 0
    return image, valid, np.linspace(0.05, 0.2, bands).astype(np.float32)


def test_amount_0_is_the_identity() -> None:
    """Bit by bit, and by each kernel too."""
    image, valid, std = _image()
    same = augment.vary(image, valid, BANDS, std, OFF, np.random.default_rng(0))
    assert (same == image).all()
    zero, field = np.zeros(6, np.float32), np.ones((40, 52), np.float32)
    for out in (
        augment.brighten(image, zero + 1, zero),
        augment.add_haze(image, zero, field),
        augment.cast_shadow(image, np.ones(6, bool), 0 * field),
        augment.turn_season(image, zero, field),
        augment.add_noise(image, zero, np.random.default_rng(0)),
    ):
        assert (out == image).all()
        assert out.dtype == np.float32


@pytest.mark.parametrize(
    "name", ["gain", "band_gain", "offset", "haze", "shadow", "season", "noise"]
)
def test_each_amount_changes_observed_pixels_only(name: str) -> None:
    """Every one acts, in float32, without touching what was not observed or its own input."""
    image, valid, std = _image()
    before = image.copy()
    config = OFF.model_copy(update={name: 1.0})
    out = augment.vary(image, valid, BANDS, std, config, np.random.default_rng(1))
    again = augment.vary(image, valid, BANDS, std, config, np.random.default_rng(1))
    assert (image == before).all()
    assert (out[:, ~valid] == 0).all()
    assert (out[:, valid] != image[:, valid]).any()
    assert out.dtype == np.float32
    assert (out == again).all()


def test_haze_is_most_in_blue_and_none_where_the_wave_is_unknown() -> None:
    """By the inverse square of the wavelength; only light is added."""
    image, valid, std = _image()
    amount = augment.haze_by_band(BANDS, std, 2.0)
    assert amount[0] == pytest.approx(2 * std[0])
    assert amount[2] == pytest.approx(2 * std[0] * (0.49 / 0.665) ** 2)
    assert (np.diff(amount[:5]) < 0).all()
    assert amount[5] == 0
    config = OFF.model_copy(update={"haze": 1.0})
    out = augment.vary(image, valid, BANDS, std, config, np.random.default_rng(2))
    added = (out - image)[:, valid]
    assert (added >= 0).all()
    assert added[0].max() <= std[0]
    assert (augment.haze_by_band(("a", "b"), std[:2], 1.0) == 0).all()


def test_a_shadow_darkens_light_by_at_most_its_depth() -> None:
    """Softly, in bands that see light, and only some of the crop."""
    image, valid, std = _image()
    config = OFF.model_copy(update={"shadow": 1.0})
    touched = []
    for seed in range(10):
        out = augment.vary(image, valid, BANDS, std, config, np.random.default_rng(seed))
        kept = (out / np.where(valid, image, 1))[:, valid]
        assert kept[:5].min() >= 0.4 - 1e-6
        assert kept.max() <= 1 + 1e-6
        assert (out[5] == image[5]).all()
        np.testing.assert_allclose(kept[0], kept[4], rtol=1e-5)
        touched.append((kept[0] < 0.99).mean())
    assert 0.1 < np.mean(touched) < 0.8


def test_season_moves_red_and_infrared_apart() -> None:
    """More vegetation: near infrared up, red and short-wave down; or the other way round."""
    image, valid, std = _image()
    config = OFF.model_copy(update={"season": 1.0})
    signs = set()
    for seed in range(10):
        out = augment.vary(image, valid, BANDS, std, config, np.random.default_rng(seed))
        change = (out - image)[:, valid].mean(axis=1)
        assert (change[[0, 1, 5]] == 0).all()
        assert np.sign(change[2]) == np.sign(change[4]) == -np.sign(change[3])
        signs.add(np.sign(change[3]))
    assert signs == {-1, 1}


def test_noise_has_the_deviation_that_was_asked_for() -> None:
    """Independent in every pixel and band, in units of the band's own deviation."""
    image = np.zeros((2, 200, 200), np.float32)
    config = OFF.model_copy(update={"noise": 0.5})
    std = np.array([2.0, 10.0], np.float32)
    valid = np.ones((200, 200), bool)
    out = augment.vary(image, valid, ("a", "b"), std, config, np.random.default_rng(0))
    np.testing.assert_allclose(out.std(axis=(1, 2)), 0.5 * std, rtol=0.02)
    assert abs(np.corrcoef(out.reshape(2, -1))[0, 1]) < 0.02
    assert abs(np.corrcoef(out[0, :, 1:].ravel(), out[0, :, :-1].ravel())[0, 1]) < 0.02


def test_gain_is_spread_as_asked() -> None:
    """The logarithm of the common factor has the deviation given; bands share it."""
    image, std = np.ones((2, 4, 4), np.float32), np.ones(2, np.float32)
    valid = np.ones((4, 4), bool)
    config = OFF.model_copy(update={"gain": 0.2})
    drawn = []
    for seed in range(500):
        out = augment.vary(image, valid, ("a", "b"), std, config, np.random.default_rng(seed))
        assert np.ptp(out) == 0
        drawn.append(math.log(out[0, 0, 0]))
    assert np.std(drawn) == pytest.approx(0.2, rel=0.1)
    assert abs(np.mean(drawn)) < 0.03


def test_a_smooth_field_is_smooth_and_within_its_limits() -> None:
    """From 0 to 1, without steps, different in both directions."""
    field = augment.smooth_field(np.random.default_rng(0), (120, 90), 3)
    assert field.shape == (120, 90)
    assert field.dtype == np.float32
    assert field.min() >= 0
    assert field.max() <= 1
    assert np.ptp(field) > 0.4
    assert max(np.abs(np.diff(field, axis=axis)).max() for axis in (0, 1)) < 0.06
    assert not np.allclose(field[:90], field[:90].T)
