from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from tilemap.comparison.pairs import pcc
from tilemap.comparison.registration import (
    BlockShift,
    Shift,
    block_shift,
    move,
    robust_shift,
    verdict,
)
from tilemap.errors import GridError, SceneMismatchError
from tilemap.probability import VALUES, quantise, shares

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.floating]

TRUE_PX = (0.0, 0.1, 0.3, 0.5, 1.0)
SIDE = 160
SCENE = np.s_[:, 120:456, 300:796]  # 336 x 496 pixels of coast, marsh and fields
PAD = 32


def by_fourier(image: FloatArray, row: float, col: float) -> FloatArray:
    """Shift by the phase of the spectrum; all frequencies keep their strength."""
    padded = np.pad(image.astype(np.float64), ((0, 0), (PAD, PAD), (PAD, PAD)), mode="reflect")
    rows, cols = np.fft.fftfreq(padded.shape[1])[:, None], np.fft.rfftfreq(padded.shape[2])
    turned = np.fft.rfft2(padded) * np.exp(-2j * np.pi * (rows * row + cols * col))
    return np.fft.irfft2(turned, s=padded.shape[1:])[:, PAD:-PAD, PAD:-PAD]


def by_spline(image: FloatArray, row: float, col: float) -> FloatArray:
    """Shift by cubic splines."""
    return np.stack([ndimage.shift(band, (row, col), order=3, mode="mirror") for band in image])


def shift_of(
    reference: FloatArray, moving: FloatArray, valid: npt.NDArray[np.bool_] | None = None
) -> Shift | None:
    """Shift over all blocks."""
    valid = np.ones(reference.shape[1:], bool) if valid is None else valid
    found = []
    for top in range(0, reference.shape[1] - SIDE + 1, SIDE):
        for left in range(0, reference.shape[2] - SIDE + 1, SIDE):
            block = np.s_[top : top + SIDE, left : left + SIDE]
            found.append(block_shift(reference[:, *block], moving[:, *block], valid[block]))
    return robust_shift([block for block in found if block is not None])


@pytest.fixture(scope="module")
def scene() -> FloatArray:
    """Six bands of the real scene that ships with tilemap, reflectance (band, y, x)."""
    import rasterio

    from tilemap import api

    ten, twenty = api.demo_scene()
    with rasterio.open(ten) as file:
        fine = file.read()
    with rasterio.open(twenty) as file:
        coarse = np.stack([ndimage.zoom(band, 2, order=1) for band in file.read().astype(float)])
    return np.concatenate([fine, coarse]) / 1e4


@pytest.fixture(scope="module")
def maps(scene: FloatArray) -> dict[tuple[float, float], FloatArray]:
    """Probability of the default model for the scene and for the scene shifted, by the shift."""
    from tilemap.models import registry

    model = registry.load(registry.resolve("tilemap-demo-5class"))
    mean, std = (np.array(v)[:, None, None] for v in (model.card.mean, model.card.std))
    shifts = [(px, -px / 2) for px in TRUE_PX] + [(0.0, 0.5), (0.5, 0.0)]
    return {
        by: model.predict(((by_fourier(scene, *by) - mean) / std)[SCENE].astype(np.float32))
        for by in shifts
    }


@pytest.mark.parametrize("resample", [by_fourier, by_spline])
@pytest.mark.parametrize("px", TRUE_PX)
def test_bands_shifted(scene: FloatArray, px: float, resample: type[by_fourier]) -> None:
    """The shift of the real bands, found to 0.01 pixels, whoever resampled them."""
    found = shift_of(scene[SCENE], resample(scene, px, -0.7 * px)[SCENE])
    assert found is not None
    assert (found.row, found.col) == pytest.approx((px, -0.7 * px), abs=0.01)
    assert found.blocks == 6


@pytest.mark.parametrize("px", TRUE_PX)
def test_probabilities_of_a_shifted_scene(
    maps: dict[tuple[float, float], FloatArray], px: float
) -> None:
    """The scene is shifted, the model maps it anew: found to 0.05 pixels from its maps alone."""
    found = shift_of(maps[0.0, 0.0], maps[px, -px / 2])
    assert found is not None
    assert (found.row, found.col) == pytest.approx((px, -px / 2), abs=0.05)


def test_sampled_twice_from_a_finer_scene(scene: FloatArray) -> None:
    """Pixels that are means of 5 x 5 finer ones, laid 1, 2 and 5 of them apart: no resampler."""

    def coarse(left: int) -> FloatArray:
        part = scene[:4, 10:870, left : left + 900]
        return part.reshape(4, 172, 5, 180, 5).mean(axis=(2, 4))

    for fine in (1, 2, 5):
        found = shift_of(coarse(20), coarse(20 - fine))
        assert found is not None
        assert (found.row, found.col) == pytest.approx((0, fine / 5), abs=0.02)


def test_a_large_shift_and_clouds(scene: FloatArray) -> None:
    """Many pixels off, with a third of them hidden, their numbers wild: still found."""
    moved = by_fourier(scene, 6.4, -3.2)
    noise = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=scene.shape[1:]), 12)
    valid = noise < np.quantile(noise, 0.67)
    reference, moving = np.where(valid, scene, np.nan), np.where(valid, moved, 7.0)
    found = shift_of(reference[SCENE], moving[SCENE], valid[SCENE[1:]])
    assert found is not None
    assert (found.row, found.col) == pytest.approx((6.4, -3.2), abs=0.05)


def test_brightness_does_not_matter(scene: FloatArray) -> None:
    """Another gain and haze over half of the block are no shift."""
    part = scene[SCENE][:, :SIDE, :SIDE]
    haze = np.linspace(0, 0.02, SIDE)
    found = block_shift(part, 0.8 * by_fourier(scene, 0.3, 0.1)[SCENE][:, :SIDE, :SIDE] + haze,
                        np.ones((SIDE, SIDE), bool))  # fmt: skip
    assert found is not None
    assert (found.row, found.col) == pytest.approx((0.3, 0.1), abs=0.02)


def test_too_little_texture(scene: FloatArray) -> None:
    """Flat, unrelated, one straight edge, or hidden: no shift rather than a wrong one."""
    rng = np.random.default_rng(2)
    everywhere = np.ones((96, 128), bool)
    part = scene[:, 300:396, 300:428]
    flat = np.full(part.shape, 0.3)
    edge = np.zeros((1, 96, 128))
    edge[:, :, 50:] = 1
    assert block_shift(flat, flat, everywhere) is None
    assert block_shift(part, flat, everywhere) is None
    assert block_shift(flat * 0, flat * 0, everywhere) is None
    assert block_shift(edge, edge, everywhere) is None
    assert block_shift(part, part, np.zeros((96, 128), bool)) is None
    hidden = everywhere.copy()
    hidden[10:, 10:] = False
    assert block_shift(part, part, hidden) is None
    for _ in range(20):
        noise = rng.normal(size=(2, 2, 96, 128))
        assert block_shift(noise[0], noise[1], everywhere) is None
    assert block_shift(part, part, everywhere) is not None


def test_blocks_must_fit() -> None:
    """Shapes that differ are refused."""
    with pytest.raises(GridError, match=r"\(plane, y, x\)"):
        block_shift(np.zeros((2, 8, 9)), np.zeros((2, 8, 9)), np.ones((9, 8), bool))


def test_wrong_blocks_do_no_harm() -> None:
    """Four of ten tell nonsense: left out, the shift and the spread are those of the rest."""
    rng = np.random.default_rng(3)
    good = [
        BlockShift(0.3 + rng.normal(0, 0.02), -0.1 + rng.normal(0, 0.02), 0.8) for _ in range(6)
    ]
    wrong = [BlockShift(9.0, 7.0, 0.7), BlockShift(-20, 3, 0.4), BlockShift(5, -5, 0.9),
             BlockShift(30.0, 1.0, 0.3)]  # fmt: skip
    found = robust_shift([*wrong, *good])
    assert found is not None
    assert (found.row, found.col) == pytest.approx((0.3, -0.1), abs=0.03)
    assert found.blocks == 6
    assert 0.005 < found.spread < 0.05
    assert found.size == pytest.approx(np.hypot(found.row, found.col))


def test_blocks_that_disagree_tell_nothing() -> None:
    """Without a half that tells the same there is no shift; nor without blocks."""
    assert robust_shift([]) is None
    assert robust_shift([BlockShift(10.0 * k, -7.0 * k, 0.5) for k in range(5)]) is None
    assert robust_shift([BlockShift(0.25, -0.5, 0.5)]) == Shift(0.25, -0.5, 1, 0.0)


def test_what_becomes_of_a_date() -> None:
    """Up to 0.2 px as it is, up to 0.5 moved, beyond refused with exit 65 unless accepted."""
    assert verdict(Shift(0.0, -0.2, 4, 0.0), accept=False) == "ok"
    assert verdict(Shift(-0.15, 0.15, 4, 0.005), accept=False) == "shift"
    assert verdict(Shift(0.3, -0.4, 4, 0.1), accept=True) == "shift"
    assert verdict(Shift(0.3, -0.41, 4, 0.1), accept=True) == "accepted"
    with pytest.raises(SceneMismatchError) as caught:
        verdict(Shift(0.8, -0.6, 12, 0.1), accept=False)
    assert caught.value.exit_code == 65
    for part in ("within 0.5 pixels", "1.00 pixels off", "+0.80 rows", "-0.60 columns",
                 "12 blocks", "`accept_misregistration`"):  # fmt: skip
        assert part in str(caught.value)


def test_scatter_is_no_shift() -> None:
    """Three blocks half a pixel apart tell of no shift; forty of them do."""
    assert Shift(0.3, 0.0, 4, 0.2).error == pytest.approx(0.125)
    assert verdict(Shift(0.3, 0.0, 3, 0.25), accept=False) == "ok"
    assert verdict(Shift(0.3, 0.0, 40, 0.25), accept=False) == "shift"
    with pytest.raises(SceneMismatchError, match=r"1\.20 pixels off"):
        verdict(Shift(1.2, 0.0, 3, 0.25), accept=False)


def drawn(seed: int, classes: int = 4, shape: tuple[int, int] = (23, 31)) -> ByteArray:
    """Random smooth probabilities, uint8 (class, y, x)."""
    rng = np.random.default_rng(seed)
    raw = np.stack([ndimage.gaussian_filter(rng.normal(size=shape), 2) for _ in range(classes)])
    p = np.exp(12 * raw)
    return quantise(p / p.sum(axis=0))


@pytest.mark.parametrize(
    "by", [(0.3, -0.2), (-0.45, 0.05), (1.0, 0.5), (-1.0, -1.0), (0.0, 0.7), (0.99, -0.5)]
)
def test_move_against_scipy(by: tuple[float, float]) -> None:
    """Bilinear on the renormalised probabilities, as scipy has it, to one byte."""
    q = drawn(1)
    p = shares(q).astype(float)
    oracle = np.stack([ndimage.shift(plane, (-by[0], -by[1]), order=1) for plane in p])
    moved = move(q, *by)
    assert moved.shape == (4, 21, 29)
    assert moved.dtype == np.uint8
    assert np.abs(moved - quantise(oracle[:, 1:-1, 1:-1]).astype(int)).max() <= 1


def test_move_by_whole_pixels_keeps_bytes() -> None:
    """No shift, and a whole pixel, are copies, of the right pixels."""
    q = drawn(2)
    q[:, 5:9, 3:20] = 255
    assert np.array_equal(move(q, 0, 0), q[:, 1:-1, 1:-1])
    assert np.array_equal(move(q, 1, 0), q[:, 2:, 1:-1])
    assert np.array_equal(move(q, 0, -1), q[:, 1:-1, :-2])


def test_move_undoes_what_was_found(maps: dict[tuple[float, float], FloatArray]) -> None:
    """A date moved back lies where the reference does, and differs from it less."""
    first, later = (quantise(maps[by]) for by in ((0.0, 0.0), (0.5, -0.25)))
    shift = shift_of(VALUES[first], VALUES[later])
    assert shift is not None
    moved = move(later, shift.row, shift.col)
    inner = first[:, 1:-1, 1:-1]
    left = shift_of(VALUES[inner], VALUES[moved])
    assert left is not None
    assert left.size < 0.05
    before = (first.argmax(axis=0) != later.argmax(axis=0)).mean()
    after = (inner.argmax(axis=0) != moved.argmax(axis=0)).mean()
    assert after < 0.6 * before


def test_move_keeps_what_was_not_observed() -> None:
    """The nearest pixel decides; a hidden neighbour lends no weight, and all stays in step."""
    q = drawn(3)
    q[:, 8:12, 10:20] = 255
    moved = move(q, 0.4, -0.3)
    hidden = moved == 255
    assert np.array_equal(hidden.any(axis=0), hidden.all(axis=0))
    assert np.array_equal(hidden[0], q[0, 1:-1, 1:-1] == 255)
    seen = VALUES[moved[:, ~hidden[0]]].sum(axis=0)
    assert np.abs(seen - 1).max() <= 0.03
    further = move(q, 0.6, -0.3)
    assert np.array_equal(further[0] == 255, q[0, 2:, 1:-1] == 255)
    clear = drawn(3)
    clear[:, 8:12, 10:20] = np.array([254, 0, 0, 0], dtype=np.uint8)[:, None, None]
    beside = np.s_[:, 6:7, 10:18]  # the row above, which would take 40 % from below
    assert not np.array_equal(move(clear, 0.4, 0)[beside], move(q, 0.4, 0)[beside])
    assert np.array_equal(move(q, 0.4, 0)[beside], renormalised(q)[:, 7:8, 11:19])


def renormalised(q: ByteArray) -> ByteArray:
    """What a pixel becomes that only it itself lends weight to."""
    return quantise(shares(q))


@pytest.mark.parametrize("by", [(1.01, 0.0), (0.0, -1.2), (float("nan"), 0.0)])
def test_move_within_the_margin(by: tuple[float, float]) -> None:
    """More than the margin of one pixel cannot be moved."""
    with pytest.raises(GridError, match="up to 1 pixel"):
        move(drawn(4), *by)
    with pytest.raises(GridError, match="3 x 3"):
        move(drawn(4)[:, :2], 0, 0)


def differing(labels: npt.NDArray[np.integer]) -> float:
    """Share E of differing pairs of 4-neighbours."""
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    return float((down.sum() + right.sum()) / (down.size + right.size))


@pytest.mark.parametrize("px", [0.1, 0.3, 0.5, 1.0])
def test_false_change_of_a_moved_map(
    maps: dict[tuple[float, float], FloatArray], px: float
) -> None:
    """Of a real map against itself, s pixels off, s * E change: within 12 % of that.

    Of a tenth of a pixel within 20 %: it moves some probabilities by less than half a byte.
    """
    q = quantise(maps[0.0, 0.0])
    inner = q[:, 1:-1, 1:-1]
    changed = []
    for by in ((px, 0.0), (0.0, px)):
        pair = np.stack([inner.reshape(5, -1), move(q, *by).reshape(5, -1)])
        labels = pcc(pair).labels
        changed.append((labels[0] != labels[1]).mean())
    assert np.mean(changed) == pytest.approx(
        px * differing(q.argmax(axis=0)), rel=0.12 if px > 0.1 else 0.2
    )


def test_false_change_of_a_shifted_scene(maps: dict[tuple[float, float], FloatArray]) -> None:
    """The model maps the scene anew, half a pixel off: s * E, within a third."""
    first = maps[0.0, 0.0].argmax(axis=0)
    changed = [(maps[by].argmax(axis=0) != first).mean() for by in ((0.5, 0.0), (0.0, 0.5))]
    assert np.mean(changed) == pytest.approx(0.5 * differing(first), rel=0.33)
